// Servers that a fault is done to: they keep their address when they are killed and started again. They end with this process.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Redis } from 'ioredis'
import { killWithProcess } from '../../src/testing/kill-with-process.ts'
import { freePort, untilItAnswers } from '../../src/testing/redis-server.ts'

export interface Server {
  readonly port: number
  /** Its folder; what it writes is there. */
  readonly folder: string
  /** Starts it, or again: it then has what it saved, and no more. */
  start(more?: readonly string[]): Promise<void>
  /** Ends it at once, as a crash would. */
  kill(): Promise<void>
  /** Stops it without closing its connections: it takes bytes and answers none. */
  freeze(): void
  thaw(): void
  /** A client of it for the one who does the fault. */
  admin(): Redis
  /** Ends it and its clients, and removes its folder. */
  stop(): Promise<void>
}

/** Another than the one whose clock tests turn: no Valkey that we know of runs under libfaketime. */
const program = process.env['RAMPMETER_FAULTS_SERVER'] || process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server'

/** An address, and what is needed to run a server there. Nothing listens yet. */
export async function server(options: readonly string[] = [], conf?: string): Promise<Server> {
  const port = await freePort()
  const folder = mkdtempSync(join(tmpdir(), 'rampmeter-faults-'))
  const admins: Redis[] = []
  let child: ChildProcess | undefined
  let forget = (): void => {}

  async function kill(): Promise<void> {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    child = undefined
    await ended
    forget()
  }

  return {
    port,
    folder,
    async start(more = []) {
      mkdirSync(folder, { recursive: true })
      const file = join(folder, 'server.conf')
      if (conf !== undefined) writeFileSync(file, conf)
      const own = ['--port', String(port), '--bind', '127.0.0.1', '--dir', folder]
      const plain = ['--save', '', '--appendonly', 'no', '--enable-debug-command', 'yes']
      const args = conf === undefined ? [...own, ...plain, ...options, ...more] : [file, ...own, ...options, ...more]
      const started = spawn(program, args, { stdio: 'ignore' })
      child = started
      forget = killWithProcess(() => started.kill('SIGKILL'), ['kill', '-9', String(started.pid)])
      const runs = (): boolean => started.exitCode === null && started.signalCode === null
      if ((await untilItAnswers(port, undefined, runs)) === 'silent')
        throw new Error(`${program} did not answer on port ${port}`)
    },
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
    admin() {
      const redis = new Redis(port, '127.0.0.1').on('error', () => {})
      admins.push(redis)
      return redis
    },
    async stop() {
      for (const admin of admins) admin.disconnect()
      await kill()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export interface SentinelGroup {
  /** Where the three sentinels are, for ioredis. */
  readonly sentinels: { readonly host: string; readonly port: number }[]
  readonly name: string
  /** The one that begins as the master, and the one that follows it. */
  readonly master: Server
  readonly replica: Server
  /** Asks for a failover, as an operator does. */
  failOver(): Promise<void>
  stop(): Promise<void>
}

/** A master, a replica and three sentinels that agree about them. */
export async function sentinelGroup(): Promise<SentinelGroup> {
  const name = 'limits'
  const master = await running(async () => ['--repl-diskless-sync-delay', '0'])
  const follows = ['--repl-diskless-sync-delay', '0', '--replicaof', '127.0.0.1', String(master.port)]
  const replica = await running(async () => follows)
  const conf = [
    `sentinel monitor ${name} 127.0.0.1 ${master.port} 2`,
    `sentinel down-after-milliseconds ${name} 1000`,
    `sentinel failover-timeout ${name} 5000`,
    '',
  ].join('\n')
  const guards = await Promise.all([1, 2, 3].map(() => running(async () => ['--sentinel'], conf)))
  const asked = guards.map((guard) => guard.admin())
  await until(async () => {
    const seen = await Promise.all(
      asked.map(async (one) => new Map(pairs(((await one.call('SENTINEL', 'MASTERS')) as string[][])[0]!))),
    )
    return seen.every((one) => one.get('num-slaves') === '1' && one.get('num-other-sentinels') === '2')
  })
  return {
    sentinels: guards.map(({ port }) => ({ host: '127.0.0.1', port })),
    name,
    master,
    replica,
    async failOver() {
      await asked[0]!.call('SENTINEL', 'FAILOVER', name)
    },
    async stop() {
      await Promise.all([...guards, master, replica].map((one) => one.stop()))
    },
  }
}

function pairs(flat: readonly string[]): [string, string][] {
  return flat.flatMap((value, index): [string, string][] => (index % 2 === 0 ? [[value, flat[index + 1]!]] : []))
}

const startTries = 5

/** Starts one; anew at another address, where somebody has taken its own between the asking and the taking. */
export async function running(options: () => Promise<readonly string[]>, conf?: string): Promise<Server> {
  for (let tries = 1; ; tries += 1) {
    const one = await server(await options(), conf)
    try {
      await one.start()
      return one
    } catch (error) {
      await one.stop()
      if (tries === startTries) throw error
    }
  }
}

export interface BigCluster {
  /** Three masters, then the replica of each. */
  readonly servers: readonly Server[]
  readonly masters: readonly Redis[]
  stop(): Promise<void>
}

const slots = 16_384

/** Three masters with a replica each, which takes over two seconds after its master is missed. */
export async function bigCluster(): Promise<BigCluster> {
  const servers = await Promise.all(
    Array.from({ length: 6 }, async () =>
      running(async () => [
        '--cluster-enabled',
        'yes',
        '--cluster-port',
        String(await freePort()),
        '--cluster-node-timeout',
        '2000',
        '--cluster-replica-validity-factor',
        '0',
        '--repl-diskless-sync-delay',
        '0',
      ]),
    ),
  )
  const admins = servers.map((one) => one.admin())
  const [first, ...others] = admins as [Redis, ...Redis[]]
  const from = (nth: number): number => Math.ceil((slots * nth) / 3)
  await Promise.all(admins.map((one, nth) => one.cluster('SET-CONFIG-EPOCH', nth + 1)))
  await Promise.all(admins.slice(0, 3).map((one, nth) => one.cluster('ADDSLOTSRANGE', from(nth), from(nth + 1) - 1)))
  for (const other of others) {
    const { port } = servers[admins.indexOf(other)]!
    const [, bus] = await other.config('GET', 'cluster-port')
    await first.call('CLUSTER', 'MEET', '127.0.0.1', port, String(bus))
  }
  const knowAll = async (one: Redis): Promise<boolean> => (await one.cluster('INFO')).includes('cluster_known_nodes:6')
  await until(async () => (await Promise.all(admins.map(knowAll))).every(Boolean))
  for (const nth of [3, 4, 5]) {
    await admins[nth]!.cluster('REPLICATE', await admins[nth - 3]!.cluster('MYID'))
  }
  const isWell = async (one: Redis, nth: number): Promise<boolean> =>
    (await one.cluster('INFO')).includes('cluster_state:ok') &&
    (nth >= 3 || /connected_slaves:1/.test(await one.info('replication')))
  await until(async () => (await Promise.all(admins.map(isWell))).every(Boolean))
  return {
    servers,
    masters: admins.slice(0, 3),
    async stop() {
      await Promise.all(servers.map((one) => one.stop()))
    },
  }
}

/** Waits until something holds; what fails meanwhile does not hold. */
export async function until(holds: () => Promise<boolean> | boolean, withinMs = 30_000): Promise<void> {
  const end = performance.now() + withinMs
  for (;;) {
    if (await Promise.resolve(holds()).catch(() => false)) return
    if (performance.now() > end)
      throw new Error(`it did not come about within ${withinMs / 1000} s: ${holds.toString()}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
}
