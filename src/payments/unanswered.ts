/** How long a handler may take to answer a client that has gone before it is paid all the same, in ms. */
const answersWithinMs = 30_000

/** How many may wait for that; of more, those that came first are paid at once. */
const mostWaiting = 10_000

/**
 * Payments of clients that have gone before there was an answer. The handler was reached and may be at work still: they are taken
 * when it answers, which whoever waits here has seen to, or after a time.
 */
export class Unanswered {
  readonly #waiting = new Map<() => Promise<void>, NodeJS.Timeout>()

  wait(take: () => Promise<void>): void {
    const [oldest] = this.#waiting.size >= mostWaiting ? this.#waiting.keys() : []
    if (oldest !== undefined) void this.#end(oldest)
    const timer = setTimeout(() => void this.#end(take), answersWithinMs)
    timer.unref()
    this.#waiting.set(take, timer)
  }

  /** Waits no longer. */
  async takeAll(): Promise<void> {
    await Promise.all([...this.#waiting.keys()].map((take) => this.#end(take)))
  }

  async #end(take: () => Promise<void>): Promise<void> {
    clearTimeout(this.#waiting.get(take))
    this.#waiting.delete(take)
    await take()
  }
}
