import type { RequestHandler } from 'express'
import { Redis } from 'ioredis'
import {
  RateLimiterMemory,
  RateLimiterRedis,
  RateLimiterUnion,
  type RateLimiterAbstract,
  type RateLimiterRes,
} from 'rate-limiter-flexible'
import type { Decider, Library, Limit } from './library.ts'

/** One limiter, or several as its documentation joins them: `RateLimiterUnion`, one call each, all at once. */
function joined(limiters: readonly RateLimiterAbstract[]): (client: string) => Promise<RateLimiterRes[]> {
  if (limiters.length === 1) return async (client) => [await limiters[0]!.consume(client)]
  const union = new RateLimiterUnion(...limiters)
  return async (client) => Object.values(await union.consume(client))
}

/** A refusal rejects with what a limiter would resolve with, or with those of several. */
function deciding(limiters: readonly RateLimiterAbstract[], close: () => Promise<void>): Decider {
  const consume = joined(limiters)
  return {
    async decide(client) {
      try {
        await consume(client)
        return true
      } catch (refusal) {
        if (refusal instanceof Error) throw refusal
        return false
      }
    },
    close,
  }
}

function redisLimiters(
  limits: readonly Limit[],
  storeClient: Redis,
  prefix: string,
  remembersRefusals = false,
): RateLimiterRedis[] {
  return limits.map(
    ({ name, quota, windowMs }) =>
      new RateLimiterRedis({
        storeClient,
        keyPrefix: `${prefix}:${name}`,
        points: quota,
        duration: windowMs / 1000,
        ...(remembersRefusals && { inMemoryBlockOnConsumed: quota }),
      }),
  )
}

export const rateLimiterFlexible: Library = {
  name: 'rate-limiter-flexible',
  asShipped: true,

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    return deciding(redisLimiters(limits, redis, 'rlflx'), async () => void (await redis.quit()))
  },

  async inMemory(limits) {
    const limiters = limits.map(
      ({ name, quota, windowMs }) =>
        new RateLimiterMemory({ keyPrefix: name, points: quota, duration: windowMs / 1000 }),
    )
    return deciding(limiters, async () => {})
  },

  /** It ships none: this is the one of its wiki, with the header fields named there, of the limit that is closest. */
  async middleware(limits, redisUrl) {
    const limiters = redisLimiters(limits, new Redis(redisUrl), `rlf-http-${limits.length}`)
    const consume = joined(limiters)
    const limitRate: RequestHandler = async (req, res, next) => {
      let results: RateLimiterRes[]
      try {
        results = await consume(req.ip!)
      } catch {
        res.status(429).send('Too Many Requests')
        return
      }
      let closest = 0
      for (let index = 1; index < results.length; index += 1) {
        if (results[index]!.remainingPoints < results[closest]!.remainingPoints) closest = index
      }
      const { msBeforeNext, remainingPoints } = results[closest]!
      res.setHeader('Retry-After', msBeforeNext / 1000)
      res.setHeader('X-RateLimit-Limit', limiters[closest]!.points)
      res.setHeader('X-RateLimit-Remaining', remainingPoints)
      res.setHeader('X-RateLimit-Reset', Math.ceil((Date.now() + msBeforeNext) / 1000))
      next()
    }
    return [limitRate]
  },
}

/** With the cache of refused keys that its documentation advises against floods. */
export const rateLimiterFlexibleRemembering: Library = {
  name: 'rate-limiter-flexible, inMemoryBlockOnConsumed',
  asShipped: false,

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    const close = async (): Promise<void> => void (await redis.quit())
    return deciding(redisLimiters(limits, redis, 'rlflx-remembering', true), close)
  },
}
