import { RampmeterError } from '../../errors.ts'
import type { Correction } from '../store.ts'

/** How long it waits before it tries again, in ms: twice as long each time, up to the longest. */
const firstPauseMs = 50
const longestPauseMs = 5000

/** Half a minute in all: by then a cluster that lost a master has another in its place, or nobody sees to it. */
const mostTries = 12

/** How many may wait at once. */
const mostWaiting = 1000

/**
 * Gives back what was charged for requests that were not admitted. Nobody waits for that, so what cannot be done now is tried
 * again for a while; but only what certainly did not run, since giving back twice would admit too much.
 */
export class GiveBacks {
  readonly #settle: (corrections: readonly Correction[]) => Promise<unknown>
  readonly #waiting = new Set<NodeJS.Timeout>()
  #ended = false

  /** @param settle makes corrections that concern one slot */
  constructor(settle: (corrections: readonly Correction[]) => Promise<unknown>) {
    this.#settle = settle
  }

  /** Gives back; resolves when that has been tried once. */
  async now(corrections: readonly Correction[]): Promise<void> {
    await this.#try(corrections, 1)
  }

  /** Makes corrections of any kind; what was turned away is tried again, and told all the same. */
  async insist(corrections: readonly Correction[]): Promise<void> {
    try {
      await this.#settle(corrections)
    } catch (error) {
      this.#tryAgain(corrections, 1, error)
      throw error
    }
  }

  /** Gives back later what could not be given back now. */
  later(corrections: readonly Correction[], error: unknown): void {
    this.#tryAgain(corrections, 1, error)
  }

  /** Gives nothing back any more: what waits stays charged until it leaves its window. */
  end(): void {
    this.#ended = true
    for (const timer of this.#waiting) clearTimeout(timer)
    this.#waiting.clear()
  }

  async #try(corrections: readonly Correction[], tries: number): Promise<void> {
    if (corrections.length === 0) return
    try {
      await this.#settle(corrections)
    } catch (error) {
      this.#tryAgain(corrections, tries, error)
    }
  }

  #tryAgain(corrections: readonly Correction[], tries: number, error: unknown): void {
    if (this.#ended || tries >= mostTries || this.#waiting.size >= mostWaiting || !hasNotRun(error)) return
    const timer = setTimeout(
      () => {
        this.#waiting.delete(timer)
        void this.#try(corrections, tries + 1)
      },
      Math.min(firstPauseMs * 2 ** (tries - 1), longestPauseMs),
    )
    timer.unref()
    this.#waiting.add(timer)
  }
}

/** How a server says that it turned a call away, before it did anything. */
const turnedAway =
  /^(CLUSTERDOWN|MOVED|ASK|TRYAGAIN|LOADING|MASTERDOWN|READONLY|BUSY|NOREPLICAS|OOM|MISCONF|NOAUTH|NOPERM) /

/** How ioredis says that it sent nothing, or only followed those that turned it away. */
const notSent = /^(Cluster isn't ready|Stream isn't writeable|None of startup nodes|Too many Cluster redirections)/

/** Whether a call certainly did not run. One whose connection ended may have. */
export function hasNotRun(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  // Our own: it was not sent, since there is no connection.
  if (error instanceof RampmeterError) return error.code === 'RAMPMETER_STORE_UNAVAILABLE'
  return (error.name === 'ReplyError' ? turnedAway : notSent).test(error.message)
}
