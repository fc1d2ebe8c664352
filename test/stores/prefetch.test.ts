// What is taken ahead of time is the quota's all the same: whatever several processes take, spend, put back and give back, no
// window sees more than its quota, and what nobody spent can be had again.

import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import type { Policy } from '../../src/policy.ts'
import { CircumstancesOfDecide, price } from '../../src/price.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { prefetching } from '../../src/stores/redis/prefetch.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, OpenStore, StoreDecision } from '../../src/stores/store.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'

const client = { id: 'key:acme', kind: 'unknown', tier: 'default', claims: {}, address: null } as unknown as Parameters<
  typeof price
>[1]

function chargeOf(policy: Policy): Charge {
  const planned = { policy, ofRoute: false, liftable: false, highRisk: false, scales: false }
  const [priced] = price(
    [planned],
    client,
    new CircumstancesOfDecide(client, { client: { id: client.id } }),
  ) as unknown as [{ charge: Charge }]
  return priced.charge
}

let server: RedisWithClock
let redis: Redis
let runs = 0

beforeAll(async () => {
  server = await startRedisWithClock()
  redis = new Redis(server.url)
}, 60_000)

afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

/** Processes that share a store, and a clock that all of them and Redis go by. */
class World {
  readonly processes: OpenStore[]
  /** What the store was asked, by how many charges. */
  readonly asked: number[] = []
  #due: { at: number; act: () => void }[] = []

  constructor(count: number) {
    runs += 1
    this.processes = Array.from({ length: count }, () => {
      const inner = redisStore(redis, { prefix: `prefetch-${runs}:` }).open({ nameOf: (partition) => partition })
      const plain = (charge: Charge): Charge => ({ ...charge, prefetch: undefined })
      return prefetching(
        {
          ...inner,
          decide: (request, caller) => {
            this.asked.push(request.charges.length)
            return inner.decide({ ...request, charges: request.charges.map(plain) }, caller)
          },
        },
        {
          now: () => server.timeUs() / 1000,
          after: (ms, act) => void this.#due.push({ at: server.timeUs() / 1000 + ms, act }),
        },
      )
    })
  }

  async ready(): Promise<void> {
    await Promise.all(this.processes.map((one) => one.ready()))
  }

  async decide(index: number, ...charges: Charge[]): Promise<StoreDecision> {
    const decision = await this.processes[index]!.decide({ charges, undo: [], commit: true })
    await this.settled()
    return decision
  }

  /** What is taken and given back beside the decisions has arrived, on whichever connection. */
  async settled(): Promise<void> {
    for (let round = 0; round < 3; round += 1) {
      await Promise.all(this.processes.map((one) => one.decide({ charges: [], undo: [], commit: false })))
    }
  }

  async advance(ms: number): Promise<void> {
    const until = server.timeUs() / 1000 + ms
    for (;;) {
      const next = this.#due.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)[0]
      if (next === undefined) break
      this.#due = this.#due.filter((one) => one !== next)
      if (next.at * 1000 > server.timeUs()) server.setTimeUs(Math.ceil(next.at * 1000))
      next.act()
      await this.settled()
    }
    server.setTimeUs(Math.max(server.timeUs(), Math.ceil(until * 1000)))
  }

  async close(): Promise<void> {
    await Promise.all(this.processes.map((one) => one.close()))
  }
}

const shared = { partition: 'global', window: '10s', prefetch: { share: 0.1, ttl: '1s' } } as const
const quota = 60

describe.each([
  ['slidingWindow', slidingWindow({ name: 'all', quota, ...shared }), 10_000],
  ['slidingLog', slidingLog({ name: 'all', quota, ...shared }), 10_000],
  ['fixedWindow', fixedWindow({ name: 'all', quota, ...shared }), undefined],
  ['tokenBucket', tokenBucket({ name: 'all', quota, ...shared }), undefined],
] as const)('%s that is taken ahead', (kind, policy, windowMs) => {
  const charge = chargeOf(policy)

  it('admits no more than the quota, and no less than what nobody holds', { timeout: 120_000 }, async () => {
    const step = fc.record({
      process: fc.nat({ max: 2 }),
      requests: fc.nat({ max: 30 }),
      cost: fc.constantFrom(1, 1, 1, 2, 7),
      wait: fc.oneof(fc.nat({ max: 50 }), fc.nat({ max: 3000 }), fc.constant(999), fc.constant(1001)),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 12 }), async (steps) => {
        const world = new World(3)
        await world.ready()
        const admitted: { at: number; cost: number }[] = []
        try {
          for (const { process, requests, cost, wait } of steps) {
            for (let nth = 0; nth < requests; nth += 1) {
              const decision = await world.decide(process, { ...charge, cost })
              if (decision.admitted) admitted.push({ at: server.timeUs() / 1000, cost })
            }
            await world.advance(wait)
          }
          expectWithin(admitted)
          // Nobody asks for a window and what may be held: all of it can be had again.
          await world.advance(12_000)
          const { outcomes } = await world.processes[0]!.decide({
            charges: [{ ...charge, cost: 1 }],
            undo: [],
            commit: false,
          })
          expect(outcomes[0]!.remaining).toBe(charge.capacity)
        } finally {
          await world.close()
        }
      }),
      { numRuns: 15 },
    )
  })

  it('counts for a window from when it was spent, not from when it was charged', async () => {
    const world = new World(2)
    await world.ready()
    const admitted: { at: number; cost: number }[] = []
    const use = async (process: number, most: number): Promise<void> => {
      for (let nth = 0; nth < most; nth += 1) {
        if (!(await world.decide(process, charge)).admitted) return
        admitted.push({ at: server.timeUs() / 1000, cost: 1 })
      }
    }
    await use(0, 1)
    await world.advance(990)
    await use(0, 6)
    await use(1, 200)
    for (const wait of [9011, 500, 480, 200]) {
      await world.advance(wait)
      await use(1, 200)
      await use(0, 200)
    }
    expectWithin(admitted)
    expect(admitted.length).toBeGreaterThan(quota)
    await world.close()
  })

  function expectWithin(admitted: readonly { at: number; cost: number }[]): void {
    for (const { at } of admitted) {
      let sum = 0
      for (const one of admitted) {
        if (one.at < at) continue
        sum += one.cost
        const span = one.at - at
        if (windowMs !== undefined && span < windowMs) expect(sum).toBeLessThanOrEqual(quota)
        if (kind === 'tokenBucket') expect(sum).toBeLessThanOrEqual(quota + (span / 10_000) * quota + 1e-6)
        if (kind === 'fixedWindow' && span < 10_000) expect(sum).toBeLessThanOrEqual(2 * quota)
      }
    }
  }

  it('is spent without asking, and what was not spent is given back after its time', async () => {
    const world = new World(1)
    await world.ready()
    await world.decide(0, charge)
    // The first has asked, and six were taken beside it.
    const before = world.asked.filter((count) => count > 0).length
    for (let nth = 0; nth < 3; nth += 1) expect((await world.decide(0, charge)).admitted).toBe(true)
    expect(world.asked.filter((count) => count > 0).length).toBe(before)
    await world.advance(1001)
    const left = await world.processes[0]!.decide({ charges: [charge], undo: [], commit: false })
    const refilled = kind === 'tokenBucket' ? 6 : 0
    expect(left.outcomes[0]!.remaining).toBe(Math.min(charge.capacity, charge.capacity - 4 + refilled))
    await world.close()
  })
})

describe('a limiter whose quota is taken ahead', () => {
  it('shares it among processes that are asked at once', async () => {
    const policies = [slidingWindow({ name: 'all', quota: 100, ...shared, window: '1m' })]
    runs += 1
    const limiters = Array.from({ length: 3 }, () =>
      rampmeter({ policies, deadline: '5s', store: redisStore(redis, { prefix: `prefetch-${runs}:` }) }),
    )
    await Promise.all(limiters.map((limiter) => limiter.ready()))
    let admitted = 0
    for (let round = 0; round < 20; round += 1) {
      const decisions = await Promise.all(
        limiters.flatMap((limiter, index) =>
          Array.from({ length: 4 }, () => limiter.decide({ client: { id: `key:${index}` } })),
        ),
      )
      admitted += decisions.filter((decision) => decision.admitted).length
    }
    expect(admitted).toBeLessThanOrEqual(100)
    // Each of the others may hold ten.
    expect(admitted).toBeGreaterThanOrEqual(80)
    await Promise.all(limiters.map((limiter) => limiter.close()))
  })

  it.each([
    ['each client', () => slidingWindow({ quota: 100, window: '1m', prefetch: { share: 0.1 } }), "each client's own"],
    [
      'afterwards',
      () => slidingWindow({ quota: 100, window: '1m', partition: 'global', charge: 'after', prefetch: { share: 0.1 } }),
      'charged afterwards',
    ],
    [
      'longer than a tenth of the window',
      () => slidingWindow({ quota: 100, window: '5s', partition: 'global', prefetch: { share: 0.1 } }),
      'at most a tenth',
    ],
    [
      'more than a quarter',
      () => slidingWindow({ quota: 100, window: '1m', partition: 'global', prefetch: { share: 0.5 } }),
      '0.25',
    ],
  ] as const)('refuses at start-up what would be taken %s', (_, make, said) => {
    expect(() => rampmeter({ policies: [make()] })).toThrow(said)
  })

  it('refuses it at start-up in a pool that several tiers share', () => {
    const policies = [slidingWindow({ name: 'all', quota: 1000, window: '1m', prefetch: { share: 0.1 } })]
    const own = { policies: [slidingWindow({ name: 'own', quota: 10, window: '1m' })], pool: 'all' as const }
    const tiers = { one: own, other: own }
    const classify = (): 'one' => 'one'
    expect(() => rampmeter({ tiers, classify, pools: { all: { policies } } })).toThrow('several tiers share it')
  })
})

describe('units that are held', () => {
  const all = chargeOf(slidingWindow({ name: 'all', quota, ...shared }))
  const own: Charge = { ...chargeOf(slidingWindow({ name: 'own', quota: 2, window: '10s' })), partition: 'key:acme' }

  it('come back when another limit refuses, and the wait is the one that all of the limits tell', async () => {
    const world = new World(1)
    await world.ready()
    for (let nth = 0; nth < 2; nth += 1) expect((await world.decide(0, all, own)).admitted).toBe(true)
    const refused = await world.decide(0, all, own)
    expect(refused).toMatchObject({ admitted: false })
    expect(refused.outcomes.map(({ verdict }) => verdict)).toEqual(['fits', 'refused'])
    await world.advance(refused.retryAfterUs! / 1000)
    expect((await world.decide(0, all, own)).admitted).toBe(true)
    await world.close()
  })

  it('are given back on request where they were charged', async () => {
    const world = new World(1)
    await world.ready()
    const first = await world.decide(0, all)
    const second = await world.decide(0, all)
    expect(second.outcomes[0]!.atUs).toBe(first.nowUs)
    await world.processes[0]!.settle([
      { charged: { charge: all, cost: 1, chargedAtUs: second.outcomes[0]!.atUs! }, by: -1 },
    ])
    await world.advance(1001)
    const left = await world.processes[0]!.decide({ charges: [all], undo: [], commit: false })
    expect(left.outcomes[0]!.remaining).toBe(quota - 1)
    await world.close()
  })

  it('are given back when the process says goodbye, and forgotten with their counter', async () => {
    const world = new World(2)
    await world.ready()
    await world.decide(0, all)
    await world.processes[0]!.reset('@global', [])
    const fresh = await world.processes[1]!.decide({ charges: [all], undo: [], commit: false })
    expect(fresh.outcomes[0]!.remaining).toBe(quota)
    await world.decide(0, all)
    await world.processes[0]!.close()
    const left = await world.processes[1]!.decide({ charges: [all], undo: [], commit: false })
    expect(left.outcomes[0]!.remaining).toBe(quota - 1)
    await world.processes[1]!.close()
  })

  it('are not taken for a request that shows a ticket, nor for one that only looks', async () => {
    const world = new World(1)
    await world.ready()
    await world.decide(0, all)
    const tickets = { share: 0.5, horizonUs: 1_000_000, id: 7, client: 3 }
    const before = world.asked.filter((count) => count > 0).length
    await world.processes[0]!.decide({ charges: [all], undo: [], commit: true, tickets })
    await world.processes[0]!.decide({ charges: [all], undo: [], commit: false })
    expect(world.asked.filter((count) => count > 0).length).toBe(before + 2)
    await world.close()
  })
})
