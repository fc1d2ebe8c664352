import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenStore, Store } from '../../src/stores/store.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { describeStore, manualClock, type StoreMaker } from '../../src/testing/index.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'

describeStore(
  'memoryStore',
  () => {
    const clock = manualClock()
    return {
      store: memoryStore({ now: clock }),
      advance(ms) {
        clock.advance(ms)
      },
    }
  },
  { describe, it },
)

describe('on Redis', () => {
  let server: RedisWithClock
  let redis: Redis

  beforeAll(async () => {
    server = await startRedisWithClock()
    redis = new Redis(server.url)
  })

  afterAll(async () => {
    await redis.quit()
    await server.stop()
  })

  describeStore(
    'redisStore',
    () => ({ store: redisStore(redis, { rememberRefusals: false }), advance: (ms) => server.advanceUs(ms * 1000) }),
    {
      describe,
      it,
    },
  )
})

interface Declared {
  title: string
  run: (context?: unknown) => Promise<void>
}

/** What describeStore declares, instead of handing it to a test runner. */
function declared(makeStore: StoreMaker): Declared[] {
  const tests: Declared[] = []
  describeStore('store', makeStore, {
    describe: (_, body) => body(),
    it: (title, run) => tests.push({ title, run }),
  })
  return tests
}

/** Declares the suite for a memory store of which one thing is wrong, and returns the titles of the tests that fail. */
async function failuresOf(wrong: (open: OpenStore) => Partial<OpenStore>): Promise<string[]> {
  const tests = declared(() => {
    const clock = manualClock()
    const inner = memoryStore({ now: clock })
    const store: Store = {
      open(settings) {
        const handle = inner.open(settings)
        return { ...handle, ...wrong(handle) }
      },
    }
    return { store, advance: (ms) => void clock.advance(ms) }
  })
  const failures: string[] = []
  for (const { title, run } of tests) await run().catch(() => failures.push(title))
  return failures
}

describe('describeStore', () => {
  it('passes the memory store as this file wraps it', async () => {
    expect(await failuresOf(() => ({}))).toEqual([])
  })

  it.each<[string, (open: OpenStore) => Partial<OpenStore>, RegExp]>([
    [
      'charges what it refuses',
      (open) => ({
        async decide(request) {
          const decision = await open.decide(request)
          const charged = { cost: 0, chargedAtUs: decision.nowUs }
          if (!decision.admitted && request.commit) {
            await open.settle(request.charges.map((charge) => ({ charged: { charge, ...charged }, by: charge.cost })))
          }
          return decision
        },
      }),
      /not charged by what it refuses/,
    ],
    [
      'decides each policy by itself',
      (open) => ({
        async decide(request) {
          const each = []
          for (const charge of request.charges) each.push(await open.decide({ ...request, charges: [charge] }))
          const whole = await open.decide({ ...request, commit: false })
          return { ...whole, admitted: each.every((one) => one.admitted) }
        },
      }),
      /charges none when one policy refuses/,
    ],
    [
      'charges when it looks',
      (open) => ({ decide: (request) => open.decide({ ...request, commit: true }) }),
      /looks without/,
    ],
    [
      'undoes nothing',
      (open) => ({ decide: (request) => open.decide({ ...request, undo: [] }) }),
      /gives back what is undone/,
    ],
    ['settles nothing', () => ({ settle: async () => {} }), /settles up/],
    ['resets nothing', () => ({ reset: async () => {} }), /reset forgets/],
    ['outlives its closing', () => ({ close: async () => {} }), /nobody after the last/],
    [
      'takes partitions that differ in case for one',
      (open) => ({
        decide: (request) =>
          open.decide({
            ...request,
            charges: request.charges.map((charge) => ({ ...charge, partition: charge.partition.toLowerCase() })),
          }),
      }),
      /counts for each partition on its own/,
    ],
    [
      'tells a second too late',
      (open) => ({
        async decide(request) {
          const decision = await open.decide(request)
          return { ...decision, retryAfterUs: decision.retryAfterUs && decision.retryAfterUs + 1_000_000 }
        },
      }),
      /admitted when told, and refused a millisecond earlier/,
    ],
    [
      'tells a millisecond too early',
      (open) => ({
        async decide(request) {
          const decision = await open.decide(request)
          return { ...decision, retryAfterUs: decision.retryAfterUs && Math.max(1, decision.retryAfterUs - 1000) }
        },
      }),
      /admitted when told, and refused a millisecond earlier/,
    ],
    [
      'reads and writes in two steps',
      (open) => ({
        async decide(request) {
          const seen = await open.decide({ ...request, commit: false })
          await new Promise((resolve) => setImmediate(resolve))
          const charged = { chargedAtUs: seen.nowUs, cost: 0 }
          if (seen.admitted && request.commit) {
            await open.settle(request.charges.map((charge) => ({ charged: { charge, ...charged }, by: charge.cost })))
          }
          return seen
        },
      }),
      /under 50 at once/,
    ],
  ])('fails a store that %s', async (_, wrong, expected) => {
    const failures = await failuresOf(wrong)
    expect(failures.filter((title) => expected.test(title))).not.toEqual([])
  })

  it('runs what needs no clock on a plain store, on the real clock, and skips the rest', async () => {
    const skipped: string[] = []
    for (const { title, run } of declared(() => memoryStore())) await run({ skip: () => skipped.push(title) })
    const all = declared(() => memoryStore()).map(({ title }) => title)
    expect(skipped.length).toBeGreaterThan(30)
    expect(all.length - skipped.length).toBeGreaterThan(50)
    expect(skipped).toContain('answers random histories as the memory store does, to the microsecond')
  })

  it('stops what a maker started, after a test that fails too', async () => {
    let running = 0
    const tests = declared(() => {
      running += 1
      const clock = manualClock()
      return {
        store: memoryStore({ now: clock }),
        // Turns nothing: what needs a clock fails.
        advance() {},
        stop() {
          running -= 1
        },
      }
    })
    const results = await Promise.allSettled(tests.map(({ run }) => run()))
    expect(new Set(results.map((result) => result.status))).toEqual(new Set(['fulfilled', 'rejected']))
    expect(running).toBe(0)
  })
})
