import { RampmeterError } from '../errors.ts'
import type { Policy, PolicyKind } from '../policy.ts'
import type { Algorithm, Limit, Seating } from './algorithm.ts'
import { fnv1a } from './build.ts'

/**
 * How a policy of a pool is split for one of the tiers that share it.
 *
 * A share of its quota is the tier's alone, whoever floods the pool. The rest is common: a tier draws on it when its share
 * is used up, and only while what tiers of higher priority asked of it in the last window is left.
 */
export interface PoolShare {
  /** The tier's own share. */
  readonly guaranteed: Policy
  /** What all of the pool's tiers share beyond their own. */
  readonly common: Policy
  /** Who asked for how much of the common part, by tier. */
  readonly demand: Policy
}

/** What is no capacity: a failure or a target belongs to who met it, and has no share that could be kept for a tier. */
const unshared: ReadonlySet<PolicyKind> = new Set(['failures', 'unique-targets'] as const)

/** A policy of a pool, which is the same for all its clients. */
type Capacity = Policy & { readonly quota: number; readonly burst: number | undefined }

/**
 * Lets a policy through that can be capacity.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` where it is none, or depends on the client
 */
export function checkCapacity(policy: Policy, what: string): Capacity {
  const { quota, burst, name, kind, partition } = policy
  if (unshared.has(kind)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: the policy ${JSON.stringify(name)} counts ${kind === 'failures' ? 'failures' : 'targets'}, which tiers cannot share as capacity; put it into the tiers' own policies`,
    )
  }
  if (typeof quota !== 'number' || typeof burst === 'function') {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: the policy ${JSON.stringify(name)} has a quota that depends on the client; all clients of a pool share one, so write a number`,
    )
  }
  // 'client' is what a policy has that does not say.
  if (partition !== 'client' && partition !== 'global') {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: the policy ${JSON.stringify(name)} has a \`partition\`; a pool is one counter for all its clients, so leave it out, or put the policy into the tiers' own`,
    )
  }
  return { ...policy, quota, burst }
}

/**
 * Splits a policy of a pool that several tiers share.
 *
 * @param guarantee each tier's share, from 0 to 1
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` where its quota is too small to be shared
 */
export function sharePool(policy: Capacity, guarantee: number, { seats, seat }: Seating, what: string): PoolShare {
  const { quota, burst, name, kind, windowMs } = policy
  const own = ofEach(quota, guarantee, seats, what)
  const idOf = (part: string): number => fnv1a(`${name}\n${kind}\n${windowMs}\n${part}`)
  const ownBurst = burst === undefined ? undefined : ofEach(burst, guarantee, seats, what)
  const common: Policy = {
    ...policy,
    quota: quota - seats * own,
    burst: burst === undefined || ownBurst === undefined ? undefined : burst - seats * ownBurst,
  }
  return {
    guaranteed: { ...policy, quota: own, burst: ownBurst, stateId: idOf(`seat ${seat}`) },
    common,
    demand: { ...common, kind: 'pool-demand', calendar: undefined, stateId: idOf('demand') },
  }
}

function ofEach(amount: number, guarantee: number, seats: number, what: string): number {
  const share = guarantee === 0 ? 0 : Math.max(1, Math.floor(amount * guarantee))
  if (share * seats < amount) return share
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `${what}: a quota or burst of ${amount} leaves nothing in common once each of its ${seats} tiers has its guarantee; raise it or lower \`guarantee\``,
  )
}

/** What was asked of the common part of a pool, by seat: in the window before, in this one, and what was had of it. */
export interface PoolDemandState {
  /** When this window began, in µs. */
  start: number
  readonly before: number[]
  readonly asked: number[]
  readonly had: number[]
}

function seatingOf({ seating }: Limit): Seating {
  return seating ?? { seats: 1, seat: 0, higher: [] }
}

function zeros(count: number): number[] {
  return Array.from({ length: count }, () => 0)
}

/** What those who go first ask for in a window, as far as it is known. */
function wanted(higher: readonly number[], askedOf: (seat: number) => number): number {
  return higher.reduce((sum, seat) => sum + askedOf(seat), 0)
}

/** What a tier may have of the common part in a window: all there is, or what those who go first leave of its quota. */
function allowed(limit: Limit, wantedByHigher: number): number {
  return wantedByHigher === 0 ? Infinity : limit.quota - wantedByHigher
}

/** What those who go first are taken to ask for in the running window: what they asked for in the last one, or in this one. */
function expected(state: PoolDemandState, limit: Limit): number {
  return wanted(seatingOf(limit).higher, (one) => Math.max(state.before[one]!, state.asked[one]!))
}

/**
 * Refuses nobody but those who would take what others, who go first, are about to ask for. `limit.quota` is the common part, and
 * `limit.capacity` what it holds at once.
 */
export const poolDemandAlgorithm: Algorithm<PoolDemandState> = {
  open(stored, limit, now) {
    const { windowUs } = limit
    const { seats } = seatingOf(limit)
    const start = Math.floor(now / windowUs) * windowUs
    if (stored === undefined || stored.asked.length !== seats || stored.start + 2 * windowUs <= now) {
      return { start, before: zeros(seats), asked: zeros(seats), had: zeros(seats) }
    }
    if (stored.start > now + windowUs) stored.start = start
    if (stored.start + windowUs > now) return stored
    return { start: stored.start + windowUs, before: [...stored.asked], asked: zeros(seats), had: zeros(seats) }
  },

  earliest(state, limit, now, cost) {
    const { seat, higher } = seatingOf(limit)
    if (state.had[seat]! + cost <= allowed(limit, expected(state, limit))) return now
    const next = state.start + limit.windowUs
    return cost <=
      allowed(
        limit,
        wanted(higher, (one) => state.asked[one]!),
      )
      ? next
      : next + limit.windowUs
  },

  remaining(state, limit) {
    const left = allowed(limit, expected(state, limit)) - state.had[seatingOf(limit).seat]!
    return Math.max(0, Math.min(limit.capacity, left))
  },

  charge(state, limit, _now, cost) {
    state.had[seatingOf(limit).seat]! += cost
    return 0
  },

  refund(state, limit, _now, chargedAt, cost) {
    if (chargedAt < state.start) return
    const { seat } = seatingOf(limit)
    state.had[seat] = Math.max(0, state.had[seat]! - cost)
    state.asked[seat] = Math.max(0, state.asked[seat]! - cost)
  },

  expires(state, limit, now) {
    return state.asked.some((one) => one > 0)
      ? state.start + 2 * limit.windowUs
      : state.before.some((one) => one > 0)
        ? state.start + limit.windowUs
        : now
  },
}

/** Notes what a seat asks for, whether it gets it or not. */
export function noteDemand(state: PoolDemandState, limit: Limit, cost: number): void {
  state.asked[seatingOf(limit).seat]! += cost
}
