const secondUs = 1_000_000

/** One policy's counter, or what is kept beside one. */
export interface Counter {
  readonly id: number
  state: unknown
  /** When it counts nothing any more, in µs. */
  expires: number
  /** It counted nothing when it was kept. */
  empty: boolean
  /** It is a retry schedule, or what is reserved. */
  readonly isBeside: boolean
}

/** The counters of one partition. There are few, so that looking through them is faster than a map, and much smaller. */
export class Row {
  readonly #counters: Counter[] = []
  #beside = 0
  /** The second under which it is noted. */
  due: number = Infinity

  find(stateId: number): Counter | undefined {
    const id = stateId | 0
    for (const counter of this.#counters) if (counter.id === id) return counter
    return undefined
  }

  keep(stateId: number, state: unknown, expires: number, now: number, isBeside: boolean): void {
    const counter = this.find(stateId)
    const empty = expires <= now
    // As a whole number of 32 bits it needs no box.
    if (counter === undefined) {
      this.#counters.push({ id: stateId | 0, state, expires, empty, isBeside })
      if (isBeside) this.#beside += 1
    } else {
      counter.state = state
      counter.expires = expires
      counter.empty = empty
    }
  }

  get isEmpty(): boolean {
    return this.#counters.length === 0
  }

  /** Whether there are counters and nothing else: nobody waits, and nothing is reserved. */
  get isPlain(): boolean {
    return this.#beside === 0
  }

  /**
   * Drops the counters that count nothing any more, by the whole second as the Redis store does, and says when the last of the
   * others will.
   */
  dropExpired(now: number): number {
    const counters = this.#counters
    let last = 0
    let kept = 0
    for (const counter of counters) {
      const { expires, empty } = counter
      if (empty || Math.ceil(expires / secondUs) * secondUs <= now) {
        if (counter.isBeside) this.#beside -= 1
        continue
      }
      if (expires > last) last = expires
      counters[kept] = counter
      kept += 1
    }
    if (kept < counters.length) counters.length = kept
    return last
  }
}

/**
 * A bounded map of partitions. Each is noted under the second in which it is expected to expire; as time passes, the seconds
 * that are over are gone through, and what has expired is dropped. So no entry is looked at more than once a lifetime, and
 * there is no timer.
 */
export class Space {
  readonly #rows = new Map<string, Row>()
  readonly #due = new Map<number, Set<string>>()
  readonly #max: number
  /** What all who are new share while there is no room. */
  #shared = new Row()
  #swept = 0

  constructor(max: number) {
    this.#max = max
  }

  find(partition: string): Row | undefined {
    return this.#rows.get(partition) ?? (this.#rows.size >= this.#max ? this.#shared : undefined)
  }

  findOrAdd(partition: string): Row {
    const own = this.find(partition)
    if (own !== undefined) return own
    const row = new Row()
    this.#rows.set(partition, row)
    return row
  }

  /** After a decision: forgets what the partition no longer needs, and notes when to look at it again. */
  release(partition: string, row: Row, now: number, changed: boolean): void {
    if (row === this.#shared) return
    const expires = changed ? row.dropExpired(now) : 0
    if (row.isEmpty) {
      this.forget(partition)
      return
    }
    if (!changed) return
    // Noted once: a later expiry is found when the noted second is over.
    const second = Math.ceil(expires / secondUs)
    if (second >= row.due) return
    this.#strike(partition, row.due)
    row.due = second
    const noted = this.#due.get(second)
    if (noted === undefined) this.#due.set(second, new Set([partition]))
    else noted.add(partition)
  }

  forget(partition: string): void {
    const own = this.#rows.get(partition)
    if (own === undefined) return
    this.#rows.delete(partition)
    this.#strike(partition, own.due)
  }

  /** Takes a note back, so that there are never more of them than partitions. */
  #strike(partition: string, second: number): void {
    const noted = this.#due.get(second)
    if (noted?.delete(partition) && noted.size === 0) this.#due.delete(second)
  }

  clear(): void {
    this.#rows.clear()
    this.#due.clear()
    this.#shared = new Row()
  }

  sweep(now: number): void {
    const second = Math.floor(now / secondUs)
    // A clock that stepped back: the seconds to come are gone through again.
    if (second < this.#swept) this.#swept = second
    if (second === this.#swept) return
    this.#shared.dropExpired(now)
    const over =
      second - this.#swept <= this.#due.size
        ? Array.from({ length: second - this.#swept }, (_, index) => this.#swept + 1 + index)
        : [...this.#due.keys()].filter((due) => due <= second)
    this.#swept = second
    for (const due of over) {
      const partitions = this.#due.get(due) ?? []
      this.#due.delete(due)
      for (const partition of partitions) {
        const row = this.#rows.get(partition)!
        row.due = Infinity
        this.release(partition, row, now, true)
      }
    }
  }
}
