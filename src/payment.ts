/**
 * What a request pays: `req.rateLimit.payment`. Absent where nothing is paid: on a route without a price, at a price of 0 credits,
 * and in shadow. Hence `req.rateLimit.payment?.settle(…)`.
 */
export interface Payment {
  readonly account: string
  /** Names the charge in the ledger's own calls; of a provider, the authorisation. */
  readonly chargeId: string
  /** What it comes to by now. */
  readonly credits: number
  /**
   * Says what it really cost: the total. Less gives back, more takes more, as far as there is credit. Of a provider, before the
   * answer begins, and never more than was authorised.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_AMOUNT`, `RAMPMETER_HOLD_ENDED`, `RAMPMETER_STORE_UNAVAILABLE`
   */
  settle(credits: number): Promise<void>
  /**
   * Spends a deposit, once: all, or a part, and the rest falls back.
   *
   * @throws {RampmeterError} `RAMPMETER_ALREADY_CAPTURED`, `RAMPMETER_HOLD_ENDED`, `RAMPMETER_CHARGE_EXCEEDED`, `RAMPMETER_NOT_A_HOLD`
   */
  capture(credits?: number): Promise<void>
  /** Gives a deposit back. */
  release(): Promise<void>
  /**
   * Gives back what was spent, or a part.
   *
   * @throws {RampmeterError} `RAMPMETER_CHARGE_EXCEEDED`, `RAMPMETER_NOT_SPENT`
   */
  refund(credits?: number): Promise<void>
}
