import { LRUCache } from 'lru-cache'
import { RampmeterError } from '../errors.ts'
import type { TakeBack } from '../stores/ledger.ts'
import { internalsOf, type CreditBalance, type CreditLedger } from './ledger.ts'
import type { StripeClient, StripeDispute, StripeOptions } from './stripe.ts'
import type { StripeEvent } from './webhook.ts'

export interface TakeBackOptions {
  readonly client: StripeClient
  readonly currency: string
  readonly perCredit: number
  readonly ledger: CreditLedger | undefined
  /** Whose purchase it was; undefined to look for it. */
  readonly account: StripeOptions['account']
  /** Hears of each dispute and inquiry once; of one that it throws on, again when Stripe sends it again. */
  readonly onDispute: (dispute: StripeDispute) => void
}

/** What an event says about money that went back, or came again. */
type Change =
  | { readonly what: 'refund' }
  /** A bank asks, and moves no money yet. */
  | { readonly what: 'inquiry' }
  | { readonly what: 'dispute' }
  | { readonly what: 'kept' }

/** The payment that an event is about. */
interface Payment {
  readonly intent: string | undefined
  readonly metadata: Readonly<Record<string, string>>
}

/** How much of a price went back. */
interface Share {
  readonly part: number
  readonly price: number
}

/** What became of it: how many credits were taken, and whether it is heard of for the first time. */
interface Taken {
  readonly credits: number
  readonly balance?: CreditBalance
  readonly first: boolean
}

/** That a dispute was told is remembered of so many. */
const remembered = 10_000

/**
 * Makes what takes credits back for money that went back, and returns them for money that came again.
 *
 * Stripe tells of money that is gone in several ways: a dispute that begins as one; an inquiry, whose statuses begin with
 * `warning_` and which moves no money, that turns into one; and money that is withdrawn. An inquiry ends as `warning_closed`,
 * a dispute as `won` or `lost`, and one that was lost may be won by an appeal. One that was `prevented` moves money only where another event says so.
 *
 * @see [Stripe, the Dispute object](https://docs.stripe.com/api/disputes/object), [types of events](https://docs.stripe.com/api/events/types)
 */
export function createTakeBack(options: TakeBackOptions): (event: StripeEvent) => Promise<void> {
  const { client, currency, perCredit, ledger, onDispute } = options
  const told = new LRUCache<string, true>({ max: remembered })
  /** Those that `onDispute` threw on: Stripe sends them again, and then nothing is taken any more. */
  const untold = new LRUCache<string, StripeDispute>({ max: remembered })

  return async function takeBack(event) {
    const change = changeOf(event)
    if (change === undefined) return
    const { object } = event.data
    const payment = await paymentOf(object)
    const named = options.account?.(payment.metadata, event) ?? (options.account ? null : payment.metadata['account'])
    const account = isName(named) ? named : options.account === undefined ? await buyerOf(payment) : undefined
    if (account === undefined) {
      // Who paid for a request has no credits to lose, and is told of all the same.
      const payer = payment.metadata['rampmeter_account']
      if (isName(payer)) tell(change, object, payer, untaken(event))
      return
    }
    const taken =
      ledger === undefined || change.what === 'inquiry'
        ? undefined
        : ((await ofPurchase(ledger, account, payment, change, object, !isName(named))) ??
          (isName(named) ? await byPrice(ledger, account, change, event) : undefined))
    tell(change, object, account, taken ?? untaken(event))
  }

  /**
   * In proportion to what the purchase gave; undefined where the ledger knows of none.
   *
   * @param early what is not known yet may be told later: Stripe keeps no order, and sends again what failed
   */
  async function ofPurchase(
    ledger: CreditLedger,
    account: string,
    { intent }: Payment,
    { what }: Change,
    object: StripeEvent['data']['object'],
    early: boolean,
  ): Promise<Taken | undefined> {
    if (intent === undefined) return undefined
    const share = what === 'refund' ? shareOfCharge(object) : await shareOfDispute(object, intent)
    const how: TakeBack = what === 'refund' ? 'most' : what === 'kept' ? 'returned' : 'once'
    const by = what === 'refund' ? 'refunds' : String(object['id'])
    const done = await internalsOf(ledger).takeBack(account, intent, {
      by,
      how,
      ...share,
      ref: what === 'refund' ? intent : by,
      early,
    })
    return done && { credits: Math.max(0, done.moved), balance: done.balance, first: done.first }
  }

  /** At the price of a credit: of what was granted in another way than by purchase, where the metadata name the account. */
  async function byPrice(
    ledger: CreditLedger,
    account: string,
    { what }: Change,
    event: StripeEvent,
  ): Promise<Taken | undefined> {
    const { object, previous_attributes: before } = event.data
    // What an inquiry did not take is not returned.
    if (what === 'kept' && object['status'] !== 'won') return undefined
    if (object['currency'] !== undefined && object['currency'] !== currency) throw otherCurrency(event)
    const worth = (money: unknown): number => Math.floor(wholeOf(money) / perCredit)
    const dispute = String(object['id'])
    if (what === 'refund') {
      // Told by what refunds come to by now, so that parts of a credit add up.
      const credits = worth(object['amount_refunded']) - worth(before?.['amount_refunded'])
      if (credits < 1) return undefined
      await ledger.revoke(account, credits, { idempotencyKey: `stripe:${event.id}` })
      return untaken(event)
    }
    const credits = worth(object['amount'])
    if (credits < 1) return undefined
    if (what === 'kept') {
      await ledger.grant(account, credits, { idempotencyKey: `stripe:won:${dispute}` })
      return untaken(event)
    }
    const { balance } = await ledger.revoke(account, credits, { idempotencyKey: `stripe:${dispute}` })
    return { ...untaken(event), credits, balance }
  }

  async function paymentOf(object: StripeEvent['data']['object']): Promise<Payment> {
    const intent = typeof object['payment_intent'] === 'string' ? object['payment_intent'] : undefined
    const own = object['metadata']
    if (typeof own === 'object' && own !== null && Object.keys(own).length > 0) {
      return { intent, metadata: own as Record<string, string> }
    }
    return { intent, metadata: intent === undefined ? {} : (await client.paymentIntents.retrieve(intent)).metadata }
  }

  /** The account that the Checkout Session of a payment names. */
  async function buyerOf({ intent }: Payment): Promise<string | undefined> {
    if (intent === undefined) return undefined
    const found = await client.checkout?.sessions.list({ payment_intent: intent, limit: 1 })
    const name = found?.data[0]?.client_reference_id
    return isName(name) ? name : undefined
  }

  async function shareOfDispute(object: StripeEvent['data']['object'], intent: string): Promise<Share> {
    const paid = await client.paymentIntents.retrieve(intent)
    const price = wholeOf(paid.amount_received)
    // What is disputed in another currency than it was paid in cannot be compared: all of it is.
    if (price < 1 || (object['currency'] !== undefined && object['currency'] !== paid.currency)) return everything
    return { part: wholeOf(object['amount']), price }
  }

  function tell(
    { what }: Change,
    object: StripeEvent['data']['object'],
    account: string,
    { credits, balance, first }: Taken,
  ): void {
    if (what !== 'dispute' && what !== 'inquiry') return
    const id = String(object['id'])
    const name = `${what} ${id}`
    const owed = Math.max(0, -(balance?.available ?? 0))
    const heard = { id, account, credits, owed, reason: String(object['reason']), inquiry: what === 'inquiry' }
    const dispute = untold.get(name) ?? (first && !told.has(name) ? heard : undefined)
    if (dispute === undefined) return
    untold.set(name, dispute)
    onDispute(dispute)
    untold.delete(name)
    told.set(name, true)
  }
}

const everything: Share = { part: 1, price: 1 }

function shareOfCharge(charge: StripeEvent['data']['object']): Share {
  const price = wholeOf(charge['amount_captured']) || wholeOf(charge['amount'])
  return price < 1 ? everything : { part: wholeOf(charge['amount_refunded']), price }
}

function changeOf({ type, data: { object, previous_attributes: before } }: StripeEvent): Change | undefined {
  const { status } = object
  switch (type) {
    case 'charge.refunded':
      return { what: 'refund' }
    case 'charge.dispute.funds_withdrawn':
      return { what: 'dispute' }
    case 'charge.dispute.created':
      if (isInquiry(status)) return { what: 'inquiry' }
      return status === 'prevented' ? undefined : { what: 'dispute' }
    case 'charge.dispute.funds_reinstated':
      // Also said of what a refund had given back before, which is another's.
      return status === 'won' ? { what: 'kept' } : undefined
    case 'charge.dispute.updated':
      if (status === 'won' && before?.['status'] === 'lost') return { what: 'kept' }
      return isInquiry(before?.['status']) && !isInquiry(status) && status !== 'prevented' && status !== 'won'
        ? { what: 'dispute' }
        : undefined
    case 'charge.dispute.closed':
      return status === 'won' || status === 'warning_closed' ? { what: 'kept' } : undefined
    default:
      return undefined
  }
}

function isInquiry(status: unknown): boolean {
  return typeof status === 'string' && status.startsWith('warning_')
}

function isName(name: unknown): name is string {
  return typeof name === 'string' && name !== ''
}

function wholeOf(money: unknown): number {
  return Number.isSafeInteger(money) && (money as number) > 0 ? (money as number) : 0
}

/** Of what the ledger does not tell whether it was heard of before, the beginning counts, and not that money moves as well. */
function untaken({ type }: StripeEvent): Taken {
  return { credits: 0, first: type !== 'charge.dispute.funds_withdrawn' }
}

function otherCurrency({ id, type }: StripeEvent): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_WEBHOOK_CURRENCY',
    `the event ${id} (${type}) is about another currency than \`perCredit\` is in, and the ledger knows of no purchase that it belongs to, so what it bought cannot be told; grant with stripeCredits, or with \`purchase\`. Stripe sends it again`,
  )
}
