import { Redis } from 'ioredis'

/** What a Redis did in a while. */
export interface RedisWork {
  /** Time on the processor, user and system, in µs. */
  readonly cpuUs: number
  /** Commands that clients sent. */
  readonly calls: number
  /** Commands that their scripts ran. */
  readonly inside: number
  /** Either of the two, by name. */
  readonly commands: ReadonlyMap<string, number>
}

interface Counts {
  readonly cpuUs: number
  readonly commands: ReadonlyMap<string, number>
}

/** What this meter and the libraries' connections send beside decisions. */
const uncounted = new Set([
  'info',
  'client',
  'hello',
  'select',
  'quit',
  'flushall',
  'script',
  'memory',
  'keys',
  'dbsize',
])

/** Reads what a Redis has done, over a connection of its own. */
export class RedisMeter {
  readonly #redis: Redis

  constructor(url: string) {
    this.#redis = new Redis(url)
  }

  /** Begins a while; what it returns ends it. */
  async start(): Promise<() => Promise<RedisWork>> {
    const before = await this.#read()
    return async () => {
      const after = await this.#read()
      const commands = new Map(
        [...after.commands].map(([name, count]) => [name, count - (before.commands.get(name) ?? 0)]),
      )
      const scripts = (commands.get('evalsha') ?? 0) + (commands.get('eval') ?? 0)
      const others = [...commands.values()].reduce((sum, count) => sum + count, 0) - scripts
      // Whoever sends no scripts sends the commands themselves.
      const counts = scripts === 0 ? { calls: others, inside: 0 } : { calls: scripts, inside: others }
      return { cpuUs: after.cpuUs - before.cpuUs, ...counts, commands }
    }
  }

  async #read(): Promise<Counts> {
    const [cpu, stats] = await Promise.all([this.#redis.info('cpu'), this.#redis.info('commandstats')])
    const commands = new Map<string, number>()
    for (const [, name, calls] of stats.matchAll(/^cmdstat_(\w+)[\w|]*:calls=(\d+)/gm)) {
      if (!uncounted.has(name!)) commands.set(name!, (commands.get(name!) ?? 0) + Number(calls))
    }
    const seconds = (field: string): number => Number(new RegExp(`^${field}:([\\d.]+)`, 'm').exec(cpu)![1])
    return { cpuUs: (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6, commands }
  }

  /** Its name and version, such as `Redis 7.0.15`. */
  async name(): Promise<string> {
    const text = await this.#redis.info('server')
    const valkey = /^valkey_version:(\S+)/m.exec(text)?.[1]
    return valkey === undefined ? `Redis ${/^redis_version:(\S+)/m.exec(text)![1]}` : `Valkey ${valkey}`
  }

  /** What it holds in memory, in bytes, and in how many keys. */
  async holds(): Promise<{ bytes: number; keys: number }> {
    const [memory, keys] = await Promise.all([this.#redis.info('memory'), this.#redis.dbsize()])
    return { bytes: Number(/^used_memory:(\d+)/m.exec(memory)![1]), keys }
  }

  /** What its keys that begin so take by MEMORY USAGE, in bytes: names and values. */
  async bytesOf(prefix: string): Promise<number> {
    const keys = await this.#redis.keys(`${prefix}*`)
    let bytes = 0
    for (const key of keys) bytes += Number(await this.#redis.memory('USAGE', key, 'SAMPLES', '0'))
    return bytes
  }

  /** Empties it, so that one scenario's keys do not slow the next one down. */
  async flush(): Promise<void> {
    await this.#redis.flushall()
  }

  async close(): Promise<void> {
    await this.#redis.quit()
  }
}
