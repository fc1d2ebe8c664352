// x402 over HTTP, with the real types and codecs of @x402/core and a facilitator on loopback.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { connect } from 'node:net'
import { decodePaymentRequiredHeader, decodePaymentResponseHeader, encodePaymentSignatureHeader } from '@x402/core/http'
import type { PaymentPayload, PaymentRequirements } from '@x402/core/types'
import type { Request, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { pacedFetch } from '../../src/agent/index.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import type { Price } from '../../src/payments/options.ts'
import { x402, type X402Options } from '../../src/payments/x402.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Store } from '../../src/stores/store.ts'
import { expressVersions, keepErrors, opened, serve, type Reply, type Served } from '../http/serve.ts'
import { stores } from '../http/stores.ts'
import { startFacilitator, type Facilitator } from './facilitator.ts'

const network = 'eip155:84532'
const asset = '0x036CbD53842c5426634e7929541eC2318f3dCF7e'
const payTo = '0x209693Bc6afc0C5328bA36FaF03C514EF312287C'
const payer = '0x857b06519E91e3A54538791bDbb0E22373e36b66'
/** What clients want to sign. */
const extra = { name: 'USDC', version: '2' }

const solana = 'solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp'
const mint = 'EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v'
const wallet = '2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4'

type Handle = (req: Request, res: Response) => unknown

interface Stand {
  readonly facilitator: Facilitator
  readonly close: () => Promise<void>
  readonly served: Served
  /** How often the handler ran. */
  readonly runs: () => number
  /** Asks, with a payment where one is given. */
  readonly ask: (payment?: string) => Promise<Reply>
  /** The terms of a 402. */
  readonly terms: () => Promise<PaymentRequirements[]>
}

async function stand(
  handle: Handle = (_, res) => res.json({ secret: 42 }),
  {
    store = memoryStore(),
    quota = 1000,
    challenges = 20,
    version = expressVersions[0]!,
    price = {},
    ...options
  }: Partial<X402Options> & {
    store?: Store
    quota?: number
    challenges?: number
    version?: (typeof expressVersions)[0]
    price?: Partial<Price>
  } = {},
): Promise<Stand> {
  const facilitator = await startFacilitator()
  const limiter = opened(
    rampmeter({
      store,
      identify: [apiKey({ lookup: (key) => (key === 'acme' ? { id: 'acme', type: 'agent' } : null) })],
      policies: [tokenBucket({ quota, window: '1h' })],
      payments: {
        challenges: { quota: challenges, window: '1m' },
        providers: [
          x402({
            facilitator: facilitator.url,
            network,
            asset,
            payTo,
            perCredit: '1000',
            extra: { ...extra, ...(options.schemes !== undefined && { facilitatorAddress: payer }) },
            ...options,
          }),
        ],
      },
      deadline: '5s',
    }),
  )
  await limiter.ready()
  let runs = 0
  const { handler } = keepErrors()
  const app = version.express()
  app.get('/', limiter.route({ price: { credits: 10, ...price } }), async (req, res, next) => {
    runs += 1
    try {
      await handle(req, res)
    } catch (error) {
      next(error)
    }
  })
  app.use(handler)
  const served = await serve(app)
  return {
    facilitator,
    close: () => limiter.close(),
    served,
    runs: () => runs,
    ask: (payment) => served.ask('/', { headers: payment === undefined ? {} : { 'payment-signature': payment } }),
    async terms() {
      const { headers } = await served.ask('/')
      return decodePaymentRequiredHeader(headers['payment-required'] as string).accepts
    },
  }
}

let nonces = 0

function payloadFor(
  accepted: PaymentRequirements,
  nonce = `0x${(nonces += 1).toString(16).padStart(64, 'a')}`,
): PaymentPayload {
  const authorization = {
    from: payer,
    to: payTo,
    value: accepted.amount,
    validAfter: '0',
    validBefore: '99999999999',
    nonce,
  }
  const permit2Authorization = {
    from: payer,
    nonce,
    deadline: '99999999999',
    permitted: { token: asset, amount: accepted.amount },
  }
  return {
    x402Version: 2,
    accepted,
    payload: { signature: '0xfe', ...(accepted.scheme === 'upto' ? { permit2Authorization } : { authorization }) },
  }
}

/** A transaction of Solana's as it is sent: the fee payer's signature is still to be made, and nobody has signed where that stands. */
function transaction({ version = 0, feeSignature = 0, tail = 0, amount = 9 } = {}): Buffer {
  const lookups = version === 0 ? [1, ...Array<number>(32).fill(5), 1, 0, 0] : []
  return Buffer.from([
    2,
    ...Array<number>(64).fill(feeSignature),
    ...Array<number>(64).fill(7),
    ...(version === 0 ? [0x80] : []),
    2,
    0,
    1,
    3,
    ...Array<number>(96).fill(3),
    ...Array<number>(32).fill(4),
    1,
    2,
    2,
    0,
    1,
    3,
    12,
    amount,
    6,
    ...lookups,
    ...Array<number>(tail).fill(0),
  ])
}

const sign = (...args: Parameters<typeof payloadFor>): string => encodePaymentSignatureHeader(payloadFor(...args))
const responseOf = ({ headers }: Reply): ReturnType<typeof decodePaymentResponseHeader> =>
  decodePaymentResponseHeader(headers['payment-response'] as string)

describe('x402', () => {
  it.each(expressVersions)('asks, is paid, settles before it answers, on $name', async (version) => {
    const { ask, terms, facilitator } = await stand(undefined, { version })
    const unpaid = await ask()
    expect(unpaid.status).toBe(402)
    expect(unpaid.headers['cache-control']).toBe('no-store')
    expect(unpaid.json.error).toMatchObject({
      type: 'payment_required',
      price: { credits: 10 },
      ways: [{ provider: 'x402' }],
    })
    expect(unpaid.json.error).not.toHaveProperty('balance')
    const required = decodePaymentRequiredHeader(unpaid.headers['payment-required'] as string)
    expect(required).toMatchObject({
      x402Version: 2,
      resource: { url: expect.stringMatching(/^http:\/\/127.0.0.1:\d+\/$/) as string },
    })
    expect(required.accepts).toEqual([
      {
        scheme: 'exact',
        network,
        amount: '10000',
        asset,
        payTo,
        maxTimeoutSeconds: 60,
        extra,
      },
    ])

    const [accepted] = await terms()
    const paid = await ask(sign(accepted!))
    expect({ status: paid.status, body: paid.json }).toEqual({ status: 200, body: { secret: 42 } })
    expect(responseOf(paid)).toMatchObject({ success: true, network, payer, transaction: `0x${'ab'.repeat(32)}` })
    expect(facilitator.verified.length).toBe(1)
    expect(facilitator.settled.map(({ paymentRequirements }) => paymentRequirements.amount)).toEqual(['10000'])
  })

  it('takes nothing of a quota from who is only asked', async () => {
    const { ask, terms } = await stand(undefined, { quota: 1 })
    await ask()
    const [accepted] = await terms()
    expect((await ask(sign(accepted!))).status).toBe(200)
    expect((await ask(sign(accepted!))).status).toBe(429)
  })

  it.each(stores)(
    'settles an authorisation once, however often and however spelt it comes, $name',
    async ({ makeStore }) => {
      const { ask, terms, facilitator, runs } = await stand(undefined, { store: await makeStore(), challenges: 1000 })
      const [accepted] = await terms()
      const nonce = `0x${'a'.repeat(64)}`
      const spellings = [nonce, nonce.toUpperCase().replace('X', 'x'), String(BigInt(nonce))]
      const payments = spellings.flatMap((one) => {
        const payload = payloadFor(accepted!, one)
        const upper = structuredClone(payload) as unknown as { payload: { authorization: { from: string } } }
        upper.payload.authorization.from = payer.toUpperCase().replace('X', 'x')
        return [payload, upper as unknown as PaymentPayload].map(encodePaymentSignatureHeader)
      })
      const replies = await Promise.all([...payments, ...payments].map((payment) => ask(payment)))
      expect(replies.filter(({ status }) => status === 200).length).toBe(1)
      expect(replies.filter(({ status }) => status === 402).length).toBe(11)
      expect([runs(), facilitator.settled.length]).toEqual([1, 1])
      const late = await ask(payments[0])
      expect(late.json.detail).toContain('used before')
    },
  )

  it('takes no payload of two authorisations, of which the facilitator settles one and the other is new each time', async () => {
    const { ask, terms, facilitator, runs } = await stand(undefined, { schemes: ['exact', 'upto'], challenges: 1000 })
    for (const accepted of await terms()) {
      const { payload, ...rest } = payloadFor({ ...accepted, scheme: 'upto' })
      for (let nth = 0; nth < 3; nth += 1) {
        const other = payloadFor({ ...accepted, scheme: 'exact' }).payload
        const both = { ...rest, accepted, payload: { ...other, ...payload } }
        const { status } = await ask(encodePaymentSignatureHeader(both))
        expect(status).toBe(400)
      }
    }
    expect([runs(), facilitator.verified.length]).toEqual([0, 0])
  })

  it.each([
    ['payee', { to: payer }, {}],
    ['payee', {}, { witness: { to: payer } }],
    ['token', {}, { permitted: { token: payer, amount: '10000' } }],
    ['less', { value: '9999' }, {}],
    ['less', {}, { permitted: { token: asset, amount: '0x270f' } }],
  ])('asks nobody about what was signed for another %s', async (what, eip3009, permit2) => {
    const { ask, terms, facilitator, runs } = await stand(undefined, { schemes: ['exact', 'upto'] })
    const scheme = Object.keys(eip3009).length > 0 ? 'exact' : 'upto'
    const payload = payloadFor((await terms()).find((one) => one.scheme === scheme)!)
    const signed = payload.payload as Record<string, object>
    if (scheme === 'exact') Object.assign(signed['authorization']!, eip3009)
    else Object.assign(signed['permit2Authorization']!, permit2)
    const { status, json } = await ask(encodePaymentSignatureHeader(payload))
    expect([status, json.detail]).toEqual([402, expect.stringContaining(what)])
    expect([runs(), facilitator.verified.length]).toEqual([0, 0])
  })

  it.each([{ value: '1e4' }, { value: -1 }, { value: 1.5 }, { value: undefined }, { nonce: [] }, { from: 'x' }])(
    'says 400 to an authorisation that cannot be read: %o',
    async (wrong) => {
      const { ask, terms } = await stand()
      const payload = payloadFor((await terms())[0]!)
      Object.assign((payload.payload as Record<string, object>)['authorization']!, wrong)
      expect((await ask(encodePaymentSignatureHeader(payload))).status).toBe(400)
    },
  )

  it.each([
    ['another network', { network: 'eip155:8453' as const }, 'network'],
    ['no network', { network: undefined as never }, 'network'],
    ['another payer', { payer: payTo }, 'payer'],
    ['another amount', { amount: '1' }, 'amount'],
    ['no transaction', { transaction: '' }, 'transaction'],
  ])('does not serve for a settlement of %s', async (_, said, differs) => {
    const { ask, terms, facilitator } = await stand((__, res) => res.json({ secret: 42 }))
    facilitator.settle = () => said
    const payment = sign((await terms())[0]!)
    const degraded: string[] = []
    const hear = (message: unknown): void => void degraded.push(JSON.stringify(message))
    subscribe('rampmeter:degraded', hear)
    const failed = await ask(payment)
    unsubscribe('rampmeter:degraded', hear)
    expect([failed.status, failed.body.includes('secret')]).toEqual([503, false])
    expect(failed.json.detail).toContain('Whether the payment was taken is not known')
    expect(degraded.join()).toContain(`the ${differs} it tells is not that of the payment`)
    // It may have been taken.
    facilitator.settle = () => ({})
    expect((await ask(payment)).status).toBe(402)
  })

  it('believes a facilitator that names no payer', async () => {
    const { ask, terms, facilitator } = await stand()
    facilitator.verify = () => ({ payer: null as never })
    facilitator.settle = () => ({ payer: '' })
    expect((await ask(sign((await terms())[0]!))).status).toBe(200)
  })

  it('believes no yes under a status that says no', async () => {
    const { ask, terms, facilitator, runs } = await stand()
    const payment = sign((await terms())[0]!)
    facilitator.status = 402
    expect((await ask(payment)).status).toBe(503)
    facilitator.verify = () => ({ isValid: false, invalidReason: 'insufficient_funds' })
    expect((await ask(payment)).json.detail).toContain('insufficient_funds')
    expect(runs()).toBe(0)
  })

  it('takes what says nothing of the payment for no answer: not for what the client did wrong', async () => {
    const { ask, terms, facilitator, runs } = await stand(undefined, { challenges: 2 })
    const payment = sign((await terms())[0]!)
    const nothing = { isValid: undefined as never, error: 'too many requests' } as never
    facilitator.verify = () => nothing
    for (const status of [401, 403, 404, 429, 200]) {
      facilitator.status = status
      expect((await ask(payment)).status).toBe(503)
    }
    // What was asked is what the client wrote.
    facilitator.status = 400
    expect((await ask(payment)).status).toBe(402)
    facilitator.status = 200
    facilitator.verify = () => ({})
    expect([(await ask(payment)).status, runs()]).toEqual([200, 1])
  })

  it.each([undefined, 'true'])('does not know what was settled where it is not said: success %s', async (success) => {
    const { ask, terms, facilitator } = await stand()
    facilitator.settle = () => ({ success: success as never })
    const { status, json, headers } = await ask(sign((await terms())[0]!))
    expect([status, json.detail]).toEqual([503, expect.stringContaining('is not known')])
    expect(headers).not.toHaveProperty('payment-response')
  })

  describe('of Solana', () => {
    const onSolana = {
      network: solana,
      asset: mint,
      payTo: wallet,
      extra: { feePayer: wallet },
      challenges: 1000,
    }
    const payWith = (accepted: PaymentRequirements, bytes: string): string =>
      encodePaymentSignatureHeader({ x402Version: 2, accepted, payload: { transaction: bytes } })

    it.each([0, undefined])('settles a message once, whoever fills in the signatures (version %s)', async (version) => {
      const { ask, terms, facilitator, runs } = await stand(undefined, onSolana)
      const [accepted] = await terms()
      const told = version === undefined ? { version: -1 } : {}
      const spelt = [0, 1, 2].map((feeSignature) =>
        payWith(accepted!, transaction({ ...told, feeSignature }).toString('base64')),
      )
      const replies = await Promise.all(spelt.map((payment) => ask(payment)))
      expect(replies.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([200, 402, 402])
      expect([runs(), facilitator.settled.length]).toEqual([1, 1])
      const other = payWith(accepted!, transaction({ ...told, amount: 10 }).toString('base64'))
      expect((await ask(other)).status).toBe(200)
    })

    it('says 400 to what is no transaction, or more than one', async () => {
      const { ask, terms, facilitator } = await stand(undefined, onSolana)
      const [accepted] = await terms()
      const whole = transaction()
      // One byte of the count of accounts, written as two.
      const long = Buffer.concat([whole.subarray(0, 133), Buffer.from([0x83, 0]), whole.subarray(134)])
      expect(whole[133]).toBe(3)
      const wrong = [
        transaction({ tail: 1 }).toString('base64'),
        whole.subarray(0, -1).toString('base64'),
        whole.subarray(0, 130).toString('base64'),
        long.toString('base64'),
        `${whole.toString('base64')}=`,
        ` ${whole.toString('base64')}`,
        Buffer.from('signed').toString('base64'),
        Buffer.from([0, 1, 2]).toString('base64'),
        '',
      ]
      for (const bytes of wrong) {
        const { status } = await ask(payWith(accepted!, bytes))
        expect({ bytes, status }).toEqual({ bytes, status: 400 })
      }
      expect(facilitator.verified.length).toBe(0)
    })
  })

  it('says 402 to what is not good, and lets it be shown again', async () => {
    const { ask, terms, facilitator, runs } = await stand()
    const [accepted] = await terms()
    const payment = sign(accepted!)
    facilitator.verify = () => ({ isValid: false, invalidReason: 'insufficient_funds' })
    const refused = await ask(payment)
    expect([refused.status, refused.json.detail]).toEqual([402, expect.stringContaining('insufficient_funds')])
    expect(runs()).toBe(0)
    facilitator.verify = () => ({})
    expect((await ask(payment)).status).toBe(200)
  })

  it.each([
    ['no base64', '***'],
    ['no JSON', Buffer.from('{').toString('base64')],
    ['no object', Buffer.from('[]').toString('base64')],
    ['version 1', Buffer.from(JSON.stringify({ x402Version: 1, accepted: {}, payload: {} })).toString('base64')],
    [
      'no authorisation',
      Buffer.from(JSON.stringify({ x402Version: 2, accepted: {}, payload: { authorization: {} } })).toString('base64'),
    ],
    [
      'a nonce that is none',
      Buffer.from(
        JSON.stringify({ x402Version: 2, accepted: {}, payload: { authorization: { from: payer, nonce: 'x' } } }),
      ).toString('base64'),
    ],
  ])('says 400 to what cannot be read: %s', async (_, payment) => {
    const { ask, facilitator, runs } = await stand()
    const { status, json, headers } = await ask(payment)
    expect({ status, type: json.error.type }).toEqual({ status: 400, type: 'invalid_request' })
    expect(headers['cache-control']).toBe('no-store')
    expect([facilitator.verified.length, runs()]).toEqual([0, 0])
  })

  it.each([
    ['amount', { amount: '1' }],
    ['payTo', { payTo: payer }],
    ['network', { network: 'eip155:1' as const }],
    ['asset', { asset: payer }],
    ['scheme', { scheme: 'upto' }],
  ])('does not take other terms than it offers: %s', async (name, other) => {
    const { ask, terms, facilitator } = await stand()
    const [accepted] = await terms()
    const { status, json } = await ask(sign({ ...accepted!, ...other }))
    expect([status, json.detail]).toEqual([402, expect.stringContaining(name)])
    expect(facilitator.verified.length).toBe(0)
  })

  it('says 503 while the facilitator is away, and nothing is lost', async () => {
    const { ask, terms, facilitator } = await stand(undefined, { quota: 2 })
    const [accepted] = await terms()
    const payment = sign(accepted!)
    facilitator.down = 502
    for (let nth = 0; nth < 4; nth += 1) {
      const { status, headers, json } = await ask(payment)
      expect([status, headers['retry-after']]).toEqual([503, '5'])
      expect(json).toMatchObject({
        retry_estimated: true,
        detail: 'The payment cannot be checked at the moment, and nothing was taken; try again in about 5 s.',
        error: { type: 'temporarily_unavailable' },
      })
    }
    facilitator.down = undefined
    expect((await ask(payment)).status).toBe(200)
  })

  it('tells a facilitator that cannot be reached as that, and not as an outage of the store', async () => {
    const { ask, terms } = await stand(undefined, { facilitator: 'http://127.0.0.1:1' })
    const payment = sign((await terms())[0]!)
    const degraded: unknown[] = []
    const hear = (message: unknown): void => void degraded.push(message)
    subscribe('rampmeter:degraded', hear)
    expect((await ask(payment)).status).toBe(503)
    unsubscribe('rampmeter:degraded', hear)
    expect(degraded).toMatchObject([{ state: 'unsettled', code: 'RAMPMETER_PAYMENT_PROVIDER' }])
  })

  it('waits for a credential no longer than for the facilitator', async () => {
    const { ask, terms } = await stand(undefined, { headers: () => new Promise(() => {}), timeout: '100ms' })
    expect((await ask(sign((await terms())[0]!))).status).toBe(503)
  })

  it('lets an authorisation that met a limit be shown again', async () => {
    let now = Date.now()
    const { ask, terms } = await stand(undefined, { quota: 1, store: memoryStore({ now: () => now }) })
    const [accepted] = await terms()
    expect((await ask(sign(accepted!))).status).toBe(200)
    const payment = sign(accepted!)
    expect((await ask(payment)).status).toBe(429)
    now += 3_600_000
    expect((await ask(payment)).status).toBe(200)
  })

  it('answers a failed settlement with 402 and PAYMENT-RESPONSE, and nothing of what the handler wrote', async () => {
    const { ask, terms, facilitator } = await stand((_, res) => res.cookie('a', 'b').json({ secret: 42 }))
    const [accepted] = await terms()
    facilitator.settle = () => ({ success: false, errorReason: 'insufficient_funds', transaction: '' })
    const failed = await ask(sign(accepted!))
    expect(failed.status).toBe(402)
    expect(responseOf(failed)).toMatchObject({
      success: false,
      errorReason: 'insufficient_funds',
      transaction: '',
      network,
    })
    expect(failed.body).not.toContain('secret')
    // What would pay is told as with any 402.
    const required = decodePaymentRequiredHeader(failed.headers['payment-required'] as string)
    expect(required).toMatchObject({ error: 'insufficient_funds', accepts: [accepted] })
    expect(failed.json.error).toMatchObject({ price: { credits: 10 }, ways: [{ provider: 'x402' }] })
    expect(failed.headers['set-cookie']).toBeUndefined()
    expect(failed.headers['cache-control']).toBe('no-store')
  })

  it('answers 503 where the facilitator goes away before it settles, and does not serve', async () => {
    const { ask, terms, facilitator } = await stand((_, res) => {
      facilitator.down = 502
      res.json({ secret: 42 })
    })
    const [accepted] = await terms()
    const payment = sign(accepted!)
    const failed = await ask(payment)
    expect([failed.status, failed.body.includes('secret')]).toEqual([503, false])
    // Who came again by itself would pay again, so that it is not told when to.
    expect(failed.headers['retry-after']).toBeUndefined()
    expect(failed.json.detail).toContain('Whether the payment was taken is not known')
    expect(failed.json.error).not.toHaveProperty('price')
    // It may have been settled, so it is not good for another.
    facilitator.down = undefined
    expect((await ask(payment)).status).toBe(402)
  })

  it.each<[string, Handle]>([
    ['throws', (_, res) => res.json({ secret: 42 }) && Promise.reject(new Error('late'))],
    ['answers again', (_, res) => res.json({ secret: 42 }) && res.status(404).json({ another: 'answer' })],
    ['changes its head', (_, res) => res.json({ secret: 42 }) && res.status(500).removeHeader('Content-Type')],
  ])('answers what was paid where the handler %s after it has answered', async (_, handle) => {
    const { ask, terms, facilitator } = await stand(handle)
    const payment = sign((await terms())[0]!)
    const { status, json, headers } = await ask(payment)
    expect([status, json, headers['content-type']]).toEqual([200, { secret: 42 }, 'application/json; charset=utf-8'])
    facilitator.settle = () => ({ success: false, transaction: '' })
    expect((await ask(sign((await terms())[0]!))).status).toBe(402)
  })

  it('tells a handler that has begun its answer that it has', async () => {
    const told: unknown[] = []
    const { ask, terms } = await stand((_, res) => {
      res.write('begun')
      told.push(res.headersSent)
      try {
        res.setHeader('X-Late', '1')
      } catch (error) {
        told.push((error as { code: string }).code)
      }
      res.end()
    })
    const { status, body, headers } = await ask(sign((await terms())[0]!))
    expect([status, body, headers['x-late']]).toEqual([200, 'begun', undefined])
    expect(told).toEqual([true, 'ERR_HTTP_HEADERS_SENT'])
  })

  it('answers nothing, and lives on, where a provider gives a field that no response can have', async () => {
    const facilitator = await startFacilitator()
    const onBase = x402({ facilitator: facilitator.url, network, asset, payTo, perCredit: '1000', extra })
    const capture = async (...call: Parameters<typeof onBase.capture>): ReturnType<typeof onBase.capture> => ({
      ...(await onBase.capture(...call)),
      fields: { 'no field': 'x' },
    })
    const limiter = opened(
      rampmeter({ store: memoryStore(), policies: [], payments: { providers: [{ ...onBase, capture }] } }),
    )
    await limiter.ready()
    const app = expressVersions[0]!.express()
    app.get('/', limiter.route({ price: { credits: 10 } }), (_, res) => res.json({}))
    const served = await serve(app)
    const required = (await served.ask('/')).headers['payment-required'] as string
    const [accepted] = decodePaymentRequiredHeader(required).accepts
    await expect(served.ask('/', { headers: { 'payment-signature': sign(accepted!) } })).rejects.toThrow(
      /hang up|socket/,
    )
    expect((await served.ask('/')).status).toBe(402)
  })

  it('lets nothing of a stream through while it is made out what would pay in its stead', async () => {
    const facilitator = await startFacilitator()
    facilitator.settle = () => ({ success: false, transaction: '' })
    const onBase = x402({ facilitator: facilitator.url, network, asset, payTo, perCredit: '1000', extra })
    let mayAsk = (): void => {}
    let isPaid = false
    const written = new Promise<void>((resolve) => (mayAsk = resolve))
    const slow = {
      ...onBase,
      name: 'slow',
      detect: () => undefined,
      async challenge() {
        if (isPaid) await written
        return { way: {} }
      },
    }
    const limiter = opened(rampmeter({ store: memoryStore(), policies: [], payments: { providers: [onBase, slow] } }))
    await limiter.ready()
    const app = expressVersions[0]!.express()
    app.get('/', limiter.route({ price: { credits: 10 } }), async (_, res) => {
      isPaid = true
      res.write('secret')
      await expect.poll(() => facilitator.settled.length).toBe(1)
      for (let nth = 0; nth < 50; nth += 1) {
        res.write('secret')
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      mayAsk()
      for (let nth = 0; nth < 50; nth += 1) {
        res.write('secret')
        await new Promise((resolve) => setImmediate(resolve))
      }
      res.end()
    })
    const served = await serve(app)
    const required = (await served.ask('/')).headers['payment-required'] as string
    const [accepted] = decodePaymentRequiredHeader(required).accepts
    const { status, body } = await served.ask('/', { headers: { 'payment-signature': sign(accepted!) } })
    expect([status, body.includes('secret')]).toEqual([402, false])
  })

  it('settles `upto` to what was said before the answer began, never above', async () => {
    for (const [said, amount] of [
      [3, '3000'],
      [0, '0'],
      [99, '10000'],
      [undefined, '10000'],
    ] as const) {
      const { ask, terms, facilitator } = await stand(
        async (req, res) => {
          const payment = req.rateLimit!.payment!
          if (said !== undefined) await payment.settle(said)
          res.json({ credits: payment.credits })
        },
        { schemes: ['exact', 'upto'] },
      )
      const upto = (await terms()).find(({ scheme }) => scheme === 'upto')!
      expect((await ask(sign(upto))).json).toEqual({ credits: Number(amount) / 1000 })
      expect(facilitator.settled.map(({ paymentRequirements }) => paymentRequirements.amount)).toEqual([amount])
      expect(facilitator.verified.map(({ paymentRequirements }) => paymentRequirements.amount)).toEqual(['10000'])
    }
  })

  it('takes nothing of an `exact` authorisation where it cost nothing', async () => {
    const { ask, terms, facilitator } = await stand(async (req, res) => {
      await req.rateLimit!.payment!.settle(0)
      res.json({ credits: req.rateLimit!.payment!.credits })
    })
    const [accepted] = await terms()
    const { status, json } = await ask(sign(accepted!))
    expect({ status, json }).toEqual({ status: 200, json: { credits: 0 } })
    expect(facilitator.settled).toEqual([])
  })

  it('tells what was taken, which of an `exact` authorisation is the price', async () => {
    let taken: Promise<number> | undefined
    const { ask, terms, facilitator } = await stand(async (req, res) => {
      const payment = req.rateLimit!.payment!
      await payment.settle(4)
      expect(payment.credits).toBe(10)
      taken = new Promise((resolve) => res.once('finish', () => resolve(payment.credits)))
      res.end()
    })
    const [accepted] = await terms()
    expect((await ask(sign(accepted!))).status).toBe(200)
    expect(await taken).toBe(10)
    expect(facilitator.settled.map(({ paymentRequirements }) => paymentRequirements.amount)).toEqual(['10000'])
  })

  it('tells what cannot be refunded: what is not taken yet, and what is', async () => {
    let late: Promise<string> | undefined
    const { ask, terms } = await stand(async (req, res) => {
      const payment = req.rateLimit!.payment!
      const codeOf = (refunding: Promise<void>): Promise<string> =>
        refunding.then(
          () => 'refunded',
          (error: { code: string }) => error.code,
        )
      const early = await codeOf(payment.refund())
      late = new Promise((resolve) => res.once('finish', () => resolve(codeOf(payment.refund()))))
      res.json({ early })
    })
    const [accepted] = await terms()
    expect((await ask(sign(accepted!))).json).toEqual({ early: 'RAMPMETER_NOT_SPENT' })
    expect(await late).toBe('RAMPMETER_PAYMENT_UNSUPPORTED')
  })

  describe('of who hangs up', () => {
    /** Sends a paid request and goes when its handler has begun; then lets that go on. */
    async function leave(
      handle: Handle,
      price: Partial<Price> = {},
    ): Promise<{ facilitator: Facilitator; close: () => Promise<void>; ask: Stand['ask']; payment: string }> {
      let arrived = (): void => {}
      let goOn = (): void => {}
      const waits: Handle = async (req, res) => {
        const until = new Promise<void>((resolve) => (goOn = resolve))
        arrived()
        await until
        return await handle(req, res)
      }
      const { terms, facilitator, served, close, ask } = await stand(waits, { price })
      const [accepted] = await terms()
      const payment = sign(accepted!)
      const here = new Promise<void>((resolve) => (arrived = resolve))
      const socket = connect(served.port, '127.0.0.1')
      socket.write(`GET / HTTP/1.1\r\nHost: x\r\nPayment-Signature: ${payment}\r\n\r\n`)
      await here
      const ended = new Promise((resolve) => socket.once('close', resolve))
      socket.destroy()
      await ended
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      goOn()
      return { facilitator, close, ask, payment }
    }

    it('takes what the handler has done, once', async () => {
      const { facilitator, close } = await leave((_, res) => res.json({ secret: 42 }))
      await expect.poll(() => facilitator.settled.length).toBe(1)
      await close()
      expect(facilitator.settled.length).toBe(1)
    })

    it('takes it also where the handler never answers: at the latest when the limiter is closed', async () => {
      const { facilitator, close } = await leave(() => {})
      await close()
      expect(facilitator.settled.length).toBe(1)
    })

    it.each<[string, Handle, Partial<Price>]>([
      ['what failed', (_, res) => res.status(500).end(), {}],
      ['what the app gave back', async (req) => await req.rateLimit!.payment!.settle(0), {}],
      ['what its price says is free', (_, res) => res.json({ secret: 42 }), { hangUp: 'free' }],
    ])('takes nothing for %s', async (_, handle, price) => {
      const { facilitator, close } = await leave(handle, price)
      for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve))
      await close()
      expect(facilitator.settled).toEqual([])
    })
  })

  it('takes nothing for what failed, and the authorisation is good for another try', async () => {
    let fails = true
    const { ask, terms, facilitator } = await stand((_, res) => res.status(fails ? 500 : 200).end('done'))
    const [accepted] = await terms()
    const payment = sign(accepted!)
    expect((await ask(payment)).status).toBe(500)
    expect(facilitator.settled.length).toBe(0)
    fails = false
    await expect.poll(async () => (await ask(payment)).status).toBe(200)
    expect(facilitator.settled.length).toBe(1)
  })

  it('keeps a stream back until it is settled, then lets all of it through', async () => {
    let letSettle = (): void => {}
    const settles = new Promise<void>((resolve) => (letSettle = resolve))
    const lines = Array.from({ length: 2000 }, (_, nth) => `line ${nth}\n`)
    const { terms, facilitator, served } = await stand(async (_, res) => {
      const { Readable } = await import('node:stream')
      res.type('text')
      Readable.from(lines).pipe(res)
    })
    const [accepted] = await terms()
    facilitator.settle = async () => {
      await settles
      return {}
    }
    let seen = ''
    const socket = connect(served.port, '127.0.0.1')
    socket.on('data', (data) => (seen += data.toString()))
    socket.write(`GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nPayment-Signature: ${sign(accepted!)}\r\n\r\n`)
    await expect.poll(() => facilitator.settled.length).toBe(1)
    expect(seen).toBe('')
    letSettle()
    await new Promise((resolve) => socket.once('close', resolve))
    expect(seen).toContain('PAYMENT-RESPONSE: ')
    const body = seen.slice(seen.indexOf('\r\n\r\n') + 4).replaceAll(/[0-9a-f]+\r\n|\r\n/g, '')
    expect(body).toBe(lines.join(''))
  })

  it('limits payments that are not good', async () => {
    const { ask, terms, facilitator } = await stand(undefined, { challenges: 4 })
    const [accepted] = await terms()
    facilitator.verify = () => ({ isValid: false, invalidReason: 'invalid_signature' })
    const statuses = []
    for (let nth = 0; nth < 6; nth += 1) statuses.push((await ask(sign(accepted!))).status)
    expect(statuses).toEqual([402, 402, 402, 402, 429, 429])
    expect(facilitator.verified.length).toBe(4)
  })

  it('does not have a crowd of payments that are not good looked at all together', async () => {
    const { ask, terms, facilitator } = await stand(undefined, { challenges: 4 })
    const [accepted] = await terms()
    let answer = (): void => {}
    const answers = new Promise<void>((resolve) => (answer = resolve))
    facilitator.verify = async () => {
      await answers
      return { isValid: false, invalidReason: 'invalid_signature' }
    }
    const crowd = Promise.all(Array.from({ length: 30 }, () => ask(sign(accepted!))))
    await expect.poll(() => facilitator.verified.length).toBe(4)
    // The next ones have come by now, and wait.
    expect((await ask('***')).status).toBe(400)
    expect(facilitator.verified.length).toBe(4)
    answer()
    const replies = await crowd
    expect(facilitator.verified.length).toBeLessThan(8)
    expect(replies.filter(({ status }) => status === 402).length).toBe(facilitator.verified.length)
    expect(replies.filter(({ status }) => status === 429).length).toBe(30 - facilitator.verified.length)
  })

  describe.each(stores)('an honest payer, $name', ({ makeStore }) => {
    it('is never limited by being asked: a good payment gives back the 402 that it answers', async () => {
      const { ask } = await stand(undefined, { store: await makeStore(), challenges: 2 })
      for (let nth = 0; nth < 8; nth += 1) {
        const { status, headers } = await ask()
        expect({ nth, status }).toEqual({ nth, status: 402 })
        const [accepted] = decodePaymentRequiredHeader(headers['payment-required'] as string).accepts
        expect((await ask(sign(accepted!))).status).toBe(200)
      }
    })

    it('is served also where it pays for many at once', async () => {
      const { ask, terms } = await stand(undefined, { store: await makeStore(), challenges: 2 })
      const [accepted] = await terms()
      const replies = await Promise.all(Array.from({ length: 12 }, () => ask(sign(accepted!))))
      expect(replies.map(({ status }) => status)).toEqual(Array.from({ length: 12 }, () => 200))
    })

    it('earns no more 402s than there are by paying', async () => {
      const { ask, terms } = await stand(undefined, { store: await makeStore(), challenges: 2 })
      const [accepted] = await terms()
      for (let nth = 0; nth < 5; nth += 1) expect((await ask(sign(accepted!))).status).toBe(200)
      const statuses = []
      for (let nth = 0; nth < 4; nth += 1) statuses.push((await ask()).status)
      expect(statuses).toEqual([402, 402, 429, 429])
    })

    it('that has a name is not limited by strangers at its address', async () => {
      const { ask, served, facilitator } = await stand(undefined, { store: await makeStore(), challenges: 2 })
      const asAcme = (payment?: string): Promise<Reply> =>
        served.ask('/', {
          headers: { 'x-api-key': 'acme', ...(payment !== undefined && { 'payment-signature': payment }) },
        })
      const [accepted] = decodePaymentRequiredHeader((await ask()).headers['payment-required'] as string).accepts
      facilitator.verify = () => ({ isValid: false, invalidReason: 'invalid_signature' })
      const strangers = []
      for (let nth = 0; nth < 3; nth += 1) strangers.push((await ask()).status, (await ask(sign(accepted!))).status)
      expect(strangers).toEqual([402, 402, 429, 402, 429, 429])
      facilitator.verify = () => ({})
      expect((await asAcme(sign(accepted!))).status).toBe(200)
      expect((await asAcme()).status).toBe(402)
      // Its own are counted.
      facilitator.verify = () => ({ isValid: false, invalidReason: 'invalid_signature' })
      const own = []
      for (let nth = 0; nth < 3; nth += 1) own.push((await asAcme()).status, (await asAcme(sign(accepted!))).status)
      expect(own).toEqual([402, 402, 429, 402, 429, 429])
    })
  })

  describe('on several networks', () => {
    const ofTransaction = (accepted: PaymentRequirements): string =>
      encodePaymentSignatureHeader({
        x402Version: 2,
        accepted,
        payload: { transaction: transaction().toString('base64') },
      })

    async function market(reversed = false): Promise<{
      chains: Record<'evm' | 'solana' | 'other', Facilitator>
      ask: (payment?: string) => Promise<Reply>
    }> {
      const chains = {
        evm: await startFacilitator(),
        solana: await startFacilitator(),
        other: await startFacilitator(),
      }
      const providers = [
        x402({
          facilitator: chains.evm.url,
          network,
          asset,
          payTo,
          perCredit: '1000',
          schemes: ['exact', 'upto'],
          extra: { ...extra, facilitatorAddress: payer },
        }),
        x402({
          facilitator: chains.solana.url,
          network: solana,
          asset: mint,
          payTo: wallet,
          perCredit: '10',
          extra: { feePayer: wallet },
        }),
        x402({ facilitator: chains.other.url, network, asset: payer, payTo, perCredit: '7', extra }),
      ]
      const limiter = opened(
        rampmeter({
          policies: [tokenBucket({ quota: 1000, window: '1h' })],
          payments: { providers: reversed ? providers.toReversed() : providers },
        }),
      )
      const app = expressVersions[0]!.express()
      app.get('/', limiter.route({ price: { credits: 10 } }), (_, res) => void res.json({ secret: 42 }))
      const served = await serve(app)
      return {
        chains,
        ask: (payment) => served.ask('/', { headers: payment === undefined ? {} : { 'payment-signature': payment } }),
      }
    }

    it.each([[false], [true]])(
      'tells all terms in one PAYMENT-REQUIRED, and each is paid (reversed: %s)',
      async (reversed) => {
        const { chains, ask } = await market(reversed)
        const unpaid = await ask()
        const { accepts, ...required } = decodePaymentRequiredHeader(unpaid.headers['payment-required'] as string)
        expect(required).toMatchObject({ x402Version: 2, error: 'PAYMENT-SIGNATURE header is required' })
        const terms = accepts.map((one) => [one.network, one.asset, one.scheme, one.amount].join(' '))
        expect(terms.toSorted()).toEqual(
          [
            `${network} ${asset} exact 10000`,
            `${network} ${asset} upto 10000`,
            `${network} ${payer} exact 70`,
            `${solana} ${mint} exact 100`,
          ].toSorted(),
        )
        expect(unpaid.json.error.ways).toEqual([{ provider: 'x402', accepts }])
        for (const one of accepts) {
          const { status } = await ask(one.network === solana ? ofTransaction(one) : sign(one))
          expect({ one, status }).toEqual({ one, status: 200 })
        }
        expect([chains.evm, chains.solana, chains.other].map(({ settled }) => settled.length)).toEqual([2, 1, 1])
      },
    )

    it('refuses what fits none of them, and says why', async () => {
      const { chains, ask } = await market()
      const { headers } = await ask()
      const [accepted] = decodePaymentRequiredHeader(headers['payment-required'] as string).accepts
      const cheap = await ask(sign({ ...accepted!, amount: '1' }))
      expect([cheap.status, cheap.json.detail]).toEqual([402, expect.stringContaining('amount') as string])
      expect(cheap.json.detail).not.toContain('network')
      const unreadable = await ask(
        encodePaymentSignatureHeader({
          x402Version: 2,
          accepted: accepted!,
          payload: { signature: '0x' },
        }),
      )
      expect([unreadable.status, unreadable.json.detail]).toEqual([
        400,
        expect.stringContaining('cannot be read') as string,
      ])
      const elsewhere = await ask(sign({ ...accepted!, network: 'eip155:1' }))
      expect([elsewhere.status, elsewhere.json.detail]).toEqual([402, expect.stringContaining('network') as string])
      expect((await ask('***')).status).toBe(400)
      expect(Object.values(chains).flatMap(({ verified }) => verified)).toEqual([])
    })

    it('takes no two of a name that would overwrite each other', () => {
      const one = x402({ facilitator: 'https://x.example', network, asset, payTo, perCredit: '1', extra })
      const alone = { ...one, join: undefined as never }
      expect(() => rampmeter({ policies: [], payments: { providers: [alone, { ...alone }] } })).toThrow(
        expect.objectContaining({
          code: 'RAMPMETER_INVALID_OPTION',
          message: expect.stringContaining('"x402"') as string,
        }),
      )
    })
  })

  it('lets scripts of other origins read what to pay, and what was paid', async () => {
    const facilitator = await startFacilitator()
    const onBase = x402({ facilitator: facilitator.url, network, asset, payTo, perCredit: '1000', extra })
    const limiter = opened(rampmeter({ exposeHeaders: true, policies: [], payments: { providers: [onBase, onBase] } }))
    const app = expressVersions[0]!.express()
    app.get('/', limiter.route({ price: { credits: 10 } }), (_, res) => res.json({}))
    const { headers } = await (await serve(app)).ask('/')
    const names = String(headers['access-control-expose-headers']).split(/, */)
    expect(names.filter((name) => name.startsWith('PAYMENT'))).toEqual(['PAYMENT-REQUIRED', 'PAYMENT-RESPONSE'])
  })

  it('is paid by pacedFetch, within the budget of its owner', async () => {
    const { served, facilitator } = await stand()
    let asked = 0
    const fetch = pacedFetch({
      payBudget: { [`${network}/${asset}`]: { total: '25000', perCall: '10000' } },
      pay({ response }) {
        asked += 1
        const { accepts } = decodePaymentRequiredHeader(response.headers.get('payment-required')!)
        return { 'payment-signature': sign(accepts[0]!) }
      },
    })
    const statuses = []
    for (let nth = 0; nth < 4; nth += 1) statuses.push((await fetch(`http://127.0.0.1:${served.port}/`)).status)
    expect(statuses).toEqual([200, 200, 402, 402])
    expect([asked, facilitator.settled.length]).toEqual([4, 2])
  })
})
