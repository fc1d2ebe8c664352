import type { Policy, WindowPolicyOptions } from '../policy.ts'
import type { Algorithm, Limit } from './algorithm.ts'
import { buildPolicy, windowPolicyShape } from './build.ts'
import type { WindowRoom } from './schedule.ts'

/**
 * Never more than `quota` in any span of length `window`, wherever it begins. Constant memory: at most 16 entries of
 * 12 bytes a counter.
 *
 * Exact for quotas up to 16. Above, entries that lie within a fourteenth of the window may be counted as the later one, so it
 * errs to the strict side: under load between one and two times the quota it admits at least 93 % of what a
 * {@link slidingLog} would, and a burst comes back within 1.1 windows.
 *
 * @example slidingWindow({ name: 'per-hour', quota: 20_000, window: '1h' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function slidingWindow(options: WindowPolicyOptions): Policy {
  return buildPolicy('sliding-window', windowPolicyShape, options)
}

/** What was used at one time. In a sliding log, exactly then; in a sliding window, then or up to a cell earlier. */
export interface WindowEntry {
  at: number
  count: number
}

export type SlidingWindowState = WindowEntry[]

const mostEntries = 16
const cellsPerWindow = 14

/** What five bytes hold. A debt above it is forgiven. */
const mostCount = 2 ** 40 - 1

/** How many entries have left the window. */
export function countGone(entries: readonly WindowEntry[], limit: Limit, now: number): number {
  let gone = 0
  while (gone < entries.length && entries[gone]!.at + limit.windowUs <= now) gone += 1
  return gone
}

/** Takes the times of a clock that has since been set back, by more than a window, for now. Says whether there were any. */
export function mendClock(entries: readonly WindowEntry[], limit: Limit, now: number): boolean {
  const newest = entries.at(-1)
  if (newest === undefined || newest.at <= now + limit.windowUs) return false
  for (const entry of entries) entry.at = Math.min(entry.at, now)
  return true
}

function used(entries: WindowEntry[]): number {
  let sum = 0
  for (const entry of entries) sum += entry.count
  return sum
}

/** Adds a charge at the end; at the newest entry's time if the clock has stepped back behind it. */
export function appendEntry(entries: WindowEntry[], now: number, cost: number): void {
  const newest = entries.at(-1)
  if (newest !== undefined && newest.at >= now) newest.count = Math.min(mostCount, newest.count + cost)
  else entries.push({ at: now, count: cost })
}

/**
 * When a charge counts as made, at the latest: those of one cell may yet become one, with the time of the last of them; and as
 * long as the cell is not over, somebody may come in it.
 */
function latestAt(entries: readonly WindowEntry[], index: number, cellUs: number, now: number): number {
  const { at } = entries[index]!
  if (cellUs === 0) return at
  const end = (Math.floor(at / cellUs) + 1) * cellUs
  if (end > now) return end
  let last = index
  while (last + 1 < entries.length && entries[last + 1]!.at < end) last += 1
  return entries[last]!.at
}

/** @param cellUs within which entries may become one; 0 where they never do */
export function windowRoom(entries: WindowEntry[], limit: Limit, now: number, cellUs: number): WindowRoom {
  const { quota } = limit
  const windowUs = cellUs === 0 ? limit.windowUs : cellUs * cellsPerWindow
  return {
    refills: false,
    quota,
    windowUs,
    cellUs,
    usedAt(time) {
      let left = used(entries)
      for (let index = 0; index < entries.length; index += 1) {
        if (latestAt(entries, index, cellUs, now) + windowUs > time) break
        left -= entries[index]!.count
      }
      return left
    },
    fallsTo(target) {
      let left = used(entries)
      let time = now
      for (let index = 0; index < entries.length && left > target; index += 1) {
        left -= entries[index]!.count
        time = latestAt(entries, index, cellUs, now) + windowUs
      }
      return time
    },
  }
}

/** What the sliding window and the sliding log have in common: all but how entries are kept. */
export const windowArithmetic: Omit<Algorithm<WindowEntry[]>, 'open' | 'charge'> = {
  earliest(entries, limit, now, cost) {
    let excess = used(entries) + cost - limit.quota
    if (excess <= 0) return now
    for (const entry of entries) {
      excess -= entry.count
      if (excess <= 0) return entry.at + limit.windowUs
    }
    return now
  },

  remaining(entries, limit) {
    return Math.max(0, limit.quota - used(entries))
  },

  refund(entries, limit, now, chargedAt, cost) {
    if (chargedAt + limit.windowUs <= now) return
    // What a correction added stands in later entries.
    let owed = cost
    let index = entries.findIndex((entry) => entry.at >= chargedAt)
    while (owed > 0 && index >= 0 && index < entries.length) {
      const entry = entries[index]!
      const given = Math.min(entry.count, owed)
      owed -= given
      entry.count -= given
      if (entry.count === 0) entries.splice(index, 1)
      else index += 1
    }
  },

  expires(entries, limit, now) {
    const newest = entries.at(-1)
    return newest === undefined ? now : newest.at + limit.windowUs
  },
}

/** Merges the newest two neighbours of one cell; if the clock jumped so that there are none, the newest two. */
function mergeNewest(entries: WindowEntry[], windowUs: number): void {
  const cell = Math.ceil(windowUs / cellsPerWindow)
  let index = entries.length - 1
  while (index > 0 && Math.floor(entries[index]!.at / cell) !== Math.floor(entries[index - 1]!.at / cell)) index -= 1
  if (index === 0) index = entries.length - 1
  // The sum leaves with the later of the two: never more than the quota, at times a little less.
  entries[index]!.count = Math.min(mostCount, entries[index]!.count + entries[index - 1]!.count)
  entries.splice(index - 1, 1)
}

export const slidingWindowAlgorithm: Algorithm<SlidingWindowState> = {
  ...windowArithmetic,

  open(stored = [], limit, now) {
    const mended = mendClock(stored, limit, now)
    const gone = countGone(stored, limit, now)
    if (mended) stored.splice(0, gone)
    return mended || gone === 0 ? stored : stored.slice(gone)
  },

  charge(entries, limit, now, cost) {
    appendEntry(entries, now, cost)
    if (entries.length > mostEntries) mergeNewest(entries, limit.windowUs)
    return 0
  },

  room(entries, limit, now) {
    const merges = limit.quota > mostEntries
    return windowRoom(entries, limit, now, merges ? Math.ceil(limit.windowUs / cellsPerWindow) : 0)
  },
}
