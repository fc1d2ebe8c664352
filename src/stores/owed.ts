import type { Correction } from './store.ts'

/** How many corrections are kept for a store that is away; of more the oldest are lost. */
const mostOwed = 10_000

/** Corrections that certainly did not reach a store, until it is back. */
export class Owed {
  #corrections: Correction[] = []

  keep(corrections: readonly Correction[]): void {
    // A lease that nobody can renew runs out.
    this.#corrections.push(...corrections.filter(({ does }) => does !== 'renew'))
    if (this.#corrections.length > mostOwed) this.#corrections = this.#corrections.slice(-mostOwed)
  }

  get isEmpty(): boolean {
    return this.#corrections.length === 0
  }

  /** What is owed, which is not kept any more. */
  take(): readonly Correction[] {
    const owed = this.#corrections
    this.#corrections = []
    return owed
  }
}
