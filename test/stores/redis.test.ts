import { spawn, type ChildProcess } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { RedisClient } from '../../src/stores/redis/client.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import * as scripts from '../../src/stores/redis/scripts.ts'
import type { Charge, OpenStore, StoreDecision } from '../../src/stores/store.ts'
import {
  ask,
  chargesOf,
  hourUs,
  madeBy,
  minuteUs,
  mixOf,
  mixWithExtra,
  pauseUs,
  redisStage,
  secondUs,
  stepsOf,
} from '../promises/histories.ts'

let stage: Awaited<ReturnType<typeof redisStage>>
let redis: Redis

beforeAll(async () => {
  stage = await redisStage()
  redis = stage.redis
})
afterAll(async () => {
  await stage.stop()
})

function nameOf(partition: string): string {
  return createHash('sha256').update(partition).digest('base64url').slice(0, 22)
}

/** A store under a prefix of its own, on the server that nobody else uses. */
async function open(prefix = `${randomUUID()}:`, client: RedisClient = redis): Promise<OpenStore & { prefix: string }> {
  const store = redisStore(client, { prefix, rememberRefusals: false }).open({ nameOf })
  await store.ready()
  return { ...store, prefix }
}

function charge(more: Partial<Charge> = {}): Charge {
  const limit = { windowUs: minuteUs, quota: 5, capacity: 5, cost: 1, liftable: false, shadow: false }
  return { kind: 'sliding-log', stateId: 7, partition: 'key:one', ...limit, ...more }
}

function decide(store: OpenStore, ...charges: Charge[]): Promise<StoreDecision> {
  return store.decide(ask(charges))
}

const threePolicies: Charge[] = [
  charge({ kind: 'token-bucket', stateId: 1, quota: 1000, capacity: 1000 }),
  charge({ kind: 'sliding-window', stateId: 2, windowUs: hourUs, quota: 1000, capacity: 1000 }),
  charge({ kind: 'first-minutes', stateId: 3, windowUs: 5 * minuteUs, capacity: 24 * hourUs, quota: 500 }),
]

describe('keys', () => {
  it('each expires, after every decision and correction, at most a minute after what is in it', async () => {
    const histories = fc.tuple(fc.oneof(mixOf(), mixWithExtra()), stepsOf(20))
    await fc.assert(
      fc.asyncProperty(histories, async ([limits, steps]) => {
        const { store, ...timed } = stage.fresh()
        const prefix = randomUUID()
        const ours = redisStore(redis, { prefix, rememberRefusals: false }).open({ nameOf })
        await ours.ready()
        // What was told is in it until a second after.
        let toldUs = 0
        for (const step of steps) {
          timed.advanceUs(pauseUs(step.pause, limits))
          const charges = chargesOf(step, limits)
          const decision = await ours.decide(ask(charges))
          if (!decision.admitted) toldUs = Math.max(toldUs, decision.nowUs + decision.retryAfterUs! + secondUs)
          const made = madeBy(charges, decision).map((one) => ({
            charge: one,
            cost: one.cost,
            chargedAtUs: decision.nowUs,
          }))
          if (step.patient) {
            const half = made.map((charged, index) => ({ charged, by: index % 2 ? -charged.cost : charged.cost }))
            await ours.settle(half)
          }
          const whole = await ours.decide(
            ask(
              limits.map((limit) => ({ ...limit, cost: 1 })),
              false,
            ),
          )
          const longestUs = (partition: string): number =>
            Math.max(
              0,
              ...whole.outcomes.filter((_, at) => limits[at]!.partition === partition).map((one) => one.resetUs),
            )
          for (const key of await redis.keys(`${prefix}*`)) {
            const partition = limits.map((limit) => limit.partition).find((name) => key.includes(nameOf(name)))!
            const ttlUs = (await redis.pttl(key)) * 1000
            expect(ttlUs).toBeGreaterThan(0)
            expect(ttlUs).toBeLessThanOrEqual(Math.max(longestUs(partition), toldUs - timed.timeUs()) + minuteUs)
          }
        }
        await ours.close()
        await store.reset('key:one', [])
      }),
      stage.runs(150),
    )
  })

  it('name no partition, carry the layout, and all of a partition carry one hash tag', async () => {
    const store = await open()
    const secret = 'ip:203.0.113.77'
    await decide(store, charge({ partition: secret }), ...threePolicies.map((one) => ({ ...one, partition: secret })))
    const keys = await redis.keys(`${store.prefix}*`)
    expect(keys.sort()).toEqual([`${store.prefix}2:{${nameOf(secret)}}`, `${store.prefix}2:{${nameOf(secret)}}:7`])
    for (const key of keys) expect(key).not.toContain('203.0.113')
    const dumped = (await redis.getBuffer(keys[0]!))!.toString('latin1')
    expect(dumped).not.toContain('203')
    await store.close()
  })

  it('are gone when all is given back', async () => {
    const store = await open()
    const charges = [
      charge(),
      charge({ kind: 'token-bucket', stateId: 8 }),
      charge({ kind: 'fixed-window', stateId: 9 }),
    ]
    const { nowUs } = await decide(store, ...charges)
    expect(await redis.keys(`${store.prefix}*`)).toHaveLength(2)
    await store.settle(charges.map((one) => ({ charged: { charge: one, cost: 1, chargedAtUs: nowUs }, by: -1 })))
    expect(await redis.keys(`${store.prefix}*`)).toEqual([])
    await store.close()
  })

  it('a refused newcomer leaves none, and a look neither', async () => {
    const store = await open()
    expect((await decide(store, charge({ cost: 6 }), ...threePolicies)).admitted).toBe(false)
    await store.decide(ask([charge(), ...threePolicies], false))
    expect(await redis.keys(`${store.prefix}*`)).toEqual([])
    await store.close()
  })

  it('a counter that lasts beyond the year 2106 is kept, beside others and when they expire', async () => {
    const timed = stage.fresh()
    const store = await open()
    const slow = charge({ kind: 'token-bucket', stateId: 8, windowUs: 366 * 24 * hourUs, quota: 1, capacity: 200 })
    await decide(store, { ...slow, cost: 200 }, charge({ windowUs: secondUs }))
    timed.advanceUs(2 * secondUs)
    await decide(store, charge({ windowUs: secondUs }))
    expect((await decide(store, slow)).admitted).toBe(false)
    await store.close()
  })
})

describe('commands', () => {
  async function called(play: () => Promise<unknown>): Promise<Record<string, number>> {
    await redis.config('RESETSTAT')
    await play()
    const stats = await redis.info('commandstats')
    const calls = [...stats.matchAll(/^cmdstat_([^:]+):calls=(\d+)/gm)].map(([, name, count]) => [name!, Number(count)])
    return Object.fromEntries(calls.filter(([name]) => !/^(config|info|client|hello|ping)/.test(name as string)))
  }

  it('a decision over three policies is one EVALSHA: one TIME, one GET and one SET', async () => {
    const store = await open()
    await decide(store, ...threePolicies)
    const calls = await called(async () => {
      for (let times = 0; times < 20; times += 1) expect((await decide(store, ...threePolicies)).admitted).toBe(true)
    })
    expect(calls).toEqual({ evalsha: 20, time: 20, get: 20, set: 20 })
    await store.close()
  })

  it('one that is refused writes a promise, and one that is told the end of the schedule nothing', async () => {
    const store = await open()
    const tight = charge({ kind: 'fixed-window', stateId: 9, quota: 1, capacity: 1 })
    await decide(store, ...threePolicies, tight)
    const refused = async (count: number): Promise<Record<string, number>> =>
      await called(async () => {
        for (let times = 0; times < count; times += 1) {
          expect((await decide(store, ...threePolicies, tight)).admitted).toBe(false)
        }
      })
    expect(await refused(1)).toEqual({ evalsha: 1, time: 1, get: 1, set: 1 })
    await refused(20)
    expect(await refused(20)).toEqual({ evalsha: 20, time: 20, get: 20 })
    await store.close()
  })

  it('those of one turn travel together, each for itself', async () => {
    const store = await open()
    await redis.lpush(`${store.prefix}2:{${nameOf('key:spoilt')}}`, 'a list')
    const partitions = Array.from({ length: 80 }, (_, index) => (index === 5 ? 'key:spoilt' : `key:${index}`))
    let answers: PromiseSettledResult<StoreDecision>[] = []
    const calls = await called(async () => {
      answers = await Promise.allSettled(
        partitions.map((partition) => decide(store, charge({ kind: 'token-bucket', partition }))),
      )
    })
    expect(calls['evalsha']).toBeLessThan(5)
    answers.forEach((answer, index) => {
      if (index !== 5) return expect(answer).toMatchObject({ value: { admitted: true, outcomes: [{ remaining: 4 }] } })
      expect(answer).toMatchObject({ reason: { code: 'RAMPMETER_STORE_UNAVAILABLE' } })
      expect(String((answer as PromiseRejectedResult).reason.cause)).toContain('WRONGTYPE')
    })
    await store.close()
  })

  it('to undo an earlier charge and make another is one EVALSHA too', async () => {
    const store = await open()
    const { nowUs } = await decide(store, ...threePolicies)
    const undo = threePolicies.slice(0, 2).map((one) => ({ charge: one, cost: 1, chargedAtUs: nowUs }))
    const calls = await called(() => store.decide({ charges: threePolicies, undo, commit: true }))
    expect(calls).toEqual({ evalsha: 1, time: 1, get: 1, set: 1 })
    await store.close()
  })

  it('a long log is walked in parts, not read whole', async () => {
    const store = await open()
    const long = charge({ quota: 5000, capacity: 5000 })
    const timed = stage.fresh()
    for (let times = 0; times < 600; times += 1) {
      timed.advanceUs(1)
      await decide(store, long)
    }
    const calls = await called(() => decide(store, long))
    expect(calls['lrange']).toBe(1)
    await store.close()
  })
})

describe('several at once', () => {
  it('stores on one prefix share their counters, and others do not', async () => {
    const client = redis.duplicate()
    const [one, same, other] = [await open('same:'), await open('same:', client), await open('other:')]
    const left: number[] = []
    for (const store of [one, same, one, same, other]) left.push((await decide(store, charge())).outcomes[0]!.remaining)
    expect(left).toEqual([4, 3, 2, 1, 4])
    await Promise.all([one.close(), same.close(), other.close()])
    await client.quit()
  })

  it('SCRIPT FLUSH between decisions is not noticed', async () => {
    const store = await open()
    for (const left of [4, 3, 2]) {
      await redis.script('FLUSH')
      const { admitted, outcomes, nowUs } = await decide(store, charge())
      expect({ admitted, left: outcomes[0]!.remaining }).toEqual({ admitted: true, left })
      await redis.script('FLUSH')
      const charged = { charge: charge(), cost: 1, chargedAtUs: nowUs }
      await store.settle([
        { charged, by: 2 },
        { charged: { ...charged, cost: 3 }, by: -2 },
      ])
    }
    await store.close()
  })

  it('another version of the library, on the same connection, runs its own scripts', async () => {
    const connection = redis.duplicate()
    const defined: string[] = []
    const define = connection.defineCommand.bind(connection)
    connection.defineCommand = (name, definition) => {
      defined.push(name)
      define(name, definition)
    }
    // Both versions get this connection for their own.
    const given = Object.create(redis, { duplicate: { value: () => connection } }) as RedisClient
    const store = redisStore(given, { prefix: `${randomUUID()}:`, rememberRefusals: false }).open({ nameOf })
    const hash = (lua: string): string => createHash('sha256').update(lua).digest('hex').slice(0, 12)
    const names = Object.keys(scripts).map((name) => `${name[0]!.toUpperCase()}${name.slice(1).replace(/Script$/, '')}`)
    const texts = Object.values(scripts)
    expect(defined.toSorted()).toEqual(names.map((name, index) => `rampmeter${name}_${hash(texts[index]!)}`).toSorted())
    for (const name of names) {
      define(`rampmeter${name}_${hash('-- another')}`, { lua: 'return 0' })
      define(`rampmeter${name}`, { lua: 'return 0' })
    }
    await store.ready()
    expect((await store.decide(ask([charge()]))).outcomes[0]!.remaining).toBe(4)
    await store.close()
  })

  it('a client that has every number as a text, a prefix and a database of its own is used as well', async () => {
    const client = new Redis(redis.options.port!, { stringNumbers: true, keyPrefix: 'app:', db: 3, protocol: 2 })
    const store = await open('texts:', client)
    const { admitted, nowUs, outcomes } = await decide(store, charge())
    expect(admitted).toBe(true)
    expect(nowUs).toBeTypeOf('number')
    expect(outcomes[0]).toMatchObject({ verdict: 'fits', remaining: 4 })
    await store.reset('key:one', [7])
    expect((await decide(store, charge())).outcomes[0]!.remaining).toBe(4)
    await store.close()
    await client.quit()
  })
})

describe('connections', () => {
  async function connected(): Promise<number> {
    const list = (await redis.client('LIST')) as string
    return list.trim().split('\n').length
  }

  it('close ends our own, and leaves the client that was given', async () => {
    const before = await connected()
    const stores = [await open(), await open()]
    await Promise.all(stores.map((store) => decide(store, charge())))
    expect(await connected()).toBe(before + 2)
    await Promise.all(stores.map((store) => store.close()))
    await expect.poll(connected, { timeout: 10_000 }).toBe(before)
    expect(await redis.ping()).toBe('PONG')
    await expect(decide(stores[0]!, charge())).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
  })

  it('close while it still connects leaves none behind', async () => {
    const before = await connected()
    const store = redisStore(redis).open({ nameOf })
    await store.close()
    await sleep(50)
    await expect.poll(connected, { timeout: 10_000 }).toBe(before)
    await expect(store.ready()).rejects.toMatchObject({ code: 'RAMPMETER_CLOSED' })
  })

  it('a store that was closed by its last limiter can be opened again', async () => {
    const given = redisStore(redis, { prefix: `${randomUUID()}:`, rememberRefusals: false })
    for (const left of [4, 3]) {
      const store = given.open({ nameOf })
      await store.ready()
      expect((await decide(store, charge())).outcomes[0]!.remaining).toBe(left)
      await store.close()
    }
  })

  it('while nothing listens a decision fails at once; when Redis comes, it heals by itself', async () => {
    const port = await freePort()
    const client = new Redis({ port, lazyConnect: true, maxRetriesPerRequest: 0, retryStrategy: () => null })
    client.on('error', () => {})
    const store = redisStore(client, { prefix: 'late:' }).open({ nameOf })
    for (let times = 0; times < 5; times += 1) {
      const failed = decide(store, charge()).then(
        () => 'decided',
        () => 'failed',
      )
      // At once, and not when some timer ends.
      expect(await Promise.race([failed, turns(20)])).toBe('failed')
      await sleep(30)
    }
    const ready = store.ready()
    const server = spawn(
      process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server',
      ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
      { stdio: 'ignore' },
    )
    try {
      await ready
      expect((await decide(store, charge())).outcomes[0]!.remaining).toBe(4)
      await stop(server)
      const failed = (): Promise<boolean> =>
        decide(store, charge()).then(
          () => false,
          () => true,
        )
      await expect.poll(failed, { timeout: 10_000 }).toBe(true)
    } finally {
      await store.close()
      client.disconnect()
      await stop(server)
    }
  })

  /** Waits for turns of the event loop, however long each is. */
  async function turns(count: number): Promise<void> {
    for (let turn = 0; turn < count; turn += 1) await new Promise((resolve) => setImmediate(resolve))
  }

  async function freePort(): Promise<number> {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    return port
  }

  async function stop(server: ChildProcess): Promise<void> {
    if (server.exitCode !== null || server.signalCode !== null) return
    server.kill('SIGKILL')
    await once(server, 'close')
  }
})

describe('partitions', () => {
  it('of any characters and length have counters of their own, also where their name is the partition itself', async () => {
    const names = [
      '\0',
      '\0\0',
      '\r\n',
      '{a}',
      '{a',
      'a}',
      '*',
      'é',
      'e\u0301',
      '💧',
      '日本語',
      'x'.repeat(4096),
      `${'x'.repeat(4095)}y`,
    ]
    for (const naming of [nameOf, (partition: string) => partition]) {
      const store = redisStore(redis, { prefix: `${randomUUID()}:`, rememberRefusals: false }).open({ nameOf: naming })
      await store.ready()
      for (const partition of names) {
        const charges = [charge({ partition }), charge({ partition, kind: 'token-bucket', stateId: 8 })]
        expect((await decide(store, ...charges)).outcomes.map((one) => one.remaining)).toEqual([4, 4])
        await store.reset(partition, [7])
        expect((await decide(store, ...charges)).outcomes.map((one) => one.remaining)).toEqual([4, 4])
      }
      await store.close()
    }
  })
})

describe('an eviction', () => {
  const other = charge({ kind: 'token-bucket', stateId: 8, windowUs: hourUs, quota: 1000, capacity: 1000 })

  for (const [what, suffix] of [
    ['of the partition, of which the list of a log remains', ''],
    ['of the list of a log, of which the record remains', ':7'],
  ] as const) {
    it(`${what}, counts nothing wrong`, async () => {
      const store = await open()
      const { nowUs } = await decide(store, charge({ cost: 3 }), other)
      expect(await redis.unlink(`${store.prefix}2:{${nameOf('key:one')}}${suffix}`)).toBe(1)
      // A refund of what is not known any more gives nothing that was not there.
      const charged = { charge: charge(), cost: 3, chargedAtUs: nowUs }
      await store.settle([{ charged, by: -3 }])
      for (let left = 4; left >= 0; left -= 1) {
        expect((await decide(store, charge(), other)).outcomes[0]!.remaining).toBe(left)
      }
      const refused = await decide(store, charge(), other)
      expect(refused.admitted).toBe(false)
      expect(refused.retryAfterUs).toBe(minuteUs)
      await store.close()
    })
  }

  it('a list that has expired before the record of its log counts nothing either', async () => {
    const timed = stage.fresh()
    const store = await open()
    const brief = charge({ windowUs: secondUs })
    for (let round = 0; round < 5; round += 1) {
      for (let times = 0; times < 5; times += 1) expect((await decide(store, brief, other)).admitted).toBe(true)
      expect((await decide(store, brief, other)).retryAfterUs).toBe(secondUs)
      timed.advanceUs(2 * secondUs + 1)
    }
    await store.close()
  })
})
