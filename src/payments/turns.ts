/** Of one payer, so many payments wait for others to be looked at. */
const mostWaiting = 1000

/**
 * Payments that are looked at: of one client, or one address, no more at once than may still turn out wrong; others wait for
 * them. So a crowd of good ones is never refused, and a crowd of bad ones is not looked at all together.
 */
export class Turns {
  readonly #most: number
  /** There is an entry only while somebody's payment is looked at. */
  readonly #queues = new Map<string, { underWay: number; readonly waiting: (() => void)[] }>()

  constructor(most: number) {
    this.#most = most
  }

  /** Waits for a turn; false where too many wait. Whoever had one leaves. */
  async enter(whose: string): Promise<boolean> {
    let queue = this.#queues.get(whose)
    if (queue === undefined) this.#queues.set(whose, (queue = { underWay: 0, waiting: [] }))
    if (queue.underWay < this.#most) {
      queue.underWay += 1
      return true
    }
    if (queue.waiting.length >= mostWaiting) return false
    // Whoever leaves hands the turn on.
    await new Promise<void>((resolve) => queue.waiting.push(resolve))
    return true
  }

  leave(whose: string): void {
    const queue = this.#queues.get(whose)!
    const next = queue.waiting.shift()
    if (next !== undefined) next()
    else if (queue.underWay === 1) this.#queues.delete(whose)
    else queue.underWay -= 1
  }
}
