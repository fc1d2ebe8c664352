import type { OnStoreError } from './policy.ts'
import { readStanding } from './policies/standing.ts'
import type { PricedPolicy } from './price.ts'
import type { LocalShare } from './local-share.ts'
import type { KnownStanding } from './standing.ts'
import type { Breakers } from './stores/breaker.ts'
import { isCrowdedOut } from './stores/asking.ts'
import { chargedBy, StoreGuard, type GuardOptions, type StoreHealth } from './stores/guard.ts'
import type {
  Charge,
  Charged,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  OpenStore,
  StoreDecision,
  TicketAnswer,
  TicketTerms,
} from './stores/store.ts'
import { givenBack, throttled } from './stores/together.ts'

/** What was ruled about a priced request, and by whom. */
export interface Ruling {
  readonly admitted: boolean
  /** What became of each policy, in their order. Empty when the store was away. */
  readonly outcomes: readonly ChargeOutcome[]
  /** The names of the policies that refused. */
  readonly violated: readonly string[]
  readonly retryAfterUs: number | null
  /** The wait is a guess: nobody knows when a slot comes back, or the store, or what a cut leaves by then. */
  readonly estimated: boolean
  readonly nowUs: number
  /** What was charged; to be given back or corrected in the same place. */
  readonly charged: readonly Charged[]
  /** What became of the charges beside the policies, in their order. */
  readonly beside: readonly ChargeOutcome[]
  /** What the store says of tickets, where they were asked for. */
  readonly ticket?: TicketAnswer | undefined
  /** What the store knows of the client; undefined where it was not asked. */
  readonly standing?: KnownStanding | undefined
  /** The policies as they were decided: those that the client's standing cuts are smaller. Undefined where none is. */
  readonly cut?: readonly PricedPolicy[] | undefined
  /** Decided without the store. */
  readonly degraded: boolean
  /** The store was asked, and may have charged it all the same. */
  readonly mayBeCharged?: boolean
  /** Refused by what this process has of the limits while it is. */
  readonly byShare?: boolean
  /** Only a quota that is cut, or the limit of what is in flight, refused it. */
  readonly byCapacity?: boolean
}

/** What there is to a decision besides policies. */
export interface DecideOptions {
  /** False to look only. Default true. */
  readonly commit?: boolean
  /** False takes no place in the retry schedule: a refusal is not obeyed. Default true. */
  readonly promise?: boolean
  /** Charges that belong to no policy. What is done without the store does not depend on `onStoreError`. */
  readonly beside?: readonly Charge[]
  /** On which terms slots are reserved. Without the store, none are. */
  readonly tickets?: TicketTerms | undefined
  /** What is asked of the client's standing, in the store alone. */
  readonly standing?: Charge | undefined
  /** Charges of an outer limiter's that belong to no policy, given back in the same step. */
  readonly undoBeside?: readonly Charged[]
  /** It is about money, for which nothing stands in: without the store it is refused. */
  readonly money?: boolean
  /** Decides as if the store were away. */
  readonly away?: boolean
}

export interface DeciderOptions extends GuardOptions {
  readonly store: OpenStore
  readonly breakers?: Breakers
  /** What decides here while the store is away. */
  readonly local: LocalShare
  readonly onStoreError: OnStoreError
  /** How many processes share the store now. */
  readonly processes: () => number
  /** How long a cut lasts about, in ms, where the limiter is adaptive. */
  readonly cutLastsMs?: number | undefined
}

/** What there is to a decision without the store. */
interface Besides {
  readonly undo: readonly Charged[]
  readonly how: Pick<DecisionRequest, 'commit' | 'promise'>
  readonly beside: readonly Charge[]
  readonly money: boolean
  /** False gives out nothing of this process's share: the store is there, and gives out the quota. */
  readonly hasShare: boolean
}

/** When a request that was refused because the store is away may come again, unless it is known when the store is asked again. */
const retryWhenAwayUs = 1_000_000

/** Between what it is guessed how long a store is away, in ms: a failover takes some ten seconds. */
const shortestGuessMs = 10_000
const longestGuessMs = 60_000

/**
 * Has requests decided by the store and, when it is away, does for each policy what it says: `local` decides with a share of
 * the quota in this process, `open` admits, `closed` refuses.
 */
export class Decider {
  readonly #options: DeciderOptions
  readonly #guard: StoreGuard
  readonly #local: LocalShare

  constructor(options: DeciderOptions) {
    this.#options = options
    this.#local = options.local
    const { store, onBack } = options
    this.#guard = new StoreGuard(store, {
      ...options,
      onBack: (back) => {
        void this.#carryOver()
        onBack?.(back)
      },
    })
  }

  get health(): StoreHealth {
    return this.#guard.health
  }

  get masters(): StoreGuard['masters'] {
    return this.#guard.masters
  }

  /**
   * @param earlier what an outer limiter ruled about the same request: its charge is given back in the same step
   */
  decide(
    priced: readonly PricedPolicy[],
    earlier: Ruling | undefined,
    options: DecideOptions = nothingBesides,
  ): Promise<Ruling> {
    const { commit = true, promise = true, beside = noneBeside, undoBeside = noCharges, standing, tickets } = options
    const charges = priced.map(({ charge }) => charge)
    if (beside.length > 0) charges.push(...beside)
    const ofEarlier = earlier?.charged.filter(({ cost }) => cost > 0) ?? noCharges
    const undo = undoBeside.length === 0 ? ofEarlier : [...ofEarlier, ...undoBeside]
    const ofStore = earlier === undefined || !earlier.degraded
    const away = options.away === true
    if (charges.length === 0 && undo.length === 0 && standing === undefined && !away)
      return Promise.resolve(nothingAsked)
    // Last, as the store expects it.
    if (standing !== undefined) charges.push(standing)
    const how: Pick<DecisionRequest, 'commit' | 'promise'> = promise ? { commit } : { commit, promise: false }
    const besides = { undo: ofStore ? noCharges : undo, how, beside, money: options.money === true, hasShare: true }
    if (away) return this.#withoutStore(priced, besides, retryWhenAwayUs)
    const request: DecisionRequest = {
      charges,
      undo: ofStore ? undo : noCharges,
      commit,
      promise: how.promise,
      tickets,
    }
    const isAsked = besides.money && this.#guard.asks(request)
    const standIn = async (error: unknown): Promise<Ruling> => {
      const retryInMs = this.#guard.retryInMs(request)
      const retryUs = retryInMs === undefined ? retryWhenAwayUs : Math.ceil(retryInMs * 1000)
      const ruling = await this.#withoutStore(priced, { ...besides, hasShare: !isCrowdedOut(error) }, retryUs)
      return isAsked && this.#guard.mayHaveRun(error) ? { ...ruling, mayBeCharged: true } : ruling
    }
    // Not `async`, as in the guard.
    const ruled = this.#guard.decide(request).then((decision): Ruling | Promise<Ruling> => {
      try {
        return new RulingOfStore(priced, request, decision, this.#options.cutLastsMs)
      } catch (error) {
        // A store of the app's may answer anything.
        return standIn(error)
      }
    }, standIn)
    if (ofStore) return ruled
    return ruled.then(async (ruling) => {
      // What stood in for the store has given it back in the same step.
      if (!ruling.degraded) await this.settle('local', undo.map(givenBack))
      return ruling
    })
  }

  /**
   * Forgets a partition's counters, those that stood in for the store's too.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, `RAMPMETER_CLOSED`
   */
  async reset(partition: string, owners: readonly number[]): Promise<void> {
    await this.#local.reset(partition)
    await this.#guard.reset(partition, owners)
  }

  /** Corrects what was charged in the store, or here without it. */
  async settle(where: 'store' | 'local', corrections: readonly Correction[]): Promise<void> {
    if (where === 'store') return await this.#guard.settle(corrections)
    await this.#local.settle(corrections)
    if (!this.#guard.isAway) await this.#carryOver()
  }

  /**
   * Asks the store for what no request waits for.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, and what else of ours the call throws
   */
  patiently<T>(call: () => Promise<T>): Promise<T> {
    return this.#guard.patiently(call)
  }

  /** Resolves when what is owed to the store has reached it, at the latest when it is back. */
  drained(): Promise<void> {
    return this.#guard.drained()
  }

  /** Asks the store no more. */
  close(): void {
    this.#guard.close()
  }

  /** Makes the store know what was admitted here while it was away. */
  async #carryOver(): Promise<void> {
    const corrections = await this.#local.takeOver()
    for (let from = 0; from < corrections.length; from += 100) {
      // What does not arrive now is as good as admitted by another process's share.
      await this.#guard.settle(corrections.slice(from, from + 100)).catch(() => {})
    }
  }

  /**
   * When the store is back, as a guess: who costs more than this process's share has to wait for that. What has lasted for some
   * time lasts about as long again.
   */
  #backInUs(): number {
    return Math.min(Math.max(shortestGuessMs, this.#guard.awayMs), longestGuessMs) * 1000
  }

  async #withoutStore(
    priced: readonly PricedPolicy[],
    { undo, how, beside, money, hasShare }: Besides,
    retryUs: number,
  ): Promise<Ruling> {
    const does = ({ policy, highRisk }: PricedPolicy): OnStoreError =>
      policy.onStoreError ?? (highRisk ? 'closed' : this.#options.onStoreError)
    const isClosed = (does: OnStoreError): boolean => does === 'closed' || (does === 'local' && !hasShare)
    const closed = priced.filter((one) => isClosed(does(one)) && mayRefuse(one))
    if (closed.length > 0 || money) {
      if (undo.length > 0) await this.#local.settle(undo.map(givenBack))
      return {
        ...nothingAsked,
        admitted: false,
        violated: namesOf(closed),
        retryAfterUs: retryUs,
        estimated: true,
        nowUs: Date.now() * 1000,
        degraded: true,
      }
    }
    const local = priced.filter((one) => does(one) === 'local')
    const { decision, shares } = await this.#local.decide(
      { undo, ...how },
      local.map(({ charge }) => charge),
      beside,
      this.#options.processes(),
    )
    return {
      admitted: decision.admitted,
      outcomes: [],
      violated: namesOf(refusingOf(local, decision)),
      retryAfterUs: decision.retryAfterUs ?? (isNever(local) ? null : this.#backInUs()),
      estimated: !decision.admitted,
      nowUs: decision.nowUs,
      charged: chargedBy({ charges: shares, undo, ...how }, decision),
      beside: decision.outcomes.slice(local.length),
      degraded: true,
      byShare: !decision.admitted,
    }
  }
}

/** What the store ruled. What most requests need not know is found out when it is asked for. */
class RulingOfStore implements Ruling {
  readonly admitted: boolean
  readonly retryAfterUs: number | null
  readonly nowUs: number
  readonly outcomes: readonly ChargeOutcome[]
  readonly violated: readonly string[]
  readonly estimated: boolean
  readonly byCapacity: boolean
  readonly beside: readonly ChargeOutcome[]
  readonly ticket: TicketAnswer | undefined
  readonly degraded = false
  readonly standing: KnownStanding | undefined
  readonly cut: readonly PricedPolicy[] | undefined
  readonly #charges: readonly Charge[]
  readonly #commit: boolean
  #charged: readonly Charged[] | undefined

  constructor(
    priced: readonly PricedPolicy[],
    { charges, commit }: DecisionRequest,
    decision: StoreDecision,
    cutLastsMs = 1000,
  ) {
    const { outcomes } = decision
    const refusing = refusingOf(priced, decision)
    const hasMore = outcomes.length > priced.length
    const tooLargeNow = decision.retryAfterUs === null && isTooLargeNow(priced, decision)
    this.admitted = decision.admitted
    this.byCapacity = decision.onlyCut === true
    this.retryAfterUs = tooLargeNow ? untilUncutUs(priced, decision, cutLastsMs * 1000) : decision.retryAfterUs
    this.nowUs = decision.nowUs
    this.outcomes = hasMore ? outcomes.slice(0, priced.length) : outcomes
    this.violated = refusing.length === 0 ? nobody : namesOf(refusing)
    this.estimated =
      this.byCapacity || refusing.some(({ charge }) => charge.kind === 'concurrency' || charge.base !== undefined)
    this.beside = hasMore ? outcomes.slice(priced.length) : noOutcomes
    this.ticket = decision.ticket
    const asked = charges.at(-1)?.standing
    this.standing = asked === undefined ? undefined : readStanding(outcomes.at(-1)!, asked)
    const isCut = asked?.enforce === true && this.standing!.step !== 'allow'
    this.cut = isCut ? cutBy(priced, charges, asked.share) : undefined
    this.#charges = this.cut?.map(({ charge }) => charge) ?? charges
    this.#commit = commit
  }

  get charged(): readonly Charged[] {
    const { admitted, nowUs, retryAfterUs, outcomes } = this
    this.#charged ??= chargedBy(
      { charges: this.#charges.slice(0, outcomes.length), undo: noCharges, commit: this.#commit },
      { admitted, nowUs, retryAfterUs, outcomes },
    )
    return this.#charged
  }
}

const noCharges: readonly Charged[] = []
const noneBeside: readonly Charge[] = []
const nothingBesides: DecideOptions = {}
const noOutcomes: readonly ChargeOutcome[] = []
const nobody: readonly string[] = []

/** The ruling about a request for which there is no place now, whatever its limits say. */
export function noPlace(retryAfterMs: number): Ruling {
  return {
    ...nothingAsked,
    admitted: false,
    retryAfterUs: retryAfterMs * 1000,
    estimated: true,
    nowUs: Date.now() * 1000,
    byCapacity: true,
  }
}

/** The ruling about a request that no limit applies to. */
const nothingAsked: Ruling = {
  admitted: true,
  outcomes: [],
  violated: [],
  retryAfterUs: 0,
  estimated: false,
  nowUs: 0,
  charged: [],
  beside: [],
  degraded: false,
}

const none: readonly PricedPolicy[] = []
/** The policies as a standing that throttles leaves them. */
function cutBy(priced: readonly PricedPolicy[], charges: readonly Charge[], share: number): PricedPolicy[] {
  const left = throttled(charges, share)
  return priced.map((one, index) => ({ ...one, charge: left[index]! }))
}

/** The policies that refused. */
function refusingOf(priced: readonly PricedPolicy[], { admitted, outcomes }: StoreDecision): readonly PricedPolicy[] {
  return admitted ? none : priced.filter((one, index) => outcomes[index]!.verdict === 'refused' && mayRefuse(one))
}

function namesOf(priced: readonly PricedPolicy[]): string[] {
  return priced.map(({ policy }) => policy.name)
}

function mayRefuse({ charge }: PricedPolicy): boolean {
  return !charge.shadow && charge.kind !== 'first-minutes' && charge.role !== 'own' && charge.role !== 'demand'
}

/** Whether a request costs more than a limit ever holds, and not merely more than this process's share of it. */
function isNever(priced: readonly PricedPolicy[]): boolean {
  return priced.some((one) => mayRefuse(one) && one.charge.after !== true && one.charge.cost > capacityOf(one.charge))
}

/** Whether waiting does not help only because of quotas that are cut: what costs more than they hold fits when they are not. */
function isTooLargeNow(priced: readonly PricedPolicy[], { outcomes }: StoreDecision): boolean {
  return priced.every((one, index) => {
    const { verdict, waitUs } = outcomes[index]!
    if (verdict !== 'refused' || !mayRefuse(one)) return true
    const { base, capacity, cost, members } = one.charge
    // Of what is counted by name, the wait is for one more, and says nothing of a request that brings too many.
    const bringsTooMany = members !== undefined && members.length > capacity
    if (waitUs !== null && !bringsTooMany) return true
    return base !== undefined && cost <= base.capacity
  })
}

/** When there is room for it once the cut is over: what is used is given back meanwhile, by a bucket at the pace of the cut. */
function untilUncutUs(priced: readonly PricedPolicy[], { outcomes }: StoreDecision, cutLastsUs: number): number {
  const waits = priced.map((one, index) => {
    const { verdict, waitUs, resetUs } = outcomes[index]!
    if (verdict !== 'refused' || !mayRefuse(one)) return 0
    const { kind, base, cost, quota, windowUs } = one.charge
    if (base === undefined || kind !== 'token-bucket') return waitUs ?? resetUs
    return Math.ceil(resetUs - ((base.capacity - cost) * windowUs) / quota)
  })
  return Math.max(cutLastsUs, ...waits)
}

function capacityOf({ base, capacity }: Charge): number {
  return base?.capacity ?? capacity
}
