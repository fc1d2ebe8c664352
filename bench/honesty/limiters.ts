import type { RequestHandler } from 'express'
import { rateLimit } from 'express-rate-limit'
import { Redis } from 'ioredis'
import { rampmeter, redisStore, slidingWindow, tokenBucket, type Policy } from 'rampmeter'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import { RateLimiterRedis, type RateLimiterRes } from 'rate-limiter-flexible'
import type { HerdLimit } from './settings.ts'

/** A limiter as its own documentation, or most of those who use it, put it in front of an Express app. */
export interface Limiter {
  readonly name: string
  readonly ours: boolean
  /** Whether quota comes back evenly; else a window at a time. */
  readonly even: boolean
  middleware(limit: HerdLimit, redisUrl: string): Promise<RequestHandler>
}

const expressRateLimit: Limiter = {
  name: 'express-rate-limit',
  ours: false,
  even: false,
  async middleware({ name, quota, windowMs }, redisUrl) {
    const redis = new Redis(redisUrl)
    return rateLimit({
      windowMs,
      limit: quota,
      standardHeaders: 'draft-8',
      legacyHeaders: false,
      store: new RedisStore({
        prefix: `honesty-rl:${name}:`,
        sendCommand: (command: string, ...args: string[]) => redis.call(command, ...args) as Promise<RedisReply>,
      }),
    })
  },
}

/** It ships no middleware: what is told is up to those who write one. */
function flexible(variant: string, retryAfterOf: (msBeforeNext: number) => string): Limiter {
  return {
    name: `rate-limiter-flexible, ${variant}`,
    ours: false,
    even: false,
    async middleware({ name, quota, windowMs }, redisUrl) {
      const limiter = new RateLimiterRedis({
        storeClient: new Redis(redisUrl),
        keyPrefix: `honesty-rlf-${variant}:${name}`,
        points: quota,
        duration: windowMs / 1000,
      })
      return async (req, res, next) => {
        try {
          const { remainingPoints } = await limiter.consume(req.ip!)
          res.setHeader('X-RateLimit-Limit', quota)
          res.setHeader('X-RateLimit-Remaining', remainingPoints)
        } catch (refusal) {
          if (refusal instanceof Error) throw refusal
          res.setHeader('Retry-After', retryAfterOf((refusal as RateLimiterRes).msBeforeNext))
          res.status(429).send('Too Many Requests')
          return
        }
        next()
      }
    },
  }
}

function ours(
  kind: string,
  even: boolean,
  policyOf: (limit: HerdLimit) => Policy,
  more?: { tickets: { share: number }; keySecret: string },
): Limiter {
  return {
    name: `rampmeter, ${kind}`,
    ours: true,
    even,
    async middleware(limit, redisUrl) {
      const limiter = rampmeter({
        policies: [policyOf(limit)],
        store: redisStore(new Redis(redisUrl), { prefix: `honesty-${kind.replaceAll(' ', '-')}:` }),
        // Nothing is decided without Redis where the machine stalls.
        deadline: '5s',
        ...more,
      })
      await limiter.ready()
      return limiter
    },
  }
}

export const limiters: readonly Limiter[] = [
  expressRateLimit,
  // The header field of its README: seconds with a fraction.
  flexible('fraction', (ms) => String(ms / 1000)),
  // What most apps do, as its wiki does: the nearest whole second.
  flexible('rounded', (ms) => String(Math.round(ms / 1000) || 1)),
  ours('token bucket', true, ({ name, quota, windowMs }) => tokenBucket({ name, quota, window: windowMs })),
  ours('sliding window', false, ({ name, quota, windowMs }) => slidingWindow({ name, quota, window: windowMs })),
]

/** The bucket again, which reserves for those it refuses: up to its whole quota, since a herd is twice that. */
export const withTickets: Limiter = ours(
  'tickets',
  true,
  ({ name, quota, windowMs }) => tokenBucket({ name, quota, window: windowMs }),
  { tickets: { share: 1 }, keySecret: 'a secret of the bench' },
)
