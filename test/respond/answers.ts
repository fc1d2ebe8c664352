import type { Decision, LimitStatus, RefusalReason } from '../../src/decision.ts'
import type { Policy } from '../../src/policy.ts'
import type { Answer, AppliedPolicy } from '../../src/respond/answer.ts'

/** Noon of a day, as Unix time in ms. */
export const noon: number = Date.UTC(2026, 1, 27, 12)

/** A policy as it stands after a decision; what is not said is as of one that nobody has used. */
export function applied(
  policy: Policy,
  status: Partial<LimitStatus> = {},
  more: Partial<AppliedPolicy> = {},
): AppliedPolicy {
  const quota = status.quota ?? (policy.quota as number)
  const capacity = status.capacity ?? (policy.burst as number | undefined) ?? quota
  return {
    policy,
    partition: 'key:acme',
    status: {
      name: policy.name,
      quota,
      windowMs: policy.windowMs,
      unit: policy.unit,
      cost: 1,
      remaining: capacity,
      resetMs: 0,
      waitMs: 0,
      capacity,
      ...status,
    },
    ...more,
  }
}

export interface Outcome {
  tier?: string
  reason?: RefusalReason
  violated?: readonly string[]
  retryAfterMs?: number | null
  retryEstimated?: boolean
}

/** An answer; a refusal if it has a reason. */
export function answer(policies: readonly AppliedPolicy[], outcome: Outcome = {}): Answer {
  const { reason } = outcome
  const decision: Decision = {
    admitted: reason === undefined,
    enforced: true,
    client: {
      id: 'key:acme',
      kind: 'agent',
      tier: outcome.tier ?? 'agent',
      provedBy: 'api-key',
      confidence: 1,
      reasons: [],
      claims: {},
      address: null,
      hint: null,
    },
    limits: policies.map(({ status }) => status),
    violated: outcome.violated ?? [],
    retryAfterMs: reason === undefined ? 0 : (outcome.retryAfterMs ?? null),
    retryEstimated: outcome.retryEstimated ?? false,
    ...(reason !== undefined && { reason }),
    degraded: false,
    settle() {},
    refund() {},
    release() {},
  }
  return { decision, policies, nowMs: noon }
}
