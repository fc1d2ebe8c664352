/** Those that began in one turn of the event loop, and are due together. */
export interface Turn {
  /** By `performance.now()`; infinite until the turn has ended. */
  due: number
  /** Who waits, each undefined once it has ended. */
  readonly waiting: (Waiting | undefined)[]
  /** How many have not ended. */
  open: number
}

/** Who waits, but no longer than a deadline. */
export interface Waiting {
  /** Called when the time is over. */
  giveUp(): void
  /** The turn in which it began, and its place there; undefined once it has ended. For the deadlines to set. */
  turn: Turn | undefined
  place: number
}

/**
 * Deadlines of one length. Whoever began first is due first, so one timer serves them all: a decision costs an entry in a
 * list, not a timer of its own.
 *
 * They run from the end of the turn of the event loop in which they began: what is asked in a turn is sent then, and a turn that
 * takes long is no fault of the store's.
 *
 * Nobody is given up before the sockets have been looked at once more: after a stall of the event loop the timer is due before
 * the answer that has long arrived is read.
 */
export class Deadlines {
  readonly lengthMs: number
  /**
   * In the order in which they began; those whose decisions have all ended leave as soon as they are the first. A `Set` would keep
   * what has left it alive: each time it grows, its old table goes on pointing to the new one, through all that V8 has promoted.
   */
  readonly #turns: Turn[] = []
  /** That which has not ended yet. */
  #current: Turn | undefined
  #armed = false

  constructor(lengthMs: number) {
    this.lengthMs = lengthMs
  }

  begin(waiting: Waiting): void {
    if (this.#current === undefined) {
      this.#turns.push((this.#current = { due: Infinity, waiting: [], open: 0 }))
      setImmediate(() => this.#endTurn())
    }
    const turn = this.#current
    waiting.turn = turn
    waiting.place = turn.waiting.push(waiting) - 1
    turn.open += 1
  }

  /** Ends a deadline in time. Nothing happens to one that has ended. */
  end(waiting: Waiting): void {
    const { turn, place } = waiting
    if (turn === undefined) return
    waiting.turn = undefined
    turn.waiting[place] = undefined
    turn.open -= 1
    if (turn.open === 0) this.#leave()
  }

  #endTurn(): void {
    this.#current!.due = performance.now() + this.lengthMs
    this.#current = undefined
    this.#leave()
    if (!this.#armed && this.#turns.length > 0) this.#arm(this.lengthMs)
  }

  /** Nobody waits any more in the turns that come first. */
  #leave(): void {
    let over = 0
    while (over < this.#turns.length && this.#turns[over]!.open === 0 && this.#turns[over] !== this.#current) over += 1
    if (over > 0) this.#turns.splice(0, over)
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
    while (this.#turns.length > 0) {
      const turn = this.#turns[0]!
      if (turn.due > dueBy) {
        // Those of this turn begin when it ends.
        if (turn.due < Infinity) this.#arm(turn.due - performance.now())
        return
      }
      this.#turns.shift()
      for (const waiting of turn.waiting) {
        if (waiting?.turn !== turn) continue
        waiting.turn = undefined
        waiting.giveUp()
      }
    }
  }
}
