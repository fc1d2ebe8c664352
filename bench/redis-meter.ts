import { Redis } from 'ioredis'

/** What a Redis did in a while. */
export interface RedisWork {
  /** Time on the processor, user and system, in µs. */
  readonly cpuUs: number
  /** Commands that clients sent. */
  readonly calls: number
  /** Commands that their scripts ran. */
  readonly inside: number
}

interface Counts {
  readonly cpuUs: number
  readonly scripts: number
  readonly commands: number
}

/** What this meter and the libraries' connections send beside decisions. */
const uncounted = new Set(['info', 'client', 'hello', 'select', 'ping', 'quit', 'flushall', 'script'])

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
      const scripts = after.scripts - before.scripts
      const commands = after.commands - before.commands
      // Whoever sends no scripts sends the commands themselves.
      const calls = scripts === 0 ? commands : scripts
      return { cpuUs: after.cpuUs - before.cpuUs, calls, inside: scripts === 0 ? 0 : commands - scripts }
    }
  }

  async #read(): Promise<Counts> {
    const [cpu, stats] = await Promise.all([this.#redis.info('cpu'), this.#redis.info('commandstats')])
    let scripts = 0
    let commands = 0
    for (const [, name, calls] of stats.matchAll(/^cmdstat_(\w+)[\w|]*:calls=(\d+)/gm)) {
      if (uncounted.has(name!)) continue
      commands += Number(calls)
      if (name === 'evalsha' || name === 'eval') scripts += Number(calls)
    }
    const seconds = (field: string): number => Number(new RegExp(`^${field}:([\\d.]+)`, 'm').exec(cpu)![1])
    return { cpuUs: (seconds('used_cpu_user') + seconds('used_cpu_sys')) * 1e6, scripts, commands }
  }

  /** Its name and version, such as `Redis 7.0.15`. */
  async name(): Promise<string> {
    const text = await this.#redis.info('server')
    const valkey = /^valkey_version:(\S+)/m.exec(text)?.[1]
    return valkey === undefined ? `Redis ${/^redis_version:(\S+)/m.exec(text)![1]}` : `Valkey ${valkey}`
  }

  /** Empties it, so that one scenario's keys do not slow the next one down. */
  async flush(): Promise<void> {
    await this.#redis.flushall()
  }

  async close(): Promise<void> {
    await this.#redis.quit()
  }
}
