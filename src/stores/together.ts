import type { Algorithm } from '../policies/algorithm.ts'
import { concurrencyAlgorithm, releaseLeases, renewLeases, type ConcurrencyState } from '../policies/concurrency.ts'
import { firstMinutesAlgorithm, hasExtra, type FirstMinutesState } from '../policies/first-minutes.ts'
import { fixedWindowAlgorithm } from '../policies/fixed-window.ts'
import { slidingLogAlgorithm } from '../policies/sliding-log.ts'
import { slidingWindowAlgorithm } from '../policies/sliding-window.ts'
import { tokenBucketAlgorithm } from '../policies/token-bucket.ts'
import { noteDemand, poolDemandAlgorithm, type PoolDemandState } from '../policies/pool.ts'
import { uniqueTargetsAlgorithm } from '../policies/unique-targets.ts'
import type { PolicyKind } from '../policy.ts'
import type { Charge, Charged, ChargeOutcome, Correction, DecisionRequest, StoreDecision, Verdict } from './store.ts'

/** The arithmetic of each kind. States pass through untyped: each kind only ever sees its own. */
export const algorithms: Record<PolicyKind, Algorithm<unknown>> = {
  'token-bucket': tokenBucketAlgorithm,
  'sliding-window': slidingWindowAlgorithm,
  'sliding-log': slidingLogAlgorithm,
  'fixed-window': fixedWindowAlgorithm,
  'first-minutes': firstMinutesAlgorithm,
  concurrency: concurrencyAlgorithm,
  failures: slidingWindowAlgorithm,
  'unique-targets': uniqueTargetsAlgorithm,
  'pool-demand': poolDemandAlgorithm,
}

/** Told waits that would end this close to the end of the first minutes do not count on them, in µs. */
export const extraMarginUs: number = 1_000_000

/** How long until a cost fits; Infinity when it never will. */
function waitFor(charge: Charge, state: unknown, now: number, cost: number): number {
  const algorithm = algorithms[charge.kind]
  const needed = algorithm.needs === undefined ? cost : algorithm.needs(state, charge, now, cost)
  if (needed === 0) return 0
  if (needed > charge.capacity && charge.kind !== 'first-minutes') return Infinity
  return algorithm.earliest(state, charge, now, needed) - now
}

/** How long until a policy has room for as much again: of what is counted by name, for one that is new. */
function waitForAnother(charge: Charge, state: unknown, now: number): number {
  const algorithm = algorithms[charge.kind]
  const cost = algorithm.needs === undefined && charge.after !== true ? Math.max(charge.cost, 1) : 1
  if (cost > charge.capacity && charge.kind !== 'first-minutes') return Infinity
  const another = algorithm.needs === undefined ? charge : { ...charge, members: [] }
  return algorithm.earliest(state, another, now, cost) - now
}

/** Where a decision finds the states of its charges, and leaves those that it changed. */
export interface Counters {
  /** Finds a charge's state, fit for use at the time of the decision. */
  open(charge: Charge, correcting?: boolean): unknown
  keep(charge: Charge, state: unknown): void
}

/** All policies or none: the twin of `decide` in lua/decide.lua, step by step the same. */
export function decideTogether(request: DecisionRequest, now: number, counters: Counters): StoreDecision {
  for (const charged of request.commit ? request.undo : []) correct(givenBack(charged), now, counters)

  // What each policy says on its own. The first minutes' extra never refuses: it stands in for those it may lift.
  const { charges } = request
  const states = charges.map((charge) => counters.open(charge))
  const waits = charges.map((charge, index) => {
    const cost = charge.after === true ? 1 : charge.cost
    return charge.kind === 'first-minutes' || cost === 0 ? 0 : waitFor(charge, states[index], now, cost)
  })
  const spared = sharePools(charges, waits)
  let hardWait = 0
  let softWait = 0
  charges.forEach((charge, index) => {
    if (charge.shadow || charge.role === 'own' || charge.role === 'demand') return
    if (charge.liftable) softWait = Math.max(softWait, waits[index]!)
    else hardWait = Math.max(hardWait, waits[index]!)
  })
  const extraIndex = charges.findIndex((charge) => charge.kind === 'first-minutes')
  const extra = charges[extraIndex]
  const extraState = states[extraIndex] as FirstMinutesState | undefined
  const extraEnds = extra && extraState ? extraState.start + extra.windowUs : 0
  const lifts = extra !== undefined && hasExtra(extraState!, extra, now, extra.cost)
  const admitted = hardWait === 0 && (softWait === 0 || lifts)

  // What those who go first ask for is noted even when they do not get it: the others make room. Not what the pool can never
  // give, nor what something else refuses, or one client that is out of its own quota would hold up all who go after it.
  const refusedElsewhere = charges.some((charge, index) => {
    const inPool = charge.role !== undefined && charge.role !== 'whole'
    return !inPool && !charge.shadow && waits[index] !== 0 && !(charge.liftable && lifts)
  })
  if (request.commit && !refusedElsewhere) {
    charges.forEach((charge, index) => {
      if (charge.role !== 'demand' || spared[index] || charge.cost === 0 || charge.cost > charge.capacity) return
      // Charged afterwards, it is noted when it is known.
      if (charge.after === true && admitted) return
      noteDemand(states[index] as PoolDemandState, charge, charge.cost)
      counters.keep(charge, states[index])
    })
  }

  let wait = 0
  const added = charges.map(() => 0)
  if (!admitted) {
    // Those that no request was admitted with have not begun: they lift whenever it comes.
    if (lifts && (!extraState!.granted || now + hardWait + extraMarginUs < extraEnds)) {
      wait = hardWait
    } else {
      const renews = extra !== undefined && softWait < Infinity && extra.cost <= extra.quota
      const renewal = renews ? extraState!.start + extra.capacity - now : Infinity
      wait = Math.max(hardWait, Math.min(softWait, renewal))
    }
  } else if (request.commit) {
    charges.forEach((charge, index) => {
      const isExtra = index === extraIndex
      if (!isExtra && (waits[index] !== 0 || spared[index] || charge.cost === 0 || charge.after === true)) return
      const cost = isExtra && softWait === 0 ? 0 : charge.cost
      added[index] = algorithms[charge.kind].charge(states[index], charge, now, cost)
      counters.keep(charge, states[index])
    })
  }

  const outcomes = charges.map((charge, index): ChargeOutcome => {
    const algorithm = algorithms[charge.kind]
    let verdict: Verdict = 'fits'
    if (index === extraIndex) {
      if (now >= extraEnds) verdict = 'inactive'
    } else if (spared[index]) {
      verdict = 'spared'
    } else if (waits[index] !== 0) {
      verdict = lifts && charge.liftable ? 'lifted' : 'refused'
    }
    return {
      verdict,
      remaining: algorithm.remaining(states[index], charge, now),
      waitUs: finite(waitForAnother(charge, states[index], now)),
      resetUs: Math.max(0, algorithm.expires(states[index], charge, now) - now),
      added: added[index]!,
    }
  })
  return { admitted, nowUs: now, retryAfterUs: finite(wait), outcomes }
}

/**
 * Brings together what a pool's three charges say: the common one waits for its own part or for those who go first, whichever
 * the pool has room for sooner, and neither of them is needed while a tier has some of its own left.
 *
 * @returns for each charge whether it is not needed
 */
function sharePools(charges: readonly Charge[], waits: number[]): boolean[] {
  return charges.map(({ role }, index) => {
    if (role === 'common') {
      const own = waits[index - 1]!
      waits[index] = Math.min(own, Math.max(waits[index]!, waits[index + 1]!))
      return own === 0
    }
    if (role === 'demand') return waits[index - 2] === 0
    return false
  })
}

/** The correction that takes a charge back whole. */
export function givenBack(charged: Charged): Correction {
  return { charged, does: 'correct', by: -charged.cost }
}

/** What happens to a charge later, whether there is room or not: the twin of lua/settle.lua. */
export function correct({ charged, does, by }: Correction, now: number, counters: Counters): void {
  const { charge, chargedAtUs, added = 0 } = charged
  const algorithm = algorithms[charge.kind]
  const state = counters.open(charge, true)
  if (does === 'release') releaseLeases(state as ConcurrencyState, charge, now, chargedAtUs)
  else if (does === 'renew') renewLeases(state as ConcurrencyState, charge, now)
  else if (by < 0) algorithm.refund(state, charge, now, chargedAtUs, -by, added)
  else if (by > 0) algorithm.charge(state, charge, now, by)
  if (by > 0 && charge.kind === 'pool-demand') noteDemand(state as PoolDemandState, charge, by)
  counters.keep(charge, state)
}

function finite(wait: number): number | null {
  return wait === Infinity ? null : wait
}
