import type { SingleUseState } from '../policies/single-use.ts'
import { membersOf } from '../policies/algorithm.ts'
import type { Charge } from './store.ts'

/**
 * The proofs that were used up, in this process. Bounded, and none is forgotten while it could be shown again: when it is full, no
 * further one is taken.
 */
export class SingleUses {
  /** In the order in which they were used, which is about that in which they end. */
  readonly #used = new Map<string, { readonly holder: string; readonly until: number }>()
  readonly #max: number

  constructor(max: number) {
    this.#max = max
  }

  open(charge: Charge, now: number): SingleUseState {
    const used = this.#used.get(nameOf(charge))
    if (used !== undefined && used.until > now) return { ...used, fullUntil: undefined }
    return { holder: undefined, until: 0, fullUntil: this.#fullUntil(now) }
  }

  keep(charge: Charge, { holder, until }: SingleUseState): void {
    const name = nameOf(charge)
    this.#used.delete(name)
    if (holder !== undefined) this.#used.set(name, { holder, until })
  }

  clear(): void {
    this.#used.clear()
  }

  /** Drops what has ended; when there is room for another, if there is none. */
  #fullUntil(now: number): number | undefined {
    let earliest = Infinity
    for (const [name, { until }] of this.#used) {
      if (until <= now) this.#used.delete(name)
      else {
        earliest = Math.min(earliest, until)
        // Those behind it end later, or a little sooner.
        if (this.#used.size < this.#max) break
      }
    }
    return this.#used.size < this.#max ? undefined : earliest
  }
}

function nameOf(charge: Charge): string {
  return `${charge.partition} ${membersOf(charge)[0]}`
}
