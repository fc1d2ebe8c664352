import { RampmeterError } from '../../errors.ts'
import type { PolicyKind } from '../../policy.ts'
import type {
  Charge,
  ChargeOutcome,
  Correction,
  DecisionRequest,
  PoolRole,
  ShownTicket,
  StoreDecision,
  Verdict,
} from '../store.ts'
import type { Notation, Shape } from './shapes.ts'

/** A call of one of the scripts, as lua/decide.lua and lua/settle.lua say in their headers. */
export interface ScriptCall {
  readonly keys: readonly string[]
  /** The arguments. */
  readonly plans: readonly string[]
}

/** The name of a partition's key, and of the keys that some of its policies have of their own. */
export interface KeyNames {
  partition(partition: string): string
  own(partition: string, stateId: number | string): string
  /** Of what outlives counters, and every layout of theirs. */
  standing(partition: string, what: 'standing' | 'audit' | 'targets' | 'reports' | 'vouchers'): string
  /** Of the partition of an account: where its credits are. */
  account(partition: string): string
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
  'single-use': 10,
  standing: 11,
  credits: 12,
}

/** What grows with its use is stored apart from the partition's other counters. */
const withOwnKey: ReadonlySet<PolicyKind> = new Set([
  'sliding-log',
  'concurrency',
  'unique-targets',
  'single-use',
  'standing',
  'credits',
] as const)

/** Whether a policy keeps a key of its own beside its partition's. */
function hasOwnKey(kind: PolicyKind): boolean {
  return withOwnKey.has(kind)
}

/** What keeps no record in the partition. A call for nothing else does not name it, so that it has one key. */
const withoutRecord: ReadonlySet<PolicyKind> = new Set(['standing', 'single-use'] as const)

/** What a charge is in a pool, above the flags. */
const roles: Record<PoolRole, number> = { whole: 0, own: 8, common: 16, demand: 24 }

const does: Record<NonNullable<Correction['does']>, number> = { correct: 0, release: 1, renew: 2 }

const verdicts: readonly Verdict[] = ['refused', 'fits', 'lifted', 'inactive', 'spared']

/** How the charges of shapes are written down. */
export const notation: Notation = { kindNumbers, flagsOf, basesOf, extraOf }

/** A request, and its shape if it has one. */
export interface ShapedRequest {
  readonly request: DecisionRequest
  readonly shape: Shape | undefined
}

/** One call that decides requests one after the other. */
export function planDecisions(requests: readonly ShapedRequest[], names: KeyNames): ScriptCall {
  const keys: string[] = []
  const plans: string[] = ['']
  const shaped: Shape[] = []
  let alike: Shape | undefined
  let times = 0
  const endRun = (): void => {
    if (times > 0) plans.push(`${numberOf(alike!, shaped)}*${times}`)
    times = 0
  }
  for (const { request, shape } of requests) {
    if (shape === undefined) {
      endRun()
      const call = planDecision(request, names)
      keys.push(...call.keys)
      plans.push(...call.plans)
      continue
    }
    keysOfShape(shape, request, names, keys)
    const holders = holdersOf(request)
    if (shape !== alike || holders !== '') endRun()
    alike = shape
    if (holders === '') times += 1
    else plans.push(`${numberOf(shape, shaped)}${holders}`)
  }
  endRun()
  plans[0] = `[${shaped.map(({ text }) => text).join()}]`
  return { keys, plans }
}

/** The number of a shape in a call, from 1. */
function numberOf(shape: Shape, shaped: Shape[]): number {
  const index = shaped.indexOf(shape)
  return index === -1 ? shaped.push(shape) : index + 1
}

function keysOfShape(
  { charges, standing, keyCount }: Shape,
  request: DecisionRequest,
  names: KeyNames,
  keys: string[],
): void {
  let place = 0
  for (let index = 0; place < keyCount; index += 1) {
    if (charges[index]!.place <= place) continue
    keys.push(names.partition(request.charges[index]!.partition))
    place += 1
  }
  if (standing !== undefined) keys.push(names.standing(request.charges.at(-1)!.partition, 'standing'))
}

/** Who asks, where clients share a partition. */
function holdersOf({ charges }: DecisionRequest): string {
  return charges.some(({ holder }) => holder !== undefined)
    ? charges.map(({ holder = 0 }) => `,${holder}`).join('')
    : ''
}

function flagsOf(charge: Charge): number {
  return (
    (charge.liftable ? 1 : 0) +
    (charge.shadow ? 2 : 0) +
    (charge.after === true ? 4 : 0) +
    (charge.role === undefined ? 0 : roles[charge.role])
  )
}

function planDecision(request: DecisionRequest, names: KeyNames): ScriptCall {
  const keys = new CallKeys(names, [...request.charges, ...request.undo.map(({ charge }) => charge)])
  const undos = request.undo.map(({ charge, cost, chargedAtUs, added = 0 }) =>
    entry(keys, charge, cost, chargedAtUs, added, 0),
  )
  const charges = request.charges.map((charge) =>
    entry(keys, charge, charge.cost, charge.holder ?? 0, charge.untilExpiry === true ? 1 : 0, flagsOf(charge)),
  )
  const { commit, promise } = request
  const span = typeof promise === 'object' ? [promise.fromUs, promise.untilUs] : [promise === false ? -1 : 0, 0]
  const head = [commit ? 1 : 0, keys.list.length, undos.length, charges.length, ...span]
  const rest = [...termsOf(request), ...basesOf(request.charges)]
  return { keys: keys.list, plans: [`[${[head.join(), ...undos, ...charges, ...rest].join()}]`] }
}

function termsOf({ tickets, charges }: DecisionRequest): number[] {
  if (tickets === undefined) return isCut(charges) ? [-1] : []
  const { share, horizonUs, id, client, shown } = tickets
  return [share, horizonUs, id, client, shown?.id ?? 0, shown?.slotUs ?? 0]
}

/** Quotas and capacities without a cut, where there is one. */
function basesOf(charges: readonly Charge[]): number[] {
  if (!isCut(charges)) return []
  return charges.flatMap(({ base, quota, capacity }) => [base?.quota ?? quota, base?.capacity ?? capacity])
}

function isCut(charges: readonly Charge[]): boolean {
  return charges.some(({ base }) => base !== undefined)
}

export function planSettlement(corrections: readonly Correction[], names: KeyNames): ScriptCall {
  const keys = new CallKeys(
    names,
    corrections.map(({ charged }) => charged.charge),
  )
  const entries = corrections.map(({ charged: { charge, chargedAtUs, added = 0 }, does: what = 'correct', by }) =>
    entry(keys, charge, by, chargedAtUs, added, does[what]),
  )
  return { keys: keys.list, plans: [`[${[corrections.length, ...entries].join()}]`] }
}

/** The statuses of a decision that lua/decide.lua returns. */
const failed = -1
const admittedByShape = 2
const refusedByCut = 3

/** What became of a ticket that was shown, by the number that it has there. */
const shownTickets: readonly (ShownTicket | undefined)[] = [undefined, 'redeemed', 'early', 'kept', 'lapsed', 'used']

/** A row of numbers, as lua/decide.lua packs it; where decisions failed, with the reasons behind it. */
export type PackedRow = Buffer | readonly [Buffer, ...Buffer[]]

/** Reads what lua/decide.lua returned. A decision that failed alone is an error in its place. */
export function readDecisions(
  packed: PackedRow,
  requests: readonly ShapedRequest[],
): (StoreDecision | RampmeterError)[] {
  const [row, ...failures] = Buffer.isBuffer(packed) ? [packed] : packed
  const reader = new RowReader(row)
  const nowUs = reader.next()
  return requests.map(({ request: { charges, tickets } }) => {
    const status = reader.next()
    if (status === failed) return failureOf(String(failures.shift()))
    if (status === admittedByShape) {
      return { admitted: true, nowUs, retryAfterUs: 0, outcomes: charges.map((charge) => plainOutcome(charge, reader)) }
    }
    const retryAfterUs = orNever(reader.next())
    const outcomes = charges.map(() => outcome(reader))
    const answer = { admitted: status === 1, nowUs, retryAfterUs, outcomes }
    const decision = status === refusedByCut ? { ...answer, onlyCut: true as const } : answer
    if (tickets === undefined) return decision
    const shown = shownTickets[reader.next()]
    const slot = reader.next()
    return { ...decision, ticket: { shown, reservedUs: slot === 0 ? undefined : slot } }
  })
}

class RowReader {
  readonly #row: Buffer
  #at = 0

  constructor(row: Buffer) {
    this.#row = row
  }

  next(): number {
    const at = this.#at
    this.#at = at + 8
    // Lua may have made a zero negative.
    return this.#row.readDoubleLE(at) + 0
  }
}

/** Of a client's standing nothing is told there, since there is none. */
const noStanding: ChargeOutcome = Object.freeze({ verdict: 'fits', remaining: 0, waitUs: 0, resetUs: 0, added: 0 })

function plainOutcome({ kind }: Charge, reader: RowReader): ChargeOutcome {
  if (kind === 'standing') return noStanding
  const remaining = reader.next()
  const waitUs = orNever(reader.next())
  const resetUs = reader.next()
  return remaining < 0
    ? { verdict: 'inactive', remaining: 0, waitUs, resetUs, added: 0 }
    : { verdict: 'fits', remaining, waitUs, resetUs, added: 0 }
}

function outcome(reader: RowReader): ChargeOutcome {
  const verdict = verdicts[reader.next()]!
  const remaining = reader.next()
  const waitUs = orNever(reader.next())
  const resetUs = reader.next()
  return { verdict, remaining, waitUs, resetUs, added: reader.next() }
}

/** What Redis says of a decision that it could not carry out: its memory is full, a key holds something else. */
function failureOf(text: string): RampmeterError {
  const cause = Object.assign(new Error(text), { name: 'ReplyError' })
  return new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'Redis could not decide', { cause })
}

function orNever(wait: number): number | null {
  return wait < 0 ? null : wait
}

/**
 * The keys to name in a call that reaches an account: its own, and one that never is. What else it has is named after it, and while its slot
 * moves to another master may be here, there, or nowhere yet; a charge or an idempotency key that is not seen would be money. Of two
 * keys, one of which is not there, no node of a slot on the move answers: such calls are not run until all has moved.
 */
export function keysOfAccount(names: KeyNames, partition: string): readonly [account: string, never: string] {
  const account = names.account(partition)
  return [account, `${account}:never`]
}

/** The keys of a call, each once, and their places in `KEYS`, from 1. */
class CallKeys {
  readonly list: string[] = []
  readonly #names: KeyNames
  readonly #hasRecords: boolean

  /** @param charges all that it is for */
  constructor(names: KeyNames, charges: readonly Charge[]) {
    this.#names = names
    this.#hasRecords = charges.some(({ kind }) => !withoutRecord.has(kind))
  }

  /** 0 where the call has nothing to do with partitions. */
  placeOf(charge: Charge): number {
    if (!this.#hasRecords) return 0
    return this.#place(this.#names.partition(charge.partition))
  }

  placeOfOwn(charge: Charge): number {
    const { kind, partition, stateId, members } = charge
    if (!hasOwnKey(kind)) return 0
    if (kind === 'standing') return this.#place(this.#names.standing(partition, 'standing'))
    if (kind === 'credits') {
      const [account, never] = keysOfAccount(this.#names, partition)
      const place = this.#place(account)
      this.#place(never)
      return place
    }
    // A proof has a name of its own; the others are told apart by their policies.
    return this.#place(this.#names.own(partition, kind === 'single-use' ? members![0]! : stateId))
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

function extraOf({ kind, members = [], calendar, seating, standing }: Charge): string {
  if (standing !== undefined) {
    const { enforce, answered, scope, halfLifeUs, share, ladder, idle } = standing
    return `[${[(enforce ? 1 : 0) + (answered ? 2 : 0) + 4 * idle, scope, halfLifeUs, share, ...ladder].join()}]`
  }
  if (calendar !== undefined) return `[${calendar.spreadUs},${calendar.originUs},${calendar.monthDay}]`
  if (kind === 'pool-demand' && seating !== undefined)
    return `[${[seating.seats, seating.seat, ...seating.higher].join()}]`
  return hasOwnKey(kind) && kind !== 'sliding-log' ? JSON.stringify(members) : '0'
}
