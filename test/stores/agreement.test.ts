// The memory store and Redis run the same arithmetic, each in its own language: random histories are played to both.

import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Charge, Charged, DecisionRequest, StoreDecision } from '../../src/stores/store.ts'
import {
  ask,
  chargesOf,
  costOf,
  dayUs,
  limitOf,
  madeBy,
  memoryStage,
  minuteUs,
  mixOf,
  mixWithExtra,
  onBothStores,
  pauseUs,
  redisStage,
  refillingKinds,
  someQuota,
  smallStep,
  someStep,
  stepsOf,
  type Limit,
  type Step,
} from '../promises/histories.ts'

let onRedis: Awaited<ReturnType<typeof redisStage>>
const inMemory = memoryStage()

beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

/** One thing that happens. */
type Event =
  | { does: 'request'; step: Step; looks: boolean; undoes: number }
  | { does: 'settle'; whose: number; permille: number }
  | { does: 'change'; whose: number; quota: number; burst: number }
  | { does: 'reset'; whose: number }
  | { does: 'step back'; whose: number; permille: number; days: number }

function requestWith(step: fc.Arbitrary<Step>): fc.Arbitrary<Event> {
  return fc.record({
    does: fc.constant('request' as const),
    step,
    looks: fc.nat(7).map((chance) => chance === 0),
    undoes: fc.nat(40),
  })
}

const someEvent: fc.Arbitrary<Event> = fc.oneof(
  { weight: 12, arbitrary: requestWith(someStep) },
  {
    weight: 4,
    arbitrary: fc.record({ does: fc.constant('settle' as const), whose: fc.nat(9), permille: fc.nat(3000) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('change' as const),
      whose: fc.nat(3),
      quota: fc.oneof({ weight: 5, arbitrary: someQuota }, fc.constant(0)),
      burst: someQuota,
    }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constant('reset' as const), whose: fc.nat(3) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('step back' as const),
      whose: fc.nat(3),
      permille: fc.nat(3000),
      days: fc.oneof(fc.constant(0), fc.nat(20)),
    }),
  },
)

const someEvents = fc.oneof(
  fc.array(someEvent, { minLength: 1, maxLength: 60, size: 'max' }),
  // Many small requests in a window, and now and then something else.
  fc.array(fc.oneof({ weight: 12, arbitrary: requestWith(smallStep) }, { weight: 1, arbitrary: someEvent }), {
    minLength: 1,
    maxLength: 100,
    size: 'max',
  }),
)

const someLimits = fc
  .tuple(fc.oneof(mixOf(), mixWithExtra()), fc.nat(15))
  .map(([limits, shadows]) =>
    limits.map((limit, index) =>
      limit.kind === 'first-minutes' || limit.liftable ? limit : { ...limit, shadow: ((shadows >> index) & 3) === 3 },
    ),
  )

it('answers the same on both, to the microsecond, whatever happens', async () => {
  await fc.assert(
    fc.asyncProperty(someLimits, someEvents, async (limits, events) => {
      const both = [inMemory.fresh(), onRedis.fresh()] as const
      let current = limits
      const made: Charged[] = []

      const decide = async (request: DecisionRequest): Promise<StoreDecision> => {
        const [expected, answered] = [await both[0].store.decide(request), await both[1].store.decide(request)]
        expect(answered).toEqual(expected)
        return answered
      }

      for (const event of events) {
        if (event.does === 'request') {
          for (const one of both) one.advanceUs(pauseUs(event.step.pause, current))
          const charges = chargesOf(event.step, current)
          const undo = made.splice(event.undoes, 2)
          const decision = await decide({ charges, undo, commit: !event.looks })
          if (event.looks) continue
          for (const charge of madeBy(charges, decision)) {
            made.push({ charge, cost: charge.cost, chargedAtUs: decision.nowUs })
          }
        } else if (event.does === 'settle') {
          const charged = made[event.whose]
          if (!charged) continue
          const by = Math.floor((charged.cost * event.permille) / 1000) - charged.cost
          for (const one of both) await one.store.settle([{ charged, by }])
          made[event.whose] = { ...charged, cost: charged.cost + by }
        } else if (event.does === 'change') {
          const { whose, quota, burst } = event
          current = current.map((limit, index) => (index === whose ? withQuota(limit, quota, burst) : limit))
        } else if (event.does === 'reset') {
          const { partition } = current[event.whose % current.length]!
          const logs = current.filter(({ kind }) => kind === 'sliding-log').map(({ stateId }) => stateId)
          for (const one of both) await one.store.reset(partition, logs)
        } else {
          for (const one of both) {
            // What has expired by now must not be back when the clock is: a request in each partition clears it away.
            await one.store.decide(ask(['key:one', 'ip:two'].map(passerBy)))
            one.advanceUs(-pauseUs({ ...event, us: 0 }, current) - event.days * dayUs)
          }
        }
      }
    }),
    onRedis.runs(1500),
  )
})

function withQuota(limit: Limit, quota: number, burst: number): Limit {
  if (limit.kind === 'first-minutes') return { ...limit, quota }
  return { ...limit, quota, capacity: limit.kind === 'token-bucket' ? burst : quota }
}

function passerBy(partition: string): Charge {
  const limit = { quota: 1e9, capacity: 1e9, windowUs: 1000, cost: 1, liftable: false, shadow: false }
  return { ...limit, kind: 'fixed-window', stateId: 1, partition }
}

it('answers the same under many policies of one partition that come and go', async () => {
  const crowd = fc.array(limitOf(), { minLength: 20, maxLength: 20 })
  await fc.assert(
    fc.asyncProperty(crowd, stepsOf(40), async (crowd, steps) => {
      const limits = crowd.map((limit, index) => ({ ...limit, stateId: index * 214_748_364, partition: 'key:one' }))
      const both = [inMemory.fresh(), onRedis.fresh()] as const
      for (const [number, step] of steps.entries()) {
        const some = limits.filter((_, index) => (index * 7 + number * 3 + step.applying) % 5 === 0)
        const charges = some.map((limit, index): Charge => ({ ...limit, cost: costOf(step.asks[index % 4]!, limit) }))
        for (const one of both) one.advanceUs(pauseUs(step.pause, some))
        expect(await both[1].store.decide(ask(charges))).toEqual(await both[0].store.decide(ask(charges)))
      }
    }),
    onRedis.runs(200),
  )
})

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: a clock that stepped forward by days and back again locks nobody out`, async () => {
      const jump = fc.record({ before: stepsOf(8), during: stepsOf(8), windows: fc.integer({ min: 1100, max: 5000 }) })
      await fc.assert(
        fc.asyncProperty(mixOf([kind], 2), jump, async (limits, { before, during, windows }) => {
          const timed = stage.fresh()
          const play = async (steps: Step[]): Promise<void> => {
            for (const step of steps) {
              timed.advanceUs(pauseUs({ ...step.pause, permille: Math.min(step.pause.permille, 100) }, limits))
              await timed.store.decide(ask(chargesOf(step, limits)))
            }
          }
          await play(before)
          const rightUs = timed.timeUs()
          timed.advanceUs(Math.max(...limits.map((limit) => Math.ceil((limit.windowUs * windows) / 1000) + dayUs)))
          await play(during)
          timed.setTimeUs(rightUs)
          const full = limits.map((limit) => ({ ...limit, cost: limit.capacity }))
          const { admitted, retryAfterUs } = await timed.store.decide(ask(full))
          // What refills a bucket is its whole burst, at the longest.
          const longest = limits.map(({ kind, windowUs, capacity, quota }) =>
            kind === 'token-bucket' ? Math.max(windowUs, Math.ceil((capacity * windowUs) / quota) * 1.02) : windowUs,
          )
          // Those who were told a time before the clock jumped may still come at it.
          const reachUs = Math.max(minuteUs, 4 * Math.max(...limits.map(({ windowUs }) => windowUs)))
          expect(retryAfterUs).toBeLessThanOrEqual(Math.max(...longest) + reachUs + 1000)
          timed.advanceUs(Math.ceil(retryAfterUs! / 1000) * 1000)
          if (!admitted) expect((await timed.store.decide(ask(full))).admitted).toBe(true)
        }),
        stage.runs(150),
      )
    })
  }
})

it('plays to a store of its own: what others wrote before is not there', async () => {
  const partition = randomUUID()
  for (const stage of [inMemory, onRedis]) {
    for (let times = 0; times < 2; times += 1) {
      const { store } = stage.fresh()
      const { outcomes } = await store.decide(ask([{ ...passerBy(partition), quota: 1, capacity: 1 }]))
      expect(outcomes[0]!.remaining).toBe(0)
    }
  }
})
