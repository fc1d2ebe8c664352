import { readSignedPayment } from './signed-payment.ts'

/**
 * What an owner lets an agent spend, by what it is spent in: `<network>/<asset>` as x402 names them
 * (`eip155:8453/0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913`), or any name that `pay` reserves by (`usd`). Nothing is spent in what
 * is not named here.
 */
export type PayBudget = Readonly<Record<string, Allowance>>

/** So much of one unit, in its smallest part: a whole number, or a text of digits. */
export interface Allowance {
  /** In all, for as long as this `pacedFetch` lives. */
  total: bigint | number | string
  /** The most that one call may cost. Default: all of it. */
  perCall?: bigint | number | string
}

/** The same, as it was read. */
export type Budget = ReadonlyMap<string, { readonly total: bigint; readonly perCall: bigint }>

/** What one call may spend. */
export interface CallSpending {
  /** Sets so much aside for this call; false where the budget does not allow it, and then nothing is set aside. */
  readonly reserve: (unit: string, amount: bigint | number | string) => boolean
  /**
   * Whether a payment may be sent: what its signature is for was set aside, or is now.
   *
   * @param fields the header fields that pay
   */
  allows(fields: Headers): boolean
  /** Gives back what was set aside: nothing was signed. */
  giveBack(): void
}

/** Keeps the account of a budget. */
export class Spending {
  readonly #budget: Budget
  readonly #spent = new Map<string, bigint>()

  constructor(budget: Budget) {
    this.#budget = budget
  }

  ofCall(): CallSpending {
    const reserved = new Map<string, bigint>()

    const reserve = (name: string, asked: bigint | number | string): boolean => {
      const unit = unitName(name)
      const amount = readAmount(asked)
      const allowed = this.#budget.get(unit)
      if (amount === undefined || allowed === undefined) return false
      const ofCall = (reserved.get(unit) ?? 0n) + amount
      const inAll = (this.#spent.get(unit) ?? 0n) + amount
      if (ofCall > allowed.perCall || inAll > allowed.total) return false
      reserved.set(unit, ofCall)
      this.#spent.set(unit, inAll)
      return true
    }

    return {
      reserve,
      allows(fields) {
        const header = fields.get('payment-signature')
        // What is no signature that can be read is paid by what `pay` says that it pays.
        if (header === null) return reserved.size > 0
        // One payment a call: what another pays beside it would not be counted.
        if (otherPayments.some((name) => fields.has(name))) return false
        const signed = readSignedPayment(header)
        if (signed === undefined) return reserved.size > 0
        if (signed === 'unreadable') return false
        const before = reserved.get(unitName(signed.unit)) ?? 0n
        return signed.amount <= before || reserve(signed.unit, signed.amount - before)
      },
      giveBack: () => {
        for (const [unit, amount] of reserved) this.#spent.set(unit, this.#spent.get(unit)! - amount)
        reserved.clear()
      },
    }
  }
}

/** Of x402's version 1, and of Stripe. */
const otherPayments: readonly string[] = ['x-payment', 'payment-intent']

/** A unit as it is looked up: addresses of EVM networks are the same in either case, others are not. */
export function unitName(unit: string): string {
  return /^eip155:/i.test(unit) ? unit.toLowerCase() : unit
}

/** Whether a unit is meant to be a token of an EVM network, and could not be that of any payment. */
export function isMisspelt(unit: string): boolean {
  return /^eip155:|\/0x/i.test(unit) && !/^eip155:[1-9]\d*\/0x[0-9a-f]{40}$/i.test(unit)
}

/** A whole amount of at least 0; undefined for anything else. */
export function readAmount(value: unknown): bigint | undefined {
  if (typeof value === 'bigint') return value >= 0n ? value : undefined
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : undefined
  return typeof value === 'string' && /^\d{1,78}$/.test(value) ? BigInt(value) : undefined
}
