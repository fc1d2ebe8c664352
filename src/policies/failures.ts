import type { Response } from 'express'
import type { Cost, Policy, PolicyOptions, WindowPolicyOptions } from '../policy.ts'
import { buildPolicy, failuresShape } from './build.ts'

export interface FailuresOptions extends PolicyOptions, Pick<WindowPolicyOptions, 'quota' | 'window'> {
  /** What a failure counts. Default 1, whatever the route costs. */
  cost?: Cost
  /** `before` is the same as `reserve: true`, `after` as `reserve: false`. */
  charge?: 'before' | 'after'
  /** Whether a response counts. Default: status 401, 403 and 404. */
  counts?: (res: Response) => boolean
  /**
   * Charged before the handler and given back when the response does not count, so that parallel guesses cannot outrun the
   * limit. Default false; true on a route with `highRisk`.
   */
  reserve?: boolean
}

/**
 * At most `quota` responses that count as failures in any span of length `window`; then every further try is refused.
 * For credential stuffing and enumeration: by client, or with `partition: 'address'` by address.
 *
 * Counted as a `slidingWindow` is: constant memory, exact for quotas up to 16.
 *
 * @example failures({ name: 'bad-logins', quota: 10, window: '15m', counts: (res) => res.statusCode === 401 })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_POLICY_NAME`
 */
export function failures(options: FailuresOptions): Policy {
  return buildPolicy('failures', failuresShape, options)
}

/** What counts where the policy does not say. */
export function isFailure(res: Response): boolean {
  return res.statusCode === 401 || res.statusCode === 403 || res.statusCode === 404
}
