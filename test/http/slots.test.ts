// Slots of requests in flight: none is lost, doubled or given back twice, whatever becomes of the request, the client or the
// process.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:net'
import { fileURLToPath } from 'node:url'
import express, { type Response } from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { session } from '../../src/identify/session.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Correction, OpenStore, Store } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { askTimes, expressVersions, keepErrors, leftOf, opened, serve, tellDecision, type Served } from './serve.ts'
import { openRedis, stores } from './stores.ts'

const deadline = '5s'
const who = { id: 'ip:127.0.0.1' }
const inFlight = concurrency({ name: 'in-flight', quota: 3 })

async function until(holds: () => boolean | Promise<boolean>, forMs = 10_000): Promise<void> {
  const end = Date.now() + forMs
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('it did not come to hold')
    await new Promise((resolve) => setTimeout(resolve, 3))
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A store in memory that notes what is settled, and may be made slow. */
function watched(): { store: Store; settled: Correction[]; slow: { ms: number } } {
  const inner = memoryStore()
  const settled: Correction[] = []
  const slow = { ms: 0 }
  return {
    settled,
    slow,
    store: {
      open(settings): OpenStore {
        const handle = inner.open(settings)
        return {
          ...handle,
          async decide(request) {
            const decision = await handle.decide(request)
            if (slow.ms > 0) await pause(slow.ms)
            return decision
          },
          settle(corrections) {
            settled.push(...corrections)
            return handle.settle(corrections)
          },
        }
      },
    },
  }
}

function hangUpAfter(served: Served, request: string, firstByte: boolean): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(served.port, '127.0.0.1', () => {
      socket.write(request)
      if (!firstByte) setTimeout(() => socket.destroy(), 20)
    })
    socket.on('data', () => socket.destroy())
    socket.on('error', () => {})
    socket.on('close', () => resolve())
  })
}

for (const { name: store, makeStore } of stores) {
  for (const { name, express: make } of expressVersions) {
    describe(`slots ${store}, ${name}`, () => {
      it('come back when a response ends, its handler throws, its client goes away, or it is destroyed', async () => {
        const { errors, handler } = keepErrors()
        const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies: [inFlight] }))
        const seen: Response[] = []
        const app = make()
          .use(limiter)
          .use((_req, res, next) => {
            seen.push(res)
            next()
          })
          .get('/ends', (_req, res) => void res.json({}))
          .get('/throws', () => {
            throw new Error('broken')
          })
          .get('/throws-midway', (_req, res) => {
            res.write('some')
            throw new Error('broken')
          })
          .get('/never', () => {})
          .get('/stream', (_req, res) => {
            const timer = setInterval(() => res.write('x'.repeat(1000)), 2)
            res.on('close', () => clearInterval(timer))
          })
          .get('/destroys', (_req, res) => void res.destroy())
          .use(handler)
        const served = await serve(app)
        const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
        await served.ask('/ends')
        expect((await served.ask('/throws')).status).toBe(500)
        await hangUpAfter(served, get('/throws-midway'), true)
        await hangUpAfter(served, get('/never'), false)
        await hangUpAfter(served, get('/stream'), true)
        await served.ask('/destroys').catch(() => {})
        await until(() => seen.length === 6 && seen.every((res) => res.closed))
        await limiter.flush()
        expect(leftOf(await limiter.peek(who))).toEqual({ 'in-flight': 3 })
        expect(errors.length).toBeGreaterThan(0)
      })

      it('are as many as the quota, and the answer says that its time is an estimate', async () => {
        const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies: [inFlight] }))
        const waiting: Response[] = []
        const app = make()
          .use(limiter)
          .get('/', (_req, res) => void waiting.push(res))
        const served = await serve(app)
        const asked = [1, 2, 3].map(() => served.ask('/'))
        await until(() => waiting.length === 3)
        const refused = await served.ask('/')
        expect(refused.status).toBe(429)
        expect(refused.headers['ratelimit']).toBe('"in-flight";r=0')
        expect(refused.headers['ratelimit-policy']).toBe('"in-flight";q=3;qu="concurrent-requests"')
        // A second where nothing is known yet, or as long as the slots have been full.
        const seconds = refused.headers['retry-after']
        expect(Number(seconds)).toBeGreaterThanOrEqual(1)
        expect(refused.headers['ratelimit-reset']).toBe(seconds)
        expect(refused.problem).toMatchObject({
          detail: `Tier "default" allows 3 requests at a time; the next one is admitted in about ${seconds} s.`,
          retry_estimated: true,
        })
        expect(refused.problem.error).not.toHaveProperty('reset_at')
        const text = (await served.ask('/', { headers: { accept: 'text/plain' } })).body
        expect(text).toMatch(/is admitted in about \d+ s\./)
        expect(text).toMatch(/Try again in: about \d+ s\n/)
        expect(text).not.toContain('free again')
        const page = (await served.ask('/', { headers: { accept: 'text/html' } })).body
        expect(page).toMatch(/is admitted in about \d+ s\./)
        expect(page).toMatch(/<li>Try again in: about \d+ s<\/li>/)
        const peeked = await limiter.peek(who)
        expect(peeked).toMatchObject({ admitted: false, retryEstimated: true })
        expect(peeked.retryAfterMs).toBeGreaterThanOrEqual(334)
        waiting.pop()!.end()
        await until(async () => leftOf(await limiter.peek(who))['in-flight'] === 1)
        for (const res of waiting) res.end()
        const told = (await Promise.all(asked)).map(({ headers }) => headers)
        expect(new Set(told.map((one) => one['ratelimit']))).toEqual(
          new Set([0, 1, 2].map((left) => `"in-flight";r=${left}`)),
        )
        for (const one of told) expect(one).not.toHaveProperty('ratelimit-reset')
        expect(await limiter.peek(who)).toMatchObject({ admitted: true, retryAfterMs: 0, retryEstimated: false })
      })

      it('of one client after the other on one connection are never in each other’s way', async () => {
        const one = concurrency({ name: 'one', quota: 1 })
        const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies: [one] }))
        const served = await serve(make().use(limiter).get('/', tellDecision))
        const http = await import('node:http')
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
        onTestFinished(() => agent.destroy())
        for (let times = 0; times < 40; times += 1) {
          const status = await new Promise<number>((resolve, reject) => {
            http
              .get({ port: served.port, host: '127.0.0.1', agent }, (res) => {
                res.resume()
                res.on('end', () => resolve(res.statusCode!))
              })
              .on('error', reject)
          })
          expect(status).toBe(200)
        }
      })

      it('are neither doubled nor lost where a route decides anew', async () => {
        const own = slidingLog({ name: 'own', quota: 2, window: '1h' })
        const limiter = opened(rampmeter({ store: await makeStore(), deadline, policies: [concurrency({ quota: 1 })] }))
        const app = make()
          .use(limiter)
          .get('/', limiter.route({ policies: [own] }), tellDecision)
          .get('/same', limiter.route({}), tellDecision)
        const served = await serve(app)
        const replies = [...(await askTimes(served, 2)), ...(await askTimes(served, 2, '/same'))]
        expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200])
        for (const { json } of replies) expect(leftOf(json)['concurrency']).toBe(0)
        // Refused by the route, the slot of the outer one is back too.
        expect((await served.ask('/')).status).toBe(429)
        await limiter.flush()
        expect(leftOf(await limiter.peek(who))).toEqual({ concurrency: 1 })
      })
    })
  }

  it(`a stream that outlives its lease keeps its slot, and gives it back at its end, ${store}`, async () => {
    const limiter = opened(
      rampmeter({
        store: await makeStore(),
        deadline,
        policies: [concurrency({ name: 'streams', quota: 1, lease: '1s' })],
      }),
    )
    let stream: Response | undefined
    const app = express()
      .use(limiter)
      .get('/events', (_req, res) => {
        stream = res.set('content-type', 'text/event-stream')
        res.write('data: 1\n\n')
      })
    const served = await serve(app)
    const following = served.ask('/events')
    await until(() => stream !== undefined)
    for (let times = 0; times < 5; times += 1) {
      await pause(500)
      expect((await served.ask('/events')).status).toBe(429)
    }
    stream!.end()
    await following
    await until(async () => leftOf(await limiter.peek(who))['streams'] === 1)
  })
}

for (const { name: store, makeStore } of stores) {
  it(`a session keeps its slot while a request of it runs, and for a lease after that, ${store}`, async () => {
    const leaseMs = 1000
    const limiter = opened(
      rampmeter({
        store: await makeStore(),
        deadline,
        policies: [concurrency({ name: 'sessions', quota: 1, lease: leaseMs, per: (req) => req.get('x-session')! })],
      }),
    )
    let stream: Response | undefined
    const app = express()
      .use(limiter)
      .get('/', tellDecision)
      .get('/events', (_req, res) => {
        stream = res
        res.write('data: 1\n\n')
      })
    const served = await serve(app)
    const as = async (id: string, path = '/'): Promise<number> =>
      (await served.ask(path, { headers: { 'x-session': id } })).status
    const following = as('first', '/events')
    await until(() => stream !== undefined)
    for (let times = 0; times < 4; times += 1) {
      await pause(leaseMs / 2)
      expect(await as('second')).toBe(429)
      if (times === 1) expect(await as('first')).toBe(200)
    }
    stream!.end()
    await following
    const endedAt = Date.now()
    await pause(leaseMs / 2)
    expect(await as('second')).toBe(429)
    await until(async () => (await as('second')) === 200)
    expect(Date.now() - endedAt).toBeGreaterThan(leaseMs - 50)
    expect(Date.now() - endedAt).toBeLessThan(leaseMs + 1000)
  })
}

describe('slots', () => {
  it('are given back once, whoever else says so', async () => {
    const { store, settled } = watched()
    const limiter = opened(rampmeter({ store, policies: [inFlight] }))
    const app = express()
      .use(limiter)
      .get('/', (req, res) => {
        req.rateLimit!.release()
        req.rateLimit!.release()
        res.end()
      })
    await askTimes(await serve(app), 3)
    await limiter.flush()
    expect(settled.filter(({ does }) => does === 'release')).toHaveLength(3)
    expect(settled).toHaveLength(3)
  })

  it('come back although the client left while its request was being decided', async () => {
    const { store, slow } = watched()
    const limiter = opened(rampmeter({ store, policies: [inFlight], deadline }))
    let handled = 0
    const app = express()
      .use(limiter)
      .get('/', () => {
        handled += 1
      })
    const served = await serve(app)
    slow.ms = 150
    await hangUpAfter(served, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', false)
    await until(() => handled === 1)
    slow.ms = 0
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ 'in-flight': 3 })
  })

  it('of pipelined requests come back when the connection closes before it was their turn', async () => {
    const limiter = opened(rampmeter({ policies: [inFlight] }))
    let handled = 0
    const app = express()
      .use(limiter)
      .get('/', () => {
        handled += 1
      })
    const served = await serve(app)
    const one = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
    await hangUpAfter(served, one + one + one, false)
    await until(() => handled === 3)
    await until(async () => {
      await limiter.flush()
      return leftOf(await limiter.peek(who))['in-flight'] === 3
    })
  })

  it('of pipelined requests that are answered in turn come back one by one', async () => {
    const limiter = opened(rampmeter({ policies: [inFlight] }))
    const served = await serve(express().use(limiter).get('/', tellDecision))
    const one = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
    const last = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
    const answer = await served.send(one.repeat(2) + last)
    expect(answer.match(/HTTP\/1.1 200 OK/g)).toHaveLength(3)
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ 'in-flight': 3 })
  })

  it('of a process that was killed come back when their leases run out', async () => {
    const { url, prefix, redis } = await openRedis()
    const child = spawn(
      process.execPath,
      ['--import', 'tsx', fileURLToPath(new URL('slots-process.ts', import.meta.url)), url, prefix],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    onTestFinished(() => void child.kill('SIGKILL'))
    const [output] = (await once(child.stdout, 'data')) as [Buffer]
    const port = Number(output.toString())
    const limiter = opened(
      rampmeter({
        store: redisStore(redis, { prefix }),
        deadline,
        policies: [concurrency({ name: 'in-flight', quota: 2, lease: '1s' })],
      }),
    )
    await limiter.ready()
    const left = async (): Promise<number | undefined> => leftOf(await limiter.peek(who))['in-flight']
    for (let times = 0; times < 2; times += 1) {
      const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
      socket.on('error', () => {})
      onTestFinished(() => void socket.destroy())
    }
    await until(async () => (await left()) === 0)
    // Longer than a lease: while it lives, it keeps them.
    await pause(1300)
    expect(await left()).toBe(0)
    const killedAt = Date.now()
    child.kill('SIGKILL')
    await once(child, 'exit')
    await until(async () => (await left()) === 2)
    expect(Date.now() - killedAt).toBeLessThan(10_000)
  })

  it('learn how long they are held, and tell the next one so; where nothing comes back for longer, that', async () => {
    const clock = manualClock()
    const limiter = opened(
      rampmeter({ store: memoryStore({ now: clock }), policies: [concurrency({ name: 'one', quota: 1 })] }),
    )
    let answer = (): void => {}
    const app = express()
      .use(limiter)
      .get('/', (_req, res) => {
        answer = () => void res.end()
      })
    const served = await serve(app)
    const taken = (): Promise<void> => until(async () => leftOf(await limiter.peek(who))['one'] === 0)
    const told = async (): Promise<unknown> => {
      const { problem } = await served.ask('/')
      expect(problem.retry_estimated).toBe(true)
      return problem.error.retry_after_ms
    }
    const first = served.ask('/')
    await taken()
    clock.advance(2300)
    answer()
    await first
    await limiter.flush()
    const second = served.ask('/')
    await taken()
    expect(await told()).toBe(2300)
    clock.advance(2300)
    expect(await told()).toBe(2300)
    clock.advance(2700)
    expect(await told()).toBe(5000)
    answer()
    await second
  })

  it('for sessions are held for a lease after the last request, and the wait is until one runs out', async () => {
    const limiter = opened(
      rampmeter({
        policies: [concurrency({ name: 'sessions', quota: 2, lease: '15m', per: (req) => req.get('x-session')! })],
        identify: [session(() => ({ id: 'amy' }))],
      }),
    )
    const served = await serve(express().use(limiter).get('/', tellDecision))
    const as = (id: string) => served.ask('/', { headers: { 'x-session': id } })
    for (const id of ['desktop', 'phone', 'desktop', 'phone', 'desktop']) expect((await as(id)).status).toBe(200)
    const third = await as('tablet')
    expect(third.status).toBe(429)
    expect(third.problem.detail).toMatch(
      /^Tier "default" allows 2 sessions at a time; the next one is admitted in about 15 min\.$/,
    )
    expect(third.problem.error.retry_after).toBeGreaterThan(890)
    expect((await as('phone')).status).toBe(200)
  })

  it('for sessions cost no second call where a request was short', async () => {
    const { store, settled } = watched()
    const policies = [concurrency({ name: 'sessions', quota: 2, lease: '1m', per: (req) => req.get('x-session')! })]
    const limiter = opened(rampmeter({ store, policies }))
    const app = express()
      .use(limiter)
      .get('/', tellDecision)
      .get('/slow', async (_req, res) => {
        await pause(700)
        res.end()
      })
    const served = await serve(app)
    await askTimes(served, 3, '/', { headers: { 'x-session': 'one' } })
    await limiter.flush()
    expect(settled).toEqual([])
    await served.ask('/slow', { headers: { 'x-session': 'one' } })
    await limiter.flush()
    expect(settled).toMatchObject([{ does: 'renew' }])
  })

  it('for sessions outside HTTP run out, and no release brings one back', async () => {
    const clock = manualClock()
    const policies = [concurrency({ name: 'sessions', quota: 1, lease: '1m', per: () => 'never asked' })]
    const limiter = opened(rampmeter({ store: memoryStore({ now: clock }), policies }))
    const ask = (id: string) => limiter.decide({ client: who, partitions: { sessions: id } })
    const first = await ask('first')
    clock.advance(60_001)
    expect((await ask('second')).admitted).toBe(true)
    first.release()
    await limiter.flush()
    expect((await ask('first')).admitted).toBe(false)
    expect((await ask('second')).admitted).toBe(true)
  })

  it('outside HTTP are held until they are released', async () => {
    const limiter = opened(rampmeter({ policies: [inFlight] }))
    const jobs = await Promise.all([1, 2, 3].map(() => limiter.decide({ client: who })))
    expect(jobs.map(({ admitted }) => admitted)).toEqual([true, true, true])
    expect(await limiter.decide({ client: who })).toMatchObject({ admitted: false, violated: ['in-flight'] })
    jobs[0]!.settle(5)
    jobs[0]!.refund()
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ 'in-flight': 0 })
    for (const job of jobs) {
      job.release()
      job.release()
    }
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ 'in-flight': 3 })
  })
})
