import type { Request } from 'express'
import type { Client } from '../client.ts'
import type { Duration } from '../duration.ts'
import type { Amount, Cost, Policy, PolicyOptions } from '../policy.ts'
import { membersOf, type Algorithm, type Limit } from './algorithm.ts'
import { buildPolicy, concurrencyShape } from './build.ts'

export interface ConcurrencyOptions extends Omit<PolicyOptions, 'charge'> {
  /** The quota unit that is told. Default `concurrent-requests`. */
  unit?: string
  /** How many slots a request takes, at most 32. Default 1, whatever the route costs. Not with `per`. */
  cost?: Cost
  /** Slots are taken when the request starts. */
  charge?: 'before'
  /** How many at once. */
  quota: Amount
  /**
   * How long a slot is held without a sign of life, should the process that holds it die: from 1 s to 366 days. While a
   * request runs, its lease is renewed. Default `'30s'`. With `per`, how long a session keeps its slot after its last request.
   */
  lease?: Duration
  /** One slot for each text it returns (a session), not for each request. */
  per?: (req: Request, client: Client) => string
}

/**
 * At most `quota` requests in flight at once, for each client or whoever shares the partition. A slot comes back when the response
 * ends, fails or the client goes away; should the process die, when the lease runs out.
 *
 * Its Retry-After is an estimate, from how long slots are held, and is marked as one: `"retry_estimated": true`.
 *
 * @example concurrency({ name: 'in-flight', quota: 20 })
 * @example three sessions at once, each until 15 minutes after its last request
 * concurrency({ name: 'sessions', quota: 3, per: (req) => req.sessionID, lease: '15m' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function concurrency(options: ConcurrencyOptions): Policy {
  return buildPolicy('concurrency', concurrencyShape, options)
}

/** The leases of those who hold a slot. `limit.windowUs` is the length of a lease. */
export interface ConcurrencyState {
  /** When each lease runs out, in µs. */
  readonly leases: Map<string, number>
  /** How long a slot is held, in µs, smoothed; 0 while none has been given back. */
  held: number
  /** When a slot was last taken or given back, in µs. A lease later it is forgotten how long slots are held. */
  changedAt: number
}

/** What a refused client is told while nobody knows yet how long slots are held, in µs. */
const unknownHold = 1_000_000

/** A recent hold weighs an eighth, as round-trip times do in TCP (RFC 6298 section 2). */
const smoothing = 8

function unheld(state: ConcurrencyState, limit: Limit): number {
  let count = 0
  for (const member of membersOf(limit)) if (!state.leases.has(member)) count += 1
  return count
}

export const concurrencyAlgorithm: Algorithm<ConcurrencyState> = {
  open(stored, limit, now) {
    if (stored === undefined) return { leases: new Map(), held: 0, changedAt: 0 }
    for (const [member, until] of stored.leases) {
      if (until <= now) stored.leases.delete(member)
      // A clock that stepped forward and back left leases that would outlive every process.
      else if (until > now + 2 * limit.windowUs) stored.leases.set(member, now + limit.windowUs)
    }
    if (stored.changedAt + limit.windowUs <= now || stored.changedAt > now + limit.windowUs) {
      stored.held = 0
      stored.changedAt = 0
    }
    return stored
  },

  needs: (state, limit) => unheld(state, limit),

  earliest(state, limit, now, cost) {
    const { leases, held, changedAt } = state
    const excess = leases.size + cost - limit.quota
    if (excess <= 0) return now
    const expiries = [...leases.values()].sort((one, other) => one - other)
    const expiry = expiries[Math.min(excess, expiries.length) - 1] ?? now + 1
    if (limit.untilExpiry === true) return expiry
    // With so many at work, the next one is done after its share of the time that one takes.
    const share = Math.ceil(((held === 0 ? unknownHold : held) * excess) / Math.max(1, leases.size))
    // Where none has come back for longer, those at work are slower than those before them: it may take as long again.
    return Math.min(expiry, now + Math.max(1000, share, now - changedAt))
  },

  remaining(state, limit) {
    return Math.max(0, limit.quota - state.leases.size)
  },

  charge(state, limit, now) {
    let added = 0
    membersOf(limit).forEach((member, index) => {
      if (!state.leases.has(member)) added += 2 ** index
      state.leases.set(member, now + limit.windowUs)
    })
    state.changedAt = now
    return added
  },

  refund(state, limit, _now, _chargedAt, _cost, added) {
    membersOf(limit).forEach((member, index) => {
      if (Math.floor(added / 2 ** index) % 2 === 1) state.leases.delete(member)
    })
  },

  expires(state, _limit, now) {
    let last = now
    for (const until of state.leases.values()) last = Math.max(last, until)
    return last
  },

  kept(state, limit, now) {
    const last = concurrencyAlgorithm.expires(state, limit, now)
    return state.held === 0 ? last : Math.max(last, state.changedAt + limit.windowUs)
  },
}

/** Gives slots back at the end of a request, and learns how long they were held. */
export function releaseLeases(state: ConcurrencyState, limit: Limit, now: number, chargedAt: number): void {
  let released = false
  for (const member of membersOf(limit)) released = state.leases.delete(member) || released
  if (!released) return
  const duration = Math.max(1, now - chargedAt)
  state.held = state.held === 0 ? duration : Math.max(1, state.held + Math.floor((duration - state.held) / smoothing))
  state.changedAt = now
}

/** Keeps slots for those who are still at work. */
export function renewLeases(state: ConcurrencyState, limit: Limit, now: number): void {
  for (const member of membersOf(limit)) state.leases.set(member, now + limit.windowUs)
}
