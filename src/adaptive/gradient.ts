import * as z from 'zod'
import { readOptions } from '../read-options.ts'

export interface GradientOptions {
  /** The least that it lets in flight, however slow the app is. Default 4. */
  least?: number
  /** The most, however fast. Default 1000. */
  most?: number
  /** Where it begins, and where it goes back to when the app is idle: how large a burst an idle app is given. Default 200, or the nearest that is allowed. */
  initial?: number
  /** How much slower than at its best the app may be before less is let in, as a fraction. Default 0.25. */
  tolerance?: number
}

/** What `gradient()` makes: settings for the limit of each process. */
export interface GradientController {
  readonly least: number
  readonly most: number
  readonly initial: number
  readonly tolerance: number
}

const defaultInitial = 200

const optionsSchema = z
  .strictObject({
    least: z.int().min(1).max(100_000).default(4),
    most: z.int().min(1).max(100_000).default(1000),
    initial: z.int().min(1).max(100_000).optional(),
    tolerance: z.number().min(0.01).max(10).default(0.25),
  })
  .refine(({ least, most }) => least <= most, {
    error: 'no more than `most`; they are 4 and 1000 unless you say otherwise',
    path: ['least'],
  })
  .refine(({ initial, least, most }) => initial === undefined || (least <= initial && initial <= most), {
    error: 'from `least` to `most`, which are 4 and 1000 unless you say otherwise',
    path: ['initial'],
  })

/**
 * Limits how many requests a process has in flight, by how much slower than at its best it answers them: it protects the app
 * within a fraction of a second, which no quota can.
 *
 * After Envoy's adaptive concurrency (`gradient = (1 + tolerance) × least latency / sampled median`, then
 * `limit = gradient × limit + √limit`) and Netflix's Gradient2 (no change while less than half of the limit is in use,
 * and only a part of the way at once). In place of Envoy's probing, the least latency is the least median of the last
 * half minute in which the app was not full, or the limit at its least; and where a cut has cost the app more than half of
 * what it answered, while answers stayed slow, what they take now (Little's law: a queue that is cut shorter costs nothing).
 * Unlike both, it begins high and goes back there when
 * the app is idle: a burst that an idle app is given is no overload, and a queue that stays is noticed within a second.
 *
 * @see [Envoy: adaptive concurrency](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/adaptive_concurrency_filter)
 * @see [Netflix concurrency-limits: Gradient2Limit](https://github.com/Netflix/concurrency-limits)
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function gradient(options: GradientOptions = {}): GradientController {
  const { least, most, initial = defaultInitial, tolerance } = readOptions(optionsSchema, options, 'gradient')
  return Object.freeze({ least, most, initial: Math.min(most, Math.max(least, initial)), tolerance })
}

/** A sample takes this long at least, in ms, and has this many answers at least, or as many as the limit where that is less. */
const sampleMs = 100
const leastSampled = 10

/** Answers are counted over so long at least, in ms. */
const rateMs = 1000

/** How many a second there were before a cut is forgotten after this time, in ms. */
const rateMemoryMs = 30_000

/** A limit cut to this part, of an app that then answers less than this part of what it did: it has lost work, not a queue. */
const starvedPart = 0.5

/** An app whose median has become so many times longer is another one. */
const otherBy = 2

const nothingAnswered = { perMs: 0, median: 0, at: 0, limit: 0 }

/** Of a longer sample the newest count. */
const mostSampled = 200

/** How long a least latency is believed, in ms, kept as the least of as many parts. */
const memoryMs = 30_000
const memoryParts = 6

/** The limit goes this part of the way to where it should be. */
const smoothing = 0.5

/** One sample halves it at most. */
const leastGradient = 0.5

/** A wait this much longer, in ms, is a burst that takes its turn in the event loop. */
const jitterMs = 20

/** An idle app's limit goes back to where it began, most of the way in this time, in ms. */
const recoveryMs = 2000

/** Nothing in flight for so long, in ms, is an idle app. */
const idleAfterMs = 100

/** How much of the limit a tier of the lowest and of the highest priority may fill; the rest is for critical routes. */
const lowestShare = 0.6
const highestShare = 0.95

/** What critical requests may take of it beyond what is their tier's: strangers' must not keep the best tier out. */
const criticalPart = 0.2

/** Who comes back as told may fill this part of what its tier leaves to others. */
const backPart = 0.4

/**
 * Says for a tier how much of the limit its requests may fill, by its rank among priorities: 0 the lowest, 1 the highest.
 *
 * @param isBack it was refused, and has waited as told
 */
export function shareOfRank(rank: number, isBack = false): number {
  const share = lowestShare + (highestShare - lowestShare) * rank
  return isBack ? share + (1 - share) * backPart : share
}

/** The requests in flight of one process, and how many there may be. */
export class ConcurrencyLimit {
  readonly #settings: GradientController
  #limit: number
  #inFlight = 0
  /** The most in flight since the sample began, and whether there was no place for somebody. */
  #peak = 0
  #hasRefused = false
  /** Since when nothing is in flight, while that is so. */
  #emptySince: number
  #began: number
  /** How many critical requests are in flight beyond what is their tier's. */
  #beyond = 0
  /** How many were answered since, for how many a second that is. */
  #answered = 0
  #countedSince: number
  /** The most in a ms while answers were slow, with their median and the limit of then. */
  #fastest = { ...nothingAnswered }
  readonly #latencies = new Float64Array(mostSampled)
  #count = 0
  /** The least medians, newest part first, and when the newest began. */
  readonly #leasts: number[] = []
  #partBegan: number

  /** @param now in ms */
  constructor(settings: GradientController, now: number) {
    this.#settings = settings
    this.#limit = settings.initial
    this.#began = now
    this.#partBegan = now
    this.#emptySince = now
    this.#countedSince = now
  }

  get limit(): number {
    return Math.floor(this.#limit)
  }

  get inFlight(): number {
    return this.#inFlight
  }

  /**
   * Takes a place, if there is one.
   *
   * @param share how much of the limit such a request may fill
   * @param now in ms
   */
  enter(share: number, now: number): boolean {
    if (this.#inFlight === 0 && now - this.#emptySince >= idleAfterMs) {
      this.#recover(now - this.#emptySince)
      this.#emptySince = now
    }
    if (this.isFull(share)) {
      this.#hasRefused = true
      return false
    }
    this.add()
    return true
  }

  isFull(share: number): boolean {
    return this.#inFlight >= Math.max(1, Math.floor(this.limit * share))
  }

  /** Takes one of those for critical requests that their tier has no place for. */
  enterBeyond(): boolean {
    const most = Math.max(1, Math.floor(this.limit * criticalPart))
    if (this.#inFlight >= this.limit || this.#beyond >= most) return false
    this.#beyond += 1
    this.add()
    return true
  }

  /** Takes a place whether there is one or not. */
  add(): void {
    this.#inFlight += 1
    this.#peak = Math.max(this.#peak, this.#inFlight)
  }

  /** Gives the place back; one for critical requests where it was. */
  leave(now: number, beyond = false): void {
    this.#inFlight -= 1
    if (beyond) this.#beyond -= 1
    if (this.#inFlight === 0) this.#emptySince = now
  }

  /**
   * Learns how long an answer took.
   *
   * @param isWhole false where its client went before it was there: then it would have taken longer, which says nothing where
   * it is less than the app takes at best
   */
  sample(latencyMs: number, now: number, isWhole = true): void {
    if (!isWhole && latencyMs < Math.min(...this.#leasts)) return
    this.#latencies[this.#count % mostSampled] = latencyMs
    this.#count += 1
    this.#answered += 1
    if (now - this.#began < sampleMs || this.#count < Math.min(leastSampled, this.limit)) return
    this.#update(this.#median(), now)
    this.#count = 0
    this.#began = now
    this.#peak = this.#inFlight
    this.#hasRefused = false
  }

  #median(): number {
    const sorted = this.#latencies.slice(0, Math.min(this.#count, mostSampled)).sort()
    return sorted[Math.floor(sorted.length / 2)]!
  }

  #update(median: number, now: number): void {
    const { least, most, tolerance } = this.#settings
    const isFull = this.#hasRefused || this.#peak > this.#limit / 2
    const best = this.#bestWith(median, !isFull || this.limit <= least, now)
    const quick = best * (1 + tolerance) + jitterMs
    if (!isFull) {
      // What was learned of an overload is no longer true when it is over.
      if (median <= quick) this.#recover(now - this.#began)
      return
    }
    if (median > quick && this.#isStarved(median, now)) {
      this.#relearn(median, now)
      return
    }
    const gradient = Math.max(leastGradient, Math.min(1, quick / median))
    const wanted = gradient * this.#limit + Math.sqrt(this.#limit)
    const next = this.#limit + (wanted - this.#limit) * smoothing
    this.#limit = Math.min(most, Math.max(least, next))
  }

  /** Whether a cut has cost a slow app what it can do. */
  #isStarved(median: number, now: number): boolean {
    const forMs = now - this.#countedSince
    if (forMs < rateMs) return false
    const perMs = this.#answered / forMs
    this.#answered = 0
    this.#countedSince = now
    // Slower by so much, or after so long, it is another app: what it did before says nothing of what it can do now.
    const isAnother = median > this.#fastest.median * otherBy || now - this.#fastest.at > rateMemoryMs
    if (isAnother) {
      // In part these answers are still those of before.
      this.#fastest = { perMs: 0, median, at: now, limit: this.#limit }
      return false
    }
    if (perMs >= this.#fastest.perMs) this.#fastest = { perMs, median, at: now, limit: this.#limit }
    return perMs < this.#fastest.perMs * starvedPart && this.#limit <= this.#fastest.limit * starvedPart
  }

  /** Takes how slow the app is for its best, and lets as many in as it answered before the cut (Little's law). */
  #relearn(median: number, now: number): void {
    const { least, most } = this.#settings
    this.#leasts.length = 0
    this.#bestWith(median, true, now)
    this.#partBegan = now
    this.#limit = Math.min(most, Math.max(least, this.#limit, this.#fastest.perMs * median))
    this.#fastest = { ...nothingAnswered }
  }

  /** Goes back up towards where it began. */
  #recover(forMs: number): void {
    const { initial } = this.#settings
    if (this.#limit < initial) this.#limit += (initial - this.#limit) * (1 - Math.exp(-forMs / recoveryMs))
  }

  /**
   * The least latency lately seen. What a full app shows may only lower it: under a load that lasts, how slow it has become would
   * otherwise pass for how fast it can be.
   */
  #bestWith(median: number, isTelling: boolean, now: number): number {
    if (this.#leasts.length === 0) this.#leasts.push(median)
    if (isTelling && now - this.#partBegan >= memoryMs / memoryParts) {
      this.#partBegan = now
      this.#leasts.unshift(median)
      this.#leasts.length = Math.min(this.#leasts.length, memoryParts)
    }
    if (isTelling || median < Math.min(...this.#leasts)) this.#leasts[0] = Math.min(this.#leasts[0]!, median)
    return Math.min(...this.#leasts)
  }
}
