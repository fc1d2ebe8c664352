// Judges what was admitted from outside: it knows what was charged and given back when, and nothing of how a store counts.
// All of it is exact, in whole numbers of any size.

import type { Limit as Sizes } from '../../src/policies/algorithm.ts'
import { dayUs, type Limit } from './histories.ts'

/** Something charged, or given back, under one limit. */
export interface Use {
  readonly atUs: number
  /** Negative where it was given back. */
  readonly amount: number
  /** The request that it belongs to. */
  readonly request: number
}

/**
 * Says what is wrong with an admission at `atUs`, or nothing. `uses` are all that this limit was charged and given back so
 * far, in order, the admission's own last.
 */
export function overCap(limit: Limit, uses: readonly Use[], atUs: number): string | undefined {
  if (limit.kind === 'token-bucket') return overPace(limit, uses, atUs)
  const used = limit.kind === 'fixed-window' ? usedInOwnWindow(limit, uses) : usedInLastWindow(limit, uses, atUs)
  return used > limit.quota ? `${used} of ${limit.quota} are used at ${atUs}` : undefined
}

/** In no span that ends now was more used than the burst and what refilled in it. */
function overPace({ capacity, quota, windowUs }: Limit, uses: readonly Use[], atUs: number): string | undefined {
  let sum = 0n
  for (const use of [...uses].reverse()) {
    sum += BigInt(use.amount)
    const spanUs = atUs - use.atUs
    const over = (sum - BigInt(capacity)) * BigInt(windowUs) - BigInt(quota) * BigInt(spanUs)
    if (over > 0n) return `${sum} in ${spanUs} µs, of ${capacity} and ${quota} per ${windowUs} µs`
  }
  return undefined
}

/** The window that ends at `atUs`. If it holds no more than the quota at each admission, no window does. */
export function usedInLastWindow({ windowUs }: Limit, uses: readonly Use[], atUs: number): number {
  const parts: { atUs: number; amount: number; request: number }[] = []
  for (const { atUs, amount, request } of uses) {
    if (amount > 0) parts.push({ atUs, amount, request })
    // What was added last is given back first.
    let back = -amount
    for (const part of parts.filter((one) => one.request === request).reverse()) {
      if (back <= 0) break
      const given = Math.min(back, part.amount)
      part.amount -= given
      back -= given
    }
  }
  return sumOf(parts.filter((part) => part.atUs > atUs - windowUs))
}

/** A window that begins with its first use; the next begins with the first use after its end. */
export function usedInOwnWindow({ windowUs }: Limit, uses: readonly Use[], atUs = Infinity): number {
  const chargedAt = new Map<number, number>()
  let startUs = -Infinity
  let used = 0
  for (const use of uses) {
    if (use.amount > 0) {
      if (!chargedAt.has(use.request)) chargedAt.set(use.request, use.atUs)
      if (use.atUs >= startUs + windowUs || used === 0) {
        startUs = use.atUs
        used = 0
      }
      used += use.amount
    } else if (chargedAt.get(use.request)! >= startUs) {
      used = Math.max(0, used + use.amount)
    }
  }
  return atUs < Infinity && atUs >= startUs + windowUs ? 0 : used
}

function sumOf(uses: readonly { amount: number }[]): number {
  return uses.reduce((sum, { amount }) => sum + amount, 0)
}

/** A token bucket, in whole numbers of any size: what is missing from it, in units times the microseconds of its window. */
export class ExactBucket {
  #missing = 0n
  #atUs = 0
  #quota: number

  constructor(quota: number) {
    this.#quota = quota
  }

  /** A request comes: for the time since it was last touched it refills at the lower of the quota then and now. */
  touch(quota: number, nowUs: number): void {
    // One that nothing refills is forgotten after a year.
    const forgotten = this.#quota === 0 && nowUs >= this.#atUs + 366 * dayUs
    const full = forgotten || this.#missingAt(this.#quota, nowUs) === 0n
    if (!full && quota === this.#quota) return
    this.#missing = full ? 0n : this.#missingAt(Math.min(quota, this.#quota), nowUs)
    this.#atUs = nowUs
    this.#quota = quota
  }

  fits({ capacity, windowUs }: Sizes, cost: number, nowUs: number): boolean {
    return this.#missingAt(this.#quota, nowUs) + BigInt(cost) * BigInt(windowUs) <= BigInt(capacity) * BigInt(windowUs)
  }

  charge({ windowUs }: Sizes, cost: number, nowUs: number): void {
    this.#missing = this.#missingAt(this.#quota, nowUs) + BigInt(cost) * BigInt(windowUs)
    this.#atUs = nowUs
  }

  #missingAt(quota: number, nowUs: number): bigint {
    const missing = this.#missing - BigInt(quota) * BigInt(nowUs - this.#atUs)
    return missing > 0n ? missing : 0n
  }
}
