import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import type { Limit } from '../policies/algorithm.ts'
import type { PolicyKind } from '../policy.ts'
import { readOptions } from '../read-options.ts'
import type { Correction, DecisionRequest, OpenStore, Store, StoreDecision } from './store.ts'
import { algorithms, correct, decideTogether, type Counters } from './together.ts'

export interface MemoryStoreOptions {
  /** The clock, in ms since 1970; fractions count. Default `Date.now`. Tests give `manualClock()` of `rampmeter/testing`. */
  now?: () => number
  /**
   * How many partitions are kept for addresses, and as many again for all others. Default 100 000. When one side is full of
   * live counters, whoever is new on it shares one set of counters: nobody's own is forgotten to make room.
   */
  maxKeys?: number
}

const optionsSchema = z.strictObject({
  now: z
    .custom<() => number>((value) => typeof value === 'function', 'a function that returns milliseconds')
    .optional(),
  maxKeys: z.int().min(1).max(10_000_000).default(100_000),
})

/**
 * Counters in this process: for development, tests, and services that run as one process.
 *
 * It decides with the same arithmetic as the Redis store. Counters expire by themselves, and no timer keeps the process alive.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function memoryStore(options: MemoryStoreOptions = {}): Store {
  const { now = Date.now, maxKeys } = readOptions(optionsSchema, options, 'memoryStore')
  return new MemoryStore(now, maxKeys)
}

/** One policy's counter. */
interface Counter {
  state: unknown
  /** When it counts nothing any more, in µs. */
  expires: number
  /** It counted nothing when it was kept. */
  empty: boolean
}

/** The counters of one partition, by state id. */
type Row = Map<number, Counter>

class MemoryStore implements Store, OpenStore {
  readonly #clock: () => number
  readonly #addresses: Space
  readonly #others: Space
  #users = 0

  constructor(clock: () => number, maxKeys: number) {
    this.#clock = clock
    this.#addresses = new Space(maxKeys)
    this.#others = new Space(maxKeys)
  }

  open(): OpenStore {
    this.#users += 1
    let closed = false
    const whileOpen = (): void => {
      if (closed) throw new RampmeterError('RAMPMETER_CLOSED', 'the store was used after its limiter was closed')
    }
    return {
      local: true,
      decide: async (request) => {
        whileOpen()
        return this.decide(request)
      },
      settle: async (corrections) => {
        whileOpen()
        return this.settle(corrections)
      },
      reset: async (partition) => {
        whileOpen()
        return this.reset(partition)
      },
      ready: async () => whileOpen(),
      close: async () => {
        if (closed) return
        closed = true
        await this.close()
      },
    }
  }

  async decide(request: DecisionRequest): Promise<StoreDecision> {
    const now = this.#now()
    if (!request.commit) return this.#look(request, now)
    return this.#change(now, (counters) => decideTogether(request, now, counters))
  }

  async settle(corrections: readonly Correction[]): Promise<void> {
    const now = this.#now()
    this.#change(now, (counters) => {
      for (const correction of corrections) correct(correction, now, counters)
    })
  }

  /** Decides on copies. */
  #look(request: DecisionRequest, now: number): StoreDecision {
    return decideTogether(request, now, {
      open: (charge) => {
        const counter = this.#spaceOf(charge.partition).find(charge.partition)?.get(charge.stateId)
        return algorithms[charge.kind].open(structuredClone(counter?.state), charge, now)
      },
      keep: () => {},
    })
  }

  #change<Result>(now: number, make: (counters: Counters) => Result): Result {
    // Before any counter is opened: what has expired makes room.
    this.#addresses.sweep(now)
    this.#others.sweep(now)
    const changed = new Map<string, boolean>()
    const keep = (partition: string, stateId: number, state: unknown, expires: number): void => {
      this.#spaceOf(partition)
        .findOrAdd(partition)
        .set(stateId, { state, expires, empty: expires <= now })
      changed.set(partition, true)
    }
    const result = make({
      open: (charge, correcting) => {
        const { kind, partition, stateId } = charge
        const counter = this.#spaceOf(partition).findOrAdd(partition).get(stateId)
        const state = algorithms[kind].open(counter?.state, charge, now, correcting)
        if (!changed.has(partition)) changed.set(partition, false)
        if (counter !== undefined && !counter.empty) {
          const expires = keptUntil(kind, counter.state, charge, now)
          // It was mended in its place.
          if (expires !== counter.expires) keep(partition, stateId, counter.state, expires)
        }
        return state
      },
      keep: (charge, state) => {
        const { kind, partition, stateId } = charge
        keep(partition, stateId, state, keptUntil(kind, state, charge, now))
      },
    })
    for (const [partition, hasChanged] of changed) this.#spaceOf(partition).release(partition, now, hasChanged)
    return result
  }

  async reset(partition: string): Promise<void> {
    this.#spaceOf(partition).forget(partition)
  }

  async ready(): Promise<void> {}

  async close(): Promise<void> {
    this.#users -= 1
    if (this.#users > 0) return
    this.#addresses.clear()
    this.#others.clear()
  }

  #now(): number {
    return Math.round(this.#clock() * 1000)
  }

  /** Anybody can have many addresses; those who showed who they are must not be crowded out by them. */
  #spaceOf(partition: string): Space {
    return partition.startsWith('ip:') ? this.#addresses : this.#others
  }
}

/** When a state is worth nothing any more. */
function keptUntil(kind: PolicyKind, state: unknown, limit: Limit, now: number): number {
  const algorithm = algorithms[kind]
  return algorithm.kept === undefined ? algorithm.expires(state, limit, now) : algorithm.kept(state, limit, now)
}

const secondUs = 1_000_000

/**
 * A bounded map of partitions. Each is noted under the second in which it is expected to expire; as time passes, the seconds
 * that are over are gone through, and what has expired is dropped. So no entry is looked at more than once a lifetime, and
 * there is no timer.
 */
class Space {
  readonly #partitions = new Map<string, { row: Row; due: number }>()
  readonly #due = new Map<number, Set<string>>()
  readonly #max: number
  /** What all who are new share while there is no room. */
  readonly #shared: Row = new Map()
  #swept = 0

  constructor(max: number) {
    this.#max = max
  }

  find(partition: string): Row | undefined {
    const own = this.#partitions.get(partition)
    if (own !== undefined) return own.row
    return this.#partitions.size >= this.#max ? this.#shared : undefined
  }

  findOrAdd(partition: string): Row {
    const own = this.#partitions.get(partition)
    if (own !== undefined) return own.row
    if (this.#partitions.size >= this.#max) return this.#shared
    const row: Row = new Map()
    this.#partitions.set(partition, { row, due: Infinity })
    return row
  }

  /** After a decision: forgets what the partition no longer needs, and notes when to look at it again. */
  release(partition: string, now: number, changed: boolean): void {
    const own = this.#partitions.get(partition)
    if (own === undefined) return
    const expires = changed ? dropExpired(own.row, now) : 0
    if (own.row.size === 0) {
      this.forget(partition)
      return
    }
    if (!changed) return
    // Noted once: a later expiry is found when the noted second is over.
    const second = Math.ceil(expires / secondUs)
    if (second >= own.due) return
    this.#strike(partition, own.due)
    own.due = second
    const noted = this.#due.get(second)
    if (noted === undefined) this.#due.set(second, new Set([partition]))
    else noted.add(partition)
  }

  forget(partition: string): void {
    const own = this.#partitions.get(partition)
    if (own === undefined) return
    this.#partitions.delete(partition)
    this.#strike(partition, own.due)
  }

  /** Takes a note back, so that there are never more of them than partitions. */
  #strike(partition: string, second: number): void {
    const noted = this.#due.get(second)
    if (noted?.delete(partition) && noted.size === 0) this.#due.delete(second)
  }

  clear(): void {
    this.#partitions.clear()
    this.#due.clear()
    this.#shared.clear()
  }

  sweep(now: number): void {
    const second = Math.floor(now / secondUs)
    // A clock that stepped back: the seconds to come are gone through again.
    if (second < this.#swept) this.#swept = second
    if (second === this.#swept) return
    dropExpired(this.#shared, now)
    const over =
      second - this.#swept <= this.#due.size
        ? Array.from({ length: second - this.#swept }, (_, index) => this.#swept + 1 + index)
        : [...this.#due.keys()].filter((due) => due <= second)
    this.#swept = second
    for (const due of over) {
      const partitions = this.#due.get(due) ?? []
      this.#due.delete(due)
      for (const partition of partitions) {
        this.#partitions.get(partition)!.due = Infinity
        this.release(partition, now, true)
      }
    }
  }
}

/**
 * Drops the counters that count nothing any more, by the whole second as the Redis store does, and says when the last of the
 * others will.
 */
function dropExpired(row: Row, now: number): number {
  let last = 0
  for (const [stateId, { expires, empty }] of row) {
    if (empty || Math.ceil(expires / secondUs) * secondUs <= now) row.delete(stateId)
    else if (expires > last) last = expires
  }
  return last
}
