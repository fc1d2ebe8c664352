/** Something that waits, and is told when its time is up. */
interface Waiting {
  readonly due: number
  readonly giveUp: () => void
}

/**
 * Deadlines of one length. Whoever began first is due first, so one timer serves them all: a decision costs an entry in a
 * set, not a timer of its own.
 *
 * Nobody is given up before the sockets have been looked at once more: after a stall of the event loop the timer is due before
 * the answer that has long arrived is read.
 */
export class Deadlines {
  readonly #lengthMs: number
  /** In the order in which they began. */
  readonly #waiting = new Set<Waiting>()
  #armed = false

  constructor(lengthMs: number) {
    this.#lengthMs = lengthMs
  }

  /**
   * Begins a deadline.
   *
   * @param startedAt when it began, by `performance.now()`
   * @returns what ends it in time
   */
  begin(startedAt: number, giveUp: () => void): () => void {
    const one: Waiting = { due: startedAt + this.#lengthMs, giveUp }
    this.#waiting.add(one)
    if (!this.#armed) this.#arm(one.due - performance.now())
    return () => {
      this.#waiting.delete(one)
    }
  }

  #arm(ms: number): void {
    this.#armed = true
    const look = (): void => {
      // Whoever becomes due between here and there has not had the sockets looked at since.
      const dueBy = performance.now()
      setImmediate(() => this.#giveUp(dueBy))
    }
    // It need not keep the process alive: who waits for an answer has a socket open.
    setTimeout(look, Math.max(0, ms)).unref()
  }

  #giveUp(dueBy: number): void {
    this.#armed = false
    for (const one of this.#waiting) {
      if (one.due > dueBy) {
        this.#arm(one.due - performance.now())
        return
      }
      this.#waiting.delete(one)
      one.giveUp()
    }
  }
}
