import type { Response } from 'express'
import { RampmeterError } from '../errors.ts'
import { checkCredits } from './amounts.ts'
import { beforeFirstByte } from './gate.ts'
import { isFree, unsupported, whenJudged, type FollowedPayment } from './payment.ts'
import type { Bill, Offer, PaymentOutcome, PaymentProvider } from './provider.ts'
import type { Unanswered } from './unanswered.ts'

type FailedPayment = Extract<PaymentOutcome, { paid: false }>

/** A payment that the request brought along. */
export class ProviderPayment implements FollowedPayment {
  readonly account: string
  readonly chargeId: string
  credits: number
  readonly #provider: PaymentProvider
  readonly #offer: Offer
  readonly #bill: Bill
  readonly #forget: () => void
  readonly #unanswered: Unanswered
  readonly #onFailure: (error: unknown) => void
  #state: 'offered' | 'captured' | 'released' = 'offered'
  #settled = false

  /** @param forget lets the authorisation be shown again: nothing was taken */
  constructor(
    provider: PaymentProvider,
    offer: Offer,
    bill: Bill,
    forget: () => void,
    unanswered: Unanswered,
    onFailure: (error: unknown) => void,
  ) {
    this.account = bill.account
    this.chargeId = `${provider.name}:${offer.claim}`
    this.credits = bill.credits
    this.#provider = provider
    this.#offer = offer
    this.#bill = bill
    this.#forget = forget
    this.#unanswered = unanswered
    this.#onFailure = onFailure
  }

  /** What is paid: it has the request, so it is no part of what an app sees, and may write to a log. */
  get bill(): Bill {
    return this.#bill
  }

  /**
   * Takes the money before the answer begins; a deposit is taken when the app says so.
   *
   * @param failureAnswer makes what answers in the handler's stead; undefined where the provider did not answer
   */
  follow(res: Response, failureAnswer: (failed: FailedPayment | undefined) => Promise<() => void>): void {
    if (this.#bill.holdMs !== null) return
    beforeFirstByte(res, async (status) => {
      // It was given up, or taken when the handler had not answered for long.
      if (this.#state !== 'offered' || isFree(status, this.#bill)) return {}
      let outcome: PaymentOutcome
      try {
        outcome = await this.#take(this.credits)
      } catch (error) {
        // It may have been taken, or not: the authorisation is not good for a second try.
        this.#onFailure(error)
        return { instead: await failureAnswer(undefined) }
      }
      return outcome.paid ? { fields: outcome.fields } : { instead: await failureAnswer(outcome) }
    })
  }

  async settle(credits: number): Promise<void> {
    checkCredits(credits, 'a settled price', 0)
    if (this.#state !== 'offered')
      throw unsupported('what was paid for this request has been taken; settle before the answer begins')
    this.#settled = true
    const asked = Math.min(credits, this.#bill.credits)
    this.credits = this.#provider.comesTo?.(this.#offer, asked, this.#bill) ?? asked
    if (this.#bill.holdMs !== null) await this.#takeOrThrow(this.credits)
  }

  async capture(credits?: number): Promise<void> {
    if (this.#bill.holdMs === null) {
      throw new RampmeterError('RAMPMETER_NOT_A_HOLD', 'this is a payment and no deposit; give it back with refund')
    }
    if (this.#state === 'captured')
      throw new RampmeterError('RAMPMETER_ALREADY_CAPTURED', 'the deposit was captured before')
    if (this.#state === 'released') throw new RampmeterError('RAMPMETER_HOLD_ENDED', 'the deposit has been given back')
    const amount = credits === undefined ? this.#bill.credits : checkCredits(credits, 'what is to be captured', 0)
    if (amount > this.#bill.credits) {
      throw new RampmeterError('RAMPMETER_CHARGE_EXCEEDED', 'that is more than was set aside; nothing was taken')
    }
    await this.#takeOrThrow(amount)
  }

  async release(): Promise<void> {
    if (this.#state === 'released') return
    if (this.#bill.holdMs === null || this.#state === 'captured') {
      throw new RampmeterError('RAMPMETER_NOT_A_HOLD', 'there is no deposit to release; give it back with refund')
    }
    await this.#giveUp()
  }

  async refund(credits?: number): Promise<void> {
    const amount = credits === undefined ? this.credits : checkCredits(credits, 'a refund')
    if (this.#state !== 'captured') {
      throw new RampmeterError(
        'RAMPMETER_NOT_SPENT',
        this.#bill.holdMs === null
          ? 'nothing has been taken yet: what is paid for this request is taken when its answer begins. Say what it costs with settle(credits) before that; settle(0) takes nothing'
          : 'nothing has been taken of this deposit; release it',
      )
    }
    if (amount > this.credits) {
      throw new RampmeterError(
        'RAMPMETER_CHARGE_EXCEEDED',
        'that is more than is left of the payment; nothing was given back',
      )
    }
    await this.#provider.refund(this.#offer, amount, this.#bill, this.credits)
    this.credits -= amount
  }

  ended(res: Response): void {
    if (this.#state !== 'offered') return
    const isSettled = (): boolean => this.#settled
    let judged = false
    whenJudged(res, this.#bill, isSettled, (free) => {
      judged = true
      if (free && this.#state === 'offered') this.#giveUp().catch(this.#onFailure)
    })
    // What is paid for this request is taken when its answer begins: perhaps it never does.
    if (!judged && this.#bill.holdMs === null) this.#unanswered.wait(() => this.#takeUnanswered())
  }

  replaced(): void {}

  async #take(credits: number): Promise<PaymentOutcome> {
    this.#state = 'captured'
    const outcome = await this.#provider.capture(this.#offer, credits, this.#bill)
    if (outcome.paid) this.credits = outcome.credits ?? credits
    else this.#state = 'released'
    return outcome
  }

  async #takeUnanswered(): Promise<void> {
    if (this.#state !== 'offered') return
    await this.#takeOrThrow(this.credits).catch(this.#onFailure)
  }

  async #takeOrThrow(credits: number): Promise<void> {
    const outcome = await this.#take(credits)
    if (!outcome.paid) {
      throw new RampmeterError('RAMPMETER_PAYMENT_PROVIDER', `the payment could not be taken: ${outcome.reason}`)
    }
  }

  async #giveUp(): Promise<void> {
    this.#state = 'released'
    this.credits = 0
    await this.#provider.release(this.#offer, this.#bill)
    this.#forget()
  }
}
