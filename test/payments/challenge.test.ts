// A payment answers a challenge: one that the request brings, not the credits of an account.

import { encodePaymentSignatureHeader } from '@x402/core/http'
import type { PaymentPayload } from '@x402/core/types'
import express, { type Express } from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { presetLadder } from '../../src/abuse/ladder.ts'
import { presetSignals } from '../../src/abuse/signals.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { PaymentsOptions } from '../../src/payments/options.ts'
import { x402 } from '../../src/payments/x402.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Limiter } from '../../src/limiter.ts'
import type { LimiterOptions } from '../../src/options.ts'
import type { Store } from '../../src/stores/store.ts'
import { serve, tellDecision, type Reply } from '../http/serve.ts'
import { openRedis } from '../http/stores.ts'
import { startFacilitator, type Facilitator } from './facilitator.ts'

const terms = {
  network: 'eip155:84532' as const,
  asset: '0x036CbD53842c5426634e7929541eC2318f3dCF7e',
  payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
  extra: { name: 'USDC', version: '2' },
}
/** One dispute challenges. */
const abuse = {
  signals: presetSignals({ disputes: { threshold: 1, weight: 50 } }),
  ladder: presetLadder({ challenge: { price: { credits: 5 } } }),
}

interface Scene {
  readonly limiter: Limiter
  readonly facilitator: Facilitator
  ask(path: string, fields?: Record<string, string>): Promise<Reply>
  /** Asks, pays what the answer wants, and asks again. */
  pay(path: string, fields?: Record<string, string>): Promise<Reply>
}

async function scene(
  options: Partial<LimiterOptions> = {},
  payments: Partial<PaymentsOptions> = {},
  store: Store = memoryStore(),
): Promise<Scene> {
  const facilitator = await startFacilitator()
  const limiter = rampmeter({
    store,
    identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
    policies: [tokenBucket({ quota: 1000, window: '1h' })],
    abuse,
    deadline: '5s',
    payments: {
      ledger: creditLedger({ store, acceptLoss: true }),
      providers: [x402({ facilitator: facilitator.url, perCredit: '1000', ...terms })],
      ...payments,
    },
    ...options,
  }) as Limiter
  onTestFinished(() => limiter.close())
  const app: Express = express()
  app.get('/dear', limiter.route({ price: { credits: 10 } }), tellDecision)
  app.get('/dear-inside', limiter, limiter.route({ price: { credits: 10 } }), tellDecision)
  app.get('/inside', limiter, limiter.route({ cost: 3 }), tellDecision)
  app.get('/fails', limiter.route({}), (_req, res) => void res.status(404).end())
  app.get('/free', limiter.route({}), tellDecision)
  const served = await serve(app)
  let nonce = 0
  const ask: Scene['ask'] = async (path, fields = {}) => {
    const reply = await served.ask(path, { headers: { 'x-api-key': 'acme', ...fields } })
    await limiter.flush()
    return reply
  }
  return {
    limiter,
    facilitator,
    ask,
    async pay(path, fields) {
      const { problem } = await ask(path, fields)
      const ways = problem.error.ways as { provider: string; accepts: { amount: string }[] }[]
      const accepted = ways.find(({ provider }) => provider === 'x402')!.accepts[0]!
      nonce += 1
      const authorization = {
        from: '0x857b06519E91e3A54538791bDbb0E22373e36b66',
        to: terms.payTo,
        value: accepted.amount,
        validAfter: '0',
        validBefore: '99999999999',
        nonce: `0x${nonce.toString(16).padStart(64, '0')}`,
      }
      const payload = { x402Version: 2, accepted, payload: { signature: '0xfe', authorization } } as unknown
      return await ask(path, {
        ...fields,
        'payment-signature': encodePaymentSignatureHeader(payload as PaymentPayload),
      })
    },
  }
}

describe('a challenge with a price', () => {
  it('says what would answer, and takes a payment, once', async () => {
    const all = await scene()
    expect((await all.ask('/free')).status).toBe(200)
    await all.limiter.abuse.report('key:acme', 'dispute')
    const asked = await all.ask('/free')
    // No verifier proves keys, and it has a credential: only a payment answers.
    expect(asked.status).toBe(402)
    expect(asked.headers['www-authenticate']).toBeUndefined()
    expect(asked.headers['payment-required']).toBeTruthy()
    expect(asked.problem).toMatchObject({
      type: expect.stringMatching(/#abnormal-usage-detected$/) as string,
      error: { type: 'abnormal_usage', price: { credits: 5 }, ways: [{ provider: 'x402' }] },
    })
    expect(asked.problem.error.balance).toBeUndefined()
    expect(asked.problem.detail).toMatch(/a payment of 5 credits .*; without one, try again in/)

    const paid = await all.pay('/free')
    expect(paid.status).toBe(200)
    expect(paid.json).toMatchObject({ admitted: true, abuse: { step: 'challenge' }, payment: { credits: 5 } })
    expect(paid.headers['payment-response']).toBeTruthy()
    expect(all.facilitator.settled).toHaveLength(1)
    // Throttled it stays.
    expect(paid.json.limits[0].quota).toBe(500)
    expect((await all.ask('/free')).status).toBe(402)
  })

  it('is not answered by credits, of which a thief has as many as the owner', async () => {
    const store = memoryStore()
    const ledger = creditLedger({ store })
    const all = await scene({}, { ledger }, store)
    await ledger.grant('key:acme', 100)
    await all.limiter.abuse.report('key:acme', 'dispute')
    expect((await all.ask('/free')).status).toBe(402)
    expect((await all.ask('/dear')).status).toBe(402)
    expect(await ledger.balance('key:acme')).toMatchObject({ available: 100 })
    const paid = await all.pay('/dear')
    expect(paid.json).toMatchObject({ admitted: true, payment: { credits: 10 } })
    expect(await ledger.balance('key:acme')).toMatchObject({ available: 100 })
  })

  it('is paid at the outer limiter for the inner one too, where that has no price; a price is paid by nothing else', async () => {
    const all = await scene()
    await all.limiter.abuse.report('key:acme', 'dispute')
    expect((await all.pay('/inside')).status).toBe(200)
    const dear = await all.pay('/dear-inside')
    expect(dear.status).toBe(402)
    expect(all.facilitator.settled).toHaveLength(1)
  })

  it('costs nothing where the request fails, or the payment is not good', async () => {
    const all = await scene()
    await all.limiter.abuse.report('key:acme', 'dispute')
    expect((await all.pay('/fails')).status).toBe(404)
    expect(all.facilitator.settled).toHaveLength(0)
    all.facilitator.verify = () => ({ isValid: false, invalidReason: 'invalid_signature' })
    const refused = await all.pay('/free')
    expect(refused.status).toBe(402)
    expect(refused.problem.error.ways!.map((way) => way['provider'])).toEqual(['x402'])
    expect(refused.problem.detail).toContain('invalid_signature')
    expect((await all.ask('/free', { 'payment-signature': 'no-base64-of-anything' })).status).toBe(400)
  })

  it('asks strangers for a credential or a payment', async () => {
    const all = await scene()
    await all.limiter.abuse.report('ip:127.0.0.1', 'dispute')
    const asked = await all.ask('/free', { 'x-api-key': '' })
    expect(asked.status).toBe(401)
    expect(asked.headers['www-authenticate']).toContain('x-api-key')
    expect(asked.problem.detail).toMatch(/an API key .*, or a payment of 5 credits/)
    expect((await all.pay('/free', { 'x-api-key': '' })).status).toBe(200)
    expect((await all.ask('/free', { 'x-api-key': 'other' })).status).toBe(200)
  })

  it('asks to pay so often and no more', async () => {
    const all = await scene({}, { challenges: { quota: 2, window: '1m' } })
    await all.limiter.abuse.report('key:acme', 'dispute')
    const statuses: number[] = []
    for (let nth = 0; nth < 3; nth += 1) statuses.push((await all.ask('/free')).status)
    expect(statuses).toEqual([402, 402, 429])
  })

  it('takes nothing from who is not challenged, whatever it shows', async () => {
    const all = await scene()
    expect((await all.ask('/free', { 'payment-signature': 'anything' })).status).toBe(200)
    expect(all.facilitator.verified).toHaveLength(0)
  })

  it('without verifiers can be answered too, and is then asked', async () => {
    const all = await scene({ identify: [] })
    await all.limiter.abuse.report('ip:127.0.0.1', 'dispute')
    expect((await all.ask('/free')).status).toBe(402)
    expect((await all.pay('/free')).status).toBe(200)
  })

  it('works on Redis', async () => {
    const { redis, prefix } = await openRedis()
    const all = await scene({}, {}, redisStore(redis, { prefix }))
    await all.limiter.ready()
    await all.limiter.abuse.report('key:acme', 'dispute')
    expect((await all.ask('/free')).status).toBe(402)
    expect((await all.pay('/free')).json).toMatchObject({ payment: { credits: 5 } })
  })
})

it('a price that nobody could pay is a mistake', () => {
  expect(() => rampmeter({ abuse })).toThrow(expect.objectContaining({ code: 'RAMPMETER_PAYMENTS_MISSING' }))
  expect(() =>
    rampmeter({
      abuse: {},
      routes: { '/x': { ladder: abuse.ladder } },
      payments: { ledger: creditLedger({ store: memoryStore() }) },
    }),
  ).toThrow(expect.objectContaining({ code: expect.stringMatching(/^RAMPMETER_/) as string }))
  expect(() => presetLadder({ challenge: { price: { credits: 0.5 } } })).toThrow(/"challenge": `price.credits`/)
})
