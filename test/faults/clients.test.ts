// Every client that the store takes: ioredis 5, which speaks RESP2, and 6, which speaks both, of a single server, a Sentinel group
// and a cluster. What is held against them is where they differ: what becomes of a call whose connection ends, of a script that
// is not there, of a redirection, and of the connection when it is closed.

import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { Cluster, Redis } from 'ioredis'
import { Cluster as Cluster5, Redis as Redis5 } from 'ioredis5'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { concurrency } from '../../src/policies/concurrency.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { uniqueTargets } from '../../src/policies/unique-targets.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { ClusterClient, RedisClient } from '../../src/stores/redis/client.ts'
import { hashSlot } from '../../src/stores/redis/hash-slot.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'
import {
  bigCluster,
  running,
  sentinelGroup,
  server,
  until,
  type BigCluster,
  type SentinelGroup,
  type Server,
} from './server.ts'

interface Kind {
  readonly name: string
  readonly protocol: 2 | 3
  readonly server: (port: number, more?: { username: string; password: string }) => RedisClient
  readonly sentinel: (group: SentinelGroup) => RedisClient
  readonly cluster: (port: number) => ClusterClient
}

/** What the tests' own client does when Redis goes is not looked at. */
function quiet<Client extends { on(event: 'error', listener: () => void): unknown }>(client: Client): Client {
  client.on('error', () => {})
  return client
}

const host = '127.0.0.1'
const docs = readFileSync(new URL('../../docs/redis.md', import.meta.url), 'utf8')

function six(name: string, more: { readonly protocol: 2 | 3; readonly replyMapping?: 'resp3' }): Kind {
  return {
    name,
    protocol: more.protocol,
    server: (port, user) => quiet(new Redis({ ...more, ...user, host, port, lazyConnect: true })),
    sentinel: (group) => quiet(new Redis({ ...more, sentinels: group.sentinels, name: group.name, lazyConnect: true })),
    cluster: (port) => quiet(new Cluster([{ host, port }], { redisOptions: more, lazyConnect: true })),
  }
}

const kinds: readonly Kind[] = [
  {
    name: 'ioredis 5 (RESP2)',
    protocol: 2,
    server: (port, user) => quiet(new Redis5({ ...user, host, port, lazyConnect: true })),
    sentinel: (group) => quiet(new Redis5({ sentinels: group.sentinels, name: group.name, lazyConnect: true })),
    cluster: (port) => quiet(new Cluster5([{ host, port }], { lazyConnect: true })),
  },
  six('ioredis 6, RESP2', { protocol: 2 }),
  six('ioredis 6, RESP3', { protocol: 3 }),
  six('ioredis 6, RESP3 with its own types', { protocol: 3, replyMapping: 'resp3' }),
]

/** A client that tries once. */
interface GivesUp {
  readonly sentinels: { host: string; port: number }[]
  readonly name: string
  readonly sentinelRetryStrategy: () => null
  readonly retryStrategy: () => null
  readonly lazyConnect: boolean
}

/** So long that a busy machine is no outage. */
const deadline = '10s'
let prefixes = 0

/** A limiter on a client, with a prefix of its own. */
function limiterOn(given: RedisClient | ClusterClient, quota = 1000, within: '10s' | '100ms' = deadline) {
  prefixes += 1
  const limiter = rampmeter({
    store: redisStore(given, { prefix: `clients${prefixes}:` }),
    policies: [slidingLog({ name: 'hour', quota, window: '1h' })],
    deadline: within,
    processes: 1,
  })
  onTestFinished(async () => {
    await limiter.close()
    given.disconnect()
  })
  const decide = (id = 'key:one') => limiter.decide({ client: { id } })
  const used = async (id = 'key:one') => quota - ((await limiter.peek({ id })).limits[0]?.remaining ?? Number.NaN)
  return { limiter, decide, used }
}

/** Connections of clients that `decide` runs on, with the protocol each speaks. */
async function connections(one: Server): Promise<string[]> {
  const list = (await one.admin().client('LIST')) as string
  return list
    .split('\n')
    .filter((line) => /cmd=(evalsha|eval|unlink|ping|hello|info)/.test(line) && !/lib-name=\S*admin/.test(line))
}

describe.each(kinds)('$name', (kind) => {
  let clocked: RedisWithClock
  beforeAll(async () => {
    clocked = await startRedisWithClock()
  })
  afterAll(() => clocked.stop())

  it('answers as memory does', async () => {
    let histories = 0
    const steps = fc.array(
      fc.record({
        pauseUs: fc.oneof(fc.constant(0), fc.nat(30_000_000)),
        cost: fc.integer({ min: 1, max: 6 }),
        target: fc.constantFrom('a', 'b', 'c', 'd'),
        settles: fc.option(fc.nat(5), { nil: undefined }),
      }),
      { minLength: 1, maxLength: 25 },
    )
    const given = kind.server(clocked.port)
    onTestFinished(() => given.disconnect())
    await fc.assert(
      fc.asyncProperty(steps, async (all) => {
        histories += 1
        const startMs = clocked.timeUs() / 1000
        const clock = manualClock(startMs)
        const policies = [
          tokenBucket({ name: 'bucket', quota: 60, window: '1m', burst: 12 }),
          slidingLog({ name: 'log', quota: 20, window: '1m' }),
          concurrency({ name: 'flight', quota: 6, lease: '20s' }),
          uniqueTargets({ name: 'targets', quota: 3, window: '1m' }),
        ]
        const made = [
          memoryStore({ now: clock }),
          redisStore(given, { prefix: `history:${kind.name}:${histories}:`, rememberRefusals: false }),
        ].map((store) => rampmeter({ store, policies, deadline, processes: 1 }))
        for (const limiter of made) await limiter.ready()
        for (const { pauseUs, cost, target, settles } of all) {
          clocked.advanceUs(pauseUs)
          clock.set(clocked.timeUs() / 1000)
          const answers = await Promise.all(
            made.map(async (limiter) => {
              const decision = await limiter.decide({ client: { id: 'key:one' }, cost, target })
              if (settles !== undefined && decision.admitted) {
                decision.settle(settles)
                decision.release()
                await limiter.flush()
              }
              const { admitted, violated, limits, retryAfterMs, degraded } = decision
              return { admitted, violated, limits, retryAfterMs, degraded }
            }),
          )
          expect(answers[1]).toEqual(answers[0])
        }
        for (const limiter of made) await limiter.close()
      }),
      { numRuns: 15 },
    )
  })

  describe('of a single server', () => {
    let one: Server
    beforeAll(async () => {
      one = await running(async () => [])
    })
    afterAll(() => one.stop())

    it('speaks its protocol, and is one connection until it is closed', async () => {
      const before = await connections(one)
      const { limiter, decide } = limiterOn(kind.server(one.port))
      await limiter.ready()
      await decide()
      const opened = (await connections(one)).filter(
        (line) => !before.some((had) => had.split(' ')[0] === line.split(' ')[0]),
      )
      expect(opened).toHaveLength(1)
      expect(opened[0]).toContain(` resp=${kind.protocol}`)
      await limiter.close()
      await until(async () => {
        const left = await connections(one)
        return !left.some((line) => line.split(' ')[0] === opened[0]!.split(' ')[0])
      })
    })

    it('needs no more than the permissions that the docs name', async () => {
      const line = /^ACL SETUSER limiter .*$/m.exec(docs)![0]
      const [, ...words] = line.replace('~rampmeter:*', '~clients*').split(' ')
      await one.admin().call('ACL', ...words)
      const given = kind.server(one.port, { username: 'limiter', password: 'a-long-password' })
      const { limiter, decide } = limiterOn(given)
      await limiter.ready()
      const decision = await decide()
      expect(decision).toMatchObject({ admitted: true, degraded: false })
      decision.settle(3)
      await limiter.flush()
      await limiter.reset('key:one')
      expect((await decide()).degraded).toBe(false)
    })

    it('has a script that was forgotten loaded again, and counts each call once', async () => {
      const { limiter, decide, used } = limiterOn(kind.server(one.port))
      await limiter.ready()
      const admin = one.admin()
      for (let round = 0; round < 5; round += 1) {
        await admin.script('FLUSH')
        const decisions = await Promise.all(Array.from({ length: 40 }, () => decide()))
        expect(decisions.every(({ admitted, degraded }) => admitted && !degraded)).toBe(true)
      }
      expect(await used()).toBe(200)
    })

    it('that is frozen keeps nobody beyond the deadline, nor what was late, nor close', async () => {
      const { limiter, decide, used } = limiterOn(kind.server(one.port), 1000, '100ms')
      await limiter.ready()
      await until(async () => !(await decide('key:warm')).degraded)
      one.freeze()
      onTestFinished(() => one.thaw())
      // Those that are under way when the deadline ends are decided here, and undone there.
      const late = await Promise.all(Array.from({ length: 10 }, () => decide()))
      expect(late.every(({ degraded }) => degraded)).toBe(true)
      one.thaw()
      await until(() => limiter.health().store === 'up')
      await until(async () => !(await decide('key:other')).degraded)
      // What was admitted meanwhile is carried over, what was late is given back: each counts once.
      const admitted = late.filter((each) => each.admitted).length
      await until(async () => (await used()) === admitted)
      one.freeze()
      await limiter.close()
    })

    it('whose connections are cut again and again loses no call, and makes none twice', async () => {
      const { limiter, decide, used } = limiterOn(kind.server(one.port))
      await limiter.ready()
      const admin = one.admin()
      let admitted = 0
      for (let round = 0; round < 5; round += 1) {
        await until(async () => !(await decide('key:warm')).degraded)
        const asked = Promise.all(Array.from({ length: 40 }, () => decide()))
        await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
        admitted += (await asked).filter((decision) => decision.admitted).length
      }
      expect(admitted).toBe(200)
      await until(async () => !(await decide('key:warm')).degraded)
      // A call that ran though its answer was lost counts there, and once more here.
      await until(async () => (await used()) >= admitted)
      expect(await used()).toBeLessThanOrEqual(2 * admitted)
    })

    it('that was not there when the app started is used as soon as it is', async () => {
      const later = await running(async () => [])
      onTestFinished(() => later.stop())
      await later.kill()
      const { limiter, decide } = limiterOn(kind.server(later.port), 1000, '100ms')
      expect((await decide()).degraded).toBe(true)
      await later.start()
      await until(() => limiter.health().store === 'up')
      await until(async () => !(await decide()).degraded)
    })
  })
})

describe('of a Sentinel group', () => {
  let group: SentinelGroup
  beforeAll(async () => {
    group = await sentinelGroup()
  })
  afterAll(() => group.stop())

  it('all follow a failover', async () => {
    const all = kinds.map((kind) => limiterOn(kind.sentinel(group)))
    for (const { limiter, decide } of all) {
      await limiter.ready()
      expect(await decide()).toMatchObject({ admitted: true, degraded: false })
    }
    await group.master.kill()
    const successor = group.replica.admin()
    await until(async () => (await successor.info('replication')).includes('role:master'))
    for (const { limiter, decide, used } of all) {
      await until(async () => !(await decide()).degraded)
      expect(limiter.health().store).toBe('up')
      expect(await used()).toBeGreaterThanOrEqual(1)
    }
  })
})

it.each([
  ['ioredis 5', (options: GivesUp): RedisClient => new Redis5(options)],
  ['ioredis 6', (options: GivesUp): RedisClient => new Redis(options)],
])(
  '%s: where the given client gives up when no sentinel is there, ours finds the master when one is',
  async (_, make) => {
    const master = await running(async () => [])
    const guard = await server(['--sentinel'], `sentinel monitor limits 127.0.0.1 ${master.port} 1\n`)
    onTestFinished(async () => void (await Promise.all([guard.stop(), master.stop()])))
    const sentinels = [{ host, port: guard.port }]
    const never = { sentinelRetryStrategy: () => null, retryStrategy: () => null }
    const { limiter, decide } = limiterOn(
      quiet(make({ sentinels, name: 'limits', ...never, lazyConnect: true })),
      1000,
      '100ms',
    )
    expect((await decide()).degraded).toBe(true)
    await guard.start()
    await until(() => limiter.health().store === 'up')
  },
)

describe('of a cluster', () => {
  let cluster: BigCluster
  beforeAll(async () => {
    cluster = await bigCluster()
  })
  afterAll(() => cluster.stop())

  it.each(kinds)('$name counts on all masters, loads scripts again, and follows a slot that moves', async (kind) => {
    const { limiter, decide, used } = limiterOn(kind.cluster(cluster.servers[0]!.port))
    await limiter.ready()
    const ids = Array.from({ length: 20 }, (_, nth) => `key:${kind.name}:${nth}`)
    const ask = async (whoever: readonly string[]): Promise<boolean> => {
      const decisions = await Promise.all(whoever.flatMap((id) => [decide(id), decide(id), decide(id)]))
      expect(decisions.every(({ admitted }) => admitted)).toBe(true)
      return decisions.some(({ degraded }) => degraded)
    }
    expect(await ask(ids)).toBe(false)
    for (const master of cluster.masters) await master.script('FLUSH')
    expect(await ask(ids)).toBe(false)

    const [source, target] = [cluster.masters[0]!, cluster.masters[1]!]
    const keys = await source.keys(`clients${prefixes}:*`)
    expect(keys.length).toBeGreaterThan(0)
    const slot = hashSlot(keys[0]!)
    const [sourceId, targetId] = [await source.cluster('MYID'), await target.cluster('MYID')]
    await target.cluster('SETSLOT', slot, 'IMPORTING', sourceId)
    await source.cluster('SETSLOT', slot, 'MIGRATING', targetId)
    // A call with a key that is not there is told TRYAGAIN while its slot moves, and decided here then.
    await ask(ids)
    for (const key of (await source.call('CLUSTER', 'GETKEYSINSLOT', slot, 100)) as string[]) {
      await source.migrate('127.0.0.1', cluster.servers[1]!.port, key, 0, 5000)
    }
    await ask(ids)
    await target.cluster('SETSLOT', slot, 'NODE', targetId)
    await source.cluster('SETSLOT', slot, 'NODE', targetId)
    await until(async () => !(await ask(['key:warm'])))
    await until(() => limiter.health().store === 'up')
    expect(await ask(ids)).toBe(false)
    // Each counts once, wherever it was decided.
    await until(async () => (await Promise.all(ids.map((id) => used(id)))).every((count) => count === 15))
    await limiter.close()
  })
})
