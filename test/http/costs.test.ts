// What a request costs: numbers and functions, and what happens where one answers with something that is no cost.

import express, { type Request } from 'express'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Client } from '../../src/client.ts'
import { RampmeterError } from '../../src/errors.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import type { Policy } from '../../src/policy.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { askTimes, expressVersions, keepErrors, leftOf, opened, serve, tellDecision } from './serve.ts'
import { stores } from './stores.ts'

const address = { id: 'ip:127.0.0.1' }
const hour = slidingWindow({ name: 'hour', quota: 100, window: '1h' })

/** Rejections that nobody handled: each would have ended a server. */
const unhandled: unknown[] = []
const note = (error: unknown): void => void unhandled.push(error)
beforeEach(() => {
  unhandled.length = 0
  process.on('unhandledRejection', note)
})
afterEach(() => {
  process.off('unhandledRejection', note)
})

/** Sends one request through a limiter of these policies, and tells how it failed and what is left. */
async function failing(policies: readonly Policy[], cost?: () => unknown) {
  const { errors, handler } = keepErrors()
  let handled = 0
  const store = memoryStore()
  const limiter = opened(rampmeter({ store, policies }))
  const app = express()
  app.get('/', limiter.route(cost === undefined ? {} : { cost: cost as () => number }), (_req, res) => {
    handled += 1
    res.end()
  })
  app.use(handler)
  const served = await serve(app)
  const reply = await served.ask('/')
  // Rejections are told of after the promise jobs of their turn.
  await new Promise((resolve) => setTimeout(resolve, 5))
  // Another limiter on the same counters, none of whose functions fail.
  const watching = opened(rampmeter({ store, policies: [hour] }))
  const leftAnHour = async () => leftOf(await watching.peek(address))['hour']
  return { reply, errors, handled, unhandled: [...unhandled], limiter, leftAnHour }
}

class NotAText {
  toString(): string {
    throw new Error('not a text')
  }
}

describe('a cost that is none', () => {
  const wrong: readonly [string, () => unknown][] = [
    ['NaN', () => Number.NaN],
    ['negative', () => -1],
    ['a fraction', () => 1.5],
    ['infinite', () => Infinity],
    ['negative infinite', () => -Infinity],
    ['above 10^12', () => 1e12 + 1],
    ['a text', () => '5'],
    ['a boolean', () => true],
    ['null', () => null],
    ['undefined', () => undefined],
    ['a BigInt', () => 5n],
    ['a symbol', () => Symbol('5')],
    ['an object', () => ({ valueOf: () => 5 })],
    ['an object without a prototype', () => Object.create(null)],
    ['an object that cannot be written', () => new NotAText()],
    ['a promise of a text', async () => '5'],
    ['a promise of NaN', async () => Number.NaN],
    ['a promise of an object without a prototype', async () => Object.create(null)],
    [
      'a throw',
      () => {
        throw new Error('broken')
      },
    ],
    [
      'a throw of undefined',
      () => {
        // oxlint-disable-next-line typescript/only-throw-error -- what an app throws is not ours to choose
        throw undefined
      },
    ],
    [
      'a rejection',
      async () => {
        throw new Error('broken')
      },
    ],
    // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- nor what it rejects with
    ['a rejection with nothing', () => Promise.reject()],
  ]

  it.each(wrong)('fails the request and charges nothing: %s', async (_, cost) => {
    const ofRoute = await failing([hour], cost)
    expect(ofRoute.errors).toMatchObject([{ code: 'RAMPMETER_INVALID_COST' }])
    expect(ofRoute.errors[0]).toBeInstanceOf(RampmeterError)
    expect(ofRoute.reply.status).toBe(500)
    expect(ofRoute.reply.headers).not.toHaveProperty('ratelimit')
    expect(ofRoute.handled).toBe(0)
    expect(ofRoute.unhandled).toEqual([])
    expect(leftOf(await ofRoute.limiter.peek(address))).toEqual({ hour: 100 })

    const ofPolicy = await failing([
      hour,
      slidingWindow({ name: 'tokens', quota: 9, window: '1h', cost: cost as () => number }),
    ])
    expect(ofPolicy.errors).toMatchObject([{ code: 'RAMPMETER_INVALID_COST' }])
    expect(ofPolicy.unhandled).toEqual([])
    expect(leftOf(await ofPolicy.limiter.peek(address))).toEqual({ hour: 100, tokens: 9 })
  })

  it.each([Number.NaN, -1, 1.5, Infinity, 1e12 + 1, '5', null])('is a mistake at start-up: %j', (cost) => {
    const limiter = opened(rampmeter())
    expect(() => limiter.route({ cost: cost as number })).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
    expect(() => rampmeter({ routes: { '/': { cost: cost as number } } })).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
    expect(() => slidingWindow({ quota: 1, window: '1h', cost: cost as number })).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
  })

  it('is told by whose it is: the policy’s own, or the route’s', async () => {
    const ofRoute = await failing([hour], () => Number.NaN)
    expect(String(ofRoute.errors[0])).toMatch(/the cost of a route .*came out as NaN/)
    const limiter = opened(rampmeter({ policies: [hour], routes: { '/': { name: 'search', cost: () => -1 } } }))
    const { errors, handler } = keepErrors()
    await (await serve(express().use(limiter).use(handler))).ask('/')
    expect(String(errors[0])).toMatch(/the cost of route "search" came out as -1/)
    const ofEntry = opened(rampmeter({ policies: [hour], routes: { 'GET /:id': { cost: () => -1 } } }))
    const kept = keepErrors()
    await (await serve(express().use(ofEntry).use(kept.handler))).ask('/1')
    expect(String(kept.errors[0])).toMatch(/the cost of routes\["GET \/:id"\] came out as -1/)
    const own = slidingWindow({ name: 'tokens', quota: 9, window: '1h', cost: () => 0.5 })
    expect(String((await failing([hour, own])).errors[0])).toMatch(/the cost of policy "tokens" came out as 0\.5/)
  })

  it('never shows a text that might be a credential', async () => {
    const { errors } = await failing([hour], () => 'sk-very-secret')
    expect(JSON.stringify([errors, String(errors[0])])).not.toContain('secret')
  })

  it('keeps what was thrown as the cause', async () => {
    const broken = new Error('broken')
    const { errors } = await failing([hour], () => {
      throw broken
    })
    expect((errors[0] as Error).cause).toBe(broken)
  })
})

describe('other functions of a policy that fail', () => {
  const throwing = (): never => {
    throw new Error('broken')
  }
  const rejecting = (async () => throwing()) as () => never
  const base = { name: 'other', quota: 9, window: '1h' } as const

  it.each([
    ['quota throws', { ...base, quota: throwing }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    ['quota rejects', { ...base, quota: rejecting }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    ['quota is NaN', { ...base, quota: () => Number.NaN }, 'RAMPMETER_INVALID_QUOTA'],
    ['quota is negative', { ...base, quota: () => -1 }, 'RAMPMETER_INVALID_QUOTA'],
    ['quota is a fraction', { ...base, quota: () => 0.5 }, 'RAMPMETER_INVALID_QUOTA'],
    ['quota is infinite', { ...base, quota: () => Infinity }, 'RAMPMETER_INVALID_QUOTA'],
    [
      'quota is undefined',
      { ...base, quota: (client: Client) => client.claims['quota'] as number },
      'RAMPMETER_INVALID_QUOTA',
    ],
    ['quota is a text', { ...base, quota: () => '9' as never }, 'RAMPMETER_INVALID_QUOTA'],
    ['quota is an odd object', { ...base, quota: () => Object.create(null) as never }, 'RAMPMETER_INVALID_QUOTA'],
    ['partition throws', { ...base, partition: throwing }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    ['partition rejects', { ...base, partition: rejecting }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    ['partition is empty', { ...base, partition: () => '' }, 'RAMPMETER_INVALID_PARTITION'],
    ['partition is undefined', { ...base, partition: () => undefined as never }, 'RAMPMETER_INVALID_PARTITION'],
    ['partition is too long', { ...base, partition: () => 'x'.repeat(4097) }, 'RAMPMETER_INVALID_PARTITION'],
    ['partition is a list', { ...base, partition: () => ['x'] as never }, 'RAMPMETER_INVALID_PARTITION'],
    ['when throws', { ...base, when: throwing }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    ['when rejects', { ...base, when: rejecting }, 'RAMPMETER_POLICY_FUNCTION_FAILED'],
    [
      'partition throws and the cost rejects',
      { ...base, partition: throwing, cost: rejecting },
      'RAMPMETER_POLICY_FUNCTION_FAILED',
    ],
    ['quota throws and the cost rejects', { ...base, quota: throwing, cost: rejecting }, 'RAMPMETER_INVALID_COST'],
  ])('%s', async (_, options, code) => {
    const { errors, unhandled, handled, leftAnHour } = await failing([hour, slidingWindow(options)])
    expect(errors).toMatchObject([{ code }])
    expect(handled).toBe(0)
    expect(unhandled).toEqual([])
    expect(await leftAnHour()).toBe(100)
  })

  it('burst of a bucket is checked as quota is', async () => {
    const { errors } = await failing([tokenBucket({ quota: 5, window: '1m', burst: () => 2.5 })])
    expect(errors).toMatchObject([{ code: 'RAMPMETER_INVALID_QUOTA' }])
  })
})

for (const { name, makeStore } of stores) {
  describe(`a cost ${name}`, () => {
    it('of 0 is free, and still told', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline: '5s',
          policies: [slidingWindow({ name: 'hour', quota: 2, window: '1h' })],
        }),
      )
      const app = express()
      app.get('/status', limiter.route({ cost: 0 }), tellDecision)
      app.get('/work', limiter.route({ cost: 2 }), tellDecision)
      const served = await serve(app)

      const free = await askTimes(served, 5, '/status')
      expect(free.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
      expect(free[4]!.headers['ratelimit']).toBe('"hour";r=2;t=3600')
      expect(free[4]!.json.limits).toMatchObject([{ cost: 0, remaining: 2 }])

      expect((await served.ask('/work')).status).toBe(200)
      expect((await served.ask('/work')).status).toBe(429)
      const still = await served.ask('/status')
      expect(still.status).toBe(200)
      expect(still.headers['ratelimit']).toMatch(/^"hour";r=0;t=3600$/)
    })

    it('goes to every policy that has none of its own', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline: '5s',
          policies: [
            slidingWindow({ name: 'requests', quota: 100, window: '1h', cost: 1 }),
            slidingWindow({ name: 'points', quota: 100, window: '1h', unit: 'points' }),
            slidingWindow({
              name: 'tokens',
              quota: 1000,
              window: '1h',
              unit: 'tokens',
              cost: async (req: Request) => Number(req.query['tokens']),
            }),
          ],
        }),
      )
      let asked = 0
      const app = express()
      app.get(
        '/',
        limiter.route({
          cost: async (_req, client) => {
            asked += 1
            return client.tier === 'default' ? 7 : 1
          },
        }),
        tellDecision,
      )
      const served = await serve(app)
      const { headers, json } = await served.ask('/?tokens=250')
      expect(leftOf(json)).toEqual({ requests: 99, points: 93, tokens: 750 })
      expect(headers['ratelimit-policy']).toBe(
        '"requests";q=100;w=3600, "points";q=100;qu="points";w=3600, "tokens";q=1000;qu="tokens";w=3600',
      )
      expect(asked).toBe(1)
    })

    it('above what a policy ever holds is refused for good', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline: '5s',
          policies: [tokenBucket({ name: 'bucket', quota: 1000, window: '1m', burst: 20 })],
        }),
      )
      const app = express()
      app.get('/:cost', limiter.route({ cost: (req) => Number(req.params['cost']) }), tellDecision)
      const served = await serve(app)

      const never = await served.ask('/21')
      expect(never.status).toBe(403)
      expect(never.headers).not.toHaveProperty('retry-after')
      expect(never.headers).not.toHaveProperty('retry-after-ms')
      expect(never.problem).toMatchObject({
        type: expect.stringContaining('#quota-exceeded'),
        retryable: false,
        error: { type: 'cost_exceeds_limit', cost: 21, capacity: 20 },
      })
      expect((await served.ask('/20')).status).toBe(200)
    })

    it('of its own customer is what `quota` makes of the claims', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline: '5s',
          identify: [apiKey({ lookup: (key) => ({ id: key, claims: key === 'big' ? { quota: 3 } : { quota: 1 } }) })],
          policies: [slidingWindow({ name: 'own', quota: (client) => client.claims['quota'] ?? 9, window: '1h' })],
        }),
      )
      const served = await serve(express().use(limiter).get('/', tellDecision))
      const ask = async (key: string) =>
        (await askTimes(served, 4, '/', { headers: { 'x-api-key': key } })).map(({ status }) => status)
      expect(await ask('big')).toEqual([200, 200, 200, 429])
      expect(await ask('small')).toEqual([200, 429, 429, 429])
      expect((await served.ask('/')).headers['ratelimit-policy']).toBe('"own";q=9;w=3600')
    })
  })
}

describe('functions that see the request', () => {
  it('do not take the cost of a client that comes in between', async () => {
    const limiter = opened(rampmeter({ policies: [hour], trustedAddress: (req) => req.get('x-from')! }))
    const app = express()
    app.get(
      '/:cost',
      limiter.route({
        cost: async (req) => {
          const cost = Number(req.params['cost'])
          await new Promise((resolve) => setTimeout(resolve, cost % 7))
          return cost
        },
      }),
      tellDecision,
    )
    const served = await serve(app)
    const replies = await Promise.all(
      Array.from({ length: 30 }, (_, index) => served.ask(`/${index}`, { headers: { 'x-from': `192.0.2.${index}` } })),
    )
    for (const [index, { json }] of replies.entries()) {
      expect(json.client.id).toBe(`ip:192.0.2.${index}`)
      expect(json.limits).toMatchObject([{ cost: index, remaining: 100 - index }])
    }
  })

  it('see `when` before anything else of the policy is asked', async () => {
    let asked = 0
    const limiter = opened(
      rampmeter({
        policies: [
          hour,
          slidingWindow({
            name: 'writes',
            quota: () => {
              asked += 1
              return 1
            },
            window: '1h',
            when: (req) => req.method === 'POST',
          }),
        ],
      }),
    )
    const served = await serve(express().use(limiter, tellDecision))
    expect((await served.ask('/')).headers['ratelimit-policy']).toBe('"hour";q=100;w=3600')
    expect(asked).toBe(0)
    expect((await served.ask('/', { method: 'POST' })).headers['ratelimit']).toBe(
      '"hour";r=98;t=3600, "writes";r=0;t=3600',
    )
    expect((await served.ask('/', { method: 'POST' })).status).toBe(429)
    expect((await served.ask('/')).status).toBe(200)
  })
})

for (const { name, express } of expressVersions) {
  it(`${name} answers 500 where an app has no handler of its own, and lives on`, async () => {
    const limiter = opened(rampmeter())
    const app = express()
    app.set('env', 'test')
    app.get('/broken', limiter.route({ cost: () => Number.NaN }), tellDecision)
    app.get('/', limiter, tellDecision)
    const served = await serve(app)
    expect((await served.ask('/broken')).status).toBe(500)
    expect((await served.ask('/')).status).toBe(200)
  })
}
