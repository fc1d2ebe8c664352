// Quotas that a multiplier moves between any two requests: nothing is minted, what was used stays used, and what is said to be
// refused by the cut alone is. Random histories, on both stores.

import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Charge } from '../../src/stores/store.ts'
import {
  ask,
  chargesOf,
  costOf,
  limitOf,
  memoryStage,
  mixOf,
  mixWithExtra,
  onBothStores,
  pauseUs,
  redisStage,
  refillingKinds,
  someStep,
  smallStep,
  type Limit,
} from './histories.ts'
import { ExactBucket, usedInLastWindow, usedInOwnWindow, type Use } from './uses.ts'

const someMultiplier = fc.constantFrom(0.25, 0.5, 0.5, 0.75, 1, 1, 1.5)

const steps = fc.array(fc.record({ step: fc.oneof(someStep, smallStep), multiplier: someMultiplier }), {
  minLength: 1,
  maxLength: 50,
  size: 'max',
})

/** As pricing does it. */
function under(limit: Limit, multiplier: number): Limit {
  if (multiplier === 1) return limit
  const scaled = (amount: number): number => Math.min(1e12, Math.max(1, Math.floor(amount * multiplier + 1e-9)))
  const isExtra = limit.kind === 'first-minutes'
  return {
    ...limit,
    quota: isExtra && multiplier > 1 ? limit.quota : scaled(limit.quota),
    capacity: isExtra ? limit.capacity : scaled(limit.capacity),
    base: multiplier < 1 ? { quota: limit.quota, capacity: limit.capacity } : undefined,
  }
}

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: a multiplier that moves mints nothing, and only what it refuses is said to be its`, async () => {
      await fc.assert(
        fc.asyncProperty(limitOf([kind]), steps, async (whole, steps) => {
          const timed = stage.fresh()
          const bucket = new ExactBucket(whole.quota)
          const uses: Use[] = []
          let exact = kind !== 'sliding-window'
          for (const { step, multiplier } of steps) {
            timed.advanceUs(pauseUs(step.pause, [whole]))
            const limit = under(whole, multiplier)
            const charge: Charge = { ...limit, cost: costOf(step.asks[0]!, whole) }
            const nowUs = timed.timeUs()
            if (kind === 'token-bucket') {
              if (Math.max(whole.quota * 1.5, whole.capacity * 1.5) * whole.windowUs > 2 ** 49) exact = false
              bucket.touch(limit.quota, nowUs)
            }
            const fits = (one: Limit): boolean => {
              if (charge.cost === 0) return true
              if (kind === 'token-bucket') return bucket.fits(one, charge.cost, nowUs)
              const used = kind === 'fixed-window' ? usedInOwnWindow : usedInLastWindow
              return used(one, uses, nowUs) + charge.cost <= one.quota
            }
            const { admitted, onlyCut = false } = await timed.store.decide(ask([charge]))
            if (exact) expect(admitted).toBe(fits(limit))
            else if (admitted) expect(fits(limit)).toBe(true)
            if (exact) expect(onlyCut).toBe(!admitted && multiplier < 1 && fits(whole))
            else if (onlyCut) expect(multiplier < 1 && fits(whole)).toBe(true)
            if (admitted && charge.cost > 0) {
              bucket.charge(charge, charge.cost, nowUs)
              uses.push({ atUs: nowUs, amount: charge.cost, request: uses.length })
            }
          }
        }),
        stage.runs(400),
      )
    })
  }

  it('what the multiplier is moved to and back between two requests leaves no trace but what did not refill', async () => {
    await fc.assert(
      fc.asyncProperty(mixOf(['sliding-log', 'sliding-window', 'fixed-window'], 3), steps, async (limits, steps) => {
        const play = async (moves: boolean): Promise<unknown[]> => {
          const timed = stage.fresh()
          const answers: unknown[] = []
          for (const { step, multiplier } of steps) {
            timed.advanceUs(pauseUs(step.pause, limits))
            if (moves) {
              const looked = limits.map((limit) => ({ ...under(limit, multiplier), cost: 0 }))
              await timed.store.decide(ask(looked))
            }
            const { admitted, outcomes } = await timed.store.decide(ask(chargesOf(step, limits)))
            answers.push(admitted, ...outcomes.map(({ remaining }) => remaining))
          }
          return answers
        }
        expect(await play(true)).toEqual(await play(false))
      }),
      stage.runs(150),
    )
  })
})

const inMemory = memoryStage()
let onRedis: Awaited<ReturnType<typeof redisStage>>
beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

it('both stores answer the same under a multiplier that moves, the first minutes’ extra cut too', async () => {
  let cuts = 0
  await fc.assert(
    fc.asyncProperty(fc.oneof(mixOf(), mixWithExtra()), steps, async (limits, steps) => {
      const both = [inMemory.fresh(), onRedis.fresh()] as const
      for (const { step, multiplier } of steps) {
        for (const one of both) one.advanceUs(pauseUs(step.pause, limits))
        const charges = chargesOf(step, limits).map((charge) => ({ ...under(charge, multiplier), cost: charge.cost }))
        const [expected, answered] = [
          await both[0].store.decide(ask(charges)),
          await both[1].store.decide(ask(charges)),
        ]
        expect(answered).toEqual(expected)
        if (expected.onlyCut) cuts += 1
      }
    }),
    onRedis.runs(1500),
  )
  expect(cuts).toBeGreaterThan(20)
})
