// What policies that count slots, failures and targets share with the others: unit, cost, charge and maxRate.

import express, { type Express } from 'express'
import { describe, expect, it } from 'vitest'
import type { Policy } from '../../src/policy.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { failures } from '../../src/policies/failures.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { uniqueTargets } from '../../src/policies/unique-targets.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Store } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { askTimes, keepErrors, opened, serve, tellDecision, type Served } from './serve.ts'
import { stores } from './stores.ts'

const deadline = '5s'

async function serveWith(
  policies: Policy[],
  store: Store = memoryStore({ now: manualClock() }),
  add?: (app: Express) => void,
): Promise<Served> {
  const limiter = opened(rampmeter({ store, deadline, policies }))
  await limiter.ready()
  const app = express().use(limiter)
  add?.(app)
  app.get('/wrong', (_req, res) => void res.status(401).end())
  return await serve(app.get('/', tellDecision).use(keepErrors().handler))
}

describe('unit', () => {
  it('is told, and named in words', async () => {
    const served = await serveWith([
      concurrency({ quota: 5, unit: 'jobs' }),
      failures({ quota: 1, window: '15m', unit: 'logins' }),
      uniqueTargets({ quota: 3, window: '1h', unit: 'accounts' }),
    ])
    const reply = await served.ask('/wrong')
    expect(reply.headers['ratelimit-policy']).toBe(
      '"concurrency";q=5;qu="jobs", "failures";q=1;qu="logins";w=900, "unique-targets";q=3;qu="accounts";w=3600',
    )
    const refused = await served.ask('/')
    expect(refused.status).toBe(429)
    expect(refused.problem.detail).toMatch(
      /^Tier "default" allows 1 login per 15 minutes; the next one is admitted in /,
    )
  })

  it('of slots of one’s own is still given back, and kept by a pool', async () => {
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: manualClock() }),
        tiers: { one: { policies: [], pool: 'jobs' }, other: { policies: [], pool: 'jobs' } },
        classify: () => 'one',
        pools: { jobs: { policies: [concurrency({ quota: 10, unit: 'jobs' })] } },
      }),
    )
    const served = await serve(
      express().get('/', limiter.route({ cost: 50 }), (req, res) => {
        req.rateLimit!.settle(70)
        tellDecision(req, res, () => {})
      }),
    )
    const replies = await askTimes(served, 30)
    expect(replies.map(({ status }) => status)).toEqual(replies.map(() => 200))
    expect(replies.at(-1)!.json.limits).toMatchObject([{ unit: 'jobs', cost: 1, remaining: 8 }])
  })

  it.each([
    () => concurrency({ quota: 5, unit: 'content-bytes' }),
    () => failures({ quota: 5, window: '1h', unit: 'content-bytes' }),
    () => uniqueTargets({ quota: 5, window: '1h', unit: 'concurrent-requests' }),
  ])('is none that is counted otherwise: %s', (build) => {
    expect(build).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }))
  })
})

describe('maxRate', () => {
  it('lowers what is told, and never what is admitted', async () => {
    const served = await serveWith([
      failures({ quota: 900, window: '15m', maxRate: 0.1 }),
      uniqueTargets({ quota: 3600, window: '1h', maxRate: 0.5 }),
    ])
    const { headers } = await served.ask('/')
    expect(headers['ratelimit']).toBe('"failures";r=90;t=900, "unique-targets";r=1800;t=3600')
  })

  it('is taken of slots', () => {
    expect(concurrency({ quota: 5, maxRate: 2 })).toMatchObject({ maxRate: 2 })
  })
})

describe('charge', () => {
  it('of failures is another word for `reserve`', () => {
    const policy = (options: Partial<Parameters<typeof failures>[0]>): unknown =>
      failures({ quota: 3, window: '1h', ...options }).reserve
    expect(policy({ charge: 'before' })).toBe(true)
    expect(policy({ charge: 'after' })).toBe(false)
    expect(policy({ charge: 'after', reserve: false })).toBe(false)
    expect(policy({})).toBeUndefined()
    expect(() => policy({ charge: 'after', reserve: true })).toThrow(
      /reserve: true is to charge failures before, and charge: 'after'/,
    )
  })

  it('of slots and targets is `before`', () => {
    expect(concurrency({ quota: 5, charge: 'before' }).charge).toBe('before')
    expect(uniqueTargets({ quota: 5, window: '1h', charge: 'before' }).charge).toBe('before')
    for (const build of [
      // @ts-expect-error -- a slot is held while the request runs
      () => concurrency({ quota: 5, charge: 'after' }),
      // @ts-expect-error -- what is touched has been touched
      () => uniqueTargets({ quota: 5, window: '1h', charge: 'after' }),
    ]) {
      expect(build).toThrow(/`charge`: saw "after", expected "before"/)
    }
  })
})

describe.each(stores)('cost $name', ({ makeStore }) => {
  it('of failures is what one counts, whatever the route costs', async () => {
    const limit = failures({ quota: 5, window: '1h', cost: 2 })
    const served = await serveWith([limit, tokenBucket({ quota: 100, window: '1h' })], await makeStore())
    const statuses = (await askTimes(served, 4, '/wrong')).map(({ status }) => status)
    // Two, four, six of five: what counts afterwards may leave a debt.
    expect(statuses).toEqual([401, 401, 401, 429])
  })

  it('of failures that are reserved is charged before, and comes back', async () => {
    const served = await serveWith([failures({ quota: 5, window: '1h', cost: 2, charge: 'before' })], await makeStore())
    const told = await served.ask('/')
    expect(told.json.limits).toMatchObject([{ cost: 2, remaining: 3 }])
    expect((await askTimes(served, 3)).map(({ status }) => status)).toEqual([200, 200, 200])
    expect((await askTimes(served, 3, '/wrong')).map(({ status }) => status)).toEqual([401, 401, 429])
  })

  it('of slots is how many a request takes, and they come back together', async () => {
    const limit = concurrency({ quota: 5, cost: async (req) => Number(req.query['slots'] ?? 1) })
    const waiting: (() => void)[] = []
    const served = await serveWith([limit], await makeStore(), (app) =>
      app.get('/wait', (_req, res) => void waiting.push(() => res.end())),
    )
    const three = served.ask('/wait?slots=3')
    while (waiting.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const told = await served.ask('/?slots=2')
    expect(told.json.limits).toMatchObject([{ cost: 2, remaining: 0 }])
    expect((await served.ask('/?slots=3')).status).toBe(429)
    expect((await served.ask('/?slots=0')).json.limits).toMatchObject([{ cost: 0, remaining: 2 }])
    waiting[0]!()
    await three
    const afterwards = await served.ask('/?slots=5')
    expect(afterwards.json.limits).toMatchObject([{ cost: 5, remaining: 0 }])
    const never = await served.ask('/?slots=6')
    expect([never.status, never.problem.retryable]).toEqual([403, false])
    expect((await served.ask('/?slots=33')).json).toMatchObject({ code: 'RAMPMETER_INVALID_COST' })
  })
})

describe.each(stores)('more targets in a request than there may ever be, $name', ({ makeStore }) => {
  it('are refused for good, and not told a time', async () => {
    const limit = uniqueTargets({ quota: 2, window: '1h', target: (req) => (req.query['ids'] as string).split('.') })
    const served = await serveWith([limit], await makeStore())
    const never = await served.ask('/?ids=a.b.c')
    expect([never.status, never.headers['retry-after'], never.problem.retryable]).toEqual([403, undefined, false])
    expect(never.problem.error).toMatchObject({ type: 'cost_exceeds_limit', cost: 3, capacity: 2 })
    expect((await served.ask('/?ids=a.b')).status).toBe(200)
    expect((await served.ask('/?ids=a.b.c')).status).toBe(403)
    expect((await served.ask('/?ids=a.c')).status).toBe(429)
  })
})

describe('cost', () => {
  it('is not of sessions, which have one slot each', () => {
    expect(() => concurrency({ quota: 5, cost: 2, per: () => 'a' })).toThrow(/with `per` a session has one slot/)
    expect(() => concurrency({ quota: 5, cost: 33 })).toThrow(/`cost`: saw 33, expected a number <=32/)
  })
})
