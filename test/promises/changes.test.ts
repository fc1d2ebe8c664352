import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Charge, Charged } from '../../src/stores/store.ts'
import {
  ask,
  costOf,
  limitOf,
  onBothStores,
  pauseUs,
  refillingKinds,
  someQuota,
  someStep,
  type Limit,
  type TimedStore,
} from './histories.ts'
import { ExactBucket, usedInLastWindow, usedInOwnWindow, type Use } from './uses.ts'

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: a quota or burst that changes mints nothing, and what was used stays used`, async () => {
      await fc.assert(
        fc.asyncProperty(limitOf([kind]), changes, (limit, changes) => mintsNothing(stage.fresh(), limit, changes)),
        stage.runs(400),
      )
    })

    it(`${kind}: correcting an earlier charge does not bring the limit back that it was made under`, async () => {
      await fc.assert(
        fc.asyncProperty(limitOf([kind]), changes, (limit, changes) => settlesNothing(stage, limit, changes)),
        stage.runs(150),
      )
    })
  }
})

/** The limit as it is from now on. Sometimes there is none left. */
const newLimit = fc.option(
  fc.record({ quota: fc.oneof({ weight: 9, arbitrary: someQuota }, fc.constant(0)), burst: someQuota }),
  { nil: undefined },
)

const changes = fc.array(fc.record({ step: someStep, to: newLimit, commit: fc.boolean() }), {
  minLength: 1,
  maxLength: 40,
  size: 'max',
})

type Changes = typeof changes extends fc.Arbitrary<infer Value> ? Value : never

function changed(limit: Limit, to: { quota: number; burst: number } | undefined): Limit {
  if (to === undefined) return limit
  return { ...limit, quota: to.quota, capacity: limit.kind === 'token-bucket' ? to.burst : to.quota }
}

/** How much is used, judged from outside. */
class Judge {
  readonly #bucket: ExactBucket
  readonly #uses: Use[] = []
  /** Whether the store has to agree, or may be stricter for having rounded. */
  exact: boolean

  constructor({ kind, quota }: Limit) {
    this.#bucket = new ExactBucket(quota)
    this.exact = kind !== 'sliding-window'
  }

  fits(charge: Charge, nowUs: number): boolean {
    const { kind, quota, capacity, windowUs, cost } = charge
    if (kind === 'token-bucket') {
      if (Math.max(quota, capacity) * windowUs > 2 ** 49) this.exact = false
      this.#bucket.touch(quota, nowUs)
    }
    if (cost === 0) return true
    if (kind === 'token-bucket') return this.#bucket.fits(charge, cost, nowUs)
    const used = kind === 'fixed-window' ? usedInOwnWindow : usedInLastWindow
    return used(charge, this.#uses, nowUs) + cost <= quota
  }

  charge(charge: Charge, nowUs: number): void {
    if (charge.cost === 0) return
    this.#bucket.charge(charge, charge.cost, nowUs)
    this.#uses.push({ atUs: nowUs, amount: charge.cost, request: this.#uses.length })
  }
}

async function mintsNothing(timed: TimedStore, first: Limit, changes: Changes): Promise<void> {
  const judge = new Judge(first)
  let limit = first
  for (const { step, to } of changes) {
    timed.advanceUs(pauseUs(step.pause, [limit]))
    limit = changed(limit, to)
    const charge: Charge = { ...limit, cost: costOf(step.asks[0]!, limit) }
    const nowUs = timed.timeUs()
    const fits = judge.fits(charge, nowUs)
    const { admitted } = await timed.store.decide(ask([charge]))
    if (judge.exact) expect(admitted).toBe(fits)
    else if (admitted) expect(fits).toBe(true)
    if (admitted) judge.charge(charge, nowUs)
  }
}

/** Plays a history twice, once with corrections of nothing, stated under the limits that were in force at the charge. */
async function settlesNothing(stage: { fresh: () => TimedStore }, first: Limit, changes: Changes): Promise<void> {
  const play = async (corrects: boolean): Promise<unknown[]> => {
    const timed = stage.fresh()
    const answers: unknown[] = []
    const made: Charged[] = []
    let limit = first
    for (const { step, to, commit } of changes) {
      timed.advanceUs(pauseUs(step.pause, [limit]))
      limit = changed(limit, to)
      const charge: Charge = { ...limit, cost: costOf(step.asks[0]!, limit) }
      const { admitted, nowUs, ...rest } = await timed.store.decide(ask([charge]))
      answers.push({ admitted, ...rest })
      if (admitted && charge.cost > 0) made.push({ charge, cost: charge.cost, chargedAtUs: nowUs })
      const charged = made[0]
      if (corrects && commit && charged) {
        await timed.store.settle([{ charged, by: 0 }])
      }
      if (made.length > 2) made.shift()
    }
    return answers
  }
  expect(await play(true)).toEqual(await play(false))
}
