// `limiter.route()`, alone and inside `app.use(limiter)`: one request, one charge.

import express, { type RequestHandler } from 'express'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import { session } from '../../src/identify/session.ts'
import { failures } from '../../src/policies/failures.ts'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { uniqueTargets } from '../../src/policies/unique-targets.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { startRedis, type TestRedis } from '../../src/testing/start-redis.ts'
import { askTimes, expressVersions, keepErrors, leftOf, opened, serve, tellDecision } from './serve.ts'
import { stores } from './stores.ts'

const address = { id: 'ip:127.0.0.1' }
const anonymous = { ...address, tier: 'anonymous' } as const
const hundredAnHour = slidingWindow({ name: 'hour', quota: 100, window: '1h' })
const thousandADay = slidingWindow({ name: 'day', quota: 1000, window: '1d' })

/** Long enough that a busy machine's hiccups are not taken for an outage. */
const deadline = '5s'

for (const { name, makeStore } of stores) {
  describe(`limiter.route() ${name}`, () => {
    for (const version of expressVersions) {
      it(`does the whole job alone, on ${version.name}`, async () => {
        const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
        const app = version.express()
        app.get('/search/:id', limiter.route({ cost: 60 }), tellDecision)
        app.get('/free', (_req, res) => void res.end('free'))
        const served = await serve(app)

        const { status, headers, json } = await served.ask('/search/7')
        expect(status).toBe(200)
        expect(headers['ratelimit']).toBe('"hour";r=40;t=3600')
        expect(json.limits).toMatchObject([{ name: 'hour', cost: 60, remaining: 40 }])

        const refused = await served.ask('/search/8')
        expect(refused.status).toBe(429)
        expect(refused.problem.detail).toMatch(
          /^Tier "default" allows 100 requests per hour; this request costs 60 and/,
        )
        expect((await served.ask('/free')).headers).not.toHaveProperty('ratelimit')
      })

      it(`charges once, at its own price, inside app.use(limiter), on ${version.name}`, async () => {
        const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
        const app = version.express().use(limiter)
        app.get('/plain', tellDecision)
        app.get('/search', limiter.route({ cost: 5 }), tellDecision)
        const served = await serve(app)

        expect((await served.ask('/plain')).headers['ratelimit-remaining']).toBe('99')
        const { headers, json } = await served.ask('/search')
        expect(headers['ratelimit']).toBe('"hour";r=94;t=3600')
        expect(headers['ratelimit-policy']).toBe('"hour";q=100;w=3600')
        expect(json.limits).toMatchObject([{ cost: 5, remaining: 94 }])
        expect(leftOf(await limiter.peek(address))).toEqual({ hour: 94 })
      })
    }

    it('adds policies of its own to the tier’s', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
      const own = [slidingLog({ name: 'wire', quota: 2, window: '1h' })]
      const app = express().use(limiter)
      app.post('/wire', limiter.route({ name: 'wire', policies: own }), tellDecision)
      const served = await serve(app)

      const replies = await askTimes(served, 3, '/wire', { method: 'POST' })

      expect(replies.map(({ status }) => status)).toEqual([200, 200, 429])
      expect(replies[1]!.headers['ratelimit-policy']).toBe('"hour";q=100;w=3600, "wire";q=2;w=3600')
      expect(replies[2]!.problem['violated-policies']).toEqual(['wire'])
      expect(replies[2]!.problem.detail).toMatch(/^This route allows 2 requests per hour; the next one is admitted in/)
    })

    it('leaves nothing charged when it refuses', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
      const own = [slidingWindow({ name: 'wire', quota: 1, window: '1h' })]
      const app = express().use(limiter)
      app.post('/wire', limiter.route({ policies: own, cost: 1 }), tellDecision)
      app.post('/huge', limiter.route({ cost: 101 }), tellDecision)
      const served = await serve(app)
      await served.ask('/wire', { method: 'POST' })

      const refused = await askTimes(served, 5, '/wire', { method: 'POST' })
      const never = await served.ask('/huge', { method: 'POST' })

      expect(refused.map(({ status }) => status)).toEqual([429, 429, 429, 429, 429])
      expect(never.status).toBe(403)
      expect(never.problem).toMatchObject({ retryable: false, error: { cost: 101, capacity: 100 } })
      expect(never.headers).not.toHaveProperty('retry-after')
      expect(leftOf(await limiter.peek(address))).toEqual({ hour: 99 })
    })

    it('keeps what an entry of `routes` and routes further out have of their own', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          policies: [hundredAnHour],
          routes: {
            'POST /login': {
              highRisk: true,
              policies: [
                failures({ name: 'guesses', quota: 2, window: '1h', counts: (res) => res.statusCode === 401 }),
              ],
            },
            'GET /items/:id': {
              policies: [uniqueTargets({ name: 'items', quota: 2, window: '1h' })],
              target: (_req, _client, params) => String(params['id']).toLowerCase(),
            },
          },
          deadline,
        }),
      )
      const daily = slidingLog({ name: 'daily', quota: 5, window: '1d' })
      const app = express().use(limiter)
      app.post('/login', limiter.route({ name: 'login', cost: 3 }), (_req, res) => void res.sendStatus(401))
      app.get('/items/:id', limiter.route({ cost: 2 }), tellDecision)
      app.use('/api', limiter.route({ policies: [daily] }))
      app.get('/api/cheap', limiter.route({}), tellDecision)
      app.get('/api/dear', limiter.route({ cost: 2 }), tellDecision)
      app.get('/api/own', limiter.route({ policies: [daily], replace: true }), tellDecision)
      const served = await serve(app)
      const statuses = async (path: string, times: number, method = 'GET'): Promise<number[]> =>
        (await askTimes(served, times, path, { method })).map(({ status }) => status)

      expect(await statuses('/login', 4, 'POST')).toEqual([401, 401, 429, 429])
      expect(await statuses('/items/a', 2)).toEqual([200, 200])
      expect(await statuses('/items/A', 1)).toEqual([200])
      expect(await statuses('/items/b', 1)).toEqual([200])
      expect(await statuses('/items/c', 1)).toEqual([429])
      expect(await statuses('/api/dear', 2)).toEqual([200, 200])
      expect((await served.ask('/api/own')).json.limits).toMatchObject([{ name: 'daily', cost: 1, remaining: 0 }])
      expect(await statuses('/api/cheap', 1)).toEqual([429])
      expect(leftOf(await limiter.peek(address))).toEqual({ hour: 100 - 2 * 3 - 4 * 2 - 2 * 2 })
    })

    it('goes by the `ladder` of an entry of `routes`, where it has none', async () => {
      const identify = [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })]
      const routes = { '/mild': { ladder: [] } }
      const limiter = opened(rampmeter({ store: await makeStore(), identify, abuse: {}, routes, deadline }))
      const app = express().use(limiter)
      app.get(['/mild', '/common'], limiter.route({ cost: 2 }), tellDecision)
      const served = await serve(app)
      await limiter.ready()
      for (let times = 0; times < 8; times += 1) await limiter.abuse.report('key:acme', 'dispute')
      const headers = { 'x-api-key': 'acme' }
      expect((await served.ask('/common', { headers })).status).toBe(403)
      expect((await served.ask('/mild', { headers })).status).toBe(200)
    })

    it('is settled by the `costHeader` of an entry of `routes`, where it has none', async () => {
      const routes = { '/chat': { costHeader: 'x-cost' } }
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], routes, deadline }))
      const app = express().use(limiter)
      app.get('/chat', limiter.route({ cost: 2 }), (_req, res) => void res.set('x-cost', '9').json({}))
      const served = await serve(app)
      expect((await served.ask('/chat')).headers).not.toHaveProperty('x-cost')
      await expect.poll(async () => leftOf(await limiter.peek(address)), { timeout: 20_000 }).toEqual({ hour: 91 })
    })

    it('puts its policies in the place of the tier’s with `replace`', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
      const own = [slidingWindow({ name: 'export', quota: 3, window: '1h' })]
      const app = express().use(limiter)
      app.get('/export', limiter.route({ policies: own, replace: true, cost: 2 }), tellDecision)
      app.get('/open', limiter.route({ policies: [], replace: true }), tellDecision)
      const served = await serve(app)

      const { headers, json } = await served.ask('/export')
      expect(headers['ratelimit']).toBe('"export";r=1;t=3600')
      expect(json.limits).toMatchObject([{ name: 'export', cost: 2 }])
      expect((await served.ask('/export')).status).toBe(429)

      const open = await served.ask('/open')
      expect(open.status).toBe(200)
      expect(open.headers).not.toHaveProperty('ratelimit')
      expect(open.headers).not.toHaveProperty('ratelimit-limit')
      expect(open.json.limits).toEqual([])
      expect(leftOf(await limiter.peek(address))).toEqual({ hour: 100 })
    })

    it('decides anew where only the limit is another', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
      const app = express().use(limiter)
      const tighter = [slidingWindow({ name: 'hour', quota: 2, window: '1h' })]
      app.get('/tight', limiter.route({ policies: tighter, replace: true }), tellDecision)
      const served = await serve(app)
      const replies = await askTimes(served, 3, '/tight')
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 429])
      expect(replies[0]!.headers['ratelimit']).toBe('"hour";r=1;t=3600')
    })

    it('decides anew where only the rate is another', async () => {
      const bucket = (quota: number) => [tokenBucket({ name: 'bucket', quota, window: '1h', burst: 5 })]
      const limiter = opened(rampmeter({ store: await makeStore(), policies: bucket(100), deadline }))
      const app = express().use(limiter)
      app.get('/slow', limiter.route({ policies: bucket(50), replace: true }), tellDecision)
      const { headers } = await (await serve(app)).ask('/slow')
      expect(headers['ratelimit-policy']).toBe('"bucket";q=50;w=3600')
      expect(headers['ratelimit']).toBe('"bucket";r=4;t=288')
    })

    it('has policies for each tier, and default ones', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          tiers: { free: { policies: [hundredAnHour] }, paid: { policies: [thousandADay] }, staff: { policies: [] } },
          classify: (req) => req.get('x-plan') as 'free',
        }),
      )
      const app = express()
      const policies = {
        default: [slidingWindow({ name: 'exports', quota: 1, window: '1h' })],
        paid: [slidingWindow({ name: 'exports', quota: 20, window: '1h' })],
      }
      app.get('/export', limiter.route({ policies }), tellDecision)
      const served = await serve(app)

      const ask = (plan: string) => served.ask('/export', { headers: { 'x-plan': plan } })
      expect((await ask('free')).headers['ratelimit-policy']).toBe('"hour";q=100;w=3600, "exports";q=1;w=3600')
      // The same address, so the same counter under another limit.
      expect((await ask('paid')).headers['ratelimit']).toBe('"day";r=999;t=86400, "exports";r=18;t=3600')
      expect((await ask('free')).status).toBe(429)
      expect((await ask('staff')).problem['violated-policies']).toEqual(['exports'])
    })

    it('replaces only the limits of tiers that it has policies for', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          tiers: { free: { policies: [hundredAnHour] }, paid: { policies: [thousandADay] } },
          classify: (req) => req.get('x-plan') as 'free',
        }),
      )
      const app = express()
      const policies = { paid: [slidingWindow({ name: 'exports', quota: 20, window: '1h' })] }
      app.get('/export', limiter.route({ policies, replace: true }), tellDecision)
      const served = await serve(app)
      const ask = (plan: string) => served.ask('/export', { headers: { 'x-plan': plan } })
      expect((await ask('paid')).headers['ratelimit-policy']).toBe('"exports";q=20;w=3600')
      expect((await ask('free')).headers['ratelimit-policy']).toBe('"hour";q=100;w=3600')
    })

    it('moves the charge when somebody logs in between', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          identify: [session((req) => (req as { user?: { id: number } }).user)],
        }),
      )
      const login: RequestHandler = (req, _res, next) => {
        Object.assign(req, { user: { id: 42 } })
        next()
      }
      const app = express().use(limiter)
      app.get('/me', login, limiter.route({ cost: 1 }), tellDecision)
      const served = await serve(app)

      const { headers, json } = await served.ask('/me')

      expect(json.client).toMatchObject({ id: 'session:42', tier: 'human', provedBy: 'session' })
      expect(headers['x-ratelimit-tier']).toBe('human')
      expect(headers['ratelimit-policy']).toBe('"per-minute";q=100;w=60, "per-hour";q=3000;w=3600')
      expect(leftOf(await limiter.peek(anonymous))).toEqual({ 'per-minute': 10, 'per-hour': 500 })
      expect(leftOf(await limiter.peek({ id: 'session:42', tier: 'human' }))).toMatchObject({ 'per-hour': 2999 })
    })

    it('names the client of the login also where the counters are everybody’s', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          policies: [slidingWindow({ quota: 10, window: '1h', partition: 'global' })],
          identify: [session((req) => (req as { user?: { id: number } }).user)],
        }),
      )
      const app = express().use(limiter)
      app.get(
        '/me',
        (req, _res, next) => {
          Object.assign(req, { user: { id: 42 } })
          next()
        },
        limiter.route({}),
        tellDecision,
      )
      const { json } = await (await serve(app)).ask('/me')
      expect(json.client.id).toBe('session:42')
      expect(json.limits).toMatchObject([{ remaining: 9 }])
    })

    it('gives the outer charge back when its own cost cannot be charged', async () => {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hundredAnHour], deadline }))
      const app = express().use(limiter)
      app.get('/broken', limiter.route({ cost: () => Number.NaN }), tellDecision)
      app.use(handler)
      const served = await serve(app)

      expect((await served.ask('/broken')).json.code).toBe('RAMPMETER_INVALID_COST')
      expect(errors).toHaveLength(1)
      await limiter.flush()
      expect(leftOf(await limiter.peek(address))).toEqual({ hour: 100 })
    })

    it('asks each verifier once a request', async () => {
      let lookups = 0
      const lookup = async (key: string) => {
        lookups += 1
        return { id: key, type: 'agent' as const }
      }
      const limiter = opened(rampmeter({ store: await makeStore(), identify: [apiKey({ lookup })], deadline }))
      const app = express().use(limiter)
      app.get('/search', limiter.route({ cost: 5 }), limiter.route({ cost: 7 }), tellDecision)
      const served = await serve(app)
      const { json } = await served.ask('/search', { headers: { 'x-api-key': 'acme' } })
      expect(lookups).toBe(1)
      expect(leftOf(json)).toEqual({ 'per-minute': 193, 'per-hour': 19_993, 'first-minutes': 500 })
    })

    it('does not admit what the outer limiter refused', async () => {
      const limiter = opened(
        rampmeter({ store: await makeStore(), policies: [slidingWindow({ quota: 1, window: '1h' })], deadline }),
      )
      let handled = 0
      const app = express().use(limiter)
      app.get('/', limiter.route({ cost: 0 }), (_req, res) => {
        handled += 1
        res.end()
      })
      app.get('/plain', tellDecision)
      const served = await serve(app)
      expect((await served.ask('/plain')).status).toBe(200)
      expect((await served.ask('/')).status).toBe(429)
      expect(handled).toBe(0)
    })
  })
}

describe('script calls on Redis', () => {
  let server: TestRedis
  let redis: Redis

  beforeAll(async () => {
    server = await startRedis()
    redis = new Redis(server.url)
  })
  afterAll(async () => {
    redis.disconnect()
    await server.stop()
  })

  /** Calls of commands that clients sent since the last time, by name; those that scripts make are not counted. */
  async function scriptCalls(): Promise<Record<string, number>> {
    const stats = await redis.info('commandstats')
    await redis.config('RESETSTAT')
    const calls = [...stats.matchAll(/^cmdstat_(eval|evalsha|fcall|script\|load|multi|exec):calls=(\d+)/gm)]
    return Object.fromEntries(calls.map(([, name, count]) => [name, Number(count)]))
  }

  async function serveCounted(makeApp: (limiter: ReturnType<typeof make>) => express.Express) {
    const limiter = make()
    const served = await serve(makeApp(limiter))
    await limiter.ready()
    // The first call of a script loads it.
    await limiter.decide({ client: { id: 'key:warm' } })
    await scriptCalls()
    return served
  }

  function make() {
    return opened(
      rampmeter({
        store: redisStore(redis, { prefix: `calls-${Math.random()}:` }),
        deadline,
        policies: [
          tokenBucket({ quota: 500, window: '1m' }),
          slidingWindow({ quota: 20_000, window: '1h' }),
          fixedWindow({ quota: 5000, window: '1d', partition: 'global' }),
        ],
      }),
    )
  }

  it('are one for a decision over three policies', async () => {
    const served = await serveCounted((limiter) => express().use(limiter).get('/', tellDecision))
    const { json } = await served.ask('/')
    expect(json.limits).toHaveLength(3)
    expect(await scriptCalls()).toEqual({ evalsha: 1 })
    await askTimes(served, 10)
    expect(await scriptCalls()).toEqual({ evalsha: 10 })
  })

  it('are two where an inner route has another price', async () => {
    const served = await serveCounted((limiter) =>
      express()
        .use(limiter)
        .get('/', limiter.route({ cost: 5 }), tellDecision),
    )
    const { json } = await served.ask('/')
    expect(json.limits).toMatchObject([{ remaining: 495 }, { remaining: 19_995 }, { remaining: 4994 }])
    expect(await scriptCalls()).toEqual({ evalsha: 2 })
  })

  it('are one where an inner route has the same price', async () => {
    const served = await serveCounted((limiter) =>
      express()
        .use(limiter)
        .get('/', limiter.route({ name: 'same', cost: 1 }), tellDecision),
    )
    await served.ask('/')
    expect(await scriptCalls()).toEqual({ evalsha: 1 })
  })

  it('are one where the routes table has another price', async () => {
    const limiter = opened(
      rampmeter({
        store: redisStore(redis, { prefix: 'table:' }),
        policies: [hundredAnHour],
        routes: { 'GET /search': { cost: 5 } },
        deadline,
      }),
    )
    const served = await serve(express().use(limiter).get('/search', tellDecision))
    await limiter.ready()
    await served.ask('/search')
    await scriptCalls()
    await served.ask('/search')
    expect(await scriptCalls()).toEqual({ evalsha: 1 })
  })
})
