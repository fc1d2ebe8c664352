import { LRUCache } from 'lru-cache'

/**
 * Keeps so many entries, and forgets the one that nobody asked for longest. An `LRUCache` takes the room for all of them when it is
 * made, which takes longer than all else of making a limiter; this takes it when there is a first entry.
 */
export class Recent<Key extends string | number, Value extends {}> {
  readonly #options: LRUCache.Options<Key, Value, unknown>
  #entries: LRUCache<Key, Value> | undefined

  constructor(options: LRUCache.Options<Key, Value, unknown>) {
    this.#options = options
  }

  get size(): number {
    return this.#entries?.size ?? 0
  }

  get(key: Key): Value | undefined {
    return this.#entries?.get(key)
  }

  /** As `get`, and it stays as long unasked for as it was. */
  peek(key: Key): Value | undefined {
    return this.#entries?.peek(key)
  }

  has(key: Key): boolean {
    return this.#entries?.has(key) === true
  }

  set(key: Key, value: Value): void {
    this.#entries ??= new LRUCache(this.#options)
    this.#entries.set(key, value)
  }

  delete(key: Key): void {
    this.#entries?.delete(key)
  }
}
