import { createHash } from 'node:crypto'
import * as z from 'zod'
import { RampmeterError } from '../../errors.ts'
import { readOptions } from '../../read-options.ts'
import type { OpenStore, Store, StoreSettings } from '../store.ts'
import type { RedisClient, ScriptCommand } from './client.ts'
import { planDecision, planSettlement, readDecision, type KeyNames, type ScriptCall } from './plan.ts'
import { decideScript, settleScript } from './scripts.ts'

export interface RedisStoreOptions {
  /** What every key begins with. Default `rampmeter:`. Limiters with the same prefix share their counters. */
  prefix?: string
}

const optionsSchema = z.strictObject({ prefix: z.string().max(256).default('rampmeter:') })

/** Counts up when what the keys hold changes its form, so that an old and a new version never read each other's bytes. */
const layout = 1

/**
 * Counters in Redis 7 or Valkey 7.2, shared by all processes that use it.
 *
 * A decision is one script call, however many policies it has, and one key for each partition. The store works on a connection
 * of its own, a `duplicate()` of the client given, that never repeats a call whose answer was lost.
 *
 * @param redis an ioredis 5 or 6 `Redis`; it stays yours to use and to close
 * @example
 * import { Redis } from 'ioredis'
 * const limiter = rampmeter({ store: redisStore(new Redis(process.env.REDIS_URL)) })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_REDIS`, `RAMPMETER_CLUSTER_UNSUPPORTED`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function redisStore(redis: RedisClient, options: RedisStoreOptions = {}): Store {
  const { prefix } = readOptions(optionsSchema, options, 'redisStore')
  checkClient(redis)
  return new RedisStore(redis, prefix)
}

function checkClient(redis: unknown): void {
  const client = redis as Partial<RedisClient & { isCluster: boolean; sendCommand: unknown }> | null | undefined
  if (client?.isCluster === true) {
    throw new RampmeterError(
      'RAMPMETER_CLUSTER_UNSUPPORTED',
      'redisStore was given an ioredis Cluster, where one decision may need several nodes; give it a Redis client of a single server or a Sentinel group',
    )
  }
  if (typeof client?.duplicate !== 'function' || typeof client.defineCommand !== 'function') {
    const seen = typeof client?.duplicate === 'function' ? 'a client of another library (node-redis?)' : 'no client'
    throw new RampmeterError(
      'RAMPMETER_INVALID_REDIS',
      `redisStore was given ${seen}; write redisStore(new Redis(url)) with Redis from ioredis 5 or 6`,
    )
  }
}

class RedisStore implements Store {
  readonly #given: RedisClient
  readonly #prefix: string
  #connection: Connection | undefined
  #users = 0

  constructor(given: RedisClient, prefix: string) {
    this.#given = given
    this.#prefix = prefix
  }

  open(settings: StoreSettings): OpenStore {
    this.#users += 1
    const connection = (this.#connection ??= new Connection(this.#given))
    const names = this.#namesFor(settings)
    let closed = false
    const whileOpen = (): void => {
      if (closed) throw closedError()
    }
    return {
      decide: async (request) => {
        whileOpen()
        const row = await connection.call('decide', planDecision(request, names))
        return readDecision(row as number[], request.charges)
      },
      settle: async (corrections) => {
        whileOpen()
        if (corrections.length > 0) await connection.call('settle', planSettlement(corrections, names))
      },
      reset: async (partition, logs) => {
        whileOpen()
        await connection.unlink([names.partition(partition), ...logs.map((id) => names.log(partition, id))])
      },
      ready: async () => {
        whileOpen()
        await connection.ready()
      },
      close: async () => {
        if (closed) return
        closed = true
        this.#users -= 1
        if (this.#users > 0) return
        this.#connection = undefined
        await connection.close()
      },
    }
  }

  /** All keys of a partition carry the same hash tag, so that a cluster keeps them together. */
  #namesFor({ nameOf }: StoreSettings): KeyNames {
    const partition = (name: string): string => `${this.#prefix}${layout}:{${nameOf(name)}}`
    return { partition, log: (name, stateId) => `${partition(name)}:${stateId.toString(36)}` }
  }
}

/** How long a server may take to say goodbye, in ms. */
const quitWithinMs = 2000

/** The store's own connection, shared by all limiters that opened the store. */
class Connection {
  readonly #client: RedisClient
  readonly #commands: Record<'decide' | 'settle', ScriptCommand>
  /** Who waits for the first connection: a client that is ended between two attempts to connect tells nobody. */
  readonly #waiting = new Set<() => void>()
  #closed = false

  constructor(given: RedisClient) {
    // A default client keeps commands while it is offline and sends again what was not answered: it would charge late, or twice.
    const client = given.duplicate({
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      lazyConnect: false,
      stringNumbers: false,
      retryStrategy: (attempt: number) => Math.min(attempt * 50, 2000),
    })
    // Failures reach the caller of each command; without a listener ioredis prints them as well.
    client.on('error', () => {})
    this.#client = client
    this.#commands = { decide: define(client, 'Decide', decideScript), settle: define(client, 'Settle', settleScript) }
  }

  async call(script: 'decide' | 'settle', { keys, plan }: ScriptCall): Promise<unknown> {
    this.#whileOpen()
    const { status } = this.#client
    if (status !== 'ready') {
      throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', `the connection to Redis is not up (${status})`)
    }
    return await this.#commands[script](keys.length, ...keys, plan)
  }

  async unlink(keys: string[]): Promise<void> {
    this.#whileOpen()
    await this.#client.unlink(...keys)
  }

  async ready(): Promise<void> {
    this.#whileOpen()
    if (this.#client.status === 'ready') return
    await new Promise<void>((resolve, reject) => {
      const settle = (): void => {
        this.#client.off('ready', settle)
        this.#waiting.delete(settle)
        if (this.#closed) reject(closedError())
        else resolve()
      }
      this.#client.on('ready', settle)
      this.#waiting.add(settle)
    })
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const settle of this.#waiting) settle()
    // QUIT waits for the answers under way; a connection that is not up has none, and one that is stuck never ends.
    if (this.#client.status === 'ready') {
      const giveUp = setTimeout(() => this.#client.disconnect(), quitWithinMs)
      await this.#client.quit().catch(() => this.#client.disconnect())
      clearTimeout(giveUp)
    } else {
      this.#client.disconnect()
    }
  }

  #whileOpen(): void {
    if (this.#closed) throw closedError()
  }
}

function closedError(): RampmeterError {
  return new RampmeterError('RAMPMETER_CLOSED', 'the store was used after its limiter was closed')
}

/** Adds a script to a client under a name that changes with the script, so that two versions never run each other's. */
function define(client: RedisClient, name: string, lua: string): ScriptCommand {
  const command = `rampmeter${name}_${createHash('sha256').update(lua).digest('hex').slice(0, 12)}`
  client.defineCommand(command, { lua })
  const added = (client as unknown as Record<string, ScriptCommand>)[command]!
  return (keyCount, ...rest) => added.call(client, keyCount, ...rest)
}
