import type { Policy, WindowPolicyOptions } from '../policy.ts'
import type { Algorithm } from './algorithm.ts'
import { buildPolicy, windowPolicyShape } from './build.ts'
import { appendEntry, countGone, mendClock, windowArithmetic, windowRoom, type WindowEntry } from './sliding-window.ts'

/**
 * Never more than `quota` in any span of length `window`, exact to the microsecond.
 *
 * Remembers every charge: 12 bytes and Redis's overhead for each within the window. For quotas of thousands, prefer `slidingWindow`.
 *
 * @example slidingLog({ name: 'exports', quota: 30, window: '1m' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function slidingLog(options: WindowPolicyOptions): Policy {
  return buildPolicy('sliding-log', windowPolicyShape, options)
}

/** How many entries a refusal looks at. */
const mostSeen = 1024

/**
 * What a refusal sees of a log: of a longer one the rest counts as one entry of its newest time. So what is told is true, and may be
 * later than it need be; and whoever is refused costs the store no more than that, however large the quota.
 */
function seenOf(entries: WindowEntry[]): WindowEntry[] {
  if (entries.length <= mostSeen) return entries
  const seen = entries.slice(0, mostSeen)
  const { at } = entries.at(-1)!
  let count = 0
  for (let index = mostSeen; index < entries.length; index += 1) count += entries[index]!.count
  return [...seen, { at, count }]
}

export const slidingLogAlgorithm: Algorithm<WindowEntry[]> = {
  ...windowArithmetic,

  open(stored = [], limit, now) {
    mendClock(stored, limit, now)
    const gone = countGone(stored, limit, now)
    if (gone > 0 && gone === stored.length) return []
    // A log may be long: it is not copied for every request.
    stored.splice(0, gone)
    return stored
  },

  charge(entries, _limit, now, cost) {
    appendEntry(entries, now, cost)
    return 0
  },

  earliest: (entries, limit, now, cost) => windowArithmetic.earliest(seenOf(entries), limit, now, cost),

  room: (entries, limit, now) => windowRoom(seenOf(entries), limit, now, 0),
}
