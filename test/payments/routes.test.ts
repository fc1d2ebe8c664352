// Priced routes over HTTP: one decision for limits and money, and what becomes of a charge as its response ends.

import { connect } from 'node:net'
import type { Request } from 'express'
import { describe, expect, it } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import type { LimiterOptions, RouteOptions } from '../../src/options.ts'
import type { PaymentsOptions } from '../../src/payments/options.ts'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { CreditLedger } from '../../src/payments/ledger.ts'
import { x402 } from '../../src/payments/x402.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import type { Store } from '../../src/stores/store.ts'
import {
  expressVersions,
  keepErrors,
  opened,
  serve,
  tellDecision,
  type Ask,
  type Reply,
  type Served,
} from '../http/serve.ts'
import { stores } from '../http/stores.ts'

const account = 'key:acme'
const asAcme: Ask = { headers: { 'x-api-key': 'acme' } }

interface Shop {
  readonly ledger: CreditLedger
  readonly served: Served
  readonly errors: readonly unknown[]
  readonly ask: (path: string) => Promise<Reply>
  /** Resolves when the account has so much, as it will once what is under way is done. */
  readonly has: (available: number, held?: number) => Promise<void>
}

type Handlers = Record<
  string,
  { route: RouteOptions; handle?: (req: Request, res: Parameters<typeof tellDecision>[1]) => unknown }
>

async function shop(
  store: Store,
  handlers: Handlers,
  options: LimiterOptions<'default'> & { granted?: number } = {},
  { express } = expressVersions[0]!,
): Promise<Shop> {
  const { granted = 100, payments, ...rest } = options
  const ledger = creditLedger({ store, acceptLoss: true })
  const limiter = opened(
    rampmeter({
      store,
      identify: [
        apiKey({
          lookup: (key) => Promise.resolve(key === 'acme' ? { id: 'acme', type: 'agent' } : null),
          unknown: 'refuse',
        }),
      ],
      policies: [tokenBucket({ name: 'all', quota: 1000, window: '1h' })],
      payments: { ledger, ...payments },
      deadline: '5s',
      ...(rest as object),
    }),
  )
  const { errors, handler } = keepErrors()
  const app = express()
  for (const [path, { route, handle }] of Object.entries(handlers)) {
    app.get(path, limiter.route(route), async (req, res, next) => {
      if (handle === undefined) return void tellDecision(req, res, next)
      try {
        await handle(req, res)
      } catch (error) {
        next(error)
      }
    })
  }
  app.use(handler)
  await limiter.ready()
  if (granted > 0) await ledger.grant(account, granted)
  const served = await serve(app)
  return {
    ledger,
    served,
    errors,
    ask: (path) => served.ask(path, asAcme),
    has: async (available, held = 0) => {
      await expect.poll(() => ledger.balance(account), { timeout: 10_000 }).toEqual({ available, held })
      const audit = await ledger.audit(account)
      expect(audit).toMatchObject({ granted, consistent: true })
      expect(audit.granted).toBe(audit.available + audit.held + audit.spent - audit.refunded)
    },
  }
}

describe.each(stores)('a priced route, $name', ({ makeStore }) => {
  it.each(expressVersions)('is charged with its limits, once, on $name', async (version) => {
    const { ask, has, ledger } = await shop(
      await makeStore(),
      { '/render': { route: { price: { credits: 5 } } } },
      {},
      version,
    )
    const { status, json } = await ask('/render')
    expect({ status, payment: json.payment }).toMatchObject({ status: 200, payment: { account, credits: 5 } })
    await has(95)
    const { chargeId } = json.payment as { chargeId: string }
    expect((await ledger.history(account)).at(-1)).toMatchObject({
      type: 'charge',
      available: -5,
      held: 0,
      ref: chargeId,
    })
    await ledger.refund(chargeId, 2)
    await has(97)
    await expect(ledger.refund(chargeId, 4)).rejects.toMatchObject({ code: 'RAMPMETER_CHARGE_EXCEEDED' })
    await ledger.refund(chargeId)
    await has(100)
  })

  it('charges nothing where limits refuse, and uses no quota where credit is short', async () => {
    const { ask, has } = await shop(
      await makeStore(),
      {
        '/tight': {
          route: { price: { credits: 5 }, policies: [tokenBucket({ name: 'tight', quota: 1, window: '1h' })] },
        },
        '/dear': { route: { price: { credits: 500 } } },
        '/free': { route: {} },
      },
      { payments: { topUpUrl: 'https://shop.example/credits' } },
    )
    expect((await ask('/tight')).status).toBe(200)
    const refused = await ask('/tight')
    expect(refused.status).toBe(429)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3000)
    await has(95)

    const before = (await ask('/free')).json.limits[0].remaining as number
    const unpaid = await ask('/dear')
    expect(unpaid.status).toBe(402)
    expect(unpaid.headers).toMatchObject({ 'cache-control': 'no-store', 'content-type': 'application/problem+json' })
    expect(unpaid.headers['retry-after']).toBeUndefined()
    expect(unpaid.json).toMatchObject({
      type: 'about:blank',
      title: 'Payment Required',
      status: 402,
      retryable: false,
      error: {
        type: 'payment_required',
        price: { credits: 500 },
        balance: { available: 95, held: 0 },
        ways: [{ provider: 'credits', topUpUrl: 'https://shop.example/credits' }],
      },
    })
    // The request that asks costs one itself.
    expect((await ask('/free')).json.limits[0].remaining).toBe(before - 1)
    await has(95)
  })

  it('asks for a credential first, and tells limits before money', async () => {
    const { served, ask } = await shop(
      await makeStore(),
      {
        '/dear': {
          route: {
            price: { credits: 500 },
            policies: [tokenBucket({ name: 'tight', quota: 1, window: '1h' })],
            cost: 1,
          },
        },
      },
      { granted: 500 },
    )
    expect((await served.ask('/dear', { headers: { 'x-api-key': 'wrong' } })).status).toBe(401)
    expect((await ask('/dear')).status).toBe(200)
    // Now there is neither room nor credit.
    expect((await ask('/dear')).status).toBe(429)
  })

  it('settles to the true cost, up as far as there is credit', async () => {
    const settleTo = (credits: number) => async (req: Request, res: Parameters<typeof tellDecision>[1]) => {
      await req.rateLimit!.payment!.settle(credits)
      res.json({ credits: req.rateLimit!.payment!.credits })
    }
    const price = async (): Promise<{ credits: number }> => ({ credits: 20 })
    const { ask, has } = await shop(await makeStore(), {
      '/less': { route: { price }, handle: settleTo(7) },
      '/more': { route: { price }, handle: settleTo(33) },
      '/most': { route: { price }, handle: settleTo(1000) },
      '/nothing': { route: { price: () => ({ credits: 0 }) } },
    })
    expect((await ask('/less')).json).toEqual({ credits: 7 })
    await has(93)
    expect((await ask('/more')).json).toEqual({ credits: 33 })
    await has(60)
    expect((await ask('/most')).json).toEqual({ credits: 60 })
    await has(0)
    const free = await ask('/nothing')
    expect({ status: free.status, payment: free.json.payment }).toEqual({ status: 200, payment: undefined })
  })

  it('gives back, once, what was not delivered', async () => {
    const { ask, has, ledger } = await shop(await makeStore(), {
      '/throws': { route: { price: { credits: 5 } }, handle: () => Promise.reject(new Error('no')) },
      '/fails': { route: { price: { credits: 5 } }, handle: (_, res) => res.status(503).end() },
      '/missing': { route: { price: { credits: 5 } }, handle: (_, res) => res.status(404).end() },
    })
    expect((await ask('/throws')).status).toBe(500)
    await has(100)
    expect((await ask('/fails')).status).toBe(503)
    await has(100)
    expect((await ask('/missing')).status).toBe(404)
    await has(95)
    const refunds = (await ledger.history(account)).filter(({ type }) => type === 'refund')
    expect(refunds.map(({ available }) => available)).toEqual([5, 5])
  })

  it('has who hangs up pay for what was begun, unless the handler fails or the price says otherwise', async () => {
    type Answer = Parameters<typeof tellDecision>[1]
    const price = { credits: 5 }
    const works = (_: Request, res: Answer): unknown => res.json({})
    const settles = async (req: Request, res: Answer): Promise<unknown> => {
      await req.rateLimit!.payment!.settle(4)
      return res.json({})
    }
    const gone: Record<string, { route: RouteOptions; handle: (req: Request, res: Answer) => unknown; left: number }> =
      {
        '/works': { route: { price }, handle: works, left: 95 },
        '/never-answers': { route: { price }, handle: () => {}, left: 95 },
        '/gives-back': { route: { price }, handle: (req) => req.rateLimit!.payment!.settle(0), left: 100 },
        '/throws': { route: { price }, handle: () => Promise.reject(new Error('no')), left: 100 },
        '/fails': { route: { price }, handle: (_, res) => res.status(503).end(), left: 100 },
        '/refuses': { route: { price }, handle: (_, res) => res.status(404).end(), left: 95 },
        '/free': { route: { price: { ...price, hangUp: 'free' } }, handle: works, left: 100 },
        '/free-settled': { route: { price: { ...price, hangUp: 'free' } }, handle: settles, left: 96 },
      }
    let arrived = (): void => {}
    let goOn = (): void => {}
    const waits = async (req: Request): Promise<void> => {
      const until = new Promise<void>((resolve) => (goOn = resolve))
      arrived()
      if (req.path === '/free-settled') await req.rateLimit!.payment!.settle(4)
      await until
    }
    const handlers = Object.entries(gone).map(([path, { route, handle }]) => [
      path,
      {
        route,
        handle: async (req: Request, res: Answer) => {
          await waits(req)
          return await handle(req, res)
        },
      },
    ])
    const { served, ledger } = await shop(await makeStore(), Object.fromEntries(handlers) as Handlers)
    let had = 100
    for (const [path, { left }] of Object.entries(gone)) {
      const here = new Promise<void>((resolve) => (arrived = resolve))
      const socket = connect(served.port, '127.0.0.1')
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nX-API-Key: acme\r\n\r\n`)
      await here
      const ended = new Promise((resolve) => socket.once('close', resolve))
      socket.destroy()
      await ended
      // The server hears of it with its next turns.
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      goOn()
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      had -= 100 - left
      await expect
        .poll(() => ledger.balance(account), { timeout: 10_000, message: path })
        .toEqual({ available: had, held: 0 })
    }
    const audit = await ledger.audit(account)
    expect(audit).toMatchObject({ available: had, consistent: true })
  })

  it('keeps the deposit of who hangs up, unless the handler refuses', async () => {
    let arrived = (): void => {}
    let goOn = (): void => {}
    const answer =
      (status: number) =>
      async (_: Request, res: Parameters<typeof tellDecision>[1]): Promise<unknown> => {
        const until = new Promise<void>((resolve) => (goOn = resolve))
        arrived()
        await until
        return res.status(status).end()
      }
    const route: RouteOptions = { price: { credits: 10, hold: '15m' } }
    const { served, has } = await shop(await makeStore(), {
      '/booked': { route, handle: answer(201) },
      '/full': { route, handle: answer(409) },
    })
    for (const path of ['/booked', '/full']) {
      const here = new Promise<void>((resolve) => (arrived = resolve))
      const socket = connect(served.port, '127.0.0.1')
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nX-API-Key: acme\r\n\r\n`)
      await here
      const ended = new Promise((resolve) => socket.once('close', resolve))
      socket.destroy()
      await ended
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      goOn()
    }
    await has(90, 10)
  })

  it('keeps a deposit after a success until somebody says, gives it back after a refusal', async () => {
    const { ask, has, ledger } = await shop(await makeStore(), {
      '/book': { route: { price: { credits: 50, hold: '15m' } } },
      '/full': { route: { price: { credits: 50, hold: '15m' } }, handle: (_, res) => res.status(409).end() },
      '/keep': {
        route: { price: { credits: 50, hold: '15m' } },
        handle: async (req, res) => {
          const payment = req.rateLimit!.payment!
          await payment.capture(42)
          const second = await payment.capture().catch((error: { code: string }) => error.code)
          res.json({ second })
        },
      },
    })
    const { json } = await ask('/book')
    await has(50, 50)
    expect((await ask('/full')).status).toBe(409)
    await has(50, 50)
    const { chargeId } = json.payment as { chargeId: string }
    await expect(ledger.capture(chargeId, 51)).rejects.toMatchObject({ code: 'RAMPMETER_CHARGE_EXCEEDED' })
    await ledger.release(chargeId)
    await ledger.release(chargeId)
    await has(100)
    await expect(ledger.capture(chargeId)).rejects.toMatchObject({ code: 'RAMPMETER_HOLD_ENDED' })
    expect((await ask('/keep')).json).toEqual({ second: 'RAMPMETER_ALREADY_CAPTURED' })
    await has(58)
  })

  it('gives back what was answered 4xx where the price says so', async () => {
    const { ask, has } = await shop(await makeStore(), {
      '/missing': { route: { price: { credits: 5, free: 'errors' } }, handle: (_, res) => res.status(404).end() },
      '/found': { route: { price: { credits: 5, free: 'errors' } } },
      '/settled': {
        route: { price: { credits: 5, free: 'errors' } },
        handle: async (req, res) => {
          await req.rateLimit!.payment!.settle(3)
          res.status(422).end()
        },
      },
    })
    expect((await ask('/missing')).status).toBe(404)
    await has(100)
    expect((await ask('/settled')).status).toBe(422)
    await has(100)
    expect((await ask('/found')).status).toBe(200)
    await has(95)
  })

  it('charges no money in shadow', async () => {
    const { ask, has } = await shop(
      await makeStore(),
      { '/dear': { route: { price: { credits: 500 } } } },
      { mode: 'shadow' },
    )
    const { status, json } = await ask('/dear')
    expect({ status, payment: json.payment }).toEqual({ status: 200, payment: undefined })
    await has(100)
  })

  it('stops asking whoever ignores it: 402s are limited, then 429', async () => {
    const { ask } = await shop(
      await makeStore(),
      { '/dear': { route: { price: { credits: 500 } } } },
      { payments: { challenges: { quota: 3, window: '1m' } } },
    )
    const statuses = []
    for (let nth = 0; nth < 5; nth += 1) statuses.push((await ask('/dear')).status)
    expect(statuses).toEqual([402, 402, 402, 429, 429])
    const last = await ask('/dear')
    expect(last.json).toMatchObject({ 'violated-policies': ['payment-challenges'] })
    expect(Number(last.headers['retry-after'])).toBeGreaterThan(0)
  })

  it('never charges more than there is, however many ask at once', async () => {
    const { ask, has } = await shop(
      await makeStore(),
      { '/render': { route: { price: { credits: 7 } } } },
      { payments: { challenges: { quota: 1000, window: '1m' } } },
    )
    const replies = await Promise.all(Array.from({ length: 40 }, () => ask('/render')))
    expect(replies.filter(({ status }) => status === 200).length).toBe(14)
    expect(replies.filter(({ status }) => status === 402).length).toBe(26)
    await has(2)
  })
})

describe('a key that nobody has', () => {
  async function door(options: LimiterOptions<'default'> = {}): Promise<Served> {
    const store = memoryStore()
    const limiter = opened(
      rampmeter({
        store,
        // By default a key that is not known leaves the request anonymous.
        identify: [apiKey({ lookup: (key) => (key === 'acme' ? { id: 'acme', type: 'agent' } : null) })],
        policies: [tokenBucket({ quota: 100, window: '1h' })],
        ...(options as object),
        payments: { ledger: creditLedger({ store }), ...options.payments },
      }),
    )
    const app = expressVersions[0]!.express()
    app.get('/priced', limiter.route({ price: () => ({ credits: 5 }) }), tellDecision)
    app.get('/sometimes', limiter.route({ price: () => ({ credits: 0 }) }), tellDecision)
    app.get('/free', limiter.route({}), tellDecision)
    return await serve(app)
  }
  const withKey = (key: string): Ask => ({ headers: { 'x-api-key': key } })

  it('is 401 on a priced route, before money is asked for', async () => {
    const served = await door()
    for (const key of ['wrong', 'x'.repeat(5000)]) {
      const { status, headers, json } = await served.ask('/priced', withKey(key))
      expect({ status, type: json.error.type, challenge: headers['www-authenticate'] }).toEqual({
        status: 401,
        type: 'invalid_credential',
        challenge: expect.stringContaining('x-api-key') as string,
      })
    }
    expect((await served.ask('/free', withKey('wrong'))).status).toBe(200)
    // Who has a key is asked for money.
    expect((await served.ask('/priced', withKey('acme'))).status).toBe(402)
  })

  it('asks who shows none for one, where only an account of a client can pay', async () => {
    const served = await door()
    const { status, headers, json } = await served.ask('/priced')
    expect({ status, type: json.error.type, challenge: headers['www-authenticate'] }).toEqual({
      status: 401,
      type: 'invalid_credential',
      challenge: expect.stringContaining('x-api-key') as string,
    })
    expect(headers['cache-control']).toBe('no-store')
    // What costs nothing asks nobody.
    expect((await served.ask('/sometimes')).status).toBe(200)
    expect((await served.ask('/free')).status).toBe(200)
  })

  const coins = x402({
    facilitator: 'https://facilitator.example',
    network: 'eip155:84532',
    asset: '0x036CbD53842c5426634e7929541eC2318f3dCF7e',
    payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
    extra: { name: 'USDC', version: '2' },
    perCredit: '1000',
  })

  it.each<[string, PaymentsOptions, number]>([
    ['strangers can pay on the spot', { providers: [coins] }, 402],
    ['the app says whose account it is', { account: () => 'customer:7' }, 402],
    ['it is said to be optional', { identity: 'optional' }, 402],
    ['it is said to be required', { providers: [coins], identity: 'required' }, 401],
  ])('%s: who shows none is answered %s', async (_, payments, status) => {
    const served = await door({ payments })
    expect((await served.ask('/priced')).status).toBe(status)
    expect((await served.ask('/priced', withKey('wrong'))).status).toBe(401)
    expect((await served.ask('/priced', withKey('acme'))).status).toBe(402)
  })

  it('has to be one that can be shown', () => {
    expect(() => rampmeter({ policies: [], payments: { providers: [coins], identity: 'required' } })).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
  })

  it('changes nothing in shadow, where nothing is charged', async () => {
    const served = await door({ mode: 'shadow' })
    expect((await served.ask('/priced', withKey('wrong'))).status).toBe(200)
  })
})

describe('a priced route behind an outer limiter', () => {
  it('is charged once, at the price of the innermost', async () => {
    const store = memoryStore()
    const ledger = creditLedger({ store })
    const limiter = opened(
      rampmeter({
        store,
        policies: [tokenBucket({ quota: 100, window: '1h' })],
        payments: { ledger, account: () => account },
        routes: { '/chat': { price: { credits: 9 } } },
      }),
    )
    const app = expressVersions[0]!.express()
    app.use(limiter)
    app.get('/chat', limiter.route({ price: { credits: 4 } }), tellDecision)
    app.get('/dear', limiter.route({ price: { credits: 400 } }), tellDecision)
    await ledger.grant(account, 20)
    const served = await serve(app)
    const ask = (path: string): Promise<Reply> => served.ask(path)
    expect((await ask('/chat')).json.payment).toMatchObject({ credits: 4 })
    expect(await ledger.balance(account)).toEqual({ available: 16, held: 0 })
    const refused = await ask('/dear')
    expect(refused.status).toBe(402)
    // What the outer limiter took for a request that the inner one refused is given back with it.
    expect((await ask('/chat')).json.limits[0].remaining).toBe(98)
  })
})

describe('mistakes', () => {
  const store = memoryStore()
  const ledger = creditLedger({ store })
  const policies = [tokenBucket({ quota: 100, window: '1h' })]
  const coins = x402({
    facilitator: 'https://facilitator.example',
    network: 'eip155:84532',
    asset: '0x036CbD53842c5426634e7929541eC2318f3dCF7e',
    payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
    extra: { name: 'USDC', version: '2' },
    perCredit: '1000',
  })

  it('a deposit that only a function asks for, and nobody could hold', async () => {
    const limiter = opened(rampmeter({ policies, payments: { providers: [coins] } }))
    const { handler } = keepErrors()
    const app = expressVersions[0]!.express()
    app.get('/', limiter.route({ price: () => ({ credits: 5, hold: '1m' }) }), tellDecision)
    app.use(handler)
    const { status, json } = await (await serve(app)).ask()
    expect({ status, code: json.code }).toEqual({ status: 500, code: 'RAMPMETER_PAYMENT_UNSUPPORTED' })
  })

  it.each([
    [
      'no payments',
      () => rampmeter({ store, policies }).route({ price: { credits: 1 } }),
      'RAMPMETER_PAYMENTS_MISSING',
    ],
    [
      'another store',
      () => rampmeter({ store: memoryStore(), policies, payments: { ledger } }),
      'RAMPMETER_LEDGER_STORE',
    ],
    ['nobody to pay', () => rampmeter({ store, policies, payments: {} }), 'RAMPMETER_INVALID_OPTION'],
    [
      'a part of a credit',
      () => rampmeter({ store, policies, payments: { ledger } }).route({ price: { credits: 0.5 } }),
      'RAMPMETER_INVALID_PRICE',
    ],
    [
      'nobody who could hold a deposit',
      () => rampmeter({ policies, payments: { providers: [coins] } }).route({ price: { credits: 5, hold: '1m' } }),
      'RAMPMETER_PAYMENT_UNSUPPORTED',
    ],
    [
      'nobody who could hold a deposit, in `routes`',
      () =>
        rampmeter({
          policies,
          payments: { providers: [coins] },
          routes: { '/book': { price: { credits: 5, hold: '1m' } } },
        }),
      'RAMPMETER_PAYMENT_UNSUPPORTED',
    ],
    [
      'a misspelt option of challenges',
      () => rampmeter({ store, policies, payments: { ledger, challenges: { quta: 5 } as object } }),
      'RAMPMETER_UNKNOWN_OPTION',
    ],
    [
      'a hang-up that is what there is not',
      () =>
        rampmeter({ store, policies, payments: { ledger } }).route({
          price: { credits: 1, hangUp: 'never' as 'free' },
        }),
      'RAMPMETER_INVALID_PRICE',
    ],
    [
      'free for what there is not',
      () =>
        rampmeter({ store, policies, payments: { ledger } }).route({
          price: { credits: 1, free: 'always' as 'errors' },
        }),
      'RAMPMETER_INVALID_PRICE',
    ],
    [
      'a deadline that is none',
      () => rampmeter({ store, policies, payments: { ledger } }).route({ price: { credits: 1, hold: 'soon' as '1s' } }),
      'RAMPMETER_INVALID_DURATION',
    ],
  ])('%s', (_, make, code) => {
    expect(make).toThrow(expect.objectContaining({ code }))
  })

  it.each([
    [() => ({ credits: -1 })],
    [() => ({ credits: 1.5 })],
    [() => ({ credits: 1e13 })],
    [() => ({ credits: '5' as unknown as number })],
    [() => Promise.reject(new Error('no price'))],
    [() => undefined as unknown as { credits: number }],
  ])('a price that comes out wrong fails the request and charges nothing: %s', async (price) => {
    const { ask, has } = await shop(memoryStore(), { '/x': { route: { price } } })
    const { status, json } = await ask('/x')
    expect({ status, code: json.code }).toEqual({ status: 500, code: 'RAMPMETER_INVALID_PRICE' })
    await has(100)
  })

  it.each([[-1], [0], [0.5], [Number.NaN], [1e13], ['5' as unknown as number]])('amounts: %s', async (credits) => {
    const code = 'RAMPMETER_INVALID_AMOUNT'
    await expect(ledger.grant(account, credits)).rejects.toMatchObject({ code })
    await expect(ledger.hold(account, credits, { ttl: '1m' })).rejects.toMatchObject({ code })
    expect(await ledger.balance(account)).toEqual({ available: 0, held: 0 })
  })

  it('of what is not known', async () => {
    await expect(ledger.hold('key:nobody', 1, { ttl: '1m' })).rejects.toMatchObject({
      code: 'RAMPMETER_INSUFFICIENT_CREDIT',
    })
    await expect(ledger.capture('nonsense')).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_CHARGE' })
    await expect(ledger.refund(`${'a'.repeat(22)}.${'b'.repeat(16)}`)).rejects.toMatchObject({
      code: 'RAMPMETER_UNKNOWN_CHARGE',
    })
    await expect(ledger.grant('', 1)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_ACCOUNT' })
  })

  it('one key for two amounts', async () => {
    const { id } = await ledger.grant('key:twice', 5, { idempotencyKey: 'event' })
    expect(await ledger.grant('key:twice', 5, { idempotencyKey: 'event' })).toEqual({
      id,
      balance: { available: 5, held: 0 },
    })
    await expect(ledger.grant('key:twice', 6, { idempotencyKey: 'event' })).rejects.toMatchObject({
      code: 'RAMPMETER_IDEMPOTENCY_CLASH',
    })
  })
})
