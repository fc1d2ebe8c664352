import { warn } from '../errors.ts'
import type { ConductEvent, ConductRules, Observed, Standings } from '../standing.ts'
import type { LadderNumbers } from './ladder.ts'

/** Of one client, and of all together, in one call: what comes on top is dropped. */
const mostEvents = 128
const mostClients = 2000

export interface ObserverOptions {
  readonly standings: () => Standings
  readonly rules: ConductRules
  readonly onObserved: (partition: string, observed: Observed, by: LadderNumbers) => void
  readonly onFailure: (error: unknown) => void
}

/** Brings to the store what requests tell of their clients: what comes in one turn of the event loop travels in one call. */
export class Observer {
  readonly #options: ObserverOptions
  #due = new Map<string, Due>()
  #sending: Promise<void> | undefined
  #callsUnderWay = 0
  readonly #owed = new Set<Promise<void>>()
  #hasWarned = false

  constructor(options: ObserverOptions) {
    this.#options = options
  }

  add(partition: string, by: LadderNumbers, event: ConductEvent): void {
    const known = this.#due.get(partition)
    if (known === undefined ? this.#due.size >= mostClients : known.events.length >= mostEvents) {
      if (!this.#hasWarned) {
        this.#hasWarned = true
        warn(
          'RAMPMETER_SIGNALS_DROPPED',
          'abuse: more signals came at once than are sent in one call, and some were dropped; what a client did before them counts',
        )
      }
      return
    }
    if (known === undefined) this.#due.set(partition, { by, events: [event] })
    else known.events.push(event)
    this.#sendLater()
  }

  async flush(): Promise<void> {
    while (this.#sending !== undefined || this.#owed.size > 0) {
      await this.#sending
      await Promise.all(this.#owed)
    }
  }

  /** While two calls are under way what comes is gathered, so that a slow store gets fewer and larger ones. */
  #sendLater(): void {
    if (this.#sending !== undefined || this.#callsUnderWay >= 2) return
    this.#sending = new Promise((resolve) => {
      setImmediate(() => {
        this.#sending = undefined
        this.#send()
        resolve()
      })
    })
  }

  #send(): void {
    if (this.#due.size === 0) return
    const due = this.#due
    this.#due = new Map()
    this.#callsUnderWay += 1
    const sent = this.#bring([...due])
    this.#owed.add(sent)
    void sent.finally(() => {
      this.#owed.delete(sent)
      this.#callsUnderWay -= 1
      if (this.#due.size > 0) this.#sendLater()
    })
  }

  async #bring(due: readonly (readonly [partition: string, due: Due])[]): Promise<void> {
    const { standings, rules, onObserved, onFailure } = this.#options
    try {
      const observations = due.map(([partition, { by, events }]) => ({ partition, ladder: by.ladder, events }))
      const observed = await standings().observe(observations, rules)
      due.forEach(([partition, { by }], index) => onObserved(partition, observed[index]!, by))
    } catch (error) {
      onFailure(error)
    }
  }
}

/** What is to be told of a client, and the ladder that its score is put on. */
interface Due {
  readonly by: LadderNumbers
  readonly events: ConductEvent[]
}
