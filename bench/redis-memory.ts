// What a client costs in Redis: the memory of its keys, their names and expiries included, as Redis itself counts it.
//
//   node --import tsx bench/redis-memory.ts     on a Redis of its own, or on the one that REDIS_URL names

import { randomUUID } from 'node:crypto'
import type { Options } from 'express-rate-limit'
import { Redis } from 'ioredis'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import { createNames } from '../src/names.ts'
import { firstMinutes } from '../src/policies/first-minutes.ts'
import { slidingWindow } from '../src/policies/sliding-window.ts'
import { tokenBucket } from '../src/policies/token-bucket.ts'
import type { Policy } from '../src/policy.ts'
import { redisStore } from '../src/stores/redis/redis-store.ts'
import type { Charge } from '../src/stores/store.ts'
import { startRedis } from '../src/testing/start-redis.ts'

const requests = [1, 1000]
const client = 'ip:203.0.113.77'

const policies = [
  tokenBucket({ name: 'per-minute', quota: 2000, window: '1m', burst: 1000 }),
  slidingWindow({ name: 'per-hour', quota: 100_000, window: '1h' }),
  firstMinutes({ quota: 500, window: '5m' }),
]

/** A client's keys by what they are for, and the bytes of each. */
type Memory = readonly { readonly of: string; readonly bytes: number }[]

async function ours(redis: Redis, count: number, chosen: readonly Policy[]): Promise<Memory> {
  // As long as the prefix that is the default.
  const prefix = `${randomUUID().slice(0, 9)}:`
  const store = redisStore(redis, { prefix }).open(createNames([]))
  await store.ready()
  const charges = chosen.map((policy) => chargeOf(policy))
  for (let sent = 0; sent < count; sent += 1) {
    const { admitted } = await store.decide({ charges, undo: [], commit: true })
    if (!admitted) throw new Error(`only ${sent} of ${count} requests were admitted`)
  }
  const memory = await measure(redis, `${prefix}*`)
  await redis.unlink(...(await redis.keys(`${prefix}*`)))
  await store.close()
  return memory
}

function chargeOf({ kind, stateId, windowMs, quota, burst, renewAfterMs }: Policy): Charge {
  const capacity = renewAfterMs === undefined ? Number(burst ?? quota) : renewAfterMs * 1000
  const limit = { kind, stateId, windowUs: windowMs * 1000, quota: Number(quota), capacity }
  return { ...limit, partition: client, cost: 1, liftable: kind !== 'first-minutes', shadow: false }
}

async function rateLimitRedis(redis: Redis, count: number): Promise<Memory> {
  const run = randomUUID().slice(0, 4)
  const memory: { of: string; bytes: number }[] = []
  for (const { name, windowMs } of policies) {
    const prefix = `rl:${run}:${name}:`
    const sendCommand = (command: string, ...args: string[]): Promise<RedisReply> =>
      redis.call(command, ...args) as Promise<RedisReply>
    const store = new RedisStore({ prefix, sendCommand })
    await store.init({ windowMs } as Options)
    for (let sent = 0; sent < count; sent += 1) await store.increment(client)
    memory.push(...(await measure(redis, `${prefix}*`)))
    await redis.unlink(`${prefix}${client}`)
  }
  return memory
}

async function measure(redis: Redis, pattern: string): Promise<Memory> {
  const keys = await redis.keys(pattern)
  return await Promise.all(
    keys.map(async (key) => ({ of: key, bytes: Number(await redis.memory('USAGE', key, 'SAMPLES', '0')) })),
  )
}

const server = await startRedis(process.env['REDIS_URL'] ? { url: process.env['REDIS_URL'] } : {})
const redis = new Redis(server.url)
try {
  const version = /redis_version:(\S+)/.exec(await redis.info('server'))?.[1]
  console.log(`Memory of one client in Redis ${version}, in bytes (MEMORY USAGE: value, name and expiry)\n`)
  console.log(
    row(
      '',
      requests.map((count) => `${count} request${count === 1 ? '' : 's'}`),
      'keys',
    ),
  )
  const rows: [string, (count: number) => Promise<Memory>][] = [
    ['rampmeter, a bucket a minute', (count) => ours(redis, count, policies.slice(0, 1))],
    ['rampmeter, + a sliding window an hour', (count) => ours(redis, count, policies.slice(0, 2))],
    ['rampmeter, + first minutes', (count) => ours(redis, count, policies)],
    ['rate-limit-redis, three counters', (count) => rateLimitRedis(redis, count)],
  ]
  for (const [name, make] of rows) {
    const measured: Memory[] = []
    for (const count of requests) measured.push(await make(count))
    const sums = measured.map((memory) => String(memory.reduce((sum, { bytes }) => sum + bytes, 0)))
    console.log(row(name, sums, String(measured[0]!.length)))
  }
} finally {
  await redis.quit()
  await server.stop()
}

function row(name: string, numbers: readonly string[], keys: string): string {
  return [name.padEnd(40), ...numbers.map((number) => number.padStart(14)), keys.padStart(6)].join('')
}
