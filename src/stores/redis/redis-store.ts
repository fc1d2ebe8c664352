import * as z from 'zod'
import { RampmeterError } from '../../errors.ts'
import { readOptions } from '../../read-options.ts'
import type { DecisionRequest, OpenStore, Store, StoreDecision, StoreSettings } from '../store.ts'
import { correctionsBySlot, decideAcrossSlots, type SlotOf } from './across-slots.ts'
import type { ClusterClient, RedisClient } from './client.ts'
import { closedError, Connection, isCluster } from './connection.ts'
import { hashSlot } from './hash-slot.ts'
import { planDecisions, planSettlement, readDecisions, type KeyNames } from './plan.ts'

export interface RedisStoreOptions {
  /** What every key begins with. Default `rampmeter:`. Limiters with the same prefix share their counters. */
  prefix?: string
}

const optionsSchema = z.strictObject({ prefix: z.string().max(256).default('rampmeter:') })

/** Counts up when what the keys hold changes its form, so that an old and a new version never read each other's bytes. */
const layout = 1

/**
 * Counters in Redis 7 or Valkey 7.2, shared by all processes that use it: a single server, a Sentinel group or a cluster.
 *
 * A decision is one script call, however many policies it has, and one key for each partition. On a cluster it is one call for
 * each hash slot that its partitions are in. The store works on a connection of its own, a `duplicate()` of the client given,
 * that never repeats a call whose answer was lost.
 *
 * @param redis an ioredis 5 or 6 `Redis` or `Cluster`; it stays yours to use and to close
 * @example
 * import { Redis } from 'ioredis'
 * const limiter = rampmeter({ store: redisStore(new Redis(process.env.REDIS_URL)) })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_REDIS`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function redisStore(redis: RedisClient | ClusterClient, options: RedisStoreOptions = {}): Store {
  const { prefix } = readOptions(optionsSchema, options, 'redisStore')
  checkClient(redis)
  if (isCluster(redis)) checkHashTag(`${redis.options.keyPrefix ?? ''}${prefix}`)
  return new RedisStore(redis, prefix)
}

function checkClient(redis: unknown): void {
  const client = redis as Partial<RedisClient> | null | undefined
  if (typeof client?.duplicate !== 'function' || typeof client.defineCommand !== 'function') {
    const seen = typeof client?.duplicate === 'function' ? 'a client of another library (node-redis?)' : 'no client'
    throw new RampmeterError(
      'RAMPMETER_INVALID_REDIS',
      `redisStore was given ${seen}; write redisStore(new Redis(url)) with Redis from ioredis 5 or 6`,
    )
  }
}

/** Only the first braces of a key make its hash tag. Empty ones make none, and tear the keys of a partition apart. */
function checkHashTag(prefix: string): void {
  const opens = prefix.indexOf('{')
  if (opens === -1 || prefix[opens + 1] !== '}') return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    'redisStore: on a cluster no prefix may begin its braces with `{}`, which would spread the keys of one client; write something between them, or leave them out',
  )
}

class RedisStore implements Store {
  readonly #given: RedisClient | ClusterClient
  readonly #prefix: string
  #connection: Connection | undefined
  #users = 0

  constructor(given: RedisClient | ClusterClient, prefix: string) {
    this.#given = given
    this.#prefix = prefix
  }

  open(settings: StoreSettings): OpenStore {
    this.#users += 1
    const connection = (this.#connection ??= new Connection(this.#given))
    const names = this.#namesFor(settings)
    const slotOf = this.#slotsFor(names)
    let closed = false
    const whileOpen = (): void => {
      if (closed) throw closedError()
    }
    const ask = async (requests: readonly DecisionRequest[]): Promise<StoreDecision[]> => {
      const row = await connection.call('decide', planDecisions(requests, names))
      return readDecisions(row as number[], requests)
    }
    return {
      decide: async (request) => {
        whileOpen()
        return slotOf === undefined ? (await ask([request]))[0]! : await decideAcrossSlots(request, slotOf, ask)
      },
      settle: async (corrections) => {
        whileOpen()
        if (corrections.length === 0) return
        const calls = slotOf === undefined ? [corrections] : correctionsBySlot(corrections, slotOf)
        await Promise.all(calls.map((call) => connection.call('settle', planSettlement(call, names))))
      },
      reset: async (partition, owners) => {
        whileOpen()
        await connection.unlink([names.partition(partition), ...owners.map((id) => names.own(partition, id))])
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
    return { partition, own: (name, stateId) => `${partition(name)}:${stateId.toString(36)}` }
  }

  /** Of a cluster: which slot a partition is in. A single server has all its keys in reach of one call. */
  #slotsFor(names: KeyNames): SlotOf | undefined {
    const given = this.#given
    if (!isCluster(given)) return undefined
    const { keyPrefix = '' } = given.options
    return (partition) => hashSlot(`${keyPrefix}${names.partition(partition)}`)
  }
}
