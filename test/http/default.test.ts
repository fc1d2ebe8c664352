// `app.use(rampmeter())`: what a client meets when the app's author has written nothing else.

import express from 'express'
import { Redis } from 'ioredis'
import { beforeAll, afterAll, describe, expect, it } from 'vitest'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'
import { askTimes, expressVersions, opened, serve, tellDecision } from './serve.ts'
import { openRedis, stores } from './stores.ts'

for (const { name, express } of expressVersions) {
  describe(`rampmeter() on ${name}`, () => {
    it('serves, and tells the limits', async () => {
      const app = express().use(opened(rampmeter())).get('/', tellDecision)
      const served = await serve(app)

      const { status, headers, json } = await served.ask('/')

      expect(status).toBe(200)
      expect(headers['ratelimit-policy']).toBe('"per-minute";q=30;w=60, "per-hour";q=500;w=3600')
      expect(headers['ratelimit']).toMatch(/^"per-minute";r=9;t=18, "per-hour";r=499;t=3600$/)
      expect(headers).toMatchObject({
        'ratelimit-limit': '30',
        'ratelimit-remaining': '9',
        'ratelimit-reset': '18',
        'x-ratelimit-tier': 'anonymous',
      })
      expect(headers).not.toHaveProperty('retry-after')
      expect(headers).not.toHaveProperty('retry-after-ms')
      expect(headers).not.toHaveProperty('x-ratelimit-limit')
      expect(json).toMatchObject({
        admitted: true,
        enforced: true,
        degraded: false,
        violated: [],
        retryAfterMs: 0,
        client: { id: 'ip:127.0.0.1', kind: 'anonymous', tier: 'anonymous', provedBy: null },
      })
      expect(json).not.toHaveProperty('reason')
    })

    it('refuses whoever asks too much, and says when to come back', async () => {
      let handled = 0
      const clock = manualClock()
      const app = express()
        .use(opened(rampmeter({ store: memoryStore({ now: clock }) })))
        .get('/', (_req, res) => {
          handled += 1
          res.end()
        })
      const served = await serve(app)
      await askTimes(served, 10)

      const { status, headers, problem } = await served.ask('/')

      expect(handled).toBe(10)
      expect(status).toBe(429)
      expect(headers).toMatchObject({
        'retry-after': '2',
        'retry-after-ms': '2000',
        'content-type': 'application/problem+json',
        'cache-control': 'no-store',
        'x-ratelimit-tier': 'anonymous',
        ratelimit: '"per-minute";r=0;t=2, "per-hour";r=490;t=2',
      })
      expect(problem).toEqual({
        type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
        title: 'Request cannot be satisfied as assigned quota has been exceeded',
        status: 429,
        detail: 'Tier "anonymous" allows 30 requests per minute; the next one is admitted in 2 s.',
        'violated-policies': ['per-minute'],
        error: {
          type: 'rate_limit_exceeded',
          message: 'Tier "anonymous" allows 30 requests per minute; the next one is admitted in 2 s.',
          tier: 'anonymous',
          retry_after: 2,
          retry_after_ms: 2000,
          limit: 30,
          remaining: 0,
          window: '1m',
          reset_at: '2026-01-01T00:00:20Z',
        },
      })
    })

    it('keeps the time it told, and no more', async () => {
      const clock = manualClock()
      const app = express()
        .use(opened(rampmeter({ store: memoryStore({ now: clock }) })))
        .get('/', tellDecision)
      const served = await serve(app)
      await askTimes(served, 10)
      clock.advance(137.25)
      const told = Number((await served.ask('/')).headers['retry-after-ms'])
      expect(told).toBe(1863)

      clock.advance(told - 1)
      expect((await served.ask('/')).status).toBe(429)
      clock.advance(1)
      expect((await served.ask('/')).status).toBe(200)
      expect((await served.ask('/')).status).toBe(429)
    })

    it('charges nothing for refusals, however many', async () => {
      const clock = manualClock()
      const app = express()
        .use(opened(rampmeter({ store: memoryStore({ now: clock }) })))
        .get('/', tellDecision)
      const served = await serve(app)
      await askTimes(served, 10)
      const refused = await Promise.all(Array.from({ length: 40 }, () => served.ask('/')))
      expect(new Set(refused.map(({ status }) => status))).toEqual(new Set([429]))

      clock.advance('20s')
      const { headers } = await served.ask('/')
      expect(headers['ratelimit']).toBe('"per-minute";r=9;t=18, "per-hour";r=489;t=3600')
    })

    it('answers HEAD without a body, and with the fields', async () => {
      const app = express()
        .use(opened(rampmeter({ store: memoryStore({ now: manualClock() }) })))
        .get('/', tellDecision)
      const served = await serve(app)
      await askTimes(served, 10, '/', { method: 'HEAD' })
      const { status, headers, body } = await served.ask('/', { method: 'HEAD' })
      expect(status).toBe(429)
      expect(body).toBe('')
      expect(Number(headers['content-length'])).toBeGreaterThan(100)
      expect(headers['retry-after']).toBe('2')
    })

    it('sees a request that no route answers', async () => {
      const served = await serve(express().use(opened(rampmeter())))
      const { status, headers } = await served.ask('/nowhere')
      expect(status).toBe(404)
      expect(headers['ratelimit-remaining']).toBe('9')
    })
  })
}

const tenAnHour = [slidingWindow({ quota: 10, window: '1h' })]

for (const { name, makeStore } of stores) {
  describe(`a limiter ${name}`, () => {
    it('admits exactly the quota of requests that come at once', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: tenAnHour, deadline: '5s' }))
      const served = await serve(express().use(limiter).get('/', tellDecision))
      await limiter.ready()

      const replies = await Promise.all(Array.from({ length: 40 }, () => served.ask('/')))

      expect(replies.filter(({ status }) => status === 200)).toHaveLength(10)
      expect(replies.filter(({ status }) => status === 429)).toHaveLength(30)
    })
  })
}

describe('a limiter on a Redis whose clock the test turns', () => {
  let server: RedisWithClock

  beforeAll(async () => {
    server = await startRedisWithClock()
  })
  afterAll(() => server.stop())

  it('keeps the time it told, and no more', async () => {
    const redis = new Redis(server.url)
    const limiter = opened(rampmeter({ store: redisStore(redis), deadline: '5s' }))
    const served = await serve(express().use(limiter).get('/', tellDecision))
    await limiter.ready()
    await askTimes(served, 10)
    server.advanceUs(137_250)
    const { headers } = await served.ask('/')
    expect(headers['retry-after-ms']).toBe('1863')
    expect(headers['retry-after']).toBe('2')

    server.advanceUs(1_862_000)
    expect((await served.ask('/')).status).toBe(429)
    server.advanceUs(1000)
    expect((await served.ask('/')).status).toBe(200)
    expect((await served.ask('/')).status).toBe(429)
    redis.disconnect()
  })
})

describe('two processes on one Redis', () => {
  it('count together', async () => {
    const { redis, prefix } = await openRedis()
    const makeLimiter = () =>
      opened(rampmeter({ store: redisStore(redis, { prefix }), policies: tenAnHour, deadline: '5s' }))
    const one = await serve(express().use(makeLimiter()).get('/', tellDecision))
    const other = await serve(express().use(makeLimiter()).get('/', tellDecision))
    await askTimes(one, 5)
    await askTimes(other, 5)
    expect((await one.ask('/')).status).toBe(429)
    expect((await other.ask('/')).status).toBe(429)
  })
})
