import type { Request, Response } from 'express'
import type { Client } from './client.ts'
import type { Duration } from './duration.ts'

/** The algorithms, by the name that a policy of theirs has when it is given none. */
export type PolicyKind =
  | 'token-bucket'
  | 'sliding-window'
  | 'sliding-log'
  | 'fixed-window'
  | 'first-minutes'
  | 'concurrency'
  | 'failures'
  | 'unique-targets'
  | 'pool-demand'
  | 'single-use'
  | 'standing'
  | 'credits'

/** A number of units for everybody, or a client's own, usually from `client.claims`. A whole number from 0 to 10¹². */
export type Amount = number | ((client: Client) => number)

/** What a request costs: a whole number from 0 to 10¹², or what says so. 0 is free. */
export type Cost = number | ((req: Request, client: Client) => number | Promise<number>)

/**
 * Whose counter a policy uses.
 *
 * - `client` (default): each client its own.
 * - `address`: each address its own, whoever sends from it; IPv6 by subnet.
 * - `tier`: one for all clients of a tier.
 * - `global`: one for everybody.
 * - a function: one for each text it returns (a tenant, a model, …), of 1 to 4096 characters.
 */
export type Partition = 'client' | 'address' | 'tier' | 'global' | ((req: Request, client: Client) => string)

/** What a policy does when the store is away; see `onStoreError` of the limiter. */
export type OnStoreError = 'local' | 'open' | 'closed'

/** What every policy takes. */
export interface PolicyOptions {
  /**
   * Names the policy in header fields, in `violated` and in its counters: printable ASCII, unique within a decision.
   * Default: the kind, such as `token-bucket`. A new name is a new counter.
   */
  name?: string
  /** Whose counter it is. Default `client`. */
  partition?: Partition
  /**
   * The IETF quota unit: `requests` (default), `content-bytes` (the body bytes really sent, debited when the response ends), or
   * your own (`tokens`, `points`).
   */
  unit?: string
  /** What a request costs here. Default: the route's cost, which is 1 unless it says otherwise. */
  cost?: Cost
  /**
   * `before` (default): charged with the decision, corrected by `settle`. `after`: there must be room for one unit to start,
   * and the cost is debited when the response ends; it may leave a debt that the next request waits out.
   */
  charge?: 'before' | 'after'
  /** The policy applies only to requests for which this is true. */
  when?: (req: Request, client: Client) => boolean
  /** `shadow` decides and counts, and refuses nothing. Default `enforce`. */
  mode?: 'enforce' | 'shadow'
  /**
   * Caps, in units a second, how much quota the `RateLimit` field advertises against its time, as the draft asks of long
   * windows. It lowers what is told, never what is admitted. Default: no cap.
   */
  maxRate?: number
  /** What this policy does when the store is away. Default: the limiter's. */
  onStoreError?: OnStoreError
}

/**
 * How a process takes a part of a hot quota at once and spends it without asking the store for it.
 *
 * What is held and not spent is missed by others: at most `share` of the quota for each process, for `ttl`; of a process that is
 * killed, until it leaves the window.
 */
export interface Prefetch {
  /** The part of the quota that a process takes at a time: from 0.001 to 0.25. */
  share: number
  /** For how long it is held at most: from 10 ms to a tenth of the window. Default `1s`. */
  ttl?: Duration
}

/** What the policies with a window take. */
export interface WindowPolicyOptions extends PolicyOptions {
  /** How much is allowed in a window. */
  quota: Amount
  /** The length of the window, from 1 ms to 366 days. */
  window: Duration
  /**
   * For a counter that many clients share, and every request would ask for: each process takes a part of its quota at once.
   * Default: each request asks.
   */
  prefetch?: Prefetch
}

/** Where the windows of a policy begin. */
export interface Calendar {
  /** Windows of equal length begin here, and every window before and after, in ms since 1970. */
  readonly originMs: number
  /** The day that months begin with; 0 where windows are no months. */
  readonly monthDay: number
}

/** A limit, as its builder made it. Treat it as opaque: build it with `tokenBucket`, `slidingWindow`, … */
export interface Policy {
  readonly kind: PolicyKind
  readonly name: string
  readonly quota: Amount
  /** What a token bucket holds at most; undefined means the quota. */
  readonly burst: Amount | undefined
  /** The window; of `concurrency`, the lease. */
  readonly windowMs: number
  /** Only of `first-minutes`: ms from one grant to the next. */
  readonly renewAfterMs: number | undefined
  /** Only of a `fixed-window` that follows the calendar. */
  readonly calendar: Calendar | undefined
  /** Only of `concurrency` that counts sessions: names the session. */
  readonly per: ((req: Request, client: Client) => string) | undefined
  /** Only of `unique-targets`: what a request touches, where the route does not say. */
  readonly target: ((req: Request, client: Client) => string | readonly string[] | undefined) | undefined
  /** Only of `failures`: whether a response counts. */
  readonly counts: ((res: Response) => boolean) | undefined
  /** Only of `failures`: charged before, given back when the response does not count. Undefined: as the route says. */
  readonly reserve: boolean | undefined
  /** Counts slots that are held while a request runs, or a session lasts; also of what a pool keeps of such a policy. */
  readonly holdsSlots: boolean
  readonly partition: Partition
  readonly unit: string
  readonly cost: Cost | undefined
  readonly charge: 'before' | 'after'
  readonly when: ((req: Request, client: Client) => boolean) | undefined
  readonly mode: 'enforce' | 'shadow'
  readonly maxRate: number | undefined
  readonly onStoreError: OnStoreError | undefined
  /** Where a process takes parts of the quota at once. */
  readonly prefetch: { readonly share: number; readonly ttlMs: number } | undefined
  /** Names the policy's counters within a partition: 32 bits of name, kind and window. */
  readonly stateId: number
}
