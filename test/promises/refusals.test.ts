import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Charge, StoreDecision } from '../../src/stores/store.ts'
import {
  ask,
  chargesOf,
  minuteUs,
  mixOf,
  mixWithExtra,
  onBothStores,
  pauseUs,
  stepsOf,
  type Limit,
  type Step,
  type TimedStore,
} from './histories.ts'

onBothStores((stage) => {
  it('a refused request never moves admission: without those refused, all others are answered the same', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(mixOf(), mixWithExtra()), stepsOf(40), async (limits, steps) => {
        const all = await play(stage.fresh(), limits, steps)
        const again = stage.fresh()
        for (const { atUs, charges, decision } of all.filter((one) => one.decision.admitted)) {
          again.setTimeUs(atUs)
          expect(await again.store.decide(ask(charges))).toEqual(decision)
        }
      }),
      stage.runs(500),
    )
  })

  it('refused early retries postpone nobody: the moment told first stays true, and each is told one within reach', async () => {
    const retries = fc.array(fc.nat(999), { minLength: 1, maxLength: 6 })
    await fc.assert(
      fc.asyncProperty(mixOf(), stepsOf(25), retries, async (limits, steps, early) => {
        const timed = stage.fresh()
        for (const step of steps) {
          timed.advanceUs(pauseUs(step.pause, limits))
          const charges = chargesOf(step, limits)
          const first = await timed.store.decide(ask(charges))
          if (first.admitted) continue
          const toldUs = first.nowUs + first.retryAfterUs!
          const latestUs = toldUs + Math.max(minuteUs, 4 * Math.max(...charges.map(({ windowUs }) => windowUs)))
          const moments = early.map((permille) => first.nowUs + Math.floor((first.retryAfterUs! * permille) / 1000))
          for (const atUs of moments.sort((one, other) => one - other)) {
            timed.setTimeUs(atUs)
            // Told later than alone, since others wait, it may find room: then it is a newcomer.
            if ((await timed.store.decide(ask(charges, false))).admitted) continue
            const again = await timed.store.decide(ask(charges))
            expect(again.admitted).toBe(false)
            expect(again.nowUs + again.retryAfterUs!).toBeLessThanOrEqual(latestUs)
          }
          timed.setTimeUs(toldUs)
          expect((await timed.store.decide(ask(charges))).admitted).toBe(true)
        }
      }),
      stage.runs(200),
    )
  })

  it('a look changes nothing, whatever it would undo', async () => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(mixOf(), mixWithExtra()), stepsOf(25), async (limits, steps) => {
        const looked = stage.fresh()
        const startUs = looked.timeUs()
        const answers: StoreDecision[] = []
        for (const step of steps) {
          looked.advanceUs(pauseUs(step.pause, limits))
          const charges = chargesOf(step, limits)
          const undo = charges.map((charge) => ({ charge, cost: charge.cost, chargedAtUs: looked.timeUs() }))
          for (let times = 0; times < 2; times += 1) await looked.store.decide({ charges, undo, commit: false })
          answers.push(await looked.store.decide(ask(charges)))
        }
        const plain = stage.fresh()
        plain.setTimeUs(startUs)
        expect((await play(plain, limits, steps)).map((one) => one.decision)).toEqual(answers)
      }),
      stage.runs(150),
    )
  })
})

interface Played {
  atUs: number
  charges: Charge[]
  decision: StoreDecision
}

async function play(timed: TimedStore, limits: readonly Limit[], steps: readonly Step[]): Promise<Played[]> {
  const played: Played[] = []
  for (const step of steps) {
    timed.advanceUs(pauseUs(step.pause, limits))
    const charges = chargesOf(step, limits)
    played.push({ atUs: timed.timeUs(), charges, decision: await timed.store.decide(ask(charges)) })
  }
  return played
}
