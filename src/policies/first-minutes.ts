import type { Policy } from '../policy.ts'
import type { Algorithm, Limit } from './algorithm.ts'
import { buildPolicy, firstMinutesShape } from './build.ts'
import type { InitialBurst } from '../tier.ts'

/** The policy that a tier's `initialBurst` becomes. */
export function firstMinutes(burst: InitialBurst): Policy {
  return buildPolicy('first-minutes', firstMinutesShape, burst)
}

/**
 * Unlike the others it is granted, not refilled: it is there from the first admitted request until its window ends, and once
 * more only after `limit.capacity` microseconds. So its state outlives its use, or a client could go quiet to earn it again.
 */
export interface FirstMinutesState {
  /** When it was granted, in µs. */
  start: number
  used: number
  /** False until a request was admitted with it: one that is refused starts nothing. */
  granted: boolean
}

/** Whether the extra has room for `cost` now. */
export function hasExtra(state: FirstMinutesState, limit: Limit, now: number, cost: number): boolean {
  return now < state.start + limit.windowUs && state.used + cost <= limit.quota
}

export const firstMinutesAlgorithm: Algorithm<FirstMinutesState> = {
  open(stored, limit, now) {
    if (stored === undefined || stored.start + limit.capacity <= now) return { start: now, used: 0, granted: false }
    if (stored.start > now + limit.capacity) stored.start = now
    return stored
  },

  earliest(state, limit, now, cost) {
    if (cost > limit.quota) return Infinity
    return hasExtra(state, limit, now, cost) ? now : state.start + limit.capacity
  },

  remaining(state, limit, now) {
    return now < state.start + limit.windowUs ? Math.max(0, limit.quota - state.used) : 0
  },

  charge(state, _limit, _now, cost) {
    state.granted = true
    state.used += cost
    return 0
  },

  refund(state, limit, now, chargedAt, cost) {
    if (chargedAt < state.start || chargedAt + limit.windowUs <= now) return
    state.used -= Math.min(state.used, cost)
  },

  expires(state, limit, now) {
    return state.granted ? state.start + limit.capacity : now
  },
}
