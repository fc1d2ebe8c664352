import { RampmeterError } from '../errors.ts'
import { checkCredits } from './amounts.ts'
import type { LaterPayments } from './provider.ts'
import type { StripeClient, StripePaymentIntent } from './stripe.ts'

/**
 * Makes what captures, releases and refunds payments with Stripe after their request: all there is to know is at Stripe.
 *
 * @param perCredit what a credit costs
 */
export function createDeposits(client: StripeClient, perCredit: number): LaterPayments {
  /** One of ours, that a 402 of this library made. */
  async function find(claim: string): Promise<StripePaymentIntent> {
    const id = claim.replace(/^stripe:/, '')
    const intent = /^pi_\w{1,128}$/.test(id) ? await asking(() => client.paymentIntents.retrieve(id)) : undefined
    if (intent?.metadata['rampmeter_account'] !== undefined) return intent
    throw new RampmeterError(
      'RAMPMETER_UNKNOWN_CHARGE',
      'Stripe knows no such PaymentIntent that paid for a request here; write the `chargeId` of req.rateLimit.payment',
    )
  }

  function accountOf({ metadata }: StripePaymentIntent): { account: string } {
    return { account: metadata['rampmeter_account']! }
  }

  async function release(intent: StripePaymentIntent): Promise<{ account: string }> {
    if (intent.status === 'succeeded') throw captured()
    if (intent.status !== 'canceled' && (await asking(() => client.paymentIntents.cancel(intent.id))) === undefined) {
      throw refused('cancel')
    }
    return accountOf(intent)
  }

  return {
    async capture(claim, credits) {
      const amount = credits === undefined ? undefined : checkCredits(credits, 'what is to be captured', 0) * perCredit
      const intent = await find(claim)
      if (intent.status === 'succeeded') throw captured()
      if (intent.status !== 'requires_capture') {
        throw new RampmeterError(
          'RAMPMETER_HOLD_ENDED',
          `nothing is set aside any more: the PaymentIntent is ${intent.status}`,
        )
      }
      if (amount !== undefined && amount > intent.amount_capturable) {
        throw new RampmeterError('RAMPMETER_CHARGE_EXCEEDED', 'that is more than was set aside; nothing was taken')
      }
      if (amount === 0) return await release(intent)
      const taken = await asking(() =>
        client.paymentIntents.capture(
          intent.id,
          { amount_to_capture: amount ?? intent.amount_capturable },
          { idempotencyKey: `rampmeter-capture-${intent.id}` },
        ),
      )
      if (taken?.status !== 'succeeded') throw refused('capture')
      return accountOf(intent)
    },

    release: async (claim) => await release(await find(claim)),

    async refund(claim, credits, idempotencyKey) {
      const amount = credits === undefined ? {} : { amount: checkCredits(credits, 'a refund') * perCredit }
      const intent = await find(claim)
      if (intent.status !== 'succeeded') {
        throw new RampmeterError(
          'RAMPMETER_NOT_SPENT',
          `nothing of it was taken: the PaymentIntent is ${intent.status}`,
        )
      }
      const key =
        idempotencyKey === undefined ? [] : [{ idempotencyKey: `rampmeter-refund-${intent.id}-${idempotencyKey}` }]
      const refund = await asking(() => client.refunds.create({ payment_intent: intent.id, ...amount }, ...key))
      if (refund !== undefined) return accountOf(intent)
      throw new RampmeterError(
        'RAMPMETER_CHARGE_EXCEEDED',
        'that is more than is left of the payment; nothing was given back',
      )
    },
  }
}

/** What Stripe answers; undefined where it refuses the request. */
async function asking<T>(act: () => Promise<T>): Promise<T | undefined> {
  try {
    return await act()
  } catch (cause) {
    if ((Object(cause) as { type?: unknown }).type === 'StripeInvalidRequestError') return undefined
    throw new RampmeterError(
      'RAMPMETER_PAYMENT_PROVIDER',
      'Stripe did not answer, so that it may have been done, or not; to call it again is safe, but for a refund without an `idempotencyKey`',
      { cause },
    )
  }
}

function captured(): RampmeterError {
  return new RampmeterError('RAMPMETER_ALREADY_CAPTURED', 'the deposit was captured before; nothing was moved')
}

function refused(what: string): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_PAYMENT_PROVIDER',
    `Stripe refused to ${what} it; look at the PaymentIntent there`,
  )
}
