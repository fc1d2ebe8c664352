import type { Policy, WindowPolicyOptions } from '../policy.ts'
import type { Algorithm } from './algorithm.ts'
import { buildPolicy, windowPolicyShape } from './build.ts'

/**
 * At most `quota` from the first request until `window` later; then it starts anew with the next request.
 *
 * The simplest to explain, and the weakest: twice the quota passes in a short time across the edge of two windows.
 * Constant memory: 16 bytes a counter.
 *
 * @example fixedWindow({ name: 'daily', quota: 5000, window: '1d' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function fixedWindow(options: WindowPolicyOptions): Policy {
  return buildPolicy('fixed-window', windowPolicyShape, options)
}

export interface FixedWindowState {
  /** When the window began, in µs. Meaningless while nothing is used. */
  start: number
  used: number
}

export const fixedWindowAlgorithm: Algorithm<FixedWindowState> = {
  open(stored, limit, now) {
    if (stored === undefined || stored.start + limit.windowUs <= now) return { start: now, used: 0 }
    if (stored.start > now + limit.windowUs) stored.start = now
    return stored
  },

  earliest(state, limit, now, cost) {
    return state.used + cost <= limit.quota ? now : state.start + limit.windowUs
  },

  remaining(state, limit) {
    return Math.max(0, limit.quota - state.used)
  },

  charge(state, _limit, now, cost) {
    if (state.used === 0) state.start = Math.max(state.start, now)
    state.used += cost
  },

  refund(state, limit, now, chargedAt, cost) {
    if (chargedAt < state.start || chargedAt + limit.windowUs <= now) return
    state.used -= Math.min(state.used, cost)
  },

  expires(state, limit, now) {
    return state.used === 0 ? now : state.start + limit.windowUs
  },
}
