// A Redis Cluster for our own tests: three masters, made by the commands that `redis-cli --cluster create` sends.

import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { freePort, runServer, type RunningServer, type Surroundings } from '../src/testing/redis-server.ts'
import { serverClock, type ServerClock } from './redis.ts'

/** Its clock is that of all masters; what it shows is what the first one's does. */
export interface TestCluster extends ServerClock {
  /** One client for each master, in the order of their slots: the first has 0 to 5460, the second to 10922, the third the rest. */
  readonly masters: readonly Redis[]
  /** The clock of each. */
  readonly clocks: readonly ServerClock[]
  /** A new client of the whole, which its user ends. */
  connect(options?: ConstructorParameters<typeof Cluster>[1]): Cluster
  /** Ends a master as a crash would. */
  kill(master: number): Promise<void>
  /** Stops a master without closing its connections: it takes bytes and answers none, until what is returned is called. */
  freeze(master: number): () => void
  /** Begins to move a slot that has no keys: its owner sends on, to another master, whoever asks for what it has not. */
  beginMove(slot: number, from: number, to: number): Promise<void>
  /** Makes another master the owner of a slot that has no keys, or none at the one that has it. */
  moveSlot(slot: number, to: number): Promise<void>
  stop(): Promise<void>
}

const slots = 16_384
const size = 3
const formsWithinMs = 20_000
const startTries = 5

/** Starts one whose masters go by clocks that stand still until the test turns them. It needs what a server with a clock needs. */
export async function startClusterWithClock(startUs: number): Promise<TestCluster> {
  const clocks: ServerClock[] = []
  const servers: RunningServer[] = []
  const buses: number[] = []
  for (let nth = 0; nth < size; nth += 1) {
    const { around, ...clock } = serverClock(startUs)
    const { server, bus } = await startNode(around)
    clocks.push(clock)
    servers.push(server)
    buses.push(bus)
  }
  const masters = servers.map(({ port }) => new Redis({ port, host: '127.0.0.1' }))
  // One that is killed is not looked for any more.
  for (const master of masters) master.on('error', () => {})

  const pids = await Promise.all(
    masters.map(async (master) => Number(/^process_id:(\d+)/m.exec(await master.info('server'))![1])),
  )

  const from = (nth: number): number => Math.ceil((slots * nth) / size)
  await Promise.all(
    masters.map(async (master, nth) => {
      await master.cluster('SET-CONFIG-EPOCH', nth + 1)
      await master.cluster('ADDSLOTSRANGE', from(nth), from(nth + 1) - 1)
    }),
  )
  for (const nth of [1, 2]) await masters[0]!.call('CLUSTER', 'MEET', '127.0.0.1', servers[nth]!.port, buses[nth]!)

  const end = Date.now() + formsWithinMs
  const isFormed = async (master: Redis): Promise<boolean> => {
    const info = await master.cluster('INFO')
    return info.includes('cluster_state:ok') && info.includes(`cluster_known_nodes:${size}`)
  }
  while (!(await Promise.all(masters.map(isFormed))).every(Boolean)) {
    if (Date.now() > end) throw new Error(`three masters formed no cluster within ${formsWithinMs / 1000} s`)
    // A master serves nothing at once after a start, by its own clock.
    for (const clock of clocks) clock.advanceUs(500_000)
    await sleep(50)
  }

  const setTimeUs = (us: number): void => {
    for (const clock of clocks) clock.setTimeUs(us)
  }
  setTimeUs(startUs)
  return {
    masters,
    clocks,
    timeUs: () => clocks[0]!.timeUs(),
    setTimeUs,
    advanceUs(us) {
      for (const clock of clocks) clock.advanceUs(us)
    },
    connect(options = {}) {
      const client = new Cluster([{ host: '127.0.0.1', port: servers[0]!.port }], options)
      // It tries again by itself.
      return client.on('error', () => {})
    },
    async kill(nth) {
      masters[nth]!.disconnect()
      await servers[nth]!.stop()
    },
    freeze(nth) {
      process.kill(pids[nth]!, 'SIGSTOP')
      return () => void process.kill(pids[nth]!, 'SIGCONT')
    },
    async beginMove(slot, from, to) {
      await masters[to]!.cluster('SETSLOT', slot, 'IMPORTING', await masters[from]!.cluster('MYID'))
      await masters[from]!.cluster('SETSLOT', slot, 'MIGRATING', await masters[to]!.cluster('MYID'))
    },
    async moveSlot(slot, to) {
      const id = await masters[to]!.cluster('MYID')
      // The new owner first, so that the others hear of it from one who knows.
      for (const master of [masters[to]!, ...masters.filter((_, nth) => nth !== to)]) {
        await master.cluster('SETSLOT', slot, 'NODE', id)
      }
    },
    async stop() {
      for (const master of masters) master.disconnect()
      await Promise.all(servers.map((server) => server.stop()))
    },
  }
}

async function startNode(around: Surroundings): Promise<{ server: RunningServer; bus: number }> {
  for (let tries = 1; ; tries += 1) {
    const bus = await freePort()
    const settings = {
      'cluster-enabled': 'yes',
      'cluster-port': String(bus),
      'cluster-config-file': 'nodes.conf',
      // What a test does to one node changes nothing about the others, and no clock that is turned makes one fail.
      'cluster-require-full-coverage': 'no',
      'cluster-node-timeout': String(10 * 366 * 24 * 3600 * 1000),
    }
    try {
      return {
        server: await runServer(process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server', { ...around, settings }),
        bus,
      }
    } catch (error) {
      // Between asking for a free port and the server's taking it, somebody else may have taken it.
      if (tries === startTries) throw error
    }
  }
}
