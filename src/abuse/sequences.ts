import { Recent } from '../recent.ts'

/** So often an endpoint has to be seen before anything about what follows it is unusual. */
const enough = 500
/** A step that is taken more rarely than this is unusual. */
const rarity = 0.002

/** What follows what, as this process has seen it, and which step is one that hardly anybody takes. */
export class Sequences {
  readonly #last = new Recent<string, number>({ max: 10_000 })
  readonly #from = new Recent<number, number>({ max: 1000 })
  readonly #steps = new Recent<string, number>({ max: 10_000 })

  isUnusual(client: string, endpoint: number): boolean {
    const before = this.#last.get(client)
    this.#last.set(client, endpoint)
    if (before === undefined || before === endpoint) return false
    const seen = (this.#from.get(before) ?? 0) + 1
    const step = `${before} ${endpoint}`
    const taken = (this.#steps.get(step) ?? 0) + 1
    this.#from.set(before, seen)
    this.#steps.set(step, taken)
    return seen >= enough && taken / seen < rarity
  }
}
