import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Limit } from '../../src/policies/algorithm.ts'
import { slidingLogAlgorithm } from '../../src/policies/sliding-log.ts'
import { slidingWindowAlgorithm, type SlidingWindowState } from '../../src/policies/sliding-window.ts'
import { minuteUs, someTimeUs } from '../promises/histories.ts'

/** How much of a load one of the two algorithms admits. */
function admitted(algorithm: typeof slidingLogAlgorithm, limit: Limit, load: readonly Arrival[]): number {
  let state: SlidingWindowState | undefined
  let sum = 0
  let mostEntries = 0
  for (const { at, cost } of load) {
    state = algorithm.open(state, limit, at)
    if (algorithm.earliest(state, limit, at, cost) > at) continue
    algorithm.charge(state, limit, at, cost)
    sum += cost
    mostEntries = Math.max(mostEntries, state.length)
  }
  if (algorithm === slidingWindowAlgorithm) expect(mostEntries).toBeLessThanOrEqual(16)
  return sum
}

interface Arrival {
  readonly at: number
  readonly cost: number
}

/** Arrivals at random moments, as many on average in a window as the limit's quota times `pressure`. */
function poisson(limit: Limit, pressure: number, windows: number, random: () => number): Arrival[] {
  const apart = limit.windowUs / (limit.quota * pressure)
  const load: Arrival[] = []
  for (let at = someTimeUs; at < someTimeUs + windows * limit.windowUs;) {
    at += Math.max(1, Math.round(-Math.log(1 - random()) * apart))
    load.push({ at, cost: 1 })
  }
  return load
}

/** Numbers from 0 to 1, the same for the same seed (mulberry32). */
function randomFrom(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

describe('under Poisson load it admits at least 93 % of what the log admits', () => {
  for (const quota of [17, 30, 100, 1000]) {
    for (const pressure of [1, 1.1, 1.25, 1.5, 2]) {
      it(`quota ${quota}, load ${pressure} times as much`, () => {
        const limit = { windowUs: minuteUs, quota, capacity: quota }
        const load = poisson(limit, pressure, Math.max(25, 10_000 / quota), randomFrom(quota * 100 + pressure * 10))
        const ofLog = admitted(slidingLogAlgorithm, limit, load)
        expect(admitted(slidingWindowAlgorithm, limit, load) / ofLog).toBeGreaterThanOrEqual(0.93)
      })
    }
  }
})

const someLoad = fc.record({
  quota: fc.integer({ min: 17, max: 3000 }),
  windowUs: fc.integer({ min: 1, max: 100_000 }).map((ms) => ms * 1000),
  start: fc.nat(10_000_000),
  arrivals: fc.array(fc.record({ pause: fc.nat(120), cost: fc.integer({ min: 1, max: 200 }) }), {
    minLength: 1,
    maxLength: 150,
    size: 'max',
  }),
})

it('no window holds more than the quota, where many small charges are merged and each comes as soon as it may', () => {
  const manySmall = fc.record({
    quota: fc.integer({ min: 17, max: 60 }),
    windowUs: fc.integer({ min: 1, max: 100_000 }).map((ms) => ms * 1000),
    arrivals: fc.array(fc.record({ pause: fc.nat(45), cost: fc.integer({ min: 1, max: 3 }) }), {
      minLength: 60,
      maxLength: 120,
    }),
  })
  fc.assert(
    fc.property(manySmall, ({ quota, windowUs, arrivals }) => {
      const limit = { windowUs, quota, capacity: quota }
      let state: SlidingWindowState | undefined
      let at = someTimeUs
      const made: Arrival[] = []
      for (const { pause, cost } of arrivals) {
        at += Math.floor((windowUs * pause) / 1000)
        state = slidingWindowAlgorithm.open(state, limit, at)
        at = slidingWindowAlgorithm.earliest(state, limit, at, cost)
        state = slidingWindowAlgorithm.open(state, limit, at)
        slidingWindowAlgorithm.charge(state, limit, at, cost)
        made.push({ at, cost })
        const used = made.filter((one) => one.at > at - windowUs).reduce((sum, one) => sum + one.cost, 0)
        if (used > quota) expect.fail(`${used} of ${quota} at ${at}`)
      }
    }),
    { numRuns: 500 },
  )
})

it('a burst comes back within 1.1 windows: nothing counts for longer', () => {
  fc.assert(
    fc.property(someLoad, ({ quota, windowUs, start, arrivals }) => {
      const limit = { windowUs, quota, capacity: quota }
      let state: SlidingWindowState | undefined
      let at = someTimeUs + start
      const made: Arrival[] = []
      for (const { pause, cost } of arrivals) {
        at += Math.floor((windowUs * pause) / 1000)
        state = slidingWindowAlgorithm.open(state, limit, at)
        const recent = made.filter((one) => one.at > at - 1.1 * windowUs).reduce((sum, one) => sum + one.cost, 0)
        expect(quota - slidingWindowAlgorithm.remaining(state, limit, at)).toBeLessThanOrEqual(recent)
        if (slidingWindowAlgorithm.earliest(state, limit, at, cost) > at) continue
        slidingWindowAlgorithm.charge(state, limit, at, cost)
        made.push({ at, cost })
      }
    }),
    { numRuns: 300 },
  )
})

it('of a quota up to 16 it is the log', () => {
  fc.assert(
    fc.property(someLoad, fc.integer({ min: 1, max: 16 }), ({ windowUs, start, arrivals }, quota) => {
      const limit = { windowUs, quota, capacity: quota }
      let [window, log]: (SlidingWindowState | undefined)[] = []
      let at = someTimeUs + start
      for (const { pause, cost: some } of arrivals) {
        at += Math.floor((windowUs * pause) / 1000)
        const cost = 1 + (some % quota)
        window = slidingWindowAlgorithm.open(window, limit, at)
        log = slidingLogAlgorithm.open(log, limit, at)
        const fitsAt = slidingLogAlgorithm.earliest(log, limit, at, cost)
        expect(slidingWindowAlgorithm.earliest(window, limit, at, cost)).toBe(fitsAt)
        if (fitsAt > at) continue
        slidingWindowAlgorithm.charge(window, limit, at, cost)
        slidingLogAlgorithm.charge(log, limit, at, cost)
        expect(window).toEqual(log)
      }
    }),
    { numRuns: 300 },
  )
})

it('debts saturate where five bytes end, and are not taken for small ones', () => {
  const limit = { windowUs: minuteUs, quota: 1e12, capacity: 1e12 }
  for (const algorithm of [slidingWindowAlgorithm, slidingLogAlgorithm]) {
    let state = algorithm.open(undefined, limit, someTimeUs)
    for (let step = 0; step < 40; step += 1) {
      algorithm.charge(state, limit, someTimeUs + (step >> 1), 9e11)
      for (const { count } of state) expect(count).toBeLessThan(2 ** 40)
    }
    expect(algorithm.remaining(state, limit, someTimeUs + 20)).toBe(0)
    state = algorithm.open(state, limit, someTimeUs + minuteUs + 19)
    expect(algorithm.remaining(state, limit, someTimeUs + minuteUs + 19)).toBe(1e12)
  }
})
