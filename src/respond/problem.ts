import type { RefusalReason } from '../decision.ts'
import { formatDuration } from '../duration.ts'
import type { Answer, AppliedPolicy } from './answer.ts'
import { millisecondsToWait, secondsToWait } from './retry.ts'

/**
 * What went wrong, for programs. Stable: never renamed.
 *
 * - `rate_limit_exceeded`: a quota is used up; wait `retry_after_ms`.
 * - `cost_exceeds_limit`: the request costs more than the limit ever holds; ask for less.
 * - `temporarily_unavailable`: nothing is wrong with the request; wait `retry_after_ms`, which is an estimate.
 * - `invalid_credential`: the credential is missing or wrong; `WWW-Authenticate` says what would do.
 */
export type ProblemErrorType =
  | 'rate_limit_exceeded'
  | 'cost_exceeds_limit'
  | 'temporarily_unavailable'
  | 'invalid_credential'

/** The body of a refusal. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  /** The same in words, for people. */
  readonly detail: string
  /** The policies that refused. */
  readonly 'violated-policies'?: readonly string[]
  /** False where the same request will be refused however long one waits; else absent. */
  readonly retryable?: false
  /** True where the time to wait is a guess: whether it is enough depends on others. */
  readonly retry_estimated?: true
  /** The same as fields, in the shape that clients of large APIs look for. The numbers are those of the longest wait. */
  readonly error: {
    readonly type: ProblemErrorType
    readonly message: string
    readonly tier: string
    /** Seconds, rounded up, as in `Retry-After`. */
    readonly retry_after?: number
    readonly retry_after_ms?: number
    readonly limit?: number
    readonly remaining?: number
    /** As in `1m`, or `month`. */
    readonly window?: string
    /** When all of the limit is free again: a moment as in RFC 3339, rounded up to a second. */
    readonly reset_at?: string
    /** What the request costs, and what the limit holds at most: of a cost that never fits. */
    readonly cost?: number
    readonly capacity?: number
    readonly docs_url?: string
    readonly upgrade_url?: string
  }
}

/** Where a refused client can read on. */
export interface ProblemLinks {
  readonly docsUrl?: string | undefined
  readonly upgradeUrl?: string | undefined
}

interface ProblemKind {
  readonly status: number
  readonly type: string
  readonly title: string
  readonly error: ProblemErrorType
  /** Whether a better tier would have helped. */
  readonly upgradeHelps?: true
  readonly retryable?: false
  readonly estimated?: true
}

const quotaExceeded = {
  type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
  title: 'Request cannot be satisfied as assigned quota has been exceeded',
  upgradeHelps: true,
} as const

const reducedCapacity = {
  status: 503,
  type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
  title: 'Request cannot be satisfied due to temporary server capacity constraints',
  error: 'temporarily_unavailable',
  estimated: true,
} as const

/** The problem types of draft-ietf-httpapi-ratelimit-headers-11 section 5; `about:blank` as in RFC 9457 section 4.2.1. */
const kinds: Record<RefusalReason, ProblemKind> = {
  quota: { ...quotaExceeded, status: 429, error: 'rate_limit_exceeded' },
  never: { ...quotaExceeded, status: 403, error: 'cost_exceeds_limit', retryable: false },
  capacity: reducedCapacity,
  store: reducedCapacity,
  verification: reducedCapacity,
  proof: { status: 401, type: 'about:blank', title: 'Unauthorized', error: 'invalid_credential', retryable: false },
}

/**
 * Says why a request was refused.
 *
 * @see [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)
 */
export function problemOf({ decision, policies, nowMs }: Answer, links: ProblemLinks): Problem {
  const reason = decision.reason ?? 'quota'
  const kind = kinds[reason]
  const { retryAfterMs, violated } = decision
  const { tier } = decision.client
  const refusing = longestWait(policies, violated)
  const detail = describe(reason, tier, refusing, retryAfterMs)
  return {
    type: kind.type,
    title: kind.title,
    status: kind.status,
    detail,
    ...(violated.length > 0 && kind.type !== 'about:blank' && { 'violated-policies': violated }),
    ...(kind.retryable === false && { retryable: false as const }),
    ...((kind.estimated === true || waitsForSlots(policies, violated)) && { retry_estimated: true as const }),
    error: {
      type: kind.error,
      message: detail,
      tier,
      ...(retryAfterMs !== null && {
        retry_after: secondsToWait(retryAfterMs),
        retry_after_ms: millisecondsToWait(retryAfterMs),
      }),
      ...(refusing !== undefined && numbersOf(refusing, reason, retryAfterMs, nowMs)),
      ...(links.docsUrl !== undefined && { docs_url: links.docsUrl }),
      ...(links.upgradeUrl !== undefined && kind.upgradeHelps === true && { upgrade_url: links.upgradeUrl }),
    },
  }
}

/** Of the policies that refused, the one that makes the request wait longest. */
function longestWait(policies: readonly AppliedPolicy[], violated: readonly string[]): AppliedPolicy | undefined {
  let longest: AppliedPolicy | undefined
  for (const one of policies) {
    if (!violated.includes(one.status.name)) continue
    if (longest === undefined || waitOf(one) > waitOf(longest)) longest = one
  }
  return longest
}

/** Whether a slot has to come back first: nobody knows when a request ends. */
function waitsForSlots(policies: readonly AppliedPolicy[], violated: readonly string[]): boolean {
  return policies.some(({ policy, status }) => policy.kind === 'concurrency' && violated.includes(status.name))
}

function waitOf({ status }: AppliedPolicy): number {
  return status.waitMs ?? Infinity
}

function numbersOf(
  { status, policy }: AppliedPolicy,
  reason: RefusalReason,
  retryAfterMs: number | null,
  nowMs: number,
): Partial<Problem['error']> {
  return {
    limit: status.quota,
    remaining: status.remaining,
    ...(status.windowMs !== null && { window: isMonth(policy) ? 'month' : formatDuration(status.windowMs) }),
    ...(reason === 'never'
      ? { cost: status.cost, capacity: status.capacity }
      : { reset_at: momentOf(nowMs + Math.max(status.resetMs, retryAfterMs ?? 0)) }),
  }
}

/** A moment as in `2026-02-27T12:00:00Z`, rounded up to a second. */
function momentOf(unixMs: number): string {
  return new Date(Math.ceil(unixMs / 1000) * 1000).toISOString().replace('.000Z', 'Z')
}

function describe(
  reason: RefusalReason,
  tier: string,
  refusing: AppliedPolicy | undefined,
  retryAfterMs: number | null,
): string {
  switch (reason) {
    case 'quota':
      return describeQuota(tier, refusing, retryAfterMs)
    case 'never':
      return describeNever(tier, refusing)
    case 'capacity':
      return `The service can take fewer requests than usual at the moment${tryAgain(retryAfterMs)}.`
    case 'store':
      return `Limits cannot be checked at the moment, so this request was not admitted${tryAgain(retryAfterMs)}.`
    case 'verification':
      return `The credential cannot be checked at the moment${tryAgain(retryAfterMs)}.`
    case 'proof':
      return 'The credential is missing or not valid here.'
  }
}

function describeQuota(tier: string, refusing: AppliedPolicy | undefined, retryAfterMs: number | null): string {
  if (refusing === undefined) return `The quota of tier ${JSON.stringify(tier)} is used up${tryAgain(retryAfterMs)}.`
  const { quota, windowMs, cost, unit: ofCost } = refusing.status
  const unit = countedAs(refusing)
  const window = windowMs === null || isMonth(refusing.policy) ? 'month' : describeWindow(windowMs)
  const per = windowMs === null ? ' at a time' : ` per ${window}`
  const allowance = `${subjectOf(refusing, tier)} allows ${amount(quota, unit)}${per}`
  const wait = retryAfterMs === null ? '' : ` is admitted in ${describeWait(retryAfterMs)}`
  // What costs by another measure is not one of what is counted.
  const isOne = cost === 0 || (cost === 1 && (ofCost === 'requests' || ofCost === 'concurrent-requests'))
  if (isOne) return wait === '' ? `${allowance}.` : `${allowance}; the next one${wait}.`
  return `${allowance}; this request costs ${cost}${wait === '' ? '' : ` and${wait}`}.`
}

function describeNever(tier: string, refusing: AppliedPolicy | undefined): string {
  if (refusing === undefined) return `This request costs more than tier ${JSON.stringify(tier)} ever admits.`
  const { cost, capacity } = refusing.status
  const unit = countedAs(refusing)
  const subject = refusing.ofRoute === true ? 'this route' : `tier ${JSON.stringify(tier)}`
  return `This request costs ${cost}; ${subject} never admits more than ${amount(capacity, unit)} at once.`
}

function subjectOf({ ofRoute }: AppliedPolicy, tier: string): string {
  return ofRoute === true ? 'This route' : `Tier ${JSON.stringify(tier)}`
}

function tryAgain(retryAfterMs: number | null): string {
  return retryAfterMs === null ? '' : `; try again in ${describeWait(retryAfterMs)}`
}

/** What a policy counts, as it follows a number: `requests`, `failed requests`, `tokens`. */
function countedAs({ policy, status }: AppliedPolicy): string {
  if (policy.kind === 'failures') return 'failed requests'
  if (policy.kind === 'unique-targets') return 'different targets'
  if (policy.kind === 'concurrency') return policy.per === undefined ? 'requests' : 'sessions'
  return status.unit
}

function amount(count: number, unit: string): string {
  if (unit === 'content-bytes') return `${count} bytes`
  return `${count} ${count === 1 && unit.endsWith('s') ? unit.slice(0, -1) : unit}`
}

function isMonth({ calendar }: AppliedPolicy['policy']): boolean {
  return calendar !== undefined && calendar.monthDay > 0
}

const windowUnits = [
  ['day', 86_400_000],
  ['hour', 3_600_000],
  ['minute', 60_000],
  ['second', 1000],
] as const

/** As it follows "per": `minute`, `15 minutes`, `250 ms`. */
function describeWindow(windowMs: number): string {
  for (const [unit, size] of windowUnits) {
    if (windowMs === size) return unit
    if (windowMs % size === 0) return `${windowMs / size} ${unit}s`
  }
  return `${windowMs} ms`
}

/** Rounded up, in the unit that people would say it in: `2 s`, `15 min`, `7 h`. */
function describeWait(waitMs: number): string {
  const seconds = secondsToWait(waitMs)
  if (seconds < 120) return `${seconds} s`
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} min`
  return `${Math.ceil(seconds / 3600)} h`
}
