import { MemoryStore, rateLimit, type Options, type Store } from 'express-rate-limit'
import { Redis } from 'ioredis'
import { RedisStore, type RedisReply, type SendCommandFn } from 'rate-limit-redis'
import { createClient } from 'redis'
import type { Decider, Library, Limit } from './library.ts'

/** How rate-limit-redis is to send commands, and how to end what sends them. */
interface Sending {
  readonly sendCommand: SendCommandFn
  readonly close: () => Promise<void>
}

/** Its README's line for ioredis. */
async function onIoredis(redisUrl: string): Promise<Sending> {
  const redis = new Redis(redisUrl)
  return {
    sendCommand: (command: string, ...args: string[]) => redis.call(command, ...args) as Promise<RedisReply>,
    close: async () => void (await redis.quit()),
  }
}

/** Its README's line for node-redis, tuned: without the timer that each command has unless it is told otherwise. */
async function onNodeRedis(redisUrl: string): Promise<Sending> {
  const client = createClient({ url: redisUrl, commandOptions: { timeout: 0 } })
  // The commands fail as well, and say more: without a listener the process would end here.
  client.on('error', () => {})
  await client.connect()
  return { sendCommand: (...args) => client.sendCommand<RedisReply>(args), close: () => client.close() }
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

interface Client {
  readonly name: string
  readonly asShipped: boolean
  readonly prefix: string
  readonly connect: (redisUrl: string) => Promise<Sending>
}

function rateLimitRedis({ name, asShipped, prefix, connect }: Client): Library {
  return {
    name: `rate-limit-redis on ${name}`,
    asShipped,

    async onRedis(limits, redisUrl) {
      const { sendCommand, close } = await connect(redisUrl)
      const storeOf = (limit: Limit): Store => new RedisStore({ prefix: `${prefix}${limit.name}:`, sendCommand })
      return { ...(await counting(limits, storeOf)), close }
    },

    async middleware(limits, redisUrl) {
      const { sendCommand } = await connect(redisUrl)
      return limits.map((limit) =>
        rateLimit({
          windowMs: limit.windowMs,
          limit: limit.quota,
          identifier: limit.name,
          standardHeaders: 'draft-8',
          legacyHeaders: false,
          store: new RedisStore({ prefix: `${prefix}http-${limits.length}:${limit.name}:`, sendCommand }),
        }),
      )
    },
  }
}

export const rateLimitRedisOnIoredis: Library = rateLimitRedis({
  name: 'ioredis',
  asShipped: true,
  prefix: 'rl-io:',
  connect: onIoredis,
})

export const rateLimitRedisOnNodeRedis: Library = rateLimitRedis({
  name: 'node-redis',
  asShipped: false,
  prefix: 'rl:',
  connect: onNodeRedis,
})

export const expressRateLimit: Library = {
  name: 'express-rate-limit',
  asShipped: true,
  inMemory: (limits) => counting(limits, () => new MemoryStore()),
}
