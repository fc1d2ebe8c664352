import { shareLeft, standingAlgorithm, type StandingState } from '../policies/standing.ts'
import type { PolicyKind } from '../policy.ts'
import type { Row, Space } from './space.ts'
import type { Charge, ChargeOutcome, DecisionRequest, StoreDecision } from './store.ts'
import { algorithms, finite, keptUntil, waitFor, waitForAnother } from './together.ts'

/** Where the plain way finds what it needs. */
export interface Places {
  readonly spaceOf: (partition: string) => Space
  readonly standingOf: (partition: string) => StandingState
}

/** The kinds whose charge says nothing but how much is left, and which no other charge has a say in. */
const plainKinds: ReadonlySet<PolicyKind> = new Set(['token-bucket', 'sliding-window', 'sliding-log', 'fixed-window'])

/**
 * The short way of a decision, for what nearly all of them are: amounts of windows and buckets of one partition that all have room,
 * where nobody waits, for a client whose standing leaves it all. The same as {@link decideTogether} would say. Whatever is not so
 * plain is found out before anything is charged, and left to that.
 */
export function decidePlainly(request: DecisionRequest, now: number, places: Places): StoreDecision | undefined {
  const { charges } = request
  const last = charges.at(-1)
  const standing = last?.kind === 'standing' ? last : undefined
  const count = standing === undefined ? charges.length : charges.length - 1
  if (!isPlain(request, count)) return undefined
  const state = standing && places.standingOf(standing.partition)
  if (standing !== undefined && !leavesAll(state!, standing, now)) return undefined
  const { partition } = charges[0]!
  const space = places.spaceOf(partition)
  const row = space.findOrAdd(partition)
  const states = row.isPlain ? statesWithRoom(charges, count, row, now) : undefined
  if (states === undefined) return undefined

  const outcomes: ChargeOutcome[] = []
  for (let index = 0; index < count; index += 1) {
    const charge = charges[index]!
    const { kind, stateId, cost } = charge
    algorithms[kind].charge(states[index], charge, now, cost)
    row.keep(stateId, states[index], keptUntil(kind, states[index], charge, now), now, false)
    outcomes.push(outcomeOf(charge, states[index], now))
  }
  if (standing !== undefined) outcomes.push(outcomeOf(standing, state, now))
  space.release(partition, row, now, true)
  return { admitted: true, nowUs: now, retryAfterUs: 0, outcomes }
}

function isPlain({ charges, undo, tickets, promise }: DecisionRequest, count: number): boolean {
  if (count === 0 || undo.length > 0 || tickets !== undefined || typeof promise === 'object') return false
  const { partition } = charges[0]!
  for (let index = 0; index < count; index += 1) {
    const { kind, role, cost, after, partition: own } = charges[index]!
    if (own !== partition || role !== undefined || cost === 0 || after === true || !plainKinds.has(kind)) return false
  }
  return true
}

function leavesAll(state: StandingState, standing: Charge, now: number): boolean {
  return (
    shareLeft(state, standing.standing!, now) === 1000 && standingAlgorithm.earliest(state, standing, now, 1) === now
  )
}

/** The states of all charges but the standing, if each of them fits. */
function statesWithRoom(charges: readonly Charge[], count: number, row: Row, now: number): unknown[] | undefined {
  const states: unknown[] = []
  for (let index = 0; index < count; index += 1) {
    const charge = charges[index]!
    const state = algorithms[charge.kind].open(row.find(charge.stateId)?.state, charge, now)
    if (waitFor(charge, state, now, charge.cost) !== 0) return undefined
    states.push(state)
  }
  return states
}

function outcomeOf(charge: Charge, state: unknown, now: number): ChargeOutcome {
  const algorithm = algorithms[charge.kind]
  return {
    verdict: 'fits',
    remaining: algorithm.remaining(state, charge, now),
    waitUs: finite(waitForAnother(charge, state, now)),
    resetUs: Math.max(0, algorithm.expires(state, charge, now) - now),
    added: 0,
  }
}
