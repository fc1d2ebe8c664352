// What slots, targets, failures, later charges, calendar quotas and pools promise, each judged by a model that knows only what
// was asked, answered and given back.

import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { describe, expect, it } from 'vitest'
import { calendarLimit } from '../../src/policies/calendar.ts'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { chargedBy } from '../../src/stores/guard.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, Charged, Correction, StoreDecision } from '../../src/stores/store.ts'
import { startTestRedis } from '../redis.ts'
import {
  claim,
  claimOfPool,
  sharedPool,
  someCalendarQuota,
  someSlots,
  someTargets,
  someWish,
  turningPoints,
  type SharedPool,
} from './dimensions.ts'
import { ask, dayUs, msUs, onBothStores, secondUs, toldUs, type Limit } from './histories.ts'
import { overCap, type Use } from './uses.ts'

const steps = fc.array(
  fc.record({
    wish: someWish,
    permille: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(200), fc.nat(1100)),
    us: fc.nat(1500),
    patient: fc.boolean(),
    later: fc.constantFrom<'nothing' | 'give back' | 'keep'>('nothing', 'nothing', 'give back', 'keep'),
    whose: fc.nat(5),
  }),
  { minLength: 1, maxLength: 50, size: 'max' },
)

/** Who was told a time that is still to come, or less than a second past: they may come, and others are told later than alone. */
class Told {
  readonly #times: number[] = []

  /** Notes what a refusal told. Says whether nobody else waited. */
  told({ nowUs, retryAfterUs }: StoreDecision): boolean {
    const isAlone = this.#times.every((atUs) => atUs + secondUs <= nowUs)
    this.#times.push(nowUs + toldUs(retryAfterUs!))
    return isAlone
  }
}

onBothStores((stage) => {
  it('unique-targets: never more than the quota in any window, what was seen is free, all else that fits is admitted', async () => {
    await fc.assert(
      fc.asyncProperty(someTargets, steps, async (dimension, steps) => {
        const timed = stage.fresh()
        const { quota, windowUs } = dimension.limit
        const touched = new Map<string, number>()
        const distinct = (): Set<string> =>
          new Set([...touched].filter(([, at]) => at > timed.timeUs() - windowUs).map(([target]) => target))
        for (const { wish, permille, us, patient } of steps) {
          timed.advanceUs(Math.floor((windowUs * permille) / 1000) + us)
          const charge = claim(dimension, wish, 0)
          const targets = charge.members!
          let decision = await timed.store.decide(ask([charge]))
          const seen = distinct()
          const isFree = targets.every((target) => seen.has(target))
          const after = new Set([...seen, ...targets]).size
          expect(decision.admitted).toBe(isFree || after <= quota)
          if (!decision.admitted) {
            expect(decision.retryAfterUs === null).toBe(targets.length > quota)
            if (!patient || decision.retryAfterUs === null) continue
            timed.advanceUs(decision.retryAfterUs)
            decision = await timed.store.decide(ask([charge]))
            expect(decision.admitted).toBe(true)
          }
          for (const target of targets) touched.set(target, decision.nowUs)
          expect(distinct().size).toBeLessThanOrEqual(quota)
          expect(decision.outcomes[0]!.remaining).toBe(quota - distinct().size)
        }
      }),
      stage.runs(400),
    )
  })

  it('concurrency: as many slots as the quota, each until it is given back or its lease runs out, kept by renewal', async () => {
    await fc.assert(
      fc.asyncProperty(someSlots, steps, async (dimension, steps) => {
        const timed = stage.fresh()
        const { quota, windowUs } = dimension.limit
        const held = new Map<string, number>()
        const made: Charged[] = []
        for (const [number, { wish, permille, us, later, whose }] of steps.entries()) {
          timed.advanceUs(Math.floor((windowUs * permille) / 1000) + us)
          for (const [name, until] of held) if (until <= timed.timeUs()) held.delete(name)
          const charge = claim(dimension, wish, number)
          const [name] = charge.members as [string]
          const request = ask([charge])
          const decision = await timed.store.decide(request)
          expect(decision.admitted).toBe(held.has(name) || held.size < quota)
          expect(decision.retryAfterUs === 0).toBe(decision.admitted)
          if (decision.admitted) {
            held.set(name, timed.timeUs() + windowUs)
            made.push(...chargedBy(request, decision))
          } else {
            // No slot is held longer than its lease.
            expect(decision.retryAfterUs).toBeLessThanOrEqual(Math.min(...held.values()) - timed.timeUs() + windowUs)
          }
          expect(decision.outcomes[0]!.remaining).toBe(quota - held.size)
          const charged = made[whose]
          if (later === 'nothing' || charged === undefined) continue
          const [mine] = charged.charge.members as [string]
          const does = later === 'keep' ? 'renew' : 'release'
          if (does === 'renew' && !held.has(mine)) continue
          // Twice gives back once.
          const correction: Correction = { charged, does, by: 0 }
          await timed.store.settle([correction, correction])
          if (does === 'renew') held.set(mine, timed.timeUs() + windowUs)
          else held.delete(mine)
        }
      }),
      stage.runs(400),
    )
  })

  for (const reserve of [false, true]) {
    it(`failures, ${reserve ? 'reserved' : 'counted afterwards'}: refused once the quota of them has happened, and never before`, async () => {
      const attempts = fc.array(
        fc.record({
          permille: fc.oneof(fc.constant(0), fc.nat(150), fc.nat(1100)),
          fails: fc.boolean(),
          patient: fc.boolean(),
        }),
        { minLength: 1, maxLength: 60, size: 'max' },
      )
      await fc.assert(
        fc.asyncProperty(fc.integer({ min: 1, max: 16 }), attempts, async (quota, attempts) => {
          const timed = stage.fresh()
          const windowUs = secondUs
          const charge: Charge = { ...failing(quota, windowUs), after: !reserve }
          const failed: number[] = []
          const others = new Told()
          const recent = (): number => failed.filter((at) => at > timed.timeUs() - windowUs).length
          for (const { permille, fails, patient } of attempts) {
            timed.advanceUs((windowUs * permille) / 1000)
            let decision = await timed.store.decide(ask([charge]))
            expect(decision.admitted).toBe(recent() < quota)
            if (!decision.admitted) {
              const isAlone = others.told(decision)
              if (!patient) continue
              timed.advanceUs(toldUs(decision.retryAfterUs!) - msUs)
              if (isAlone) expect((await timed.store.decide(ask([charge], false))).admitted).toBe(false)
              timed.advanceUs(msUs)
              decision = await timed.store.decide(ask([charge]))
              expect(decision.admitted).toBe(true)
            }
            const [charged] = chargedBy(ask([charge]), decision) as [Charged]
            const by = Number(fails) - charged.cost
            if (by !== 0) await timed.store.settle([{ charged, by }])
            if (fails) failed.push(timed.timeUs())
          }
        }),
        stage.runs(200),
      )
    })
  }

  it('failures, reserved: as many tries at once as there may be failures, whatever becomes of them', async () => {
    const timed = stage.fresh()
    const charge: Charge = { ...failing(5, 60 * secondUs), after: false }
    const decisions = await Promise.all(Array.from({ length: 30 }, () => timed.store.decide(ask([charge]))))
    expect(decisions.filter(({ admitted }) => admitted)).toHaveLength(5)
    const charged = decisions.flatMap((decision) => chargedBy(ask([charge]), decision))
    await timed.store.settle(charged.slice(0, 3).map((one) => ({ charged: one, by: -1 })))
    const again = await Promise.all(Array.from({ length: 30 }, () => timed.store.decide(ask([charge]))))
    expect(again.filter(({ admitted }) => admitted)).toHaveLength(3)
  })

  it('a charge that is known later needs room for one, and its debt is waited out to the millisecond', async () => {
    const history = fc.record({
      kind: fc.constantFrom('token-bucket' as const, 'sliding-log' as const, 'fixed-window' as const),
      quota: fc.integer({ min: 1, max: 50 }),
      costs: fc.array(fc.nat(400), { minLength: 1, maxLength: 12 }),
    })
    await fc.assert(
      fc.asyncProperty(history, async ({ kind, quota, costs }) => {
        const timed = stage.fresh()
        const charge: Charge = { ...failing(quota, 10 * secondUs), kind, after: true, cost: 1000 }
        let owed = 0
        for (const cost of costs) {
          let decision = await timed.store.decide(ask([charge]))
          if (!decision.admitted) {
            expect(owed).toBeGreaterThan(0)
            // As far as a bucket remembers a debt.
            timed.advanceUs(toldUs(decision.retryAfterUs!) - msUs)
            expect((await timed.store.decide(ask([charge]))).admitted).toBe(false)
            timed.advanceUs(msUs)
            decision = await timed.store.decide(ask([charge]))
            owed = 0
          }
          expect(decision.admitted).toBe(true)
          const before = decision.outcomes[0]!.remaining
          expect(before).toBeGreaterThan(0)
          await timed.store.settle([{ charged: { charge, cost: 0, chargedAtUs: decision.nowUs }, by: cost }])
          owed = cost
          const { outcomes } = await timed.store.decide(ask([charge], false))
          expect(outcomes[0]!.remaining).toBe(Math.max(0, before - cost))
          if (kind === 'token-bucket' && cost > before) {
            // One is there again when all that is missing from it has been paid back.
            const missing = cost - before + 1
            expect(outcomes[0]!.waitUs).toBeLessThanOrEqual(Math.ceil((missing * charge.windowUs) / quota))
          }
        }
      }),
      stage.runs(150),
    )
  })

  it('calendar quotas: the quota in every period, never twice of it, and a told time that is true', async () => {
    const visits = fc.array(
      fc.record({
        wish: someWish,
        permille: fc.oneof({ weight: 2, arbitrary: fc.constant(0) }, fc.nat(400), fc.nat(1500)),
        patient: fc.boolean(),
      }),
      { minLength: 1, maxLength: 25, size: 'max' },
    )
    const start = fc.record({ point: fc.nat(turningPoints.length - 1), before: fc.nat(3_000_000) })
    await fc.assert(
      fc.asyncProperty(someCalendarQuota, start, visits, async ({ limit }, { point, before }, visits) => {
        const timed = stage.fresh()
        if (turningPoints[point]! - before > timed.timeUs()) timed.setTimeUs(turningPoints[point]! - before)
        const used = new Map<number, number>()
        for (const { wish, permille, patient } of visits) {
          timed.advanceUs(Math.floor((limit.windowUs * permille) / 1000))
          const charge = claim({ limit }, wish, 0)
          let decision = await timed.store.decide(ask([charge]))
          const period = periodOf(limit, timed.timeUs())
          const fits = (used.get(period.startUs) ?? 0) + charge.cost <= limit.quota
          expect(decision.admitted).toBe(fits || charge.cost === 0)
          if (!decision.admitted) {
            const told = timed.timeUs() + decision.retryAfterUs!
            expect(told).toBeGreaterThanOrEqual(period.endUs)
            expect(told).toBeLessThanOrEqual(period.endUs + Math.min(limit.windowUs / 100, 300 * secondUs))
            if (!patient) continue
            timed.setTimeUs(period.endUs - 1)
            expect((await timed.store.decide(ask([charge]))).admitted).toBe(false)
            timed.setTimeUs(told)
            decision = await timed.store.decide(ask([charge]))
            expect(decision.admitted).toBe(true)
          }
          const { startUs } = periodOf(limit, timed.timeUs())
          used.set(startUs, (used.get(startUs) ?? 0) + charge.cost)
        }
        for (const amount of used.values()) expect(amount).toBeLessThanOrEqual(limit.quota)
      }),
      stage.runs(300),
    )
  })

  it('pools: together never over the quota, a guarantee for each tier whoever floods, and told times that are true', async () => {
    const asks = fc.array(
      fc.record({
        tier: fc.nat(2),
        cost: fc.integer({ min: 1, max: 4 }),
        permille: fc.oneof(fc.constant(0), fc.nat(80), fc.nat(1200)),
        patient: fc.boolean(),
      }),
      { minLength: 1, maxLength: 70, size: 'max' },
    )
    await fc.assert(
      fc.asyncProperty(sharedPool(['token-bucket', 'sliding-log', 'fixed-window']), asks, async (pool, asks) => {
        const timed = stage.fresh()
        const uses = new Map<number, Use[]>()
        for (const [request, { tier, cost, permille, patient }] of asks.entries()) {
          const seats = pool.tiers[tier % pool.tiers.length]!
          timed.advanceUs(Math.floor((seats[0].windowUs * permille) / 1000))
          const charges = claimOfPool(seats, cost)
          const hasOwn = (await timed.store.decide(ask([withoutRole(charges[0]!)], false))).admitted
          let decision = await timed.store.decide(ask(charges))
          if (hasOwn) expect(decision.admitted).toBe(true)
          if (!decision.admitted) {
            const never = cost > seats[0].capacity && (cost > seats[1].capacity || cost > seats[2].capacity)
            expect(decision.retryAfterUs === null).toBe(never)
            if (never || !patient) continue
            timed.advanceUs(decision.retryAfterUs!)
            decision = await timed.store.decide(ask(charges))
            expect(decision.admitted).toBe(true)
          }
          for (const { charge } of chargedBy(ask(charges), decision)) {
            if (charge.role === 'demand') continue
            const of = uses.get(charge.stateId) ?? []
            of.push({ atUs: decision.nowUs, amount: charge.cost, request })
            uses.set(charge.stateId, of)
            expect(overCap(charge, of, decision.nowUs)).toBe(undefined)
          }
          expect(overPool(pool, [...uses.values()].flat(), decision.nowUs)).toBe(undefined)
        }
      }),
      stage.runs(300),
    )
  })
})

function failing(quota: number, windowUs: number): Charge {
  const limit = { windowUs, quota, capacity: quota, liftable: false, shadow: false }
  return { ...limit, kind: 'failures', stateId: 5, partition: 'key:one', cost: 1 }
}

function withoutRole(charge: Charge): Charge {
  return { ...charge, role: undefined, seating: undefined }
}

/** What all tiers of a pool used together in the window that ends now, where that has a bound. */
function overPool({ tiers }: SharedPool, uses: readonly Use[], nowUs: number): string | undefined {
  const [own, common] = tiers[0]!
  if (own.kind === 'fixed-window') return undefined
  const windowUs = own.windowUs
  const bound =
    own.kind === 'token-bucket'
      ? tiers.length * (own.capacity + own.quota) + common.capacity + common.quota
      : tiers.length * own.quota + common.quota
  const sum = uses.filter(({ atUs }) => atUs > nowUs - windowUs).reduce((total, { amount }) => total + amount, 0)
  return sum > bound ? `${sum} of ${bound}` : undefined
}

/** The period that a moment lies in, found by walking the days of the calendar. */
function periodOf({ calendar, windowUs }: Limit, timeUs: number): { startUs: number; endUs: number } {
  if (calendar!.monthDay === 0) {
    const mondayUs = Date.UTC(2001, 0, 1) * 1000
    const origin =
      windowUs % (7 * dayUs) === 0 ? mondayUs - (mondayUs % windowUs === 0 ? 0 : weeksOff(mondayUs, windowUs)) : 0
    const startUs = timeUs - ((((timeUs - origin) % windowUs) + windowUs) % windowUs)
    return { startUs, endUs: startUs + windowUs }
  }
  const isStart = (dayMs: number): boolean => {
    const day = new Date(dayMs)
    const isLast = new Date(dayMs + 86_400_000).getUTCDate() === 1
    return day.getUTCDate() === calendar!.monthDay || (isLast && day.getUTCDate() < calendar!.monthDay)
  }
  let startMs = Math.floor(timeUs / dayUs) * 86_400_000
  while (!isStart(startMs)) startMs -= 86_400_000
  let endMs = startMs + 86_400_000
  while (!isStart(endMs)) endMs += 86_400_000
  return { startUs: startMs * 1000, endUs: endMs * 1000 }
}

/** Windows of several weeks are counted from the Monday before 1970. */
function weeksOff(mondayUs: number, windowUs: number): number {
  const firstUs = Date.UTC(1969, 11, 29) * 1000
  return (mondayUs - firstUs) % windowUs
}

describe('a calendar quota', () => {
  it('spreads those who come back over a hundredth of its window, five minutes at most', () => {
    const { calendar, windowMs } = fixedWindow({ quota: 1, window: '1d', align: 'utc' })
    const places = Array.from({ length: 100 }, (_, index) => calendarLimit(calendar!, windowMs, index / 100).spreadUs)
    expect(new Set(places).size).toBe(100)
    expect(Math.max(...places)).toBeLessThan(300 * secondUs)
    const hour = fixedWindow({ quota: 1, window: '1h', align: 'utc' })
    expect(calendarLimit(hour.calendar!, hour.windowMs, 1).spreadUs).toBe(36 * secondUs)
  })
})

describe('priority', () => {
  const limits = (priorities: readonly number[]): SharedPool['tiers'] =>
    priorities.map((priority, seat) => {
      const higher = priorities.flatMap((other, index) => (other > priority ? [index] : []))
      const base = {
        partition: '@pool:shared',
        windowUs: secondUs,
        liftable: false,
        shadow: false,
        seating: { seats: priorities.length, seat, higher },
      }
      const common = { quota: 80, capacity: 80 }
      return [
        { ...base, kind: 'sliding-log', stateId: 10 + seat, role: 'own', quota: 10, capacity: 10 },
        { ...base, kind: 'sliding-log', stateId: 20, role: 'common', ...common },
        { ...base, kind: 'pool-demand', stateId: 30, role: 'demand', ...common },
      ]
    })

  /** So many requests of each tier every 20 ms, for five windows; what each got in the last three. */
  async function served(
    demand: readonly number[],
    priorities: readonly number[],
    claims = claimOfPool,
  ): Promise<number[]> {
    let now = Date.UTC(2026, 0, 1)
    const store = memoryStore({ now: () => now }).open({ nameOf: (partition) => partition })
    const tiers = limits(priorities)
    const got = demand.map(() => 0)
    for (let tick = 0; tick < 250; tick += 1) {
      // Whoever is lower asks first: being early must not help.
      for (const seat of demand.keys()) {
        for (let times = 0; times < demand[seat]!; times += 1) {
          const { admitted } = await store.decide(ask(claims(tiers[seat]!, 1)))
          if (admitted && tick >= 100) got[seat]! += 1
        }
      }
      now += 20
    }
    return got.map((sum) => sum / 3)
  }

  it('gives the higher all that it asks for, and the lower its guarantee, when both flood', async () => {
    const [low, high] = (await served([10, 10], [0, 1])) as [number, number]
    expect(high).toBeGreaterThan(80)
    expect(low).toBeGreaterThanOrEqual(9)
    expect(low).toBeLessThan(16)
  })

  it('gives the lower what the higher leaves', async () => {
    // The higher asks for 50 a second: 10 are its own, 40 of the common 80.
    const [low, high] = (await served([10, 1], [0, 1])) as [number, number]
    expect(high).toBeGreaterThan(48)
    expect(low).toBeGreaterThan(40)
    expect(low + high).toBeLessThanOrEqual(100)
  })

  it('lets those of one priority share, and one alone have all that is common', async () => {
    const [one, other] = (await served([10, 10], [1, 1])) as [number, number]
    expect(one + other).toBeGreaterThan(90)
    const [alone] = (await served([10, 0], [0, 1])) as [number]
    expect(alone).toBeGreaterThan(80)
  })

  it('is not claimed by what the pool can never give, nor by what another limit refuses', async () => {
    const spent: Limit = {
      kind: 'sliding-log',
      stateId: 99,
      partition: 'key:spent',
      windowUs: 3600 * secondUs,
      quota: 1,
      capacity: 1,
      liftable: false,
      shadow: false,
    }
    const claims = (tier: SharedPool['tiers'][number], cost: number): Charge[] =>
      tier[0].seating!.seat === 1 ? [...claimOfPool(tier, cost), { ...spent, cost: 1 }] : claimOfPool(tier, cost)
    const [low] = (await served([10, 10], [0, 1], claims)) as [number]
    expect(low).toBeGreaterThan(75)
    const tooMuch = (tier: SharedPool['tiers'][number], cost: number): Charge[] =>
      claimOfPool(tier, tier[0].seating!.seat === 1 ? 1e12 : cost)
    const [still] = (await served([10, 10], [0, 1], tooMuch)) as [number]
    expect(still).toBeGreaterThan(75)
  })
})

describe('on Redis, over two connections at once', () => {
  it('no more slots are held than there are, whoever comes and goes, and all come back', async () => {
    const server = await startTestRedis()
    const clients = [new Redis(server.url), new Redis(server.url)]
    const prefix = `${randomUUID()}:`
    const stores = clients.map((client) =>
      redisStore(client, { prefix, rememberRefusals: false }).open({ nameOf: (partition) => partition }),
    )
    await Promise.all(stores.map((store) => store.ready()))
    const limit: Limit = {
      kind: 'concurrency',
      stateId: 3,
      partition: 'key:one',
      windowUs: 30 * secondUs,
      quota: 7,
      capacity: 7,
      liftable: false,
      shadow: false,
    }
    let held = 0
    let most = 0
    let admitted = 0
    const work = async (worker: number): Promise<void> => {
      const store = stores[worker % 2]!
      for (let round = 0; round < 40; round += 1) {
        const charge: Charge = { ...limit, members: [`${worker}.${round}`], cost: 1 }
        const request = ask([charge])
        const decision: StoreDecision = await store.decide(request)
        if (!decision.admitted) continue
        held += 1
        admitted += 1
        most = Math.max(most, held)
        if (round % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
        // Before it is given back: until then nobody else may have it.
        held -= 1
        const [charged] = chargedBy(request, decision) as [Charged]
        await store.settle([{ charged, does: 'release', by: 0 }])
      }
    }
    await Promise.all(Array.from({ length: 24 }, (_, worker) => work(worker)))
    expect(most).toBeLessThanOrEqual(7)
    expect(most).toBeGreaterThan(4)
    expect(admitted).toBeGreaterThan(100)
    const { outcomes } = await stores[0]!.decide(ask([{ ...limit, members: ['last'], cost: 1 }], false))
    expect(outcomes[0]!.remaining).toBe(7)
    await Promise.all(stores.map((store) => store.close()))
    await Promise.all(clients.map((client) => client.quit()))
    await server.stop()
  })
})
