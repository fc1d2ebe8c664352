import type { PolicyKind } from '../../policy.ts'
import type { Charge, ChargeOutcome, Correction, DecisionRequest, PoolRole, StoreDecision, Verdict } from '../store.ts'

/** A call of one of the scripts, as lua/decide.lua and lua/settle.lua say in their headers. */
export interface ScriptCall {
  readonly keys: readonly string[]
  /** JSON arrays. */
  readonly plans: readonly string[]
}

/** The name of a partition's key, and of the keys that some of its policies have of their own. */
export interface KeyNames {
  partition(partition: string): string
  own(partition: string, stateId: number): string
}

const kindNumbers: Record<PolicyKind, number> = {
  'token-bucket': 1,
  'sliding-window': 2,
  'sliding-log': 3,
  'fixed-window': 4,
  'first-minutes': 5,
  concurrency: 6,
  failures: 7,
  'unique-targets': 8,
  'pool-demand': 9,
}

/** What grows with its use is stored apart from the partition's other counters. */
const withOwnKey: ReadonlySet<PolicyKind> = new Set(['sliding-log', 'concurrency', 'unique-targets'] as const)

/** Whether a policy keeps a key of its own beside its partition's. */
function hasOwnKey(kind: PolicyKind): boolean {
  return withOwnKey.has(kind)
}

/** What a charge is in a pool, above the flags. */
const roles: Record<PoolRole, number> = { whole: 0, own: 8, common: 16, demand: 24 }

const does: Record<NonNullable<Correction['does']>, number> = { correct: 0, release: 1, renew: 2 }

const verdicts: readonly Verdict[] = ['refused', 'fits', 'lifted', 'inactive', 'spared']

/** One call that decides requests one after the other. */
export function planDecisions(requests: readonly DecisionRequest[], names: KeyNames): ScriptCall {
  if (requests.length === 1) return planDecision(requests[0]!, names)
  const calls = requests.map((request) => planDecision(request, names))
  return { keys: calls.flatMap(({ keys }) => keys), plans: calls.flatMap(({ plans }) => plans) }
}

function planDecision(request: DecisionRequest, names: KeyNames): ScriptCall {
  const keys = new CallKeys(names)
  const undos = request.undo.map(({ charge, cost, chargedAtUs, added = 0 }) =>
    entry(keys, charge, cost, chargedAtUs, added, 0),
  )
  const charges = request.charges.map((charge) => {
    const flags =
      (charge.liftable ? 1 : 0) +
      (charge.shadow ? 2 : 0) +
      (charge.after === true ? 4 : 0) +
      (charge.role === undefined ? 0 : roles[charge.role])
    return entry(keys, charge, charge.cost, 0, charge.untilExpiry === true ? 1 : 0, flags)
  })
  const head = [request.commit ? 1 : 0, keys.list.length, undos.length, charges.length]
  return { keys: keys.list, plans: [`[${[head.join(), ...undos, ...charges].join()}]`] }
}

export function planSettlement(corrections: readonly Correction[], names: KeyNames): ScriptCall {
  const keys = new CallKeys(names)
  const entries = corrections.map(({ charged: { charge, chargedAtUs, added = 0 }, does: what = 'correct', by }) =>
    entry(keys, charge, by, chargedAtUs, added, does[what]),
  )
  return { keys: keys.list, plans: [`[${[corrections.length, ...entries].join()}]`] }
}

/** How many integers lua/decide.lua returns before those of the charges, and for each charge. */
const head = 3
const perCharge = 5

/** Reads what lua/decide.lua returned. */
export function readDecisions(row: readonly number[], requests: readonly DecisionRequest[]): StoreDecision[] {
  let from = 0
  return requests.map(({ charges }) => {
    const to = from + head + charges.length * perCharge
    const decision = readDecision(from === 0 && to === row.length ? row : row.slice(from, to), charges)
    from = to
    return decision
  })
}

function readDecision(row: readonly number[], charges: readonly Charge[]): StoreDecision {
  const [admitted, nowUs, wait] = row as [number, number, number]
  const outcomes = charges.map((_, index): ChargeOutcome => {
    const from = head + index * perCharge
    const [verdict, remaining, waitUs, resetUs, added] = row.slice(from, from + perCharge) as [
      number,
      number,
      number,
      number,
      number,
    ]
    return { verdict: verdicts[verdict]!, remaining, waitUs: orNever(waitUs), resetUs, added }
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

  placeOfOwn(charge: Charge): number {
    return hasOwnKey(charge.kind) ? this.#place(this.#names.own(charge.partition, charge.stateId)) : 0
  }

  #place(key: string): number {
    const index = this.list.indexOf(key)
    return index === -1 ? this.list.push(key) : index + 1
  }
}

function entry(keys: CallKeys, charge: Charge, cost: number, at: number, added: number, what: number): string {
  const { kind, stateId, windowUs, quota, capacity } = charge
  return `${keys.placeOf(charge)},${keys.placeOfOwn(charge)},${kindNumbers[kind]},${stateId},${windowUs},${quota},${capacity},${cost},${extraOf(charge)},${at},${added},${what}`
}

function extraOf({ kind, members = [], calendar, seating }: Charge): string {
  if (calendar !== undefined) return `[${calendar.spreadUs},${calendar.originUs},${calendar.monthDay}]`
  if (kind === 'pool-demand' && seating !== undefined)
    return `[${[seating.seats, seating.seat, ...seating.higher].join()}]`
  return kind === 'concurrency' || kind === 'unique-targets' ? JSON.stringify(members) : '0'
}
