import type { Response } from 'express'
import { RampmeterError } from '../errors.ts'
import { whenAnswered } from '../when-answered.ts'
import { checkCredits } from './amounts.ts'
import type { CreditLedger, LedgerInternals } from './ledger.ts'
import type { Payment } from '../payment.ts'
import type { Bill } from './provider.ts'

/** A payment as the limiter follows it. */
export interface FollowedPayment extends Payment {
  /** Called once, when the response has ended or its client has gone. */
  ended(res: Response): void
  /** A limiter further in has made the charge anew. */
  replaced(): void
}

/** A payment with credits of the ledger. */
export class CreditPayment implements FollowedPayment {
  readonly account: string
  readonly chargeId: string
  credits: number
  readonly #bill: Bill
  readonly #ledger: CreditLedger
  readonly #internals: LedgerInternals
  readonly #giveBack: (chargeId: string) => void
  #settled = false
  #replaced = false
  #refunds = 0

  constructor(
    bill: Bill,
    chargeId: string,
    ledger: CreditLedger,
    internals: LedgerInternals,
    giveBack: (chargeId: string) => void,
  ) {
    this.account = bill.account
    this.chargeId = chargeId
    this.credits = bill.credits
    this.#bill = bill
    this.#ledger = ledger
    this.#internals = internals
    this.#giveBack = giveBack
  }

  async settle(credits: number): Promise<void> {
    checkCredits(credits, 'a settled price', 0)
    // Said before it is done: whoever hangs up meanwhile has had the work done.
    this.#settled = true
    const { total } = await this.#internals.settle(this.chargeId, credits)
    this.credits = total
  }

  async capture(credits?: number): Promise<void> {
    const before = this.credits
    await this.#ledger.capture(this.chargeId, credits)
    this.credits = credits ?? before
  }

  async release(): Promise<void> {
    await this.#ledger.release(this.chargeId)
    this.credits = 0
  }

  async refund(credits?: number): Promise<void> {
    // One whose answer was lost is the same when it is called again.
    await this.#ledger.refund(this.chargeId, credits, { idempotencyKey: `request ${this.#refunds}` })
    this.#refunds += 1
    this.credits = credits === undefined ? 0 : this.credits - credits
  }

  ended(res: Response): void {
    whenJudged(
      res,
      this.#bill,
      () => this.#settled,
      (isFree) => {
        if (isFree && !this.#replaced) this.#giveBack(this.chargeId)
      },
    )
  }

  replaced(): void {
    this.#replaced = true
  }
}

/**
 * Says whether a response whose connection is done with costs nothing: the server failed, or a price says so. A deposit is for what
 * was served, so any refusal of the handler's gives it back. Who hangs up before there is an answer is judged by the one that the
 * handler makes, though nobody reads it: else whoever goes in time has the work done for nothing. Where it makes none, nothing is
 * said.
 *
 * @param isSettled the app has said what it costs
 */
export function whenJudged(
  res: Response,
  bill: Pick<Bill, 'holdMs' | 'errorsAreFree' | 'hangUpIsFree'>,
  isSettled: () => boolean,
  judge: (isFree: boolean) => void,
): void {
  const judgeStatus = (): void => {
    const isRefusedDeposit = bill.holdMs !== null && res.statusCode >= 400 && !isSettled()
    judge(isRefusedDeposit || isFree(res.statusCode, bill))
  }
  if (bill.hangUpIsFree && !isSettled() && !res.writableFinished) judge(true)
  else if (res.headersSent || res.writableEnded) judgeStatus()
  else whenAnswered(res, judgeStatus)
}

/** Whether an answer of this status costs nothing, whatever was settled. */
export function isFree(status: number, { errorsAreFree }: Pick<Bill, 'errorsAreFree'>): boolean {
  return status >= (errorsAreFree ? 400 : 500)
}

/** @throws {RampmeterError} `RAMPMETER_PAYMENT_UNSUPPORTED` */
export function unsupported(message: string): RampmeterError {
  return new RampmeterError('RAMPMETER_PAYMENT_UNSUPPORTED', message)
}
