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
  /** It belongs to the pool that the client's tier draws on. */
  readonly ofPool?: boolean
}

/** What a request is asked to pay. */
export interface PaymentDemand {
  /** 400 for a payment that cannot be read; 503 where it cannot be looked at, or taken, for now. */
  readonly status: 400 | 402 | 503
  /** Why the payment that came was not taken. */
  readonly error: string | undefined
  readonly price: { readonly credits: number }
  readonly balance: { readonly available: number; readonly held: number } | undefined
  /** How it can be paid. */
  readonly ways: readonly Readonly<Record<string, unknown>>[]
  /** Header fields that say so too. */
  readonly fields: Readonly<Record<string, string>>
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
  /** Refused without the store, by what this process has of the limits meanwhile. */
  readonly byShare?: boolean | undefined
  /** Of a request that is not paid. */
  readonly payment?: PaymentDemand | undefined
}
