import type { RequestHandler } from 'express'

/** A limit that every library here can keep, each with the algorithm it has. */
export interface Limit {
  readonly name: string
  readonly quota: number
  readonly windowMs: number
}

const second = 1000
const minute = 60 * second
const hour = 60 * minute
const day = 24 * hour

/** The limits compared; with two, the first two. Their quotas are never used up. */
export const limits: readonly Limit[] = [
  { name: 'per-minute', quota: 1_000_000, windowMs: minute },
  { name: 'per-hour', quota: 10_000_000, windowMs: hour },
  { name: 'per-day', quota: 100_000_000, windowMs: day },
  { name: 'per-10-s', quota: 500_000, windowMs: 10 * second },
  { name: 'per-10-min', quota: 5_000_000, windowMs: 10 * minute },
  { name: 'per-12-hours', quota: 50_000_000, windowMs: 12 * hour },
  { name: 'per-30-s', quota: 700_000, windowMs: 30 * second },
]

/** What decides about requests without HTTP. */
export interface Decider {
  /**
   * Decides one request of a client.
   *
   * @returns whether it was admitted
   * @throws {Error} if it was decided without the store that is measured
   */
  decide(client: string): Promise<boolean>
  close(): Promise<void>
}

/** A library as its own documentation says to use it. Its counters on Redis are its own; those of one number of limits are also those of another. */
export interface Library {
  readonly name: string
  /** A peer as its users get it, and not tuned by us: the goals are set against the best of these. */
  readonly asShipped: boolean
  readonly onRedis?: (limits: readonly Limit[], redisUrl: string) => Promise<Decider>
  readonly inMemory?: (limits: readonly Limit[]) => Promise<Decider>
  /** What goes in front of the handlers of an Express app, counting on Redis by `req.ip`. */
  readonly middleware?: (limits: readonly Limit[], redisUrl: string) => Promise<RequestHandler[]>
}
