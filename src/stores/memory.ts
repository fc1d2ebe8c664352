import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import { noReservations, reservationsEnd, reservationsIdOf, type Reservations } from '../policies/reservations.ts'
import { noSchedule, scheduleEnds, scheduleIdOf, type Schedule } from '../policies/schedule.ts'
import type { SingleUseState } from '../policies/single-use.ts'
import { readOptions } from '../read-options.ts'
import { Boards } from './board.ts'
import { Accounts } from './accounts.ts'
import type { CreditsState } from './credits.ts'
import { SingleUses } from './single-uses.ts'
import { MemoryStandings } from './standings.ts'
import type { Correction, DecisionRequest, OpenStore, Store, StoreDecision } from './store.ts'
import { decidePlainly, type Places } from './plain.ts'
import { type Row, Space } from './space.ts'
import { algorithms, correct, decideTogether, keptUntil, type Counters } from './together.ts'

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

/** So many proofs are remembered, for each partition that may be kept: they are small and end within minutes. */
const proofsPerKey = 10

class MemoryStore implements Store, OpenStore {
  readonly #clock: () => number
  readonly #addresses: Space
  readonly #others: Space
  readonly #singleUses: SingleUses
  readonly #boards = new Boards()
  readonly #standings: MemoryStandings
  readonly #accounts = new Accounts()
  readonly #places: Places = {
    spaceOf: (partition) => this.#spaceOf(partition),
    standingOf: (partition) => this.#standings.open(partition),
  }
  #users = 0

  constructor(clock: () => number, maxKeys: number) {
    this.#clock = clock
    this.#addresses = new Space(maxKeys)
    this.#others = new Space(maxKeys)
    this.#singleUses = new SingleUses(proofsPerKey * maxKeys)
    this.#standings = new MemoryStandings(() => this.#now(), maxKeys)
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
        return this.#decide(request)
      },
      settle: async (corrections) => {
        whileOpen()
        return this.settle(corrections)
      },
      reset: async (partition) => {
        whileOpen()
        return this.reset(partition)
      },
      post: async (...posted) => {
        whileOpen()
        return this.#boards.post(...posted, this.#now())
      },
      standings: this.#standings,
      ledger: this.#accounts.ledger(() => {
        whileOpen()
        return this.#now()
      }),
      ready: async () => whileOpen(),
      close: async () => {
        if (closed) return
        closed = true
        await this.close()
      },
    }
  }

  async decide(request: DecisionRequest): Promise<StoreDecision> {
    return this.#decide(request)
  }

  #decide(request: DecisionRequest): StoreDecision {
    const now = this.#now()
    if (!request.commit) return this.#look(request, now)
    this.#sweep(now)
    return (
      decidePlainly(request, now, this.#places) ??
      this.#change(now, (counters) => decideTogether(request, now, counters))
    )
  }

  async settle(corrections: readonly Correction[]): Promise<void> {
    const now = this.#now()
    this.#sweep(now)
    this.#change(now, (counters) => {
      for (const correction of corrections) correct(correction, now, counters)
    })
  }

  /** Decides on copies. */
  #look(request: DecisionRequest, now: number): StoreDecision {
    return decideTogether(request, now, {
      open: (charge) => {
        if (charge.kind === 'single-use') return this.#singleUses.open(charge, now)
        if (charge.kind === 'standing') return this.#standings.open(charge.partition)
        if (charge.kind === 'credits') return this.#accounts.open(charge, now, true)
        const counter = this.#spaceOf(charge.partition).find(charge.partition)?.find(charge.stateId)
        return algorithms[charge.kind].open(structuredClone(counter?.state), charge, now)
      },
      keep: () => {},
      schedule: ({ partition, stateId }) => scheduleIn(this.#spaceOf(partition).find(partition), stateId),
      keepSchedule: () => {},
      reservations: ({ partition, stateId }) => reservationsIn(this.#spaceOf(partition).find(partition), stateId),
      keepReservations: () => {},
    })
  }

  /** Before any counter is opened: what has expired makes room. */
  #sweep(now: number): void {
    this.#addresses.sweep(now)
    this.#others.sweep(now)
  }

  #change<Result>(now: number, make: (counters: Counters) => Result): Result {
    const changed = new Map<string, boolean>()
    // Most decisions concern one partition.
    let last: { readonly partition: string; readonly row: Row } | undefined
    const rowOf = (partition: string): Row => {
      if (last?.partition !== partition) last = { partition, row: this.#spaceOf(partition).findOrAdd(partition) }
      return last.row
    }
    const keep = (partition: string, stateId: number, state: unknown, expires: number, isBeside = false): void => {
      rowOf(partition).keep(stateId, state, expires, now, isBeside)
      changed.set(partition, true)
    }
    const result = make({
      open: (charge, correcting) => {
        const { kind, partition, stateId } = charge
        if (kind === 'single-use') return this.#singleUses.open(charge, now)
        if (kind === 'standing') return this.#standings.open(partition)
        if (kind === 'credits') return this.#accounts.open(charge, now, false)
        const counter = rowOf(partition).find(stateId)
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
        if (kind === 'single-use') this.#singleUses.keep(charge, state as SingleUseState)
        else if (kind === 'credits') this.#accounts.keep(charge, state as CreditsState)
        else keep(partition, stateId, state, keptUntil(kind, state, charge, now))
      },
      schedule: ({ partition, stateId }) => scheduleIn(rowOf(partition), stateId),
      keepSchedule: ({ partition, stateId }, schedule) => {
        keep(partition, scheduleIdOf(stateId), schedule, scheduleEnds(schedule, now), true)
      },
      reservations: ({ partition, stateId }) => reservationsIn(rowOf(partition), stateId),
      keepReservations: ({ partition, stateId, windowUs }, reservations) => {
        keep(partition, reservationsIdOf(stateId), reservations, reservationsEnd(reservations, windowUs, now), true)
      },
    })
    for (const [partition, hasChanged] of changed) {
      const space = this.#spaceOf(partition)
      const row = space.find(partition)
      if (row !== undefined) space.release(partition, row, now, hasChanged)
    }
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
    this.#singleUses.clear()
    this.#boards.clear()
    this.#standings.clear()
  }

  #now(): number {
    return Math.round(this.#clock() * 1000)
  }

  /** Anybody can have many addresses; those who showed who they are must not be crowded out by them. */
  #spaceOf(partition: string): Space {
    return partition.startsWith('ip:') ? this.#addresses : this.#others
  }
}

/** The retry schedule beside a counter. */
function scheduleIn(row: Row | undefined, stateId: number): Schedule {
  const counter = row?.find(scheduleIdOf(stateId))
  return counter === undefined ? noSchedule : (counter.state as Schedule)
}

/** What is reserved beside a counter. */
function reservationsIn(row: Row | undefined, stateId: number): Reservations {
  const counter = row?.find(reservationsIdOf(stateId))
  return counter === undefined ? noReservations : (counter.state as Reservations)
}
