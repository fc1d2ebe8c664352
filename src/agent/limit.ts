// What is believed of one limit, and when it lets the next request go. Times are in ms on a clock that only goes forward.

import type { WaitReason } from './options.ts'
import type { ToldLimit, ToldWait } from './told.ts'

/** What is believed of one limit of a server. */
export interface Limit {
  readonly name: string
  /** It counts requests; of another unit nobody knows what a request costs, so only its end is waited for. */
  counted: boolean
  /** The most it was ever seen to hold: a bucket's burst may be less than its quota, or more. */
  capacity: number
  /** A request's share of the window: the pace that the policy allows for ever. Null where no window is told. */
  gapMs: number | null
  /** How many of ours may be under way, where it counts those and has turned one away for it; else null. */
  slots: number | null
  /** What was left when it was last told. */
  available: number
  toldAt: number
  /** Until when that holds; null where no time is told, and there is nothing to wait for. */
  endsAt: number | null
  /** Requests in a row that took nothing from it. */
  steady: number
  /** Requests under way that it may not have counted yet. */
  underWay: number
  lastStart: number
  /** The last start since it was known to be used up: what comes back then comes back bit by bit. */
  lastStartWhenEmpty: number
  /** Refused requests that wait for their time. Whoever was not refused stays behind them. */
  refused: number
  /** Of a server that refuses and tells no limits: the refusals that came together, and what they told. */
  wave: Wave | null
}

interface Wave {
  readonly since: number
  /** Before this nobody of those who wait needs to come back. */
  readonly until: number
  /** The pace was too fast, so that from here on it is tried in small steps. */
  readonly isPace: boolean
  lastMs: number
  /** How many were told a longer wait than the one before, and how many were not. */
  longer: number
  shorter: number
}

/** When a request may start: a time not after now means at once, Infinity means when something else happens. */
export interface Turn {
  readonly at: number
  readonly reason: WaitReason
  readonly gapMs: number
}

/** As long as a spread lasts at most for a request, and the pace after a wait where no window is told. */
const longestGapMs = 1000

/** The end of a limit is near when a tenth of it is left, and never more than this. */
const mostSpread = 20

/** The unit of requests under way at once. A slot comes back when one of them has ended, and nobody can tell when. */
const slotUnit = 'concurrent-requests'

/** After so many requests that took nothing, a limit is one that ours do not use up, or not any faster than it refills. */
const steadyEnough = 8

/**
 * The pace that is tried at a server which tells no limits: a longer wait than the first of these is taken for a window's, of
 * which all comes back at once. Below the last of them there seems to be no limit.
 */
const firstTrialMs = 250
const smallStepsMs = 50
const longestTrialMs = 10_000
const noLimitMs = 5

export function openLimit(name: string): Limit {
  return {
    name,
    counted: true,
    capacity: 0,
    gapMs: null,
    slots: null,
    available: 0,
    toldAt: -Infinity,
    endsAt: null,
    steady: 0,
    underWay: 0,
    lastStart: -Infinity,
    lastStartWhenEmpty: -Infinity,
    refused: 0,
    wave: null,
  }
}

/**
 * Takes in what a response told.
 *
 * Answers of parallel requests come in any order. One that was asked after the last was told is news; of those that overlap,
 * the one that leaves least is the latest.
 *
 * @param sentAt when the request started
 * @param refusedMs the wait of a refusal, where it is told to the millisecond: finer than `t`, which counts seconds
 * @param full whether it was refused though no limit that refills was used up, so for want of a slot
 */
export function hear(
  limit: Limit,
  told: ToldLimit,
  sentAt: number,
  now: number,
  refusedMs: number | null,
  full = false,
): void {
  // Not before: slots may be those of sessions, of which one has any number of requests under way.
  if (full && told.unit === slotUnit && told.available === 0 && told.quota !== null)
    limit.slots = Math.max(1, told.quota)
  const overlaps = sentAt < limit.toldAt && !isOver(limit, now)
  if (overlaps && told.available >= limit.available) {
    if (told.available > limit.available) return
    if (told.available > 0) limit.steady += 1
  } else {
    limit.steady = told.available < limit.available ? 0 : limit.steady + 1
  }
  const spanMs = told.available === 0 && refusedMs !== null ? refusedMs : told.effectiveMs
  const endsAt = spanMs === null ? null : now + spanMs
  limit.endsAt = overlaps && endsAt !== null ? Math.max(endsAt, limit.endsAt ?? 0) : endsAt
  limit.counted = told.unit === 'requests'
  limit.gapMs = told.quota === null || told.quota === 0 || told.windowMs === null ? null : told.windowMs / told.quota
  limit.available = told.available
  limit.capacity = Math.max(limit.capacity, told.available)
  limit.toldAt = now
}

/**
 * A server that tells no limits has refused. What can be learnt is a pace: faster as requests are served, and slower
 * after a refusal (those that come together count once).
 */
export function hearRefusal(limit: Limit, wait: ToldWait, sentAt: number, now: number): void {
  const due = now + wait.ms
  const { wave } = limit
  if (wave !== null && sentAt < wave.since) {
    if (wait.exact && wait.ms > wave.lastMs) wave.longer += 1
    else wave.shorter += 1
    wave.lastMs = wait.ms
    // Of many told the time to the next place, the longest is nearest to what lies between two.
    if (wait.ms <= firstTrialMs) limit.gapMs = Math.max(limit.gapMs ?? 0, wait.ms)
    limit.endsAt = Math.max(limit.endsAt ?? 0, due)
    return
  }
  if (wave !== null && isSpread(wave)) {
    // Somebody else was faster. The others' times are still their own, and the length of this wait says nothing of the pace;
    // unless it happens often, and the times were nobody's own.
    wave.shorter += 1
    limit.endsAt = Math.max(limit.endsAt ?? 0, due)
    return
  }
  const before = limit.gapMs
  // So much longer than the pace, it is the wait for a window and says nothing of the pace.
  const isPace = wait.ms <= (before === null ? firstTrialMs : 4 * before)
  if (before === null) limit.gapMs = Math.min(wait.ms, firstTrialMs)
  else if (isPace) limit.gapMs = Math.min(Math.max(1.5 * before, wait.ms), longestTrialMs)
  // Who came back in vain speaks for the others; the first refusals speak for themselves.
  const until = wave === null ? -Infinity : due
  limit.wave = { since: now, until, isPace, lastMs: wait.ms, longer: 0, shorter: 0 }
  limit.endsAt = due
  limit.available = 0
}

/**
 * Whether the server told each of them a time of its own. Where it told all of them when the next place is free, those who
 * asked later were told a shorter wait.
 */
function isSpread({ longer, shorter }: Wave): boolean {
  return longer > 4 * shorter
}

/** A request was served and nothing told. What was told before holds no longer once its time is over. */
export function hearNothing(limit: Limit, sentAt: number, now: number): void {
  if (limit.wave === null || limit.gapMs === null) {
    if (isOver(limit, now)) limit.endsAt = null
  } else if (sentAt >= limit.wave.since) {
    limit.gapMs *= limit.wave.isPace || limit.gapMs < smallStepsMs ? 0.95 : 0.5
    if (limit.gapMs < noLimitMs) limit.endsAt = null
  }
}

export function start(limit: Limit, now: number): void {
  limit.underWay += 1
  limit.lastStart = now
  if (leftOf(limit, now) < 0) limit.lastStartWhenEmpty = now
}

/** When a request that was not refused may start. */
export function turnOf(limit: Limit, now: number): Turn {
  const { endsAt, gapMs } = limit
  if (isFull(limit)) return { at: Infinity, reason: 'quota', gapMs: 0 }
  if (endsAt === null) return atOnce(now)
  const over = isOver(limit, now)
  if (!limit.counted) return over || limit.available > 0 ? atOnce(now) : { at: endsAt, reason: 'quota', gapMs: 0 }
  // What is left belongs to those who were told a time, as many as they are.
  const left = leftOf(limit, now) - limit.refused
  if (!over && limit.available === 0) {
    // Those who were told a time come first; the last of them changes what is told.
    return { at: limit.refused > 0 ? Infinity : endsAt, reason: 'quota', gapMs: gapMs ?? longestGapMs }
  }
  if (left <= 0) {
    return { at: limit.refused > 0 ? Infinity : nextStart(limit), reason: 'quota', gapMs: gapMs ?? longestGapMs }
  }
  if (limit.steady >= steadyEnough) return atOnce(now)
  if (left > Math.min(mostSpread, Math.max(1, limit.capacity / 10))) return atOnce(now)
  const spread = Math.min(gapMs ?? longestGapMs, longestGapMs, (endsAt - now) / left)
  return { at: limit.lastStart + spread, reason: 'pace', gapMs: spread }
}

/**
 * When a refused request may start whose time has come. It was promised that time, so only what the promise cannot have
 * known holds it back: others of ours that were told the same time, one of which starts first.
 */
export function returnOf(limit: Limit, now: number): Turn {
  if (isFull(limit)) return { at: Infinity, reason: 'refused', gapMs: 0 }
  if (limit.endsAt === null || !limit.counted || (limit.wave && isSpread(limit.wave))) return atOnce(now)
  if (leftOf(limit, now) > 0) return atOnce(now)
  return { at: Math.max(nextStart(limit), limit.wave?.until ?? -Infinity), reason: 'refused', gapMs: 0 }
}

/** When the next one may start although nothing seems to be left: at the policy's own pace, until an answer says more. */
function nextStart(limit: Limit): number {
  return (limit.available > 0 ? limit.lastStart : limit.lastStartWhenEmpty) + (limit.gapMs ?? longestGapMs)
}

/** What may still be started, as far as we know. */
export function leftOf(limit: Limit, now: number): number {
  const restored = limit.available > 0 && isOver(limit, now)
  return (restored ? limit.capacity : limit.available) - limit.underWay
}

/** Ours hold all slots. Since they are under way, the end of one of them says that there is room again. */
function isFull({ slots, underWay }: Limit): boolean {
  return slots !== null && underWay >= slots
}

function isOver({ endsAt }: Limit, now: number): boolean {
  return endsAt !== null && now >= endsAt
}

function atOnce(now: number): Turn {
  return { at: now, reason: 'pace', gapMs: 0 }
}
