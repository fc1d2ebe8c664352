import type { IncomingMessage, ServerResponse } from 'node:http'
import onHeaders from 'on-headers'
import { warn } from '../errors.ts'
import type { TierAdaptivity } from '../tier.ts'
import type { Adaptive } from './adaptive.ts'
import { CriticalRoutes } from './critical-routes.ts'
import { ConcurrencyLimit, shareOfRank } from './gradient.ts'
import { HealthMeter, type Health } from './health.ts'
import { LevelControl } from './level-control.ts'
import type { Cause, LevelName } from './levels.ts'
import { Sampler } from './sample.ts'
import { SharedLevel, within, type Post } from './shared-level.ts'
import { Waits } from './waits.ts'

/** How an adaptive limiter is. */
export interface AdaptiveHealth extends Health {
  /** What quotas are multiplied by, in all processes, before a tier's own weight. */
  readonly multiplier: number
  readonly level: LevelName
  /** Why it is in trouble, or why another process is whose level it shares; null while it is not. */
  readonly cause: Cause | null
  /** What this process is in by itself. Where that is better than `level`, another process is worse off, or was just now. */
  readonly ownLevel: LevelName
  /** Which of the measurements are those of `sample`. */
  readonly sampled: readonly (keyof Health)[]
  /** How many requests this process lets in flight; null without a controller. */
  readonly limit: number | null
  /** How many are in flight here: admitted, and their response headers not sent yet. */
  readonly inFlight: number
}

/** A change of level. */
interface LevelChange {
  readonly from: LevelName
  readonly to: LevelName
  readonly multiplier: number
  readonly cause: Cause | null
  readonly shared: boolean
  readonly health: AdaptiveHealth
}

/** What of a tier matters here. */
interface AdaptiveTier {
  readonly priority: number
  readonly adaptive: Required<TierAdaptivity>
}

/** What of a client matters here. */
interface AdaptiveClient {
  readonly id: string
  readonly tier: string
}

export interface AdaptivityOptions {
  readonly settings: Adaptive
  readonly tiers: Readonly<Record<string, AdaptiveTier>>
  readonly post: Post | undefined
  /** Resolves when the store is there. */
  readonly ready: () => Promise<unknown>
  readonly onLevel: (change: LevelChange) => void
}

/** A request's place among those in flight. */
export interface Place {
  /**
   * Follows the response: the place is given back when its headers leave or its client has gone, and how long that took is learned.
   *
   * @param whenClosed does something once when the response has ended or its client has gone, also while it is queued behind
   * another on its connection
   */
  follow(req: IncomingMessage, res: ServerResponse, whenClosed: (act: () => void) => void): void
  /** Gives the place back: the request went no further. */
  leave(): void
}

/** A request in flight. */
interface AtWork {
  /** Since when it is at work; undefined until it is admitted, and while its client is still sending what is being read. */
  beganAt: number | undefined
  /** What its client is still sending, and since when it is read. */
  upload?: { readonly req: IncomingMessage; readonly sinceMs: number }
  /** Whether it counts in the limit, and as one of those beyond it. */
  isPlaced: boolean
  isBeyond: boolean
}

/** Who takes longer to send a body that is being read, in ms, keeps no place that others need until it is there. */
const slowUploadMs = 2000

/** How often those are looked for, in ms, while there is no place. */
const makeWayMs = 100

/** At the last level the lowest priority is cut to this part of what the highest is cut to. */
const lowestPart = 0.5

/** The longest that `stop` waits for the store, in ms. */
const leaveWithinMs = 1000

const unmoved = { multiplier: 1, level: 'normal', cause: undefined, ownLevel: 'normal' } as const
const unknown: Health = { p99Ms: null, errorRate: null, cpu: null, eventLoopMs: null }

/** What makes a limiter's quotas follow the load. */
export class Adaptivity {
  readonly criticalRoutes: CriticalRoutes = new CriticalRoutes()
  readonly #options: AdaptivityOptions
  readonly #meter = new HealthMeter()
  readonly #level: SharedLevel
  readonly #limit: ConcurrencyLimit | undefined
  /** Where each tier stands among the priorities: from 0, the lowest, to 1. */
  readonly #ranks: ReadonlyMap<string, number>
  readonly #timer: NodeJS.Timeout
  #multipliers: ReadonlyMap<string, number> | undefined
  readonly #waits = new Waits()
  readonly #atWork = new Set<AtWork>()
  #madeWayAt = 0
  readonly #sampler: Sampler | undefined
  #health = unknown
  #sampled: readonly (keyof Health)[] = []
  #told: LevelName = 'normal'
  #isAtWork = false
  #isStopped = false
  readonly #warned = new Set<string>()

  constructor(options: AdaptivityOptions) {
    this.#options = options
    const { settings, tiers, post } = options
    const { sample, everyMs } = settings
    this.#sampler = sample && new Sampler(sample, everyMs, (what) => this.#warnOfSample(what))
    this.#level = new SharedLevel(settings.levels, settings.everyMs, post)
    this.#limit =
      settings.controller === false ? undefined : new ConcurrencyLimit(settings.controller, performance.now())
    const priorities = [...new Set(Object.values(tiers).map(({ priority }) => priority))].sort((a, b) => a - b)
    this.#ranks = new Map(
      Object.entries(tiers).map(([name, { priority }]) => [
        name,
        priorities.length === 1 ? 1 : priorities.indexOf(priority) / (priorities.length - 1),
      ]),
    )
    this.#timer = setInterval(() => void this.tick(), settings.everyMs)
    this.#timer.unref()
    // Whoever starts while the others are stressed gives no more than they do.
    void this.#join()
  }

  /** After the end quotas are what they say, and nothing is measured. */
  get health(): AdaptiveHealth {
    const { multiplier, level, cause = null, ownLevel } = this.#isStopped ? unmoved : this.#level
    return {
      ...this.#health,
      sampled: this.#sampled,
      multiplier,
      level,
      cause,
      ownLevel,
      limit: this.#limit?.limit ?? null,
      inFlight: this.#atWork.size,
    }
  }

  /** How long a cut lasts at most once the app is well, in ms. */
  get cutLastsMs(): number {
    return LevelControl.longestRecovery * this.#options.settings.everyMs
  }

  /** What a tier's quotas are multiplied by now; on a critical route they are not cut. */
  multiplierOf(tier: string, critical: boolean): number {
    const multiplier = this.#multipliers?.get(tier) ?? 1
    return critical ? Math.max(1, multiplier) : multiplier
  }

  /**
   * Takes a place among those in flight; where there is none for such a request, it does not fit.
   *
   * @param enforced false takes one all the same
   */
  enter(
    { tier, id }: AdaptiveClient,
    critical: boolean,
    enforced: boolean,
  ): { readonly fits: boolean; readonly place?: Place } {
    const limit = this.#limit
    if (limit === undefined) return { fits: true, place: this.#place(false) }
    const now = performance.now()
    const isBack = this.#waits.isBack(id, now)
    const share = shareOfRank(this.#ranks.get(tier) ?? 0, isBack)
    if (limit.isFull(share)) this.#makeWay(limit, now)
    const within = limit.enter(share, now)
    const beyond = !within && critical && limit.enterBeyond()
    const fits = within || beyond
    this.#waits.note(tier, isBack, fits, now)
    if (!fits && enforced) return { fits }
    if (!fits) limit.add()
    return { fits, place: this.#place(beyond) }
  }

  /** When a client that found no place may come again, in ms. */
  retryMs({ tier, id }: AdaptiveClient): number {
    return this.#waits.tell(tier, id, performance.now())
  }

  /** Ends a period. Never rejects. */
  async tick(): Promise<void> {
    // A period may end while the store, or the app's own sample, is still being waited for.
    if (this.#isAtWork || this.#isStopped) return
    this.#isAtWork = true
    const { health, hint } = this.#meter.take(agesOf(this.#atWork, performance.now()))
    const own = (await this.#sampler?.take()) ?? {}
    if (this.#isStopped) return
    this.#health = { ...health, ...own }
    this.#sampled = Object.keys(own) as (keyof Health)[]
    await this.#level.step(this.#health, hint)
    this.#isAtWork = false
    if (!this.#isStopped) this.#apply()
  }

  /** Follows the others as soon as the store is there, before the first period is over. */
  async #join(): Promise<void> {
    try {
      await this.#options.ready()
    } catch {
      // Closed before it was.
      return
    }
    if (this.#isStopped) return
    await this.#level.join()
    if (!this.#isStopped) this.#apply()
  }

  /** Ends the timer, and tells the other processes that this one says nothing any more. */
  async stop(): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    this.#multipliers = undefined
    this.#health = unknown
    this.#sampled = []
    clearInterval(this.#timer)
    this.#meter.stop()
    await within(leaveWithinMs, this.#level.leave())
  }

  /** Takes the places of those whose clients have been sending for long: nobody works for them yet. */
  #makeWay(limit: ConcurrencyLimit, now: number): void {
    if (now - this.#madeWayAt < makeWayMs) return
    this.#madeWayAt = now
    for (const one of this.#atWork) {
      if (!one.isPlaced || one.upload === undefined) continue
      const { req, sinceMs } = one.upload
      if (now - sinceMs < slowUploadMs || req.complete) continue
      one.isPlaced = false
      limit.leave(now, one.isBeyond)
    }
  }

  #place(isBeyond: boolean): Place {
    const one: AtWork = { beganAt: undefined, isPlaced: true, isBeyond }
    this.#atWork.add(one)
    const end = (): boolean => {
      if (!this.#atWork.delete(one)) return false
      if (one.isPlaced) this.#limit?.leave(performance.now(), one.isBeyond)
      return true
    }
    /** For how long it was at work before its body was read. */
    let beforeMs = 0
    const read = (req: IncomingMessage): void => {
      if (req.complete || !this.#atWork.has(one)) return
      // How long a client takes to send its body is its own affair; until somebody reads it, the app is waited for.
      const now = performance.now()
      beforeMs = now - one.beganAt!
      one.beganAt = undefined
      one.upload = { req, sinceMs: now }
    }
    const sent = (): void => {
      if (one.upload !== undefined) one.beganAt = performance.now() - beforeMs
      delete one.upload
      if (one.isPlaced || !this.#atWork.has(one)) return
      one.isPlaced = true
      one.isBeyond = false
      this.#limit?.add()
    }
    const answered = (status: number | undefined): void => {
      if (!end()) return
      const now = performance.now()
      const tookMs = one.beganAt === undefined ? undefined : now - one.beganAt
      // Whoever goes before having sent the request has waited for nothing of ours.
      if (status === undefined && tookMs === undefined) return
      this.#meter.count(tookMs, status)
      // What the client got wrong takes no time, and says nothing of how fast the app is.
      const isTelling = status === undefined || status < 400 || status >= 500
      if (isTelling && tookMs !== undefined) this.#limit?.sample(tookMs, now, status !== undefined)
    }
    return {
      leave: () => void end(),
      follow(req, res, whenClosed) {
        if (res.headersSent || res.closed || isUpgrade(req)) {
          end()
          return
        }
        // How long the store takes to decide, and a provider to be paid, says nothing of the app.
        one.beganAt = performance.now()
        if (!req.complete) {
          whenRead(req, () => read(req))
          req.once('end', sent)
        }
        onHeaders(res, () => answered(res.statusCode))
        whenClosed(() => answered(undefined))
      },
    }
  }

  #apply(): void {
    const { multiplier, level } = this.#level
    this.#multipliers = multiplier === 1 ? undefined : this.#multipliersAt(multiplier, level)
    if (level === this.#told) return
    const from = this.#told
    this.#told = level
    const { health } = this
    const shared = level !== health.ownLevel
    this.#options.onLevel({ from, to: level, multiplier, cause: health.cause, shared, health })
  }

  /** At the last level, whole tiers are cut deeper, the lower the more. */
  #multipliersAt(multiplier: number, level: LevelName): Map<string, number> {
    return new Map(
      Object.entries(this.#options.tiers).map(([name, { adaptive }]) => {
        const part = level === 'stressed' ? lowestPart + (1 - lowestPart) * this.#ranks.get(name)! : 1
        const moved = 1 + (multiplier * part - 1) * adaptive.weight
        return [name, Math.min(adaptive.ceiling, Math.max(adaptive.floor, 0, moved))]
      }),
    )
  }

  #warnOfSample(what: string): void {
    if (this.#warned.has(what)) return
    // What it answers wrong may be different each time.
    if (this.#warned.size >= 8) return
    this.#warned.add(what)
    warn('RAMPMETER_SAMPLE_FAILED', `adaptive: \`sample\` ${what}; what was measured here counts instead`)
  }
}

/**
 * Whether it was given to the server's own 'upgrade': a WebSocket, which has no response and lasts. Node says so; what the client
 * asks for in its header fields does not count.
 */
function isUpgrade(req: IncomingMessage): boolean {
  return (req as { upgrade?: boolean | null }).upgrade === true
}

/** Does something once, when somebody begins to read a body. */
function whenRead(req: IncomingMessage, act: () => void): void {
  if (req.readableFlowing !== null) {
    act()
    return
  }
  const added = (event: string | symbol): void => {
    if (event === 'data' || event === 'readable') begun()
  }
  // `resume()` reads without listening.
  const begun = (): void => {
    req.off('newListener', added)
    req.off('resume', begun)
    act()
  }
  req.once('resume', begun)
  req.on('newListener', added)
}

function* agesOf(atWork: Iterable<AtWork>, now: number): Iterable<number> {
  for (const { beganAt } of atWork) if (beganAt !== undefined) yield now - beganAt
}
