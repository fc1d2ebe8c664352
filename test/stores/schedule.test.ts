// What the retry schedule is for, by example: who is told what, what it costs, and what leaves no trace in it.

import { expect, it } from 'vitest'
import { scheduleIdOf } from '../../src/policies/schedule.ts'
import type { Charge, DecisionRequest } from '../../src/stores/store.ts'
import {
  ask,
  memoryStage,
  minuteUs,
  onBothStores,
  redisStage,
  secondUs,
  type TimedStore,
} from '../promises/histories.ts'

const bucket: Charge = {
  kind: 'token-bucket',
  stateId: 7,
  partition: 'key:one',
  windowUs: secondUs,
  quota: 10,
  capacity: 20,
  cost: 1,
  liftable: false,
  shadow: false,
}

const shared = (holder: number, more: Partial<Charge> = {}): Charge => ({
  ...bucket,
  partition: '@global',
  holder,
  ...more,
})

async function drain({ store }: TimedStore, charge: Charge): Promise<void> {
  expect((await store.decide(ask([{ ...charge, cost: charge.capacity }]))).admitted).toBe(true)
}

/** What each of some requests is told, in ms. */
async function toldMs({ store }: TimedStore, request: DecisionRequest, count: number): Promise<number[]> {
  const told: number[] = []
  for (let times = 0; times < count; times += 1) {
    const { admitted, retryAfterUs } = await store.decide(request)
    expect(admitted).toBe(false)
    told.push(retryAfterUs! / 1000)
  }
  return told
}

onBothStores((stage) => {
  it('tells a herd of 20 the moments at which a bucket has room again, one after the other', async () => {
    const timed = stage.fresh()
    await drain(timed, bucket)
    expect(await toldMs(timed, ask([bucket]), 20)).toEqual(Array.from({ length: 20 }, (_, index) => (index + 1) * 100))
  })

  it('of a window, tells a turn after the other: a second is kept for those who are late', async () => {
    for (const kind of ['sliding-window', 'sliding-log', 'fixed-window'] as const) {
      const timed = stage.fresh()
      const window: Charge = { ...bucket, kind, quota: 5, capacity: 5, windowUs: minuteUs }
      await drain(timed, window)
      const told = await toldMs(timed, ask([window]), 12)
      expect(told).toEqual([...Array(5).fill(60_000), ...Array(5).fill(121_000), ...Array(2).fill(182_000)])
    }
  })

  it('foresees that who comes first may have older entries of a window become one', async () => {
    const timed = stage.fresh()
    const beginUs = Math.ceil(timed.timeUs() / minuteUs) * minuteUs
    const beginMs = (ms: number): void => timed.setTimeUs(beginUs + ms * 1000)
    const window: Charge = {
      ...bucket,
      stateId: 8,
      kind: 'sliding-window',
      windowUs: 14 * secondUs,
      quota: 25,
      capacity: 25,
    }
    const slow: Charge = { ...bucket, quota: 1, capacity: 1 }
    const use = async (ms: number, ...charges: Charge[]): Promise<void> => {
      beginMs(ms)
      expect((await timed.store.decide(ask(charges))).admitted).toBe(true)
    }
    // Sixteen entries, of which three are in one cell: a seventeenth makes the later two of those one.
    await use(700, window)
    await use(800, { ...window, cost: 5 })
    await use(900, { ...window, cost: 5 })
    for (let second = 1; second <= 13; second += 1) await use(second * 1000 + 100, window)
    await use(13_200, slow)
    beginMs(13_950)
    expect(await toldMs(timed, ask([slow, window]), 1)).toEqual([250])
    expect(await toldMs(timed, ask([{ ...window, cost: 6 }]), 1)).toEqual([950])
    await use(14_200, slow, window)
    await use(14_900, { ...window, cost: 6 })
  })

  it('has all policies keep the room, those too that have some now', async () => {
    const timed = stage.fresh()
    const other: Charge = { ...bucket, stateId: 8, quota: 2, capacity: 30 }
    await drain(timed, bucket)
    await timed.store.decide(ask([{ ...other, cost: 26 }]))
    // Four of the other are left, and two more a second: from then on it is the one that is waited for.
    expect(await toldMs(timed, ask([bucket, other]), 7)).toEqual([100, 200, 300, 400, 500, 1000, 1500])
  })

  it('neither a look, nor a refusal that is not obeyed, nor a policy that only watches takes a place', async () => {
    const timed = stage.fresh()
    await drain(timed, bucket)
    expect(await toldMs(timed, ask([bucket], false), 3)).toEqual([100, 100, 100])
    expect(await toldMs(timed, { ...ask([bucket]), promise: false }, 3)).toEqual([100, 100, 100])
    const tight: Charge = { ...bucket, kind: 'fixed-window', stateId: 9, quota: 1, capacity: 1 }
    await drain(timed, tight)
    expect(await toldMs(timed, ask([{ ...bucket, shadow: true }, tight]), 1)).toEqual([1000])
    expect(await toldMs(timed, ask([bucket], false), 1)).toEqual([100])
  })

  it('takes who was admitted off those who are due, and forgets who did not come a second later', async () => {
    const timed = stage.fresh()
    await drain(timed, bucket)
    await toldMs(timed, ask([bucket]), 3)
    timed.advanceUs(100_000)
    expect((await timed.store.decide(ask([bucket]))).admitted).toBe(true)
    // Two wait, for 100 ms and 200 ms from now: the next is told the third place.
    expect(await toldMs(timed, ask([bucket], false), 1)).toEqual([300])
    timed.advanceUs(1_200_000)
    expect((await timed.store.decide(ask([{ ...bucket, cost: 12 }]))).admitted).toBe(true)
    expect(await toldMs(timed, ask([bucket], false), 1)).toEqual([100])
  })

  it('promises nothing beyond its reach: a minute past what one alone would wait, or four windows', async () => {
    const timed = stage.fresh()
    await drain(timed, bucket)
    const told = await toldMs(timed, ask([{ ...bucket, cost: 20 }]), 40)
    expect(told[0]).toBe(2000)
    expect(Math.max(...told)).toBe(62_000)
    expect(told.filter((ms) => ms === 62_000).length).toBeGreaterThan(5)
  })

  it('tells a herd of more turns than it has runs for at most a second a turn more than the quota requires', async () => {
    for (const { quota, capacity, herd, lastMs } of [
      { quota: 10, capacity: 10, herd: 300, lastMs: 33_336 },
      { quota: 100, capacity: 10, herd: 200, lastMs: 21_753 },
      { quota: 5, capacity: 3, herd: 60, lastMs: 28_244 },
      { quota: 1, capacity: 1, herd: 30, lastMs: 59_000 },
    ]) {
      const timed = stage.fresh()
      const small: Charge = { ...bucket, quota, capacity }
      await drain(timed, small)
      const told = await toldMs(timed, ask([small]), herd)
      told.forEach((ms, index) => {
        const turns = Math.ceil((index + 1) / capacity)
        expect(ms).toBeLessThanOrEqual(((index + 1) / quota + turns) * 1000)
      })
      expect(Math.ceil(told.at(-1)!)).toBe(lastMs)
      const from = timed.timeUs()
      for (const [index, ms] of told.toSorted((one, other) => one - other).entries()) {
        // Each at its time, or a second late, as long as none overtakes another.
        timed.setTimeUs(Math.max(timed.timeUs(), from + Math.ceil(ms) * 1000 + (index % 7 < 3 ? 0 : secondUs)))
        expect((await timed.store.decide(ask([small]))).admitted).toBe(true)
      }
    }
  })

  it('gives one client no more than a sixteenth of a schedule that clients share', async () => {
    const timed = stage.fresh()
    const all = shared(1, { capacity: 10 })
    await drain(timed, all)
    // A burst of 10 and what comes in a minute are 610 places, of which 38 are one client's.
    const greedy = await toldMs(timed, ask([all]), 60)
    expect(new Set(greedy).size).toBe(39)
    const [other] = await toldMs(timed, ask([{ ...all, holder: 2 }]), 1)
    expect(other).toBe(greedy.at(-1))
    // What is over is the client's no more.
    timed.advanceUs(3 * secondUs)
    await drain(timed, { ...all, capacity: 10 })
    expect(new Set(await toldMs(timed, ask([all]), 5)).size).toBeGreaterThan(1)
  })

  it('spreads many clients that one pool refused', async () => {
    const timed = stage.fresh()
    await drain(timed, shared(1))
    const told: number[] = []
    for (let client = 1; client <= 200; client += 1) told.push(...(await toldMs(timed, ask([shared(client)]), 1)))
    expect(told).toEqual(Array.from({ length: 200 }, (_, index) => (index + 1) * 100))
  })
})

it('takes bytes only while somebody waits, and never more than a few hundred', async () => {
  const stage = await redisStage()
  const timed = stage.fresh()
  const length = async (): Promise<number> => {
    const [key] = await stage.redis.keys('*')
    return await stage.redis.strlen(key!)
  }
  const charge = (cost: number): Charge => shared(Math.floor(cost * 1000), { cost, capacity: 20 })
  await drain(timed, charge(1))
  const alone = await length()
  for (let number = 0; number < 300; number += 1) {
    const cost = 1 + ((number * number) % 7)
    await timed.store.decide(ask([{ ...charge(cost), holder: number + 1 }]))
    timed.advanceUs(137)
  }
  expect(await length()).toBeGreaterThan(alone)
  expect(await length()).toBeLessThanOrEqual(alone + 11 + 1 + 24 * 25)
  timed.advanceUs(90 * secondUs)
  await timed.store.decide(ask([charge(1)]))
  expect(await length()).toBe(alone)
  await stage.stop()
})

it('keeps a schedule apart from the counter: ids never meet', () => {
  expect(scheduleIdOf(0)).not.toBe(0)
  expect(scheduleIdOf(2 ** 32 - 1)).toBeLessThan(2 ** 32)
  expect(memoryStage().fresh().store.local).toBe(true)
})
