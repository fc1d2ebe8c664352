import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { internalsOf, type CreditLedger } from './ledger.ts'
import type { Bill, LaterPayments, Offer, PaymentOutcome, PaymentProvider } from './provider.ts'
import { ledgerOption, secrets, tolerance } from './stripe-credits.ts'
import { createDeposits } from './stripe-deposits.ts'
import { UnusedIntents } from './stripe-unused.ts'
import { createTakeBack } from './take-back.ts'
import { webhook, type StripeEvent, type WebhookHandler } from './webhook.ts'

/** A PaymentIntent, as far as it is looked at. */
export interface StripePaymentIntent {
  readonly id: string
  readonly status: string
  readonly currency: string
  readonly amount_capturable: number
  readonly amount_received: number
  readonly client_secret: string | null
  readonly metadata: Readonly<Record<string, string>>
}

/** What is used of `new Stripe(key)`, of the `stripe` package 17 or later, described by its shape. */
export interface StripeClient {
  readonly paymentIntents: {
    create(params: {
      amount: number
      currency: string
      capture_method: 'manual'
      automatic_payment_methods: { enabled: true }
      metadata: Record<string, string>
    }): Promise<StripePaymentIntent>
    retrieve(id: string): Promise<StripePaymentIntent>
    capture(
      id: string,
      params: { amount_to_capture: number },
      options: { idempotencyKey: string },
    ): Promise<StripePaymentIntent>
    cancel(id: string): Promise<StripePaymentIntent>
  }
  /** Looked at for whose purchase was refunded or disputed, where its metadata do not say. */
  readonly checkout?: {
    readonly sessions: {
      list(params: {
        payment_intent: string
        limit: number
      }): Promise<{ readonly data: readonly { readonly client_reference_id: string | null }[] }>
    }
  }
  readonly refunds: {
    create(params: { payment_intent: string; amount?: number }, options?: { idempotencyKey: string }): Promise<unknown>
  }
}

/** A payment that is disputed, or that a bank inquires about. */
export interface StripeDispute {
  /** Stripe's id of the dispute. */
  readonly id: string
  readonly account: string
  /** The credits that were taken back; 0 of an inquiry, and of what paid for a request. */
  readonly credits: number
  /** What is left of them in debt: they were spent already. */
  readonly owed: number
  readonly reason: string
  /**
   * A bank asks, and has moved no money (the dispute's status begins with `warning_`): nothing is taken back. If it becomes a
   * dispute, that is told again.
   */
  readonly inquiry: boolean
}

export interface StripeOptions {
  /** `new Stripe(secretKey)`. */
  client: StripeClient
  /** A currency in three letters, in which requests are paid: `usd`. */
  currency: string
  /** What a credit costs, in the currency's smallest unit. */
  perCredit: number
  /** Told in a 402, for Stripe.js. */
  publishableKey?: string
  /**
   * After how long the PaymentIntent of a 402 is cancelled that nobody confirmed. Default 1 hour. Those of a process that ended
   * before stay open at Stripe.
   */
  cancelUnusedAfter?: Duration
  /** For the webhook: whose credits refunds and disputes take back. */
  ledger?: CreditLedger
  /** For the webhook: the signing secret of its endpoint. */
  webhookSecret?: string | readonly string[]
  /**
   * For the webhook: whose purchase it was. Default: the `account` in the metadata of the PaymentIntent, which
   * `payment_intent_data.metadata` of a Checkout Session sets; else the session's `client_reference_id`, if the ledger knows the
   * purchase. What has none is no purchase of credits, and is acknowledged.
   */
  account?: (metadata: Readonly<Record<string, string>>, event: StripeEvent) => string | null | undefined
  /**
   * Hears of each dispute and inquiry once. The limiter's `abuse` hears of disputes by itself where the provider is among its
   * `providers` and accounts are clients' ids.
   */
  onDispute?: (dispute: StripeDispute) => void
  /** How old a webhook's signature may be. Default 5 minutes. */
  tolerance?: Duration
}

/** A PaymentIntent that a request names. */
export interface StripeOffer extends Offer {
  readonly paymentIntent: string
}

/** Payment with Stripe, and the handler of its webhook for refunds and disputes. */
export interface StripeProvider extends PaymentProvider<StripeOffer> {
  /**
   * Captures, releases and refunds after the request, by `chargeId`: what `ledger.capture('stripe:pi_…')` and its like call, for
   * apps without a ledger.
   */
  readonly later: LaterPayments
  /**
   * Takes credits back that were refunded or are disputed, and returns those of a dispute that was won; each once. Of what
   * `stripeCredits` granted (or `ledger.grant` with `purchase`) it takes the same share as of the money, in whatever currency; of
   * anything else what `perCredit` says. An inquiry takes nothing. It takes the raw body itself. Needs `ledger` and
   * `webhookSecret`, and the events `charge.refunded`, `charge.dispute.created`, `.updated`, `.funds_withdrawn`,
   * `.funds_reinstated` and `.closed`.
   */
  readonly webhook: WebhookHandler
}

const optionsSchema = z.strictObject({
  client: z.custom<StripeClient>(
    (value) => typeof (value as Partial<StripeClient> | null)?.paymentIntents?.capture === 'function',
    'new Stripe(secretKey)',
  ),
  currency: z.string().regex(/^[a-z]{3}$/, 'a currency in three small letters, such as "usd"'),
  perCredit: z.int().min(1).max(1e9),
  publishableKey: z.string().optional(),
  cancelUnusedAfter: z
    .unknown()
    .transform((value) => parseDuration(value, "stripe's `cancelUnusedAfter`"))
    .prefault('1h'),
  ledger: ledgerOption.optional(),
  webhookSecret: secrets.optional(),
  account: z.custom<StripeOptions['account'] & {}>((value) => typeof value === 'function', 'a function').optional(),
  onDispute: z.custom<StripeOptions['onDispute'] & {}>((value) => typeof value === 'function', 'a function').optional(),
  tolerance,
})

/** What would tell a secret to everybody who is asked to pay, or leave the webhook without one. Neither is repeated. */
function refuseLeaks(options: StripeOptions): void {
  const { publishableKey } = options
  if (publishableKey !== undefined && !publishableKey.startsWith('pk_')) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'stripe: `publishableKey` does not begin with pk_, and every 402 would tell it; write the publishable key, and the secret one for `new Stripe(secretKey)` alone',
    )
  }
  if ('webhookSecret' in options && options.webhookSecret === undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'stripe: `webhookSecret` is undefined, as of a variable that is not set; write the signing secret of the endpoint (whsec_…), or leave it out where there is none',
    )
  }
}

/** Stripe keeps an authorisation for at most so long; afterwards the intent itself says that it is not good. */
const rememberedMs = 31 * 24 * 3_600_000

/**
 * Payment of single requests with Stripe: PaymentIntents with manual capture, which the client confirms with Stripe.js and names
 * in the field `Payment-Intent`. The money is set aside when the request comes, and taken before its answer leaves; a deposit when
 * the app says so.
 *
 * Cards cost their fee each time: for small amounts sell credits, with `stripeCredits`.
 *
 * @see [Stripe, place a hold](https://docs.stripe.com/payments/place-a-hold-on-a-payment-method)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function stripe(options: StripeOptions): StripeProvider {
  const settings = readOptions(optionsSchema, options, 'stripe')
  const { client, currency, perCredit, publishableKey, ledger } = settings
  refuseLeaks(options)
  if (ledger !== undefined) internalsOf(ledger)
  const unused = new UnusedIntents(client, settings.cancelUnusedAfter)
  const listeners = new Set<(account: string) => void>()
  const takeBack = createTakeBack({
    client,
    currency,
    perCredit,
    ledger,
    account: settings.account,
    onDispute(dispute) {
      settings.onDispute?.(dispute)
      if (!dispute.inquiry) for (const listener of listeners) listener(dispute.account)
    },
  })

  /** What a card or a request that cannot be was answered with is a refusal; anything else is an outage. */
  async function refusing(act: () => Promise<PaymentOutcome>): Promise<PaymentOutcome> {
    try {
      return await act()
    } catch (error) {
      const { type, code } = Object(error) as { type?: unknown; code?: unknown }
      if (type !== 'StripeCardError' && type !== 'StripeInvalidRequestError') throw error
      return { paid: false, reason: `Stripe refused it${typeof code === 'string' ? ` (${code})` : ''}` }
    }
  }

  return {
    name: 'stripe',
    holds: true,

    detect(req) {
      const id = req.headers['payment-intent']
      if (typeof id !== 'string') return undefined
      if (!/^pi_\w{1,128}$/.test(id)) return { malformed: 'Payment-Intent names no PaymentIntent' }
      return { claim: id, lastsMs: rememberedMs, paymentIntent: id }
    },

    async challenge({ credits, account }) {
      const amount = credits * perCredit
      const { id, client_secret: clientSecret } = await client.paymentIntents.create({
        amount,
        currency,
        capture_method: 'manual',
        automatic_payment_methods: { enabled: true },
        metadata: { rampmeter_account: account.slice(0, 500) },
      })
      unused.add(id)
      return {
        way: {
          paymentIntent: id,
          clientSecret,
          amount,
          currency,
          ...(publishableKey !== undefined && { publishableKey }),
        },
      }
    },

    verify({ paymentIntent }, bill) {
      return refusing(async () => {
        const intent = await client.paymentIntents.retrieve(paymentIntent)
        const reason = faultOf(intent, bill)
        if (reason === undefined) unused.used(paymentIntent)
        return reason === undefined ? { paid: true } : { paid: false, reason }
      })
    },

    // The client has done that, by confirming.
    reserve: async () => {},

    capture({ paymentIntent }, credits) {
      return refusing(async () => {
        if (credits === 0) {
          await client.paymentIntents.cancel(paymentIntent)
          return { paid: true }
        }
        const { status } = await client.paymentIntents.capture(
          paymentIntent,
          { amount_to_capture: credits * perCredit },
          { idempotencyKey: `rampmeter-capture-${paymentIntent}` },
        )
        return status === 'succeeded' ? { paid: true } : { paid: false, reason: `the PaymentIntent is ${status}` }
      })
    },

    async release({ paymentIntent }) {
      await client.paymentIntents.cancel(paymentIntent)
    },

    async refund({ paymentIntent }, credits, _, left) {
      await client.refunds.create(
        { payment_intent: paymentIntent, amount: credits * perCredit },
        { idempotencyKey: `rampmeter-refund-${paymentIntent}-${left}-${credits}` },
      )
    },

    later: createDeposits(client, perCredit),

    disputes(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },

    webhook: webhook(settings.webhookSecret ?? [], settings.tolerance, takeBack),
  }

  function faultOf(intent: StripePaymentIntent, { credits, account }: Bill): string | undefined {
    if (intent.status !== 'requires_capture') return `the PaymentIntent is ${intent.status}`
    if (intent.metadata['rampmeter_account'] !== account.slice(0, 500)) return 'the PaymentIntent is of another account'
    if (intent.currency !== currency || intent.amount_capturable < credits * perCredit)
      return 'the PaymentIntent is of another price'
    return undefined
  }
}
