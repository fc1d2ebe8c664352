import { RampmeterError } from './errors.ts'
import { checkCost, show, type PricedPolicy } from './price.ts'
import type { Ruling } from './decide.ts'
import type { Charged, Correction } from './stores/store.ts'

/** What a request really cost: one total for every policy, or one by policy name. */
export type ActualCost = number | Readonly<Record<string, number>>

/**
 * What is charged for a request by now, and what it is to become. The total that was said last counts, and paying twice
 * corrects nothing twice.
 */
export class Settlement {
  readonly ruling: Ruling
  readonly #names: readonly string[]
  #charged: Charged[]
  #total: ActualCost | undefined
  #ended = false

  constructor(ruling: Ruling, priced: readonly PricedPolicy[]) {
    this.ruling = ruling
    this.#charged = [...ruling.charged]
    const nameOf = new Map(priced.map(({ charge, policy }) => [charge.stateId, policy.name]))
    this.#names = ruling.charged.map(({ charge }) => nameOf.get(charge.stateId)!)
  }

  /**
   * @throws {RampmeterError} `RAMPMETER_INVALID_COST`
   */
  state(total: ActualCost): void {
    if (typeof total === 'number') {
      checkCost(total, () => 'the settled cost')
    } else if (typeof total === 'object' && total !== null) {
      for (const [name, cost] of Object.entries(total))
        checkCost(cost, () => `the settled cost of policy ${JSON.stringify(name)}`)
    } else {
      throw new RampmeterError(
        'RAMPMETER_INVALID_COST',
        `settle was given ${show(total)}; write a whole number, or one for each policy by name`,
      )
    }
    if (!this.#ended) this.#total = total
  }

  /** Another limiter further in has taken the charge over: nothing said here counts any more. */
  end(): void {
    this.#ended = true
    this.#total = undefined
  }

  /** Takes what is owed: the corrections that make what is charged what was stated last. */
  take(): Correction[] {
    const total = this.#total
    this.#total = undefined
    if (total === undefined) return []
    const corrections: Correction[] = []
    this.#charged = this.#charged.map((charged, index) => {
      const cost = typeof total === 'number' ? total : costIn(total, this.#names[index]!, charged.cost)
      if (cost !== charged.cost) corrections.push({ charged, by: cost - charged.cost })
      return { ...charged, cost }
    })
    return corrections
  }
}

function costIn(totals: Readonly<Record<string, number>>, name: string, otherwise: number): number {
  return Object.hasOwn(totals, name) ? totals[name]! : otherwise
}
