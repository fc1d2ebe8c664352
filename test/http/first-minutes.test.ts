// The first minutes of an agent, over HTTP: extra quota once, and no more than that.

import express from 'express'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Store } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'
import { askTimes, leftOf, opened, serve, tellDecision, type Reply } from './serve.ts'

let server: RedisWithClock
let redis: Redis
beforeAll(async () => {
  server = await startRedisWithClock()
  redis = new Redis(server.url)
})
afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

interface StoreWithClock {
  readonly store: Store
  /** Turns its clock on, by whole milliseconds. */
  readonly advance: (ms: number) => void
}

const storesWithClock: readonly [string, () => StoreWithClock][] = [
  [
    'in memory',
    () => {
      const clock = manualClock()
      return { store: memoryStore({ now: clock }), advance: (ms) => void clock.advance(ms) }
    },
  ],
  [
    'on Redis',
    () => ({
      store: redisStore(redis, { prefix: `first-${Math.random()}:` }),
      advance: (ms) => server.advanceUs(ms * 1000),
    }),
  ],
]

const agent = { id: 'key:acme', tier: 'agent' } as const
const asAgent = { headers: { 'x-api-key': 'acme' } }
const minute = 60_000
const hour = 60 * minute

describe.each(storesWithClock)('an agent %s', (_, makeStore) => {
  async function start() {
    const { store, advance } = makeStore()
    const limiter = opened(
      rampmeter({ store, identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })], deadline: '5s' }),
    )
    const app = express()
    app.get('/:cost', limiter.route({ cost: (req) => Number(req.params['cost']) }), tellDecision)
    const served = await serve(app)
    await limiter.ready()
    /** Sends a request of this cost. */
    const spend = async (cost: number) => await served.ask(`/${cost}`, asAgent)
    return { limiter, spend, advance }
  }

  it('has its burst of 200 and 500 extra in the first five minutes, and is then told the truth', async () => {
    const { limiter, spend, advance } = await start()
    const first = await spend(1)
    expect(first.headers['ratelimit-policy']).toBe(
      '"per-minute";q=500;w=60, "per-hour";q=20000;w=3600, "first-minutes";q=500;w=300',
    )
    expect(first.headers['ratelimit']).toBe(
      '"per-minute";r=199;t=24, "per-hour";r=19999;t=3600, "first-minutes";r=500;t=300',
    )

    expect((await spend(199)).status).toBe(200)
    const lifted = await spend(1)
    expect(lifted.status).toBe(200)
    expect(lifted.headers['ratelimit']).toBe(
      '"per-minute";r=0;t=1, "per-hour";r=19799;t=3600, "first-minutes";r=499;t=300',
    )
    expect(lifted.json).toMatchObject({ admitted: true, violated: [] })
    expect(costsOf(lifted)).toEqual([0, 1, 1])

    expect((await spend(499)).status).toBe(200)
    // The hour is charged for all of them: it had room.
    expect(leftOf(await limiter.peek(agent))).toEqual({ 'per-minute': 0, 'per-hour': 19_300, 'first-minutes': 0 })

    const refused = await spend(1)
    expect(refused.status).toBe(429)
    expect(refused.problem['violated-policies']).toEqual(['per-minute'])
    expect(refused.headers['retry-after-ms']).toBe('120')
    expect(refused.headers['ratelimit']).toBe('"per-minute";r=0;t=1, "per-hour";r=19300;t=1')
    advance(119)
    expect((await spend(1)).status).toBe(429)
    advance(1)
    expect((await spend(1)).status).toBe(200)
  })

  it('does not keep the extra past its minutes, nor earn it again before a day has passed', async () => {
    const { spend, advance } = await start()
    await spend(200)
    advance(5 * minute - 1)
    expect((await spend(0)).headers['ratelimit-policy']).toContain('first-minutes')
    advance(1)
    // The bucket is full again, and the extra is over though none of it was used.
    const late = await spend(199)
    expect(late.headers['ratelimit-policy']).toBe('"per-minute";q=500;w=60, "per-hour";q=20000;w=3600')
    expect([(await spend(1)).status, (await spend(1)).status]).toEqual([200, 429])

    // Quiet for the rest of the day: not granted anew, to the millisecond.
    advance(24 * hour - 5 * minute - 1)
    expect((await spend(1)).headers['ratelimit-policy']).not.toContain('first-minutes')
    advance(1)
    expect((await spend(1)).headers['ratelimit-policy']).toContain('first-minutes')
  })

  it('has no part of the extra for a cost that does not fit in it', async () => {
    const { spend } = await start()
    // 150 of 200 in the bucket, then three times 150 of 500 extra; the last 50 are not enough.
    const replies = [await spend(150), await spend(150), await spend(150), await spend(150), await spend(150)]
    expect(replies.slice(0, 4).map(costsOf)).toEqual([
      [150, 150, 0],
      [0, 150, 150],
      [0, 150, 150],
      [0, 150, 150],
    ])
    expect(replies[4]!.status).toBe(429)
  })

  it('is not granted by looking, by what is refused, nor twice by requests at once', async () => {
    const { limiter, spend, advance } = await start()
    await limiter.peek(agent)
    expect((await spend(20_001)).status).toBe(403)
    advance(10 * minute)
    const replies = await Promise.all(Array.from({ length: 80 }, () => spend(10)))
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(70)
  })
})

function costsOf({ json }: Reply): number[] {
  return json.limits.map((limit: { cost: number }) => limit.cost)
}

describe('the first minutes’ extra', () => {
  it('lifts nothing that counts other units, nor a route’s own policies', async () => {
    const clock = manualClock()
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: clock }),
        tiers: {
          all: {
            policies: [
              tokenBucket({ name: 'requests', quota: 60, window: '1m', burst: 2 }),
              slidingWindow({ name: 'tokens', quota: 5, window: '1h', unit: 'tokens' }),
            ],
            initialBurst: { quota: 100, window: '1m', renewAfter: '2m' },
          },
        },
        classify: () => 'all',
      }),
    )
    const app = express()
    app.get('/', limiter, tellDecision)
    app.get(
      '/wire',
      limiter.route({ cost: 0, policies: [slidingWindow({ name: 'wire', quota: 1, window: '1h', cost: 1 })] }),
      tellDecision,
    )
    const served = await serve(app)
    const replies = await askTimes(served, 6)
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200, 429])
    expect(replies[5]!.problem['violated-policies']).toEqual(['tokens'])
    expect((await askTimes(served, 2, '/wire')).map(({ status }) => status)).toEqual([200, 429])

    // And comes again when it is due.
    clock.advance('1h')
    expect(leftOf((await served.ask('/')).json)).toMatchObject({ 'first-minutes': 100 })
  })
})
