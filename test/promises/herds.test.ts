// Promise 3: requests that are refused together are told different times, and each is admitted at its own.

import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Charge, StoreDecision } from '../../src/stores/store.ts'
import {
  ask,
  chargesOf,
  costOf,
  limitOf,
  minuteUs,
  mixOf,
  mixWithExtra,
  msUs,
  onBothStores,
  pauseUs,
  refillingKinds,
  refusals,
  secondUs,
  smallStep,
  someStep,
  stepsOf,
  toldUs,
  type Ask,
  type Limit,
  type Step,
  type TimedStore,
} from './histories.ts'

/** Those who are refused together, and how each comes back. */
interface Herd {
  readonly asks: readonly Ask[]
  readonly members: readonly Member[]
}

interface Member {
  /** What it asks for is the herd's, or its own. */
  readonly own: readonly Ask[] | undefined
  /** How long after the one before it comes. */
  readonly gapUs: number
  /** How much later than told it comes back. */
  readonly lateUs: number
  /** How often it tries before its time, and at which part of its wait. */
  readonly early: readonly number[]
}

const someAsks = someStep.map(({ asks }) => asks.map((one) => ('units' in one ? { units: one.units + 1 } : one)))

const someLateUs = fc.oneof(fc.constant(0), fc.constant(secondUs), fc.nat(secondUs))

function membersOf(most: number, alike: boolean): fc.Arbitrary<Member[]> {
  const own = alike ? fc.constant(undefined) : fc.option(someAsks, { nil: undefined })
  const gapUs = fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.nat(2000))
  const early = fc.oneof({ weight: 3, arbitrary: fc.constant([]) }, fc.array(fc.nat(999), { maxLength: 2 }))
  return fc.array(fc.record({ own, gapUs, lateUs: someLateUs, early }), { minLength: 2, maxLength: most, size: 'max' })
}

function herdOf(most: number, alike: boolean): fc.Arbitrary<Herd> {
  return fc.record({ asks: someAsks, members: membersOf(most, alike) })
}

/** Of first minutes that last less than a minute, those who come a second late may find the end. */
const mixWithLongExtra = mixWithExtra().filter((limits) => limits.at(-1)!.windowUs >= minuteUs)

onBothStores((stage) => {
  for (const kind of refillingKinds) {
    it(`${kind}: each of a herd is admitted on its first retry, up to a second after its time`, async () => {
      await fc.assert(
        fc.asyncProperty(mixOf([kind], 2), stepsOf(12), herdOf(40, true), (limits, steps, herd) =>
          keepsPromises(stage.fresh(), limits, steps, herd),
        ),
        stage.runs(400),
      )
    })
  }

  it('sliding windows whose entries become one: each of a herd is admitted on its first retry', async () => {
    const crowded = fc.record({
      limit: limitOf(['sliding-window']),
      quota: fc.integer({ min: 17, max: 60 }),
      windowMs: fc.constantFrom(2000, 5000, 14_000, 60_000),
      steps: fc.array(smallStep, { minLength: 16, maxLength: 40, size: 'max' }),
      herd: herdOf(40, false),
    })
    await fc.assert(
      fc.asyncProperty(crowded, async ({ limit, quota, windowMs, steps, herd }) => {
        const limits = [{ ...limit, quota, capacity: quota, windowUs: windowMs * 1000 }]
        await keepsPromises(stage.fresh(), limits, steps, herd)
      }),
      stage.runs(600),
    )
  })

  it('mixes of policies and costs: each of a herd is admitted on its first retry', async () => {
    await fc.assert(
      fc.asyncProperty(mixOf(), stepsOf(12), herdOf(24, false), (limits, steps, herd) =>
        keepsPromises(stage.fresh(), limits, steps, herd),
      ),
      stage.runs(1000),
    )
  })

  it('small buckets and many turns: each of a herd is admitted on its first retry', async () => {
    const crowded = fc.record({
      quota: fc.integer({ min: 1, max: 100 }),
      capacity: fc.integer({ min: 1, max: 12 }),
      limit: limitOf(['token-bucket']),
      herd: herdOf(120, true),
    })
    await fc.assert(
      fc.asyncProperty(crowded, async ({ quota, capacity, limit, herd }) => {
        const limits = [{ ...limit, quota, capacity, windowUs: secondUs }]
        await keepsPromises(stage.fresh(), limits, [], { ...herd, asks: [{ units: 1 }] })
      }),
      stage.runs(200),
    )
  })

  it('with first minutes: each of a herd is admitted on its first retry', async () => {
    await fc.assert(
      fc.asyncProperty(mixWithLongExtra, stepsOf(12), herdOf(24, true), (limits, steps, herd) =>
        keepsPromises(stage.fresh(), limits, steps, herd),
      ),
      stage.runs(400),
    )
  })

  it('the last of a herd waits a second a turn longer than the quota requires, and no more', async () => {
    await fc.assert(
      fc.asyncProperty(mixOf(undefined, 3), stepsOf(8), herdOf(60, true), (limits, steps, herd) =>
        isServedInTime(stage, limits, steps, herd),
      ),
      stage.runs(600),
    )
  })
})

/** How far the schedule goes past what a request would wait alone. */
function reachOf(charges: readonly Charge[], decision: StoreDecision): number {
  return reachOver(charges.filter((_, index) => decision.outcomes[index]!.verdict === 'refused'))
}

function reachOver(refusing: readonly Charge[]): number {
  return Math.max(minuteUs, 4 * Math.max(...refusing.map(({ windowUs }) => windowUs)))
}

/**
 * Whether this wait is promised to the end of its second. Not where the schedule ends, that of the limits an extra can't lift too
 * where it stood in for the rest; not where the extra ends within the second; and not from when on it may be granted anew, since
 * it begins with whoever comes first then.
 */
function isPromised(charges: readonly Charge[], { outcomes, retryAfterUs }: StoreDecision): boolean {
  const judged = charges.map((charge, index) => ({ ...charge, ...outcomes[index]! }))
  const refusing = judged.filter(({ verdict }) => verdict === 'refused')
  const isWithin = (some: typeof refusing): boolean =>
    some.length === 0 || retryAfterUs! < Math.max(...some.map(({ waitUs }) => waitUs!)) + reachOver(some)
  const extra = judged.find(({ kind }) => kind === 'first-minutes')
  if (extra === undefined) return isWithin(refusing)
  const { resetUs, capacity, windowUs } = extra
  const endsUs = resetUs - capacity + windowUs
  const isCut = retryAfterUs! < endsUs && retryAfterUs! + secondUs >= endsUs
  return (
    !isCut &&
    retryAfterUs! + secondUs < resetUs &&
    isWithin(refusing) &&
    isWithin(refusing.filter(({ liftable }) => !liftable))
  )
}

function chargesFor(limits: readonly Limit[], asks: readonly Ask[]): Charge[] {
  return limits.map((limit, index) => {
    const cost = costOf(asks[index % asks.length]!, limit)
    return { ...limit, cost: limit.kind === 'first-minutes' ? Math.max(1, cost) : cost }
  })
}

async function playHistory(timed: TimedStore, limits: readonly Limit[], steps: readonly Step[]): Promise<void> {
  for (const step of steps) {
    timed.advanceUs(pauseUs(step.pause, limits))
    await timed.store.decide(ask(chargesOf(step, limits)))
  }
}

interface Waiting {
  readonly charges: readonly Charge[]
  readonly atUs: number
  readonly isEarly: boolean
}

async function keepsPromises(
  timed: TimedStore,
  limits: readonly Limit[],
  steps: readonly Step[],
  { asks, members }: Herd,
): Promise<void> {
  const { store } = timed
  await playHistory(timed, limits, steps)
  let waiting: Waiting[] = []
  for (const { own, gapUs, lateUs, early } of members) {
    timed.advanceUs(gapUs)
    const charges = chargesFor(limits, own ?? asks)
    const decision = await store.decide(ask(charges))
    if (decision.admitted) {
      // Newcomers take room from whoever waits.
      waiting = []
      continue
    }
    const { nowUs, retryAfterUs, outcomes } = decision
    const isLifting = outcomes.some(({ verdict }) => verdict === 'lifted')
    const alone = Math.max(...refusals(charges, decision).map(({ waitUs }) => waitUs!))
    if (!limits.some(({ kind }) => kind === 'first-minutes')) {
      expect(retryAfterUs).toBeGreaterThanOrEqual(alone)
      expect(retryAfterUs).toBeLessThanOrEqual(alone + reachOf(charges, decision))
    }
    if (!isPromised(charges, decision)) continue
    if (limits.some(({ kind }) => kind === 'first-minutes') && !isLifting && retryAfterUs! < alone) continue
    waiting.push({ charges, atUs: nowUs + toldUs(retryAfterUs!) + lateUs, isEarly: false })
    for (const permille of early)
      waiting.push({ charges, atUs: nowUs + Math.floor((retryAfterUs! * permille) / 1000), isEarly: true })
  }
  waiting.sort((one, other) => one.atUs - other.atUs)
  for (const { charges, atUs, isEarly } of waiting) {
    timed.setTimeUs(Math.max(atUs, timed.timeUs()))
    // One that tries early and finds room is a newcomer: it is not let in here.
    if (isEarly && (await store.decide(ask(charges, false))).admitted) continue
    const { admitted } = await store.decide(ask(charges))
    expect(admitted).toBe(!isEarly)
  }
}

/** What a policy adds to the wait of the last one, beyond what its quota requires. */
function slackOf(charges: readonly Charge[], count: number): { isRoomy: boolean; us: number } {
  const charged = charges.filter(({ cost }) => cost > 0)
  const perTurn = Math.min(...charged.map(({ capacity, cost }) => Math.floor(capacity / cost)))
  const turns = Math.ceil(count / perTurn)
  const isRoomy = charged.every(
    ({ kind, capacity, quota, cost, windowUs }) =>
      kind === 'token-bucket' && capacity * windowUs >= quota * (secondUs + 2 * msUs) + cost * windowUs,
  )
  // One that is full refills no further in the second that somebody may take who is held up by another: which is once, since from
  // when it is full again it is as if nobody had come.
  const roomyUs = (charged.length - 1) * (secondUs + 2 * msUs)
  const merging = charged.map(({ kind, windowUs }) => (kind === 'sliding-window' ? windowUs / 14 : 0))
  return { isRoomy, us: (isRoomy ? roomyUs : turns * (secondUs + 2 * msUs)) + Math.max(...merging) + 4 * msUs }
}

/** Compares the last one's time with that of a store in which each waits alone and comes as soon as it may. */
async function isServedInTime(
  stage: { fresh(): TimedStore },
  limits: readonly Limit[],
  steps: readonly Step[],
  { asks, members }: Herd,
): Promise<void> {
  const charges = chargesFor(limits, asks)
  const timed = stage.fresh()
  await playAdmitted(timed, limits, steps)
  const startUs = timed.timeUs()
  let count = 0
  let last = 0
  let firstUs = 0
  const moments = new Set<number>()
  for (const _ of members) {
    const decision = await timed.store.decide(ask(charges))
    if (decision.admitted) continue
    const alone = Math.max(...refusals(charges, decision).map(({ waitUs }) => waitUs!))
    if (decision.retryAfterUs! >= alone + reachOf(charges, decision)) break
    if (count === 0) firstUs = alone
    count += 1
    last = startUs + decision.retryAfterUs!
    moments.add(last)
  }
  if (count === 0) return

  const alone = stage.fresh()
  await playAdmitted(alone, limits, steps)
  let served = 0
  while (served < count) {
    const look = await alone.store.decide(ask(charges, false))
    alone.advanceUs(look.retryAfterUs!)
    const { admitted, nowUs } = await alone.store.decide(ask(charges))
    expect(admitted).toBe(true)
    if (nowUs > startUs) served += 1
  }
  const { isRoomy, us: slackUs } = slackOf(charges, count)
  // What waits for others in a fixed window that is open already counts as if it opened one then.
  const isFixed = charges.some(({ kind, cost }) => kind === 'fixed-window' && cost > 0)
  const us = slackUs + (isFixed && charges.length > 1 ? firstUs : 0)
  // Of more different moments than the schedule has runs for, where they are not even, some are kept longer than they need to be.
  const requiredUs = alone.timeUs() - startUs
  // Buckets of great numbers round a little.
  const looseUs = isRoomy || moments.size <= 8 ? requiredUs / 1e6 : 2 * us + requiredUs / 2
  expect((last - alone.timeUs()) / 1000).toBeLessThanOrEqual((us + looseUs) / 1000)
}

/** Plays a history, and refuses nobody in it. */
async function playAdmitted(timed: TimedStore, limits: readonly Limit[], steps: readonly Step[]): Promise<void> {
  for (const step of steps) {
    timed.advanceUs(pauseUs(step.pause, limits))
    const charges = chargesOf(step, limits)
    if ((await timed.store.decide(ask(charges, false))).admitted) await timed.store.decide(ask(charges))
  }
}
