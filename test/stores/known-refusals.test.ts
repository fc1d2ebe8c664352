import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { KnownRefusals } from '../../src/stores/redis/known-refusals.ts'
import { notation } from '../../src/stores/redis/plan.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { Shapes } from '../../src/stores/redis/shapes.ts'
import type { Charge, DecisionRequest, OpenStore, StoreDecision } from '../../src/stores/store.ts'
import type { TestRedis } from '../../src/testing/start-redis.ts'
import { startTestRedis } from '../redis.ts'

const hourUs = 3_600_000_000

function hourly(more: Partial<Charge> = {}): Charge {
  const limit = { windowUs: hourUs, quota: 3, capacity: 3, cost: 1, liftable: false, shadow: false }
  return { kind: 'fixed-window', stateId: 7, partition: 'key:one', ...limit, ...more }
}

const asking = (...charges: Charge[]): DecisionRequest => ({ charges, undo: [], commit: true })

describe('on Redis', () => {
  let server: TestRedis
  let redis: Redis
  beforeAll(async () => {
    server = await startTestRedis()
    redis = new Redis(server.url)
  })
  afterAll(async () => {
    redis.disconnect()
    await server.stop()
  })

  async function open(prefix = `${randomUUID()}:`): Promise<OpenStore> {
    const store = redisStore(redis, { prefix }).open({ nameOf: (partition) => partition })
    onTestFinished(() => store.close())
    await store.ready()
    return store
  }

  async function decide(store: OpenStore, charge = hourly()): Promise<StoreDecision> {
    return await store.decide(asking(charge))
  }

  /** Uses the quota up, and the schedule until it has no time left to tell. */
  async function exhaust(store: OpenStore): Promise<StoreDecision> {
    let last = await decide(store)
    for (let times = 0; times < 40; times += 1) last = await decide(store)
    expect(last.admitted).toBe(false)
    return last
  }

  async function calls(play: () => Promise<void>): Promise<number> {
    const counted = async (): Promise<number> =>
      Number(/cmdstat_evalsha:calls=(\d+)/.exec(await redis.info('commandstats'))?.[1] ?? 0)
    const before = await counted()
    await play()
    return (await counted()) - before
  }

  it('a storm of retries is answered without it, and told the same moment', async () => {
    const store = await open()
    const { nowUs, retryAfterUs } = await exhaust(store)
    const until = nowUs + retryAfterUs!
    const asked = await calls(async () => {
      for (let times = 0; times < 2000; times += 1) {
        const told = await decide(store)
        expect(told.admitted).toBe(false)
        // Times that were kept here run by another clock, for a second at most.
        expect(Math.abs(told.nowUs + told.retryAfterUs! - until)).toBeLessThan(20_000)
        expect(told.outcomes[0]).toMatchObject({ verdict: 'refused', remaining: 0 })
      }
    })
    expect(asked).toBeLessThan(20)
  })

  it('the first of a herd are told different times by it', async () => {
    const store = await open()
    for (let times = 0; times < 3; times += 1) await decide(store)
    const told = []
    for (let times = 0; times < 3; times += 1) {
      const { nowUs, retryAfterUs } = await decide(
        store,
        hourly({ windowUs: hourUs, quota: 1, capacity: 1, stateId: 8 }),
      )
      told.push(nowUs + retryAfterUs!)
    }
    expect(new Set(told).size).toBe(3)
  })

  it.each([
    ['a settlement', (store: OpenStore, charged: number) => giveBack(store, charged)],
    ['a reset', (store: OpenStore) => store.reset('key:one', [7])],
    [
      'an outer limiter’s charge that is undone',
      async (store: OpenStore, charged: number) => {
        const undo = [{ charge: hourly(), cost: 1, chargedAtUs: charged }]
        expect((await store.decide({ ...asking(hourly()), undo })).admitted).toBe(true)
        await giveBack(store, charged)
      },
    ],
  ] as const)('%s ends it at once', async (_, giveRoom) => {
    const store = await open()
    const { nowUs } = await decide(store)
    await exhaust(store)
    expect((await decide(store)).admitted).toBe(false)
    await giveRoom(store, nowUs)
    expect((await decide(store)).admitted).toBe(true)
  })

  it('whoever asks for less, or under another limit, is not refused with it', async () => {
    const store = await open()
    const three = hourly({ cost: 3 })
    await decide(store)
    for (let times = 0; times < 20; times += 1) expect((await decide(store, three)).admitted).toBe(false)
    expect((await decide(store)).admitted).toBe(true)
    expect((await decide(store, hourly({ cost: 3, quota: 5, capacity: 5 }))).admitted).toBe(true)
  })

  it('what another process gives back counts within a second', async () => {
    const prefix = `${randomUUID()}:`
    const [store, other] = [await open(prefix), await open(prefix)]
    const { nowUs } = await decide(store)
    await exhaust(store)
    await giveBack(other, nowUs)
    const started = performance.now()
    let asked = 0
    while (!(await decide(store)).admitted) {
      asked += 1
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    expect(asked).toBeGreaterThan(0)
    // A second, and what a busy machine adds to it.
    expect(performance.now() - started).toBeLessThan(30_000)
  })

  it('can be turned off', async () => {
    const store = redisStore(redis, { prefix: `${randomUUID()}:`, rememberRefusals: false }).open({
      nameOf: (partition) => partition,
    })
    onTestFinished(() => store.close())
    await store.ready()
    await exhaust(store)
    const asked = await calls(async () => {
      for (let times = 0; times < 10; times += 1) await decide(store)
    })
    expect(asked).toBe(10)
  })

  async function giveBack(store: OpenStore, chargedAtUs: number): Promise<void> {
    await store.settle([{ charged: { charge: hourly(), cost: 1, chargedAtUs }, by: -1 }])
  }
})

describe('what is remembered', () => {
  let nowMs = 0
  const shapes = new Shapes(notation)

  function refused(charges: readonly Charge[], waitUs: number | null, retryAfterUs: number | null): StoreDecision {
    const outcome = { verdict: 'refused', remaining: 0, waitUs, resetUs: 5_000_000, added: 0 } as const
    return { admitted: false, nowUs: 1_000_000, retryAfterUs, outcomes: charges.map(() => outcome) }
  }

  function shaped(...charges: Charge[]): { request: DecisionRequest; shape: ReturnType<Shapes['of']> } {
    const request = asking(...charges)
    return { request, shape: shapes.of(request) }
  }

  function known(): KnownRefusals {
    nowMs = 0
    return new KnownRefusals(() => nowMs)
  }

  // A fixed window of an hour reaches four hours past a lone wait.
  const reachUs = 4 * hourUs

  it('stands until there is room, a second at most, and counts down meanwhile', () => {
    const refusals = known()
    const one = shaped(hourly())
    refusals.learn(one, refused([hourly()], 700_000, 700_000 + reachUs), 0)
    nowMs = 300
    expect(refusals.find(one)).toMatchObject({
      admitted: false,
      nowUs: 1_300_000,
      retryAfterUs: 400_000 + reachUs,
      outcomes: [{ verdict: 'refused', waitUs: 400_000, resetUs: 4_700_000 }],
    })
    nowMs = 700
    expect(refusals.find(one)).toBeUndefined()

    refusals.learn(one, refused([hourly()], hourUs, hourUs + reachUs), 700)
    nowMs = 1699
    expect(refusals.find(one)).toBeDefined()
    nowMs = 1700
    expect(refusals.find(one)).toBeUndefined()
  })

  it('counts from when it was asked, not from when the answer came', () => {
    const refusals = known()
    const one = shaped(hourly())
    nowMs = 400
    refusals.learn(one, refused([hourly()], 600_000, 600_000 + reachUs), 0)
    nowMs = 599
    expect(refusals.find(one)).toBeDefined()
    nowMs = 600
    expect(refusals.find(one)).toBeUndefined()
  })

  it('is no time that was noted for one client, and no admission', () => {
    const refusals = known()
    const one = shaped(hourly())
    refusals.learn(one, refused([hourly()], 700_000, 700_000), 0)
    refusals.learn(one, refused([hourly()], 700_000, 699_999 + reachUs), 0)
    refusals.learn(one, { ...refused([hourly()], 0, 0), admitted: true }, 0)
    expect(refusals.find(one)).toBeUndefined()
  })

  it('does not wait longer than the first minutes’ extra', () => {
    const refusals = known()
    const charges = [hourly({ liftable: true }), hourly({ kind: 'first-minutes', stateId: 9, capacity: 24 * hourUs })]
    const one = shaped(...charges)
    const decision = refused(charges, 900_000, 900_000 + reachUs)
    const outcomes = [decision.outcomes[0]!, { ...decision.outcomes[1]!, verdict: 'fits', waitUs: 200_000 } as const]
    refusals.learn(one, { ...decision, outcomes }, 0)
    nowMs = 199
    expect(refusals.find(one)).toBeDefined()
    nowMs = 200
    expect(refusals.find(one)).toBeUndefined()
  })

  it('is not learned from an answer that something was given back after', () => {
    const refusals = known()
    const one = shaped(hourly())
    nowMs = 10
    refusals.forget('key:one')
    refusals.learn(one, refused([hourly()], hourUs, hourUs + reachUs), 10)
    expect(refusals.find(one)).toBeUndefined()
    refusals.learn(one, refused([hourly()], hourUs, hourUs + reachUs), 11)
    expect(refusals.find(one)).toBeDefined()
  })

  it('is not learned so either when thousands of others gave back since', () => {
    const refusals = known()
    const one = shaped(hourly())
    nowMs = 10
    refusals.forget('key:one')
    nowMs = 20
    for (let other = 0; other < 10_000; other += 1) refusals.forget(`key:${other}`)
    refusals.learn(one, refused([hourly()], hourUs, hourUs + reachUs), 9)
    expect(refusals.find(one)).toBeUndefined()
  })
})
