/** Who waits for an answer. */
export interface Asker<Answer> {
  /** Nobody waits any more: what was not sent by then need not be. */
  readonly isGivenUp?: boolean
  /** It leaves: until then it waited for its turn here. */
  sent?(): void
  /** Others of the same owner wait before it. */
  behindOwn?(): void
  answered(answer: Answer): void
  failed(error: unknown): void
}

/** Something that waits to be sent. */
interface Waiting<Item, Answer> {
  readonly item: Item
  readonly asker: Asker<Answer>
}

/** What a batch needs to know. */
export interface BatchOptions<Item, Answer> {
  /** Sends items that travel together. An answer that is an `Error` is one item's own. */
  readonly send: (items: readonly Item[]) => Promise<readonly (Answer | Error)[]>
  /** How much an item weighs: what it costs the server, in any unit. */
  readonly weigh: (item: Item) => number
  /** The most that travels together, in the same unit. */
  readonly mostWeight: number
  readonly mostItems: number
  /** The most items that are sent and not answered yet; what comes then waits here. */
  readonly mostUnderWay: number
  /** Whose an item is. Where not all can be sent at once, all take turns. */
  readonly ownerOf: (item: Item) => string
}

/**
 * What falls due in one turn of the event loop travels together: of a command that is sent alone, most of the cost is the write
 * to the socket. It leaves when the sockets have been read, and never waits for a timer. A full batch is sent in parts, so that
 * nothing holds up the server for long, and that it works on one while the next is written.
 *
 * Only so much is under way at a time, and those who wait take turns: whoever asks a thousand times in one turn has everybody
 * else's first request go before its own second one.
 */
export class Batch<Item, Answer> {
  readonly #options: BatchOptions<Item, Answer>
  /** What came in this turn. */
  #waiting: Waiting<Item, Answer>[] = []
  /** What could not be sent in its own turn, by its owner; the owner whose turn it is comes first. */
  readonly #queues = new Map<string, Waiting<Item, Answer>[]>()
  #underWay = 0
  #isDue = false

  constructor(options: BatchOptions<Item, Answer>) {
    this.#options = options
  }

  add(item: Item, asker: Asker<Answer>): void {
    this.#waiting.push({ item, asker })
    this.#sendSoon()
  }

  #sendSoon(): void {
    if (this.#isDue) return
    this.#isDue = true
    setImmediate(() => {
      this.#isDue = false
      const due = this.#waiting
      this.#waiting = []
      const { mostItems, mostUnderWay } = this.#options
      const room = mostUnderWay - this.#underWay
      if (this.#queues.size === 0 && due.length <= Math.min(mostItems, room)) this.#sendAll(due)
      else {
        this.#queue(due)
        this.#sendAll(this.#next(room))
      }
    })
  }

  #queue(due: readonly Waiting<Item, Answer>[]): void {
    for (const one of due) {
      const owner = this.#options.ownerOf(one.item)
      const queue = this.#queues.get(owner)
      if (queue === undefined) this.#queues.set(owner, [one])
      else {
        queue.push(one)
        one.asker.behindOwn?.()
      }
    }
  }

  /** One of each owner in turn, until there is no room. */
  #next(room: number): Waiting<Item, Answer>[] {
    const next: Waiting<Item, Answer>[] = []
    // An owner that is put back comes last, and up again.
    for (const [owner, queue] of this.#queues) {
      if (next.length >= room) break
      const one = queue.shift()!
      if (one.asker.isGivenUp !== true) next.push(one)
      this.#queues.delete(owner)
      if (queue.length > 0) this.#queues.set(owner, queue)
    }
    return next
  }

  #sendAll(due: readonly Waiting<Item, Answer>[]): void {
    const { weigh, mostWeight, mostItems } = this.#options
    let from = 0
    let weight = 0
    due.forEach(({ item }, index) => {
      const own = weigh(item)
      if (index > from && (weight + own > mostWeight || index - from === mostItems)) {
        this.#send(due.slice(from, index))
        from = index
        weight = 0
      }
      weight += own
    })
    if (from < due.length) this.#send(from === 0 ? due : due.slice(from))
  }

  #send(part: readonly Waiting<Item, Answer>[]): void {
    this.#underWay += part.length
    for (const { asker } of part) asker.sent?.()
    this.#options.send(part.map(({ item }) => item)).then(
      (answers) => {
        this.#answered(part)
        part.forEach(({ asker }, index) => {
          const answer = answers[index]!
          try {
            if (answer instanceof Error) asker.failed(answer)
            else asker.answered(answer)
          } catch (error) {
            // The others are to have theirs.
            asker.failed(error)
          }
        })
      },
      (error: unknown) => {
        this.#answered(part)
        for (const { asker } of part) asker.failed(error)
      },
    )
  }

  #answered({ length }: readonly unknown[]): void {
    this.#underWay -= length
    if (this.#queues.size > 0) this.#sendSoon()
  }
}
