import type { RequestHandler } from 'express'

/** A limit that every library here can keep, each with the algorithm it has. */
export interface Limit {
  readonly name: string
  readonly quota: number
  readonly windowMs: number
}

const minute = 60_000

/**
 * The limits compared; with two, the first two. Their quotas are never used up, since what is compared is the cost of
 * admitting: a refusal is cheaper in some libraries than in others.
 */
export const limits: readonly Limit[] = [
  { name: 'per-minute', quota: 1_000_000, windowMs: minute },
  { name: 'per-hour', quota: 10_000_000, windowMs: 60 * minute },
  { name: 'per-day', quota: 100_000_000, windowMs: 24 * 60 * minute },
]

/** What decides about requests without HTTP. */
export interface Decider {
  /** Decides one request of a client. Resolves with whether it was admitted, by the store that is measured. */
  decide(client: string): Promise<boolean>
  close(): Promise<void>
}

/** A library as its own documentation says to use it. Counters of different calls are kept apart. */
export interface Library {
  readonly name: string
  onRedis(limits: readonly Limit[], redisUrl: string): Promise<Decider>
  inMemory(limits: readonly Limit[]): Promise<Decider>
  /** What goes in front of the handlers of an Express app, counting on Redis by `req.ip`. */
  middleware(limits: readonly Limit[], redisUrl: string): Promise<RequestHandler[]>
}
