import type { PolicyKind } from '../../policy.ts'
import type { StandingQuery } from '../../standing.ts'
import type { Charge, DecisionRequest } from '../store.ts'

/** What a shape says of one policy: all of its charge but whose counter it is. */
interface ShapedCharge {
  /** Which of the decision's keys, from 1. */
  readonly place: number
  readonly charge: Charge
}

/**
 * What many decisions have in common: the policies, their limits and costs, and which of them share a key. A call says it once
 * for all of them; lua/lib/plain.lua says what else it is good for.
 */
export interface Shape {
  readonly charges: readonly ShapedCharge[]
  /** What is asked of the client's standing. */
  readonly standing: Charge | undefined
  /** Which of the decision's keys is the client's own, from 1; 0 where none is, as all is counted for everybody, say. */
  readonly standingPlace: number
  /** How many keys of partitions it has. */
  readonly keyCount: number
  readonly promises: boolean
  /** As the script reads it. */
  readonly text: string
}

/** How a charge is written down. */
export interface Notation {
  readonly kindNumbers: Readonly<Record<PolicyKind, number>>
  readonly flagsOf: (charge: Charge) => number
  /** Quotas and capacities without a cut, where there is one. */
  readonly basesOf: (charges: readonly Charge[]) => readonly number[]
  /** What is asked besides: of a standing, the query. */
  readonly extraOf: (charge: Charge) => string
}

/** Amounts of windows and buckets. What has members, a calendar or a share of a pool is told in full. */
const plainKinds: ReadonlySet<PolicyKind> = new Set([
  'token-bucket',
  'sliding-window',
  'fixed-window',
  'first-minutes',
  'failures',
] as const)

/** Buckets that take longer to fill, in µs, have times that cannot be counted: the short way leaves those alone. */
const longestRefillUs = 2 ** 52

const mostShapes = 1000
const mostOfOnePolicy = 8
const mostCharges = 16

/** Remembers shapes, so that a decision that is like an earlier one costs some comparisons. */
export class Shapes {
  readonly #notation: Notation
  /** By the first policy; those that were used last in front. */
  readonly #known = new Map<number, Shape[]>()

  constructor(notation: Notation) {
    this.#notation = notation
  }

  /** The shape of a decision; undefined for one that has none. */
  of(request: DecisionRequest): Shape | undefined {
    const { charges } = request
    const [first] = charges
    const last = charges[charges.length - 1]
    const standing = last?.kind === 'standing' ? last : undefined
    const count = standing === undefined ? charges.length : charges.length - 1
    const isPlainOne = request.commit && request.undo.length === 0 && request.tickets === undefined
    if (first === undefined || count === 0 || !isPlainOne || typeof request.promise === 'object') return undefined
    // What people have approved is looked up in full.
    if (standing !== undefined && standing.standing!.scope !== 0) return undefined
    const promises = request.promise !== false
    let known = this.#known.get(first.stateId)
    const at =
      known?.findIndex(
        (shape) =>
          shape.promises === promises &&
          isAskedLike(shape.standing, standing) &&
          isOfLike(shape, standing, charges, count) &&
          isLike(shape, charges, count),
      ) ?? -1
    if (at !== -1) {
      const shape = known![at]!
      if (at > 0) {
        known!.splice(at, 1)
        known!.unshift(shape)
      }
      return shape
    }
    const limits = charges.slice(0, count)
    if (count > mostCharges || !limits.every(isPlain)) return undefined
    if (known === undefined) {
      if (this.#known.size === mostShapes) this.#known.clear()
      known = []
      this.#known.set(first.stateId, known)
    }
    const shape = this.#describe(limits, standing, promises)
    known.unshift(shape)
    if (known.length > mostOfOnePolicy) known.pop()
    return shape
  }

  #describe(charges: readonly Charge[], standing: Charge | undefined, promises: boolean): Shape {
    const { kindNumbers, flagsOf, basesOf, extraOf } = this.#notation
    const partitions = [...new Set(charges.map(({ partition }) => partition))]
    const shaped = charges.map((charge) => ({ charge, place: partitions.indexOf(charge.partition) + 1 }))
    const entries = shaped.map(({ place, charge }) =>
      [
        place,
        kindNumbers[charge.kind],
        charge.stateId,
        charge.windowUs,
        charge.quota,
        charge.capacity,
        charge.cost,
        flagsOf(charge),
      ].join(),
    )
    const standingPlace = standing === undefined ? 0 : partitions.indexOf(standing.partition) + 1
    const asked = standing === undefined ? 0 : `[${standingPlace},${standing.stateId},${extraOf(standing)}]`
    const head = [partitions.length, charges.length, promises ? 0 : -1, asked]
    const bases = basesOf(standing === undefined ? charges : [...charges, standing])
    return {
      charges: shaped,
      standing,
      standingPlace,
      keyCount: partitions.length,
      promises,
      text: `[${[...head, ...entries, ...bases].join()}]`,
    }
  }
}

function isPlain(charge: Charge): boolean {
  const { kind, cost, quota, capacity, windowUs, calendar, role } = charge
  if (!plainKinds.has(kind) || calendar !== undefined || (role !== undefined && role !== 'whole')) return false
  if (cost === 0 || quota === 0) return false
  if (kind === 'token-bucket' && (capacity / quota) * windowUs > longestRefillUs) return false
  // What is only looked at, the short way knows of sliding windows alone: failures are counted so.
  return charge.after !== true || kind === 'sliding-window' || kind === 'failures'
}

/** All of a query but its ladder: one that is added is missed here by the compiler. */
const askedMembers = Object.keys({
  enforce: true,
  answered: true,
  scope: true,
  halfLifeUs: true,
  share: true,
  idle: true,
} satisfies Record<Exclude<keyof StandingQuery, 'ladder'>, true>) as Exclude<keyof StandingQuery, 'ladder'>[]

/** Whether the key that is the client's own is the same of a decision as of a shape. */
function isOfLike(
  { standingPlace }: Shape,
  standing: Charge | undefined,
  charges: readonly Charge[],
  count: number,
): boolean {
  if (standing === undefined) return true
  if (standing.partition === charges[0]!.partition) return standingPlace === 1
  for (let index = 1; index < count; index += 1) {
    if (charges[index]!.partition === standing.partition) return placeOf(charges, index) === standingPlace
  }
  return standingPlace === 0
}

/** Whether the same is asked of two clients' standings. */
function isAskedLike(one: Charge | undefined, other: Charge | undefined): boolean {
  if (one === undefined || other === undefined) return one === other
  const asked = one.standing!
  const wished = other.standing!
  if (asked === wished) return true
  for (const member of askedMembers) if (asked[member] !== wished[member]) return false
  return asked.ladder === wished.ladder || asked.ladder.every((step, index) => step === wished.ladder[index])
}

/** Whether a decision's charges are those of a shape, whoever they are for. */
function isLike({ charges, keyCount }: Shape, others: readonly Charge[], count: number): boolean {
  if (charges.length !== count) return false
  for (let index = 0; index < charges.length; index += 1) {
    const { charge, place } = charges[index]!
    const other = others[index]!
    if (
      charge.stateId !== other.stateId ||
      charge.cost !== other.cost ||
      charge.quota !== other.quota ||
      charge.capacity !== other.capacity ||
      charge.kind !== other.kind ||
      charge.windowUs !== other.windowUs ||
      charge.after !== other.after ||
      charge.liftable !== other.liftable ||
      charge.shadow !== other.shadow ||
      charge.role !== other.role ||
      charge.calendar !== other.calendar ||
      charge.base?.quota !== other.base?.quota ||
      charge.base?.capacity !== other.base?.capacity
    ) {
      return false
    }
    if (keyCount > 1 ? placeOf(others, index) !== place : other.partition !== others[0]!.partition) return false
  }
  return true
}

/** Which of the different partitions of a decision one of its charges has, from 1. */
function placeOf(charges: readonly Charge[], index: number): number {
  const { partition } = charges[index]!
  let place = 1
  for (let at = 0; at < index; at += 1) {
    if (charges[at]!.partition === partition) return placeOf(charges, at)
    if (isFirstOf(charges, at)) place += 1
  }
  return place
}

function isFirstOf(charges: readonly Charge[], index: number): boolean {
  const { partition } = charges[index]!
  for (let at = 0; at < index; at += 1) if (charges[at]!.partition === partition) return false
  return true
}
