// Stripe, with its real package and its own signature helper, against a local server that speaks the few endpoints.

import express from 'express'
import Stripe from 'stripe'
import { describe, expect, it } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { CreditLedger } from '../../src/payments/ledger.ts'
import { stripe, type StripeOptions } from '../../src/payments/stripe.ts'
import { stripeCredits } from '../../src/payments/stripe-credits.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { keepErrors, opened, serve, type Reply, type Served } from '../http/serve.ts'
import { stores } from '../http/stores.ts'
import { account, eventOf, paidSession, send, serveWebhook, startStripe, webhookSecret } from './stripe-api.ts'

describe.each(stores)('stripeCredits, $name', ({ makeStore }) => {
  it('grants a purchase once, however often and by how many events it is told', async () => {
    const ledger = opened(creditLedger({ store: await makeStore(), acceptLoss: true }))
    const served = await serveWebhook(
      stripeCredits({ ledger, webhookSecret, credits: ({ data }) => Number(data.object['amount_total']) / 10 }),
    )
    const session = paidSession()
    const payload = eventOf({ type: 'checkout.session.completed', object: session })
    const later = eventOf({ type: 'checkout.session.async_payment_succeeded', object: session })
    const replies = await Promise.all([payload, payload, later, payload, later].map((one) => send(served, one)))
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
    expect(await ledger.balance(account)).toEqual({ available: 100, held: 0 })
    expect(await ledger.history(account)).toHaveLength(1)
  })
})

describe('stripeCredits', () => {
  async function till(
    options: Partial<Parameters<typeof stripeCredits>[0]> = {},
  ): Promise<{ ledger: CreditLedger; served: Served }> {
    const ledger = creditLedger({ store: memoryStore() })
    return {
      ledger,
      served: await serveWebhook(stripeCredits({ ledger, webhookSecret, credits: () => 100, ...options })),
    }
  }

  it('waits for the money, and acknowledges everything else', async () => {
    const { ledger, served } = await till()
    const unpaid = paidSession({ payment_status: 'unpaid' })
    for (const told of [
      { type: 'checkout.session.completed', object: unpaid },
      // Nobody has paid for it, as with a promotion code of 100 %.
      { type: 'checkout.session.completed', object: paidSession({ payment_status: 'no_payment_required' }) },
      { type: 'checkout.session.async_payment_failed', object: unpaid },
      { type: 'customer.created', object: { id: 'cus_1' } },
    ]) {
      expect((await send(served, eventOf(told))).json).toEqual({ received: true })
    }
    expect(await ledger.balance(account)).toEqual({ available: 0, held: 0 })
    await send(
      served,
      eventOf({ type: 'checkout.session.async_payment_succeeded', object: { ...unpaid, payment_status: 'paid' } }),
    )
    expect(await ledger.balance(account)).toEqual({ available: 100, held: 0 })
  })

  it('does nothing that is not well signed', async () => {
    const { ledger, served } = await till()
    const payload = eventOf({ type: 'checkout.session.completed', object: paidSession() })
    const now = Math.floor(Date.now() / 1000)
    const forged = [
      await send(served, payload, { secret: 'whsec_another' }),
      await send(served, payload, { timestamp: now - 3600 }),
      await send(served, payload, { timestamp: now + 3600 }),
      await send(served, payload.replace('1000', '9000'), { of: payload }),
      await served.ask('/stripe', { method: 'POST', body: payload }),
      await served.ask('/stripe', {
        method: 'POST',
        body: payload,
        headers: { 'stripe-signature': `t=${now},v1=${'0'.repeat(64)}` },
      }),
    ]
    expect(forged.map(({ status }) => status)).toEqual(forged.map(() => 400))
    expect(new Set(forged.map(({ json }) => json.detail))).toEqual(new Set(['The signature is missing, wrong or old.']))
    expect(forged[0]!.headers['cache-control']).toBe('no-store')
    // What is signed and says nothing is not the signature's fault.
    expect((await send(served, '{}')).json).toMatchObject({ status: 400, detail: expect.stringContaining('no event') })
    expect((await send(served, 'no JSON')).json.detail).toContain('The signature is good')
    expect((await send(served, 'x'.repeat(2_000_000))).json.detail).toContain('larger than 1 MiB')
    expect(await ledger.balance(account)).toEqual({ available: 0, held: 0 })
  })

  it('knows both secrets while one is rolled', async () => {
    const { ledger, served } = await till({ webhookSecret: ['whsec_new', webhookSecret] })
    await send(served, eventOf({ type: 'checkout.session.completed', object: paidSession() }), { secret: 'whsec_new' })
    await send(served, eventOf({ type: 'checkout.session.completed', object: paidSession() }))
    expect(await ledger.balance(account)).toEqual({ available: 200, held: 0 })
  })

  it('has Stripe send again what was paid and names no account, until it is granted', async () => {
    const names: { known?: string } = {}
    const { ledger, served } = await till({ account: () => names.known })
    const payload = eventOf({ type: 'checkout.session.completed', object: paidSession() })
    const { status, json } = await send(served, payload)
    expect({ status, code: json.code }).toEqual({ status: 500, code: 'RAMPMETER_WEBHOOK_ACCOUNT' })
    names.known = account
    expect((await send(served, payload)).status).toBe(200)
    expect(await ledger.balance(account)).toEqual({ available: 100, held: 0 })
  })

  it('acknowledges a session that is no purchase of credits', async () => {
    const { ledger, served } = await till({
      credits: ({ data }) => (data.object['amount_total'] === 1000 ? undefined : null),
      account: () => undefined,
    })
    for (const amount of [1000, 2000]) {
      const object = paidSession({ amount_total: amount })
      expect((await send(served, eventOf({ type: 'checkout.session.completed', object }))).json).toEqual({
        received: true,
      })
    }
    expect(await ledger.history(account)).toEqual([])
  })

  it('waits for what has to be looked up', async () => {
    const { ledger, served } = await till({ credits: async () => await Promise.resolve(70) })
    await send(served, eventOf({ type: 'checkout.session.completed', object: paidSession() }))
    expect(await ledger.balance(account)).toEqual({ available: 70, held: 0 })
  })

  it('says where a body parser was faster', async () => {
    const ledger = creditLedger({ store: memoryStore() })
    const app = express()
    app.use(express.json())
    app.post('/stripe', stripeCredits({ ledger, webhookSecret, credits: () => 1 }))
    app.use(keepErrors().handler)
    const { json } = await send(await serve(app), eventOf({ type: 'customer.created', object: {} }))
    expect(json.code).toBe('RAMPMETER_WEBHOOK_BODY')
  })

  it.each([[-5], [0.5], [Number.NaN]])('grants no %s credits', async (credits) => {
    const { ledger, served } = await till({ credits: () => credits })
    const { json } = await send(served, eventOf({ type: 'checkout.session.completed', object: paidSession() }))
    expect(json.code).toBe('RAMPMETER_INVALID_AMOUNT')
    expect(await ledger.balance(account)).toEqual({ available: 0, held: 0 })
  })
})

describe('options of Stripe that would leak a secret, or believe a wrong one', () => {
  const ledger = creditLedger({ store: memoryStore() })
  const client = new Stripe('sk_test_x')
  const right = { client, currency: 'usd', perCredit: 10, ledger }

  it.each<[Partial<StripeOptions>, string]>([
    [{ publishableKey: 'sk_test_5ecret' }, '`publishableKey` does not begin with pk_'],
    [{ publishableKey: 'rk_test_5ecret' }, '`publishableKey` does not begin with pk_'],
    [{ webhookSecret: 'sk_test_5ecret' }, 'and not a key of the API'],
    [{ webhookSecret: ['whsec_1', 'pk_test_5ecret'] }, 'and not a key of the API'],
    [{ webhookSecret: undefined as never }, '`webhookSecret` is undefined'],
    [{ webhookSecret: '' }, '`webhookSecret`'],
  ])('stripe(%o)', (wrong, says) => {
    stripe({ ...right, publishableKey: 'pk_test_x', webhookSecret: ['whsec_1', 'whsec_2'] })
    const refusal = (): unknown => stripe({ ...right, ...wrong })
    expect(refusal).toThrow(/RAMPMETER_INVALID_OPTION/)
    expect(refusal).toThrow(says)
    expect(refusal).not.toThrow('5ecret')
  })

  it('stripeCredits', () => {
    for (const wrong of ['pk_live_5ecret', 'sk_live_5ecret', '', undefined as never]) {
      const refusal = (): unknown => stripeCredits({ ledger, credits: () => 1, webhookSecret: wrong })
      expect(refusal).toThrow(/RAMPMETER_INVALID_OPTION/)
      expect(refusal).not.toThrow('5ecret')
    }
  })
})

describe('stripe', () => {
  async function stall(): Promise<
    Awaited<ReturnType<typeof startStripe>> & { ask: (path: string, intent?: string) => Promise<Reply> }
  > {
    const server = await startStripe()
    const limiter = opened(
      rampmeter({
        policies: [tokenBucket({ quota: 100, window: '1h' })],
        payments: {
          account: () => account,
          providers: [stripe({ client: server.client, currency: 'usd', perCredit: 10, publishableKey: 'pk_test' })],
        },
      }),
    )
    const app = express()
    app.get(
      '/buy',
      limiter.route({ price: { credits: 20 } }),
      (req, res) => void res.json({ credits: req.rateLimit!.payment!.credits }),
    )
    app.get('/fails', limiter.route({ price: { credits: 20 } }), (_req, res) => void res.status(500).end())
    app.get('/book', limiter.route({ price: { credits: 20, hold: '1d' } }), async (req, res) => {
      if (req.query['take'] === undefined) return void res.status(201).end()
      await req.rateLimit!.payment!.capture(Number(req.query['take']))
      const again = await req.rateLimit!.payment!.capture().catch(({ code }: { code: string }) => code)
      await req.rateLimit!.payment!.refund(2)
      res.json({ again, credits: req.rateLimit!.payment!.credits })
    })
    app.use(keepErrors().handler)
    const served = await serve(app)
    return {
      ...server,
      ask: (path, intent) => served.ask(path, { headers: intent === undefined ? {} : { 'payment-intent': intent } }),
    }
  }

  async function confirmed({ ask, confirm }: Awaited<ReturnType<typeof stall>>, path = '/buy'): Promise<string> {
    const { status, json } = await ask(path)
    expect(status).toBe(402)
    const [way] = json.error.ways
    expect(way).toMatchObject({
      provider: 'stripe',
      amount: 200,
      currency: 'usd',
      publishableKey: 'pk_test',
      clientSecret: `${way.paymentIntent}_secret`,
    })
    confirm(way.paymentIntent)
    return way.paymentIntent as string
  }

  it('asks with a PaymentIntent, and captures it before it answers, once', async () => {
    const here = await stall()
    const id = await confirmed(here)
    const replies = await Promise.all([here.ask('/buy', id), here.ask('/buy', id), here.ask('/buy', id)])
    expect(replies.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([200, 402, 402])
    expect(here.intents.get(id)).toMatchObject({ status: 'succeeded', amount_received: 200 })
    expect(here.calls.filter((call) => call.endsWith('/capture'))).toHaveLength(1)
  })

  it('takes none that is not confirmed, of another account, too small, or made up', async () => {
    const here = await stall()
    const { json } = await here.ask('/buy')
    const fresh = json.error.ways[0].paymentIntent as string
    expect((await here.ask('/buy', fresh)).json.detail).toContain('requires_payment_method')
    here.confirm(fresh)
    const intent = here.intents.get(fresh)!
    intent.metadata = { rampmeter_account: 'key:other' }
    expect((await here.ask('/buy', fresh)).json.detail).toContain('another account')
    intent.metadata = { rampmeter_account: account }
    intent.amount_capturable = 199
    expect((await here.ask('/buy', fresh)).json.detail).toContain('another price')
    expect((await here.ask('/buy', 'pi_made_up')).json.detail).toContain('resource_missing')
    expect((await here.ask('/buy', '../refunds')).status).toBe(400)
    intent.amount_capturable = 200
    expect((await here.ask('/buy', fresh)).status).toBe(200)
  })

  it('gives up what was not delivered, and says 503 while Stripe is away', async () => {
    const here = await stall()
    const failing = await confirmed(here)
    expect((await here.ask('/fails', failing)).status).toBe(500)
    await expect.poll(() => here.intents.get(failing)!.status).toBe('canceled')
    const id = await confirmed(here)
    here.state.down = true
    expect((await here.ask('/buy', id)).status).toBe(503)
    here.state.down = false
    expect((await here.ask('/buy', id)).status).toBe(200)
  })

  it('says that a webhook without its secret can believe nothing', async () => {
    const { client } = await startStripe()
    const served = await serveWebhook(stripe({ client, currency: 'usd', perCredit: 10 }).webhook)
    const { status, json } = await send(served, eventOf({ type: 'customer.created', object: {} }))
    expect({ status, code: json.code }).toEqual({ status: 500, code: 'RAMPMETER_INVALID_OPTION' })
  })

  it('holds a deposit until it is captured, in part, once', async () => {
    const here = await stall()
    const id = await confirmed(here, '/book')
    expect((await here.ask('/book', id)).status).toBe(201)
    expect(here.intents.get(id)!.status).toBe('requires_capture')
    const other = await confirmed(here, '/book')
    expect((await here.ask('/book?take=15', other)).json).toEqual({ again: 'RAMPMETER_ALREADY_CAPTURED', credits: 13 })
    expect(here.intents.get(other)).toMatchObject({ status: 'succeeded', amount_received: 130 })
  })
})
