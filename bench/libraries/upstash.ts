import { createHash } from 'node:crypto'
import { Ratelimit } from '@upstash/ratelimit'
import { Redis } from 'ioredis'
import type { Library } from './library.ts'

/** What it wants to talk to: a client of Upstash's own REST service. */
type UpstashRedis = ConstructorParameters<typeof Ratelimit>[0]['redis']

/**
 * The two methods of that client that a decision uses, over ioredis. The first line of its scripts says something to Upstash's
 * server that Redis refuses, so it is left out, and the script has another hash.
 */
function overIoredis(redis: Redis): UpstashRedis {
  const loaded = new Map<string, string>()
  const run = (hash: string, keys: string[], args: unknown[]): Promise<unknown> =>
    redis.evalsha(hash, keys.length, ...keys, ...(args as (string | number)[]))
  const client = {
    evalsha(hash: string, keys: string[], args: unknown[]): Promise<unknown> {
      const known = loaded.get(hash)
      return known === undefined ? Promise.reject(new Error('NOSCRIPT')) : run(known, keys, args)
    },
    async eval(script: string, keys: string[], args: unknown[]): Promise<unknown> {
      const hash = (await redis.script('LOAD', script.replace(/^#!lua.*/, ''))) as string
      loaded.set(createHash('sha1').update(script).digest('hex'), hash)
      return await run(hash, keys, args)
    },
  }
  return client as unknown as UpstashRedis
}

/** Made for the REST service, and adapted here. One limit after the other, as its users write them. */
export const upstash: Library = {
  name: '@upstash/ratelimit',
  asShipped: true,

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    const limiters = limits.map(
      ({ name, quota, windowMs }) =>
        new Ratelimit({
          redis: overIoredis(redis),
          limiter: Ratelimit.fixedWindow(quota, `${windowMs} ms`),
          prefix: `@upstash/ratelimit:${name}`,
        }),
    )
    return {
      async decide(client) {
        for (const limiter of limiters) {
          const { success, reason } = await limiter.limit(client)
          if (reason === 'timeout') throw new Error('@upstash/ratelimit decided without its store')
          if (!success) return false
        }
        return true
      },
      close: async () => void (await redis.quit()),
    }
  },
}
