import type { Amount, Policy, WindowPolicyOptions } from '../policy.ts'
import type { Algorithm, Limit } from './algorithm.ts'
import { amountSchema, buildPolicy, windowPolicyShape } from './build.ts'

export interface TokenBucketOptions extends WindowPolicyOptions {
  /** How much refills in a window, evenly. */
  quota: Amount
  /** The most the bucket holds, so what can be used at once. Default: the quota. */
  burst?: Amount
}

/**
 * A bucket that refills at `quota` per `window` and holds at most `burst`.
 *
 * Allows bursts, then a steady pace. Over any span no more is used than `burst + quota × elapsed / window`.
 * Constant memory: 25 bytes a counter.
 *
 * @example 500 a minute, at most 200 at once
 * tokenBucket({ name: 'per-minute', quota: 500, window: '1m', burst: 200 })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function tokenBucket(options: TokenBucketOptions): Policy {
  return buildPolicy('token-bucket', { ...windowPolicyShape, burst: amountSchema.optional() }, options)
}

/**
 * The deficit is kept in quota-microseconds: one unit weighs as much as the window has microseconds, and every microsecond
 * pays back `quota`. So refilling is exact, however often the bucket is touched. (In whole units every touch drops a
 * fraction, and a busy bucket admits half of what it should.)
 */
export interface TokenBucketState {
  deficit: number
  /** When the deficit was that, in µs. */
  at: number
  /** The quota then. */
  quota: number
  /** What the deficit is divided by, a power of ten: 1 unless burst × window would leave the exact integers. */
  scale: number
}

/** Leaves a factor of 16 below 2⁵³ for debts. */
const largestCapacity = 2 ** 49

function scaleOf(limit: Limit): number {
  let scale = 1
  while ((limit.capacity * limit.windowUs) / scale > largestCapacity) scale *= 10
  return scale
}

/** The deficit at `time`, when each microsecond pays back `quota`. */
function deficitAt(state: TokenBucketState, quota: number, time: number): number {
  const elapsed = Math.max(0, time - state.at)
  return Math.max(0, state.deficit - Math.floor((elapsed * quota) / state.scale))
}

/** What a cost weighs, rounded up. */
function weigh(state: TokenBucketState, limit: Limit, cost: number): number {
  return Math.ceil((cost * limit.windowUs) / state.scale)
}

function room(state: TokenBucketState, limit: Limit): number {
  return Math.floor((limit.capacity * limit.windowUs) / state.scale)
}

export const tokenBucketAlgorithm: Algorithm<TokenBucketState> = {
  open(stored, limit, now) {
    const scale = scaleOf(limit)
    if (stored === undefined) return { deficit: 0, at: now, quota: limit.quota, scale }
    const state = stored
    if (state.at > now + limit.windowUs) state.at = now
    // A bucket that its own quota has filled is full, whatever the quota is now: its key may be gone already.
    if (deficitAt(state, state.quota, now) === 0) {
      state.deficit = 0
      state.at = Math.max(state.at, now)
    }
    if (state.quota !== limit.quota) {
      state.deficit = deficitAt(state, Math.min(state.quota, limit.quota), now)
      state.at = Math.max(state.at, now)
      state.quota = limit.quota
    }
    if (state.scale !== scale) {
      state.deficit = Math.ceil((state.deficit * state.scale) / scale)
      state.scale = scale
    }
    return state
  },

  earliest(state, limit, now, cost) {
    const spare = room(state, limit) - weigh(state, limit, cost)
    if (deficitAt(state, limit.quota, now) <= spare) return now
    let time = state.at + Math.ceil(((state.deficit - spare) * state.scale) / limit.quota)
    // Above 2⁵³ the division may round down by less than a microsecond.
    while (deficitAt(state, limit.quota, time) > spare) time += 1
    return time
  },

  remaining(state, limit, now) {
    const spare = room(state, limit) - deficitAt(state, limit.quota, now)
    return Math.max(0, Math.floor((spare * state.scale) / limit.windowUs))
  },

  charge(state, limit, now, cost) {
    state.deficit = Math.min(
      Number.MAX_SAFE_INTEGER,
      deficitAt(state, limit.quota, now) + weigh(state, limit, cost),
    )
    state.at = Math.max(state.at, now)
  },

  refund(state, limit, now, chargedAt, cost) {
    if (chargedAt + limit.windowUs <= now) return
    state.deficit = Math.max(0, deficitAt(state, limit.quota, now) - weigh(state, limit, cost))
    state.at = Math.max(state.at, now)
  },

  expires(state, limit) {
    return limit.quota === 0 ? state.at + limit.windowUs : state.at + Math.ceil((state.deficit * state.scale) / limit.quota)
  },
}
