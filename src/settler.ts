import type { Response } from 'express'
import type { Decider } from './decide.ts'
import { warn } from './errors.ts'
import type { ActualCost, Settlement } from './settlement.ts'

/** Brings to the store what requests turned out to cost. */
export class Settler {
  readonly #decider: Decider
  readonly #onFailure: (error: unknown) => void
  readonly #owed = new Set<Promise<void>>()
  readonly #scheduled = new WeakSet<Settlement>()
  #warnedLate = false

  constructor(decider: Decider, onFailure: (error: unknown) => void) {
    this.#decider = decider
    this.#onFailure = onFailure
  }

  /** Settles when the response ends, whether it was completed or the client went away; the total said last counts. */
  withResponse(res: Response, settlement: Settlement, total: ActualCost): void {
    settlement.state(total)
    if (res.closed || res.destroyed) {
      this.#warnLate()
    } else if (!this.#scheduled.has(settlement)) {
      this.#scheduled.add(settlement)
      res.once('close', () => this.#pay(settlement))
    }
  }

  /** Settles at once; a later total corrects it. */
  now(settlement: Settlement, total: ActualCost): void {
    settlement.state(total)
    this.#pay(settlement)
  }

  /** Resolves when all that was owed so far has reached the store. */
  async flush(): Promise<void> {
    await Promise.all(this.#owed)
  }

  #pay(settlement: Settlement): void {
    const corrections = settlement.take()
    if (corrections.length === 0) return
    const payment = this.#decider.settle(settlement.ruling, corrections).catch(this.#onFailure)
    this.#owed.add(payment)
    void payment.finally(() => this.#owed.delete(payment))
  }

  #warnLate(): void {
    if (this.#warnedLate) return
    this.#warnedLate = true
    warn(
      'RAMPMETER_LATE_SETTLE',
      'a cost was settled after its response had ended or its client had gone, and changed nothing; settle before the response ends',
    )
  }
}
