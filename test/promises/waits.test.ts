import fc from 'fast-check'
import { expect, it } from 'vitest'
import {
  ask,
  chargesOf,
  mixOf,
  mixWithExtra,
  msUs,
  onBothStores,
  pauseUs,
  refillingKinds,
  refusals,
  secondUs,
  stepsOf,
  toldUs,
  type Limit,
  type Step,
  type TimedStore,
} from './histories.ts'

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: what is refused is admitted when told, and not a millisecond earlier`, async () => {
      await fc.assert(
        fc.asyncProperty(mixOf([kind], 2), stepsOf(25), (limits, steps) => keepsWaits(stage.fresh(), limits, steps)),
        stage.runs(300),
      )
    })
  }

  it('mixes of policies: what is refused is admitted when told, and not a millisecond earlier', async () => {
    await fc.assert(
      fc.asyncProperty(mixOf(), stepsOf(25), (limits, steps) => keepsWaits(stage.fresh(), limits, steps)),
      stage.runs(600),
    )
  })

  it('with first minutes: what is refused is admitted when told, and not a millisecond earlier', async () => {
    await fc.assert(
      fc.asyncProperty(mixWithExtra(), stepsOf(25), (limits, steps) => keepsWaits(stage.fresh(), limits, steps)),
      stage.runs(600),
    )
  })

  it('a cost above what a policy can ever hold is told never, whatever else would refuse', async () => {
    const overstep = fc.record({
      limits: mixOf(),
      steps: stepsOf(8),
      whose: fc.nat(3),
      over: fc.constantFrom(1, 2, 1e9),
    })
    await fc.assert(
      fc.asyncProperty(overstep, async ({ limits, steps, whose, over }) => {
        const timed = stage.fresh()
        for (const step of steps) {
          timed.advanceUs(pauseUs(step.pause, limits))
          await timed.store.decide(ask(chargesOf(step, limits)))
        }
        const chosen = whose % limits.length
        const charges = limits.map((limit, index) => ({ ...limit, cost: index === chosen ? limit.capacity + over : 1 }))
        const { admitted, retryAfterUs, outcomes } = await timed.store.decide(ask(charges))
        expect(admitted).toBe(false)
        expect(retryAfterUs).toBe(null)
        expect(outcomes[chosen]).toMatchObject({ verdict: 'refused', waitUs: null })
        const others = outcomes.filter((_, index) => index !== chosen)
        for (const { waitUs } of others) expect(waitUs).not.toBe(null)
      }),
      stage.runs(200),
    )
  })
})

/**
 * Plays a history; whoever is refused and patient looks a millisecond before their time, and comes at it. Those who were told a
 * time and did not come are waited for until a second after it: while they are, others may be told later than they would be alone.
 */
async function keepsWaits(timed: TimedStore, limits: readonly Limit[], steps: readonly Step[]): Promise<void> {
  const { store } = timed
  const extra = limits.find(({ kind }) => kind === 'first-minutes')
  let granted = -Infinity
  let told: number[] = []
  const noteGrant = (charges: readonly { kind: string }[], nowUs: number): void => {
    if (extra && charges.some(({ kind }) => kind === 'first-minutes') && granted + extra.capacity <= nowUs)
      granted = nowUs
  }

  for (const step of steps) {
    timed.advanceUs(pauseUs(step.pause, limits))
    const charges = chargesOf(step, limits)
    told = told.filter((atUs) => atUs + secondUs > timed.timeUs())
    const isAlone = told.length === 0
    const decision = await store.decide(ask(charges))
    expect(decision.nowUs).toBe(timed.timeUs())
    if (decision.admitted) {
      expect(decision.retryAfterUs).toBe(0)
      noteGrant(charges, decision.nowUs)
      continue
    }
    const { retryAfterUs } = decision
    expect(retryAfterUs).toBeGreaterThan(0)
    const refusing = refusals(charges, decision)
    expect(refusing.length).toBeGreaterThan(0)
    const longestUs = Math.max(...refusing.map(({ waitUs }) => waitUs!))
    if (!extra && isAlone) expect(retryAfterUs).toBe(longestUs)
    if (!extra) expect(retryAfterUs).toBeGreaterThanOrEqual(longestUs)
    const waitUs = toldUs(retryAfterUs!)
    if (!step.patient) {
      told.push(decision.nowUs + waitUs)
      continue
    }
    if (!isAlone) {
      // Whoever comes takes the place of the first who may: it is not known whose second still goes on.
      told.push(decision.nowUs + waitUs)
      timed.advanceUs(waitUs)
      expect((await store.decide(ask(charges))).admitted).toBe(true)
      noteGrant(charges, timed.timeUs())
      continue
    }

    timed.advanceUs(waitUs - msUs)
    const early = await store.decide(ask(charges, false))
    if (early.admitted) {
      // The one exception: where the first minutes would lift, and those that they may not lift have room only within the
      // last second of them, they are left out of account.
      for (const { outcomes } of [decision, early]) {
        expect(outcomes.some(({ verdict }) => verdict === 'lifted')).toBe(true)
      }
      expect(decision.nowUs).toBeLessThan(granted + extra!.windowUs)
      expect(decision.nowUs + longestUs + secondUs).toBeGreaterThanOrEqual(granted + extra!.windowUs)
    }
    timed.advanceUs(msUs)
    expect((await store.decide(ask(charges))).admitted).toBe(true)
    noteGrant(charges, timed.timeUs())
  }
}
