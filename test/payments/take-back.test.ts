// Money that went back takes the credits back that it bought, once, and no more of them; and money that comes again returns them.
// Events are those that Stripe sends: its real client, and a local server that speaks its few endpoints.

import { describe, expect, it } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import type { CreditLedger } from '../../src/payments/ledger.ts'
import { stripe, type StripeDispute, type StripeOptions } from '../../src/payments/stripe.ts'
import { stripeCredits } from '../../src/payments/stripe-credits.ts'
import type { Store } from '../../src/stores/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { opened, type Reply } from '../http/serve.ts'
import { stores } from '../http/stores.ts'
import {
  account,
  eventOf,
  paidSession,
  send,
  serveWebhook,
  startStripe,
  webhookSecret,
  type Told,
} from './stripe-api.ts'

interface Till {
  readonly ledger: CreditLedger
  readonly disputes: StripeDispute[]
  /** Sends it twice, as Stripe may. */
  readonly tell: (told: Told) => Promise<void>
  readonly tellOnce: (told: Told) => Promise<Reply>
  /** Stripe tells of the purchase. */
  readonly sell: () => Promise<void>
  readonly has: (available: number) => Promise<void>
}

/** A purchase of 1000 credits for 9.00 EUR, though `perCredit` says 10 US cents: the pack was discounted. */
async function till(
  store: Store,
  options: Partial<StripeOptions> & { named?: boolean; known?: boolean } = {},
): Promise<Till> {
  const { named = true, known = true, ...more } = options
  const { client, intents, sessions } = await startStripe()
  const ledger = opened(creditLedger({ store, acceptLoss: true }))
  const metadata: Record<string, string> = named ? { account } : {}
  intents.set('pi_1', {
    id: 'pi_1',
    status: 'succeeded',
    amount: 900,
    amount_capturable: 0,
    amount_received: 900,
    currency: 'eur',
    client_secret: 'pi_1_secret',
    metadata,
  })
  sessions.push({ payment_intent: 'pi_1', client_reference_id: account })
  const disputes: StripeDispute[] = []
  const selling = await serveWebhook(stripeCredits({ ledger, webhookSecret, credits: () => 1000 }))
  const object = paidSession({ payment_intent: 'pi_1', amount_total: 900, currency: 'eur' })
  const sell = async (): Promise<void> => {
    const sold = await send(selling, eventOf({ type: 'checkout.session.completed', object }))
    expect(sold.status).toBe(200)
  }
  if (known) await sell()
  const { webhook } = stripe({
    client,
    currency: 'usd',
    perCredit: 10,
    ledger,
    webhookSecret,
    onDispute: (one) => disputes.push(one),
    ...more,
  })
  const served = await serveWebhook(webhook)
  return {
    ledger,
    disputes,
    sell,
    async tell(told) {
      const payload = eventOf(told)
      for (let nth = 0; nth < 2; nth += 1) expect((await send(served, payload)).status).toBe(200)
    },
    tellOnce: (told) => send(served, eventOf(told)),
    async has(available) {
      expect(await ledger.balance(account)).toEqual({ available, held: 0 })
      const audit = await ledger.audit(account)
      expect(audit).toMatchObject({ consistent: true })
      expect(audit.granted).toBe(audit.available + audit.held + audit.spent - audit.refunded)
    },
  }
}

const refund = (amount: number, before = 0): Told => ({
  type: 'charge.refunded',
  object: {
    id: 'ch_1',
    object: 'charge',
    amount: 900,
    amount_captured: 900,
    amount_refunded: amount,
    currency: 'eur',
    payment_intent: 'pi_1',
    metadata: {},
  },
  previous: { amount_refunded: before },
})

const dispute = (what: string, status: string, more: Record<string, unknown> = {}, before?: string): Told => ({
  type: `charge.dispute.${what}`,
  object: {
    id: 'du_1',
    object: 'dispute',
    amount: 900,
    currency: 'eur',
    payment_intent: 'pi_1',
    reason: 'fraudulent',
    metadata: {},
    status,
    ...more,
  },
  ...(before !== undefined && { previous: { status: before } }),
})

describe.each(stores)('what a purchase gave, $name', ({ makeStore }) => {
  it('is taken back in the proportion in which its price is refunded, in its own currency', async () => {
    const { tell, has } = await till(await makeStore())
    await has(1000)
    await tell(refund(300))
    await has(667)
    await tell(refund(450, 300))
    await has(500)
    // What comes late is of the past.
    await tell(refund(300))
    await has(500)
    await tell(refund(900, 450))
    await has(0)
  })

  it('is not taken twice where it is refunded in part and then disputed as a whole', async () => {
    const { tell, has, disputes } = await till(await makeStore())
    await tell(refund(450))
    await tell(dispute('created', 'needs_response'))
    await has(0)
    expect(disputes).toEqual([{ id: 'du_1', account, credits: 500, owed: 0, reason: 'fraudulent', inquiry: false }])
    await tell(dispute('closed', 'won'))
    await has(500)
  })

  it.each([
    ['is told as a change', dispute('updated', 'won', {}, 'lost')],
    ['is told by the money', dispute('funds_reinstated', 'won')],
  ])('comes back where a dispute that was lost is won by an appeal, once: it %s', async (_, appeal) => {
    const { tell, has, ledger } = await till(await makeStore())
    await tell(dispute('created', 'needs_response'))
    await tell(dispute('closed', 'lost'))
    await has(0)
    // Of a refund before the dispute money may come again too; the dispute is as it was.
    await tell(dispute('funds_reinstated', 'lost'))
    await has(0)
    await tell(appeal)
    await has(1000)
    await tell(dispute('closed', 'won'))
    await has(1000)
    // The history calls it by the dispute.
    expect((await ledger.history(account)).map(({ type, ref }) => [type, ref])).toEqual([
      ['grant', expect.stringContaining('stripe:cs_') as string],
      ['revoke', 'du_1'],
      ['grant', 'du_1'],
    ])
    // Another dispute about the same payment is another.
    await tell(dispute('created', 'needs_response', { id: 'du_2' }))
    await has(0)
  })

  it('stays through an inquiry that closes without loss', async () => {
    const { tell, has, disputes } = await till(await makeStore())
    await tell(dispute('created', 'warning_needs_response'))
    await has(1000)
    await tell(dispute('updated', 'warning_under_review', {}, 'warning_needs_response'))
    await tell(dispute('closed', 'warning_closed'))
    await has(1000)
    expect(disputes).toEqual([{ id: 'du_1', account, credits: 0, owed: 0, reason: 'fraudulent', inquiry: true }])
  })

  it.each([
    ['is updated', dispute('updated', 'needs_response', {}, 'warning_needs_response')],
    ['moves money', dispute('funds_withdrawn', 'needs_response')],
  ])('is taken back once an inquiry becomes a dispute, as told where it %s', async (_, becomes) => {
    const { tell, has, disputes } = await till(await makeStore())
    await tell(dispute('created', 'warning_needs_response'))
    await tell(becomes)
    await has(0)
    await tell(dispute('funds_withdrawn', 'needs_response'))
    await tell(dispute('updated', 'under_review', {}, 'needs_response'))
    await has(0)
    await tell(dispute('closed', 'lost'))
    await has(0)
    expect(disputes.map(({ inquiry, credits }) => ({ inquiry, credits }))).toEqual([
      { inquiry: true, credits: 0 },
      { inquiry: false, credits: 1000 },
    ])
  })

  it('is taken back when it is told, where that is told after its refund or dispute', async () => {
    const late = async (...told: Told[]): Promise<Till> => {
      const made = await till(await makeStore(), { named: false, known: false })
      for (const one of told) await made.tell(one)
      await made.has(0)
      await made.sell()
      await made.sell()
      return made
    }
    const refunded = await late(refund(300), refund(600, 300), refund(300))
    await refunded.has(334)
    // What comes once more is known, and what comes besides is counted beside it.
    await refunded.tell(refund(600, 300))
    await refunded.has(334)
    await refunded.tell(dispute('created', 'needs_response'))
    await refunded.has(0)
    await refunded.tell(dispute('closed', 'won'))
    await refunded.has(334)
    const entries = await refunded.ledger.history(account, { limit: 2 })
    expect(entries.map(({ type, available, ref }) => [type, available, ref])).toEqual([
      ['grant', 1000, expect.stringContaining('stripe:')],
      ['revoke', -666, 'pi_1'],
    ])

    const disputed = await late(dispute('created', 'needs_response'))
    await disputed.has(0)
    expect(disputed.disputes).toMatchObject([{ account, credits: 0 }])
    await disputed.tell(dispute('closed', 'won'))
    await disputed.has(1000)

    const won = await late(dispute('created', 'needs_response'), dispute('closed', 'won'))
    await won.has(1000)
    await won.tell(dispute('created', 'needs_response'))
    await won.has(1000)
  })

  it('is told of once, also where several processes hear of it, and where nothing was left to take', async () => {
    const store = await makeStore()
    const all = await till(store)
    const disputes: StripeDispute[] = []
    let fails = true
    const another = await till(store, {
      known: false,
      onDispute(one) {
        if (fails) throw new Error('the mail server is away')
        disputes.push(one)
      },
    })
    await all.tell(refund(900))
    // It is taken, and could not be told: Stripe sends it again.
    expect((await another.tellOnce(dispute('created', 'needs_response'))).status).toBe(500)
    fails = false
    await another.tell(dispute('created', 'needs_response'))
    await all.tell(dispute('created', 'needs_response'))
    await all.tell(dispute('funds_withdrawn', 'needs_response'))
    expect(disputes).toMatchObject([{ id: 'du_1', account, credits: 0 }])
    expect(all.disputes).toEqual([])
  })

  it('is not taken back by what comes after a dispute was won', async () => {
    const { tell, has } = await till(await makeStore())
    await tell(dispute('closed', 'won'))
    await tell(dispute('created', 'needs_response'))
    await has(1000)
  })
})

describe('the webhook of refunds and disputes', () => {
  it('takes what is disputed of a purchase, and owes what was spent of it', async () => {
    const { ledger, tell, has, disputes } = await till(memoryStore())
    const { id } = await ledger.hold(account, 800, { ttl: '1h' })
    await ledger.capture(id)
    await tell(dispute('created', 'needs_response', { amount: 450 }))
    await has(-300)
    expect(disputes).toMatchObject([{ credits: 500, owed: 300 }])
    await expect(ledger.hold(account, 1, { ttl: '1m' })).rejects.toMatchObject({
      code: 'RAMPMETER_INSUFFICIENT_CREDIT',
    })
    await tell(dispute('closed', 'won', { amount: 450 }))
    await has(200)
  })

  it('takes all of what is disputed in another currency than it was paid in', async () => {
    const { tell, has } = await till(memoryStore())
    await tell(dispute('created', 'needs_response', { currency: 'usd', amount: 950 }))
    await has(0)
  })

  it('takes nothing for a dispute that was prevented, until money moves', async () => {
    const { tell, has } = await till(memoryStore())
    await tell(dispute('created', 'prevented'))
    await has(1000)
    await tell(dispute('funds_withdrawn', 'prevented'))
    await has(0)
  })

  it("finds whose purchase it was by the session's client_reference_id", async () => {
    const { tell, has, disputes } = await till(memoryStore(), { named: false })
    await tell(refund(450))
    await has(500)
    await tell(dispute('created', 'needs_response'))
    expect(disputes).toMatchObject([{ account, credits: 500 }])
    await has(0)
    // What is of no Checkout Session, and names nobody, is no purchase of credits.
    const other = refund(900)
    await tell({ ...other, object: { ...other.object, payment_intent: 'pi_2', metadata: { other: 'x' } } })
    await has(0)
  })

  it('asks no session where `account` says that it is no purchase of credits', async () => {
    const { tell, has } = await till(memoryStore(), { named: false, account: () => undefined })
    await tell(refund(900))
    await has(1000)
  })

  it('takes what perCredit says of what was granted otherwise, in its currency', async () => {
    const { ledger, tell, has } = await till(memoryStore(), { known: false })
    await ledger.grant(account, 100)
    const inDollars = { currency: 'usd' }
    const part = (amount: number, before: number): Told => {
      const told = refund(amount, before)
      return { ...told, object: { ...told.object, ...inDollars } }
    }
    await tell(part(105, 0))
    await has(90)
    await tell(part(200, 105))
    await has(80)
    await tell(dispute('created', 'warning_needs_response', { ...inDollars, amount: 500 }))
    await tell(dispute('closed', 'warning_closed', { ...inDollars, amount: 500 }))
    await has(80)
    await tell(dispute('funds_withdrawn', 'needs_response', { ...inDollars, amount: 500 }))
    await has(30)
    await tell(dispute('closed', 'won', { ...inDollars, amount: 500 }))
    await has(80)
  })

  it('says so where the currency does not tell what was bought, and takes nothing', async () => {
    const { ledger, tellOnce, has } = await till(memoryStore(), { known: false })
    await ledger.grant(account, 100)
    for (const told of [refund(900), dispute('created', 'needs_response')]) {
      const { status, json } = await tellOnce(told)
      expect({ status, code: json.code }).toEqual({ status: 500, code: 'RAMPMETER_WEBHOOK_CURRENCY' })
    }
    await has(100)
  })

  it('takes back what was granted by hand with the name of its payment', async () => {
    const { ledger, tell, has } = await till(memoryStore(), { known: false })
    await ledger.grant(account, 60, { purchase: 'pi_1', idempotencyKey: 'order 7' })
    await tell(refund(300))
    await has(40)
  })
})
