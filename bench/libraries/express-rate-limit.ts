import { MemoryStore, rateLimit, type Options, type Store } from 'express-rate-limit'
import { Redis } from 'ioredis'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import type { Decider, Library, Limit } from './library.ts'

/** Its README's line for ioredis. */
function redisStore(redis: Redis, prefix: string): RedisStore {
  return new RedisStore({
    prefix,
    sendCommand: (command: string, ...args: string[]) => redis.call(command, ...args) as Promise<RedisReply>,
  })
}

/** What a stack of its middlewares does without Express: one limit after the other, none once one has refused. */
async function counting(limits: readonly Limit[], storeOf: (limit: Limit) => Store): Promise<Decider> {
  const stores = limits.map((limit) => ({ store: storeOf(limit), limit }))
  for (const { store, limit } of stores) await store.init?.({ windowMs: limit.windowMs } as Options)
  return {
    async decide(client) {
      for (const { store, limit } of stores) {
        const { totalHits } = await store.increment(client)
        if (totalHits > limit.quota) return false
      }
      return true
    },
    async close() {
      for (const { store } of stores) await store.shutdown?.()
    },
  }
}

export const expressRateLimit: Library = {
  name: 'express-rate-limit',

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    const decider = await counting(limits, ({ name }) => redisStore(redis, `rl-${limits.length}:${name}:`))
    return { ...decider, close: async () => void (await redis.quit()) }
  },

  inMemory: (limits) => counting(limits, () => new MemoryStore()),

  async middleware(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    return limits.map(({ name, quota, windowMs }) =>
      rateLimit({
        windowMs,
        limit: quota,
        identifier: name,
        standardHeaders: 'draft-8',
        legacyHeaders: false,
        store: redisStore(redis, `rl-http-${limits.length}:${name}:`),
      }),
    )
  },
}
