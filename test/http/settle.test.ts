// What a request turned out to cost: `req.rateLimit.settle`, `refund`, and when it is too late for them.

import { connect } from 'node:net'
import express, { type Response } from 'express'
import { describe, expect, it } from 'vitest'
import type { Decision } from '../../src/decision.ts'
import { RampmeterError } from '../../src/errors.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { expressVersions, keepErrors, leftOf, opened, serve } from './serve.ts'
import { stores } from './stores.ts'
import { warningsOf } from './warnings.ts'

const who = { id: 'ip:127.0.0.1' }
const policies = [
  slidingWindow({ name: 'requests', quota: 100, window: '1h', cost: 1 }),
  slidingWindow({ name: 'tokens', quota: 1000, window: '1h', unit: 'tokens', cost: 50 }),
]
const deadline = '5s'

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setTimeout(resolve, 2))
}

for (const { name, makeStore } of stores) {
  /** Serves with a handler that settles, and tells what is left after its answer. */
  async function leftAfter(handle: (decision: Decision, res: Response) => void | Promise<void>, own = policies) {
    const limiter = opened(rampmeter({ store: await makeStore(), policies: own, deadline }))
    let ended: Response | undefined
    const app = express()
      .use(limiter)
      .get('/', async (req, res) => {
        ended = res
        await handle(req.rateLimit!, res)
        if (!res.writableEnded) res.end()
      })
    const served = await serve(app)
    await served.ask('/')
    await until(() => ended!.closed)
    await limiter.flush()
    return leftOf(await limiter.peek(who))
  }

  describe(`settle ${name}`, () => {
    it('is not needed', async () => {
      expect(await leftAfter(() => {})).toEqual({ requests: 99, tokens: 950 })
    })

    it('states the total, up or down, by name', async () => {
      expect(await leftAfter((decision) => decision.settle({ tokens: 75 }))).toEqual({ requests: 99, tokens: 925 })
      expect(await leftAfter((decision) => decision.settle({ tokens: 20 }))).toEqual({ requests: 99, tokens: 980 })
      expect(await leftAfter((decision) => decision.settle({ tokens: 50 }))).toEqual({ requests: 99, tokens: 950 })
      expect(await leftAfter((decision) => decision.settle({ tokens: 20, requests: 3 }))).toEqual({
        requests: 97,
        tokens: 980,
      })
      expect(await leftAfter((decision) => decision.settle({}))).toEqual({ requests: 99, tokens: 950 })
    })

    it('states the total for every policy, as a number', async () => {
      expect(await leftAfter((decision) => decision.settle(7))).toEqual({ requests: 93, tokens: 993 })
    })

    it('counts what was said last', async () => {
      expect(
        await leftAfter(async (decision, res) => {
          decision.settle({ tokens: 500 })
          decision.settle({ tokens: 400 })
          res.write('some')
          await new Promise((resolve) => setTimeout(resolve, 5))
          decision.settle({ tokens: 60 })
        }),
      ).toEqual({ requests: 99, tokens: 940 })
      expect(
        await leftAfter((decision) => {
          decision.refund()
          decision.settle({ tokens: 10, requests: 1 })
        }),
      ).toEqual({ requests: 99, tokens: 990 })
    })

    it('counts right after `res.end()`', async () => {
      expect(
        await leftAfter((decision, res) => {
          res.end()
          decision.settle({ tokens: 10 })
        }),
      ).toEqual({ requests: 99, tokens: 990 })
    })

    it('takes a total for what was free at first', async () => {
      const free = [slidingWindow({ name: 'tokens', quota: 1000, window: '1h', cost: 0 })]
      expect(await leftAfter((decision) => decision.settle(120), free)).toEqual({ tokens: 880 })
    })

    it('may leave a debt, which the next request waits out', async () => {
      const bucket = [tokenBucket({ name: 'tokens', quota: 1000, window: '1h', burst: 100 })]
      const limiter = opened(rampmeter({ store: await makeStore(), policies: bucket, deadline }))
      const app = express()
        .use(limiter)
        .get('/', (req, res) => {
          req.rateLimit!.settle(600)
          res.end()
        })
      const served = await serve(app)
      await served.ask('/')
      await limiter.flush()
      const { status, headers } = await served.ask('/')
      expect(status).toBe(429)
      // 501 of 1000 an hour.
      expect(Number(headers['retry-after'])).toBeGreaterThan(1790)
      expect(Number(headers['retry-after'])).toBeLessThanOrEqual(1804)
    })

    it('gives all back with `refund`, from every kind of policy', async () => {
      const kinds = [
        slidingWindow({ name: 'window', quota: 10, window: '1h' }),
        slidingLog({ name: 'log', quota: 10, window: '1h' }),
        tokenBucket({ name: 'bucket', quota: 10, window: '1h' }),
      ]
      expect(await leftAfter((decision) => decision.refund(), kinds)).toEqual({ window: 10, log: 10, bucket: 10 })
    })

    it('corrects the first minutes where they stood in', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          tiers: {
            all: {
              policies: [
                slidingWindow({ name: 'hour', quota: 1, window: '1h' }),
                slidingWindow({ name: 'day', quota: 100, window: '1d' }),
              ],
              initialBurst: { quota: 50, window: '5m' },
            },
          },
          classify: () => 'all',
        }),
      )
      const app = express()
        .use(limiter)
        .get('/', (req, res) => {
          if (req.query['settle'] !== undefined) req.rateLimit!.settle(Number(req.query['settle']))
          res.end()
        })
      const served = await serve(app)
      await served.ask('/')
      await served.ask('/?settle=9')
      await limiter.flush()
      expect(leftOf(await limiter.peek({ ...who, tier: 'all' }))).toEqual({ hour: 0, day: 90, 'first-minutes': 41 })
    })

    it('belongs to the innermost limiter', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
      const app = express().use(limiter)
      let outer: Decision
      app.get(
        '/',
        (req, _res, next) => {
          outer = req.rateLimit!
          outer.settle({ tokens: 900 })
          next()
        },
        limiter.route({ policies: [slidingWindow({ name: 'own', quota: 10, window: '1h', cost: 2 })] }),
        (req, res) => {
          req.rateLimit!.settle({ own: 5, tokens: 70 })
          outer.settle({ tokens: 800 })
          res.end()
        },
      )
      const served = await serve(app)
      await served.ask('/')
      await limiter.flush()
      expect(leftOf(await limiter.peek(who))).toEqual({ requests: 99, tokens: 930 })
      expect(
        leftOf(
          await limiter.decide({
            client: who,
            policies: [slidingWindow({ name: 'own', quota: 10, window: '1h', cost: 0 })],
          }),
        )['own'],
      ).toBe(5)
    })

    it('of two limiters on one app corrects both', async () => {
      const store = await makeStore()
      const first = opened(
        rampmeter({
          store,
          policies: [slidingWindow({ name: 'one', quota: 100, window: '1h' })],
          deadline,
          property: 'one',
        }),
      )
      const second = opened(
        rampmeter({
          store,
          policies: [slidingWindow({ name: 'two', quota: 100, window: '1h' })],
          deadline,
          property: 'two',
        }),
      )
      const app = express()
        .use(first, second)
        .get('/', (req, res) => {
          const decisions = req as unknown as { one: Decision; two: Decision }
          decisions.one.settle(10)
          decisions.two.settle(20)
          res.end()
        })
      const served = await serve(app)
      await served.ask('/')
      await Promise.all([first.flush(), second.flush()])
      expect(leftOf(await first.peek(who))).toEqual({ one: 90 })
      expect(leftOf(await second.peek(who))).toEqual({ two: 80 })
    })

    it('counts although the handler throws after it', async () => {
      for (const version of expressVersions) {
        const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
        const { errors, handler } = keepErrors()
        const app = version
          .express()
          .use(limiter)
          .get('/', (req) => {
            req.rateLimit!.settle({ tokens: 10 })
            throw new Error('after settling')
          })
          .use(handler)
        const served = await serve(app)
        expect((await served.ask('/')).status).toBe(500)
        expect(errors).toHaveLength(1)
        await limiter.flush()
        expect(leftOf(await limiter.peek(who))).toEqual({ requests: 99, tokens: 990 })
      }
    })

    it('counts when the client hangs up, up to then; what comes later changes nothing and is reported once', async () => {
      const warnings = warningsOf('RAMPMETER_LATE_SETTLE')
      const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
      let handled = 0
      const app = express()
        .use(limiter)
        .get('/', (req, res) => {
          req.rateLimit!.settle({ tokens: 200 })
          res.write('some')
          res.on('close', () =>
            setTimeout(() => {
              req.rateLimit!.settle({ tokens: 900 })
              req.rateLimit!.refund()
              handled += 1
            }, 1),
          )
        })
      const served = await serve(app)
      for (const times of [1, 2]) {
        const socket = connect(served.port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'))
        socket.once('data', () => socket.destroy())
        await until(() => handled === times)
      }
      await limiter.flush()
      expect(leftOf(await limiter.peek(who))).toEqual({ requests: 98, tokens: 600 })
      expect(await warnings()).toMatchObject([{ name: 'RampmeterWarning' }])
    })
  })

  describe(`settle of limiter.decide ${name}`, () => {
    it('may be said again: the last total counts', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
      const decision = await limiter.decide({ client: who })
      const steps: Record<string, number>[] = []
      for (const total of [{ tokens: 500 }, { tokens: 80 }, 5, { tokens: 700 }, { tokens: 700 }, 0]) {
        decision.settle(total)
        await limiter.flush()
        steps.push(leftOf(await limiter.peek(who)))
      }
      expect(steps).toEqual([
        { requests: 99, tokens: 500 },
        { requests: 99, tokens: 920 },
        { requests: 95, tokens: 995 },
        { requests: 95, tokens: 300 },
        { requests: 95, tokens: 300 },
        { requests: 100, tokens: 1000 },
      ])
    })

    it('needs no pause between', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
      const decision = await limiter.decide({ client: who })
      for (const tokens of [900, 1, 333, 42]) decision.settle({ tokens })
      await limiter.flush()
      expect(leftOf(await limiter.peek(who))).toEqual({ requests: 99, tokens: 958 })
    })

    it('of a refusal gives nothing back', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies, deadline }))
      const one = await limiter.decide({ client: who, cost: 1 })
      const refused = await limiter.decide({
        client: who,
        policies: [slidingWindow({ name: 'none', quota: 1, window: '1h', cost: 2 })],
      })
      expect(refused.admitted).toBe(false)
      refused.refund()
      refused.settle(50)
      await limiter.flush()
      expect(one.admitted).toBe(true)
      expect(leftOf(await limiter.peek(who))).toEqual({ requests: 99, tokens: 950 })
    })
  })
}

describe('a settled cost', () => {
  it.each([
    Number.NaN,
    -1,
    1.5,
    Infinity,
    '5',
    null,
    undefined,
    5n,
    { tokens: -1 },
    { tokens: '5' },
    { tokens: Number.NaN },
    { tokens: undefined },
  ])('that is none throws in the handler and changes nothing: %s', async (total) => {
    const { errors, handler } = keepErrors()
    const limiter = opened(rampmeter({ policies }))
    const app = express()
      .use(limiter)
      .get('/', (req, res) => {
        req.rateLimit!.settle(total as number)
        res.end()
      })
      .use(handler)
    expect((await (await serve(app)).ask('/')).status).toBe(500)
    expect(errors[0]).toBeInstanceOf(RampmeterError)
    expect(errors).toMatchObject([{ code: 'RAMPMETER_INVALID_COST' }])
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ requests: 99, tokens: 950 })
  })

  it('by a name that is a method of every object is not taken for one', async () => {
    const own = ['constructor', 'other'].map((name) => slidingWindow({ name, quota: 10, window: '1h' }))
    const limiter = opened(rampmeter({ policies: own }))
    const decision = await limiter.decide({ client: who })
    decision.settle({ other: 5 })
    await limiter.flush()
    expect(leftOf(await limiter.peek(who))).toEqual({ constructor: 9, other: 5 })
  })

  it('by a name that no policy has is a mistake, and so is a partition for one', async () => {
    const limiter = opened(rampmeter({ policies: [slidingWindow({ name: 'hour', quota: 10, window: '1h' })] }))
    const decision = await limiter.decide({ client: who })
    const coded = expect.objectContaining({ code: 'RAMPMETER_UNKNOWN_POLICY' }) as Error
    expect(() => decision.settle({ huor: 5 })).toThrow(coded)
    await expect(limiter.decide({ client: who, partitions: { huor: 'x' } })).rejects.toEqual(coded)
    expect(leftOf(await limiter.peek(who))).toEqual({ hour: 9 })
  })

  it('is settled by methods that JSON does not show', async () => {
    const limiter = opened(rampmeter())
    const app = express()
      .use(limiter)
      .get('/', (req, res) => {
        res.json(req.rateLimit)
      })
    const { json } = await (await serve(app)).ask('/')
    expect(Object.keys(json).sort()).toEqual(
      ['admitted', 'client', 'degraded', 'enforced', 'limits', 'retryAfterMs', 'retryEstimated', 'violated'].sort(),
    )
  })
})
