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
      detail: expect.stringMatching(/^Each server counts for itself at the moment, .*; try again in about 60 min\.$/),
    })
    expect(await limiter.decide({ client: who })).toMatchObject({ admitted: false, retryEstimated: true })
    expect(limiter.health()).toEqual({ store: 'down' })
    expect(heard).toHaveLength(12)
    expect(heard.map(({ count }) => count)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    expect(heard[10]).toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE', at: expect.any(Number) })
    // Where it is says `store`, and nothing else.
    for (const { store, ...rest } of heard) {
      expect(store).toMatchObject({ kind: 'redis', address: expect.stringMatching(/^127\.0\.0\.1:\d+$/) })
      expect(JSON.stringify(rest)).not.toMatch(/127\.0\.0\.1|redis:\/\//)
    }

    await server.start()
    // It begins empty, and is told what this process admitted meanwhile.
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 0)
    expect((await served.ask('/')).status).toBe(429)
    expect(limiter.health()).toEqual({ store: 'up' })
    const { since } = heard[0]!
    expect(heard.filter(({ state }) => state === 'back')).toMatchObject([
      { code: 'RAMPMETER_STORE_UNAVAILABLE', waitedMs: 0, count: heard.length - 1 },
    ])
    for (const one of heard) expect(one.since).toBe(since)
    expect(heard.at(-1)!.forMs).toBeGreaterThanOrEqual(heard[10]!.forMs)
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
        // What the outer limiter admitted here counts there.
        await until(async () => leftOf(await limiter.peek(who))['hour'] === 9)
        next()
      },
      limiter.route({ cost: 3 }),
      tellDecision,
    )
    app.get('/', tellDecision)
    const served = await serve(app)

    expect((await served.ask('/found')).status).toBe(200)
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 7)

    // Nothing is left of it here: the whole quota of this process is there when it is needed.
    await server.kill()
    await until(async () => (await limiter.peek(who)).degraded)
    expect((await askTimes(served, 11)).map(({ status }) => status)).toEqual([...Array(10).fill(200), 503])
  })
})

describe('a client that is reset while Redis is away', () => {
  it('is forgotten in this process, and whoever did it is told that it was there alone', async () => {
    const { limiter, served } = await serveOn(await redisProcess())
    await askTimes(served, 10)
    expect((await served.ask('/')).status).toBe(503)
    await expect(limiter.reset(who.id)).rejects.toMatchObject({
      code: 'RAMPMETER_STORE_UNAVAILABLE',
      message: expect.stringMatching(
        /^the client was forgotten in this process alone, since the connection to Redis is not up .*; reset it again when the store is back \(/,
      ),
    })
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
    expect(closed.headers).toMatchObject({
      'retry-after': expect.stringMatching(/^[12]$/),
      'cache-control': 'no-store',
    })
    expect(closed.problem).toMatchObject({
      status: 503,
      type: expect.stringContaining('#temporary-reduced-capacity'),
      'violated-policies': ['closed'],
      retry_estimated: true,
      error: { type: 'temporarily_unavailable', retry_after: Number(closed.headers['retry-after']) },
    })
    // When the store has been looked at again, which begins a second ahead at most and takes the deadline at most.
    const waitMs = Number(closed.headers['retry-after-ms'])
    expect(waitMs).toBeGreaterThanOrEqual(100)
    expect(waitMs).toBeLessThanOrEqual(1600)
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

  it('`local` is one share of a process, however many limiters of it use the store', async () => {
    const store = redisStore(clientOf(await redisProcess()))
    const make = (more: Partial<LimiterOptions> = {}) =>
      opened(rampmeter({ store, policies: [hour], processes: 1, deadline, ...more }))
    const [first, second] = [make(), make()]
    const admitted = async (limiter: typeof first, times: number): Promise<number> => {
      let count = 0
      for (let nth = 0; nth < times; nth += 1) count += Number((await limiter.decide({ client: who })).admitted)
      return count
    }
    expect([await admitted(first, 6), await admitted(second, 6), await admitted(first, 1)]).toEqual([6, 4, 0])
    // What they have admitted is forgotten for both.
    await second.reset(who.id).catch(() => {})
    expect(await admitted(first, 11)).toBe(10)
    // Another secret makes other names: in the store, too, it would be another client.
    expect(await admitted(make({ keySecret: 'another secret of ours' }), 11)).toBe(10)
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
    // Nobody knows when the store is back, and before that it does not help to come again.
    expect(Number(overShare.headers['retry-after'])).toBeGreaterThanOrEqual(10)
    expect(overShare.problem).toMatchObject({
      retry_estimated: true,
      detail: expect.stringContaining('what this one may still admit is less than this request costs'),
    })
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
    // Six were admitted here.
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 4)
    expect((await served.ask('/')).headers['ratelimit']).toBe('"hour";r=3;t=3600')
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
    // What was admitted here, at 1 + 1 + 3 + 1, and not once more.
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 4)
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
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 7)
  })

  it('has what was settled meanwhile corrected once', async () => {
    const server = await redisProcess()
    await server.start()
    const limiter = opened(rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline }))
    await limiter.ready()
    await until(async () => !(await limiter.decide({ client: who, cost: 0 })).degraded)
    await limiter.reset(who.id)
    const decision = await limiter.decide({ client: who, cost: 6 })
    server.freeze()
    decision.settle(4)
    // It gives up after 2 s: the answer may come yet.
    await limiter.flush()
    server.thaw()
    await until(async () => leftOf(await limiter.peek(who))['hour'] === 6)
    // Nor is it made again once the store has been found to be back.
    for (let turn = 0; turn < 10; turn += 1) {
      await new Promise((resolve) => setTimeout(resolve, 200))
      expect(leftOf(await limiter.peek(who))['hour'] ?? 6).toBe(6)
    }
  })

  it('does not keep `close` from ending', async () => {
    const server = await redisProcess()
    await server.start()
    const limiter = rampmeter({ store: redisStore(clientOf(server)), policies: [hour], deadline })
    await limiter.ready()
    // That it lives was said on a board, and taking that back is not answered.
    server.freeze()
    const started = performance.now()
    await limiter.close()
    // The 2 s that a goodbye may take; of what is taken back alone nobody waits 5 s.
    expect(performance.now() - started).toBeLessThan(4500)
  })
})
