// Payments with Stripe after their request: deposits by the calls of the ledger, refunds whose answer is lost, and PaymentIntents
// that nobody pays.

import express, { type Request } from 'express'
import { describe, expect, it } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import { stripe } from '../../src/payments/stripe.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { opened, serve } from '../http/serve.ts'
import { account, startStripe } from './stripe-api.ts'

const policies = [tokenBucket({ quota: 100, window: '1h' })]

function codeOf(call: Promise<unknown>): Promise<string> {
  return call.then(
    () => 'done',
    ({ code }: { code: string }) => code,
  )
}

describe('a deposit with Stripe, by the calls of the ledger', () => {
  async function bank(): Promise<
    Awaited<ReturnType<typeof startStripe>> & {
      ledger: ReturnType<typeof creditLedger>
      cards: ReturnType<typeof stripe>
      book: () => Promise<{ id: string; chargeId: string }>
      close: () => Promise<void>
    }
  > {
    const api = await startStripe()
    const store = memoryStore()
    const ledger = creditLedger({ store })
    const cards = stripe({ client: api.client, currency: 'usd', perCredit: 10 })
    const limiter = opened(
      rampmeter({ store, policies, payments: { ledger, account: () => account, providers: [cards] } }),
    )
    const app = express()
    app.get('/book', limiter.route({ price: { credits: 20, hold: '1d' } }), (req, res) => {
      res.json({ chargeId: req.rateLimit!.payment!.chargeId })
    })
    const served = await serve(app)
    await ledger.grant(account, 5)
    return {
      ...api,
      ledger,
      cards,
      close: () => limiter.close(),
      async book() {
        const { json } = await served.ask('/book')
        const { paymentIntent: id } = json.error.ways.find((way: { provider: string }) => way.provider === 'stripe')
        api.confirm(id)
        const { status, json: told } = await served.ask('/book', { headers: { 'payment-intent': id } })
        expect({ status, told }).toEqual({ status: 200, told: { chargeId: `stripe:${id}` } })
        return { id, chargeId: told.chargeId as string }
      },
    }
  }

  it('is captured, in part, once; and refunded', async () => {
    const { ledger, cards, intents, state, book } = await bank()
    const { id, chargeId } = await book()
    expect(await codeOf(ledger.refund(chargeId))).toBe('RAMPMETER_NOT_SPENT')
    expect(await codeOf(ledger.capture(chargeId, 21))).toBe('RAMPMETER_CHARGE_EXCEEDED')
    expect(await codeOf(ledger.capture(chargeId, -1))).toBe('RAMPMETER_INVALID_AMOUNT')
    // What the account has in the ledger is untouched: the money is at Stripe.
    expect(await ledger.capture(chargeId, 15)).toEqual({ available: 5, held: 0 })
    expect(intents.get(id)).toMatchObject({ status: 'succeeded', amount_received: 150 })
    expect(await codeOf(ledger.capture(chargeId))).toBe('RAMPMETER_ALREADY_CAPTURED')
    expect(await codeOf(ledger.release(chargeId))).toBe('RAMPMETER_ALREADY_CAPTURED')
    expect(await codeOf(ledger.refund(chargeId, 16))).toBe('RAMPMETER_CHARGE_EXCEEDED')
    state.losesAnswer = true
    expect(await codeOf(ledger.refund(chargeId, 5, { idempotencyKey: 'r1' }))).toBe('RAMPMETER_PAYMENT_PROVIDER')
    expect(await codeOf(ledger.refund(chargeId, 5, { idempotencyKey: 'r1' }))).toBe('done')
    expect(intents.get(id)!.amount_received).toBe(100)
    await cards.later.refund(chargeId, undefined, undefined)
    expect(intents.get(id)!.amount_received).toBe(0)
  })

  it('is captured whole, or released, however often that is said', async () => {
    const { ledger, intents, book } = await bank()
    const whole = await book()
    await ledger.capture(whole.chargeId)
    expect(intents.get(whole.id)).toMatchObject({ status: 'succeeded', amount_received: 200 })
    const released = await book()
    await ledger.release(released.chargeId)
    await ledger.release(released.chargeId)
    expect(intents.get(released.id)!.status).toBe('canceled')
    expect(await codeOf(ledger.capture(released.chargeId))).toBe('RAMPMETER_HOLD_ENDED')
    const nothing = await book()
    await ledger.capture(nothing.chargeId, 0)
    expect(intents.get(nothing.id)!.status).toBe('canceled')
  })

  it('is none where it is not ours, and cannot be reached while Stripe is away', async () => {
    const { ledger, intents, state, book, close } = await bank()
    const { id, chargeId } = await book()
    for (const wrong of ['stripe:pi_made_up', 'stripe:../refunds', 'cards:pi_1', 'stripe:']) {
      expect(await codeOf(ledger.capture(wrong))).toBe('RAMPMETER_UNKNOWN_CHARGE')
    }
    state.down = true
    expect(await codeOf(ledger.capture(chargeId))).toBe('RAMPMETER_PAYMENT_PROVIDER')
    state.down = false
    intents.get(id)!.metadata = {}
    expect(await codeOf(ledger.capture(chargeId))).toBe('RAMPMETER_UNKNOWN_CHARGE')
    await close()
    await expect(ledger.capture(chargeId)).rejects.toMatchObject({
      code: 'RAMPMETER_UNKNOWN_CHARGE',
      message: expect.stringContaining('no limiter in this process') as string,
    })
  })
})

it('a refund whose answer was lost is made once, however often it is said', async () => {
  const { client, intents, confirm, state } = await startStripe()
  const cards = stripe({ client, currency: 'usd', perCredit: 10 })
  const limiter = opened(rampmeter({ policies, payments: { account: () => account, providers: [cards] } }))
  const app = express()
  app.get('/buy', limiter.route({ price: { credits: 20, hold: '1d' } }), async (req, res) => {
    const payment = req.rateLimit!.payment!
    await payment.capture()
    state.losesAnswer = true
    const lost = await payment.refund(5).catch(({ message }: Error) => message)
    await payment.refund(5)
    await payment.refund(5)
    res.json({ lost, credits: payment.credits })
  })
  const served = await serve(app)
  const { json } = await served.ask('/buy')
  const [{ paymentIntent: id }] = json.error.ways
  confirm(id)
  const { json: told } = await served.ask('/buy', { headers: { 'payment-intent': id } })
  expect(told).toEqual({ lost: expect.stringContaining('lost') as string, credits: 10 })
  expect(intents.get(id)!.amount_received).toBe(100)
})

it('PaymentIntents of 402s that nobody confirmed are cancelled, and no others', async () => {
  const { client, intents, confirm } = await startStripe()
  const cards = stripe({ client, currency: 'usd', perCredit: 10, cancelUnusedAfter: '200ms' })
  const bill = { account, credits: 20, holdMs: null, errorsAreFree: false, hangUpIsFree: false, req: {} as Request }
  for (let nth = 0; nth < 3; nth += 1) await cards.challenge(bill, undefined)
  const [, used] = [...intents.keys()]
  confirm(used!)
  const unused = [...intents.keys()].filter((id) => id !== used)
  await expect
    .poll(() => unused.map((id) => intents.get(id)!.status), { timeout: 20_000 })
    .toEqual(['canceled', 'canceled'])
  expect(intents.get(used!)!.status).toBe('requires_capture')
})
