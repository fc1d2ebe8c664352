import type { Ruling } from './decide.ts'
import { RampmeterError } from './errors.ts'
import { isMeasured } from './policies/build.ts'
import type { Policy } from './policy.ts'
import { checkCost, show, type PricedPolicy } from './price.ts'
import type { Charged, Correction } from './stores/store.ts'

/** What a request really cost: one total for every policy, or one by policy name. */
export type ActualCost = number | Readonly<Record<string, number>>

/** Said in a total's stead: this request never was. A symbol, since whatever an app can write would be a total that is wrong. */
export const nothingAtAll: unique symbol = Symbol('refund')

/** What only the end of a response tells. */
export interface ResponseFacts {
  /** Bytes of body that were really sent; undefined where nothing is sent. */
  readonly bytes: number | undefined
  /** Whether the response counts as a failure for a policy; undefined while there is none to judge. */
  readonly isFailure: ((policy: Policy) => boolean) | undefined
}

/** A charge, with what it was made for and what it was to cost. */
interface Item {
  readonly policy: Policy
  readonly asked: number
  charged: Charged
}

/**
 * What is charged for a request by now, and what it is to become. The total that was said last counts, and paying twice
 * corrects nothing twice.
 */
export class Settlement {
  readonly ruling: Ruling
  /** Whether something is paid when the response ends. */
  isFollowed = false
  readonly #priced: readonly PricedPolicy[]
  /** Made when first asked for: most requests are charged before, and that is that. */
  #made: Item[] | undefined
  /** In-flight slots that are held until they are released. */
  #leases: Charged[] = []
  /** Slots of sessions, which are held for a lease after the request. */
  #sessions: Charged[] = []
  #total: ActualCost | undefined
  #refunded = false
  #ended = false

  constructor(ruling: Ruling, priced: readonly PricedPolicy[]) {
    this.ruling = ruling
    this.#priced = priced
    if (!priced.some(({ policy }) => policy.kind === 'concurrency')) return
    const slots = this.#items.filter(({ policy }) => policy.kind === 'concurrency')
    this.#leases = slots.filter(({ policy }) => policy.per === undefined).map(({ charged }) => charged)
    this.#sessions = slots.filter(({ policy }) => policy.per !== undefined).map(({ charged }) => charged)
  }

  get #items(): Item[] {
    if (this.#made === undefined) {
      const byId = new Map(this.#priced.map((one) => [one.charge.stateId, one]))
      this.#made = this.ruling.charged.map((charged) => {
        const { policy, charge } = byId.get(charged.charge.stateId)!
        return { policy, asked: charge.cost, charged }
      })
    }
    return this.#made
  }

  /** Whether something is charged, kept or given back when the response ends. */
  get awaitsResponse(): boolean {
    if (this.#leases.length > 0 || this.#sessions.length > 0) return true
    if (!this.#priced.some(({ policy }) => isAfter(policy) || policy.kind === 'failures')) return false
    return this.#items.some(({ policy }) => isAfter(policy) || policy.kind === 'failures')
  }

  /** Whether failures are charged that may turn out to be none. */
  get reservesFailures(): boolean {
    return this.#items.some(({ policy, charged }) => policy.kind === 'failures' && charged.cost > 0)
  }

  /** Whether a policy asks what the response was. */
  get judgesResponse(): boolean {
    return this.#items.some(({ policy }) => policy.kind === 'failures')
  }

  /** Whether a policy counts the bytes that are sent. */
  get countsBytes(): boolean {
    return this.#items.some(({ policy }) => isMeasured(policy))
  }

  /** Takes a total, or that this request never was: not even the targets it touched. */
  state(total: ActualCost | typeof nothingAtAll): void {
    this.#refunded = total === nothingAtAll
    this.#total = total === nothingAtAll ? 0 : total
  }

  /** Another limiter further in has taken the charge over: nothing said here counts any more. */
  end(): void {
    this.#ended = true
    this.#leases = []
    this.#sessions = []
  }

  /** Keeps the slots for as long again. */
  renew(): Correction[] {
    return [...this.#leases, ...this.#sessions].map((charged) => ({ charged, does: 'renew', by: 0 }))
  }

  /**
   * Gives the slots back, once. Those of sessions stay.
   *
   * @param ranMs for how long they were kept since they were last renewed; undefined where nobody kept them. A session is kept
   * for its lease from now on
   */
  release(ranMs: number | undefined): Correction[] {
    const [leases, sessions] = [this.#leases, this.#sessions]
    this.#leases = []
    this.#sessions = []
    return [
      ...leases.map((charged): Correction => ({ charged, does: 'release', by: 0 })),
      // Most requests are so short that it would make no difference, and would cost a call.
      ...sessions
        .filter(({ charge }) => ranMs !== undefined && ranMs * 1000 > charge.windowUs / 100)
        .map((charged): Correction => ({ charged, does: 'renew', by: 0 })),
    ]
  }

  /** Takes it that a request whose client has gone is not answered any more: what was reserved for a failure comes back. */
  unreserve(): Correction[] {
    return this.take({ bytes: undefined, isFailure: () => false })
  }

  /**
   * Takes what is owed: the corrections that make what is charged what it is to be.
   *
   * @param facts given when the response has ended: then what is charged afterwards is due
   */
  take(facts?: ResponseFacts): Correction[] {
    if (this.#ended) return []
    const corrections: Correction[] = []
    for (const item of this.#items) {
      const cost = this.#finalCost(item, facts)
      const by = cost - item.charged.cost
      if (by === 0) continue
      corrections.push({ charged: item.charged, does: 'correct', by })
      item.charged = { ...item.charged, cost }
    }
    return corrections
  }

  #finalCost({ policy, asked, charged }: Item, facts: ResponseFacts | undefined): number {
    const total = this.#total
    // Slots are released, not settled; the demand for those of a pool costs what they do.
    if (policy.holdsSlots) return charged.cost
    if (this.#refunded) return 0
    if (typeof total === 'object' && Object.hasOwn(total, policy.name)) return total[policy.name]!
    if (policy.kind === 'unique-targets') return charged.cost
    if (policy.kind === 'failures') {
      if (facts?.isFailure === undefined) return charged.cost
      return facts.isFailure(policy) ? asked : 0
    }
    if (isMeasured(policy) && facts?.bytes !== undefined) return facts.bytes
    if (typeof total === 'number') return total
    return isAfter(policy) && !isMeasured(policy) && facts !== undefined ? asked : charged.cost
  }
}

/**
 * Lets a total through that can be settled.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_COST`
 */
export function checkTotal(total: ActualCost | typeof nothingAtAll): void {
  if (total === nothingAtAll) return
  if (typeof total === 'number') {
    checkCost(total, () => 'the settled cost')
  } else if (typeof total === 'object' && total !== null) {
    for (const [name, cost] of Object.entries(total)) {
      checkCost(cost, () => `the settled cost of policy ${JSON.stringify(name)}`)
    }
  } else {
    throw new RampmeterError(
      'RAMPMETER_INVALID_COST',
      `settle was given ${show(total)}; write a whole number, or one for each policy by name`,
    )
  }
}

function isAfter(policy: Policy): boolean {
  return policy.charge === 'after'
}
