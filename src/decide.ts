import { RampmeterError } from './errors.ts'
import type { OnStoreError } from './policy.ts'
import type { PricedPolicy } from './price.ts'
import { chargedBy, StoreGuard, type StoreHealth } from './stores/guard.ts'
import { memoryStore } from './stores/memory.ts'
import type {
  Charge,
  Charged,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  OpenStore,
  StoreDecision,
} from './stores/store.ts'
import { givenBack } from './stores/together.ts'

/** What was ruled about a priced request, and by whom. */
export interface Ruling {
  readonly admitted: boolean
  /** What became of each policy, in their order. Empty when the store was away. */
  readonly outcomes: readonly ChargeOutcome[]
  /** The names of the policies that refused. */
  readonly violated: readonly string[]
  readonly retryAfterUs: number | null
  readonly nowUs: number
  /** What was charged; to be given back or corrected in the same place. */
  readonly charged: readonly Charged[]
  /** Decided without the store. */
  readonly degraded: boolean
}

export interface DeciderOptions {
  readonly store: OpenStore
  readonly deadlineMs: number
  readonly onStoreError: OnStoreError
  readonly processes: number
  /** Hears of each decision that had to be made without the store. */
  readonly onAway: (away: { waitedMs: number; error: RampmeterError; count: number }) => void
}

/** When a request that was refused because the store is away may come again: an estimate. */
const retryWhenAwayUs = 1_000_000

/**
 * Has requests decided by the store and, when it is away, does for each policy what it says: `local` decides with a share of
 * the quota in this process, `open` admits, `closed` refuses.
 */
export class Decider {
  readonly #options: DeciderOptions
  readonly #guard: StoreGuard
  readonly #local: OpenStore = memoryStore().open({ nameOf: (partition) => partition })

  constructor(options: DeciderOptions) {
    this.#options = options
    this.#guard = new StoreGuard(options.store, options)
  }

  get health(): StoreHealth {
    return this.#guard.health
  }

  /**
   * @param earlier what an outer limiter ruled about the same request: its charge is given back in the same step
   * @param commit false to look only
   */
  async decide(priced: readonly PricedPolicy[], earlier: Ruling | undefined, commit = true): Promise<Ruling> {
    const charges = priced.map(({ charge }) => charge)
    const undo = earlier?.charged.filter(({ cost }) => cost > 0) ?? []
    if (charges.length === 0 && undo.length === 0) return nothingAsked
    const ofStore = earlier === undefined || !earlier.degraded
    const request = { charges, undo: ofStore ? undo : [], commit }
    let ruling: Ruling
    try {
      ruling = await this.#byStore(priced, request)
    } catch {
      return await this.#withoutStore(priced, ofStore ? [] : undo, commit)
    }
    if (!ofStore) await this.#local.settle(undo.map(givenBack))
    return ruling
  }

  /**
   * Forgets a partition's counters, those that stood in for the store's too.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, `RAMPMETER_CLOSED`
   */
  async reset(partition: string, owners: readonly number[]): Promise<void> {
    await this.#local.reset(partition, owners)
    try {
      await this.#options.store.reset(partition, owners)
    } catch (cause) {
      if (cause instanceof RampmeterError) throw cause
      throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'the store failed, so nothing may be forgotten there', {
        cause,
      })
    }
  }

  /** Corrects what was charged in the store, or here without it. */
  async settle(where: 'store' | 'local', corrections: readonly Correction[]): Promise<void> {
    await (where === 'local' ? this.#local : this.#options.store).settle(corrections)
  }

  async #byStore(priced: readonly PricedPolicy[], request: DecisionRequest): Promise<Ruling> {
    const decision = await this.#guard.decide(request)
    const { admitted, outcomes, retryAfterUs, nowUs } = decision
    const violated = violatedOf(priced, decision)
    return { admitted, outcomes, violated, retryAfterUs, nowUs, charged: chargedBy(request, decision), degraded: false }
  }

  async #withoutStore(priced: readonly PricedPolicy[], undo: readonly Charged[], commit: boolean): Promise<Ruling> {
    const does = ({ policy, highRisk }: PricedPolicy): OnStoreError =>
      policy.onStoreError ?? (highRisk ? 'closed' : this.#options.onStoreError)
    const closed = priced.filter((one) => does(one) === 'closed' && mayRefuse(one))
    if (closed.length > 0) {
      if (undo.length > 0) await this.#local.settle(undo.map(givenBack))
      return {
        ...nothingAsked,
        admitted: false,
        violated: closed.map(({ policy }) => policy.name),
        retryAfterUs: retryWhenAwayUs,
        nowUs: Date.now() * 1000,
        degraded: true,
      }
    }
    const local = priced.filter((one) => does(one) === 'local')
    const request = { charges: local.map(({ charge }) => shareOf(charge, this.#options.processes)), undo, commit }
    const decision = await this.#local.decide(request)
    return {
      admitted: decision.admitted,
      outcomes: [],
      violated: violatedOf(local, decision),
      retryAfterUs: decision.retryAfterUs ?? (isNever(local) ? null : retryWhenAwayUs),
      nowUs: decision.nowUs,
      charged: chargedBy(request, decision),
      degraded: true,
    }
  }
}

/** The ruling about a request that no limit applies to. */
const nothingAsked: Ruling = {
  admitted: true,
  outcomes: [],
  violated: [],
  retryAfterUs: 0,
  nowUs: 0,
  charged: [],
  degraded: false,
}

/** The names of the policies that refused. */
function violatedOf(priced: readonly PricedPolicy[], { admitted, outcomes }: StoreDecision): string[] {
  if (admitted) return []
  return priced
    .filter((one, index) => outcomes[index]!.verdict === 'refused' && mayRefuse(one))
    .map(({ policy }) => policy.name)
}

function mayRefuse({ charge }: PricedPolicy): boolean {
  return !charge.shadow && charge.kind !== 'first-minutes' && charge.role !== 'own' && charge.role !== 'demand'
}

/** Whether a request costs more than a limit ever holds, and not merely more than this process's share of it. */
function isNever(priced: readonly PricedPolicy[]): boolean {
  return priced.some((one) => mayRefuse(one) && one.charge.after !== true && one.charge.cost > one.charge.capacity)
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
