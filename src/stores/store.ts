import type { CalendarLimit, Seating } from '../policies/algorithm.ts'
import type { PolicyKind } from '../policy.ts'

/**
 * One policy's claim in a decision: which counter, under which limit, for how much.
 *
 * Times are whole microseconds and amounts whole units, so that every store computes the same.
 */
export interface Charge {
  readonly kind: PolicyKind
  /** Names the counter within its partition: a 32-bit hash of policy name, kind and window. */
  readonly stateId: number
  /** Whose counter it is: a client id, an address, a tenant, … */
  readonly partition: string
  readonly windowUs: number
  readonly quota: number
  /** What a token bucket holds at most; for `first-minutes` the microseconds after which it is granted anew; else the quota. */
  readonly capacity: number
  /** In units; of members, how many there are. */
  readonly cost: number
  /** Names of what is counted by name (leases, targets), short and without spaces; at most 32. None for plain amounts. */
  readonly members?: readonly string[]
  /** For windows that follow the calendar. */
  readonly calendar?: CalendarLimit | undefined
  /** Of slots: nobody gives them back, they come back when their leases run out. */
  readonly untilExpiry?: boolean | undefined
  /** There must be room for one unit to start; nothing is charged until it is settled. */
  readonly after?: boolean
  /** Of a pool: what the charge is there, and which of its tiers asks. */
  readonly role?: PoolRole | undefined
  readonly seating?: Seating | undefined
  /** Counts requests, so that the first minutes' extra may stand in for it. Never together with `shadow`. */
  readonly liftable: boolean
  /** Decides and counts, and refuses nothing. */
  readonly shadow: boolean
}

/**
 * What a charge is in a pool. Of a pool that tiers share there are three, one after the other: a tier's `own` part, the `common`
 * part, and the `demand` for it. The common part is charged only when the own one is used up, and only while the demand of those
 * who go first leaves room.
 */
export type PoolRole = 'whole' | 'own' | 'common' | 'demand'

/** A charge that was made, with all that is needed to take it back. */
export interface Charged {
  readonly charge: Charge
  /** What is charged by now, after corrections. */
  readonly cost: number
  /** The store's time at which it was charged, in microseconds. */
  readonly chargedAtUs: number
  /** Which of its members were new: a bit for each, the first the lowest. */
  readonly added?: number
}

/**
 * What happens to a charge later.
 *
 * - `correct` (default): it goes up by so much or, negative, comes back.
 * - `release`: its leases are given back, and how long they were held is learned.
 * - `renew`: its leases are kept for as long again.
 */
export interface Correction {
  readonly charged: Charged
  readonly does?: 'correct' | 'release' | 'renew'
  /** Of `correct`: by how much. */
  readonly by: number
}

/** What a store is asked to decide at once. */
export interface DecisionRequest {
  readonly charges: readonly Charge[]
  /** Charges of an outer limiter to give back first, in the same atomic step. They stay given back when this is refused. */
  readonly undo: readonly Charged[]
  /** False to look only: nothing is charged and nothing given back. */
  readonly commit: boolean
}

/**
 * What became of one charge.
 *
 * - `fits`: the policy has room (and was charged, if the whole request was admitted).
 * - `refused`: it has none.
 * - `lifted`: it has none, and the first minutes' extra was charged in its stead.
 * - `inactive`: the first minutes' extra is over.
 * - `spared`: a pool's common part, or the demand for it, that was not needed.
 */
export type Verdict = 'fits' | 'refused' | 'lifted' | 'inactive' | 'spared'

export interface ChargeOutcome {
  readonly verdict: Verdict
  /** Whole units left after the decision. */
  readonly remaining: number
  /** From now until the same cost (at least 1) fits here again; 0 when it does, null when it never will. */
  readonly waitUs: number | null
  /** From now until nothing that was used counts any more. */
  readonly resetUs: number
  /** Which members were new, where it was charged: a bit for each, the first the lowest. */
  readonly added?: number
  /** When it was decided and charged, in microseconds, where its counter has a clock that is not the decision's. */
  readonly atUs?: number
}

export interface StoreDecision {
  readonly admitted: boolean
  /** The store's time at the decision; where several clocks took part, that of the first charge's counter. */
  readonly nowUs: number
  /** From now until the same request is admitted: 0 when it was, null when waiting does not help. */
  readonly retryAfterUs: number | null
  /** One for each charge, in their order. */
  readonly outcomes: readonly ChargeOutcome[]
}

/** What a limiter tells a store when it opens it. */
export interface StoreSettings {
  /** Turns a partition into the name its counters have outside this process. */
  readonly nameOf: (partition: string) => string
}

/**
 * A place where counters live. Exported so that others can be written; **experimental** until 1.0.
 * `describeStore` of `rampmeter/testing` says whether one keeps the promises.
 */
export interface Store {
  /** Called once by each limiter that uses the store. The last of them to close its handle closes the store's own connection. */
  open(settings: StoreSettings): OpenStore
}

/** A limiter's handle on a store. */
export interface OpenStore {
  /** True for a store that answers without leaving the process: no deadline is kept for it. */
  readonly local?: boolean
  /** Decides all charges at once: either each is made or none is. */
  decide(request: DecisionRequest): Promise<StoreDecision>
  /** Corrects charges that were made, without asking whether there is room. */
  settle(corrections: readonly Correction[]): Promise<void>
  /** Forgets a partition's counters. `owners` are the state ids of policies that may be stored apart: logs, leases, targets. */
  reset(partition: string, owners: readonly number[]): Promise<void>
  /** Resolves when the store has answered once. */
  ready(): Promise<void>
  close(): Promise<void>
}
