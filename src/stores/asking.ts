import { RampmeterError } from '../errors.ts'
import type { Deadlines, Turn, Waiting } from './deadlines.ts'
import type { AnsweredCaller, DecisionRequest, OpenStore, StoreDecision } from './store.ts'

/** Hears how decisions ended that a store was asked for, apart from who waits for them. */
export interface Hearer {
  answered(asking: Asking): void
  /**
   * It was not answered: it failed, or took too long.
   *
   * @returns what whoever waits is told
   */
  missed(asking: Asking, cause: unknown): unknown
  /** Whether nothing was answered where it was to be decided for as long as it waited. */
  isSilent(asking: Asking): boolean
  /** It was answered after all, when nobody waited any more. */
  late(asking: Asking, decision: StoreDecision): void
}

const none: ReadonlySet<string> = new Set()

/** What is sent at once leaves a little after its deadline began: so much of it is all of it. */
const enoughOf = 0.9

/**
 * A decision that a store was asked for: one object for each, since there are as many as requests. What few of them need is made
 * when they do.
 */
export class Asking implements AnsweredCaller, Waiting {
  readonly request: DecisionRequest
  readonly places: readonly string[]
  /** By `performance.now()`. */
  readonly startedAt: number
  turn: Turn | undefined
  place = 0
  readonly #deadlines: Deadlines
  readonly #hearer: Hearer
  #resolve!: (decision: StoreDecision) => void
  #reject!: (cause: unknown) => void
  #answers: Set<string> | undefined
  #failures: Set<string> | undefined
  #givingUp: AbortController | undefined
  #givenUp: RampmeterError | undefined
  #isSent = false
  /** By `performance.now()`. */
  #sentAt: number | undefined
  #sentTo: Set<string> | undefined
  #isBehindOwn = false
  #hasFailed = false

  constructor(
    request: DecisionRequest,
    places: readonly string[],
    startedAt: number,
    deadlines: Deadlines,
    hearer: Hearer,
  ) {
    this.request = request
    this.places = places
    this.startedAt = startedAt
    this.#deadlines = deadlines
    this.#hearer = hearer
  }

  /** Asks, once. */
  of(store: OpenStore): Promise<StoreDecision> {
    const outcome = new Promise<StoreDecision>((resolve, reject) => {
      this.#resolve = resolve
      this.#reject = reject
    })
    this.#deadlines.begin(this)
    try {
      if (store.decideFor === undefined) {
        this.#isSent = store.takesTurns !== true
        store.decide(this.request, this).then(
          (decision) => this.answered(decision),
          (cause: unknown) => this.failed(cause),
        )
      } else {
        store.decideFor(this.request, this)
      }
    } catch (cause) {
      // A store of the app's.
      this.failed(cause)
    }
    return outcome
  }

  sent(place?: string): void {
    this.#isSent = true
    this.#sentAt = performance.now()
    if (place !== undefined) (this.#sentTo ??= new Set()).add(place)
  }

  behindOwn(): void {
    this.#isBehindOwn = true
  }

  /** Whether that place failed it, or has had it for as long as it may take, and so may be blamed. */
  isOwedBy(place: string): boolean {
    return this.#isSentTo(place) && (this.#hasFailed || this.#hadTime)
  }

  #isSentTo(place: string): boolean {
    return this.#sentTo?.has(place) ?? this.#isSent
  }

  /** What waited for its turn here and was sent late is no fault of the store's either. */
  get #hadTime(): boolean {
    return this.#sentAt === undefined || performance.now() - this.#sentAt >= enoughOf * this.#deadlines.lengthMs
  }

  answered(decision: StoreDecision): void {
    if (this.#givenUp !== undefined) return this.#hearer.late(this, decision)
    this.#deadlines.end(this)
    this.#hearer.answered(this)
    this.#resolve(decision)
  }

  failed(cause: unknown): void {
    if (this.#givenUp !== undefined) return
    this.#deadlines.end(this)
    this.#hasFailed = true
    this.#reject(this.#hearer.missed(this, cause))
  }

  giveUp(): void {
    const { lengthMs } = this.#deadlines
    const isSent = this.places.every((place) => this.#isSentTo(place))
    const isTheStores = (isSent && this.#hadTime) || this.#hearer.isSilent(this)
    const error = isTheStores ? missed(lengthMs, isSent) : sentLate(lengthMs, isSent, this.#isBehindOwn)
    this.#givenUp = error
    this.#reject(this.#hearer.missed(this, error))
    this.#givingUp?.abort(error)
  }

  get isGivenUp(): boolean {
    return this.#givenUp !== undefined
  }

  /** Which of its places have answered, and which failed, as far as the store tells. */
  get answers(): ReadonlySet<string> {
    return this.#answers ?? none
  }

  get failures(): ReadonlySet<string> {
    return this.#failures ?? none
  }

  get signal(): AbortSignal {
    this.#givingUp ??= new AbortController()
    if (this.#givenUp !== undefined) this.#givingUp.abort(this.#givenUp)
    return this.#givingUp.signal
  }

  heard(place: string, failed: boolean): void {
    if (failed) (this.#failures ??= new Set()).add(place)
    else (this.#answers ??= new Set()).add(place)
  }
}

/** Errors of answers that did not come in time. */
const late = new WeakSet<Error>()

/**
 * What is told where the store took too long.
 *
 * @param isSent whether it has heard of it, and may do it yet. What waited here for those that it did not answer has not been sent
 */
export function missed(deadlineMs: number, isSent = true): RampmeterError {
  const error = new RampmeterError(
    'RAMPMETER_STORE_UNAVAILABLE',
    `the store did not answer within its deadline of ${deadlineMs} ms`,
  )
  if (isSent) late.add(error)
  return error
}

/** What is told of one that waited for its turn here until it was over, or nearly so: the store has hardly heard of it. */
function sentLate(deadlineMs: number, isSent: boolean, isBehindOwn: boolean): RampmeterError {
  const when = isSent ? 'was sent too late to be answered' : 'was not sent'
  const error = new RampmeterError(
    'RAMPMETER_STORE_UNAVAILABLE',
    `the decision ${when} within its deadline of ${deadlineMs} ms: so many others of ${isBehindOwn ? 'the same client' : 'this process'} were under way`,
  )
  waited.add(error)
  if (isSent) late.add(error)
  if (isBehindOwn) crowded.add(error)
  return error
}

/** Errors of decisions that waited here for too long. */
const waited = new WeakSet<Error>()

/** Whether an error says that a decision waited in this process for too long, which is no fault of the store's. */
export function hasWaitedHere(error: unknown): boolean {
  return waited.has(error as Error)
}

/** Errors of decisions that waited behind others of the same client. */
const crowded = new WeakSet<Error>()

/** Whether an error says that a client asked for more at once than could be sent: the store is well, and decides the others. */
export function isCrowdedOut(error: unknown): boolean {
  return crowded.has(error as Error)
}

/** Whether an error says that the store took too long: what it was asked for may run yet. */
export function isLate(error: unknown): boolean {
  return late.has(error as Error)
}
