import type { Request } from 'express'
import type { Client } from '../client.ts'
import type { Policy, PolicyOptions, WindowPolicyOptions } from '../policy.ts'
import { membersOf, type Algorithm, type Limit } from './algorithm.ts'
import { buildPolicy, uniqueTargetsShape } from './build.ts'

export interface UniqueTargetsOptions
  extends Omit<PolicyOptions, 'cost' | 'charge'>, Pick<WindowPolicyOptions, 'quota' | 'window'> {
  /** Targets are counted when the request starts. */
  charge?: 'before'
  /**
   * What a request touches: one text, or up to 32, or nothing. Default: the route's `target`, else the path. `req.params` is known in
   * `limiter.route(…)` alone: for an entry of `routes` give that a `target`, which is told the parameters of its path.
   */
  target?: (req: Request, client: Client) => string | readonly string[] | undefined
}

/**
 * At most `quota` different targets in any span of length `window`: accounts looked up, documents fetched. A target that was
 * touched within the window is free, however often.
 *
 * Exact. Remembers a hash of each target within the window, so at most `quota` of them.
 *
 * @example limiter.route({ policies: [uniqueTargets({ name: 'accounts', quota: 200, window: '1h', target: (req) => req.params.id })] })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function uniqueTargets(options: UniqueTargetsOptions): Policy {
  return buildPolicy('unique-targets', uniqueTargetsShape, options)
}

/** What was touched within the window. */
export interface UniqueTargetsState {
  /** When each target was touched last, in µs, the longest ago first. */
  readonly touched: Map<string, number>
  /** The last time in it; 0 when it is empty. */
  newest: number
}

/** When the targets that are not asked for now were touched, the longest ago first. */
function* others({ touched }: UniqueTargetsState, asked: ReadonlySet<string>): Generator<number> {
  for (const [target, at] of touched) if (!asked.has(target)) yield at
}

function unseen({ touched }: UniqueTargetsState, limit: Limit): number {
  let count = 0
  for (const target of membersOf(limit)) if (!touched.has(target)) count += 1
  return count
}

export const uniqueTargetsAlgorithm: Algorithm<UniqueTargetsState> = {
  open(stored, limit, now) {
    if (stored === undefined) return { touched: new Map(), newest: 0 }
    const { touched } = stored
    // There may be many: they are not copied for every request, and what has left the window is gone for good.
    for (const [target, at] of touched) {
      if (at + limit.windowUs > now) break
      touched.delete(target)
    }
    if (stored.newest > now + limit.windowUs) {
      for (const [target, at] of touched) if (at > now) touched.set(target, now)
      stored.newest = now
    }
    return stored
  },

  needs: (state, limit) => unseen(state, limit),

  earliest(state, limit, now, cost) {
    const { touched } = state
    if (touched.size + cost <= limit.quota) return now
    // By then some of those asked for may have left as well: all of them have to find room beside the others.
    const asked = new Set(membersOf(limit))
    const room = Math.max(asked.size, cost)
    if (room > limit.quota) return Infinity
    let excess = touched.size - (asked.size - unseen(state, limit)) + room - limit.quota
    for (const at of others(state, asked)) {
      excess -= 1
      if (excess <= 0) return at + limit.windowUs
    }
    return now
  },

  remaining(state, limit) {
    return Math.max(0, limit.quota - state.touched.size)
  },

  charge(state, limit, now) {
    // At the newest time if the clock has stepped back behind it, so that their order is that of time.
    const at = Math.max(now, state.newest)
    let added = 0
    membersOf(limit).forEach((target, index) => {
      if (!state.touched.delete(target)) added += 2 ** index
      state.touched.set(target, at)
      state.newest = at
    })
    return added
  },

  refund(state, limit, _now, chargedAt, _cost, added) {
    const { touched } = state
    membersOf(limit).forEach((target, index) => {
      // Not what others have touched since.
      if (Math.floor(added / 2 ** index) % 2 === 1 && touched.get(target) === chargedAt) touched.delete(target)
    })
    state.newest = 0
    for (const at of touched.values()) state.newest = at
  },

  expires({ touched, newest }, limit, now) {
    return touched.size === 0 ? now : newest + limit.windowUs
  },
}
