import { RampmeterError } from '../errors.ts'
import type { Charged, DecisionRequest, OpenStore, StoreDecision } from './store.ts'
import { givenBack } from './together.ts'

/** What a guard needs to know. */
export interface GuardOptions {
  /** The longest a decision waits, in ms. */
  readonly deadlineMs: number
  /** Hears of each decision that had to be made without the store. */
  readonly onAway: (away: { waitedMs: number; error: RampmeterError; count: number }) => void
}

/** Whether the store answered last: `down` when it never did or several decisions in a row were missed. */
export type StoreHealth = 'up' | 'degraded' | 'down'

/** From this many misses in a row on, a store counts as down. */
const missesUntilDown = 3

/**
 * Stands between the limiter and its store: no decision waits longer than the deadline, whatever state the store is in, and
 * an answer that comes later is undone, since the request has been decided without it.
 */
export class StoreGuard {
  readonly #store: OpenStore
  readonly #options: GuardOptions
  #everAnswered = false
  /** The wait for a first connection is shared, and made once: a store that is down at start-up costs one deadline, not one each. */
  #firstReady: Promise<void> | undefined
  #misses = 0

  constructor(store: OpenStore, options: GuardOptions) {
    this.#store = store
    this.#options = options
  }

  get health(): StoreHealth {
    if (this.#misses === 0) return 'up'
    return this.#misses < missesUntilDown ? 'degraded' : 'down'
  }

  /**
   * Decides, or says that the store is away.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`
   */
  async decide(request: DecisionRequest): Promise<StoreDecision> {
    if (this.#store.local === true) return await this.#store.decide(request)
    const started = performance.now()
    try {
      if (!this.#everAnswered) await this.#untilFirstReady()
      const decision = await this.#withinDeadline(request, started)
      this.#everAnswered = true
      this.#misses = 0
      return decision
    } catch (cause) {
      this.#misses += 1
      const error =
        cause instanceof RampmeterError
          ? cause
          : new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'the store failed', { cause })
      this.#options.onAway({ waitedMs: performance.now() - started, error, count: this.#misses })
      throw error
    }
  }

  async #untilFirstReady(): Promise<void> {
    this.#firstReady ??= this.#ready()
    await this.#firstReady
  }

  async #ready(): Promise<void> {
    const timeout = rejectAfter(this.#options.deadlineMs, this.#options.deadlineMs)
    try {
      await Promise.race([this.#store.ready(), timeout])
    } catch {
      // The decision that follows says what is wrong.
    } finally {
      timeout.cancel()
    }
  }

  async #withinDeadline(request: DecisionRequest, started: number): Promise<StoreDecision> {
    const answer = this.#store.decide(request)
    const left = Math.max(0, this.#options.deadlineMs - (performance.now() - started))
    let late = false
    answer.then(
      (decision) => {
        if (late) this.#undo(request, decision)
      },
      () => {},
    )
    const timeout = rejectAfter(left, this.#options.deadlineMs)
    try {
      return await Promise.race([answer, timeout])
    } catch (error) {
      late = true
      throw error
    } finally {
      timeout.cancel()
    }
  }

  /** Gives back what a late answer charged. If that fails too, the charge stays until it leaves its window. */
  #undo(request: DecisionRequest, decision: StoreDecision): void {
    const corrections = chargedBy(request, decision)
      .filter(({ cost }) => cost > 0)
      .map(givenBack)
    if (corrections.length > 0) this.#store.settle(corrections).catch(() => {})
  }
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

/**
 * A promise that rejects after a while, but only once the sockets have been looked at again: after a stall of the event loop
 * its timer is due before the answer that has long arrived is read.
 */
function rejectAfter(ms: number, deadlineMs: number): Promise<never> & { cancel(): void } {
  let timer: NodeJS.Timeout | undefined
  let immediate: NodeJS.Immediate | undefined
  const promise = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      immediate = setImmediate(() =>
        reject(
          new RampmeterError(
            'RAMPMETER_STORE_UNAVAILABLE',
            `the store did not answer within its deadline of ${deadlineMs} ms`,
          ),
        ),
      )
    }, ms)
  })
  promise.catch(() => {})
  return Object.assign(promise, {
    cancel: () => {
      clearTimeout(timer)
      clearImmediate(immediate)
    },
  })
}
