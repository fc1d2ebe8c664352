import { isNotPermitted, RampmeterError, withoutCode } from '../errors.ts'
import { Asking, hasWaitedHere, isCrowdedOut, isLate, missed, type Hearer } from './asking.ts'
import { Breakers, wholeStore } from './breaker.ts'
import { Deadlines, type Waiting } from './deadlines.ts'
import { Owed } from './owed.ts'
import { probed, probedWhere, probeOf } from './probe.ts'
import type { Charged, Correction, DecisionRequest, OpenStore, StoreDecision } from './store.ts'
import { givenBack } from './together.ts'

/** What is told of a decision that had to be made without the store. */
interface Away {
  readonly waitedMs: number
  readonly error: RampmeterError
  /** Which it is of this outage. */
  readonly count: number
  /** When the outage began, in ms since 1970, and for how long it has lasted: not what lies between, since clocks are set. */
  readonly since: number
  readonly forMs: number
}

/** What is told when the store is back. */
interface Back {
  readonly since: number
  readonly forMs: number
  readonly error: RampmeterError
  /** How many decisions were made without it. */
  readonly count: number
}

/** What a guard needs to know. */
export interface GuardOptions {
  /** The longest a decision waits, in ms. */
  readonly deadlineMs: number
  /** Those of the store, which limiters share. Default: of its own. */
  readonly breakers?: Breakers | undefined
  /** Hears of each decision that had to be made without the store. */
  readonly onAway: (away: Away) => void
  /**
   * Hears of each decision that waited here behind others of its own client until it was too late: the store is well, and it is
   * no outage. `count` and `since` are those of the flood, which is over after a second without.
   */
  readonly onCrowded?: ((crowded: Away) => void) | undefined
  /** Hears that the store answers again everywhere. */
  readonly onBack?: ((back: Back) => void) | undefined
}

/**
 * How the store is: `up`; `degraded` when the last decision was missed, or part of a cluster is away; `down` when it is not
 * asked any more but for probes, or not connected.
 */
export type StoreHealth = 'up' | 'degraded' | 'down'

/** How long what no request waits for may take, in ms, unless the deadline of requests is longer. */
export function patienceOf(deadlineMs: number): number {
  return Math.max(2000, deadlineMs)
}

/** After so long without one that was crowded out, in ms, the next begins a flood of its own. */
const floodOverMs = 1000

/** After so long without an answer, in ms, whoever asks for the health has the store looked at. */
const freshMs = 1000

/** So long what it permits is taken to stay as it is, in ms, while it answers. */
const permissionsFreshMs = 10_000

/** How many corrections go into one call when the store is back. */
const atOnce = 100

/** Of so many places it is remembered where to look. */
const mostProbed = 2000

const onlyPlace = [wholeStore] as const

/**
 * Stands between the limiter and its store: no decision waits longer than the deadline, whatever state the store is in, and
 * none at all once it has been missed several times. The store is told that it was given up, and an answer that comes later is
 * undone, since the request has been decided without it.
 */
export class StoreGuard {
  readonly #store: OpenStore
  readonly #options: GuardOptions
  readonly #breakers: Breakers
  readonly #deadlines: Deadlines
  readonly #patience: Deadlines
  readonly #owed = new Owed()
  /** Deliveries of what was owed that are under way. */
  #delivering = 0
  #onDrained: (() => void) | undefined
  #draining: Promise<void> | undefined
  readonly #endUse: () => void
  #everAnswered = false
  /** The wait for a first connection is shared, and made once: a store that is down at start-up costs one deadline, not one each. */
  #firstReady: Promise<void> | undefined
  /** `beganAt` by `performance.now()`. */
  #outage: { since: number; beganAt: number; count: number; error: RampmeterError } | undefined
  /** What was crowded out of late; `beganAt` and `lastAt` by `performance.now()`. */
  #flood = { since: 0, beganAt: 0, lastAt: -Infinity, count: 0 }
  #isLooking = false
  #lookedAt = -Infinity
  /** Of each place a partition that is there. */
  readonly #probedAt = new Map<string, string>()
  #isClosed = false
  /** Something is not permitted that a decision may need. */
  #isForbidden = false
  #permissionsLookedAt = -Infinity
  /** Hear how the decisions of requests ended, and those that only look at the store. */
  readonly #ofRequests: Hearer
  readonly #ofProbes: Hearer

  constructor(store: OpenStore, options: GuardOptions) {
    this.#store = store
    this.#options = options
    this.#breakers = options.breakers ?? new Breakers()
    this.#deadlines = new Deadlines(options.deadlineMs)
    this.#patience = new Deadlines(patienceOf(options.deadlineMs))
    const late = (asking: Asking, decision: StoreDecision): void => this.#undo(asking.request, decision)
    const isSilent = ({ places, startedAt }: Asking): boolean => !this.#breakers.haveAnswered(places, startedAt)
    this.#ofProbes = { answered: () => {}, missed: (_, cause) => cause, isSilent, late }
    this.#ofRequests = {
      answered: ({ places }) => {
        this.#everAnswered = true
        this.#breakers.answered(places)
        // Of a failure that was nobody's fault nobody is found to be back.
        if (this.#outage !== undefined && this.#breakers.state === 'up') this.#back()
      },
      missed: (asking, cause) => {
        const error = failure(cause)
        // Whoever waited for its turn here says nothing about the store: one client's flood is not to cut off the others.
        if (!this.#isClosed) this.#blame(asking, error)
        const waitedMs = performance.now() - asking.startedAt
        if (isCrowdedOut(error)) this.#crowded(waitedMs, error)
        else this.#away(waitedMs, error)
        return error
      },
      isSilent,
      late,
    }
    this.#endUse = this.#breakers.use({
      probe: (partition, thoroughly) => this.#probe(partition, thoroughly).then(() => undefined, failure),
      onBack: () => this.#back(),
    })
  }

  /** Also has the store looked at, where that has not been done for a while: the next to ask is told. */
  get health(): StoreHealth {
    if (this.#store.local === true) return 'up'
    const health = this.#asFarAsAsked
    if (health !== 'up') return health
    this.#lookAtPermissions()
    return this.#isForbidden ? 'degraded' : 'up'
  }

  get #asFarAsAsked(): StoreHealth {
    const isConnected = this.#store.isConnected?.()
    if (isConnected === false || this.#isClosed) return 'down'
    const places = this.#store.places?.()
    if (places === undefined) {
      const { state, heardAt } = this.#breakers
      if (state !== 'down' && performance.now() - heardAt > freshMs) this.#look(onlyPlace)
      return state
    }
    // Requests may have needed only some of them.
    if (performance.now() - this.#lookedAt > freshMs) this.#look(places)
    return this.#breakers.stateOf(places).state
  }

  /** Of a cluster: how many masters there are, and how many are not asked any more but for probes. */
  get masters(): { readonly total: number; readonly away: number } | undefined {
    const places = this.#store.places?.()
    return places && { total: places.length, away: this.#breakers.stateOf(places).away }
  }

  /** Whether decisions have been made without the store that it is not back from. */
  get isAway(): boolean {
    return this.#outage !== undefined
  }

  /** In how many ms a store that is not asked any more may be: when its probe is decided. Undefined while it is asked. */
  retryInMs(request: DecisionRequest): number | undefined {
    return this.#breakers.probedInMs(this.#placesOf(request), this.#options.deadlineMs)
  }

  /** Whether a decision would be asked of the store now, and not refused at once. */
  asks(request: DecisionRequest): boolean {
    return this.#breakers.barred(this.#placesOf(request)) === undefined
  }

  /** Whether what failed like that, when the store was asked, may have been done all the same. */
  mayHaveRun(error: unknown): boolean {
    if (isLate(error)) return true
    const { cause } = error as { cause?: unknown }
    // Our own: there is no connection.
    if (cause === undefined) return !(error instanceof RampmeterError)
    return this.#store.hasNotRun?.(cause) !== true
  }

  /** For how long decisions have been made without the store, in ms. */
  get awayMs(): number {
    return this.#outage === undefined ? 0 : performance.now() - this.#outage.beganAt
  }

  /**
   * Decides, or says that the store is away.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`
   */
  decide(request: DecisionRequest): Promise<StoreDecision> {
    if (this.#store.local === true) return this.#store.decide(request)
    const places = this.#placesOf(request)
    const barred = this.#breakers.barred(places)
    if (barred !== undefined) {
      this.#away(0, barred)
      return Promise.reject(barred)
    }
    const known = this.#store.known?.(request)
    if (known !== undefined) return Promise.resolve(known)
    const startedAt = performance.now()
    if (this.#everAnswered) return this.#ask(request, places, this.#ofRequests, startedAt)
    return this.#untilFirstReady().then(() => this.#ask(request, places, this.#ofRequests, startedAt))
  }

  /**
   * Corrects what was charged. What certainly did not arrive is kept, and corrected when the store is back.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`
   */
  async settle(corrections: readonly Correction[]): Promise<void> {
    if (this.#store.local === true) return await this.#store.settle(corrections)
    const barred = this.#breakers.barred(onlyPlace)
    if (barred !== undefined) {
      this.#owed.keep(corrections)
      throw barred
    }
    await this.#deliver(corrections)
  }

  /** @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, `RAMPMETER_CLOSED` */
  async reset(partition: string, owners: readonly number[]): Promise<void> {
    if (this.#store.local === true) return await this.#store.reset(partition, owners)
    try {
      await this.#patiently(this.#store.reset(partition, owners))
    } catch (cause) {
      const error = failure(cause)
      if (error.code === 'RAMPMETER_CLOSED') throw error
      const why = withoutCode(error)
      throw new RampmeterError(
        'RAMPMETER_STORE_UNAVAILABLE',
        `the client was forgotten in this process alone, since ${why}; reset it again when the store is back`,
        { cause },
      )
    }
  }

  /**
   * Asks for what no request waits for.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, and what else of ours the call throws
   */
  async patiently<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await this.#patiently(call())
    } catch (cause) {
      throw failure(cause)
    }
  }

  /** Resolves when all that is owed has been delivered: at once, or when the store is back. */
  drained(): Promise<void> {
    if (this.#isDrained) return Promise.resolve()
    this.#draining ??= new Promise((resolve) => (this.#onDrained = resolve))
    return this.#draining
  }

  get #isDrained(): boolean {
    return this.#owed.isEmpty && this.#delivering === 0
  }

  /** Uses the store no more: what is still owed is not delivered. */
  close(): void {
    this.#isClosed = true
    this.#endUse()
    this.#owed.take()
  }

  #placesOf(request: DecisionRequest): readonly string[] {
    return this.#store.placesOf?.(request) ?? onlyPlace
  }

  #away(waitedMs: number, error: RampmeterError): void {
    this.#outage ??= { since: Date.now(), beganAt: performance.now(), count: 0, error }
    this.#outage.count += 1
    this.#outage.error = error
    const { since, count } = this.#outage
    this.#options.onAway({ waitedMs, error, count, since, forMs: Math.round(this.awayMs) })
  }

  #crowded(waitedMs: number, error: RampmeterError): void {
    const now = performance.now()
    if (now - this.#flood.lastAt > floodOverMs) {
      this.#flood = { since: Date.now(), beganAt: now, lastAt: now, count: 0 }
    }
    this.#flood.lastAt = now
    this.#flood.count += 1
    const { since, beganAt, count } = this.#flood
    this.#options.onCrowded?.({ waitedMs, error, count, since, forMs: Math.round(now - beganAt) })
  }

  /** Notes a miss where it was made: where a call failed, else where none has answered. */
  #blame(asking: Asking, error: RampmeterError): void {
    const { request, places, failures, answers } = asking
    const silent =
      failures.size > 0 ? failures : places.filter((place) => !answers.has(place) && asking.isOwedBy(place))
    // What waited here for another place says nothing of this one.
    const told = hasWaitedHere(error) ? missed(this.#deadlines.lengthMs) : error
    for (const place of silent) {
      const there = partitionsOf(request).find((partition) => this.#isAt(partition, place))
      this.#breakers.missed(place, there ?? probed, told)
    }
  }

  #isAt(partition: string, place: string): boolean {
    return this.#store.placesOf?.(probeOf(partition, false)).includes(place) ?? false
  }

  #back(): void {
    const outage = this.#outage
    const forMs = Math.round(this.awayMs)
    this.#outage = undefined
    const owed = this.#owed.take()
    for (let from = 0; from < owed.length; from += atOnce) {
      this.#delivering += 1
      this.#deliver(owed.slice(from, from + atOnce))
        .catch(() => {})
        .finally(() => {
          this.#delivering -= 1
          if (this.#isDrained) this.#onDrained?.()
        })
    }
    if (outage === undefined) return
    this.#options.onBack?.({ ...outage, forMs })
  }

  async #deliver(corrections: readonly Correction[]): Promise<void> {
    const call = this.#store.settle(corrections)
    try {
      await this.#patiently(call)
    } catch (cause) {
      const error = failure(cause)
      if (isNotPermitted(error) && !this.#isClosed) this.#breakers.missed(wholeStore, probed, error)
      // What was only not answered in time may run yet: it is not made twice.
      if (!isLate(cause) && this.#store.hasNotRun?.(cause) === true && !this.#isClosed) {
        this.#owed.keep(corrections)
        this.#breakers.missed(wholeStore, probed, error, true)
      }
      throw error
    }
  }

  /** Looks at the store beside the requests, wherever it is still asked. It has something written, as a decision does. */
  #look(places: readonly string[]): void {
    if (this.#isLooking) return
    this.#isLooking = true
    this.#lookedAt = performance.now()
    const asked = places.filter((place) => this.#breakers.barred([place]) === undefined)
    void Promise.all(asked.map((place) => this.#lookAt(place))).finally(() => {
      this.#isLooking = false
    })
  }

  async #lookAt(place: string): Promise<void> {
    const partition = this.#partitionAt(place)
    if (partition === undefined) return
    try {
      await this.#ask(probeOf(partition, true), [place], this.#ofProbes)
      this.#breakers.answered([place])
    } catch (cause) {
      if (!this.#isClosed) this.#breakers.missed(place, partition, failure(cause))
    }
  }

  /** What the decisions of late did not need may not be permitted all the same, and each master of a cluster has an ACL of its own. */
  #lookAtPermissions(): void {
    const store = this.#store
    const now = performance.now()
    if (store.checkAt === undefined || now - this.#permissionsLookedAt < permissionsFreshMs) return
    this.#permissionsLookedAt = now
    const partitions = new Set((store.places?.() ?? onlyPlace).map((place) => this.#partitionAt(place) ?? probed))
    void Promise.allSettled(Array.from(partitions, (partition) => store.checkAt!(partition))).then((looks) => {
      const failures = looks.flatMap((look) => (look.status === 'rejected' ? [look.reason as unknown] : []))
      if (failures.some(isNotPermitted)) this.#isForbidden = true
      else if (failures.length === 0) this.#isForbidden = false
    })
  }

  async #probe(partition: string, thoroughly: boolean): Promise<void> {
    await this.#ask(probeOf(partition, true), onlyPlace, this.#ofProbes)
    if (thoroughly && this.#store.checkAt !== undefined) await this.#patiently(this.#store.checkAt(partition))
  }

  #partitionAt(place: string): string | undefined {
    if (place === wholeStore) return probed
    const known = this.#probedAt.get(place)
    if (known !== undefined && this.#isAt(known, place)) return known
    const partition = probedWhere((one) => this.#isAt(one, place))
    if (partition === undefined) return undefined
    if (this.#probedAt.size >= mostProbed) this.#probedAt.clear()
    this.#probedAt.set(place, partition)
    return partition
  }

  #untilFirstReady(): Promise<void> {
    this.#firstReady ??= this.#ready()
    return this.#firstReady
  }

  #ready(): Promise<void> {
    return new Promise((resolve) => {
      const waiting = waitingFor(resolve)
      this.#deadlines.begin(waiting)
      const answered = (): void => {
        this.#deadlines.end(waiting)
        resolve()
      }
      // Where it failed, the decision that follows says what is wrong.
      this.#store.ready().then(answered, answered)
    })
  }

  /** Asks within the deadline. Not `async`: every request in flight would keep frames of it. */
  #ask(
    request: DecisionRequest,
    places: readonly string[],
    hearer: Hearer,
    startedAt: number = performance.now(),
  ): Promise<StoreDecision> {
    return new Asking(request, places, startedAt, this.#deadlines, hearer).of(this.#store)
  }

  #patiently<T>(work: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const waiting = waitingFor(() => reject(missed(this.#patience.lengthMs)))
      this.#patience.begin(waiting)
      work.then(resolve, reject).finally(() => this.#patience.end(waiting))
    })
  }

  /** Gives back what a late answer charged. If that fails too, the charge stays until it leaves its window. */
  #undo(request: DecisionRequest, decision: StoreDecision): void {
    const corrections = takenBack(request, decision)
    if (corrections.length > 0) this.#deliver(corrections).catch(() => {})
  }
}

function waitingFor(giveUp: () => void): Waiting {
  return { giveUp, turn: undefined, place: 0 }
}

function partitionsOf({ charges, undo }: DecisionRequest): string[] {
  return [...charges, ...undo.map(({ charge }) => charge)].map(({ partition }) => partition)
}

/** What an answer of a store has charged; what was free is in it too, since it may be settled to more. */
export function chargedBy(request: DecisionRequest, decision: StoreDecision): Charged[] {
  if (!decision.admitted || !request.commit) return []
  const { outcomes } = decision
  const lifted = outcomes.some(({ verdict }) => verdict === 'lifted')
  return request.charges.flatMap((charge, index) => {
    const { verdict, added = 0, atUs: chargedAtUs = decision.nowUs } = outcomes[index]!
    const made = charge.kind === 'first-minutes' ? lifted : verdict === 'fits'
    return made ? [{ charge, cost: charge.after === true ? 0 : charge.cost, chargedAtUs, added }] : []
  })
}

/** The corrections that take back what an answer charged that came too late. A proof that may have been used up stays so. */
export function takenBack(request: DecisionRequest, decision: StoreDecision): Correction[] {
  return chargedBy(request, decision)
    .filter(({ charge, cost }) => cost > 0 && charge.kind !== 'single-use')
    .map(givenBack)
}

function failure(cause: unknown): RampmeterError {
  if (cause instanceof RampmeterError) return cause
  return new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'the store failed', { cause })
}
