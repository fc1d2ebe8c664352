import { randomBytes } from 'node:crypto'
import { isNotPermitted, warn } from './errors.ts'
import { causeOf } from './observe/channels.ts'
import type { Store } from './stores/store.ts'

/** Puts a value on a board of the store, for so long, and tells those of all processes that are on it. */
type Post = (board: string, entry: string, value: number, ttlMs: number) => Promise<readonly number[]>

/** How often a process says that it is there, and for how long that is believed, in ms. */
const sayEveryMs = 10_000
const believedForMs = 30_000

/** After its first word it speaks again so soon, in ms: processes that start together know of each other within a second or two. */
const atFirstMs = [1000, 2000, 4000]

/**
 * The most that were seen these last times count. So the number falls late: not when a store begins empty, or has forgotten all
 * in a long outage, and its processes come back to it one after the other.
 */
const timesBelieved = 4

const board = 'processes'

/**
 * Counts the processes that share a store: each says on a board of it that it is there, once for all of its limiters. While the
 * store is away the last count stands.
 */
export class Processes {
  readonly #entry = randomBytes(9).toString('base64url')
  /** Of those limiters that use it. */
  readonly #posts = new Map<Post, () => Promise<number>>()
  /** How many were seen, the last time last. */
  #seen: number[] = []
  #timer: NodeJS.Timeout | undefined
  #isSaying = false
  #said = 0
  /** The store does not permit it to say so; then so many there are at most, 0 where that is not told either. */
  #atMost: number | undefined

  /** At least 1, which is what a process believes that has never reached its store. */
  get count(): number {
    return Math.max(1, ...this.#seen, this.#atMost ?? 0)
  }

  /** Whether the store has ever told how many there are. */
  get isKnown(): boolean {
    return this.#seen.length > 0 || this.isForbidden
  }

  /** Whether the store does not permit it to be counted. */
  get isForbidden(): boolean {
    return this.#atMost !== undefined
  }

  /**
   * Says so from now on, once the store is there.
   *
   * @param post undefined where a store has no boards: then each process takes itself for the only one
   * @param connections how many the store has, for where it does not permit to be counted: each process has one
   * @returns what ends the use; with the last the word is taken back
   */
  use(
    post: Post | undefined,
    ready: () => Promise<unknown>,
    connections: () => Promise<number> = noneTold,
  ): () => Promise<void> {
    if (post === undefined) return async () => {}
    this.#posts.set(post, connections)
    const begin = (): void => {
      if (this.#timer === undefined) void this.#say()
    }
    ready().then(begin, begin)
    return async () => {
      if (!this.#posts.delete(post) || this.#posts.size > 0) return
      clearTimeout(this.#timer)
      this.#timer = undefined
      this.#seen = []
      this.#said = 0
      this.#atMost = undefined
      await post(board, this.#entry, 1, 0).catch(() => {})
    }
  }

  async #say(): Promise<void> {
    const [user] = this.#posts
    if (user === undefined || this.#isSaying) return
    const [post, connections] = user
    this.#isSaying = true
    try {
      const entries = await post(board, this.#entry, 1, believedForMs)
      if (this.#posts.size > 0) this.#seen = [...this.#seen, entries.length].slice(-timesBelieved)
      this.#atMost = undefined
    } catch (error) {
      // What was seen last counts.
      if (isNotPermitted(error)) await this.#countConnections(error, connections)
    } finally {
      this.#isSaying = false
      if (this.#posts.size > 0) this.#sayLater()
    }
  }

  /** What nobody may write on the board nobody reads there: none gets more than its share if each connection is taken for one. */
  async #countConnections(error: unknown, connections: () => Promise<number>): Promise<void> {
    const isNew = this.#atMost === undefined
    try {
      this.#atMost = await connections()
    } catch {
      this.#atMost = 0
    }
    if (!isNew || this.#posts.size === 0) return
    const meanwhile =
      this.#atMost > 0
        ? `quotas are divided by ${this.count} while the store is away, as many as it has connections`
        : 'this process takes itself for the only one while the store is away, and admits whole quotas'
    warn(
      'RAMPMETER_REDIS_PERMISSIONS',
      `the processes that share the store cannot be counted (${causeOf(error)}), so ${meanwhile}; give the user the commands of rampmeter/docs/redis.md#permissions, or set \`processes\``,
    )
  }

  #sayLater(): void {
    const pauseMs = atFirstMs[this.#said] ?? sayEveryMs
    this.#said += 1
    this.#timer = setTimeout(() => void this.#say(), pauseMs)
    this.#timer.unref()
  }
}

const noneTold = async (): Promise<number> => 0

const ofStores = new WeakMap<Store, Processes>()

/** What a store knows of its processes, whichever limiter asks. */
export function processesOf(store: Store): Processes {
  let processes = ofStores.get(store)
  if (processes === undefined) {
    processes = new Processes()
    ofStores.set(store, processes)
  }
  return processes
}
