import type { Client } from './client.ts'
import type { SignalName, Step } from './standing.ts'
import type { Payment } from './payment.ts'

/**
 * Why a request was refused.
 *
 * - `quota`: a policy has no room now; 429, and `retryAfterMs` says when it has.
 * - `never`: it costs more than a policy ever holds; 403, waiting does not help.
 * - `capacity`: there is less to give than usual; 503.
 * - `store`: the store was away, and what applied says to refuse then; 503.
 * - `proof`: a credential was wrong, or none came where one is needed; 401.
 * - `scope`: the credential does not allow this; 403.
 * - `abuse`: what the client did, or people decided: 429 where it is throttled, 403 where it is denied or suspended, 401 where a
 *   credential would answer the challenge.
 * - `approval`: people have to approve this client for the route first; 403. Strangers are asked for a credential: `proof`, 401.
 * - `verification`: the credential was not checked: what is needed could not be had, 503; or its address has shown too many
 *   wrong ones, 429.
 * - `payment`: it has a price, and is not paid, 402; or its payment could not be looked at or taken, 503.
 */
export type RefusalReason =
  | 'quota'
  | 'never'
  | 'capacity'
  | 'store'
  | 'proof'
  | 'scope'
  | 'verification'
  | 'abuse'
  | 'approval'
  | 'payment'

/** What one policy said about one request. */
export interface LimitStatus {
  /** The policy's name, as in `RateLimit-Policy`. */
  readonly name: string
  /** What the window allows; for a token bucket the refill per window. */
  readonly quota: number
  /** The window in ms; null for a policy without one. */
  readonly windowMs: number | null
  /** The IETF quota unit, `requests` unless the policy says otherwise. */
  readonly unit: string
  /** What this request cost here, in `unit`. */
  readonly cost: number
  /** What is left after this decision, in whole units, never below 0. */
  readonly remaining: number
  /**
   * How long, in ms rounded up, until nothing of what was used counts any more. 0 when nothing is used. Of slots, until the last
   * lease runs out, if it is not renewed.
   */
  readonly resetMs: number
  /** How long, in ms rounded up, until this policy alone has room for the same cost again; null when it never has. Of slots a guess. */
  readonly waitMs: number | null
  /** What can be used at once when nothing is used: the burst of a token bucket, else the quota. */
  readonly capacity: number
}

/**
 * What the limiter decided about a request. Middleware puts it on `req.rateLimit`.
 *
 * @example A bucket of 500 a minute that holds 200, of which this request took the 47th:
 * `{ admitted: true, limits: [{ name: 'per-minute', quota: 500, capacity: 200, cost: 1, remaining: 153, … }], violated: [], retryAfterMs: 0, … }`
 */
export interface Decision {
  /** Whether every policy had room. Nothing was charged when false. */
  readonly admitted: boolean
  /** False in shadow mode: what `admitted` says did not count. */
  readonly enforced: boolean
  readonly client: Client
  /** Every policy that applied, in the order it was configured. Empty when the tier is unlimited or the store was away. */
  readonly limits: readonly LimitStatus[]
  /** Names of the policies that refused. */
  readonly violated: readonly string[]
  /**
   * When the same request will be admitted, in ms from the decision, if nothing else is charged meanwhile: 0 when it was
   * admitted, null when waiting does not help.
   */
  readonly retryAfterMs: number | null
  /**
   * True where `retryAfterMs` is a guess, so that whoever waits it out may be refused again: a slot has to come back
   * (`concurrency`), the store is away, or a credential cannot be checked at the moment. False where it is exact, or there is none.
   */
  readonly retryEstimated: boolean
  /** Why it was refused; absent when it was admitted. */
  readonly reason?: RefusalReason
  /** Reserves the slot that `retryAfterMs` tells: for whoever returns it in `RateLimit-Ticket` then, or up to 2 s later. */
  readonly ticket?: string
  /** True when the store was away and the decision was made without it. */
  readonly degraded: boolean
  /** What the client's conduct comes to; absent without the option `abuse`. */
  readonly abuse?: {
    /** In points. */
    readonly score: number
    /** The step taken; where all of the layer is in shadow, the one that would have been. */
    readonly step: Step
    /** The step that would have been taken, where that is higher and in shadow by itself. */
    readonly shadow?: Step
    /** The signals that say something. */
    readonly signals: readonly SignalName[]
    /** What the client should do instead, where that is known. */
    readonly advice?: string
  }
  /** What it pays; absent where that is nothing: no price or one of 0 credits, not admitted, or in shadow. */
  readonly payment?: Payment
  /**
   * Corrects the charge to what the request really cost: the total, for every policy or by policy name where they differ.
   * The last call before the response ends counts. More than was charged may leave a debt that the next request waits out.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_COST` unless every cost is a whole number of at least 0, `RAMPMETER_UNKNOWN_POLICY` for a name that no policy has
   */
  settle(actualCost: number | Record<string, number>): void
  /** Gives the whole charge back: this request never was. */
  refund(): void
  /** Says that the request is no longer in flight. The middleware does it when the response ends. */
  release(): void
}
