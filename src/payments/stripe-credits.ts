import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { checkCredits } from './amounts.ts'
import { internalsOf, type CreditLedger } from './ledger.ts'
import { accountless, webhook, type StripeEvent, type WebhookHandler } from './webhook.ts'

export interface StripeCreditsOptions {
  ledger: CreditLedger
  /** The signing secret of the webhook's endpoint (`whsec_…`); several while one is rolled. */
  webhookSecret: string | readonly string[]
  /**
   * How many credits a paid Checkout Session is worth; undefined or null where it is no purchase of credits: then it is
   * acknowledged, and nothing is granted.
   */
  credits: (event: StripeEvent) => number | null | undefined | Promise<number | null | undefined>
  /** Whose they are. Default: the session's `client_reference_id`. */
  account?: (event: StripeEvent) => string | null | undefined
  /** How old a signature may be. Default 5 minutes. */
  tolerance?: Duration
}

export const secrets: z.ZodType<string[], string | readonly string[]> = z
  .union([z.string().min(1), z.array(z.string().min(1)).min(1)], {
    error: "the endpoint's signing secret, or a list of such",
  })
  .transform((value) => [value].flat())
  .refine((all) => !all.some((one) => isApiKey(one)), {
    error: 'the signing secret of the endpoint (whsec_…), and not a key of the API',
  }) as never

/** Stripe's keys say what they are: secret, restricted or publishable. */
function isApiKey(text: string): boolean {
  return /^[srp]k_/.test(text)
}

export const tolerance: z.ZodType<number> = z
  .unknown()
  .transform((value) => parseDuration(value, 'the `tolerance` of a webhook'))
  .prefault('5m')

export const ledgerOption: z.ZodType<CreditLedger> = z.custom<CreditLedger>(
  (value) => typeof value === 'object' && value !== null,
  'creditLedger({ store })',
)

const optionsSchema = z.strictObject({
  ledger: ledgerOption,
  webhookSecret: secrets,
  credits: z.custom<StripeCreditsOptions['credits']>((value) => typeof value === 'function', 'a function of the event'),
  account: z
    .custom<StripeCreditsOptions['account'] & {}>((value) => typeof value === 'function', 'a function of the event')
    .default(
      () =>
        ({ data }: StripeEvent) =>
          data.object['client_reference_id'] as string | null | undefined,
    ),
  tolerance,
})

/** What says that a Checkout Session is paid: at once, or later, as by bank transfer. */
const paidBy: ReadonlySet<string> = new Set(['checkout.session.completed', 'checkout.session.async_payment_succeeded'])

/**
 * Makes the handler of Stripe's webhook that turns paid Checkout Sessions into credits, each once, however often its events come.
 * It takes the raw body itself: mount it before `express.json()`.
 *
 * Everything else that is well signed is acknowledged.
 *
 * @example
 * app.post('/stripe', stripeCredits({ ledger, webhookSecret, credits: ({ data }) => data.object.amount_total / 10 }))
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`. On a request, to
 * `next`: `RAMPMETER_WEBHOOK_ACCOUNT`, `RAMPMETER_WEBHOOK_BODY`, `RAMPMETER_INVALID_AMOUNT`, `RAMPMETER_STORE_UNAVAILABLE`
 */
export function stripeCredits(options: StripeCreditsOptions): WebhookHandler {
  const { ledger, webhookSecret, credits, account, tolerance } = readOptions(optionsSchema, options, 'stripeCredits')
  internalsOf(ledger)

  return webhook(webhookSecret, tolerance, async function grantPaidSession(event) {
    const session = event.data.object
    if (!paidBy.has(event.type) || session['payment_status'] !== 'paid') return
    const worth = await credits(event)
    if (worth === undefined || worth === null) return
    const name = account(event)
    if (typeof name !== 'string' || name === '') throw accountless(event)
    const amount = checkCredits(worth, 'what `credits` returned')
    const intent = session['payment_intent']
    try {
      // A purchase may be told by two events.
      await ledger.grant(name, amount, {
        idempotencyKey: `stripe:${typeof session['id'] === 'string' ? session['id'] : event.id}`,
        ...(typeof intent === 'string' && intent !== '' && { purchase: intent }),
      })
    } catch (error) {
      // Granted before, when it was worth another amount.
      if (!(error instanceof RampmeterError) || error.code !== 'RAMPMETER_IDEMPOTENCY_CLASH') throw error
    }
  })
}
