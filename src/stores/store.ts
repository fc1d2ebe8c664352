import type { CalendarLimit, Seating } from '../policies/algorithm.ts'
import type { PolicyKind } from '../policy.ts'
import type { StandingQuery, Standings } from '../standing.ts'
import type { StoreName } from '../store-name.ts'
import type { LedgerStore } from './ledger.ts'

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
  /** Where quota and capacity are cut for now: what they are when they are not. Says only whether the cut alone refuses. */
  readonly base?: { readonly quota: number; readonly capacity: number } | undefined
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
  /** Of a client's standing, which comes last and is only read: what is asked of it. Where it throttles, the client's own quotas are cut. */
  readonly standing?: StandingQuery | undefined
  /** Of a partition that clients share: which of them asks, a 32-bit hash. No client holds more than a part of its retry schedule. */
  readonly holder?: number | undefined
  /** So many units may be taken at once and spent in this process for so long. A hint, which a store need not look at. */
  readonly prefetch?: { readonly units: number; readonly ttlMs: number } | undefined
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
  /** False to look only: nothing is charged, given back or promised. */
  readonly commit: boolean
  /**
   * What a refusal notes in the retry schedule. Default: the time that it tells, so that the next one is told another.
   *
   * - `false`: nothing, where the refusal is not obeyed, or other counters have a say in when.
   * - A span: the request was refused by others, and is told that time or a later one. Nothing is decided; the answer's wait is when.
   */
  readonly promise?: false | PromiseSpan | undefined
  /** Whoever is admitted leaves room for what is reserved, and a refusal may reserve. Without it, reservations are not looked at. */
  readonly tickets?: TicketTerms | undefined
}

/** On which terms slots are reserved. */
export interface TicketTerms {
  /** How much of a policy's quota may be reserved at a time: from 0 (none) to 1. */
  readonly share: number
  /** How far ahead a slot may be, in microseconds. */
  readonly horizonUs: number
  /** Names the reservation that may be made, below 2⁴⁸: no two alike. */
  readonly id: number
  /** The client that asks: a 32-bit hash. */
  readonly client: number
  /** The ticket that was shown. That it is genuine and for these charges is known already. */
  readonly shown?: { readonly id: number; readonly slotUs: number } | undefined
}

/**
 * What became of a ticket that was shown.
 *
 * - `redeemed`: its time was there, and it was admitted.
 * - `early`: its time is still to come, and it stays valid.
 * - `kept`: its time was there and something else refused, so it stays valid.
 * - `lapsed`: its time was over; decided as if there were none.
 * - `used`: it was used before; decided as if there were none.
 */
export type ShownTicket = 'redeemed' | 'early' | 'kept' | 'lapsed' | 'used'

/** What a decision says about tickets. */
export interface TicketAnswer {
  readonly shown?: ShownTicket | undefined
  /** The slot that was reserved, in microseconds. */
  readonly reservedUs?: number | undefined
}

/** Within which times a promise is to be made, in microseconds of the store's clock. */
export interface PromiseSpan {
  readonly fromUs: number
  readonly untilUs: number
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
  /** From now until the same request is admitted, as the retry schedule has it: 0 when it was, null when waiting does not help. */
  readonly retryAfterUs: number | null
  /** It was refused, and with each charge at its `base`, what was used as it stands, it would have been admitted. */
  readonly onlyCut?: true
  /** One for each charge, in their order. */
  readonly outcomes: readonly ChargeOutcome[]
  /** Only where {@link DecisionRequest.tickets} were asked for; a store without reservations leaves it out. */
  readonly ticket?: TicketAnswer | undefined
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

/** Who waits for a decision. */
export interface Caller {
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal
  /** Told which of the request's places has answered, or failed, where a store has several. */
  heard(place: string, failed: boolean): void
  /**
   * Told when a request was sent, of a store with several places: to which. Until then it waited for its turn in this process, which
   * is no fault of the store's.
   */
  sent?(place?: string): void
  /** Told that others of the same client wait for their turn before it. */
  behindOwn?(): void
}

/** A caller who need not be given a promise. */
export interface AnsweredCaller extends Caller {
  /** Whether nobody waits any more. */
  readonly isGivenUp: boolean
  sent(place?: string): void
  answered(decision: StoreDecision): void
  failed(cause: unknown): void
}

/** A limiter's handle on a store. */
export interface OpenStore {
  readonly name?: StoreName
  /** True for a store that answers without leaving the process: no deadline is kept for it. */
  readonly local?: boolean
  /**
   * Decides all charges at once: either each is made or none is.
   *
   * @param caller its signal is aborted when nobody waits for the answer any more. A store that has charged part of it gives
   * that back; what it answers all the same, the limiter gives back
   */
  decide(request: DecisionRequest, caller?: Caller): Promise<StoreDecision>
  /** The same, and tells the caller itself: a promise for each decision costs about as much as what else is done for it. Optional. */
  decideFor?(request: DecisionRequest, caller: AnsweredCaller): void
  /** What the store knows about a request without being asked: a refusal that still stands. Optional. */
  known?(request: DecisionRequest): StoreDecision | undefined
  /** Corrects charges that were made, without asking whether there is room. */
  settle(corrections: readonly Correction[]): Promise<void>
  /** Forgets a partition's counters. `owners` are the state ids of policies that may be stored apart: logs, leases, targets. */
  reset(partition: string, owners: readonly number[]): Promise<void>
  /**
   * Puts a value of one process on a board that all processes share, in place of what it posted before, and tells the values of
   * all entries that live, its own included, in no order. At most 1000 entries; who finds a board full is not put on it.
   *
   * Optional: with a store that has no boards each process goes by itself.
   *
   * @param value a whole number
   * @param ttlMs how long the entry lives, by the store's clock: at most a day; 0 takes it off
   */
  post?(board: string, entry: string, value: number, ttlMs: number): Promise<readonly number[]>

  /** Accounts of credits, for stores that keep money. Charges of the kind `credits` are decided only by such. */
  readonly ledger?: LedgerStore
  /** Resolves when the store has answered once. */
  ready(): Promise<void>
  /** Rejects where the store answers, and is set up so that it will not decide: the user that connects may not do that. Optional. */
  check?(): Promise<void>
  /** The same of the place where a partition is, once: it rejects, too, where nothing is answered. Optional. */
  checkAt?(partition: string): Promise<void>
  /** How many connections it has, of whomever: so many processes may share it at most. Optional. */
  connections?(): Promise<number>
  /** Whether it can be asked at all now, as far as that is known without asking. */
  isConnected?(): boolean
  /** Of a store of which parts fail by themselves, as the masters of a cluster do: which of them a request needs. */
  placesOf?(request: DecisionRequest): readonly string[]
  /** Of such a store: all of them that there are now. */
  places?(): readonly string[]
  /** Decisions wait for their turn in it, and `decide` tells when one is sent. Default: all are sent at once. */
  readonly takesTurns?: boolean
  /** Whether a call that failed like that certainly changed nothing, so that it may be made again. Default: it may have. */
  hasNotRun?(error: unknown): boolean
  close(): Promise<void>
  /** Keeps the standing of clients: what they did, and what people decided about them. A store without it keeps limits only. */
  readonly standings?: Standings
}
