import type { Policy, WindowPolicyOptions } from '../policy.ts'
import type { Algorithm } from './algorithm.ts'
import { buildPolicy, windowPolicyShape } from './build.ts'
import { appendEntry, countGone, mendClock, windowArithmetic, type WindowEntry } from './sliding-window.ts'

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
}
