import fc from 'fast-check'
import { expect, it } from 'vitest'
import type { Limit } from '../../src/policies/algorithm.ts'
import { tokenBucketAlgorithm, type TokenBucketState } from '../../src/policies/token-bucket.ts'
import { anyMagnitude, dayUs, hourUs, minuteUs, secondUs, someTimeUs } from '../promises/histories.ts'
import { ExactBucket } from '../promises/uses.ts'

const bucket = tokenBucketAlgorithm

function admits(state: TokenBucketState, limit: Limit, now: number, cost: number): boolean {
  if (bucket.earliest(state, limit, now, cost) > now) return false
  bucket.charge(state, limit, now, cost)
  return true
}

it('a busy bucket admits its rate, however often it is touched', () => {
  const limit = { windowUs: secondUs, quota: 1000, capacity: 1000 }
  let state: TokenBucketState | undefined
  let admitted = 0
  // 1111 a second for ten minutes.
  for (let now = someTimeUs; now < someTimeUs + 600 * secondUs; now += 900) {
    state = bucket.open(state, limit, now)
    if (admits(state, limit, now, 1)) admitted += 1
  }
  expect(admitted).toBeGreaterThanOrEqual(600_000)
  expect(admitted).toBeLessThanOrEqual(601_000)
})

const anyLimit = fc.record({
  windowUs: anyMagnitude(1, 366 * 86_400_000).map((ms) => ms * 1000),
  quota: anyMagnitude(1, 1e12),
  capacity: anyMagnitude(1, 1e12),
})

it('holds all of its burst once it is full, gives back what it took, and ends every search, at all sizes', () => {
  fc.assert(
    fc.property(anyLimit, fc.double({ min: 0, max: 1, noNaN: true }), (limit, part) => {
      const { capacity } = limit
      const fresh = bucket.open(undefined, limit, someTimeUs)
      expect(bucket.remaining(fresh, limit, someTimeUs)).toBe(capacity)
      expect(admits(fresh, limit, someTimeUs, capacity)).toBe(true)
      expect(bucket.remaining(fresh, limit, someTimeUs)).toBe(0)
      bucket.refund(fresh, limit, someTimeUs, someTimeUs, capacity, 0)
      expect(bucket.remaining(fresh, limit, someTimeUs)).toBe(capacity)

      // In parts, too.
      const some = Math.floor(capacity * part)
      for (const cost of [some, capacity - some]) expect(admits(fresh, limit, someTimeUs, cost)).toBe(true)
      for (const cost of [capacity - some, some]) bucket.refund(fresh, limit, someTimeUs, someTimeUs, cost, 0)
      expect(bucket.remaining(fresh, limit, someTimeUs)).toBe(capacity)

      admits(fresh, limit, someTimeUs, capacity)
      const fitsAt = bucket.earliest(fresh, limit, someTimeUs, capacity)
      if (fitsAt === Infinity) {
        expect((capacity / limit.quota) * limit.windowUs).toBeGreaterThan(2 ** 52)
        return
      }
      expect(bucket.expires(fresh, limit, someTimeUs)).toBe(fitsAt)
      expect(bucket.earliest(fresh, limit, fitsAt - 1, capacity)).toBe(fitsAt)
      expect(bucket.remaining(bucket.open(fresh, limit, fitsAt), limit, fitsAt)).toBe(capacity)
    }),
    { numRuns: 1000 },
  )
})

it('loses at most a fiftieth to rounding, in the worst of all sizes', () => {
  fc.assert(
    fc.property(anyLimit, (limit) => {
      const all = bucket.open(undefined, limit, someTimeUs)
      admits(all, limit, someTimeUs, limit.capacity)
      const exact = (limit.capacity / limit.quota) * limit.windowUs
      const fitsAt = bucket.earliest(all, limit, someTimeUs, limit.capacity)
      if (fitsAt < Infinity) expect(fitsAt - someTimeUs).toBeLessThanOrEqual(exact * 1.02 + 1)
    }),
    { numRuns: 1000 },
  )
})

it('a wait beyond what can be counted is none', () => {
  const limit = { windowUs: 366 * dayUs, quota: 1, capacity: 1e12 }
  const state = bucket.open(undefined, limit, someTimeUs)
  bucket.charge(state, limit, someTimeUs, 1e12)
  expect(bucket.earliest(state, limit, someTimeUs, 1e12)).toBe(Infinity)
  expect(bucket.earliest(state, limit, someTimeUs, 1)).toBeLessThan(someTimeUs + 373 * dayUs)
  expect(bucket.expires(state, limit, someTimeUs)).toBe(Number.MAX_SAFE_INTEGER)
})

it('a bucket that nothing refills waits for ever, and is forgotten after a year', () => {
  const limit = { windowUs: minuteUs, quota: 10, capacity: 10 }
  const cut = { ...limit, quota: 0 }
  let state = bucket.open(undefined, limit, someTimeUs)
  bucket.charge(state, limit, someTimeUs, 10)
  state = bucket.open(state, cut, someTimeUs)
  expect(bucket.earliest(state, cut, someTimeUs, 1)).toBe(Infinity)
  expect(bucket.expires(state, cut, someTimeUs)).toBe(someTimeUs + 366 * dayUs)
  const later = someTimeUs + 365 * dayUs
  expect(bucket.remaining(bucket.open(structuredClone(state), limit, later), limit, later)).toBe(0)
  const yearLater = someTimeUs + 366 * dayUs
  expect(bucket.remaining(bucket.open(state, limit, yearLater), limit, yearLater)).toBe(10)
})

it('a burst that is raised and cut by any factor forgets nothing of what was used', () => {
  const small = { windowUs: hourUs, quota: 100, capacity: 100 }
  const large = { windowUs: hourUs, quota: 1e12, capacity: 1e12 }
  let state = bucket.open(undefined, large, someTimeUs)
  bucket.charge(state, large, someTimeUs, 1_000_000)
  for (const limit of [small, large, small, large]) state = bucket.open(state, limit, someTimeUs)
  expect(bucket.remaining(state, large, someTimeUs)).toBe(1e12 - 1_000_000)
  state = bucket.open(state, small, someTimeUs)
  expect(bucket.earliest(state, small, someTimeUs, 1) - someTimeUs).toBeGreaterThanOrEqual(999_901 * 36 * secondUs)
})

it('the wait for any cost is not a microsecond shorter than exact arithmetic says, at all sizes', () => {
  const share = fc.double({ min: 0, max: 1, noNaN: true })
  const parts = fc.array(fc.record({ cost: share, pause: share }), { minLength: 1, maxLength: 6 })
  const windowUs = fc.oneof(
    fc.constantFrom(366 * dayUs, dayUs, hourUs, secondUs),
    anyLimit.map((one) => one.windowUs),
  )
  fc.assert(
    fc.property(anyLimit, windowUs, parts, (sizes, windowUs, parts) => {
      const limit: Limit = { ...sizes, windowUs }
      const exact = new ExactBucket(limit.quota)
      let now = someTimeUs
      let state = bucket.open(undefined, limit, now)
      exact.touch(limit.quota, now)
      for (const part of parts) {
        const cost = Math.max(1, Math.floor(limit.capacity * part.cost))
        now = bucket.earliest(state, limit, now, cost)
        if (now > 2 ** 52) return
        state = bucket.open(state, limit, now)
        exact.touch(limit.quota, now)
        expect(exact.fits(limit, cost, now)).toBe(true)
        expect(admits(state, limit, now, cost)).toBe(true)
        exact.charge(limit, cost, now)
        now += Math.floor(part.pause * limit.windowUs)
      }
    }),
    { numRuns: 3000 },
  )
})

it('refills no microsecond early where a product is rounded up to what is needed', () => {
  const windowUs = 366 * dayUs
  const sizes = fc.record({ capacity: fc.integer({ min: 5e8, max: 1e9 }), quota: fc.integer({ min: 5e8, max: 1e9 }) })
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 5e8 }), ({ capacity, quota }, cost) => {
      const limit = { windowUs, quota, capacity }
      const state = bucket.open(undefined, limit, 0)
      bucket.charge(state, limit, 0, capacity)
      const fitsAt = bucket.earliest(state, limit, 0, cost)
      if (BigInt(fitsAt) * BigInt(quota) < BigInt(cost) * BigInt(windowUs)) expect.fail(`${fitsAt} is too early`)
    }),
    { numRuns: 20_000 },
  )
})
