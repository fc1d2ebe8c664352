// Traps that other rate limiters were seen to fall into, run against this library and, where it takes a few lines, against
// the one that fell. Where a newer version of a peer climbs out, its half fails here: then it is to be said in our tables.

import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { RateLimiterMemory, RateLimiterRedis, type RateLimiterRes } from 'rate-limiter-flexible'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import type { Options } from 'express-rate-limit'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PolicyKind } from '../../src/policy.ts'
import type { Charge, StoreDecision } from '../../src/stores/store.ts'
import {
  ask,
  dayUs,
  hourUs,
  memoryStage,
  minuteUs,
  msUs,
  onBothStores,
  redisStage,
  refillingKinds,
  secondUs,
  type TimedStore,
} from '../promises/histories.ts'

/** The peers' Redis, whose clock the tests turn. */
let peers: Awaited<ReturnType<typeof redisStage>>

beforeAll(async () => {
  peers = await redisStage()
})
afterAll(async () => {
  await peers.stop()
})

function charge(kind: PolicyKind, more: Partial<Charge> = {}): Charge {
  const { quota = 10 } = more
  const limit = { windowUs: minuteUs, capacity: quota, cost: 1, liftable: false, shadow: false }
  return { kind, stateId: 7, partition: 'key:one', quota, ...limit, ...more }
}

function decide({ store }: TimedStore, ...charges: Charge[]): Promise<StoreDecision> {
  return store.decide(ask(charges))
}

async function admittedOf(timed: TimedStore, times: number, ...charges: Charge[]): Promise<number> {
  let admitted = 0
  for (let index = 0; index < times; index += 1) if ((await decide(timed, ...charges)).admitted) admitted += 1
  return admitted
}

async function rateLimitRedis(windowMs: number): Promise<RedisStore & { key(client: string): string }> {
  const prefix = `${randomUUID()}:`
  const sendCommand = (command: string, ...args: string[]): Promise<RedisReply> =>
    peers.redis.call(command, ...args) as Promise<RedisReply>
  const store = new RedisStore({ prefix, sendCommand })
  await store.init({ windowMs } as Options)
  return Object.assign(store, { key: (client: string) => `${prefix}${client}` })
}

/** Whether one of rate-limiter-flexible's limiters admits. */
async function consume(limiter: RateLimiterMemory | RateLimiterRedis, points: number): Promise<boolean> {
  return limiter.consume('client', points).then(
    () => true,
    (refusal: RateLimiterRes | Error) => {
      if (refusal instanceof Error) throw refusal
      return false
    },
  )
}

describe('three limits on one request, of which the third refuses', () => {
  onBothStores((stage) => {
    it('charges none of them', async () => {
      const timed = stage.fresh()
      const three = [charge('token-bucket'), charge('sliding-window', { stateId: 8 })]
      const third = charge('fixed-window', { stateId: 9, quota: 1, capacity: 1 })
      await decide(timed, ...three, third)
      expect(await admittedOf(timed, 5, ...three, third)).toBe(0)
      expect((await decide(timed, ...three)).outcomes.map(({ remaining }) => remaining)).toEqual([8, 8])
    })
  })

  it('rate-limit-redis charges the first two all the same', async () => {
    const stores = [await rateLimitRedis(60_000), await rateLimitRedis(60_000), await rateLimitRedis(60_000)]
    const limits = [10, 10, 1]
    for (let times = 0; times < 4; times += 1) {
      for (const [index, store] of stores.entries()) {
        if ((await store.increment('client')).totalHits > limits[index]!) break
      }
    }
    const hits = await Promise.all(stores.map((store) => store.get('client')))
    expect(hits.map((one) => one!.totalHits)).toEqual([4, 4, 4])
  })
})

describe('a refund that arrives after its charge has expired', () => {
  for (const kind of refillingKinds) {
    it(`${kind}: leaves no key, and nothing to spend`, async () => {
      const timed = peers.fresh()
      const late = { charge: charge(kind), cost: 1, chargedAtUs: (await decide(timed, charge(kind))).nowUs }
      timed.advanceUs(2 * minuteUs)
      const before = new Set(await peers.redis.keys('*'))
      await timed.store.settle([{ charged: late, by: -1 }])
      const left = (await peers.redis.keys('*')).filter((key) => !before.has(key))
      expect(left).toEqual([])
      expect(await admittedOf(timed, 20, charge(kind))).toBe(10)
    })
  }

  it('rate-limit-redis leaves a key at -1 that never expires', async () => {
    const timed = peers.fresh()
    const store = await rateLimitRedis(60_000)
    await store.increment('client')
    timed.advanceUs(2 * minuteUs)
    await store.decrement('client')
    expect(await peers.redis.get(store.key('client'))).toBe('-1')
    expect(await peers.redis.pttl(store.key('client'))).toBe(-1)
  })
})

describe('over the edge of a window', () => {
  onBothStores((stage) => {
    for (const kind of ['sliding-window', 'sliding-log', 'token-bucket'] as const) {
      it(`${kind}: a second does not hold two quotas`, async () => {
        const timed = stage.fresh()
        const one = charge(kind, { windowUs: secondUs })
        expect(await admittedOf(timed, 1, one)).toBe(1)
        timed.advanceUs(950 * msUs)
        const before = await admittedOf(timed, 20, one)
        timed.advanceUs(85 * msUs)
        const after = await admittedOf(timed, 20, one)
        // A bucket refills one in 85 ms; of a window, the first of all has just come back.
        expect([before, after]).toEqual(kind === 'token-bucket' ? [10, 0] : [9, 1])
      })
    }
  })

  it('rate-limit-redis admits 19 of 10 within 85 ms', async () => {
    const timed = peers.fresh()
    const store = await rateLimitRedis(1000)
    const admitted = async (): Promise<number> => {
      let count = 0
      for (let times = 0; times < 20; times += 1) if ((await store.increment('client')).totalHits <= 10) count += 1
      return count
    }
    await store.increment('client')
    timed.advanceUs(950 * msUs)
    const before = await admitted()
    timed.advanceUs(85 * msUs)
    expect(before + (await admitted())).toBe(19)
  })
})

describe('a window under a second', () => {
  onBothStores((stage) => {
    for (const kind of refillingKinds) {
      it(`${kind}: is as long as it says`, async () => {
        const timed = stage.fresh()
        const brief = charge(kind, { windowUs: 200 * msUs, quota: 3 })
        for (let round = 0; round < 5; round += 1) {
          expect(await admittedOf(timed, 5, brief)).toBe(3)
          timed.advanceUs(200 * msUs)
        }
      })
    }
  })

  it('rate-limiter-flexible blocks for ever', async () => {
    const timed = peers.fresh()
    const limiter = new RateLimiterRedis({
      storeClient: peers.redis,
      keyPrefix: randomUUID(),
      points: 3,
      duration: 0.2,
      rejectIfRedisNotReady: true,
    })
    for (let times = 0; times < 4; times += 1) await consume(limiter, 1)
    timed.advanceUs(366 * dayUs)
    expect(await consume(limiter, 1)).toBe(false)
  })
})

describe('a window over 24.8 days', () => {
  onBothStores((stage) => {
    for (const kind of refillingKinds) {
      it(`${kind}: limits all the same`, async () => {
        const timed = stage.fresh()
        const long = charge(kind, { windowUs: 30 * dayUs })
        expect(await admittedOf(timed, 20, long)).toBe(10)
        timed.advanceUs(30 * dayUs - 1)
        if (kind !== 'token-bucket') expect(await admittedOf(timed, 20, long)).toBe(0)
        timed.advanceUs(1)
        expect(await admittedOf(timed, 20, long)).toBe(10)
      })
    }
  })

  it('rate-limiter-flexible in memory does not limit at all', async () => {
    const limiter = new RateLimiterMemory({ points: 3, duration: 30 * 86_400 })
    let admitted = 0
    for (let times = 0; times < 10; times += 1) {
      if (await consume(limiter, 1)) admitted += 1
      await sleep(5)
    }
    expect(admitted).toBe(10)
  })
})

describe('a refused request of cost 5', () => {
  onBothStores((stage) => {
    for (const kind of refillingKinds) {
      it(`${kind}: starves none of cost 1 that fits`, async () => {
        const timed = stage.fresh()
        await decide(timed, charge(kind, { cost: 8 }))
        expect(await admittedOf(timed, 10, charge(kind, { cost: 5 }))).toBe(0)
        expect(await admittedOf(timed, 10, charge(kind))).toBe(2)
      })
    }

    it('is told when 5 are there, not when 1 is', async () => {
      const timed = stage.fresh()
      const five = charge('token-bucket', { windowUs: 10 * secondUs, cost: 5 })
      await decide(timed, { ...five, cost: 10 })
      expect((await decide(timed, five)).retryAfterUs).toBe(5 * secondUs)
      const other = { ...five, partition: 'key:other' }
      await decide(timed, { ...other, cost: 10 })
      expect((await decide(timed, { ...other, cost: 1 })).retryAfterUs).toBe(secondUs)
      timed.advanceUs(5 * secondUs)
      expect((await decide(timed, five)).admitted).toBe(true)
    })
  })

  it('rate-limiter-flexible consumes what it refuses', async () => {
    const limiter = new RateLimiterMemory({ points: 10, duration: 60 })
    await consume(limiter, 8)
    expect(await consume(limiter, 5)).toBe(false)
    expect(await consume(limiter, 1)).toBe(false)
  })
})

it("a caller's clock that is 61 s off neither doubles a limit nor refuses anybody", async () => {
  const timed = peers.fresh()
  const systemTime = Date.now
  try {
    for (const kind of refillingKinds) {
      let admitted = 0
      for (let times = 0; times < 30; times += 1) {
        // A server of ours is late, the next one early.
        const offMs = times % 2 === 0 ? 61_000 : -61_000
        Date.now = () => systemTime() + offMs
        if ((await decide(timed, charge(kind, { partition: `key:${kind}` }))).admitted) admitted += 1
      }
      expect(admitted).toBe(10)
    }
  } finally {
    Date.now = systemTime
  }
})

it('a key that lost its expiry heals: it limits as before, tells true waits, and expires after the next charge', async () => {
  for (const kind of refillingKinds) {
    const timed = peers.fresh()
    const known = new Set(await peers.redis.keys('*'))
    const ours = async (): Promise<string[]> => (await peers.redis.keys('*')).filter((key) => !known.has(key))
    expect(await admittedOf(timed, 20, charge(kind))).toBe(10)
    for (const key of await ours()) expect(await peers.redis.persist(key)).toBe(1)
    const refused = await decide(timed, charge(kind))
    expect(refused.retryAfterUs).toBeGreaterThan(0)
    timed.advanceUs(Math.max(minuteUs, refused.retryAfterUs!))
    expect(await admittedOf(timed, 20, charge(kind))).toBe(10)
    for (const key of await ours()) expect(await peers.redis.pttl(key)).toBeGreaterThan(0)
    timed.advanceUs(hourUs)
    expect(await ours()).toEqual([])
  }
})

it('rotating keys forgets no counter of a bounded store, and with it no limit', async () => {
  const timed = memoryStage().fresh()
  await decide(timed, charge('token-bucket', { partition: 'ip:victim', cost: 10 }))
  for (let index = 0; index < 150_000; index += 1) {
    await decide(timed, charge('token-bucket', { partition: `ip:${index}`, quota: 1e9, capacity: 1e9 }))
  }
  expect((await decide(timed, charge('token-bucket', { partition: 'ip:victim' }))).admitted).toBe(false)
})
