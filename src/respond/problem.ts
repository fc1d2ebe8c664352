import type { Decision, RefusalReason } from '../decision.ts'
import { formatDuration } from '../duration.ts'
import type { Answer, AppliedPolicy, PaymentDemand } from './answer.ts'
import { millisecondsToWait, secondsToWait } from './retry.ts'

/**
 * What went wrong, for programs. Stable: never renamed.
 *
 * - `rate_limit_exceeded`: a quota is used up; wait `retry_after_ms`.
 * - `cost_exceeds_limit`: the request costs more than the limit ever holds; ask for less.
 * - `temporarily_unavailable`: nothing is wrong with the request; wait `retry_after_ms`, which is an estimate.
 * - `invalid_credential`: the credential is missing or wrong; `WWW-Authenticate` says what would do.
 * - `invalid_request`: the credential cannot be read.
 * - `insufficient_scope`: the credential does not allow this.
 * - `abnormal_usage`: what this client did lately; `advice` says what to do instead.
 * - `approval_required`: people have to let this client in first.
 * - `payment_required`: it costs `price`, which can be paid in one of `ways`.
 */
export type ProblemErrorType =
  | 'rate_limit_exceeded'
  | 'cost_exceeds_limit'
  | 'temporarily_unavailable'
  | 'invalid_credential'
  | 'invalid_request'
  | 'insufficient_scope'
  | 'abnormal_usage'
  | 'approval_required'
  | 'payment_required'

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
    /** As in `RateLimit-Ticket`: returned there after that time, and at most 2 s later, it is admitted whatever else came. */
    readonly ticket?: string
    readonly limit?: number
    readonly remaining?: number
    /** As in `1m`, or `month`. */
    readonly window?: string
    /** When all of the limit is free again: a moment as in RFC 3339, rounded up to a second. */
    readonly reset_at?: string
    /** What the request costs, and what the limit holds at most: of a cost that never fits. */
    readonly cost?: number
    readonly capacity?: number
    /** What the client should do instead, where its conduct tells. */
    readonly advice?: string
    /** What it costs; what the account has; and how it can be paid: of a request that is not. */
    readonly price?: { readonly credits: number }
    readonly balance?: { readonly available: number; readonly held: number }
    readonly ways?: readonly Readonly<Record<string, unknown>>[]
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
} as const

const abnormal = {
  status: 403,
  type: 'https://iana.org/assignments/http-problem-types#abnormal-usage-detected',
  title: 'Request not satisfied due to detection of abnormal request pattern',
  error: 'abnormal_usage',
} as const

/** The problem types of draft-ietf-httpapi-ratelimit-headers-11 section 5; `about:blank` as in RFC 9457 section 4.2.1. */
const kinds: Record<RefusalReason, ProblemKind> = {
  quota: { ...quotaExceeded, status: 429, error: 'rate_limit_exceeded' },
  never: { ...quotaExceeded, status: 403, error: 'cost_exceeds_limit', retryable: false },
  capacity: reducedCapacity,
  store: reducedCapacity,
  verification: reducedCapacity,
  proof: { status: 401, type: 'about:blank', title: 'Unauthorized', error: 'invalid_credential', retryable: false },
  abuse: abnormal,
  approval: { status: 403, type: 'about:blank', title: 'Forbidden', error: 'approval_required', retryable: false },
  payment: { status: 402, type: 'about:blank', title: 'Payment Required', error: 'payment_required', retryable: false },
  scope: { status: 403, type: 'about:blank', title: 'Forbidden', error: 'insufficient_scope', retryable: false },
}

/** Too much is asked of a client whose quotas are cut for what it did; and what would answer a challenge is missing. */
const throttledForAbuse: ProblemKind = { ...abnormal, status: 429 }
const challenged: ProblemKind = { ...abnormal, status: 401 }
const challengedToPay: ProblemKind = { ...abnormal, status: 402 }

/** What `violated` names where a client has been asked to pay, or has paid wrongly, too often. */
export const paymentChallenges = 'payment-challenges'

/** A credential that cannot be read at all. */
const unreadable: ProblemKind = {
  status: 400,
  type: 'about:blank',
  title: 'Bad Request',
  error: 'invalid_request',
  retryable: false,
}

/** Too many wrong credentials from one address: a better tier would not have helped. */
const tooManyFailures: ProblemKind = {
  type: quotaExceeded.type,
  title: quotaExceeded.title,
  status: 429,
  error: 'rate_limit_exceeded',
}

function kindOf({ reason = 'quota', violated }: Decision, status: number | undefined): ProblemKind {
  if ((reason === 'proof' || reason === 'payment') && status === 400) return unreadable
  if (reason === 'payment' && status === 503) return reducedCapacity
  if (reason === 'abuse' && status === 401) return challenged
  if (reason === 'abuse' && status === 402) return challengedToPay
  if (reason === 'abuse' && violated.length > 0) return throttledForAbuse
  return reason === 'verification' && violated.includes(failedProofs) ? tooManyFailures : kinds[reason]
}

/** What `violated` names where an address has shown too many wrong credentials. */
export const failedProofs = 'failed-proofs'

/**
 * Says why a request was refused.
 *
 * @param demandedStatus of a credential that is not enough
 * @param demanded what credential would do, in words
 *
 * @see [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)
 */
export function problemOf(
  { decision, policies, nowMs, byShare = false, payment }: Answer,
  links: ProblemLinks,
  demandedStatus?: number,
  demanded?: string,
): Problem {
  const reason = decision.reason ?? 'quota'
  const kind = kindOf(decision, reason === 'abuse' ? demandedStatus : (payment?.status ?? demandedStatus))
  const { retryAfterMs, retryEstimated, violated } = decision
  const { tier } = decision.client
  const refusing = longestWait(policies, violated)
  const detail =
    kind === tooManyFailures
      ? `This address has shown too many credentials that are wrong${tryAgain(decision)}.`
      : kind === challenged || kind === challengedToPay
        ? describeChallenge(decision, kind === challengedToPay ? undefined : (demanded ?? provenKey), payment)
        : describe(reason === 'abuse' && kind.status === 429 ? 'quota' : reason, decision, refusing, byShare, payment)
  return {
    type: kind.type,
    title: kind.title,
    status: kind.status,
    detail,
    ...(violated.length > 0 && kind.type !== 'about:blank' && { 'violated-policies': violated }),
    ...(kind.retryable === false && { retryable: false as const }),
    ...(retryEstimated && { retry_estimated: true as const }),
    error: {
      type: kind.error,
      message: detail,
      tier,
      ...(retryAfterMs !== null && {
        retry_after: secondsToWait(retryAfterMs),
        retry_after_ms: millisecondsToWait(retryAfterMs),
      }),
      ...(decision.ticket !== undefined && { ticket: decision.ticket }),
      ...(decision.abuse?.advice !== undefined && { advice: decision.abuse.advice }),
      ...(refusing !== undefined && numbersOf(refusing, reason, retryAfterMs, nowMs)),
      ...(payment !== undefined && paymentOf(payment)),
      ...(links.docsUrl !== undefined && { docs_url: links.docsUrl }),
      ...(links.upgradeUrl !== undefined && kind.upgradeHelps === true && { upgrade_url: links.upgradeUrl }),
    },
  }
}

function paymentOf({ status, price, balance, ways }: PaymentDemand): Partial<Problem['error']> {
  return status !== 402 ? {} : { price, ...(balance !== undefined && { balance }), ways }
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
    ...(reason === 'never' && { cost: status.cost, capacity: status.capacity }),
    // Slots are all free again when the last request ends, and nobody knows when that is.
    ...(reason !== 'never' &&
      status.windowMs !== null && { reset_at: momentOf(nowMs + Math.max(status.resetMs, retryAfterMs ?? 0)) }),
  }
}

/** A moment as in `2026-02-27T12:00:00Z`, rounded up to a second. */
function momentOf(unixMs: number): string {
  return new Date(Math.ceil(unixMs / 1000) * 1000).toISOString().replace('.000Z', 'Z')
}

function describe(
  reason: RefusalReason,
  decision: Decision,
  refusing: AppliedPolicy | undefined,
  byShare: boolean,
  payment: PaymentDemand | undefined,
): string {
  const { tier } = decision.client
  switch (reason) {
    case 'quota':
      return describeQuota(decision, refusing)
    case 'never':
      return describeNever(tier, refusing)
    case 'capacity':
      return `The service can take fewer requests than usual at the moment${tryAgain(decision)}.`
    case 'store':
      if (payment?.status === 503) return `${payment.error}${tryAgain(decision)}.`
      return byShare
        ? `Each server counts for itself at the moment, and what this one may still admit is less than this request costs${tryAgain(decision)}.`
        : `Limits cannot be checked at the moment, so this request was not admitted${tryAgain(decision)}.`
    case 'verification':
      return `The credential cannot be checked at the moment${tryAgain(decision)}.`
    case 'abuse':
      return `${conductOf(decision)}${tryAgain(decision)}.`
    case 'approval':
      return 'People have to approve this client for this first.'
    case 'payment':
      return payment?.status === 503 ? `${payment.error}${tryAgain(decision)}.` : describePayment(payment)
    case 'scope':
      return 'The credential does not allow this.'
    case 'proof':
      return 'The credential is missing or not valid here.'
  }
}

function conductOf({ abuse, retryAfterMs }: Decision): string {
  return retryAfterMs === null || abuse === undefined || abuse.step === 'suspend'
    ? 'This client is suspended'
    : 'Requests of this client look abnormal, so none is admitted for a while'
}

const provenKey = 'a credential that proves a key, as WWW-Authenticate says'

/** What answers it, and that waiting does too. */
function describeChallenge(
  decision: Decision,
  demanded: string | undefined,
  payment: PaymentDemand | undefined,
): string {
  const wait = describeWait(decision)
  const otherwise = wait === null ? '' : `; without one, try again in ${wait}`
  const paid = payment && `a payment of ${amount(payment.price.credits, 'credits')} as in one of \`ways\``
  const needed = [demanded, paid].filter((one) => one !== undefined).join(', or ')
  if (needed === '') return `${conductOf(decision)}${tryAgain(decision)}.`
  return `Requests of this client look abnormal, so they need ${needed}${otherwise}.`
}

function describePayment(payment: PaymentDemand | undefined): string {
  if (payment === undefined) return 'This request has to be paid.'
  const { price, balance, error, status } = payment
  if (status === 400) return `The payment cannot be read: ${error}.`
  const costs = `This request costs ${amount(price.credits, 'credits')}`
  if (error !== undefined) return `${costs}, and the payment was not taken: ${error}.`
  return balance === undefined ? `${costs}.` : `${costs}; ${balance.available} are available.`
}

function describeQuota(decision: Decision, refusing: AppliedPolicy | undefined): string {
  const { tier } = decision.client
  if (decision.violated.includes(paymentChallenges)) {
    return `Too many requests came without a payment, or with one that is not good${tryAgain(decision)}.`
  }
  if (refusing === undefined) return `The quota of tier ${JSON.stringify(tier)} is used up${tryAgain(decision)}.`
  const { policy } = refusing
  const { quota, windowMs, cost, unit: ofCost } = refusing.status
  const unit = countedAs(refusing)
  const window = windowMs === null || isMonth(refusing.policy) ? 'month' : describeWindow(windowMs)
  const per = windowMs === null ? ' at a time' : ` per ${window}`
  const allowance = `${capitalised(subjectOf(refusing, tier))} allows ${amount(quota, unit)}${per}`
  const told = describeWait(decision)
  const wait = told === null ? '' : ` is admitted in ${told}`
  // What costs by another measure is not one of what is counted.
  const isOne = cost === 0 || (cost === 1 && (ofCost === 'requests' || policy.holdsSlots || policy.kind === 'failures'))
  if (isOne) return wait === '' ? `${allowance}.` : `${allowance}; the next one${wait}.`
  return `${allowance}; this request costs ${cost}${wait === '' ? '' : ` and${wait}`}.`
}

function describeNever(tier: string, refusing: AppliedPolicy | undefined): string {
  if (refusing === undefined) return `This request costs more than tier ${JSON.stringify(tier)} ever admits.`
  const { cost, capacity } = refusing.status
  const unit = countedAs(refusing)
  return `This request costs ${cost}; ${subjectOf(refusing, tier)} never admits more than ${amount(capacity, unit)} at once.`
}

/** Whose limit it is, within a sentence. */
function subjectOf({ ofRoute, ofPool }: AppliedPolicy, tier: string): string {
  if (ofRoute === true) return 'this route'
  return ofPool === true ? `the pool of tier ${JSON.stringify(tier)}` : `tier ${JSON.stringify(tier)}`
}

function capitalised(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}`
}

function tryAgain(decision: Decision): string {
  const wait = describeWait(decision)
  return wait === null ? '' : `; try again in ${wait}`
}

/** What a policy counts, as it follows a number: `requests`, `failed requests`, `tokens`. */
function countedAs({ policy, status }: AppliedPolicy): string {
  if (status.unit !== 'requests' && status.unit !== 'concurrent-requests') return status.unit
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

/** Rounded up, in the unit that people would say it in: `2 s`, `15 min`, `7 h`, `20 days`; `about 2 s` where it is a guess. */
function describeWait({ retryAfterMs, retryEstimated }: Decision): string | null {
  if (retryAfterMs === null) return null
  const seconds = secondsToWait(retryAfterMs)
  const about = retryEstimated ? 'about ' : ''
  if (seconds < 120) return `${about}${seconds} s`
  if (seconds < 7200) return `${about}${Math.ceil(seconds / 60)} min`
  if (seconds < 2 * 86_400) return `${about}${Math.ceil(seconds / 3600)} h`
  return `${about}${Math.ceil(seconds / 86_400)} days`
}
