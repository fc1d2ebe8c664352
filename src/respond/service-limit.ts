import type { AppliedPolicy } from './answer.ts'
import { secondsToWait } from './retry.ts'

/** RFC 9651 section 3.3.1: an Integer has at most 15 digits. */
const largestInteger = 999_999_999_999_999

/**
 * The effective window (`t`), in whole seconds: how long the available quota has to last.
 *
 * With nothing left it is the wait. A token bucket pays back while it is used, so there it is the time in which what is left
 * would refill: whoever spreads `r` over `t` is never refused. Of a window, it is the time until all of it is free again.
 *
 * @param latest the end of a refusal's wait in seconds, which no window told beside it may outlast; Infinity without one
 * @see [draft-ietf-httpapi-ratelimit-headers-11 sections 4.1.2 and 6](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/)
 */
export function effectiveWindow(applied: AppliedPolicy, latest: number): number {
  const seconds = secondsToWait(effectiveMs(applied))
  // A cap of less than one unit in that time is told as a longer time for one unit: `r=0` would say that none is left.
  const { maxRate } = applied.policy
  const capped = maxRate === undefined || applied.status.remaining === 0 ? seconds : Math.max(seconds, 1 / maxRate)
  return Math.min(Math.ceil(capped), latest, largestInteger)
}

function effectiveMs({ status, policy }: AppliedPolicy): number {
  const untilFree = status.resetMs > 0 ? status.resetMs : (status.windowMs ?? 0)
  if (status.remaining === 0) return status.waitMs ?? untilFree
  if (policy.kind === 'token-bucket' && status.windowMs !== null && status.quota > 0) {
    return (status.remaining * status.windowMs) / status.quota
  }
  // The first minutes' extra is free again when it is granted anew; until then it can be used only in its own window.
  if (policy.renewAfterMs !== undefined) return untilFree - policy.renewAfterMs + policy.windowMs
  return untilFree
}

/** The available quota (`r`): exact, unless the policy's `maxRate` caps what is told for `seconds`. */
export function availableQuota({ status, policy }: AppliedPolicy, seconds: number): number {
  if (policy.maxRate === undefined) return status.remaining
  return Math.min(status.remaining, Math.floor(policy.maxRate * seconds))
}

/**
 * The policy that is closest to refusing, for the fields that can tell of one only: the least left for what a request costs,
 * then the longest wait, then the one that is free again last. The first minutes' extra refuses nobody, so it counts only where it stands in for another.
 */
export function closestToRefusing(policies: readonly AppliedPolicy[]): AppliedPolicy | undefined {
  const lifting = policies.some(isExtra) && policies.some((one) => one.lifted === true)
  let closest: AppliedPolicy | undefined
  for (const one of policies) {
    if (lifting ? one.lifted === true : isExtra(one)) continue
    if (closest === undefined || isCloser(one, closest)) closest = one
  }
  return closest ?? policies[0]
}

function isExtra({ policy }: AppliedPolicy): boolean {
  return policy.kind === 'first-minutes'
}

function isCloser({ status }: AppliedPolicy, { status: other }: AppliedPolicy): boolean {
  const left = status.remaining / Math.max(1, status.cost) - other.remaining / Math.max(1, other.cost)
  if (left !== 0) return left < 0
  const [wait, otherWait] = [status.waitMs ?? Infinity, other.waitMs ?? Infinity]
  return wait === otherWait ? status.resetMs > other.resetMs : wait > otherWait
}
