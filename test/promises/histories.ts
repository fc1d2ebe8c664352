// What the properties are played on: a store with a clock that the test turns, and random limits, costs and times.

import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe } from 'vitest'
import type { PolicyKind } from '../../src/policy.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, ChargeOutcome, DecisionRequest, OpenStore, StoreDecision } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { startRedisWithClock } from '../redis.ts'

export const msUs = 1000
export const secondUs = 1_000_000
export const minuteUs = 60 * secondUs
export const hourUs = 60 * minuteUs
export const dayUs = 24 * hourUs

/** Multiplies the runs of every property: `RAMPMETER_RUNS=50 npx vitest run test/promises`. */
const depth = Number(process.env['RAMPMETER_RUNS'] || 1)

/** An empty store, and the clock it goes by. */
export interface TimedStore {
  readonly store: OpenStore
  timeUs(): number
  setTimeUs(us: number): void
  advanceUs(us: number): void
}

/** Where histories are played, each in an empty store. */
export interface Stage {
  readonly fresh: () => TimedStore
  /** How many runs a property gets here, of those it would have in memory. */
  readonly runs: (inMemory: number) => { numRuns: number }
}

/** Some moment with microseconds in it, so that nothing falls on whole milliseconds by chance. */
export const someTimeUs = Date.UTC(2026, 0, 1) * 1000 + 123_457

export function memoryStage(): Stage {
  return {
    fresh() {
      const clock = manualClock(someTimeUs / 1000)
      let shown = someTimeUs
      const setTimeUs = (us: number): void => {
        shown = us
        clock.set(us / 1000)
      }
      return {
        store: memoryStore({ now: clock }).open({ nameOf: (partition) => partition }),
        timeUs: () => shown,
        setTimeUs,
        advanceUs: (us) => setTimeUs(shown + us),
      }
    },
    runs: (inMemory) => ({ numRuns: Math.ceil(inMemory * depth) }),
  }
}

/** Redis under a clock of ours. Each history has keys of its own, and begins at the same time. */
export async function redisStage(): Promise<Stage & { redis: Redis; stop(): Promise<void> }> {
  const server = await startRedisWithClock(someTimeUs)
  const redis = new Redis(server.url)
  let history = 0
  const base = redisStore(redis, { prefix: `${randomUUID()}:`, rememberRefusals: false }).open({
    nameOf: (partition) => `${history}:${partition}`,
  })
  await base.ready()
  return {
    redis,
    fresh() {
      history += 1
      server.setTimeUs(someTimeUs)
      return {
        store: base,
        timeUs: () => server.timeUs(),
        setTimeUs: (us) => server.setTimeUs(us),
        advanceUs: (us) => server.advanceUs(us),
      }
    },
    runs: (inMemory) => ({ numRuns: Math.ceil((inMemory / 10) * depth) }),
    async stop() {
      await base.close()
      await redis.quit()
      await server.stop()
    },
  }
}

/** Declares the same tests on both stores. */
export function onBothStores(declare: (stage: Stage) => void): void {
  describe('in memory', () => {
    declare(memoryStage())
  })
  describe('on Redis', () => {
    let stage: Awaited<ReturnType<typeof redisStage>>
    beforeAll(async () => {
      stage = await redisStage()
    })
    afterAll(async () => {
      await stage.stop()
    })
    declare({
      fresh: () => stage.fresh(),
      runs: (inMemory) => ({ numRuns: Math.ceil((inMemory / 10) * depth) }),
    })
  })
}

/** A policy's limit, without the cost that a request has. */
export type Limit = Omit<Charge, 'cost'>

export const refillingKinds = ['token-bucket', 'sliding-window', 'sliding-log', 'fixed-window'] as const

/** Numbers of all magnitudes, small ones as often as large ones. */
export function anyMagnitude(least: number, most: number): fc.Arbitrary<number> {
  return fc
    .double({ min: Math.log(least), max: Math.log(most + 1), noNaN: true })
    .map((log) => Math.min(most, Math.max(least, Math.floor(Math.exp(log)))))
}

const someWindowMs = fc.oneof(
  fc.constantFrom(1, 2, 13, 14, 1000, 1001, 60_000, 3_600_000, 86_400_000, 366 * 86_400_000),
  anyMagnitude(1, 366 * 86_400_000),
)

export const someQuota = fc.oneof(
  { weight: 2, arbitrary: fc.integer({ min: 1, max: 20 }) },
  { weight: 1, arbitrary: fc.integer({ min: 17, max: 60 }) },
  anyMagnitude(1, 1e9),
  fc.constantFrom(16, 17, 999_999_999, 1e9),
)

/** The longest a bucket may take to fill, so that a history ends within what 2⁵³ can count: four years. */
const longestFillUs = 2 ** 47

export function limitOf(kinds: readonly PolicyKind[] = refillingKinds): fc.Arbitrary<Limit> {
  return fc
    .record({
      kind: fc.constantFrom(...kinds),
      windowMs: someWindowMs,
      quota: someQuota,
      burst: fc.option(someQuota, { nil: undefined }),
      partition: fc.constantFrom('key:one', 'key:one', 'ip:two'),
    })
    .map(({ kind, windowMs, quota, burst, partition }) => {
      const windowUs = windowMs * 1000
      const capacity = kind === 'token-bucket' ? (burst ?? quota) : quota
      return {
        kind,
        stateId: 0,
        partition,
        windowUs,
        quota: Math.max(quota, Math.ceil((capacity * windowUs) / longestFillUs)),
        capacity,
        liftable: false,
        shadow: false,
      }
    })
    .map((limit) => (limit.kind === 'token-bucket' ? limit : { ...limit, capacity: limit.quota }))
}

/** One to four limits that are decided together. */
export function mixOf(kinds?: readonly PolicyKind[], most = 4): fc.Arbitrary<Limit[]> {
  return fc
    .array(limitOf(kinds), { minLength: 1, maxLength: most })
    .map((limits) => limits.map((limit, index) => ({ ...limit, stateId: 0xfffffff0 + index })))
}

/** A mix whose first minutes' extra may stand in for some of it. */
export function mixWithExtra(): fc.Arbitrary<Limit[]> {
  return fc
    .record({
      limits: mixOf(undefined, 3),
      liftable: fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
      quota: someQuota,
      window: fc.record({ whose: fc.nat(2), permille: fc.integer({ min: 1, max: 4000 }) }),
      renewals: fc.integer({ min: 1000, max: 20_000 }),
    })
    .map(({ limits, liftable, quota, window, renewals }): Limit[] => {
      const whose = limits[window.whose % limits.length]!
      const windowUs = inWholeMs((whose.windowUs * window.permille) / 1000)
      const capacity = inWholeMs((windowUs * renewals) / 1000)
      const extra = { kind: 'first-minutes' as const, windowUs, capacity, quota, liftable: false, shadow: false }
      return [
        ...limits.map((limit, index) => ({ ...limit, liftable: liftable[index]! })),
        { ...extra, stateId: 0xffffffff, partition: 'key:one' },
      ]
    })
}

function inWholeMs(us: number): number {
  return Math.min(366 * dayUs, Math.max(1, Math.floor(us / 1000)) * 1000)
}

/** How much of a limit a request asks for. */
export type Ask = { units: number } | { permille: number } | { over: number }

const someAsk: fc.Arbitrary<Ask> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ units: fc.nat(4) }) },
  { weight: 5, arbitrary: fc.record({ permille: fc.nat(1000) }) },
  { weight: 1, arbitrary: fc.constant({ permille: 1000 }) },
)

/** How long it takes to the next request: a part of some limit's window, and some microseconds. */
export interface Pause {
  readonly whose: number
  readonly permille: number
  readonly us: number
}

const somePause: fc.Arbitrary<Pause> = fc.record({
  whose: fc.nat(3),
  permille: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.nat(120), fc.nat(1300), fc.constantFrom(1000, 2000)),
  us: fc.oneof(fc.constant(0), fc.nat(2500), fc.constantFrom(1, 999, 1000)),
})

export interface Step {
  readonly pause: Pause
  readonly asks: readonly Ask[]
  /** Which of the limits apply to the request, a bit each. At least one does. */
  readonly applying: number
  /** Whether the one refused waits as long as it was told, and comes again. */
  readonly patient: boolean
}

export const someStep: fc.Arbitrary<Step> = fc.record({
  pause: somePause,
  asks: fc.array(someAsk, { minLength: 4, maxLength: 4 }),
  applying: fc.oneof({ weight: 3, arbitrary: fc.constant(15) }, fc.integer({ min: 1, max: 15 })),
  patient: fc.boolean(),
})

/** One of many small requests in a window. */
export const smallStep: fc.Arbitrary<Step> = fc.record({
  pause: fc.record({ whose: fc.constant(0), permille: fc.nat(50), us: fc.nat(3) }),
  asks: fc.array(fc.record({ units: fc.nat(3) }), { minLength: 4, maxLength: 4 }),
  applying: fc.constant(15),
  patient: fc.boolean(),
})

export function stepsOf(most: number): fc.Arbitrary<Step[]> {
  return fc.oneof(
    { weight: 2, arbitrary: fc.array(someStep, { minLength: 1, maxLength: most, size: 'max' }) },
    { weight: 1, arbitrary: fc.array(smallStep, { minLength: 1, maxLength: 2 * most, size: 'max' }) },
  )
}

export function pauseUs({ whose, permille, us }: Pause, limits: readonly Limit[]): number {
  return Math.floor((limits[whose % limits.length]!.windowUs * permille) / 1000) + us
}

/** What a request costs under one limit. */
export function costOf(ask: Ask, limit: Limit): number {
  const most = limit.kind === 'first-minutes' ? limit.quota : limit.capacity
  if ('units' in ask) return Math.min(ask.units, most)
  if ('over' in ask) return most + ask.over
  return Math.floor((most * ask.permille) / 1000)
}

/** The charges of a step's request. The first minutes' extra counts requests: its cost is the first one's, never 0. */
export function chargesOf(step: Step, limits: readonly Limit[]): Charge[] {
  const applying = limits.filter((_, index) => (step.applying >> index) & 1)
  return (applying.length === 0 ? limits : applying).map((limit, index) => {
    const cost = costOf(step.asks[index % step.asks.length]!, limit)
    return { ...limit, cost: limit.kind === 'first-minutes' ? Math.max(1, cost) : cost }
  })
}

/** Asks for charges, without giving any back. */
export function ask(charges: readonly Charge[], commit = true): DecisionRequest {
  return { charges, undo: [], commit }
}

/** The charges of an admitted request that really were made. */
export function madeBy(charges: readonly Charge[], { admitted, outcomes }: StoreDecision): Charge[] {
  if (!admitted) return []
  const lifted = outcomes.some(({ verdict }) => verdict === 'lifted')
  return charges.filter(({ kind, cost }, index) => {
    if (cost === 0) return false
    return kind === 'first-minutes' ? lifted : outcomes[index]!.verdict === 'fits'
  })
}

/** The outcomes of the limits that refused, in force and not lifted. */
export function refusals(charges: readonly Charge[], { outcomes }: StoreDecision): ChargeOutcome[] {
  return outcomes.filter(({ verdict }, index) => verdict === 'refused' && !charges[index]!.shadow)
}

/** A wait as a client is told it: whole milliseconds, rounded up. */
export function toldUs(waitUs: number): number {
  return Math.ceil(waitUs / 1000) * 1000
}
