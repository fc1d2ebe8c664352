import type { Decision, LimitStatus } from '../decision.ts'
import type { Policy } from '../policy.ts'

/** A policy that applied to a request, with what became of it. */
export interface AppliedPolicy {
  readonly policy: Policy
  readonly status: LimitStatus
  /** Whose counter it was. Only its keyed hash leaves the server, as `pk`, and only where there is a key. */
  readonly partition: string
  /** It had no room, and the first minutes' extra was charged in its stead. */
  readonly lifted?: boolean
  /** It belongs to the route and not to the client's tier, so a refusal says so. */
  readonly ofRoute?: boolean
}

/** What a response says about limits. */
export interface Answer {
  readonly decision: Decision
  /**
   * What is told, in the order it was configured. Empty where there is nothing true to tell: an unlimited tier, or a store that
   * is away. First minutes that are over, and policies that refuse nothing (`mode: 'shadow'`), do not belong in it.
   */
  readonly policies: readonly AppliedPolicy[]
  /** The time of the decision as Unix time in ms, for fields that tell a moment. */
  readonly nowMs: number
}
