import {
  createHistogram,
  monitorEventLoopDelay,
  type IntervalHistogram,
  type RecordableHistogram,
} from 'node:perf_hooks'

/** How the app is. Null: nothing is known, since too few were answered or nothing was measured yet. */
export interface Health {
  /** The 99th percentile of the time from admission to response headers, in ms. What is in flight counts by its age where that is more. */
  readonly p99Ms: number | null
  /** The share of answers that are 5xx, from 0 to 1. */
  readonly errorRate: number | null
  /** How much of one core the process used in the last period, from 0 to 1. */
  readonly cpu: number | null
  /**
   * How late the event loop is, in ms: in nine of ten looks it is less. Of the last two periods the better one, so that
   * a single pause is none.
   */
  readonly eventLoopMs: number | null
}

/** What is known of an app that has answered too little to decide anything by: not enough for a verdict, and enough to doubt. */
export interface Hint {
  /** The longest that one took, or is taking, in ms. */
  readonly slowestMs: number
  readonly errorRate: number
}

/** Latency and errors are those of so many periods. */
const periods = 5

/** Fewer answers decide nothing. */
const leastAnswers = 20

/** How often the event loop's delay is looked at, in ms. */
const resolutionMs = 20

/** The longest that is told apart, in µs: an hour. */
const longestUs = 3_600_000_000

/** What was answered in one period. */
interface Period {
  readonly latencies: RecordableHistogram
  answers: number
  errors: number
}

/**
 * Measures how the app is, in fixed memory: latencies go into Node's own HdrHistogram (two significant figures), one for each
 * period.
 */
export class HealthMeter {
  readonly #periods: Period[] = []
  readonly #merged = newHistogram()
  readonly #delay: IntervalHistogram = monitorEventLoopDelay({ resolution: resolutionMs })
  #current = 0
  #lastDelay: number | null = null
  #cpu = process.cpuUsage()
  #since = performance.now()

  constructor() {
    for (let index = 0; index < periods; index += 1) {
      this.#periods.push({ latencies: newHistogram(), answers: 0, errors: 0 })
    }
    this.#delay.enable()
  }

  /**
   * Counts an answer; 4xx are the client's.
   *
   * @param latencyMs undefined where the time says nothing of the app: it waited for the client
   * @param status undefined where the client has gone before
   */
  count(latencyMs: number | undefined, status: number | undefined): void {
    if (status !== undefined && status >= 400 && status < 500) return
    const period = this.#periods[this.#current]!
    if (latencyMs !== undefined) period.latencies.record(asUs(latencyMs))
    period.answers += 1
    if (status !== undefined && status >= 500) period.errors += 1
  }

  /**
   * Ends a period: how it was lately.
   *
   * @param ages for how long what is in flight has been at work, in ms: an app that hangs answers nothing
   */
  take(ages: Iterable<number> = []): { readonly health: Health; readonly hint: Hint | undefined } {
    let [answers, errors, timed] = [0, 0, 0]
    this.#merged.reset()
    for (const period of this.#periods) {
      answers += period.answers
      errors += period.errors
      timed += period.latencies.count
      if (period.latencies.count > 0) this.#merged.add(period.latencies)
    }
    const answeredMs = timed === 0 ? 0 : this.#merged.percentile(99) / 1000
    for (const age of ages) {
      // What is younger may still become quick or slow.
      if (age <= answeredMs) continue
      this.#merged.record(asUs(age))
      timed += 1
    }
    const health = {
      p99Ms: timed >= leastAnswers ? this.#merged.percentile(99) / 1000 : null,
      errorRate: answers >= leastAnswers ? errors / answers : null,
      eventLoopMs: this.#takeDelay(),
      cpu: this.#takeCpu(),
    }
    const isHint = answers + timed > 0 && (health.p99Ms === null || health.errorRate === null)
    const hint = { slowestMs: timed === 0 ? 0 : this.#merged.max / 1000, errorRate: errors / Math.max(1, answers) }
    this.#current = (this.#current + 1) % periods
    const next = this.#periods[this.#current]!
    next.latencies.reset()
    next.answers = 0
    next.errors = 0
    return { health, hint: isHint ? hint : undefined }
  }

  stop(): void {
    this.#delay.disable()
  }

  #takeCpu(): number {
    const now = performance.now()
    const { user, system } = process.cpuUsage(this.#cpu)
    const share = (user + system) / 1000 / Math.max(1, now - this.#since)
    this.#cpu = process.cpuUsage()
    this.#since = now
    return Math.min(1, share)
  }

  /** What Node measures includes the time between two looks, and begins with the second after a reset. */
  #takeDelay(): number | null {
    const { count } = this.#delay
    // Where there were not even two looks, it was late for the half of the period at least.
    const betweenMs = count === 0 ? (performance.now() - this.#since) / 2 : this.#delay.percentile(90) / 1e6
    const delay = Math.max(0, betweenMs - resolutionMs)
    this.#delay.reset()
    const before = this.#lastDelay
    this.#lastDelay = delay
    return before === null ? null : Math.min(delay, before)
  }
}

function asUs(ms: number): number {
  return Math.min(longestUs, Math.max(1, Math.round(ms * 1000)))
}

function newHistogram(): RecordableHistogram {
  return createHistogram({ lowest: 1, highest: longestUs, figures: 2 })
}
