import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import type { Charge, Correction, DecisionRequest, OpenStore, Store, StoreDecision } from './store.ts'
import { algorithms, decideTogether } from './together.ts'

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

/** One policy's counter, with the charge that last opened it: its limit says when the counter expires. */
interface Counter {
  state: unknown
  charge: Charge
}

/** The counters of one partition, by state id. */
type Counters = Map<number, Counter>

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
      reset: async (partition) => this.reset(partition),
      ready: async () => {},
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
    this.#sweep(now)
    const touched = new Set<string>()
    const unstarted: [Counters, Charge][] = []
    const decision = decideTogether(request, now, (charge) => {
      touched.add(charge.partition)
      const counters = this.#spaceOf(charge.partition).findOrAdd(charge.partition)
      const before = counters.get(charge.stateId)?.state
      const state = openCounter(counters, charge, now)
      if (charge.kind === 'first-minutes' && state !== before) unstarted.push([counters, charge])
      return state
    })
    // The first minutes begin with the first request that asks for them and is admitted.
    for (const [counters, charge] of unstarted) {
      if (!decision.admitted || !request.charges.some((one) => one.stateId === charge.stateId)) counters.delete(charge.stateId)
    }
    for (const partition of touched) this.#spaceOf(partition).keep(partition, now)
    return decision
  }

  /** Decides on copies. */
  #look(request: DecisionRequest, now: number): StoreDecision {
    const copies = new Map<string, unknown>()
    return decideTogether(request, now, (charge) => {
      const name = `${charge.stateId} ${charge.partition}`
      const counter = this.#spaceOf(charge.partition).find(charge.partition)?.get(charge.stateId)
      const copy = copies.has(name) ? copies.get(name) : structuredClone(counter?.state)
      const state = algorithms[charge.kind].open(copy, charge, now)
      copies.set(name, state)
      return state
    })
  }

  async settle(corrections: readonly Correction[]): Promise<void> {
    const now = this.#now()
    this.#sweep(now)
    for (const { charged, by } of corrections) {
      const { charge, chargedAtUs } = charged
      const counters = this.#spaceOf(charge.partition).findOrAdd(charge.partition)
      const before = counters.get(charge.stateId)?.state
      const state = openCounter(counters, charge, now)
      if (by < 0) algorithms[charge.kind].refund(state, charge, now, chargedAtUs, -by)
      else if (by > 0) algorithms[charge.kind].charge(state, charge, now, by)
      // Correcting what an earlier grant was charged grants nothing.
      if (charge.kind === 'first-minutes' && state !== before) counters.delete(charge.stateId)
      this.#spaceOf(charge.partition).keep(charge.partition, now)
    }
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

  /** Before any counter is opened: what expires is dropped, and one that was opened must stay. */
  #sweep(now: number): void {
    this.#addresses.sweep(now)
    this.#others.sweep(now)
  }
}

function openCounter(counters: Counters, charge: Charge, now: number): unknown {
  const counter = counters.get(charge.stateId)
  const state = algorithms[charge.kind].open(counter?.state, charge, now)
  if (counter === undefined) {
    counters.set(charge.stateId, { state, charge })
  } else {
    counter.state = state
    counter.charge = charge
  }
  return state
}

const secondUs = 1_000_000

/**
 * A bounded map of partitions. Each is noted under the second in which it is expected to expire; as time passes, the seconds
 * that are over are gone through, and what has expired is dropped. So no entry is looked at more than once a lifetime, and
 * there is no timer.
 */
class Space {
  readonly #partitions = new Map<string, { counters: Counters; due: number }>()
  readonly #due = new Map<number, string[]>()
  readonly #max: number
  /** What all who are new share while there is no room. */
  readonly #shared: Counters = new Map()
  #swept = 0

  constructor(max: number) {
    this.#max = max
  }

  find(partition: string): Counters | undefined {
    const own = this.#partitions.get(partition)
    if (own !== undefined) return own.counters
    return this.#partitions.size >= this.#max ? this.#shared : undefined
  }

  findOrAdd(partition: string): Counters {
    const own = this.#partitions.get(partition)
    if (own !== undefined) return own.counters
    if (this.#partitions.size >= this.#max) return this.#shared
    const counters: Counters = new Map()
    this.#partitions.set(partition, { counters, due: Infinity })
    return counters
  }

  /** After a decision: forgets what the partition no longer needs, and notes when to look at it again. */
  keep(partition: string, now: number): void {
    const own = this.#partitions.get(partition)
    if (own === undefined) return
    const expires = dropExpired(own.counters, now)
    if (own.counters.size === 0) {
      this.#partitions.delete(partition)
      return
    }
    // Noted once: a later expiry is found when the noted second is over.
    const second = Math.ceil(expires / secondUs)
    if (second >= own.due) return
    own.due = second
    const noted = this.#due.get(second)
    if (noted === undefined) this.#due.set(second, [partition])
    else noted.push(partition)
  }

  forget(partition: string): void {
    this.#partitions.delete(partition)
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
        const own = this.#partitions.get(partition)
        if (own === undefined || own.due !== due) continue
        own.due = Infinity
        this.keep(partition, now)
      }
    }
  }
}

/** Drops the counters that count nothing any more, and says when the last of the others will. */
function dropExpired(counters: Counters, now: number): number {
  let last = 0
  for (const [id, { state, charge }] of counters) {
    const expires = algorithms[charge.kind].expires(state, charge, now)
    if (expires <= now) counters.delete(id)
    else if (expires > last) last = expires
  }
  return last
}
