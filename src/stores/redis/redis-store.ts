import * as z from 'zod'
import { isNotPermitted, RampmeterError } from '../../errors.ts'
import { readOptions } from '../../read-options.ts'
import { probed, probedWhere, probeOf } from '../probe.ts'
import type { Caller, Correction, DecisionRequest, OpenStore, Store, StoreDecision, StoreSettings } from '../store.ts'
import { correctionsBySlot, decideAcrossSlots, type AskSlot, type SlotOf } from './across-slots.ts'
import { Batch, type Asker } from './batch.ts'
import { nameOfClient } from './address.ts'
import { planPost } from './board.ts'
import type { ClusterClient, RedisClient } from './client.ts'
import { closedError, Connection, isCluster } from './connection.ts'
import { GiveBacks, hasNotRun } from './give-backs.ts'
import { accountOf } from '../ledger.ts'
import { createLedgerStore } from './ledger.ts'
import { hashSlot } from './hash-slot.ts'
import { KnownRefusals } from './known-refusals.ts'
import { askWhereItMoves, correctionsByKey, isMoving, MovingSlots, untilMoved } from './moving-slots.ts'
import { checkPermissions, lookAtPermissions, type Permissions } from './permissions.ts'
import {
  notation,
  planDecisions,
  planSettlement,
  readDecisions,
  type KeyNames,
  type PackedRow,
  type ShapedRequest,
} from './plan.ts'
import { prefetching } from './prefetch.ts'
import { Shapes } from './shapes.ts'
import { redisStandings } from './standings.ts'
import { Turns } from './turns.ts'

export interface RedisStoreOptions {
  /** What every key begins with. Default `rampmeter:`. Limiters with the same prefix share their counters. */
  prefix?: string
  /**
   * Whether a client that was refused, and for which the retry schedule has no time left to tell, is refused by this process alone
   * while it has no room: at most a second at a time. What other processes give back meanwhile counts after that. Default true:
   * a storm of retries does not reach Redis.
   */
  rememberRefusals?: boolean
}

const optionsSchema = z.strictObject({
  prefix: z.string().max(256).default('rampmeter:'),
  rememberRefusals: z.boolean().default(true),
})

/** How many decisions of a process are under way at one server. */
const mostUnderWay = 128

/** Counts up when what the keys hold changes its form, so that an old and a new version never read each other's bytes. */
const layout = 2

/** The same of accounts, which outlive the layout of counters. Whoever counts it up sees to it that what was there is taken over. */
const ledgerLayout = 1

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
  const { prefix, rememberRefusals } = readOptions(optionsSchema, options, 'redisStore')
  checkClient(redis)
  if (isCluster(redis)) checkHashTag(`${redis.options.keyPrefix ?? ''}${prefix}`)
  return new RedisStore(redis, prefix, rememberRefusals)
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
  readonly #rememberRefusals: boolean
  #connection: Connection | undefined
  #users = 0

  constructor(given: RedisClient | ClusterClient, prefix: string, rememberRefusals: boolean) {
    this.#given = given
    this.#prefix = prefix
    this.#rememberRefusals = rememberRefusals
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
    const shapes = new Shapes(notation)
    const refusals = this.#rememberRefusals ? new KnownRefusals() : undefined
    const send = async (requests: readonly ShapedRequest[]): Promise<(StoreDecision | RampmeterError)[]> => {
      const sentAt = performance.now()
      const row = await connection.call('decide', planDecisions(requests, names))
      const decisions = readDecisions(row as PackedRow, requests)
      decisions.forEach((decision, index) => refusals?.learn(requests[index]!, decision, sentAt))
      return decisions
    }
    const batch = new Batch<ShapedRequest, StoreDecision>({
      send,
      weigh: weightOf,
      mostWeight: 96,
      mostItems: 32,
      mostUnderWay,
      ownerOf: ({ request }) => ownerOf(request),
    })
    const decideFor = (request: DecisionRequest, asker: Asker<StoreDecision>): void => {
      if (closed) return asker.failed(closedError())
      for (const { charge } of request.undo) refusals?.forget(charge.partition)
      const shaped = { request, shape: shapes.of(request) }
      const known = refusals?.find(shaped)
      if (known === undefined) batch.add(shaped, asker)
      else asker.answered(known)
    }
    const ask = async (requests: readonly DecisionRequest[]): Promise<StoreDecision[]> =>
      (await send(requests.map((request) => ({ request, shape: shapes.of(request) })))).map(orThrow)
    const placesOf = ({ charges, undo }: DecisionRequest, slot: SlotOf): string[] => {
      const partitions = new Set([...charges, ...undo.map(({ charge }) => charge)].map(({ partition }) => partition))
      return [...new Set(Array.from(partitions, (partition) => connection.masterOf(slot(partition))))]
    }
    const correct = (corrections: readonly Correction[]): Promise<unknown> =>
      connection.call('settle', planSettlement(corrections, names))
    const giveBacks = new GiveBacks(correct)
    const moving = new MovingSlots()
    const permissionsAt = (partition: string): Permissions => ({
      connection,
      key: `${names.partition(partition)}:permissions`,
      prefix: this.#keysBeginWith,
    })
    const askSlot = slotOf === undefined ? ask : askWhereItMoves({ slotOf, ask, giveBacks }, moving)
    const placeOf =
      slotOf === undefined ? undefined : (request: DecisionRequest): string => placesOf(request, slotOf)[0] ?? ''
    const turns = placeOf && new Turns({ ask: askSlot, placeOf, ownerOf, mostUnderWay })
    /** Corrections of one slot. */
    const insist = async (ofSlot: readonly Correction[], slot: SlotOf): Promise<void> => {
      const byKey = correctionsByKey(ofSlot)
      const at = slot(ofSlot[0]!.charged.charge.partition)
      if (byKey.length === 1) return await giveBacks.insist(ofSlot)
      if (!moving.has(at)) {
        try {
          return void (await correct(ofSlot))
        } catch (error) {
          if (!isMoving(error)) {
            giveBacks.later(ofSlot, error)
            throw error
          }
          moving.note(at)
        }
      }
      await Promise.all(byKey.map((ofKey) => giveBacks.insist(ofKey)))
    }
    return prefetching({
      name: nameOfClient(this.#given, this.#keysBeginWith),
      known: (request) => {
        if (closed || slotOf !== undefined || refusals?.isEmpty !== false) return undefined
        return refusals.find({ request, shape: shapes.of(request) })
      },
      decide: (request, caller) => {
        if (slotOf === undefined) return new Promise((answered, failed) => decideFor(request, { answered, failed }))
        if (closed) return Promise.reject(closedError())
        const heard = caller === undefined ? askSlot : toldTo(caller, (one) => turns!.ask(one, caller), placeOf!)
        return decideAcrossSlots(request, { slotOf, ask: heard, giveBacks }, caller?.signal)
      },
      settle: async (corrections) => {
        whileOpen()
        if (corrections.length === 0) return
        for (const { charged } of corrections) refusals?.forget(charged.charge.partition)
        if (slotOf === undefined) await correct(corrections)
        else await Promise.all(correctionsBySlot(corrections, slotOf).map((ofSlot) => insist(ofSlot, slotOf)))
      },
      reset: async (partition, owners) => {
        whileOpen()
        refusals?.forget(partition)
        const keys = [names.partition(partition), ...owners.map((id) => names.own(partition, id))]
        await connection.unlink(keys).catch(async (error: unknown) => {
          if (!isMoving(error)) throw error
          await Promise.all(keys.map((key) => connection.unlink([key])))
        })
      },
      post: async (board, ...posted) => {
        whileOpen()
        const key = `${this.#prefix}${layout}:b:{${board}}`
        return (await connection.call('board', planPost(key, board, ...posted))) as number[]
      },
      standings: redisStandings({
        prefix: this.#prefix,
        names,
        slotOf,
        call: async (script, call) => {
          whileOpen()
          if (script === 'observe') return await connection.call(script, call)
          return await untilMoved(() => connection.call(script, call))
        },
      }),
      ledger: createLedgerStore(connection, names, whileOpen),
      ready: async () => {
        whileOpen()
        await connection.ready()
      },
      check: async () => {
        whileOpen()
        const look = async (partition: string): Promise<void> => {
          // ioredis sends a script by EVAL at first, and by EVALSHA once it knows that it is there.
          for (let times = 0; times < 2; times += 1) await ask([probeOf(partition, true)])
          await connection.unlink([names.partition(partition)])
        }
        await checkPermissions({ ...permissionsAt(probed), ask: () => look(probed) })
        if (slotOf === undefined) return
        // Each master has an ACL of its own. One that does not answer is waited for by nobody.
        const masterOf = (partition: string): string => connection.masterOf(slotOf(partition))
        const others = connection.masters.filter((master) => master !== masterOf(probed))
        await Promise.all(
          others.map(async (master) => {
            const there = probedWhere((partition) => masterOf(partition) === master)
            if (there === undefined) return
            await lookAtPermissions({ ...permissionsAt(there), ask: () => look(there) }).catch((error: unknown) => {
              if (isNotPermitted(error)) throw error
            })
          }),
        )
      },
      checkAt: async (partition) => {
        whileOpen()
        await lookAtPermissions(permissionsAt(partition))
      },
      connections: async () => {
        const said = await connection.info('clients')
        return Math.max(0, ...said.map((info) => Number(/^connected_clients:(\d+)/m.exec(info)?.[1] ?? 0)))
      },
      isConnected: () => connection.isUp,
      // What a cluster turns away is tried again slot by slot.
      ...(slotOf === undefined
        ? { hasNotRun, decideFor }
        : { placesOf: (request) => placesOf(request, slotOf), places: () => connection.masters, takesTurns: true }),
      close: async () => {
        if (closed) return
        closed = true
        giveBacks.end()
        this.#users -= 1
        if (this.#users > 0) return
        this.#connection = undefined
        await connection.close()
      },
    })
  }

  get #keysBeginWith(): string {
    const { keyPrefix = '' } = (this.#given as Partial<ClusterClient>).options ?? {}
    return `${keyPrefix}${this.#prefix}`
  }

  /** All keys of a partition carry the same hash tag, so that a cluster keeps them together. */
  #namesFor({ nameOf }: StoreSettings): KeyNames {
    // The name of an account is a hash already, and does not change with the secret that names counters.
    const hashed = (name: string): string => accountOf(name) ?? nameOf(name)
    const partition = (name: string): string => `${this.#prefix}${layout}:{${hashed(name)}}`
    return {
      partition,
      standing: (name, what) => `${this.#prefix}${what}:{${nameOf(name)}}`,
      own: (name, stateId) =>
        `${partition(name)}:${typeof stateId === 'string' ? `p:${stateId}` : stateId.toString(36)}`,
      account: (name) => `${this.#prefix}ledger${ledgerLayout}:{${hashed(name)}}`,
    }
  }

  /** Of a cluster: which slot a partition is in. A single server has all its keys in reach of one call. */
  #slotsFor(names: KeyNames): SlotOf | undefined {
    const given = this.#given
    if (!isCluster(given)) return undefined
    const { keyPrefix = '' } = given.options
    return (partition) => hashSlot(`${keyPrefix}${names.partition(partition)}`)
  }
}

/** How much a decision costs Redis, roughly: what it has to load, and each policy. */
function weightOf({ request }: ShapedRequest): number {
  return 1 + request.charges.length
}

/** Who asks: of a counter that clients share, which of them. */
function ownerOf({ charges, undo }: DecisionRequest): string {
  const charge = charges[0] ?? undo[0]?.charge
  return `${charge?.holder ?? charge?.partition}`
}

function orThrow(answer: StoreDecision | RampmeterError): StoreDecision {
  if (answer instanceof Error) throw answer
  return answer
}

/** Tells who waits which place has answered. */
function toldTo(caller: Caller, ask: AskSlot, placeOf: (request: DecisionRequest) => string): AskSlot {
  return async (requests) => {
    const place = placeOf(requests[0]!)
    try {
      const decisions = await ask(requests)
      caller.heard(place, false)
      return decisions
    } catch (error) {
      // Of a slot that moves it did answer, and is well.
      caller.heard(place, !isMoving(error))
      throw error
    }
  }
}
