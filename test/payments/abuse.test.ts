// Payments that fail or are disputed tell on a client; to be asked for money, or to have too little, does not.

import { encodePaymentSignatureHeader } from '@x402/core/http'
import type { PaymentPayload } from '@x402/core/types'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import type { Limiter } from '../../src/limiter.ts'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { PaymentsOptions } from '../../src/payments/options.ts'
import { stripe } from '../../src/payments/stripe.ts'
import { x402 } from '../../src/payments/x402.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { opened, serve, tellDecision, type Served } from '../http/serve.ts'
import { startFacilitator } from './facilitator.ts'
import { account, eventOf, send, serveWebhook, startStripe, webhookSecret } from './stripe-api.ts'

const asAcme = { 'x-api-key': 'acme' }

interface Scene {
  readonly served: Served
  readonly limiter: Limiter
  /** What counts against the client by now. */
  readonly signals: () => Promise<readonly string[]>
}

async function scene(payments: Partial<PaymentsOptions> = {}, watched = true): Promise<Scene> {
  const store = memoryStore()
  const limiter = opened(
    rampmeter({
      store,
      identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
      policies: [tokenBucket({ quota: 1000, window: '1h' })],
      ...(watched && { abuse: { mode: 'shadow' as const } }),
      payments: { ledger: creditLedger({ store }), challenges: { quota: 100, window: '1m' }, ...payments },
    }),
  )
  const app = express()
  app.get('/charged', limiter.route({ price: () => ({ credits: 0 }) }), (_req, res) => void res.status(402).end())
  app.get('/plain', limiter.route({}), (_req, res) => void res.status(402).end())
  app.get('/dear', limiter.route({ price: { credits: 10 } }), (_req, res) => void res.end())
  app.get('/look', limiter.route({}), tellDecision)
  const served = await serve(app)
  return {
    served,
    limiter,
    async signals() {
      await limiter.flush()
      const { json } = await served.ask('/look', { headers: asAcme })
      return ((json.abuse?.signals ?? []) as { name: string }[] | string[]).map((one) =>
        typeof one === 'string' ? one : one.name,
      )
    },
  }
}

async function times(nth: number, ask: () => Promise<unknown>): Promise<void> {
  for (let left = nth; left > 0; left -= 1) await ask()
}

describe('failed charges', () => {
  it('are 402s of the handler of a priced route', async () => {
    const { served, signals } = await scene()
    await times(12, () => served.ask('/plain', { headers: asAcme }))
    expect(await signals()).not.toContain('failed-charges')
    await times(12, () => served.ask('/charged', { headers: asAcme }))
    expect(await signals()).toContain('failed-charges')
  })

  it('are no 402s that only ask, or for which credits are too few', async () => {
    const { served, signals } = await scene()
    await times(12, () => served.ask('/dear', { headers: asAcme }))
    expect(await signals()).not.toContain('failed-charges')
  })

  it('are payments that are not good', async () => {
    const facilitator = await startFacilitator()
    facilitator.verify = () => ({ isValid: false, invalidReason: 'invalid_signature' })
    const terms = {
      network: 'eip155:84532' as const,
      asset: '0x036CbD53842c5426634e7929541eC2318f3dCF7e',
      payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
      extra: { name: 'USDC', version: '2' },
    }
    const { served, signals } = await scene({
      providers: [x402({ facilitator: facilitator.url, perCredit: '1000', ...terms })],
    })
    await times(12, async () => {
      const { json } = await served.ask('/dear', { headers: asAcme })
      const [accepted] = json.error.ways.find(({ provider }: { provider: string }) => provider === 'x402').accepts
      const authorization = {
        from: '0x857b06519E91e3A54538791bDbb0E22373e36b66',
        to: terms.payTo,
        value: accepted.amount,
        validAfter: '0',
        validBefore: '99999999999',
        nonce: `0x${'a'.repeat(64)}`,
      }
      const payload: PaymentPayload = { x402Version: 2, accepted, payload: { signature: '0xfe', authorization } }
      const headers = { ...asAcme, 'payment-signature': encodePaymentSignatureHeader(payload) }
      expect((await served.ask('/dear', { headers })).status).toBe(402)
    })
    expect(await signals()).toContain('failed-charges')
  })
})

describe('disputes', () => {
  async function disputed(more: Partial<PaymentsOptions>, watched: boolean, status: string): Promise<Scene> {
    const { client } = await startStripe()
    const cards = stripe({ client, currency: 'usd', perCredit: 10, webhookSecret })
    const all = await scene({ providers: [cards], ...more }, watched)
    const webhook = await serveWebhook(cards.webhook)
    for (const id of ['du_1', 'du_2', 'du_3', 'du_3']) {
      // What paid for a request names its client so; what bought credits, as `account`.
      const metadata = id === 'du_2' ? { account } : { rampmeter_account: account }
      const object = { id, object: 'dispute', amount: 100, currency: 'usd', reason: 'fraudulent', status, metadata }
      expect((await send(webhook, eventOf({ type: 'charge.dispute.created', object }))).status).toBe(200)
    }
    return all
  }

  it('that Stripe tells of count against the client that paid', async () => {
    const all = await disputed({}, true, 'needs_response')
    await expect.poll(all.signals).toContain('disputes')
  })

  it('are not inquiries', async () => {
    const all = await disputed({}, true, 'warning_needs_response')
    expect(await all.signals()).not.toContain('disputes')
  })

  it('count against nobody where accounts are no clients, or nobody watches', async () => {
    expect(await (await disputed({ account: () => account }, true, 'needs_response')).signals()).not.toContain(
      'disputes',
    )
    expect(await (await disputed({}, false, 'needs_response')).signals()).toEqual([])
  })
})
