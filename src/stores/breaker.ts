import { isNotPermitted, type RampmeterError } from '../errors.ts'
import type { Store } from './store.ts'

/** After so many misses in a row a place is not asked any more. */
const missesUntilOpen = 3

/** How long after that it is looked at again, in ms: twice as long each time, up to the longest. */
const firstPauseMs = 100
const longestPauseMs = 1000

/** Of so many places it is known when they answered last. */
const mostHeard = 2000

/** Who uses the breakers of a store: a limiter. */
export interface BreakerUser {
  /**
   * Asks the store for something small that is written, where the partition's counters are.
   *
   * @param thoroughly whether all that may be asked of it is permitted, too: what a user may not do fails of some decisions only
   * @returns why that failed; undefined where it was answered
   */
  probe(partition: string, thoroughly: boolean): Promise<RampmeterError | undefined>
  /** Hears that no place misses any more. */
  onBack(): void
}

/** Part of a store that fails by itself: all of a single server, or one master of a cluster. */
interface Place {
  misses: number
  /** Why it was missed last. */
  error: RampmeterError
  /** A partition that is there. */
  partition: string
  pauseMs: number
  /** A decision was not permitted: others may be, and do not end that. */
  isForbidden: boolean
  /** When it is looked at again, by `performance.now()`. Undefined while it is still asked. */
  probeAt: number | undefined
  timer: NodeJS.Timeout | undefined
}

/**
 * The circuit breakers of one store, one for each place. Misses in a row open one: from then on nobody asks there or waits, but
 * for a probe that is made beside the requests and closes it once it is answered. So a store that is away costs a request
 * microseconds, and heals without any.
 *
 * Limiters that share a store share them: what one has met the others need not meet.
 */
export class Breakers {
  /** Those that missed last. */
  readonly #missing = new Map<string, Place>()
  readonly #users = new Set<BreakerUser>()
  #heardAt = -Infinity
  /** When each place was heard of last. */
  readonly #heard = new Map<string, number>()

  /** @returns what ends the use */
  use(user: BreakerUser): () => void {
    this.#users.add(user)
    return () => {
      this.#users.delete(user)
      if (this.#users.size > 0) return
      for (const { timer } of this.#missing.values()) clearTimeout(timer)
      this.#missing.clear()
    }
  }

  /** How it stands: whether every place was answered by last, some were, or nothing was since one was given up. */
  get state(): 'up' | 'degraded' | 'down' {
    if (this.#missing.size === 0) return 'up'
    const open = [...this.#missing.values()].filter(({ probeAt }) => probeAt !== undefined)
    // What is probed is heard of at the end of an outage only.
    const isSilent = performance.now() - this.#heardAt > longestPauseMs
    return open.length > 0 && (isSilent || this.#missing.has(wholeStore)) ? 'down' : 'degraded'
  }

  /** The same of a store of which these are all places, whether they were asked or not; and how many of them are not asked any more. */
  stateOf(places: readonly string[]): { state: 'up' | 'degraded' | 'down'; away: number } {
    const isOpen = (place: string): boolean => this.#missing.get(place)?.probeAt !== undefined
    const away = places.filter(isOpen).length
    if (isOpen(wholeStore) || (away > 0 && away === places.length)) return { state: 'down', away }
    return { state: this.#missing.size === 0 ? 'up' : 'degraded', away }
  }

  /** When a place last answered, by `performance.now()`. */
  get heardAt(): number {
    return this.#heardAt
  }

  /** Why a request that needs these places cannot be asked; undefined if it can. */
  barred(places: readonly string[]): RampmeterError | undefined {
    if (this.#missing.size === 0) return undefined
    for (const place of places) {
      const missing = this.#missing.get(place)
      if (missing?.probeAt !== undefined) return missing.error
    }
    return undefined
  }

  /**
   * In how many ms all of these places will have been looked at again, where an answer takes so long at most; undefined if they
   * are still asked. Never less than the first pause: where a probe is about to be answered, others are still to hear of it.
   */
  probedInMs(places: readonly string[], answerMs: number): number | undefined {
    const due = places.flatMap((place) => this.#missing.get(place)?.probeAt ?? [])
    return due.length === 0 ? undefined : Math.max(firstPauseMs, Math.max(...due) + answerMs - performance.now())
  }

  /** Whether each of these places has answered since, by `performance.now()`. */
  haveAnswered(places: readonly string[], since: number): boolean {
    return places.every((place) => (this.#heard.get(place) ?? -Infinity) >= since)
  }

  answered(places: readonly string[]): void {
    this.#hear(places)
    if (this.#missing.size === 0) return
    for (const place of places) if (this.#missing.get(place)?.isForbidden !== true) this.#close(place)
  }

  /**
   * @param partition one whose counters are at that place
   * @param isCertain it need not be missed again to be given up: what is owed to it is delivered after a probe
   */
  missed(place: string, partition: string, error: RampmeterError, isCertain = false): void {
    if (this.#users.size === 0) return
    let missing = this.#missing.get(place)
    if (missing === undefined) {
      const opened = { isForbidden: false, probeAt: undefined, timer: undefined }
      missing = { misses: 0, error, partition, pauseMs: firstPauseMs, ...opened }
      this.#missing.set(place, missing)
    }
    missing.misses += 1
    missing.error = error
    if (isNotPermitted(error)) missing.isForbidden = isCertain = true
    if ((isCertain || missing.misses >= missesUntilOpen) && missing.probeAt === undefined)
      this.#awaitProbe(place, missing)
  }

  #hear(places: readonly string[]): void {
    this.#heardAt = performance.now()
    // Masters of a cluster come and go.
    if (this.#heard.size > mostHeard) this.#heard.clear()
    for (const place of places) this.#heard.set(place, this.#heardAt)
  }

  #close(place: string): void {
    const missing = this.#missing.get(place)
    if (missing === undefined) return
    clearTimeout(missing.timer)
    this.#missing.delete(place)
    if (this.#missing.size > 0) return
    for (const user of this.#users) user.onBack()
  }

  #awaitProbe(place: string, missing: Place): void {
    // Many processes lose one server at once, and need not look for it at once.
    const pauseMs = missing.pauseMs * (0.9 + Math.random() / 5)
    missing.pauseMs = Math.min(missing.pauseMs * 2, longestPauseMs)
    missing.probeAt = performance.now() + pauseMs
    missing.timer = setTimeout(() => void this.#probe(place, missing), pauseMs)
    missing.timer.unref()
  }

  async #probe(place: string, missing: Place): Promise<void> {
    const [user] = this.#users
    const error = await user?.probe(missing.partition, missing.isForbidden)
    if (this.#missing.get(place) !== missing || this.#users.size === 0) return
    if (error === undefined) {
      this.#hear([place])
      return this.#close(place)
    }
    if (isNotPermitted(error)) missing.isForbidden = true
    missing.error = error
    this.#awaitProbe(place, missing)
  }
}

/** The place of a store that fails as a whole. */
export const wholeStore = ''

const ofStores = new WeakMap<Store, Breakers>()

/** Those of a store, whichever limiter asks. */
export function breakersOf(store: Store): Breakers {
  let breakers = ofStores.get(store)
  if (breakers === undefined) {
    breakers = new Breakers()
    ofStores.set(store, breakers)
  }
  return breakers
}
