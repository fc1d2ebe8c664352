import type { Amount, Policy, PolicyOptions, Prefetch } from '../policy.ts'
import type { Duration } from '../duration.ts'
import type { Algorithm } from './algorithm.ts'
import { buildPolicy, fixedWindowShape } from './build.ts'
import { windowAt } from './calendar.ts'

/** What every fixed window takes. */
interface AnyFixedWindowOptions extends PolicyOptions {
  /** How much is allowed in a window. */
  quota: Amount
  /** For a counter that many clients share: each process takes a part of its quota at once. Default: each request asks. */
  prefetch?: Prefetch
}

/** Windows of equal length. */
export interface EqualWindowOptions extends AnyFixedWindowOptions {
  /** The length of the window, from 1 ms to 366 days; or `'month'`, for calendar months, which need `align`. */
  window: Duration
  /**
   * Where windows begin. Default: with the first request. `'utc'`: days from midnight UTC, hours from the full hour, weeks
   * (`'7d'`) from Monday. The window is then a part of a day that divides it (`'6h'`), or whole days: other than weeks they are
   * counted from 1 January 1970, and whole weeks from the Monday before it.
   */
  align?: 'utc'
}

/** Calendar months. */
export interface MonthWindowOptions extends AnyFixedWindowOptions {
  /** A month of the calendar. Where a length is needed, as in `windowMs` and `w`, it counts as 31 days. */
  window: 'month'
  /**
   * Where months begin.
   *
   * - `'utc'`: at midnight UTC of the 1st.
   * - `{ day }`: a billing month from that day, 1 to 31, at midnight UTC; in a shorter month from its last day.
   */
  align: 'utc' | { day: number }
}

export type FixedWindowOptions = EqualWindowOptions | MonthWindowOptions

/**
 * At most `quota` from the first request until `window` later; then it starts anew with the next request. With `align`, a
 * calendar quota: at most `quota` a day, a week or a billing month.
 *
 * The simplest to explain, and the weakest: twice the quota passes in a short time across the edge of two windows.
 * Constant memory: 16 bytes a counter. Clients refused by a calendar quota are told different times within a hundredth of the
 * window (5 minutes at most) after it ends, so that not everybody returns at midnight.
 *
 * @example fixedWindow({ name: 'daily', quota: 5000, window: '1d', align: 'utc' })
 * @example fixedWindow({ name: 'billed', quota: 1_000_000, window: 'month', align: { day: 15 } })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function fixedWindow(options: FixedWindowOptions): Policy {
  return buildPolicy('fixed-window', fixedWindowShape, options)
}

export interface FixedWindowState {
  /** When the window began, in µs. */
  start: number
  used: number
  /** When it ends. Not stored: it follows from the start. */
  end: number
}

export const fixedWindowAlgorithm: Algorithm<FixedWindowState> = {
  open(stored, limit, now) {
    if (stored === undefined) return { ...windowAt(limit, now), used: 0 }
    // A clock that stepped back: the window stays, unless it lies more than a window ahead.
    if (stored.start > now + limit.windowUs)
      stored.start = limit.calendar === undefined ? now : windowAt(limit, now).start
    if (limit.calendar === undefined) {
      if (stored.start + limit.windowUs <= now) return { ...windowAt(limit, now), used: 0 }
      stored.end = stored.start + limit.windowUs
      return stored
    }
    const current = windowAt(limit, Math.max(stored.start, now))
    if (stored.start < current.start) return { ...current, used: 0 }
    stored.end = current.end
    return stored
  },

  earliest(state, limit, now, cost) {
    if (state.used + cost <= limit.quota) return now
    return state.end + (limit.calendar === undefined ? 0 : limit.calendar.spreadUs)
  },

  remaining(state, limit) {
    return Math.max(0, limit.quota - state.used)
  },

  charge(state, limit, now, cost) {
    if (state.used === 0 && limit.calendar === undefined && now > state.start) {
      state.start = now
      state.end = now + limit.windowUs
    }
    state.used += cost
    return 0
  },

  refund(state, limit, now, chargedAt, cost) {
    if (chargedAt < state.start || state.end <= now) return
    state.used -= Math.min(state.used, cost)
  },

  room(state, limit) {
    const { end } = state
    return {
      refills: false,
      quota: limit.quota,
      windowUs: limit.windowUs,
      cellUs: 0,
      usedAt: (time) => (time < end ? state.used : 0),
      fallsTo: (target) => (state.used <= target ? 0 : end),
    }
  },

  expires(state, _limit, now) {
    return state.used === 0 ? now : state.end
  },
}
