import type { NextFunction, Request, Response } from 'express'
import type { AdaptiveHealth } from './adaptive/adaptivity.ts'
import type { ReportAbout, ReportedSignal } from './abuse/abuse.ts'
import type { Edge } from './abuse/edge.ts'
import type { Incident, IncidentFilter } from './abuse/incidents.ts'
import type { Moment, Review } from './abuse/review.ts'
import type { StepCounts } from './abuse/step-counts.ts'
import type { Decision } from './decision.ts'
import type { RouteOptions } from './options.ts'
import type { Policy } from './policy.ts'
import type { ReadyOptions } from './ready.ts'

/** Express middleware that does not narrow or widen what the handler behind it knows of its request. */
export interface RouteMiddleware {
  // oxlint-disable-next-line typescript/no-explicit-any -- as Express declares its own locals
  <P, ResBody, ReqBody, ReqQuery, Locals extends Record<string, any>>(
    req: Request<P, ResBody, ReqBody, ReqQuery, Locals>,
    res: Response<ResBody, Locals>,
    next: NextFunction,
  ): void
}

/** What {@link Limiter.decide} decides about. */
export interface DecideRequest<Tier extends string = string> {
  /** Who is asking. Where the limiter has one set of `policies` for everybody, `tier` is `default` and may be left out. */
  client: { id: string; tier?: Tier | 'default' }
  /** What it costs, for every policy without a fixed cost of its own. Default 1. */
  cost?: number
  /** Limits on top of the tier's. */
  policies?: readonly Policy[]
  /** What a refusal of the same request gave as its ticket. */
  ticket?: string
  /** What it touches, for `uniqueTargets`: one text, or up to 32. */
  target?: string | readonly string[]
  /** The partition for each policy, by name, that a function of the request would tell; a policy with `when` applies only if it is named. */
  partitions?: Record<string, string>
}

/** What {@link Limiter.health} tells. All but `store`, `masters`, `ledger` and `abuse` only where the limiter is `adaptive`. */
export interface LimiterHealth extends Partial<AdaptiveHealth> {
  readonly store: 'up' | 'degraded' | 'down'
  /** Of a Redis Cluster: how many masters it has, and how many of them are not asked any more but for probes. */
  readonly masters?: { readonly total: number; readonly away: number }
  /**
   * Where there is a ledger: whether it takes payments. `unsafe`: its Redis could lose money, so priced routes are 503, and `store`
   * is at best `degraded`; `unknown` until it was looked at.
   */
  readonly ledger?: 'safe' | 'unsafe' | 'unknown'
  /** How many requests met which step of a ladder, in this process since it began; absent without the option `abuse`. */
  readonly abuse?: StepCounts
}

/** Rate-limiting middleware, and the same decisions without HTTP. Made by {@link rampmeter}. */
export interface Limiter<Tier extends string = string> extends RouteMiddleware {
  /**
   * Middleware for one route: alone it does the whole job; behind `app.use(limiter)` the request is charged once, at this
   * route's price, in one atomic step. A refusal by the outer limiter is final: what must be looser stands in `routes`.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_DUPLICATE_POLICY`, `RAMPMETER_UNKNOWN_TIER`
   */
  route(options: RouteOptions<Tier>): RouteMiddleware
  /**
   * Decides without HTTP: queues, MCP tools, WebSocket messages. Its `settle` may be called again; the last total counts.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_CLIENT`, `RAMPMETER_UNKNOWN_TIER`, `RAMPMETER_MISSING_PARTITION`, `RAMPMETER_UNKNOWN_POLICY`, `RAMPMETER_INVALID_COST`
   */
  decide(request: DecideRequest<Tier>): Promise<Decision>
  /** What a request of cost 1 would be told now. Charges nothing; policies whose partition only a request could tell are left out. */
  peek(client: { id: string; tier?: Tier | 'default' }): Promise<Decision>
  /**
   * Puts a client in a tier, whatever it would be in otherwise, until the time given; in all processes with their next decision
   * about it. `by` says who decided.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_CLIENT`, `RAMPMETER_UNKNOWN_TIER`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_STORE_UNAVAILABLE`
   */
  assign(clientId: string, how: { tier: Tier; until?: Moment; by: string }): Promise<void>
  /**
   * Ends that: the client is in the tier that it is in otherwise.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_CLIENT`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_STORE_UNAVAILABLE`
   */
  unassign(clientId: string, how: { by: string }): Promise<void>
  /** What people decide about clients: suspensions, approvals, and who did it. */
  readonly review: Review
  /** What clients did, by what it amounts to. Empty without the option `abuse`. */
  readonly incidents: { list(filter?: IncidentFilter): Promise<Incident[]> }
  /**
   * Tells of what only the app knows: a payment dispute, a charge that failed. Resolved, it is counted; with an `id` once, however often
   * it is reported (by the same id of the same client, within 30 days).
   *
   * @throws {RampmeterError} `RAMPMETER_ABUSE_NOT_CONFIGURED`, `RAMPMETER_INVALID_CLIENT`, `RAMPMETER_INVALID_OPTION`;
   *   `RAMPMETER_STORE_UNAVAILABLE` where it may not be counted: report it again
   */
  readonly abuse: { report(clientId: string, what: ReportedSignal, about?: string | ReportAbout): Promise<void> }
  /** Who is denied or suspended, for lists at the edge. */
  readonly edge: Edge
  /**
   * Forgets a client's counters, and those of its address where the id is one. While the store is away what this process counted
   * of it meanwhile is forgotten, and it rejects: reset it again when the store is back.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE` at the latest after 2 s (or the `deadline`, if that is longer)
   */
  reset(clientId: string): Promise<void>
  /**
   * Resolves when the store has answered once.
   *
   * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE` after `within`, `RAMPMETER_REDIS_PERMISSIONS`, `RAMPMETER_CLOSED`,
   * `RAMPMETER_INVALID_DURATION`, `RAMPMETER_UNKNOWN_OPTION`
   */
  ready(options?: ReadyOptions): Promise<void>
  /**
   * Resolves when what was settled so far has reached the store: for serverless functions, before they freeze. After 2 s (or the
   * `deadline`, if that is longer) it resolves all the same, and the channel `rampmeter:degraded` has told what did not arrive.
   */
  flush(): Promise<void>
  /**
   * How the store is: `up`; `degraded` where the last decision was missed, or a part of a cluster is; `down` while it is not
   * connected, or not asked any more but for probes. Where nothing was heard for a second the store is looked at meanwhile, so
   * who asks regularly knows within a second also without any requests; of a cluster each master is.
   * With `adaptive` also how the app is, and what follows from it.
   */
  health(): LimiterHealth
  /** Settles what is owed, for at most 5 s, and ends the store's own connection. Requests after it are decided without the store. */
  close(): Promise<void>
}
