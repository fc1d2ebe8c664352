// The stores that the middleware is tried on: this process, and a real Redis.

import { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Store } from '../../src/stores/store.ts'
import { startTestRedis } from '../redis.ts'

let server: ReturnType<typeof startTestRedis> | undefined
let count = 0

/** The Redis of this test file; it ends with the process. */
export function testRedis(): ReturnType<typeof startTestRedis> {
  server ??= startTestRedis()
  return server
}

/** A client of that Redis, and keys of its own, until the test is over. */
export async function openRedis(): Promise<{ redis: Redis; prefix: string; url: string }> {
  const { url } = await testRedis()
  const redis = new Redis(url)
  count += 1
  const prefix = `test-${process.pid}-${count}-${Date.now().toString(36)}:`
  onTestFinished(async () => {
    const keys = await redis.keys(`${prefix}*`)
    if (keys.length > 0) await redis.del(keys)
    redis.disconnect()
  })
  return { redis, prefix, url }
}

export const stores: readonly { readonly name: string; readonly makeStore: () => Promise<Store> }[] = [
  { name: 'in memory', makeStore: async () => memoryStore() },
  {
    name: 'on Redis',
    makeStore: async () => {
      const { redis, prefix } = await openRedis()
      return redisStore(redis, { prefix })
    },
  },
]
