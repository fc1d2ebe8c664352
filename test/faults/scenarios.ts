// What can go wrong with a Redis, done to real ones while requests are under way.

import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { hashSlot } from '../../src/stores/redis/hash-slot.ts'
import { loadOn, type Load } from './load.ts'
import { proxyTo, type Proxy, type Weather } from './proxy.ts'
import { bigCluster, running, sentinelGroup, server, until, type Server } from './server.ts'

/** How many may be admitted beyond the limit, and why not more. */
export type Bound = 'none' | 'share' | 'forgotten' | 'lag'

export interface Scenario {
  readonly name: string
  readonly bound: Bound
  readonly run: () => Promise<Outcome>
}

export interface Outcome {
  readonly requests: number
  readonly withoutStore: number
  readonly waitedMs: number
  readonly heldUpMs: number
  readonly over: number
  readonly bound: number
  readonly healedMs: number
  /** In how many turns of the event loop that take long a request may be: it is asked in one. Default 1. */
  readonly longTurns?: number
}

/** How long a fault lasts, in ms. */
const lastsMs = 3000

/** Does something to a load, and tells when it was mended, by `performance.now()`. */
type Fault<World> = (world: World, load: Load) => Promise<number>

async function measure<World>(load: Load, bound: Bound, world: World, fault: Fault<World>): Promise<Outcome> {
  try {
    await load.drain()
    load.begin()
    await sleep(300)
    const mendedAt = await fault(world, load)
    const healedMs = await load.healedAfter(mendedAt)
    return outcomeOf(load, bound, healedMs)
  } finally {
    await load.end()
  }
}

function outcomeOf(load: Load, bound: Bound, healedMs: number): Outcome {
  const bounds = { none: 0, share: load.share, forgotten: load.quota, lag: load.quota }
  return {
    requests: load.asked(),
    withoutStore: load.withoutStore(),
    ...load.longest(),
    over: load.over(),
    bound: bounds[bound],
    healedMs,
  }
}

/** A fault of a single server, or of the way to it. */
function single(
  name: string,
  bound: Bound,
  fault: Fault<{ server: Server; admin: Redis; proxy: Proxy }>,
  options: readonly string[] = [],
): Scenario {
  return {
    name,
    bound,
    async run() {
      const one = await running(async () => options)
      const proxy = await proxyTo(one.port)
      try {
        const load = await loadOn(new Redis(proxy.port, '127.0.0.1', { lazyConnect: true }))
        return await measure(load, bound, { server: one, admin: one.admin(), proxy }, fault)
      } finally {
        await proxy.stop()
        await one.stop()
      }
    },
  }
}

/** A state that an operator can end. */
function state(
  name: string,
  begin: (admin: Redis, server: Server) => Promise<unknown>,
  end: (admin: Redis, server: Server) => Promise<unknown>,
  options?: readonly string[],
): Scenario {
  return single(
    name,
    'share',
    async ({ admin, server: one }) => {
      await begin(admin, one)
      await sleep(lastsMs)
      await end(admin, one)
      return performance.now()
    },
    options,
  )
}

function weather(name: string, of: Weather, ms = lastsMs): Scenario {
  return single(name, 'share', async ({ proxy }) => {
    proxy.weather = of
    await sleep(ms)
    proxy.weather = 'clear'
    return performance.now()
  })
}

const late: Scenario = {
  name: 'not there when the app starts, then comes',
  bound: 'none',
  async run() {
    const one = await server()
    const load = await loadOn(new Redis(one.port, '127.0.0.1', { lazyConnect: true }), 1, { ready: false })
    try {
      load.begin()
      await sleep(lastsMs)
      await one.start()
      const healedMs = await load.healedAfter(performance.now())
      await sleep(1500)
      return outcomeOf(load, 'none', healedMs)
    } finally {
      await load.end()
      await one.stop()
    }
  },
}

/**
 * Nothing is used up before: what Redis admits is the quota, and what is admitted beside it is over. A request is asked in a turn that
 * takes long, since a thousand are, and given up in another.
 */
const crowd: Scenario = {
  name: 'nothing, but one client asks a thousand times in one turn, three times',
  bound: 'share',
  async run() {
    const one = await running(async () => [])
    const load = await loadOn(new Redis(one.port, '127.0.0.1', { lazyConnect: true }))
    try {
      load.begin()
      for (let times = 0; times < 3; times += 1) {
        await load.flood(1000)
        await sleep(300)
      }
      const healedMs = await load.healedAfter(performance.now())
      return { ...outcomeOf(load, 'share', healedMs), requests: load.asked() + load.quota, longTurns: 2 }
    } finally {
      await load.end()
      await one.stop()
    }
  },
}

const failover = (name: string, fault: 'asked' | 'killed'): Scenario => ({
  name,
  bound: 'lag',
  async run() {
    const group = await sentinelGroup()
    try {
      const redis = new Redis({ sentinels: group.sentinels, name: group.name, lazyConnect: true })
      return await measure(await loadOn(redis), 'lag', group, async () => {
        const at = performance.now()
        if (fault === 'asked') await group.failOver()
        else await group.master.kill()
        const successor = group.replica.admin()
        await until(async () => (await successor.info('replication')).includes('role:master'))
        // Sentinel tells the old one some seconds later: what it is told until then is lost.
        if (fault === 'asked') {
          const old = group.master.admin()
          await until(async () => (await old.info('replication')).includes('role:slave'))
        }
        return at
      })
    } finally {
      await group.stop()
    }
  },
})

/** Of a cluster with twelve clients, which are on all of its masters. */
function clustered(
  name: string,
  bound: Bound,
  fault: Fault<Awaited<ReturnType<typeof bigCluster>>>,
  known = false,
): Scenario {
  return {
    name,
    bound,
    async run() {
      const cluster = await bigCluster()
      try {
        const client = new Cluster([{ host: '127.0.0.1', port: cluster.servers[0]!.port }], { lazyConnect: true })
        return await measure(await loadOn(client, 12, { known }), bound, cluster, fault)
      } finally {
        await cluster.stop()
      }
    },
  }
}

/** Moves all slots that have keys from the first master to the second, key by key, as `redis-cli --cluster reshard` does. */
async function reshard([from, to]: readonly Redis[], port: number): Promise<void> {
  const [source, target] = [from!, to!]
  const keys = await source.keys('*')
  const [sourceId, targetId] = [await source.cluster('MYID'), await target.cluster('MYID')]
  for (const slot of new Set(keys.map((key) => hashSlot(key)))) {
    await target.cluster('SETSLOT', slot, 'IMPORTING', sourceId)
    await source.cluster('SETSLOT', slot, 'MIGRATING', targetId)
    await sleep(100)
    for (const key of (await source.call('CLUSTER', 'GETKEYSINSLOT', slot, 100)) as string[]) {
      await source.migrate('127.0.0.1', port, key, 0, 5000)
    }
    await sleep(100)
    await target.cluster('SETSLOT', slot, 'NODE', targetId)
    await source.cluster('SETSLOT', slot, 'NODE', targetId)
  }
}

export const scenarios: readonly Scenario[] = [
  late,
  crowd,
  single('killed, and started again empty', 'forgotten', async ({ server: one }) => {
    await one.kill()
    await sleep(lastsMs)
    await one.start()
    return performance.now()
  }),
  single('frozen (SIGSTOP)', 'share', async ({ server: one }) => {
    one.freeze()
    await sleep(lastsMs)
    one.thaw()
    return performance.now()
  }),
  state(
    'paused (CLIENT PAUSE)',
    (admin) => admin.client('PAUSE', lastsMs, 'ALL'),
    async () => {},
  ),
  weather('the network swallows what is sent, and connections stay dead', 'swallow', 7000),
  weather('each way takes 100 ms longer', { delayMs: 100 }),
  weather('connections are reset when they are used', 'reset'),
  weather('answers are cut in half', 'cut'),
  single('all connections are closed once (CLIENT KILL)', 'share', async ({ admin }) => {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal')
    return performance.now()
  }),
  single('scripts are forgotten again and again (SCRIPT FLUSH)', 'share', async ({ admin }) => {
    for (let times = 0; times < 100; times += 1) {
      await admin.script('FLUSH')
      await sleep(20)
    }
    return performance.now()
  }),
  state(
    'memory is full (OOM)',
    async (admin) => {
      await admin.set('ballast', 'x'.repeat(4_000_000))
      await admin.config('SET', 'maxmemory', '1mb')
    },
    (admin) => admin.config('SET', 'maxmemory', '0'),
  ),
  state(
    'demoted to a replica (READONLY)',
    async (admin, { port }) => {
      // Of a master that is not there: it keeps what it has.
      await admin.config('SET', 'replica-serve-stale-data', 'yes')
      await admin.replicaof('127.0.0.1', port === 1 ? 2 : 1)
    },
    (admin) => admin.replicaof('NO', 'ONE'),
  ),
  single(
    'loads its data (LOADING)',
    'share',
    async ({ admin }) => {
      const fill = admin.pipeline()
      for (let nth = 0; nth < 3000; nth += 1) fill.set(`ballast:${nth}`, 'x'.repeat(100))
      await fill.exec()
      await admin.config('SET', 'key-load-delay', '1000')
      await admin.call('DEBUG', 'RELOAD')
      return performance.now()
    },
    ['--loading-process-events-interval-bytes', '1024'],
  ),
  state(
    'is busy in a script (BUSY)',
    async (admin, one) => {
      await admin.config('SET', 'busy-reply-threshold', '100')
      one
        .admin()
        .eval('while true do end', 0)
        .catch(() => {})
      await sleep(200)
    },
    (admin) => admin.script('KILL'),
  ),
  state(
    'cannot save (MISCONF)',
    async (admin, { folder }) => {
      await admin.config('SET', 'save', '3600 1')
      rmSync(folder, { recursive: true, force: true })
      await admin.bgsave()
      await until(async () => (await admin.info('persistence')).includes('rdb_last_bgsave_status:err'))
    },
    (admin) => admin.config('SET', 'stop-writes-on-bgsave-error', 'no'),
  ),
  state(
    'asks for a password that the app does not have (NOAUTH)',
    async (admin) => {
      await admin.config('SET', 'requirepass', 'changed')
      await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    },
    (admin) => admin.config('SET', 'requirepass', ''),
  ),
  state(
    'takes a permission away (NOPERM)',
    (admin) => admin.call('ACL', 'SETUSER', 'default', '-evalsha'),
    (admin) => admin.call('ACL', 'SETUSER', 'default', '+evalsha'),
  ),
  failover('Sentinel: a failover that was asked for', 'asked'),
  failover('Sentinel: the master is killed', 'killed'),
  clustered('Cluster: a master is killed, its replica takes over', 'lag', async ({ servers }) => {
    const at = performance.now()
    await servers[0]!.kill()
    const successor = servers[3]!.admin()
    await until(async () => (await successor.info('replication')).includes('role:master'))
    return at
  }),
  clustered('Cluster: a master is frozen, its replica takes over', 'lag', async ({ servers }) => {
    const at = performance.now()
    servers[0]!.freeze()
    const successor = servers[3]!.admin()
    await until(async () => (await successor.info('replication')).includes('role:master'))
    return at
  }),
  clustered('Cluster: slots move while they are used', 'share', async ({ masters, servers }) => {
    const at = performance.now()
    await reshard(masters, servers[1]!.port)
    return Math.max(at, performance.now())
  }),
  clustered(
    'Cluster: slots move while clients use them whose conduct is watched',
    'share',
    async ({ masters, servers }) => {
      await reshard(masters, servers[1]!.port)
      return performance.now()
    },
    true,
  ),
]
