import type { Caller, DecisionRequest, StoreDecision } from '../store.ts'
import type { AskSlot } from './across-slots.ts'
import { Batch } from './batch.ts'

export interface TurnsOptions {
  /** Has requests that concern one slot decided. */
  readonly ask: AskSlot
  /** Which master decides a request of one slot. */
  readonly placeOf: (request: DecisionRequest) => string
  /** Whose a request is. */
  readonly ownerOf: (request: DecisionRequest) => string
  /** The most that is under way at one master. */
  readonly mostUnderWay: number
}

type Requests = readonly DecisionRequest[]

/**
 * Has clients take turns at each master of a cluster, as at a single server. Each master has a gate of its own: one that is slow
 * holds up nobody who counts elsewhere.
 */
export class Turns {
  readonly #options: TurnsOptions
  /** By the address of a master. */
  readonly #gates = new Map<string, Batch<Requests, StoreDecision[]>>()

  constructor(options: TurnsOptions) {
    this.#options = options
  }

  ask(requests: Requests, caller: Caller): Promise<StoreDecision[]> {
    const [first] = requests
    const place = this.#options.placeOf(first!)
    // What is given back makes room, and waits for nobody.
    if (requests.length > 1) return this.#options.ask(requests)
    return new Promise((answered, failed) => {
      this.#gateOf(place).add(requests, {
        get isGivenUp() {
          return caller.signal.aborted
        },
        sent: () => caller.sent?.(place),
        behindOwn: () => caller.behindOwn?.(),
        answered,
        failed,
      })
    })
  }

  #gateOf(place: string): Batch<Requests, StoreDecision[]> {
    let gate = this.#gates.get(place)
    if (gate === undefined) {
      const { ask, ownerOf, mostUnderWay } = this.#options
      gate = new Batch({
        // Keys of other slots cannot travel in the same call.
        send: async ([requests]) => [await ask(requests!)],
        weigh: () => 1,
        mostWeight: 1,
        mostItems: 1,
        mostUnderWay,
        ownerOf: ([request]) => ownerOf(request!),
      })
      this.#gates.set(place, gate)
    }
    return gate
  }
}
