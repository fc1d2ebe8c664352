// A sliding log that is longer than what a refusal looks at: both stores must see the same part of it, and what is told be true.

import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Charge, Charged, StoreDecision } from '../../src/stores/store.ts'
import { ask, memoryStage, minuteUs, redisStage, type TimedStore } from '../promises/histories.ts'

let onRedis: Awaited<ReturnType<typeof redisStage>>
const inMemory = memoryStage()
beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

const windowUs = 10 * minuteUs
const seen = 1024

/** A log of a little more than a refusal looks at, whose entries count 1 to 3 each, full to its last one. */
async function fill(
  both: readonly TimedStore[],
  entries: number,
  seed: number,
): Promise<{ log: Charge; made: Charged[] }> {
  const costs = Array.from({ length: entries }, (_, nth) => 1 + ((nth * seed) % 3))
  const quota = costs.reduce((sum, cost) => sum + cost)
  const log: Charge = {
    kind: 'sliding-log',
    stateId: 7,
    partition: 'key:one',
    windowUs,
    quota,
    capacity: quota,
    cost: 1,
    liftable: false,
    shadow: false,
  }
  const made: Charged[] = []
  for (const [nth, cost] of costs.entries()) {
    for (const one of both) one.advanceUs(1000 + ((nth * 7919 * seed) % 100_000))
    const charge = { ...log, cost }
    const decisions = await Promise.all(both.map((one) => one.store.decide(ask([charge]))))
    if (!decisions[0]!.admitted) throw new Error('the log was full too early')
    made.push({ charge, cost, chargedAtUs: decisions[0]!.nowUs })
  }
  return { log, made }
}

const someEvent = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ does: fc.constant('ask' as const), cost: fc.constantFrom<number>(1, 2, 5, 40, 900, 2000) }),
  },
  { weight: 2, arbitrary: fc.record({ does: fc.constant('herd' as const), size: fc.integer({ min: 2, max: 30 }) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant('wait' as const), permille: fc.nat(400) }) },
  { weight: 2, arbitrary: fc.record({ does: fc.constant('give back' as const), permille: fc.nat(999) }) },
)

/** Of a log whose entries count 1 each: the last of what is looked at, and the first that is not. */
const atTheEdge = [seen - 1, seen, seen + 1].map((cost) => ({ does: 'ask' as const, cost }))

it('answers the same on both, however long it is', async () => {
  const some = fc.record({
    entries: fc.integer({ min: seen - 2, max: seen + 200 }),
    seed: fc.integer({ min: 1, max: 50 }),
    events: fc.array(someEvent, { minLength: 10, maxLength: 40, size: 'max' }),
  })
  await fc.assert(
    fc.asyncProperty(some, async ({ entries, seed, events }) => {
      const both = [inMemory.fresh(), onRedis.fresh()] as const
      const { log, made } = await fill(both, entries, seed)
      const decide = async (cost: number): Promise<StoreDecision> => {
        const [expected, answered] = await Promise.all(both.map((one) => one.store.decide(ask([{ ...log, cost }]))))
        expect(answered).toEqual(expected)
        return expected!
      }
      for (const event of events) {
        if (event.does === 'ask') await decide(event.cost)
        else if (event.does === 'herd') for (let nth = 0; nth < event.size; nth += 1) await decide(1)
        else if (event.does === 'wait') {
          for (const one of both) one.advanceUs(Math.floor((windowUs * event.permille) / 5000))
        } else {
          const [charged] = made.splice(Math.floor((made.length * event.permille) / 1000), 1)
          for (const one of both) await one.store.settle([{ charged: charged!, by: -charged!.cost }])
        }
      }
    }),
    { ...onRedis.runs(40), examples: [[{ entries: seen + 50, seed: 0, events: atTheEdge }]] },
  )
})

it('tells a wait that is true, and to the microsecond where it lies within what is looked at', async () => {
  const both = [inMemory.fresh()]
  const { log, made } = await fill(both, seen + 500, 0)
  const [one] = both
  const begun = one!.timeUs()
  const within = { ...log, cost: seen }
  const exact = await one!.store.decide({ charges: [within], undo: [], commit: false })
  expect(begun + exact.retryAfterUs!).toBe(made[seen - 1]!.chargedAtUs + windowUs)

  const beyond = { ...log, cost: seen + 1 }
  const later = await one!.store.decide({ charges: [beyond], undo: [], commit: false })
  expect(begun + later.retryAfterUs!).toBe(made.at(-1)!.chargedAtUs + windowUs)
  one!.setTimeUs(begun + later.retryAfterUs!)
  expect((await one!.store.decide(ask([beyond]))).admitted).toBe(true)
})
