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
 *
 * Where that would leave the exact integers, weights and refills are divided by a power of ten, and rounded so that the
 * bucket never holds more than it should; a unit then still weighs 57 or more.
 */
export interface TokenBucketState {
  deficit: number
  /** When the deficit was that, in µs. */
  at: number
  /** The quota then. */
  quota: number
  /** What weights and refills are divided by. It grows with the limit, and shrinks once the bucket is full. */
  scale: number
}

/** Leaves a factor of 16 below 2⁵³ for debts: what is owed beyond 16 windows or bursts is forgiven. */
const largestWeight = 2 ** 49

/** Outweigh the rounding of a product that has left the exact integers. */
const justBelow = 1 - 2 ** -51
const justAbove = 1 + 2 ** -51

/** How long a bucket that nothing refills is remembered: a year. */
const longestUs = 366 * 24 * 3_600_000_000

function scaleOf(limit: Limit): number {
  let scale = 1
  while ((Math.max(limit.capacity, limit.quota) * limit.windowUs) / scale > largestWeight) scale *= 10
  return scale
}

/** What one unit weighs. Whole, so that what is given back weighs what it did when it was charged. */
function weightOf(limit: Limit, scale: number): number {
  return Math.ceil(limit.windowUs / scale)
}

/** The deficit at `time`, when each microsecond pays back `quota`. */
function deficitAt(state: TokenBucketState, quota: number, time: number): number {
  const paid = Math.max(0, time - state.at) * quota
  return Math.max(0, state.deficit - (state.scale === 1 ? paid : Math.floor((paid / state.scale) * justBelow)))
}

/** The first moment at which the deficit is at most `spare`; Infinity when there is none, or none that can be counted. */
function reaches(state: TokenBucketState, spare: number): number {
  if (state.deficit <= spare) return state.at
  const rounding = state.scale === 1 ? 1 : justAbove
  let time = state.at + Math.ceil((((state.deficit - spare) * state.scale) / state.quota) * rounding)
  if (!(time <= Number.MAX_SAFE_INTEGER)) return Infinity
  // A few steps at most: the division is off by a few microseconds where the times are long.
  while (deficitAt(state, state.quota, time) > spare) time += 1
  while (deficitAt(state, state.quota, time - 1) <= spare) time -= 1
  return time
}

function isFull(state: TokenBucketState, now: number): boolean {
  return deficitAt(state, state.quota, now) === 0 || (state.quota === 0 && state.at + longestUs <= now)
}

/** Weighs what is used by a larger scale. */
function rescale(state: TokenBucketState, limit: Limit, scale: number): void {
  const before = weightOf(limit, state.scale)
  const after = weightOf(limit, scale)
  const units = Math.floor(state.deficit / before)
  const rest = state.deficit - units * before
  state.deficit = units * after + Math.ceil(((rest * after) / before) * justAbove)
  state.scale = scale
}

export const tokenBucketAlgorithm: Algorithm<TokenBucketState> = {
  open(stored, limit, now, correcting = false) {
    if (stored === undefined) return { deficit: 0, at: now, quota: limit.quota, scale: scaleOf(limit) }
    if (stored.at > now + limit.windowUs) stored.at = now
    const { quota, scale } = correcting ? stored : { quota: limit.quota, scale: scaleOf(limit) }
    // A bucket that its own quota has filled is full, whatever the quota is now: its key may be gone already.
    if (isFull(stored, now)) return { deficit: 0, at: Math.max(stored.at, now), quota, scale }
    if (stored.quota !== quota) {
      stored.deficit = deficitAt(stored, Math.min(stored.quota, quota), now)
      stored.at = Math.max(stored.at, now)
      stored.quota = quota
    }
    if (stored.scale < scale) rescale(stored, limit, scale)
    return stored
  },

  earliest(state, limit, now, cost) {
    const spare = (limit.capacity - cost) * weightOf(limit, state.scale)
    return deficitAt(state, state.quota, now) <= spare ? now : reaches(state, spare)
  },

  remaining(state, limit, now) {
    const weight = weightOf(limit, state.scale)
    return Math.max(0, Math.floor((limit.capacity * weight - deficitAt(state, state.quota, now)) / weight))
  },

  charge(state, limit, now, cost) {
    const weight = cost * weightOf(limit, state.scale)
    state.deficit = Math.min(Number.MAX_SAFE_INTEGER, deficitAt(state, state.quota, now) + weight)
    state.at = Math.max(state.at, now)
    return 0
  },

  refund(state, limit, now, chargedAt, cost) {
    if (chargedAt + limit.windowUs <= now) return
    const weight = cost * weightOf(limit, state.scale)
    state.deficit = Math.max(0, deficitAt(state, state.quota, now) - weight)
    state.at = Math.max(state.at, now)
  },

  room({ deficit, at, quota, scale }, limit) {
    return { refills: true, deficit, at, quota, scale, weight: weightOf(limit, scale), capacity: limit.capacity }
  },

  expires(state) {
    if (state.quota === 0 && state.deficit > 0) return state.at + longestUs
    return Math.min(Number.MAX_SAFE_INTEGER, reaches(state, 0))
  },
}
