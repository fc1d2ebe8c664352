import type { PolicyKind } from './policy.ts'
import { memoryStore } from './stores/memory.ts'
import type { Charge, Correction, DecisionRequest, OpenStore, Store, StoreDecision } from './stores/store.ts'

/** Of so many counters what they admitted is carried over; of more those that used the least of their share are not. */
const mostCarried = 10_000

/** How many counters are read before the event loop gets its turn. */
const readAtOnce = 100

/** Whose use is a number, which can be added to that of others. Leases, targets, first minutes and proofs stay here. */
const carried: ReadonlySet<PolicyKind> = new Set([
  'token-bucket',
  'sliding-window',
  'sliding-log',
  'fixed-window',
  'failures',
] as const)

/** How many levels of use are told apart, each twice the one below; the highest from half of the share. */
const levels = 17

/** What was admitted here under a limit of which this process has a share. */
interface Admitted {
  /** The whole limit, as the store knows it. */
  readonly whole: Charge
  share: Charge
  /** What the store does not know of yet; negative where it was given back since. */
  units: number
  /** What it knows of, and since when. */
  carried: number
  carriedAtUs: number
  /** How much of the share that is which the store does not know of. */
  level: number
}

/**
 * Decides in this process while the store is away, with a share of each quota, and knows what of that is to be carried into the
 * store when it is back. Limiters that share a store share it: a counter that is one there is one here.
 */
export class LocalShare {
  readonly #store: OpenStore = memoryStore().open({ nameOf: (partition) => partition })
  /** By partition and state. */
  readonly #admitted = new Map<string, Admitted>()
  /** The same by their levels, in each those first that reached it first. */
  readonly #byLevel = Array.from({ length: levels }, () => new Set<Admitted>())
  /** Those of which the store does not know all. */
  readonly #changed = new Set<Admitted>()

  /** @param processes how many divide each quota */
  async decide(
    request: Omit<DecisionRequest, 'charges'>,
    charges: readonly Charge[],
    beside: readonly Charge[],
    processes: number,
  ): Promise<{ decision: StoreDecision; shares: readonly Charge[] }> {
    const shares = charges.map((charge) => shareOf(charge, processes))
    const decision = await this.#store.decide({ ...request, charges: [...shares, ...beside] })
    if (request.commit && decision.admitted) {
      charges.forEach((whole, index) => {
        const { verdict } = decision.outcomes[index]!
        if (verdict === 'fits') this.#note(whole, shares[index]!)
      })
    }
    for (const { charge, cost } of request.undo) this.#add(charge, -cost)
    return { decision, shares }
  }

  async settle(corrections: readonly Correction[]): Promise<void> {
    await this.#store.settle(corrections)
    for (const { charged, does = 'correct', by } of corrections) {
      if (does === 'correct') this.#add(charged.charge, by)
    }
  }

  async reset(partition: string): Promise<void> {
    await this.#store.reset(partition, [])
    for (const one of this.#admitted.values()) if (one.whole.partition === partition) this.#forget(one)
  }

  /**
   * What was admitted here since the store went away and still counts, as corrections of the store's own counters; of what was
   * carried over before, what was given back since. What has refilled or left its window does not count, so nobody is in debt for
   * a long outage.
   */
  async takeOver(): Promise<Correction[]> {
    const changed = [...this.#changed]
    this.#changed.clear()
    const corrections: Correction[] = []
    for (const [index, one] of changed.entries()) {
      if (index % readAtOnce === readAtOnce - 1) await new Promise((resolve) => setImmediate(resolve))
      const { outcomes, nowUs } = await this.#store.decide({
        charges: [{ ...one.share, cost: 0 }],
        undo: [],
        commit: false,
      })
      const used = one.share.capacity - outcomes[0]!.remaining
      const by = Math.max(-one.carried, Math.min(one.units, used))
      if (by !== 0) {
        const at = by < 0 ? one.carriedAtUs : nowUs
        corrections.push({ charged: { charge: one.whole, cost: one.carried, chargedAtUs: at }, by })
      }
      one.units = 0
      one.carried += by
      one.carriedAtUs = nowUs
      if (one.carried === 0 && !this.#changed.has(one)) this.#forget(one)
      else this.#rank(one)
    }
    return corrections
  }

  #note(whole: Charge, share: Charge): void {
    if (!carried.has(whole.kind)) return
    const key = keyOf(whole)
    let noted = this.#admitted.get(key)
    if (noted === undefined) {
      noted = { whole, share, units: 0, carried: 0, carriedAtUs: 0, level: 0 }
      this.#admitted.set(key, noted)
    }
    noted.share = share
    this.#change(noted, whole.after === true ? 0 : whole.cost)
    if (this.#admitted.size > mostCarried) this.#forgetLeast()
  }

  #add(charge: Charge, units: number): void {
    const noted = this.#admitted.get(keyOf(charge))
    if (noted !== undefined) this.#change(noted, units)
  }

  #change(noted: Admitted, units: number): void {
    noted.units += units
    if (noted.units !== 0) this.#changed.add(noted)
    this.#rank(noted)
  }

  #rank(noted: Admitted): void {
    const level = levelOf(noted)
    if (level !== noted.level) this.#byLevel[noted.level]!.delete(noted)
    noted.level = level
    this.#byLevel[level]!.add(noted)
  }

  /** A flood of newcomers, who ask once each, forgets itself, and not those who have used much. */
  #forgetLeast(): void {
    for (const level of this.#byLevel) {
      for (const first of level) return this.#forget(first)
    }
  }

  #forget(noted: Admitted): void {
    this.#changed.delete(noted)
    this.#byLevel[noted.level]!.delete(noted)
    this.#admitted.delete(keyOf(noted.whole))
  }
}

/** Those of each store, by what it calls a counter: limiters with other secrets have counters of their own there. */
const ofStores = new WeakMap<Store, Map<string, LocalShare>>()

/** That of a store, whichever limiter asks that has the same names in it. */
export function localShareOf(store: Store, nameOf: (partition: string) => string): LocalShare {
  let shares = ofStores.get(store)
  if (shares === undefined) {
    shares = new Map()
    ofStores.set(store, shares)
  }
  const names = nameOf('@share')
  let share = shares.get(names)
  if (share === undefined) {
    share = new LocalShare()
    shares.set(names, share)
  }
  return share
}

function levelOf({ units, share }: Admitted): number {
  const used = Math.min(1, Math.abs(units) / share.capacity)
  return used === 0 ? 0 : Math.max(0, Math.floor(Math.log2(used)) + levels - 1)
}

function keyOf({ stateId, partition }: Charge): string {
  return `${stateId}:${partition}`
}

/** A process's part of a limit: rounded down, at least 1, so that together they stay within it where they can. */
function shareOf(charge: Charge, processes: number): Charge {
  if (processes === 1) return charge
  const share = (amount: number): number => Math.max(Math.min(amount, 1), Math.floor(amount / processes))
  return {
    ...charge,
    quota: share(charge.quota),
    capacity: charge.kind === 'first-minutes' ? charge.capacity : share(charge.capacity),
  }
}
