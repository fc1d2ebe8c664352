// Every dimension of a request in one decision, over real HTTP: what is told, what is charged when, and what it costs in round
// trips.

import { connect } from 'node:net'
import express, { type Express, type Response } from 'express'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import type { Decision } from '../../src/decision.ts'
import { session } from '../../src/identify/session.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { failures } from '../../src/policies/failures.ts'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { uniqueTargets } from '../../src/policies/unique-targets.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Store } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { redisProcess } from './redis-process.ts'
import { askTimes, expressVersions, keepErrors, leftOf, opened, serve, tellDecision } from './serve.ts'
import { stores } from './stores.ts'
import { warningsOf } from './warnings.ts'

const deadline = '5s'
const who = { id: 'ip:127.0.0.1' }

async function until(holds: () => boolean | Promise<boolean>, forMs = 10_000): Promise<void> {
  const end = Date.now() + forMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('it did not come to hold')
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
}

/** Seven policies, each of another kind or another way to be charged. */
const seven = [
  tokenBucket({ name: 'pace', quota: 600, window: '1m', burst: 20 }),
  slidingWindow({ name: 'hourly', quota: 1000, window: '1h' }),
  fixedWindow({ name: 'daily', quota: 5000, window: '1d', align: 'utc' }),
  concurrency({ name: 'in-flight', quota: 5 }),
  failures({ name: 'bad-logins', quota: 3, window: '15m', counts: (res) => res.statusCode === 401 }),
  uniqueTargets({ name: 'accounts', quota: 4, window: '1h', target: (req) => req.params['id'] }),
  slidingLog({ name: 'bytes', quota: 1_000_000, window: '1h', unit: 'content-bytes' }),
]

for (const { name, express: make } of expressVersions) {
  describe(`seven policies on one route, ${name}`, () => {
    it('are one round trip to Redis, and each is told by its own fields', async () => {
      const server = await redisProcess()
      await server.start()
      const redis = new Redis(server.url)
      onTestFinished(() => redis.disconnect())
      const limiter = opened(rampmeter({ store: redisStore(redis), deadline, policies: [] }))
      await limiter.ready()
      const app = make().get('/accounts/:id', limiter.route({ policies: seven }), (req, res) => {
        res.status(req.query['as'] === 'wrong' ? 401 : 200).json({ left: leftOf(req.rateLimit!) })
      })
      const served = await serve(app)
      await served.ask('/accounts/1')
      await limiter.flush()

      await redis.config('RESETSTAT')
      const { status, headers, json } = await served.ask('/accounts/2')
      expect(status).toBe(200)
      await limiter.flush()
      const stats = await redis.info('commandstats')
      const scripts = [...stats.matchAll(/^cmdstat_evalsha:calls=(\d+)/gm)].map(([, calls]) => Number(calls))
      // One decides, and one settles what the response turned out to be: all that it was, at once.
      expect(scripts).toEqual([2])

      expect(headers['ratelimit-policy']).toBe(
        [
          '"pace";q=600;w=60',
          '"hourly";q=1000;w=3600',
          '"daily";q=5000;w=86400',
          '"in-flight";q=5;qu="concurrent-requests"',
          '"bad-logins";q=3;w=900',
          '"accounts";q=4;w=3600',
          '"bytes";q=1000000;qu="content-bytes";w=3600',
        ].join(', '),
      )
      const told = Object.fromEntries(
        headers['ratelimit']!.toString()
          .split(', ')
          .map((item) => [/"(.*)"/.exec(item)![1]!, item.replace(/"[^"]*";/, '')]),
      )
      // The first response has ended: its slot is back, and its 95 bytes or so are counted.
      expect(told).toMatchObject({
        hourly: expect.stringMatching(/^r=998;t=3[56]\d\d$/),
        daily: expect.stringMatching(/^r=4998;t=\d+$/),
        'in-flight': 'r=4',
        'bad-logins': 'r=3;t=900',
        accounts: 'r=2;t=3600',
        bytes: expect.stringMatching(/^r=9998\d\d;t=3[56]\d\d$/),
      })
      expect(json.left).toMatchObject({ 'in-flight': 4, 'bad-logins': 3, accounts: 2 })
    })

    it('refuse each for itself, and a refusal charges none of the others', async () => {
      const limiter = opened(rampmeter({ store: memoryStore(), policies: [] }))
      const app = make().get('/accounts/:id', limiter.route({ policies: seven }), (req, res) => {
        res.status(req.query['as'] === 'wrong' ? 401 : 200).json(leftOf(req.rateLimit!))
      })
      const served = await serve(app)
      for (const id of [1, 2, 3, 4]) expect((await served.ask(`/accounts/${id}`)).status).toBe(200)
      const enumerating = await served.ask('/accounts/5')
      expect(enumerating.status).toBe(429)
      expect(enumerating.problem).toMatchObject({
        'violated-policies': ['accounts'],
        detail: expect.stringMatching(
          /^This route allows 4 different targets per hour; the next one is admitted in \d+ min\.$/,
        ),
      })
      expect(enumerating.problem.retry_estimated).toBe(undefined)
      // Those seen already are free.
      for (let times = 0; times < 3; times += 1) expect((await served.ask('/accounts/3?as=wrong')).status).toBe(401)
      const stuffing = await served.ask('/accounts/3')
      expect(stuffing.status).toBe(429)
      expect(stuffing.problem['violated-policies']).toEqual(['bad-logins'])
      expect(stuffing.problem.detail).toMatch(/^This route allows 3 failed requests per 15 minutes; the next one/)
      expect(stuffing.headers['ratelimit']).toContain('"hourly";r=993')
    })
  })
}

describe('failures', () => {
  const login = failures({ name: 'bad-logins', quota: 3, window: '15m', counts: (res) => res.statusCode === 401 })
  const byAddress = failures({ name: 'stuffing', quota: 5, window: '1h', partition: 'address' })

  it.each(stores)('are counted for each client and for its address, $name', async ({ makeStore }) => {
    const limiter = opened(
      rampmeter({
        store: await makeStore(),
        deadline,
        policies: [],
        identify: [session((req) => req.get('x-user') && { id: req.get('x-user')! })],
      }),
    )
    const app = express().post('/login', limiter.route({ policies: [login, byAddress] }), (req, res) => {
      res.status(req.get('x-password') === 'right' ? 204 : 401).end()
    })
    const served = await serve(app)
    const attempt = async (user: string, password: string): Promise<number> => {
      const { status } = await served.ask('/login', {
        method: 'POST',
        headers: { 'x-user': user, 'x-password': password },
      })
      await limiter.flush()
      return status
    }
    expect(await Promise.all([attempt('amy', 'right'), attempt('amy', 'right'), attempt('amy', 'right')])).toEqual([
      204, 204, 204,
    ])
    for (let times = 0; times < 3; times += 1) expect(await attempt('amy', 'guess')).toBe(401)
    // One account is guessed at no more, and another is still served from the same address, until that has failed too often.
    expect(await attempt('amy', 'right')).toBe(429)
    expect(await attempt('ben', 'guess')).toBe(401)
    expect(await attempt('ben', 'right')).toBe(204)
    expect(await attempt('eve', 'guess')).toBe(401)
    expect(await attempt('eve', 'right')).toBe(429)
  })

  it('cost one each, whatever the route costs, and no route can be free of them', async () => {
    for (const cost of [0, 7]) {
      const limiter = opened(rampmeter({ policies: [] }))
      const app = express().post('/', limiter.route({ cost, highRisk: true, policies: [login] }), (req, res) => {
        res.status(401).json(req.rateLimit!.limits[0])
      })
      const served = await serve(app)
      const replies = await askTimes(served, 4, '/', { method: 'POST' })
      expect(replies.map(({ status }) => status)).toEqual([401, 401, 401, 429])
      expect(replies[0]!.json).toMatchObject({ cost: 1, remaining: 2 })
    }
  })

  it('reserved, are not outrun by guesses made at once; not reserved, by those alone that run already', async () => {
    for (const [reserve, most] of [
      [true, 3],
      [false, 20],
    ] as const) {
      const limiter = opened(rampmeter({ policies: [] }))
      const policies = [failures({ quota: 3, window: '1h', reserve, counts: (res) => res.statusCode === 401 })]
      let tried = 0
      const app = express().post('/', limiter.route({ policies }), (_req, res) => {
        tried += 1
        setTimeout(() => res.status(401).end(), 300)
      })
      const served = await serve(app)
      await Promise.all(Array.from({ length: 20 }, () => served.ask('/', { method: 'POST' })))
      expect(tried).toBe(most)
      expect((await served.ask('/', { method: 'POST' })).status).toBe(429)
    }
  })

  it('reserved, come back when a response does not count', async () => {
    const limiter = opened(rampmeter({ policies: [] }))
    const policies = [failures({ quota: 2, window: '1h', reserve: true })]
    const app = express().get('/', limiter.route({ policies }), tellDecision)
    const served = await serve(app)
    for (const { status, json } of await askTimes(served, 8)) {
      expect(status).toBe(200)
      expect(json.limits[0].remaining).toBe(1)
    }
  })

  it('count where the client hangs up before it is answered, by the answer it would have had', async () => {
    for (const [reserve, statusCode, left] of [
      [true, 401, 2],
      [true, 200, 3],
      [false, 401, 2],
      [false, 200, 3],
    ] as const) {
      const limiter = opened(rampmeter({ policies: [failures({ quota: 3, window: '1h', reserve })] }))
      let waiting: Response | undefined
      const app = express()
        .use(limiter)
        .get('/', (_req, res) => {
          waiting = res
        })
      const served = await serve(app)
      const controller = new AbortController()
      const asked = fetch(`http://127.0.0.1:${served.port}/`, { signal: controller.signal }).catch(() => {})
      await until(() => waiting !== undefined)
      controller.abort()
      await asked
      await until(() => waiting!.closed)
      await limiter.flush()
      // What is reserved stays so while nobody knows.
      expect(leftOf(await limiter.peek(who))).toEqual({ failures: reserve ? 2 : 3 })
      waiting!.status(statusCode).json({ some: 'body' })
      await limiter.flush()
      expect(leftOf(await limiter.peek(who))).toEqual({ failures: left })
    }
  })

  it('reserved for clients that hung up come back where nobody answers, and count all the same when somebody does', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    onTestFinished(() => void vi.useRealTimers())
    const limiter = opened(rampmeter({ policies: [failures({ quota: 3, window: '1h', reserve: true })] }))
    const waiting: Response[] = []
    const app = express()
      .use(limiter)
      .get('/', (_req, res) => void waiting.push(res))
    const served = await serve(app)
    for (let times = 1; times <= 3; times += 1) {
      const socket = connect(served.port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
      await until(() => waiting.length === times)
      socket.destroy()
      await until(() => waiting.at(-1)!.closed)
    }
    const left = async (): Promise<number | undefined> => {
      await limiter.flush()
      return leftOf(await limiter.peek(who))['failures']
    }
    // Nobody outruns the limit by hanging up.
    expect((await served.ask('/')).status).toBe(429)
    waiting[0]!.status(200).end()
    expect(await left()).toBe(1)
    vi.advanceTimersByTime(29_000)
    expect(await left()).toBe(1)
    vi.advanceTimersByTime(2000)
    expect(await left()).toBe(3)
    waiting[1]!.status(401).end()
    expect(await left()).toBe(2)
    waiting[2]!.status(200).end()
    expect(await left()).toBe(2)
  })

  it('are counted when what should judge them fails, and that is said once', async () => {
    const warnings = warningsOf('RAMPMETER_POLICY_FUNCTION_FAILED')
    const counts = [
      () => {
        throw new Error('broken')
      },
      async () => {
        throw new Error('broken')
      },
    ] as unknown as (() => boolean)[]
    for (const judge of counts) {
      const limiter = opened(rampmeter({ policies: [failures({ quota: 2, window: '1h', counts: judge })] }))
      const served = await serve(express().use(limiter).get('/', tellDecision))
      expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 429])
    }
    // Two limits of one limiter are two things to mend.
    const policies = counts.map((judge, index) =>
      failures({ name: `judged-${index}`, quota: 2, window: '1h', counts: judge }),
    )
    const both = await serve(
      express()
        .use(opened(rampmeter({ policies })))
        .get('/', tellDecision),
    )
    await askTimes(both, 3)
    const said = (await warnings()).map(({ message }) =>
      /of policy "([\w-]+)" (threw|returned)/.exec(message)?.slice(1),
    )
    expect(said).toEqual([
      ['failures', 'threw'],
      ['failures', 'returned'],
      ['judged-0', 'threw'],
      ['judged-1', 'returned'],
    ])
    // What is no boolean is one.
    const odd = opened(
      rampmeter({ policies: [failures({ quota: 2, window: '1h', counts: (res) => res.locals['failed'] as boolean })] }),
    )
    const served = await serve(express().use(odd).get('/', tellDecision))
    expect((await askTimes(served, 4)).map(({ status }) => status)).toEqual([200, 200, 200, 200])
    await odd.flush()
    expect(leftOf(await odd.peek(who))).toEqual({ failures: 2 })
  })
})

describe('costHeader', () => {
  const tokens = [tokenBucket({ name: 'tokens', quota: 1000, window: '1h', unit: 'tokens' })]

  for (const { name, express: make } of expressVersions) {
    it(`is taken out, and settled, ${name}`, async () => {
      const limiter = opened(rampmeter({ policies: tokens }))
      const app = make().get('/', limiter.route({ cost: 100, costHeader: 'X-Tokens-Used' }), (req, res) => {
        if (req.query['raw'] !== undefined) res.writeHead(200, { 'x-tokens-used': '40' }).end('raw')
        else res.set('x-tokens-used', '30').json({})
      })
      const served = await serve(app)
      const first = await served.ask('/')
      expect(first.headers).not.toHaveProperty('x-tokens-used')
      expect(first.headers['ratelimit']).toContain('r=900')
      const raw = await served.ask('/?raw')
      expect(raw.headers).not.toHaveProperty('x-tokens-used')
      await limiter.flush()
      expect(leftOf(await limiter.peek(who))).toEqual({ tokens: 930 })
    })
  }

  it('and `settle`: the one that is said last counts, and the field is said when the head leaves', async () => {
    const limiter = opened(rampmeter({ policies: tokens }))
    const route = limiter.route({ cost: 100, costHeader: 'x-tokens-used' })
    const app = express()
      .get('/before', route, (req, res) => {
        req.rateLimit!.refund()
        res.set('x-tokens-used', '30').json({})
      })
      .get('/after', route, (req, res) => {
        res.set('x-tokens-used', '30').write('some')
        req.rateLimit!.settle(40)
        res.end()
      })
      .get('/trailer', route, (_req, res) => {
        res.set('trailer', 'x-tokens-used').write('some')
        res.addTrailers({ 'x-tokens-used': '1' })
        res.end()
      })
    const served = await serve(app)
    let left = 1000
    for (const [path, cost] of [
      ['/before', 30],
      ['/after', 40],
      ['/trailer', 100],
    ] as const) {
      await served.ask(path)
      await limiter.flush()
      left -= cost
      expect(leftOf(await limiter.peek(who))).toEqual({ tokens: left })
    }
  })

  it('counts where a limiter further out has decided the same, and leaves nowhere', async () => {
    const limiter = opened(rampmeter({ policies: tokens }))
    const app = express()
      .use(limiter)
      .get('/', limiter.route({ costHeader: 'x-tokens-used' }), (_req, res) => {
        res.set('x-tokens-used', '250').json({})
      })
    const served = await serve(app)
    expect((await served.ask('/')).headers).not.toHaveProperty('x-tokens-used')
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ tokens: 750 })
  })

  it('that tells no cost is taken out too, changes nothing and is said once for each field', async () => {
    const warnings = warningsOf('RAMPMETER_INVALID_COST')
    const limiter = opened(rampmeter({ policies: tokens }))
    const app = express()
      .get('/', limiter.route({ cost: 10, costHeader: 'x-used' }), (req, res) => {
        res.set('x-used', req.query['used'] as string).json({})
      })
      .get('/other', limiter.route({ cost: 0, costHeader: 'x-points' }), (_req, res) => {
        res.set('x-points', 'secret').json({})
      })
    const served = await serve(app)
    await served.ask('/other')
    await served.ask('/other')
    for (const used of ['-1', '1.5', '1e3', 'NaN', '', '2000000000000', 'secret']) {
      expect((await served.ask(`/?used=${used}`)).headers).not.toHaveProperty('x-used')
    }
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ tokens: 930 })
    const said = await warnings()
    expect(said.map(({ message }) => message)).toEqual([
      expect.stringContaining('the response header "x-points", named by `costHeader`, was a text of 6 characters; '),
      expect.stringContaining('the response header "x-used", named by `costHeader`, was -1; it must be a whole number'),
    ])
  })

  it('leaves no shadow either', async () => {
    const limiter = opened(rampmeter({ policies: tokens, mode: 'shadow' }))
    const app = express().get('/', limiter.route({ cost: 2000, costHeader: 'x-used' }), (_req, res) => {
      res.set('x-used', '5').json({})
    })
    const { status, headers } = await (await serve(app)).ask('/')
    expect(status).toBe(200)
    expect(headers).not.toHaveProperty('x-used')
  })
})

describe("charge: 'after'", () => {
  for (const { name: store, makeStore } of stores) {
    it(`needs room for one to start, debits at the end, and the next waits the debt out, ${store}`, async () => {
      const policies = [
        tokenBucket({ name: 'tokens', quota: 3600, window: '1h', burst: 10, charge: 'after', unit: 'tokens' }),
      ]
      const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies }))
      const app = express().get('/', limiter.route({ cost: 25 }), tellDecision)
      const served = await serve(app)
      const first = await served.ask('/')
      // More than it ever holds, and admitted: what it costs is not asked for before.
      expect(first.status).toBe(200)
      expect(first.json.limits[0]).toMatchObject({ cost: 0, remaining: 10 })
      await limiter.flush()
      const second = await served.ask('/')
      expect(second.status).toBe(429)
      // 15 owed and one to start, at one a second.
      expect(second.problem.error.retry_after).toBeGreaterThanOrEqual(15)
      expect(second.problem.error.retry_after).toBeLessThanOrEqual(16)
    })

    it(`is settled by total, by name, refunded, and outside HTTP again and again, ${store}`, async () => {
      const policies = [
        slidingLog({ name: 'tokens', quota: 1000, window: '1h', charge: 'after', cost: 50 }),
        slidingLog({ name: 'calls', quota: 100, window: '1h' }),
      ]
      const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies }))
      await limiter.ready()
      const handlers: Record<string, (decision: Decision) => void> = {
        '/none': () => {},
        '/total': (decision) => decision.settle(4),
        '/named': (decision) => decision.settle({ tokens: 300 }),
        '/refund': (decision) => decision.refund(),
      }
      const app = express().use(limiter)
      for (const [path, act] of Object.entries(handlers)) {
        app.get(path, (req, res) => {
          act(req.rateLimit!)
          res.end()
        })
      }
      const served = await serve(app)
      const left = async (path: string): Promise<Record<string, number>> => {
        await limiter.reset(who.id)
        await served.ask(path)
        await limiter.flush()
        return leftOf(await limiter.peek(who))
      }
      expect(await left('/none')).toEqual({ tokens: 950, calls: 99 })
      expect(await left('/total')).toEqual({ tokens: 996, calls: 96 })
      expect(await left('/named')).toEqual({ tokens: 700, calls: 99 })
      expect(await left('/refund')).toEqual({ tokens: 1000, calls: 100 })

      await limiter.reset(who.id)
      const decision = await limiter.decide({ client: who })
      const steps: Record<string, number>[] = []
      for (const total of [{ tokens: 200 }, { tokens: 10 }, {}, 2]) {
        decision.settle(total)
        await limiter.flush()
        steps.push(leftOf(await limiter.peek(who)))
      }
      expect(steps).toEqual([
        { tokens: 800, calls: 99 },
        { tokens: 990, calls: 99 },
        { tokens: 950, calls: 99 },
        { tokens: 998, calls: 98 },
      ])
    })
  }

  it('settles what ends in one turn in one call', async () => {
    const inner = memoryStore()
    const calls: number[] = []
    const store: Store = {
      open(settings) {
        const handle = inner.open(settings)
        return {
          ...handle,
          settle(corrections) {
            calls.push(corrections.length)
            return handle.settle(corrections)
          },
        }
      },
    }
    const limiter = opened(
      rampmeter({
        store,
        policies: [concurrency({ quota: 50 }), slidingLog({ quota: 99, window: '1h', charge: 'after' })],
      }),
    )
    const waiting: Response[] = []
    const app = express()
      .use(limiter)
      .get('/', (_req, res) => void waiting.push(res))
    const served = await serve(app)
    const replies = Promise.all(Array.from({ length: 12 }, () => served.ask('/')))
    await until(() => waiting.length === 12)
    for (const res of waiting) res.destroy()
    await replies.catch(() => {})
    await until(() => calls.reduce((sum, one) => sum + one, 0) >= 24)
    await limiter.flush()
    expect(calls.length).toBeLessThanOrEqual(3)
    expect(leftOf(await limiter.peek(who))).toEqual({ concurrency: 50, 'sliding-log': 87 })
  })
})

describe('highRisk', () => {
  it('is lifted by no first minutes', async () => {
    const limiter = opened(
      rampmeter({
        tiers: {
          all: {
            policies: [slidingLog({ name: 'hour', quota: 2, window: '1h' })],
            initialBurst: { quota: 50, window: '5m' },
          },
        },
        classify: () => 'all',
      }),
    )
    const wire = [slidingLog({ name: 'wire', quota: 4, window: '1h' })]
    const app = express()
      .post('/wire', limiter.route({ name: 'wire', highRisk: true, policies: wire }), tellDecision)
      .get('/', limiter, tellDecision)
    const served = await serve(app)
    const replies = await askTimes(served, 6, '/wire', { method: 'POST' })
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 429, 429])
    expect(replies[5]!.problem['violated-policies']).toEqual(['wire'])
    expect((await served.ask('/')).status).toBe(200)
  })

  it('is closed without a store, where all else is open, unless its policy says otherwise', async () => {
    const server = await redisProcess()
    await server.start()
    const redis = new Redis(server.url)
    redis.on('error', () => {})
    onTestFinished(() => redis.disconnect())
    const limiter = opened(
      rampmeter({
        store: redisStore(redis),
        // Generous: a Redis whose connection has ended is waited for no longer than that takes to be noticed.
        deadline,
        onStoreError: 'open',
        policies: [slidingLog({ name: 'hour', quota: 100, window: '1h' })],
      }),
    )
    await limiter.ready()
    const wire = slidingLog({ name: 'wire', quota: 4, window: '1h' })
    const lenient = slidingLog({ name: 'wire', quota: 4, window: '1h', onStoreError: 'local' })
    const app = express()
      .get('/', limiter, tellDecision)
      .post('/wire', limiter.route({ highRisk: true, policies: [wire] }), tellDecision)
      .post('/lenient', limiter.route({ highRisk: true, policies: [lenient] }), tellDecision)
    const served = await serve(app)
    expect((await served.ask('/wire', { method: 'POST' })).status).toBe(200)
    await server.kill()
    expect((await served.ask('/')).status).toBe(200)
    const closed = await served.ask('/wire', { method: 'POST' })
    expect(closed.status).toBe(503)
    expect(closed.headers['retry-after']).toBe('1')
    expect((await served.ask('/lenient', { method: 'POST' })).status).toBe(200)
  })

  it('has one list of policies for all tiers', () => {
    expect(() => rampmeter().route({ highRisk: true, policies: { default: [] } })).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
  })
})

describe('a target or session that is none', () => {
  const wrong: [string, unknown][] = [
    ['a number', 5],
    ['null', null],
    ['a list of numbers', [1, 2]],
    ['a list with a number', ['a', 5]],
    ['too many', Array.from({ length: 33 }, (_, index) => String(index))],
    ['too long', 'x'.repeat(8193)],
    ['a promise', Promise.resolve('x')],
    ['an object', { id: 1 }],
  ]

  it.each(wrong)('fails the request, coded, and charges nothing: %s', async (_, target) => {
    const hour = slidingLog({ name: 'hour', quota: 9, window: '1h' })
    const told = (): string => target as string
    for (const policy of [
      uniqueTargets({ name: 'targets', quota: 5, window: '1h', target: told }),
      concurrency({ name: 'sessions', quota: 5, per: told }),
    ]) {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ policies: [hour, policy] }))
      const served = await serve(express().use(limiter).get('/', tellDecision).use(handler))
      expect((await served.ask('/')).status).toBe(500)
      expect(errors).toMatchObject([
        { name: 'RampmeterError', code: expect.stringMatching(/^RAMPMETER_(INVALID_TARGET|POLICY_FUNCTION_FAILED)$/) },
      ])
      const partitions: Record<string, string> = policy.name === 'sessions' ? { sessions: 's' } : {}
      const hours = { client: who, partitions, cost: 0 }
      expect(leftOf(await limiter.decide(hours))['hour']).toBe(9)
    }
  })

  it('outside HTTP too', async () => {
    const limiter = opened(
      rampmeter({
        policies: [
          uniqueTargets({ name: 'targets', quota: 2, window: '1h' }),
          concurrency({ name: 'sessions', quota: 1, per: () => 'x', lease: '10m' }),
        ],
      }),
    )
    for (const target of [5, null, [1], ['a', {}]]) {
      await expect(limiter.decide({ client: who, target: target as never })).rejects.toMatchObject({
        code: 'RAMPMETER_INVALID_TARGET',
      })
    }
    await expect(limiter.decide({ client: who, target: ['a', 5 as never, {} as never] })).rejects.toThrow(
      /came out as a list of 3, in which \[1\] is number; return/,
    )
    for (const session of [5, null, '', {}]) {
      await expect(limiter.decide({ client: who, partitions: { sessions: session as never } })).rejects.toMatchObject({
        code: 'RAMPMETER_INVALID_TARGET',
      })
    }
    const one = await limiter.decide({ client: who, target: ['a', 'b', 'a'], partitions: { sessions: 'desktop' } })
    expect(one).toMatchObject({ admitted: true })
    expect(leftOf(one)).toEqual({ targets: 0, sessions: 0 })
    // The same session has its slot, and the same targets are free; another of either is refused.
    expect(await limiter.decide({ client: who, target: 'b', partitions: { sessions: 'desktop' } })).toMatchObject({
      admitted: true,
    })
    expect(await limiter.decide({ client: who, target: 'c', partitions: { sessions: 'phone' } })).toMatchObject({
      admitted: false,
      violated: ['targets', 'sessions'],
    })
  })
})

describe('calendar quotas', () => {
  it('are told true, and differently to each client of a shared counter', async () => {
    const clock = manualClock(Date.UTC(2026, 1, 27, 23, 59, 30))
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: clock }),
        policies: [fixedWindow({ name: 'daily', quota: 2, window: '1d', align: 'utc', partition: 'global' })],
        identify: [session((req) => ({ id: req.get('x-user')! }))],
      }),
    )
    const served = await serve(express().use(limiter).get('/', tellDecision))
    await served.ask('/', { headers: { 'x-user': 'first' } })
    await served.ask('/', { headers: { 'x-user': 'first' } })
    const waits: number[] = []
    for (let user = 0; user < 20; user += 1) {
      const { status, problem } = await served.ask('/', { headers: { 'x-user': `user-${user}` } })
      expect(status).toBe(429)
      waits.push(problem.error.retry_after_ms!)
    }
    expect(new Set(waits).size).toBe(20)
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(30_000)
    expect(Math.max(...waits)).toBeLessThanOrEqual(330_000)
    // Over most of the five minutes, not in a heap.
    expect(Math.max(...waits) - Math.min(...waits)).toBeGreaterThan(150_000)
    clock.advance(waits[7]!)
    expect((await served.ask('/', { headers: { 'x-user': 'user-7' } })).status).toBe(200)
  })

  it('say months as months', async () => {
    const clock = manualClock(Date.UTC(2028, 1, 28, 12))
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: clock }),
        policies: [fixedWindow({ name: 'billed', quota: 1, window: 'month', align: { day: 31 } })],
      }),
    )
    const served = await serve(express().use(limiter).get('/', tellDecision))
    await served.ask('/')
    const { problem } = await served.ask('/')
    expect(problem.detail).toMatch(/allows 1 request per month; the next one is admitted in 1[23] h\.$/)
    expect(problem.error).toMatchObject({ window: 'month' })
    // A month from the 31st begins on the 29th of a leap year's February.
    clock.set(Date.UTC(2028, 1, 29) - 1)
    expect((await served.ask('/')).status).toBe(429)
    clock.set(Date.UTC(2028, 1, 29))
    expect((await served.ask('/')).status).toBe(200)
    clock.set(Date.UTC(2028, 2, 31) - 1)
    expect((await served.ask('/')).status).toBe(429)
    clock.set(Date.UTC(2028, 2, 31))
    expect((await served.ask('/')).status).toBe(200)
  })
})

describe('pools', () => {
  const api = (options: { guarantee?: number } = {}): { app: Express; served: ReturnType<typeof serve> } => {
    const limiter = opened(
      rampmeter({
        pools: {
          shared: { policies: [slidingLog({ name: 'capacity', quota: 20, window: '1h' })], ...options },
          own: { policies: [slidingLog({ name: 'dedicated', quota: 10, window: '1h' })] },
        },
        tiers: {
          free: { policies: [], pool: 'shared', priority: 0 },
          paid: { policies: [], pool: 'shared', priority: 1 },
          premium: { policies: [], pool: 'own' },
        },
        classify: (req) => req.get('x-tier') as 'free',
      }),
    )
    const app = express().use(limiter).get('/', tellDecision)
    return { app, served: serve(app) }
  }
  const as = (tier: string) => ({ headers: { 'x-tier': tier } })

  it('flooded by one, keep the guarantee of the other, and delay no pool that is somebody else’s', async () => {
    const served = await api().served
    const flood = await askTimes(served, 40, '/', as('free'))
    expect(flood.filter(({ status }) => status === 200)).toHaveLength(18)
    const refused = flood.at(-1)!
    expect(refused.problem).toMatchObject({
      'violated-policies': ['capacity'],
      detail: expect.stringMatching(/^The pool of tier "free" allows 20 requests per hour; the next one is/),
      error: { limit: 20, remaining: 0, tier: 'free' },
    })
    expect(refused.headers['ratelimit-policy']).toBe('"capacity";q=20;w=3600')
    expect((await askTimes(served, 3, '/', as('paid'))).map(({ status }) => status)).toEqual([200, 200, 429])
    const premium = await askTimes(served, 11, '/', as('premium'))
    expect(premium.filter(({ status }) => status === 200)).toHaveLength(10)
    expect(premium[0]!.headers['ratelimit']).toBe('"dedicated";r=9;t=3600')
  })

  it('tell a tier what it can still have', async () => {
    const served = await api({ guarantee: 0.25 }).served
    // 5 of its own, and the 10 that are common.
    expect((await served.ask('/', as('free'))).headers['ratelimit']).toBe('"capacity";r=14;t=3600')
    expect((await served.ask('/', as('paid'))).headers['ratelimit']).toBe('"capacity";r=14;t=3600')
    await askTimes(served, 9, '/', as('paid'))
    // 5 of the common part are used, by those who go first: as many are kept for them again.
    expect((await served.ask('/', as('free'))).headers['ratelimit']).toBe('"capacity";r=8;t=3600')
  })

  it('share slots, with a guarantee and without priority', async () => {
    const limiter = opened(
      rampmeter({
        pools: { slots: { policies: [concurrency({ name: 'slots', quota: 5 })], guarantee: 0.2 } },
        tiers: { low: { policies: [], pool: 'slots' }, high: { policies: [], pool: 'slots', priority: 5 } },
        classify: (req) => req.get('x-tier') as 'low',
      }),
    )
    const waiting: Response[] = []
    const app = express()
      .use(limiter)
      .get('/', limiter.route({ cost: 40 }), (_req, res) => void waiting.push(res))
    const served = await serve(app)
    const asked = ['low', 'low', 'low', 'low'].map((tier) => served.ask('/', as(tier)))
    await until(() => waiting.length === 4)
    // 1 of its own and the 3 in common are taken: the other's own is left.
    expect((await served.ask('/', as('low'))).problem).toMatchObject({ status: 429, retry_estimated: true })
    asked.push(served.ask('/', as('high')))
    await until(() => waiting.length === 5)
    expect((await served.ask('/', as('high'))).status).toBe(429)
    for (const res of waiting) res.end()
    await Promise.all(asked)
    await limiter.flush()
    expect(leftOf(await limiter.peek({ ...who, tier: 'low' }))).toEqual({ slots: 4 })
  })

  it('may follow the calendar', async () => {
    const clock = manualClock(Date.UTC(2026, 1, 27, 12))
    for (const { name, makeStore } of [
      { name: 'memory', makeStore: async () => memoryStore({ now: clock }) },
      stores[1]!,
    ]) {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          pools: { daily: { policies: [fixedWindow({ name: 'daily', quota: 10, window: '1d', align: 'utc' })] } },
          tiers: { low: { policies: [], pool: 'daily' }, high: { policies: [], pool: 'daily', priority: 5 } },
          classify: (req) => req.get('x-tier') as 'low',
        }),
      )
      const served = await serve(express().use(limiter).get('/', tellDecision))
      const low = await askTimes(served, 12, '/', as('low'))
      expect([name, low.filter(({ status }) => status === 200).length]).toEqual([name, 9])
      expect((await served.ask('/', as('high'))).status).toBe(200)
    }
  })

  it('leave alone a route that has no limits', async () => {
    const limiter = opened(
      rampmeter({
        pools: { small: { policies: [slidingLog({ name: 'small', quota: 1, window: '1h' })] } },
        tiers: { all: { policies: [], pool: 'small' } },
        classify: () => 'all',
        routes: { 'GET /health': { replace: true, policies: [] } },
      }),
    )
    const served = await serve(express().use(limiter).get('*any', tellDecision))
    await askTimes(served, 2, '/')
    expect((await served.ask('/health')).status).toBe(200)
  })

  it.each([
    ['failures', () => failures({ quota: 50, window: '1h' })],
    ['targets', () => uniqueTargets({ quota: 50, window: '1h' })],
    ['a quota of the client’s own', () => slidingLog({ quota: () => 50, window: '1h' })],
    ['too small a quota', () => slidingLog({ quota: 2, window: '1h' })],
  ])('are no place for %s', (_, policy) => {
    expect(() =>
      rampmeter({
        pools: { one: { policies: [policy()] } },
        tiers: { low: { policies: [], pool: 'one' }, high: { policies: [], pool: 'one' } },
        classify: () => 'low',
      }),
    ).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }))
  })

  it('that do not exist are found at the start', () => {
    expect(() =>
      rampmeter({ tiers: { all: { policies: [], pool: 'missing' as never } }, classify: () => 'all' }),
    ).toThrow(expect.objectContaining({ code: 'RAMPMETER_UNKNOWN_POOL' }))
  })
})
