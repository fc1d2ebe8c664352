// One schedule for all calls to an origin: who starts when, by what its answers told. It is the client's half of a promise:
// a server that spreads a crowd helps only those who come when they were told.

import { onAbort } from './abort.ts'
import { BoundedMap } from './bounded-map.ts'
import {
  hear,
  hearNothing,
  hearRefusal,
  leftOf,
  openLimit,
  returnOf,
  start,
  turnOf,
  type Limit,
  type Turn,
} from './limit.ts'
import type { WaitReason } from './options.ts'
import type { Runtime } from './runtime.ts'
import type { ToldLimit, ToldWait } from './told.ts'

/** Who asks for what: limits are guessed from what this caller was told on this route. */
export interface Place {
  readonly caller: string
  readonly route: string
}

/** The time a refused request was told. */
export interface Due {
  /** The earliest start, on the schedule's clock. */
  readonly at: number
  readonly reason: 'refused' | 'backoff'
  /** With a ticket the slot is reserved: nothing holds it back. */
  readonly reserved: boolean
  /** The limits that applied where it was refused. */
  readonly limits: readonly Limit[]
}

/** What came back. */
export interface Answer {
  readonly limits: readonly ToldLimit[]
  readonly refusal: ToldWait | null
}

/** A request that has started. */
export interface Started {
  /** Its answer has come. Returns the limits that apply to it, for {@link Due}. */
  answered(answer: Answer): readonly Limit[]
  /** There will be no answer, or none that says anything. */
  ended(): void
}

/** How many start before anything is known of a server, and how long the others wait for the first answer. */
const unknownAtOnce = 10
const unknownMs = 250

const mostLimits = 256
const mostRoutes = 512
const mostCallers = 64

interface Waiter {
  readonly place: Place
  readonly due: Due | null
  /** When it starts whatever is believed: the longest wait that its owner accepts. */
  readonly deadline: number
  readonly go: (started: Started) => void
}

export class Schedule {
  readonly #runtime: Runtime
  readonly #maxWaitMs: number
  readonly #limits = new BoundedMap<Limit>(mostLimits)
  /** Which limits a route's last answer told, by caller; and those that all routes of a caller have in common. */
  readonly #routes = new BoundedMap<readonly string[]>(mostRoutes)
  readonly #callers = new BoundedMap<readonly string[]>(mostCallers)
  /** Those who were told a time, by that time. */
  readonly #refused: Waiter[] = []
  /** The others, by route in the order they came; the route that was served last stands last. */
  readonly #waiting = new Map<string, Set<Waiter>>()
  #timer: unknown
  #heard = false
  #firstStart = Infinity
  #underWay = 0

  constructor(runtime: Runtime, maxWaitMs: number) {
    this.#runtime = runtime
    this.#maxWaitMs = maxWaitMs
  }

  /**
   * Resolves when the request may start.
   *
   * @param report called once, if there is a wait
   * @throws what the signal was aborted with, at once when it is
   */
  admit(
    place: Place,
    due: Due | null,
    signal: AbortSignal | undefined,
    report: (ms: number, reason: WaitReason) => void,
  ): Promise<Started> | Started {
    signal?.throwIfAborted()
    const now = this.#runtime.now()
    if (due === null && !this.#waiting.has(keyOf(place))) {
      const turn = this.#turnOf(place, now)
      if (turn.at <= now || isTooFar(turn.at, now + this.#maxWaitMs)) return this.#start(place, now)
    }
    report(...this.#estimate(place, due, now))
    signal?.throwIfAborted()
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        place,
        due,
        deadline: now + this.#maxWaitMs,
        go(started) {
          ignore?.()
          resolve(started)
        },
      }
      const ignore =
        signal &&
        onAbort(signal, () => {
          ignore?.()
          this.#remove(waiter)
          reject(signal.reason as Error)
          this.#proceed()
        })
      this.#add(waiter)
      this.#proceed()
    })
  }

  #turnOf(place: Place, now: number): Turn {
    if (!this.#heard && this.#underWay >= unknownAtOnce) {
      return { at: this.#firstStart + unknownMs, reason: 'first-answer', gapMs: 0 }
    }
    const limits = this.#limitsOf(place)
    const extra = limits.find(({ name }) => name === 'first-minutes')
    const lifted = extra !== undefined && leftOf(extra, now) > 0
    let latest: Turn = { at: now, reason: 'pace', gapMs: 0 }
    for (const limit of limits) {
      // The extra of the first minutes stands in for what counts requests and is used up.
      if (lifted && limit.counted) continue
      const turn = turnOf(limit, now)
      if (turn.at > latest.at) latest = turn
    }
    return latest
  }

  #returnOf({ limits, reserved }: Due, now: number): number {
    if (reserved) return now
    let latest = now
    for (const limit of limits) latest = Math.max(latest, returnOf(limit, now).at)
    return latest
  }

  #limitsOf(place: Place): Limit[] {
    const keys = this.#routes.get(keyOf(place)) ?? this.#callers.get(place.caller) ?? []
    return keys.map((key) => this.#limits.get(key)).filter((limit) => limit !== undefined)
  }

  #start(place: Place, now: number, due: Due | null = null): Started {
    const limits = due?.limits ?? this.#limitsOf(place)
    for (const limit of limits) start(limit, now)
    this.#underWay += 1
    this.#firstStart = Math.min(this.#firstStart, now)
    let open = true
    const end = (): boolean => {
      if (!open) return false
      open = false
      this.#underWay -= 1
      for (const limit of limits) limit.underWay -= 1
      return true
    }
    return {
      answered: (answer) => {
        end()
        this.#heard = true
        const told = this.#hear(place, answer, now)
        // Not before whoever was refused has taken its place again.
        queueMicrotask(() => this.#proceed())
        return told
      },
      ended: () => {
        if (end()) this.#proceed()
      },
    }
  }

  #hear(place: Place, { limits: told, refusal }: Answer, sentAt: number): readonly Limit[] {
    const now = this.#runtime.now()
    const key = keyOf(place)
    if (told.length > 0) {
      const refusedMs = refusal?.exact === true ? refusal.ms : null
      const full = refusal !== null && told.every((one) => one.available > 0 || one.effectiveMs === null)
      const keys: string[] = []
      for (const one of told) {
        const limitKey = `${one.name}\n${one.partition === null ? `c${place.caller}` : `p${one.partition}`}`
        keys.push(limitKey)
        hear(this.#open(limitKey, one.name), one, sentAt, now, refusedMs, full)
      }
      this.#routes.set(key, keys)
      const common = this.#callers.get(place.caller)?.filter((one) => keys.includes(one)) ?? []
      this.#callers.set(place.caller, common.length > 0 ? common : keys)
    } else if (refusal !== null) {
      const limitKey = `\n${key}`
      hearRefusal(this.#open(limitKey, ''), refusal, sentAt, now)
      this.#routes.set(key, [limitKey])
    } else {
      for (const limit of this.#limitsOf(place)) hearNothing(limit, sentAt, now)
    }
    return this.#limitsOf(place)
  }

  #open(key: string, name: string): Limit {
    let limit = this.#limits.get(key)
    if (limit === undefined) {
      limit = openLimit(name)
      this.#limits.set(key, limit)
    }
    return limit
  }

  /** How long a wait that begins now will take, as far as can be said. */
  #estimate(place: Place, due: Due | null, now: number): [ms: number, reason: WaitReason] {
    if (due !== null) return [Math.max(0, due.at - now), due.reason]
    const { at, reason, gapMs } = this.#turnOf(place, now)
    const ahead = (this.#waiting.get(keyOf(place))?.size ?? 0) + (at === Infinity ? this.#refused.length : 0)
    const first = at === Infinity ? gapMs : Math.max(0, at - now)
    return [Math.min(this.#maxWaitMs, first + ahead * gapMs), reason]
  }

  #add(waiter: Waiter): void {
    const { due, place } = waiter
    if (due === null) {
      const key = keyOf(place)
      const queue = this.#waiting.get(key) ?? new Set()
      this.#waiting.set(key, queue.add(waiter))
      return
    }
    for (const limit of due.limits) limit.refused += 1
    let from = 0
    let to = this.#refused.length
    while (from < to) {
      const middle = (from + to) >>> 1
      if (this.#refused[middle]!.due!.at <= due.at) from = middle + 1
      else to = middle
    }
    this.#refused.splice(from, 0, waiter)
  }

  #remove(waiter: Waiter): void {
    const { due, place } = waiter
    if (due === null) {
      const queue = this.#waiting.get(keyOf(place))
      queue?.delete(waiter)
      if (queue?.size === 0) this.#waiting.delete(keyOf(place))
      return
    }
    this.#refused.splice(this.#refused.indexOf(waiter), 1)
    for (const limit of due.limits) limit.refused -= 1
  }

  /** Starts whoever may start now, and sets the clock for the next. */
  #proceed(): void {
    this.#runtime.clearTimer(this.#timer)
    const now = this.#runtime.now()
    const next = Math.min(this.#startRefused(now), this.#startWaiting(now))
    this.#timer = next === Infinity ? undefined : this.#runtime.setTimer(() => this.#proceed(), next - now)
  }

  #startRefused(now: number): number {
    let next = Infinity
    for (let index = 0; index < this.#refused.length;) {
      const waiter = this.#refused[index]!
      const due = waiter.due!
      if (due.at > now) return Math.min(next, due.at)
      const at = Math.min(this.#returnOf(due, now), waiter.deadline)
      if (at <= now) {
        this.#remove(waiter)
        waiter.go(this.#start(waiter.place, now, due))
      } else {
        next = Math.min(next, at)
        index += 1
      }
    }
    return next
  }

  /** One of each route, and again while any of them could start. */
  #startWaiting(now: number): number {
    for (;;) {
      let next = Infinity
      let started = false
      // As they stand now: a route that is served goes to the end.
      const routes = [...this.#waiting]
      for (const [key, queue] of routes) {
        const [waiter] = queue
        if (waiter === undefined) continue
        const turn = this.#turnOf(waiter.place, now)
        const at = isTooFar(turn.at, waiter.deadline) ? now : Math.min(turn.at, waiter.deadline)
        if (at > now) {
          next = Math.min(next, at)
          continue
        }
        this.#remove(waiter)
        if (this.#waiting.delete(key)) this.#waiting.set(key, queue)
        waiter.go(this.#start(waiter.place, now))
        started = true
      }
      if (!started) return next
    }
  }
}

/** Whether a time lies beyond what its owner accepts: then there is no use in waiting, and the server's answer is wanted. */
function isTooFar(at: number, deadline: number): boolean {
  return at !== Infinity && at > deadline
}

function keyOf({ caller, route }: Place): string {
  return `${caller}\n${route}`
}
