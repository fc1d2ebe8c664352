// Limits that follow the load, over HTTP and on both stores. The load is what `sample` says it is.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { createServer, ServerResponse } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import express from 'express'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import {
  adaptive,
  concurrency,
  failures,
  fixedWindow,
  gradient,
  memoryStore,
  presetLevels,
  presetTiers,
  rampmeter,
  redisStore,
  slidingWindow,
  tokenBucket,
  type DecisionMessage,
  type LevelMessage,
  type LimiterOptions,
  type Sample,
  type Store,
} from '../../src/index.ts'
import { askTimes, opened, serve, tellDecision, type Served } from './serve.ts'
import { openRedis, stores } from './stores.ts'
import { warningsOf } from './warnings.ts'

const well: Sample = { p99Ms: 700, errorRate: 0, cpu: 0.5, eventLoopMs: 0 }
const stressed: Sample = { p99Ms: 5000, eventLoopMs: 0 }
const idle: Sample = { p99Ms: 10, errorRate: 0, cpu: 0.01, eventLoopMs: 0 }

/** A limiter whose app is as `app.is` says, looked at ten times a second. */
function adaptiveLimiter(
  options: Partial<LimiterOptions> = {},
  controller: ReturnType<typeof gradient> | false = false,
) {
  const app = { is: well }
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '100ms', sample: () => app.is, controller }),
      // A busy machine is no outage.
      deadline: '10s',
      ...options,
    }),
  )
  const reaches = async (level: string, is: Sample): Promise<void> => {
    app.is = is
    await vi.waitFor(() => expect(limiter.health().level).toBe(level), { timeout: 30_000, interval: 20 })
  }
  return { limiter, reaches, app }
}

const perMinute = (quota: number, burst = quota) => tokenBucket({ name: 'per-minute', quota, window: '1m', burst })

async function serveWith(limiter: express.RequestHandler): Promise<Served> {
  const app = express()
  app.use(limiter)
  app.use(tellDecision)
  return await serve(app)
}

describe.each(stores)('$name', ({ makeStore }) => {
  it('cuts quotas while the app is stressed, tells today’s, and says 503 where only the cut refuses', async () => {
    const { limiter, reaches } = adaptiveLimiter({
      store: await makeStore(),
      policies: [fixedWindow({ name: 'w', quota: 10, window: '1h' })],
    })
    const served = await serveWith(limiter)
    expect((await served.ask()).headers['ratelimit-policy']).toBe('"w";q=10;w=3600')

    await reaches('stressed', stressed)
    const replies = await askTimes(served, 5)
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 503])
    expect(replies[0]!.headers['ratelimit-policy']).toBe('"w";q=5;w=3600')
    expect(replies[0]!.headers['ratelimit']).toMatch(/^"w";r=3;t=/)
    expect(replies[4]!.problem).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#temporary-reduced-capacity',
      status: 503,
      retry_estimated: true,
      'violated-policies': ['w'],
      error: { type: 'temporarily_unavailable', limit: 5, remaining: 0 },
    })
    expect(Number(replies[4]!.headers['retry-after'])).toBeGreaterThan(3500)

    // What was used stays used, and what was not is there again.
    await reaches('warm', { p99Ms: 1200, eventLoopMs: 0 })
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 503])
    await reaches('normal', well)
    expect((await askTimes(served, 4)).map(({ status }) => status)).toEqual([200, 200, 200, 429])
    // Of the base quota nothing is left either.
    await reaches('stressed', stressed)
    expect((await served.ask()).status).toBe(429)
  }, 60_000)

  it('a cost above today’s quota and within the base one is 503, one above both stays 403', async () => {
    const { limiter, reaches } = adaptiveLimiter({
      store: await makeStore(),
      policies: [perMinute(10)],
      routes: { '/large': { cost: 8 }, '/never': { cost: 11 } },
    })
    const served = await serveWith(limiter)
    await reaches('stressed', stressed)
    const large = await served.ask('/large')
    expect(large.status).toBe(503)
    expect(large.problem.retry_estimated).toBe(true)
    expect(Number(large.headers['retry-after'])).toBeGreaterThan(0)
    const never = await served.ask('/never')
    expect(never.status).toBe(403)
    expect(never.problem).toMatchObject({ error: { cost: 11, capacity: 10 }, detail: expect.stringContaining(' 10 ') })
    expect(never.headers['retry-after']).toBeUndefined()
    await reaches('normal', well)
    expect((await served.ask('/large')).status).toBe(200)
  }, 60_000)

  it('a cost above today’s quota whose base quota is used up is 429, with a time at which the base quota has room', async () => {
    const policies = [
      perMinute(10),
      slidingWindow({ name: 'window', quota: 10, window: '5m' }),
      fixedWindow({ name: 'fixed', quota: 10, window: '10m' }),
    ]
    for (const policy of policies) {
      const { limiter, reaches } = adaptiveLimiter({
        store: await makeStore(),
        policies: [policy],
        routes: { '/large': { cost: 8 } },
      })
      const served = await serveWith(limiter)
      await askTimes(served, 6)
      await reaches('stressed', stressed)
      const refused = await served.ask('/large')
      expect(refused.status).toBe(429)
      expect(refused.problem).toMatchObject({ retry_estimated: true })
      // Of the bucket four of six units have to come back at 5 a minute; of a window all of them, when it is over.
      const afterS = Number(refused.headers['retry-after'])
      expect(afterS).toBeGreaterThan(policy.kind === 'token-bucket' ? 40 : 0.9 * (policy.windowMs / 1000) - 5)
      if (policy.kind === 'token-bucket') expect(afterS).toBeLessThanOrEqual(48)
    }
  }, 60_000)

  it('the time that a 429 tells under a cut is told as an estimate', async () => {
    const { limiter, reaches } = adaptiveLimiter({ store: await makeStore(), policies: [perMinute(10)] })
    const served = await serveWith(limiter)
    expect((await askTimes(served, 11))[10]!.problem).not.toHaveProperty('retry_estimated')
    await reaches('stressed', stressed)
    const refused = await served.ask()
    expect(refused.status).toBe(429)
    expect(refused.problem).toMatchObject({ retry_estimated: true })
  }, 60_000)

  it('lifts quotas of an idle app, but none that guards, none of more than an hour, and none in flight', async () => {
    const { limiter, reaches } = adaptiveLimiter({
      store: await makeStore(),
      policies: [
        perMinute(10, 4),
        slidingWindow({ name: 'per-hour', quota: 100, window: '1h' }),
        fixedWindow({ name: 'per-day', quota: 1000, window: '1d' }),
        concurrency({ name: 'in-flight', quota: 3 }),
        failures({ name: 'failures', quota: 7, window: '1m' }),
      ],
      routes: {
        '/risk': { highRisk: true, policies: [perMinute(5)].map((one) => ({ ...one, name: 'risk', stateId: 1 })) },
      },
    })
    const served = await serveWith(limiter)
    await reaches('idle', idle)
    const quotas = ((await served.ask('/risk')).json.limits as { name: string; quota: number; capacity: number }[]).map(
      ({ name, quota, capacity }) => `${name} ${quota} ${capacity}`,
    )
    expect(quotas).toEqual([
      'per-minute 15 6',
      'per-hour 150 150',
      'per-day 1000 1000',
      'in-flight 3 3',
      'failures 7 7',
      'risk 5 5',
    ])
  }, 60_000)

  it('two processes tell one quota, and the one that is well recovers when the other goes', async () => {
    const store = await makeStore()
    const options = { store, policies: [perMinute(100)] }
    const one = adaptiveLimiter(options)
    const other = adaptiveLimiter(options)
    await one.reaches('stressed', stressed)
    const followed = { level: 'stressed', multiplier: 0.5, cause: 'latency', ownLevel: 'normal' }
    await vi.waitFor(() => expect(other.limiter.health()).toMatchObject(followed), 10_000)
    const sampled = ['p99Ms', 'errorRate', 'cpu', 'eventLoopMs']
    await vi.waitFor(() => expect(other.limiter.health().sampled).toEqual(sampled), 10_000)
    const { limits } = await other.limiter.peek({ id: 'key:a' })
    expect(limits[0]!.quota).toBe(50)
    await one.limiter.close()
    await vi.waitFor(() => expect(other.limiter.health().level).toBe('normal'), 10_000)
  }, 60_000)
})

it('one that starts follows the others as soon as its store is there, not a period later', async () => {
  const { redis, prefix, url } = await openRedis()
  const others = redisStore(redis, { prefix }).open({ nameOf: (name) => name })
  onTestFinished(() => others.close())
  await others.ready()
  await others.post!('multiplier', 'another', 5000, 600_000)
  const own = new Redis(url)
  onTestFinished(() => own.disconnect())
  const limiter = opened(
    rampmeter({
      store: redisStore(own, { prefix }),
      policies: [perMinute(100)],
      adaptive: adaptive({ every: '1h' }),
    }),
  )
  expect(own.status).not.toBe('ready')
  await vi.waitFor(() => expect(limiter.health()).toMatchObject({ level: 'stressed', multiplier: 0.5 }), 20_000)
}, 60_000)

it('asks nothing more of the store while nothing is cut', async () => {
  const asked: (object | undefined)[] = []
  const store: Store = {
    open(settings) {
      const handle = memoryStore().open(settings)
      return {
        ...handle,
        decide(request) {
          asked.push(...request.charges.filter(({ kind }) => kind !== 'standing').map(({ base }) => base))
          return handle.decide(request)
        },
      }
    },
  }
  const { limiter, reaches } = adaptiveLimiter({ store, policies: [perMinute(10)] })
  const served = await serveWith(limiter)
  await served.ask()
  await reaches('idle', idle)
  await served.ask()
  await reaches('stressed', stressed)
  await served.ask()
  expect(asked).toEqual([undefined, undefined, { quota: 10, capacity: 10 }])
}, 60_000)

it('tiers are cut by priority at the last level, premium least; a critical route is not cut', async () => {
  const { limiter, reaches } = adaptiveLimiter({
    tiers: { ...presetTiers(), human: { policies: [perMinute(100)], priority: 1, adaptive: { weight: 0 } } },
    classify: (req) => req.get('x-tier') as 'human',
    routes: { '/pay': { critical: true } },
  })
  const served = await serveWith(limiter)
  const quotaOf = async (tier: string, path = '/'): Promise<number> =>
    (await served.ask(path, { headers: { 'x-tier': tier } })).json.limits[0].quota as number
  await reaches('stressed', stressed)
  const tiers = ['anonymous', 'human', 'agent', 'verified-agent', 'premium']
  expect(await Promise.all(tiers.map((tier) => quotaOf(tier)))).toEqual([7, 100, 187, 437, 1500])
  expect(await quotaOf('anonymous', '/pay')).toBe(30)
  await reaches('warm', { p99Ms: 1200, eventLoopMs: 0 })
  expect(await Promise.all(tiers.map((tier) => quotaOf(tier)))).toEqual([22, 100, 375, 750, 1500])
}, 60_000)

it('a route that is critical in `routes` stays so where its handler has a limiter.route() as well', async () => {
  const { limiter, reaches } = adaptiveLimiter({ policies: [perMinute(100)], routes: { '/pay': { critical: true } } })
  await reaches('stressed', stressed)
  const app = express().use(limiter)
  app.get(['/pay', '/other'], limiter.route({ cost: 2 }), tellDecision)
  const served = await serve(app)
  expect((await served.ask('/pay')).json.limits).toMatchObject([{ quota: 100, cost: 2 }])
  expect((await served.ask('/other')).json.limits).toMatchObject([{ quota: 50, cost: 2 }])
}, 60_000)

it('tells each change of level, by the channel and by health', async () => {
  const told: LevelMessage[] = []
  const hear = (message: unknown): void => void told.push(message as LevelMessage)
  subscribe('rampmeter:level', hear)
  onTestFinished(() => void unsubscribe('rampmeter:level', hear))
  const { limiter, reaches } = adaptiveLimiter({ policies: [perMinute(1)] }, gradient())
  expect(limiter.health()).toMatchObject({ store: 'up', level: 'normal', multiplier: 1, limit: 200, inFlight: 0 })
  await reaches('stressed', stressed)
  expect(told).toMatchObject([{ from: 'normal', to: 'stressed', multiplier: 0.5, health: { p99Ms: 5000 } }])
  await reaches('normal', well)
  expect(told.slice(1)).toMatchObject([
    { from: 'stressed', to: 'warm', multiplier: 0.75 },
    { from: 'warm', to: 'normal', multiplier: 1 },
  ])
}, 60_000)

it('what is in flight is limited: low priorities first, critical last, and never one that is at work', async () => {
  const limiter = opened(
    rampmeter({
      store: memoryStore(),
      adaptive: adaptive({ every: '1h', controller: gradient({ least: 10, initial: 10, most: 10 }) }),
      tiers: {
        low: { policies: [perMinute(1000)], priority: 0 },
        high: { policies: [perMinute(1000)], priority: 1 },
      },
      classify: (req) => (req.get('x-tier') === 'high' ? 'high' : 'low'),
      routes: { '/pay': { critical: true } },
    }),
  )
  const app = express()
  const waiting: (() => void)[] = []
  app.use(limiter)
  app.use((_req, res) => void waiting.push(() => res.json({})))
  const served = await serve(app)
  const ask = (path: string, tier: string, count: number) =>
    Array.from({ length: count }, () => served.ask(path, { headers: { 'x-tier': tier } }))

  const low = ask('/', 'low', 20)
  await vi.waitFor(() => expect(waiting).toHaveLength(6), 10_000)
  const high = ask('/', 'high', 20)
  await vi.waitFor(() => expect(waiting).toHaveLength(9), 10_000)
  const critical = ask('/pay', 'low', 5)
  await vi.waitFor(() => expect(waiting).toHaveLength(10), 10_000)
  expect(limiter.health().inFlight).toBe(10)
  // Whoever there is no place for is told at once, not when there is one.
  let told = 0
  for (const one of [...low, ...high, ...critical]) void one.then(() => (told += 1))
  await vi.waitFor(() => expect(told).toBe(35), 10_000)
  for (const answer of waiting) answer()
  const replies = await Promise.all([...low, ...high, ...critical])
  expect(replies.filter(({ status }) => status === 200)).toHaveLength(10)
  const refused = replies.filter(({ status }) => status === 503)
  expect(refused).toHaveLength(35)
  expect(refused[0]!.problem).toMatchObject({ retry_estimated: true, error: { type: 'temporarily_unavailable' } })
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0))
  // Nobody was charged who was refused.
  const { limits } = await limiter.peek({ id: 'ip:127.0.0.1', tier: 'low' })
  expect(limits[0]!.remaining).toBeGreaterThanOrEqual(990)
})

it('an idle app is given its bursts by the defaults, whoever asks', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive(),
      tiers: { low: { policies: [perMinute(100_000)], priority: 0 }, high: { policies: [], priority: 1 } },
      classify: () => 'low',
    }),
  )
  const served = await serveWith(limiter)
  for (const size of [20, 50, 100, 100]) {
    const replies = await Promise.all(Array.from({ length: size }, () => served.ask()))
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(size)
  }
})

it('in shadow, whom the limit in flight would have refused is told as refused, and served', async () => {
  const limiter = opened(
    rampmeter({
      mode: 'shadow',
      adaptive: adaptive({ every: '1h', controller: gradient({ least: 2, initial: 2, most: 2 }) }),
      policies: [perMinute(1000)],
    }),
  )
  const told: DecisionMessage[] = []
  const hear = (message: unknown): void => void told.push(message as DecisionMessage)
  subscribe('rampmeter:decision', hear)
  onTestFinished(() => void unsubscribe('rampmeter:decision', hear))
  const app = express()
  const waiting: (() => void)[] = []
  app.use(limiter)
  app.use((_req, res) => void waiting.push(() => res.json({})))
  const served = await serve(app)
  const asked = Array.from({ length: 5 }, () => served.ask())
  await vi.waitFor(() => expect(waiting).toHaveLength(5), 10_000)
  expect(limiter.health()).toMatchObject({ inFlight: 5, limit: 2 })
  for (const answer of waiting) answer()
  const replies = await Promise.all(asked)
  expect(replies.map(({ status, headers }) => [status, headers['retry-after']])).toEqual(
    replies.map(() => [200, undefined]),
  )
  const refused = told.filter(({ admitted }) => !admitted)
  // One policy for everybody is one priority, the highest, which leaves critical routes a place.
  expect(refused).toHaveLength(4)
  expect(refused[0]).toMatchObject({ enforced: false, reason: 'capacity', violated: [], limits: [] })
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0))
})

it('says that a route is critical too late behind app.use, once, and nothing where it is known in time', async () => {
  const heard = warningsOf('RAMPMETER_CRITICAL_LATE')
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '1h' }),
      policies: [perMinute(1000)],
      routes: { '/known': { critical: true } },
    }),
  )
  const app = express()
  app.get('/alone', limiter.route({ critical: true }), tellDecision)
  app.use(limiter)
  app.get(['/known', '/late'], limiter.route({ critical: true, cost: 2 }), tellDecision)
  const served = await serve(app)
  await served.ask('/alone')
  await served.ask('/known')
  expect(await heard()).toEqual([])
  await askTimes(served, 2, '/late')
  expect((await heard()).map(({ message }) => message)).toEqual([expect.stringMatching(/critical: true.*routes: /)])
})

it('says so too where the limiter further out refuses before the route is reached', async () => {
  const heard = warningsOf('RAMPMETER_CRITICAL_LATE')
  const make = () =>
    opened(
      rampmeter({
        adaptive: adaptive({ every: '1h', controller: gradient({ least: 1, initial: 1, most: 1 }) }),
        policies: [perMinute(1000)],
      }),
    )
  /** An app whose only place is taken, after a first request to a path. */
  const fullApp = async (path: string): Promise<Served> => {
    const limiter = make()
    const app = express()
    if (path === '/before') app.get('/before', limiter.route({ critical: true }), tellDecision)
    app.use(limiter)
    app.get('/hangs', () => {})
    if (path === '/late') app.get('/late', limiter.route({ critical: true }), tellDecision)
    const served = await serve(app)
    if (path === '/before') expect((await served.ask(path)).status).toBe(200)
    void served.ask('/hangs').catch(() => {})
    await vi.waitFor(() => expect(limiter.health().inFlight).toBe(1), 10_000)
    return served
  }
  expect((await (await fullApp('/before')).ask('/other')).status).toBe(503)
  expect(await heard()).toEqual([])
  expect((await (await fullApp('/late')).ask('/late')).status).toBe(503)
  expect((await heard()).map(({ message }) => message)).toEqual([expect.stringMatching(/refused.*capacity.*routes: /)])
})

it('after close it says nothing of the app, and cuts nothing', async () => {
  const { limiter, reaches } = adaptiveLimiter({ policies: [perMinute(10)] })
  await reaches('stressed', stressed)
  await limiter.close()
  expect(limiter.health()).toMatchObject({ level: 'normal', multiplier: 1, p99Ms: null, cpu: null })
}, 60_000)

it('a place comes back when the client goes, the handler throws or a mistake fails the request', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ controller: gradient({ initial: 10 }) }),
      policies: [perMinute(100)],
      routes: { '/wrong': { cost: () => Number.NaN } },
    }),
  )
  const app = express()
  app.use(limiter)
  app.get('/throws', () => {
    throw new Error('on purpose')
  })
  app.get('/nested', limiter.route({ cost: 2 }), tellDecision)
  app.get('/hangs', () => {})
  app.use(((_error, _req, res, _next) => res.status(500).end()) as express.ErrorRequestHandler)
  const served = await serve(app)
  expect((await served.ask('/throws')).status).toBe(500)
  expect((await served.ask('/wrong')).status).toBe(500)
  expect((await served.ask('/nested')).status).toBe(200)
  const aborted = new AbortController()
  const hanging = fetch(`http://127.0.0.1:${served.port}/hangs`, { signal: aborted.signal }).catch(() => {})
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(1))
  aborted.abort()
  await hanging
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0))
})

it('places come back when a connection closes on requests that are queued behind one another, answered or not', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '1h', controller: gradient({ initial: 100 }) }),
      policies: [perMinute(1000)],
    }),
  )
  const app = express()
  app.use(limiter)
  // A handler that stops when its client has gone, and answers nobody.
  app.get('/', () => {})
  const served = await serve(app)
  const socket = connect(served.port, '127.0.0.1')
  socket.on('error', () => {})
  socket.write('GET / HTTP/1.1\r\nHost: here\r\n\r\n'.repeat(30))
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(30), 10_000)
  socket.destroy()
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0), 10_000)
})

it('an app that hangs is stressed, by the age of what is in flight, and says so', async () => {
  const told: LevelMessage[] = []
  const hear = (message: unknown): void => void told.push(message as LevelMessage)
  subscribe('rampmeter:level', hear)
  onTestFinished(() => void unsubscribe('rampmeter:level', hear))
  const late = { eventLoopMs: 600_000 }
  const levels = presetLevels({ warm: { p99Ms: 200, ...late }, stressed: { p99Ms: 400, ...late } })
  const limiter = opened(
    rampmeter({ adaptive: adaptive({ every: '100ms', levels, controller: false }), policies: [perMinute(100)] }),
  )
  const app = express()
  app.use(limiter)
  app.get('/', () => {})
  const served = await serve(app)
  for (let one = 0; one < 30; one += 1) void served.ask().catch(() => {})
  await vi.waitFor(() => expect(limiter.health().level).toBe('stressed'), 20_000)
  expect(limiter.health()).toMatchObject({ cause: 'latency', ownLevel: 'stressed', sampled: [], inFlight: 30 })
  expect(told.at(-1)).toMatchObject({
    to: 'stressed',
    cause: 'latency',
    shared: false,
    health: { ownLevel: 'stressed' },
  })
}, 60_000)

it('an app that hangs before it reads a body is stressed too, and what it does before counts once it has read it', async () => {
  const late = { eventLoopMs: 600_000 }
  const levels = presetLevels({ warm: { p99Ms: 500, ...late }, stressed: { p99Ms: 1000, ...late } })
  const limiter = opened(
    rampmeter({ adaptive: adaptive({ every: '1s', levels, controller: false }), policies: [perMinute(1000)] }),
  )
  const app = express()
  const waiting: (() => void)[] = []
  app.use(limiter)
  // As one that asks a slow database who that is.
  app.use((_req, _res, next) => void waiting.push(next))
  app.use(express.json())
  app.post('/', (_req, res) => void res.json({}))
  const served = await serve(app)
  const sockets = Array.from({ length: 30 }, () => {
    const socket = connect(served.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.resume()
    socket.write('POST / HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{')
    return socket
  })
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()))
  await vi.waitFor(() => expect(limiter.health()).toMatchObject({ level: 'stressed', cause: 'latency' }), 30_000)
  for (const next of waiting) next()
  for (const socket of sockets) socket.write('}')
  // Of what is in flight the errors are not known yet.
  await vi.waitFor(() => expect(limiter.health()).toMatchObject({ inFlight: 0, errorRate: 0 }), 20_000)
  expect(limiter.health().p99Ms).toBeGreaterThan(1000)
}, 90_000)

it('how long the store takes to decide is not the app’s latency', async () => {
  const store: Store = {
    open(settings) {
      const handle = memoryStore().open(settings)
      return {
        ...handle,
        async decide(request) {
          await new Promise((resolve) => setTimeout(resolve, 1200))
          return await handle.decide(request)
        },
      }
    },
  }
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '500ms', sample: () => ({ eventLoopMs: 0 }), controller: false }),
      policies: [perMinute(1000)],
      store,
      deadline: '30s',
    }),
  )
  const app = express()
  app.use(limiter)
  app.get('/', (_req, res) => void res.json({}))
  const served = await serve(app)
  await Promise.all(Array.from({ length: 30 }, () => served.ask('/')))
  await vi.waitFor(() => expect(limiter.health().errorRate).toBe(0), 20_000)
  expect(limiter.health().p99Ms).toBeLessThan(1200)
}, 60_000)

it('a WebSocket that passes through the app is not in flight while it lasts; who only asks for one is', async () => {
  const limiter = opened(
    rampmeter({ adaptive: adaptive({ every: '100ms', controller: false }), policies: [perMinute(1000)] }),
  )
  const app = express()
  app.use(limiter)
  let opens = 0
  app.get('/socket', (req) => {
    opens += 1
    req.socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n')
  })
  let hangs = 0
  app.get('/hangs', () => void (hangs += 1))
  const upgradeTo = (path: string, port: number): void => {
    const socket = connect(port, '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    socket.on('error', () => {})
    socket.write(`GET ${path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`)
  }

  // As express-ws does it: with a response that is never sent.
  const server = createServer((req, res) => void app(req, res))
  server.on('upgrade', (req) => void app(req, new ServerResponse(req)))
  onTestFinished(() => void server.close())
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  for (let one = 0; one < 3; one += 1) upgradeTo('/socket', port)
  await vi.waitFor(() => expect(opens).toBe(3), 20_000)
  expect(limiter.health().inFlight).toBe(0)

  // A server without WebSockets answers as always.
  const served = await serve(app)
  upgradeTo('/hangs', served.port)
  await vi.waitFor(() => expect(hangs).toBe(1), 20_000)
  expect(limiter.health().inFlight).toBe(1)
}, 60_000)

it('what waits on purpose takes no place and says nothing of the app, also behind app.use', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '1h', controller: gradient({ least: 1, initial: 1, most: 1 }) }),
      policies: [perMinute(5)],
      routes: { '/poll': { health: false } },
    }),
  )
  const app = express()
  const waiting: (() => void)[] = []
  const wait: express.RequestHandler = (_req, res) => void waiting.push(() => res.json({}))
  app.use(limiter)
  app.get('/poll', wait)
  app.get('/late', limiter.route({ health: false }), wait)
  app.get('/work', wait)
  const served = await serve(app)
  const polls = Array.from({ length: 3 }, () => served.ask('/poll'))
  await vi.waitFor(() => expect(waiting).toHaveLength(3), 10_000)
  const late = served.ask('/late')
  await vi.waitFor(() => expect(waiting).toHaveLength(4), 10_000)
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0), 10_000)
  const work = served.ask('/work')
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(1), 10_000)
  await vi.waitFor(() => expect(waiting).toHaveLength(5), 10_000)
  // Its quota counts.
  expect((await served.ask('/poll')).status).toBe(429)
  for (const answer of waiting) answer()
  expect((await Promise.all([...polls, late, work])).map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
})

it('a probe without limits is answered when there is no place for anybody', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '1h', controller: gradient({ least: 1, initial: 1, most: 1 }) }),
      routes: { '/live': { replace: true, policies: [] } },
    }),
  )
  const app = express()
  const waiting: (() => void)[] = []
  app.use(limiter)
  app.get('/work', (_req, res) => void waiting.push(() => res.json({})))
  app.get('/live', (_req, res) => void res.json({}))
  const served = await serve(app)
  const work = served.ask('/work')
  await vi.waitFor(() => expect(waiting).toHaveLength(1), 10_000)
  expect((await served.ask('/work')).status).toBe(503)
  expect((await served.ask('/live')).status).toBe(200)
  waiting[0]!()
  expect((await work).status).toBe(200)
})

it('how long a client takes to send its body is not the app’s latency', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '100ms', sample: () => ({ eventLoopMs: 0 }), controller: false }),
      policies: [perMinute(100)],
    }),
  )
  const app = express()
  app.use(limiter)
  app.use(express.json())
  app.post('/', (_req, res) => void res.json({}))
  const served = await serve(app)
  const sockets = Array.from({ length: 30 }, () => {
    const socket = connect(served.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.resume()
    socket.write('POST / HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{')
    return socket
  })
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(30), 20_000)
  await new Promise((resolve) => setTimeout(resolve, 4000))
  expect(limiter.health().p99Ms).toBe(null)
  for (const socket of sockets.slice(0, 25)) socket.write('}')
  await vi.waitFor(() => expect(limiter.health().p99Ms).not.toBe(null), 10_000)
  expect(limiter.health().p99Ms).toBeLessThan(4000)
  // Who goes before all was sent has waited for nothing.
  for (const socket of sockets) socket.destroy()
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0), 10_000)
}, 60_000)

it('who takes long to send a body keeps no place that others need, and has it again once the body is there', async () => {
  const limiter = opened(
    rampmeter({
      adaptive: adaptive({ every: '1h', controller: gradient({ least: 4, initial: 4, most: 4 }) }),
      policies: [perMinute(10_000)],
    }),
  )
  const app = express()
  app.use(limiter)
  app.use(express.json())
  let release = (): void => {}
  const released = new Promise<void>((resolve) => (release = resolve))
  app.post('/', async (_req, res) => {
    await released
    res.json({})
  })
  app.get('/', (_req, res) => void res.json({}))
  const served = await serve(app)
  // Of 4 places a tier may fill 3.
  const sockets = Array.from({ length: 3 }, () => {
    const socket = connect(served.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.resume()
    socket.write('POST / HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{')
    return socket
  })
  onTestFinished(() => sockets.forEach((socket) => socket.destroy()))
  const asks = async (status: number): Promise<void> => {
    await vi.waitFor(async () => expect((await served.ask('/')).status).toBe(status), { timeout: 30_000, interval: 50 })
  }
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(3), 20_000)
  await asks(200)
  // What the app works on now counts, though it was let in long ago.
  for (const socket of sockets) socket.write('}')
  await asks(503)
  release()
  await asks(200)
  await vi.waitFor(() => expect(limiter.health().inFlight).toBe(0), 10_000)
  // Nothing was given back twice.
  for (const socket of sockets) socket.destroy()
  await asks(200)
  expect(limiter.health().inFlight).toBe(0)
}, 90_000)

it('an option about adaptive limits on a limiter without is told once; none where they are off on purpose', async () => {
  const heard = warningsOf('RAMPMETER_ADAPTIVE_MISSING')
  const tiers = { ...presetTiers(), human: { policies: [perMinute(5)], adaptive: { floor: 0.5 } } }
  const routes = { '/pay': { critical: true } }
  opened(rampmeter({ tiers: presetTiers() }))
  opened(rampmeter({ tiers, routes, adaptive: adaptive() }))
  const off = ([false, null] as const).map((value) => opened(rampmeter({ tiers, routes, adaptive: value })))
  expect(off.map((limiter) => limiter.health())).toEqual([{ store: 'up' }, { store: 'up' }])
  expect(await heard()).toEqual([])
  opened(rampmeter({ tiers, routes }))
  opened(rampmeter({ routes }))
  opened(rampmeter()).route({ health: false })
  expect((await heard()).map(({ message }) => message)).toEqual([
    expect.stringMatching(/tier "human" has `adaptive`/),
    expect.stringMatching(/routes\["\/pay"\] has `critical`/),
    expect.stringMatching(/limiter\.route has `health`/),
  ])
})

it('measures what it is not told: answers, errors, CPU and the event loop; 4xx and refusals do not count', async () => {
  const limiter = opened(
    rampmeter({ adaptive: adaptive({ every: '2s', controller: false }), policies: [perMinute(60)] }),
  )
  const app = express()
  app.use(limiter)
  app.get('/broken', (_req, res) => void res.status(500).end())
  app.get('/wrong', (_req, res) => void res.status(404).end())
  app.use(tellDecision)
  const served = await serve(app)
  await askTimes(served, 18, '/wrong')
  await askTimes(served, 4, '/')
  const burst = async (): Promise<void> => {
    await Promise.all([
      ...Array.from({ length: 15 }, () => served.ask('/')),
      ...Array.from({ length: 8 }, () => served.ask('/broken')),
    ])
  }
  await burst()
  await vi.waitFor(() => {
    const { errorRate, p99Ms, cpu, eventLoopMs } = limiter.health()
    expect(errorRate).toBeGreaterThan(0.25)
    expect(errorRate).toBeLessThan(0.36)
    expect(p99Ms).toBeGreaterThan(0)
    expect(cpu).toBeGreaterThan(0)
    expect(eventLoopMs).toBeGreaterThanOrEqual(0)
    expect(limiter.health().level).toBe('stressed')
  }, 30_000)
}, 60_000)

it('a refusal by a cut alone that reserves a place tells its ticket, which is good in spite of the cut', async () => {
  const { limiter, reaches } = adaptiveLimiter({ tickets: true, policies: [perMinute(20)] })
  const served = await serveWith(limiter)
  const who = { client: { id: 'key:acme' } }
  expect((await limiter.decide({ ...who, cost: 12 })).admitted).toBe(true)
  await served.ask()
  await reaches('stressed', stressed)
  const refused = await limiter.decide({ ...who, cost: 4 })
  expect(refused).toMatchObject({ admitted: false, reason: 'capacity' })
  expect(refused.ticket).toEqual(expect.any(String))
  expect(await limiter.decide({ ...who, cost: 4, ticket: refused.ticket! })).toMatchObject({ ticket: refused.ticket })
}, 60_000)

describe('sample', () => {
  it.each<[string, () => unknown, RegExp]>([
    [
      'throws',
      () => {
        throw new Error('secret')
      },
      /threw/,
    ],
    ['rejects', () => Promise.reject(new Error('secret')), /threw/],
    ['hangs', () => new Promise(() => {}), /within a period, 100 ms/],
    ['answers nothing', () => undefined, /answered nothing; return an object/],
    ['answers in percent', () => ({ cpu: 30 }), /answered 30 as cpu; return a fraction: 0\.3 for 30 %/],
    [
      'throws where it is read',
      () => ({
        get p99Ms() {
          throw new Error('secret')
        },
      }),
      /threw/,
    ],
    ['answers a number', () => 7, /a number/],
    ['answers nonsense', () => ({ p99Ms: -1, cpu: '1', errorRate: NaN, eventLoopMs: Infinity }), /p99Ms/],
    ['answers more', () => ({ latency: 3 }), /none of p99Ms/],
  ])('that %s is ignored, and told once', async (_, sample, says) => {
    const heard = warningsOf('RAMPMETER_SAMPLE_FAILED')
    const limiter = opened(rampmeter({ adaptive: adaptive({ every: '100ms', sample: sample as () => Sample }) }))
    await vi.waitFor(async () => expect((await heard()).length).toBeGreaterThan(0), 10_000)
    await vi.waitFor(() => expect(limiter.health().cpu ?? null).not.toBe(null), 10_000)
    expect(limiter.health().level).toMatch(/normal|idle/)
    const text = (await heard()).map(({ message }) => message)
    expect(text.join()).toMatch(says)
    expect(text.join()).not.toMatch(/secret/)
    await new Promise((resolve) => setTimeout(resolve, 250))
    expect(new Set((await heard()).map(({ message }) => message)).size).toBe((await heard()).length)
  })
})

it('closes its timer, and keeps no process alive before that', async () => {
  const timers = vi.spyOn(globalThis, 'clearInterval')
  const intervals = vi.spyOn(globalThis, 'setInterval')
  onTestFinished(() => void vi.restoreAllMocks())
  const limiter = rampmeter({ adaptive: adaptive({ every: '100ms' }) })
  const timer = intervals.mock.results.at(-1)!.value as NodeJS.Timeout
  expect(timer.hasRef()).toBe(false)
  await limiter.close()
  expect(timers).toHaveBeenCalledWith(timer)
  await limiter.close()
})
