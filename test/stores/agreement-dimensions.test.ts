// What is counted by name, afterwards, by the calendar or for a pool is counted alike by both stores.

import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { chargedBy } from '../../src/stores/guard.ts'
import type { Charge, Charged, Correction, DecisionRequest, StoreDecision } from '../../src/stores/store.ts'
import {
  claim,
  claimOfPool,
  sharedPool,
  someDimensions,
  someWish,
  turningPoints,
  type Dimension,
  type Wish,
} from '../promises/dimensions.ts'
import { ask, dayUs, memoryStage, redisStage } from '../promises/histories.ts'

let onRedis: Awaited<ReturnType<typeof redisStage>>
const inMemory = memoryStage()

beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

type Event =
  | {
      does: 'request'
      wishes: readonly Wish[]
      pause: Pause
      looks: boolean
      undoes: number
      tier: number
      cost: number
    }
  | { does: 'settle' | 'release' | 'renew'; whose: number; by: number; times: number }
  | { does: 'change'; whose: number; quota: number }
  | { does: 'reset'; whose: number }
  | { does: 'step back'; permille: number; days: number }
  | { does: 'turn'; point: number; beforeUs: number }

interface Pause {
  readonly whose: number
  readonly permille: number
  readonly us: number
}

const somePause: fc.Arbitrary<Pause> = fc.record({
  whose: fc.nat(2),
  permille: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(150), fc.nat(1200), fc.constant(1000)),
  us: fc.oneof(fc.constant(0), fc.nat(2500)),
})

const someEvent: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      does: fc.constant('request' as const),
      wishes: fc.array(someWish, { minLength: 3, maxLength: 3 }),
      pause: somePause,
      looks: fc.nat(7).map((chance) => chance === 0),
      undoes: fc.nat(40),
      tier: fc.nat(2),
      cost: fc.nat(6),
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      does: fc.constantFrom('settle' as const, 'release' as const, 'renew' as const),
      whose: fc.nat(5),
      by: fc.integer({ min: -3, max: 5 }),
      times: fc.integer({ min: 1, max: 2 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ does: fc.constant('change' as const), whose: fc.nat(2), quota: fc.nat(8) }),
  },
  { weight: 1, arbitrary: fc.record({ does: fc.constant('reset' as const), whose: fc.nat(2) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('step back' as const),
      permille: fc.nat(3000),
      days: fc.oneof(fc.constant(0), fc.nat(40)),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      does: fc.constant('turn' as const),
      point: fc.nat(turningPoints.length - 1),
      beforeUs: fc.oneof(fc.constant(0), fc.constant(1), fc.nat(2_000_000)),
    }),
  },
)

const someEvents = fc.array(someEvent, { minLength: 1, maxLength: 60, size: 'max' })

/** Plays the same to both, with `claims` as what a request charges. */
async function agree(
  events: readonly Event[],
  dimensions: readonly Dimension[],
  claims: (event: Event & { does: 'request' }, dimensions: readonly Dimension[], number: number) => Charge[],
): Promise<void> {
  const both = [inMemory.fresh(), onRedis.fresh()] as const
  let current = dimensions
  const made: Charged[] = []
  let number = 0

  const decide = async (request: DecisionRequest): Promise<StoreDecision> => {
    const [expected, answered] = [await both[0].store.decide(request), await both[1].store.decide(request)]
    expect(answered).toEqual(expected)
    return answered
  }
  const windowOf = (whose: number): number => current[whose % current.length]!.limit.windowUs
  const advance = (us: number): void => {
    for (const one of both) one.advanceUs(us)
  }

  for (const event of events) {
    switch (event.does) {
      case 'request': {
        number += 1
        advance(Math.floor((windowOf(event.pause.whose) * event.pause.permille) / 1000) + event.pause.us)
        const undo = made.splice(event.undoes, 2).filter(({ cost }) => cost > 0)
        const request = { charges: claims(event, current, number), undo, commit: !event.looks }
        made.push(...chargedBy(request, await decide(request)))
        break
      }
      case 'settle':
      case 'release':
      case 'renew': {
        const corrections: Correction[] = []
        for (let times = 0; times < event.times; times += 1) {
          const index = event.whose + times
          const charged = made[index]
          if (charged === undefined) continue
          const isSlot = charged.charge.kind === 'concurrency'
          if (event.does === 'settle') {
            const by = isSlot ? -charged.cost : Math.max(event.by, -charged.cost)
            corrections.push({ charged, does: 'correct', by })
            made[index] = { ...charged, cost: charged.cost + by }
          } else if (isSlot) {
            corrections.push({ charged, does: event.does, by: 0 })
          }
        }
        for (const one of both) await one.store.settle(corrections)
        break
      }
      case 'change':
        current = current.map((one, index) =>
          index === event.whose ? { ...one, limit: { ...one.limit, quota: event.quota, capacity: event.quota } } : one,
        )
        break
      case 'reset': {
        const { partition } = current[event.whose % current.length]!.limit
        for (const one of both)
          await one.store.reset(
            partition,
            current.map(({ limit }) => limit.stateId),
          )
        break
      }
      case 'step back':
        // What has expired by now must not be back when the clock is: a request in each partition clears it away.
        for (const one of both) await one.store.decide(ask(['key:one', 'ip:two', '@pool:shared'].map(passerBy)))
        advance(-Math.floor((windowOf(0) * event.permille) / 1000) - event.days * dayUs)
        break
      case 'turn': {
        const to = turningPoints[event.point]! - event.beforeUs
        if (to > both[0].timeUs()) for (const one of both) one.setTimeUs(to)
      }
    }
  }
}

function passerBy(partition: string): Charge {
  const limit = { quota: 1e9, capacity: 1e9, windowUs: 1000, cost: 1, liftable: false, shadow: false }
  return { ...limit, kind: 'fixed-window', stateId: 1, partition }
}

it('slots, targets, failures, amounts charged afterwards and calendar quotas: the same on both, to the microsecond', async () => {
  await fc.assert(
    fc.asyncProperty(someDimensions, someEvents, (dimensions, events) =>
      agree(events, dimensions, ({ wishes }, current, number) =>
        current.map((dimension, index) => claim(dimension, wishes[index]!, number)),
      ),
    ),
    onRedis.runs(600),
  )
})

it('pools of two and three tiers, beside another limit: the same on both, to the microsecond', async () => {
  const scene = fc.record({ pool: sharedPool(), others: someDimensions })
  await fc.assert(
    fc.asyncProperty(scene, someEvents, ({ pool, others }, events) => {
      // The first one's window is the pool's: pauses are told in it.
      const clock: Dimension = {
        limit: { ...pool.tiers[0]![0], stateId: 7, partition: 'key:one', quota: 5, capacity: 5 },
      }
      const { role: _, seating: __, ...limit } = clock.limit
      return agree(events, [{ limit }, ...others.slice(0, 1)], ({ wishes, tier, cost }, current, number) => [
        ...(cost % 2 === 0 ? current.map((dimension, index) => claim(dimension, wishes[index]!, number)) : []),
        ...claimOfPool(pool.tiers[tier % pool.tiers.length]!, cost),
      ])
    }),
    onRedis.runs(400),
  )
})
