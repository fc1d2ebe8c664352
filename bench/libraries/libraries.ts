import { expressRateLimit, rateLimitRedisOnIoredis, rateLimitRedisOnNodeRedis } from './express-rate-limit.ts'
import type { Library } from './library.ts'
import { rampmeterLibrary } from './rampmeter.ts'
import { rateLimiterFlexible } from './rate-limiter-flexible.ts'
import { upstash } from './upstash.ts'

/** All that are compared, ours first. */
export const libraries: readonly Library[] = [
  rampmeterLibrary,
  rateLimitRedisOnIoredis,
  rateLimitRedisOnNodeRedis,
  expressRateLimit,
  rateLimiterFlexible,
  upstash,
]

export const ours: string = rampmeterLibrary.name
