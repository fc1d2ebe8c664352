import { Recent } from '../recent.ts'
import type { KnownStanding } from '../standing.ts'

/** So many are remembered, the latest. */
const remembered = 50_000

/**
 * Who is suspended by people, as far as this process knows: for decisions without the store. A suspension holds without it for as long
 * as it would with it, since whoever was let in by an outage would wait for the next one.
 */
export class Suspensions {
  /** Until when. */
  readonly #until = new Recent<string, number>({ max: remembered })
  readonly #clock: { now(): number }

  /** @param clock goes on evenly */
  constructor(clock: { now(): number }) {
    this.#clock = clock
  }

  /** @param forMs absent where it is for good */
  add(id: string, forMs: number | undefined): void {
    this.#until.set(id, forMs === undefined ? Infinity : this.#clock.now() + forMs)
  }

  remove(id: string): void {
    if (this.#until.size > 0) this.#until.delete(id)
  }

  /** Takes what the store says. */
  learn(id: string, { suspended, suspendedForMs }: KnownStanding): void {
    if (suspended) this.add(id, suspendedForMs)
    else this.remove(id)
  }

  /** For how long still, in ms; null for good, undefined where it is not suspended. */
  leftOf(id: string): number | null | undefined {
    const until = this.#until.get(id)
    if (until === undefined || until === Infinity) return until === undefined ? undefined : null
    const left = until - this.#clock.now()
    return left > 0 ? Math.ceil(left) : undefined
  }
}
