// Redis is killed, frozen, or not there yet: what requests meet meanwhile, and that it heals.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import express from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { DegradedMessage } from '../../src/observe/channels.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { clientOf, redisProcess, type RedisProcess } from './redis-process.ts'
import { askTimes, leftOf, opened, serve, tellDecision, type Reply, type Served } from './serve.ts'

const who = { id: 'ip:127.0.0.1' }
const hour = slidingWindow({ name: 'hour', quota: 10, window: '1h' })
const deadline = '500ms'

/** A busy machine answers late, a dead server never: what lies between tells the two apart. */
const muchLongerMs = 2500

async function serveOn(server: RedisProcess, options: Partial<LimiterOptions> = {}) {
  const limiter = opened(rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline, ...options }))
  const app = express().use(limiter).get('/', tellDecision)
  app.get('/route', limiter.route({ cost: 3 }), tellDecision)
  return { limiter, served: await serve(app) }
}

async function timed(served: Served, path = '/'): Promise<Reply & { ms: number }> {
  const started = performance.now()
  const reply = await served.ask(path)
  // A getter of the reply is not copied by a spread.
  return Object.assign(reply, { ms: performance.now() - started })
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const started = performance.now()
  while (!(await holds())) {
    if (performance.now() - started > 10_000) throw new Error('it did not come about within 10 s')
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}

function degradedMessages(): DegradedMessage[] {
  const heard: DegradedMessage[] = []
  const listen = (message: unknown): void => void heard.push(message as DegradedMessage)
  subscribe('rampmeter:degraded', listen)
  onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
  return heard
}

function expectNoLimitFields({ headers }: Reply): void {
  const fields = Object.keys(headers).filter((name) => /^(x-)?ratelimit/.test(name) && name !== 'x-ratelimit-tier')
  expect(fields).toEqual([])
}

describe('a Redis that is killed while it is used', () => {
  it('is done without, told as such, and used again when it is back', async () => {
    const server = await redisProcess()
    await server.start()
    const heard = degradedMessages()
    const { limiter, served } = await serveOn(server)
    await limiter.ready()
    await until(async () => (await served.ask('/')).json.degraded === false)
    expect(limiter.health()).toEqual({ store: 'up' })
    heard.length = 0

    await server.kill()
    const replies: (Reply & { ms: number })[] = []
    for (let index = 0; index < 11; index += 1) replies.push(await timed(served))

    for (const reply of replies) {
      expect(reply.ms).toBeLessThan(muchLongerMs)
      expectNoLimitFields(reply)
    }
    expect(replies.slice(0, 10).map(({ status }) => status)).toEqual(Array(10).fill(200))
    expect(replies[0]!.json).toMatchObject({ admitted: true, enforced: true, degraded: true, limits: [] })
    // This process alone still admits no more than the quota.
    const refused = replies[10]!
    expect(refused.status).toBe(503)
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(3000)
    expect(refused.problem).toMatchObject({
      type: expect.stringContaining('#temporary-reduced-capacity'),
      retry_estimated: true,
    })
    expect(limiter.health()).toEqual({ store: 'down' })
    expect(heard).toHaveLength(11)
    expect(heard.map(({ count }) => count)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    expect(heard[10]).toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE', at: expect.any(Number) })
    expect(JSON.stringify(heard)).not.toMatch(/127\.0\.0\.1|redis:\/\//)

    await server.start()
    await until(async () => !(await limiter.peek(who)).degraded)
    const back = await served.ask('/')
    expect(back.headers['ratelimit']).toBe('"hour";r=9;t=3600')
    expect(limiter.health()).toEqual({ store: 'up' })
  })

  it('does not take a handler’s settling with it', async () => {
    const server = await redisProcess()
    await server.start()
    const heard = degradedMessages()
    const limiter = opened(rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline }))
    const app = express()
      .use(limiter)
      .get('/', async (req, res) => {
        if (req.query['kill'] !== undefined) await server.kill()
        req.rateLimit!.settle(5)
        res.json(req.rateLimit)
      })
    const served = await serve(app)
    await limiter.ready()
    expect((await served.ask('/?kill')).json.degraded).toBe(false)
    await limiter.flush()
    expect(heard).toMatchObject([{ code: 'RAMPMETER_STORE_UNAVAILABLE', count: 1 }])

    // What was decided in this process is settled in this process.
    expect((await served.ask('/')).json.degraded).toBe(true)
    await limiter.flush()
    await served.ask('/')
    await limiter.flush()
    expect((await served.ask('/')).status).toBe(503)
  })

  it('charges a request once, also where the outer limiter met it and the inner did not', async () => {
    const server = await redisProcess()
    await server.start()
    const limiter = opened(rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline }))
    const app = express().use(limiter)
    app.get(
      '/lost',
      async (_req, _res, next) => {
        await server.kill()
        next()
      },
      limiter.route({ cost: 3 }),
      tellDecision,
    )
    app.get('/route', limiter.route({ cost: 4 }), tellDecision)
    app.get('/', tellDecision)
    const served = await serve(app)
    await limiter.ready()
    await served.ask('/')

    const lost = await served.ask('/lost')
    expect(lost.status).toBe(200)
    expect(lost.json.degraded).toBe(true)
    expectNoLimitFields(lost)
    // Here now: 3 are used, then 4, once and not with the outer 1.
    expect((await served.ask('/route')).status).toBe(200)
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 200])
    expect((await served.ask('/')).status).toBe(503)
  })
})

describe('a Redis that comes while a request is under way', () => {
  it('takes the charge over from this process', async () => {
    const server = await redisProcess()
    const limiter = opened(rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline }))
    const app = express().use(limiter)
    app.get(
      '/found',
      async (_req, _res, next) => {
        await server.start()
        await until(async () => !(await limiter.peek(who)).degraded)
        next()
      },
      limiter.route({ cost: 3 }),
      tellDecision,
    )
    app.get('/', tellDecision)
    const served = await serve(app)

    const found = await served.ask('/found')
    expect(found.headers['ratelimit']).toBe('"hour";r=7;t=3600')

    // Nothing is left of it here: the whole quota of this process is there when it is needed.
    await server.kill()
    await until(async () => (await limiter.peek(who)).degraded)
    expect((await askTimes(served, 11)).map(({ status }) => status)).toEqual([...Array(10).fill(200), 503])
  })
})

describe('a client that is reset while Redis is away', () => {
  it('is forgotten in this process at least', async () => {
    const { limiter, served } = await serveOn(await redisProcess())
    await askTimes(served, 10)
    expect((await served.ask('/')).status).toBe(503)
    await expect(limiter.reset(who.id)).rejects.toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE' })
    expect((await served.ask('/')).status).toBe(200)
  })
})

describe('onStoreError', () => {
  it.each([
    ['local', [200, 200, 503]],
    ['open', [200, 200, 200]],
    ['closed', [503, 503, 503]],
  ] as const)('`%s` of the limiter', async (onStoreError, expected) => {
    const policies = [slidingWindow({ name: 'hour', quota: 2, window: '1h' })]
    const { served } = await serveOn(await redisProcess(), { policies, onStoreError })
    const replies = await askTimes(served, 3)
    expect(replies.map(({ status }) => status)).toEqual(expected)
    replies.forEach(expectNoLimitFields)
  })

  it('of a policy comes before the limiter’s, and `closed` says so', async () => {
    const policies = [
      slidingWindow({ name: 'open', quota: 1, window: '1h', onStoreError: 'open' }),
      slidingWindow({ name: 'local', quota: 2, window: '1h', onStoreError: 'local' }),
      slidingWindow({ name: 'closed', quota: 9, window: '1h', when: (req) => req.query['wire'] !== undefined }),
    ]
    const { served } = await serveOn(await redisProcess(), { policies, onStoreError: 'closed' })
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 503])

    const closed = await served.ask('/?wire')
    expect(closed.status).toBe(503)
    expect(closed.headers).toMatchObject({ 'retry-after': '1', 'retry-after-ms': '1000', 'cache-control': 'no-store' })
    expect(closed.problem).toMatchObject({
      status: 503,
      type: expect.stringContaining('#temporary-reduced-capacity'),
      'violated-policies': ['closed'],
      retry_estimated: true,
      error: { type: 'temporarily_unavailable', retry_after: 1, retry_after_ms: 1000 },
    })
  })

  it('`closed` does not make a watching policy, nor the first minutes, refuse', async () => {
    const { served } = await serveOn(await redisProcess(), {
      policies: undefined as never,
      tiers: {
        all: {
          policies: [
            slidingWindow({ name: 'hour', quota: 5, window: '1h', onStoreError: 'open' }),
            slidingWindow({ name: 'watching', quota: 1, window: '1h', mode: 'shadow' }),
          ],
          initialBurst: { quota: 5, window: '5m' },
        },
      } as never,
      classify: () => 'all' as never,
      onStoreError: 'closed',
    })
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 200])
  })

  it('`local` is a share among `processes`, and at least one', async () => {
    const policies = [
      slidingWindow({ name: 'hour', quota: 10, window: '1h' }),
      slidingWindow({ name: 'few', quota: 2, window: '1h', when: (req) => req.query['few'] !== undefined }),
    ]
    const { served } = await serveOn(await redisProcess(), { policies, processes: 3 })
    expect((await served.ask('/?few')).status).toBe(200)
    const second = await served.ask('/?few')
    expect(second.status).toBe(503)
    expect(second.problem['violated-policies']).toEqual(['few'])
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 503])
  })

  it('`local` says never to what never fits, and not to what only its share cannot hold', async () => {
    const limiter = opened(
      rampmeter({
        store: redisStore(clientOf(await redisProcess())),
        policies: [slidingWindow({ name: 'hour', quota: 10, window: '1h' })],
        processes: 3,
        deadline,
      }),
    )
    const app = express()
    app.get('/:cost', limiter.route({ cost: (req) => Number(req.params['cost']) }), tellDecision)
    const served = await serve(app)
    const overShare = await served.ask('/4')
    expect(overShare.status).toBe(503)
    expect(Number(overShare.headers['retry-after'])).toBeGreaterThanOrEqual(1)
    const never = await served.ask('/11')
    expect(never.status).toBe(403)
    expect(never.headers).not.toHaveProperty('retry-after')
  })
})

describe('a Redis that is not there when the app starts', () => {
  it('costs one deadline, and is used as soon as it comes', async () => {
    const server = await redisProcess()
    const { limiter, served } = await serveOn(server)
    let ready = false
    const whenReady = limiter.ready().then(() => (ready = true))

    const first = await Promise.all(Array.from({ length: 5 }, () => timed(served)))
    for (const { ms, json } of first) {
      expect(ms).toBeLessThan(muchLongerMs)
      expect(json.degraded).toBe(true)
    }
    const later = await timed(served)
    expect(later.json.degraded).toBe(true)
    // Nobody waits for the first connection any more.
    expect(later.ms).toBeLessThan(490)
    expect(ready).toBe(false)

    await server.start()
    await whenReady
    await until(async () => !(await limiter.peek(who)).degraded)
    expect((await served.ask('/')).headers['ratelimit']).toBe('"hour";r=9;t=3600')
  })

  it('fails what is not a decision with a code', async () => {
    const { limiter } = await serveOn(await redisProcess())
    await expect(limiter.reset('key:a')).rejects.toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE' })
    expect(await limiter.peek(who)).toMatchObject({ degraded: true })
    const waiting = limiter.ready()
    await limiter.close()
    await expect(waiting).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
    await expect(limiter.ready()).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
    await expect(limiter.reset('key:a')).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
  })
})

describe('a process that is held up itself', () => {
  it('does not take an answer that has arrived for one that is late', async () => {
    const server = await redisProcess()
    await server.start()
    const limiter = opened(
      rampmeter({
        store: redisStore(clientOf(server)),
        policies: [slidingWindow({ quota: 100, window: '1h' })],
        deadline: '50ms',
      }),
    )
    await limiter.ready()
    await until(async () => !(await limiter.peek(who)).degraded)

    for (let times = 0; times < 8; times += 1) {
      const deciding = limiter.decide({ client: who })
      // Until the call is written, within this turn of the event loop: its answer cannot have been read.
      for (let step = 0; step < 100; step += 1) await Promise.resolve()
      const held = performance.now()
      while (performance.now() - held < 200);
      expect((await deciding).degraded).toBe(false)
    }
    expect(limiter.health()).toEqual({ store: 'up' })
  })
})

describe('a Redis that takes commands and does not answer', () => {
  it('holds nobody up, and what it answers too late is undone', async () => {
    const server = await redisProcess()
    await server.start()
    const { limiter, served } = await serveOn(server)
    await limiter.ready()
    await until(async () => (await served.ask('/')).json.degraded === false)
    await limiter.reset(who.id)

    server.freeze()
    const replies = await Promise.all([timed(served), timed(served), timed(served, '/route'), timed(served)])
    for (const reply of replies) {
      expect(reply.status).toBe(200)
      expect(reply.ms).toBeLessThan(muchLongerMs)
      expect(reply.json.degraded).toBe(true)
      expectNoLimitFields(reply)
    }

    server.thaw()
    await until(async () => {
      const decision = await limiter.peek(who)
      return !decision.degraded && leftOf(decision)['hour'] === 10
    })
  })

  it('that is paused by an operator holds nobody up either', async () => {
    const server = await redisProcess()
    await server.start()
    const { limiter, served } = await serveOn(server)
    await limiter.ready()
    await until(async () => (await served.ask('/')).json.degraded === false)
    await limiter.reset(who.id)

    await clientOf(server).call('CLIENT', 'PAUSE', '3000', 'ALL')
    const replies = await Promise.all([timed(served), timed(served), timed(served)])
    for (const { ms, json } of replies) {
      expect(ms).toBeLessThan(muchLongerMs)
      expect(json.degraded).toBe(true)
    }
    await until(async () => {
      const decision = await limiter.peek(who)
      return !decision.degraded && leftOf(decision)['hour'] === 10
    })
  })

  it('does not keep `close` from ending', async () => {
    const server = await redisProcess()
    await server.start()
    const limiter = rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline })
    await limiter.ready()
    server.freeze()
    const started = performance.now()
    await limiter.close()
    expect(performance.now() - started).toBeLessThan(8000)
  })
})
