// What a ledger's calls take and refuse, on both stores; and what becomes of them when it is closed, or its Redis stands still.

import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { CreditHold, CreditLedger, HistoryEntry, HistoryOptions } from '../../src/payments/ledger.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { expressVersions, opened, serve, tellDecision } from '../http/serve.ts'
import { clientOf, redisProcess } from '../http/redis-process.ts'
import { stores } from '../http/stores.ts'

const account = 'key:acme'

describe.each(stores)('a ledger, $name', ({ makeStore }) => {
  async function open(): Promise<CreditLedger> {
    const ledger = opened(creditLedger({ store: await makeStore(), acceptLoss: true }))
    await ledger.grant(account, 10)
    return ledger
  }

  it('revokes nothing of an account that was never granted anything', async () => {
    const ledger = await open()
    await expect(ledger.revoke('key:acmee', 5)).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_ACCOUNT' })
    expect(await ledger.balance('key:acmee')).toEqual({ available: 0, held: 0 })
    expect(await ledger.history('key:acmee')).toEqual([])
    // Of one that was, below zero.
    expect((await ledger.revoke(account, 15)).balance).toEqual({ available: -5, held: 0 })
    expect((await ledger.revoke(account, 1)).balance).toEqual({ available: -6, held: 0 })
  })

  it('refuses options that there are not, and moves nothing', async () => {
    const ledger = await open()
    const { id } = await ledger.hold(account, 2, { ttl: '1h' })
    await ledger.capture(id)
    const misspelt = { idempotencykey: 'evt_1' } as { idempotencyKey?: string }
    const code = 'RAMPMETER_UNKNOWN_OPTION'
    await expect(ledger.grant(account, 5, misspelt)).rejects.toMatchObject({ code })
    await expect(ledger.revoke(account, 5, misspelt)).rejects.toMatchObject({ code })
    await expect(ledger.revoke(account, 5, { purchase: 'pi_1' } as object)).rejects.toMatchObject({ code })
    await expect(ledger.refund(id, 1, misspelt)).rejects.toMatchObject({ code })
    await expect(ledger.hold(account, 1, { ttl: '1m', for: 'x' } as { ttl: '1m' })).rejects.toMatchObject({ code })
    await expect(ledger.history(account, { from: 5 } as object)).rejects.toMatchObject({ code })
    await expect(ledger.audit(account, { repair: true } as object)).rejects.toMatchObject({ code })
    expect(await ledger.balance(account)).toEqual({ available: 8, held: 0 })
  })

  it.each([
    ['undefined', { idempotencyKey: undefined as unknown as string }],
    ['a number', { idempotencyKey: 7 as unknown as string }],
    ['nothing', { idempotencyKey: '' }],
    ['too long', { idempotencyKey: 'x'.repeat(513) }],
    ['no options at all', 'evt_1' as unknown as object],
    ['a purchase of nothing', { purchase: undefined as unknown as string }],
  ])('takes no key that names nothing: %s', async (_, options) => {
    const ledger = await open()
    await expect(ledger.grant(account, 5, options)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_OPTION' })
    expect(await ledger.balance(account)).toEqual({ available: 10, held: 0 })
  })

  it.each([[{ since: 'yesterday' }], [{ since: null }], [{ since: -1 }], [{ limit: 0 }], [{ limit: '5' }]])(
    'tells no history of %o',
    async (options) => {
      const ledger = await open()
      await expect(ledger.history(account, options as object)).rejects.toMatchObject({
        code: 'RAMPMETER_INVALID_OPTION',
      })
    },
  )

  it('holds once under a key, whatever became of it since', async () => {
    const ledger = await open()
    const options = { ttl: '1h', idempotencyKey: 'order 1' } as const
    const first = await ledger.hold(account, 6, options)
    const again = await ledger.hold(account, 6, options)
    expect([again.id, again.balance]).toEqual([first.id, { available: 4, held: 6 }])
    await expect(ledger.hold(account, 5, options)).rejects.toMatchObject({ code: 'RAMPMETER_IDEMPOTENCY_CLASH' })
    await ledger.capture(first.id, 5)
    // There would not be enough for another.
    await ledger.hold(account, 5, { ttl: '1h' })
    expect(await ledger.hold(account, 6, options)).toMatchObject({ id: first.id, balance: { available: 0, held: 5 } })
    // Of another account, or under another key, it is another.
    await ledger.grant('key:other', 6)
    expect((await ledger.hold('key:other', 6, options)).id).not.toBe(first.id)
    await expect(ledger.hold(account, 6, { ...options, idempotencyKey: 'order 2' })).rejects.toMatchObject({
      code: 'RAMPMETER_INSUFFICIENT_CREDIT',
    })
    const held = await Promise.all(
      Array.from({ length: 8 }, () =>
        ledger.hold('key:other', 1, { ...options, idempotencyKey: 'many' }).catch(() => null),
      ),
    )
    expect(held.every((one) => one === null)).toBe(true)
    expect(await ledger.balance('key:other')).toEqual({ available: 0, held: 6 })
  })

  it('refunds under a key of its own for each charge', async () => {
    const ledger = await open()
    await ledger.grant(account, 5, { idempotencyKey: 'k' })
    const holds = [await ledger.hold(account, 6, { ttl: '1h' }), await ledger.hold(account, 6, { ttl: '1h' })]
    for (const { id } of holds) {
      await ledger.capture(id)
      for (let nth = 0; nth < 2; nth += 1) await ledger.refund(id, 5, { idempotencyKey: 'k' })
    }
    expect(await ledger.balance(account)).toEqual({ available: 13, held: 0 })
    await expect(ledger.revoke(account, 5, { idempotencyKey: 'k' })).rejects.toMatchObject({
      code: 'RAMPMETER_IDEMPOTENCY_CLASH',
      message: expect.stringContaining('a grant and its revoke are two things') as string,
    })
  })

  it('tells in its history what the app calls a grant, and that a hold was captured for nothing', async () => {
    const ledger = await open()
    await ledger.grant(account, 5, { idempotencyKey: 'evt_1', purchase: 'pi_1' })
    await ledger.grant(account, 5, { purchase: 'pi_2' })
    await ledger.revoke(account, 1, { idempotencyKey: 'evt_3' })
    const { id } = await ledger.hold(account, 4, { ttl: '1h' })
    await ledger.capture(id, 0)
    await expect(ledger.capture(id)).rejects.toMatchObject({ code: 'RAMPMETER_ALREADY_CAPTURED' })
    const told = (await ledger.history(account)).map(({ type, available, held, ref }) => [type, available, held, ref])
    expect(told).toEqual([
      ['grant', 10, 0, null],
      ['grant', 5, 0, 'evt_1'],
      ['grant', 5, 0, 'pi_2'],
      ['revoke', -1, 0, 'evt_3'],
      ['hold', -4, 4, id],
      ['capture', 4, -4, id],
    ])
    expect(await ledger.audit(account)).toMatchObject({ available: 19, spent: 0, consistent: true })
  })

  it('says so where pages cannot go on, since what comes next was trimmed together with what was told', async () => {
    const ledger = opened(creditLedger({ store: await makeStore(), acceptLoss: true, history: 100 }))
    let grants = 0
    const grant = async (times: number): Promise<void> => {
      for (let nth = 0; nth < times; nth += 1) await ledger.grant(account, 1, { idempotencyKey: `${(grants += 1)}` })
    }
    const trimmed = expect.objectContaining({ code: 'RAMPMETER_HISTORY_TRIMMED' }) as Error
    await grant(110)
    const whole = await ledger.history(account)
    expect(whole.length).toBe(110)
    const after = ({ id }: HistoryEntry, options: HistoryOptions = {}): Promise<HistoryEntry[]> =>
      ledger.history(account, { after: id, limit: 5, ...options })
    await grant(110)
    const [sum, ...rest] = await ledger.history(account)
    expect(sum).toMatchObject({ type: 'checkpoint', available: 220 - rest.length })
    // The last that was trimmed has all that follows; nothing that came before it can be told any more.
    const last = whole.find(({ id }) => `${id}~` === sum!.id)!
    expect(await after(last)).toEqual(rest.slice(0, 5))
    await expect(after(last, { newestFirst: true })).rejects.toThrow(trimmed)
    for (const newestFirst of [false, true]) await expect(after(whole[4]!, { newestFirst })).rejects.toThrow(trimmed)
    // What was told up to the sum is whole, and so is what comes after it, until that is trimmed too.
    expect(await after(sum!)).toEqual(rest.slice(0, 5))
    expect(await after(rest[2]!, { newestFirst: true })).toEqual([rest[1], rest[0], sum])
    expect(await after(rest[5]!, { newestFirst: true })).toEqual(rest.slice(0, 5).toReversed())
    await grant(110)
    await expect(after(sum!)).rejects.toThrow(trimmed)
    expect(await after(sum!, { newestFirst: true })).toEqual([])
    await expect(after(rest[2]!, { newestFirst: true })).rejects.toThrow(trimmed)
  })

  it('tells its history page by page, from either end', async () => {
    const ledger = opened(creditLedger({ store: await makeStore(), acceptLoss: true, history: 100 }))
    // So many that the oldest are trimmed.
    for (let nth = 0; nth < 230; nth += 1) await ledger.grant(account, 1, { idempotencyKey: `${nth}` })
    const all = await ledger.history(account)
    expect(all[0]!.type).toBe('checkpoint')
    expect(all.reduce((sum, { available }) => sum + available, 0)).toBe(230)
    for (const newestFirst of [false, true]) {
      const pages: HistoryEntry[] = []
      for (;;) {
        const last = pages.at(-1)
        const page = await ledger.history(account, { limit: 7, newestFirst, ...(last && { after: last.id }) })
        expect(page.length).toBeLessThanOrEqual(7)
        if (page.length === 0) break
        pages.push(...page)
      }
      expect(pages).toEqual(newestFirst ? all.toReversed() : all)
    }
    expect(await ledger.history(account, { newestFirst: true, limit: all.length })).toEqual(all.toReversed())
    const { at } = all[60]!
    const since = all.filter((one) => one.at >= at)
    expect(await ledger.history(account, { since: at })).toEqual(since)
    expect(await ledger.history(account, { since: at, newestFirst: true })).toEqual(since.toReversed())
    expect(await ledger.history(account, { since: at, after: all[0]!.id })).toEqual(since)
    await ledger.grant('key:other', 1)
    const [other] = await ledger.history('key:other')
    for (const after of [other!.id, 'x', 5, all[3]!.id.slice(3)]) {
      await expect(ledger.history(account, { after: after as string })).rejects.toMatchObject({
        code: 'RAMPMETER_INVALID_OPTION',
      })
    }
  })

  it('stays closed', async () => {
    const ledger = await open()
    const { id } = await ledger.hold(account, 2, { ttl: '1h' })
    await ledger.close()
    await ledger.close()
    for (const call of [
      () => ledger.ready(),
      () => ledger.grant(account, 1),
      () => ledger.balance(account),
      () => ledger.capture(id),
      () => ledger.history(account),
      () => ledger.audit(account),
    ]) {
      await expect(call()).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
    }
  })
})

it.each([[{ deadline: 'soon' }], [{ deadline: 0 }], [{ dedline: '1s' }], [{ history: 5 }]])(
  'a ledger with %o is a mistake',
  (wrong) => {
    expect(() => creditLedger({ store: memoryStore(), ...(wrong as object) })).toThrow(
      /RAMPMETER_(INVALID_DURATION|UNKNOWN_OPTION|INVALID_OPTION)/,
    )
  },
)

describe('on Redis', () => {
  it('opens no connection again once the last limiter is closed, which would keep the process alive', async () => {
    const server = await redisProcess()
    await server.start()
    const store = redisStore(clientOf(server))
    const ledger = creditLedger({ store, acceptLoss: true })
    const options = { store, policies: [tokenBucket({ quota: 10, window: '1h' })], payments: { ledger } }
    const limiter = rampmeter(options)
    await limiter.ready()
    await ledger.grant(account, 10)
    const admin = new Redis(server.url)
    onTestFinished(() => admin.disconnect())
    const connections = async (): Promise<number> =>
      String(await admin.client('LIST'))
        .trim()
        .split('\n').length
    await limiter.close()
    await expect.poll(connections).toBe(2)
    await expect(ledger.grant(account, 1)).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
    expect(await connections()).toBe(2)

    // A limiter that is made with it later has it again.
    const another = opened(rampmeter(options))
    await another.ready()
    expect(await ledger.balance(account)).toEqual({ available: 10, held: 0 })
  })

  it('does not call an answer late that came while the event loop stood still', async () => {
    const server = await redisProcess()
    await server.start()
    const ledger = opened(creditLedger({ store: redisStore(clientOf(server)), acceptLoss: true, deadline: '300ms' }))
    await expect.poll(() => ledger.grant(account, 5).then(() => true)).toBe(true)
    const told = ledger.balance(account)
    for (let turns = 0; turns < 1; turns += 1) await new Promise((resolve) => setImmediate(resolve))
    for (const until = performance.now() + 600; performance.now() < until;);
    expect(await told).toEqual({ available: 5, held: 0 })
  })

  it('says of what was not answered whether it may have been done, and a hold can be made again', async () => {
    const server = await redisProcess()
    await server.start()
    const ledger = opened(creditLedger({ store: redisStore(clientOf(server)), acceptLoss: true, deadline: '300ms' }))
    await expect.poll(() => ledger.grant(account, 10).then(() => true)).toBe(true)
    server.freeze()
    const hold = (): Promise<CreditHold> => ledger.hold(account, 4, { ttl: '1h', idempotencyKey: 'order 1' })
    const says = expect.stringMatching(/within 300 ms; it may have been done all the same.*idempotencyKey/) as string
    await expect(hold()).rejects.toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE', message: says })
    server.thaw()
    let id = ''
    await expect.poll(async () => ({ id } = await hold()) && true).toBe(true)
    expect(await ledger.balance(account)).toEqual({ available: 6, held: 4 })
    await ledger.capture(id)
  })

  it('does not do later what it said not to have done', async () => {
    const server = await redisProcess()
    await server.start()
    const ledger = opened(creditLedger({ store: redisStore(clientOf(server)), acceptLoss: true, deadline: '300ms' }))
    server.freeze()
    await expect(ledger.grant(account, 4)).rejects.toMatchObject({
      code: 'RAMPMETER_STORE_UNAVAILABLE',
      message: expect.stringContaining('nothing was done') as string,
    })
    server.thaw()
    await expect.poll(() => ledger.ready().then(() => true)).toBe(true)
    for (let nth = 0; nth < 3; nth += 1) expect(await ledger.balance(account)).toEqual({ available: 0, held: 0 })
  })

  it.each(['freeze', 'kill'] as const)('waits no longer than its deadline (%s)', async (does) => {
    const server = await redisProcess()
    await server.start()
    const ledger = opened(creditLedger({ store: redisStore(clientOf(server)), acceptLoss: true, deadline: '300ms' }))
    await expect.poll(() => ledger.ready().then(() => true)).toBe(true)
    await server[does]()
    for (const call of [() => ledger.balance(account), () => ledger.history(account)]) {
      await expect(call()).rejects.toMatchObject({
        code: 'RAMPMETER_STORE_UNAVAILABLE',
        message: expect.stringMatching(/within 300 ms|is not up|store failed/) as string,
      })
    }
    if (does === 'freeze') server.thaw()
  })
})

it('a request that comes after the limiter was closed is charged nothing and answered 503', async () => {
  const store = memoryStore()
  const ledger = creditLedger({ store })
  const limiter = rampmeter({
    store,
    policies: [tokenBucket({ quota: 10, window: '1h' })],
    payments: { ledger, account: () => account },
  })
  const app = expressVersions[0]!.express()
  app.get('/', limiter.route({ price: { credits: 1 } }), tellDecision)
  const served = await serve(app)
  await ledger.grant(account, 10)
  expect((await served.ask()).status).toBe(200)
  await limiter.close()
  expect((await served.ask()).status).toBe(503)
})
