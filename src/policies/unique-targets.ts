import type { Request } from 'express'
import type { Client } from '../client.ts'
import type { Policy, PolicyOptions, WindowPolicyOptions } from '../policy.ts'
import { membersOf, type Algorithm, type Limit } from './algorithm.ts'
import { buildPolicy, uniqueTargetsShape } from './build.ts'

export interface UniqueTargetsOptions
  extends Omit<PolicyOptions, 'unit' | 'cost' | 'maxRate'>, Pick<WindowPolicyOptions, 'quota' | 'window'> {
  /** What a request touches: one text, or up to 32, or nothing. Default: the route's `target`, else the path. */
  target?: (req: Request, client: Client) => string | readonly string[] | undefined
}

/**
 * At most `quota` different targets in any span of length `window`: accounts looked up, documents fetched. A target that was
 * touched within the window is free, however often.
 *
 * Exact. Remembers a hash of each target within the window, so at most `quota` of them.
 *
 * @example uniqueTargets({ name: 'accounts', quota: 200, window: '1h', target: (req) => req.params.id })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function uniqueTargets(options: UniqueTargetsOptions): Policy {
  return buildPolicy('unique-targets', uniqueTargetsShape, options)
}

/** When each target was touched last, in µs. */
export type UniqueTargetsState = Map<string, number>

/** When the targets that are not asked for now were touched, the oldest first. */
function others(state: UniqueTargetsState, limit: Limit): number[] {
  const asked = new Set(membersOf(limit))
  const times: number[] = []
  for (const [target, at] of state) if (!asked.has(target)) times.push(at)
  return times.sort((one, other) => one - other)
}

export const uniqueTargetsAlgorithm: Algorithm<UniqueTargetsState> = {
  open(stored, limit, now) {
    if (stored === undefined) return new Map()
    for (const [target, at] of stored) {
      if (at + limit.windowUs <= now) stored.delete(target)
      else if (at > now + limit.windowUs) stored.set(target, now)
    }
    return stored
  },

  needs(state, limit) {
    return membersOf(limit).filter((target) => !state.has(target)).length
  },

  earliest(state, limit, now, cost) {
    if (state.size + cost <= limit.quota) return now
    // By then some of those asked for may have left as well: all of them have to find room beside the others.
    const asked = Math.max(membersOf(limit).length, cost)
    if (asked > limit.quota) return Infinity
    const times = others(state, limit)
    const excess = times.length + asked - limit.quota
    return excess <= 0 ? now : times[excess - 1]! + limit.windowUs
  },

  remaining(state, limit) {
    return Math.max(0, limit.quota - state.size)
  },

  charge(state, limit, now) {
    let added = 0
    membersOf(limit).forEach((target, index) => {
      if (!state.has(target)) added += 2 ** index
      state.set(target, now)
    })
    return added
  },

  refund(state, limit, _now, chargedAt, _cost, added) {
    membersOf(limit).forEach((target, index) => {
      if (Math.floor(added / 2 ** index) % 2 === 1 && state.get(target) === chargedAt) state.delete(target)
    })
  },

  expires(state, limit, now) {
    let last = now
    for (const at of state.values()) last = Math.max(last, at + limit.windowUs)
    return last
  },
}
