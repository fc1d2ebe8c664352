import type { NextFunction, Request, Response } from 'express'
import type { Decision } from './decision.ts'
import type { RouteOptions } from './options.ts'
import type { Policy } from './policy.ts'

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
  /** Who is asking. `tier` may be left out where the limiter has one set of `policies` for everybody. */
  client: { id: string; tier?: Tier }
  /** What it costs, for every policy without a fixed cost of its own. Default 1. */
  cost?: number
  /** Limits on top of the tier's. */
  policies?: readonly Policy[]
  /** What it touches, for `uniqueTargets`: one text, or up to 32. */
  target?: string | readonly string[]
  /** The partition for each policy, by name, that a function of the request would tell; a policy with `when` applies only if it is named. */
  partitions?: Record<string, string>
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
  peek(client: { id: string; tier?: Tier }): Promise<Decision>
  /** Forgets a client's counters, and those of its address where the id is one. */
  reset(clientId: string): Promise<void>
  /** Resolves when the store has answered once. */
  ready(): Promise<void>
  /** Resolves when what was settled so far has reached the store: for serverless functions, before they freeze. */
  flush(): Promise<void>
  /** How the limiter is: whether its store answered last. */
  health(): { store: 'up' | 'degraded' | 'down' }
  /** Settles what is owed, for at most 5 s, and ends the store's own connection. Requests after it are decided without the store. */
  close(): Promise<void>
}
