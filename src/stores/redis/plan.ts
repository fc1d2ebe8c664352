import type { PolicyKind } from '../../policy.ts'
import type { Charge, ChargeOutcome, Correction, DecisionRequest, StoreDecision, Verdict } from '../store.ts'

/** A call of one of the scripts, as lua/decide.lua and lua/settle.lua say in their headers. */
export interface ScriptCall {
  readonly keys: readonly string[]
  /** A flat JSON array of whole numbers. */
  readonly plan: string
}

/** The name of a partition's key, and of its sliding logs' keys. */
export interface KeyNames {
  partition(partition: string): string
  log(partition: string, stateId: number): string
}

const kindNumbers: Record<PolicyKind, number> = {
  'token-bucket': 1,
  'sliding-window': 2,
  'sliding-log': 3,
  'fixed-window': 4,
  'first-minutes': 5,
}

const verdicts: readonly Verdict[] = ['refused', 'fits', 'lifted', 'inactive']

export function planDecision(request: DecisionRequest, names: KeyNames): ScriptCall {
  const keys = new CallKeys(names)
  const undos = request.undo.map(({ charge, cost, chargedAtUs }) => entry(keys, charge, cost, chargedAtUs))
  const charges = request.charges.map((charge) =>
    entry(keys, charge, charge.cost, charge.shadow ? 2 : charge.liftable ? 1 : 0),
  )
  const head = [request.commit ? 1 : 0, keys.list.length, undos.length, charges.length]
  return { keys: keys.list, plan: `[${[head.join(), ...undos, ...charges].join()}]` }
}

export function planSettlement(corrections: readonly Correction[], names: KeyNames): ScriptCall {
  const keys = new CallKeys(names)
  const entries = corrections.map(({ charged, by }) => entry(keys, charged.charge, by, charged.chargedAtUs))
  return { keys: keys.list, plan: `[${[corrections.length, ...entries].join()}]` }
}

/** Reads what lua/decide.lua returned for one decision. */
export function readDecision(row: readonly number[], charges: readonly Charge[]): StoreDecision {
  const [admitted, nowUs, wait] = row as [number, number, number]
  const outcomes = charges.map((_, index): ChargeOutcome => {
    const [verdict, remaining, waitUs, resetUs] = row.slice(3 + index * 4, 7 + index * 4) as [
      number,
      number,
      number,
      number,
    ]
    return { verdict: verdicts[verdict]!, remaining, waitUs: orNever(waitUs), resetUs }
  })
  return { admitted: admitted === 1, nowUs, retryAfterUs: orNever(wait), outcomes }
}

function orNever(wait: number): number | null {
  return wait < 0 ? null : wait
}

/** The keys of a call, each once, and their places in `KEYS`, from 1. */
class CallKeys {
  readonly list: string[] = []
  readonly #names: KeyNames

  constructor(names: KeyNames) {
    this.#names = names
  }

  placeOf(charge: Charge): number {
    return this.#place(this.#names.partition(charge.partition))
  }

  placeOfLog(charge: Charge): number {
    return charge.kind === 'sliding-log' ? this.#place(this.#names.log(charge.partition, charge.stateId)) : 0
  }

  #place(key: string): number {
    const index = this.list.indexOf(key)
    return index === -1 ? this.list.push(key) : index + 1
  }
}

function entry(keys: CallKeys, charge: Charge, cost: number, last: number): string {
  const { kind, stateId, windowUs, quota, capacity } = charge
  return `${keys.placeOf(charge)},${keys.placeOfLog(charge)},${kindNumbers[kind]},${stateId},${windowUs},${quota},${capacity},${cost},${last}`
}
