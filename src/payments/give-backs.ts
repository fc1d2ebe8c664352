/** How long it waits before it tries again, in ms: twice as long each time, up to the longest. */
const firstPauseMs = 100
const longestPauseMs = 30_000

/** Over two hours in all. */
const mostTries = 250

/** How many may wait at once. */
const mostWaiting = 10_000

/**
 * Gives back what was charged for what was not delivered, until it is done: to say it twice gives back once, so that it may be
 * tried again whatever became of the last try.
 */
export class PaymentGiveBacks {
  readonly #cancel: (chargeId: string) => Promise<void>
  readonly #onFailure: (error: unknown) => void
  readonly #underWay = new Set<Promise<void>>()
  readonly #waiting = new Map<NodeJS.Timeout, () => void>()
  #ended = false

  constructor(cancel: (chargeId: string) => Promise<void>, onFailure: (error: unknown) => void) {
    this.#cancel = cancel
    this.#onFailure = onFailure
  }

  readonly begin = (chargeId: string): void => this.#begin(chargeId, 1)

  /** Resolves when all that is under way has been tried once more. */
  async flush(): Promise<void> {
    const waiting = [...this.#waiting]
    for (const [timer, tryNow] of waiting) {
      clearTimeout(timer)
      tryNow()
    }
    await Promise.all(this.#underWay)
  }

  /** Tries nothing again any more. */
  end(): void {
    this.#ended = true
    for (const timer of this.#waiting.keys()) clearTimeout(timer)
    this.#waiting.clear()
  }

  #begin(chargeId: string, tries: number): void {
    const trying = this.#cancel(chargeId).catch((error: unknown) => {
      if (tries === 1) this.#onFailure(error)
      this.#tryAgain(chargeId, tries)
    })
    this.#underWay.add(trying)
    void trying.finally(() => this.#underWay.delete(trying))
  }

  #tryAgain(chargeId: string, tries: number): void {
    if (this.#ended || tries >= mostTries || this.#waiting.size >= mostWaiting) return
    const tryNow = (): void => {
      this.#waiting.delete(timer)
      this.#begin(chargeId, tries + 1)
    }
    const timer = setTimeout(tryNow, Math.min(firstPauseMs * 2 ** Math.min(tries - 1, 20), longestPauseMs))
    timer.unref()
    this.#waiting.set(timer, tryNow)
  }
}
