import type { Algorithm, Limit } from '../policies/algorithm.ts'
import { concurrencyAlgorithm, releaseLeases, renewLeases, type ConcurrencyState } from '../policies/concurrency.ts'
import { firstMinutesAlgorithm, hasExtra, type FirstMinutesState } from '../policies/first-minutes.ts'
import { fixedWindowAlgorithm } from '../policies/fixed-window.ts'
import { slidingLogAlgorithm } from '../policies/sliding-log.ts'
import { slidingWindowAlgorithm } from '../policies/sliding-window.ts'
import { tokenBucketAlgorithm } from '../policies/token-bucket.ts'
import { noteDemand, poolDemandAlgorithm, type PoolDemandState } from '../policies/pool.ts'
import { singleUseAlgorithm } from '../policies/single-use.ts'
import { shareLeft, standingAlgorithm, throttledAmount, type StandingState } from '../policies/standing.ts'
import { creditsAlgorithm } from './credits.ts'
import { uniqueTargetsAlgorithm } from '../policies/unique-targets.ts'
import type { Reservations } from '../policies/reservations.ts'
import { dropLapsed, noSchedule, takeDue, type Schedule } from '../policies/schedule.ts'
import type { PolicyKind } from '../policy.ts'
import { slotOfRefused, slotToReserve, slotWithExtra, type Refusal, type Slot } from './refused.ts'
import type { Charge, Charged, ChargeOutcome, Correction, DecisionRequest, StoreDecision, Verdict } from './store.ts'
import { openDesk } from './ticket-desk.ts'

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
  'single-use': singleUseAlgorithm,
  standing: standingAlgorithm,
  credits: creditsAlgorithm,
}

/** Told waits that would end this close to the end of the first minutes do not count on them, in µs. */
export const extraMarginUs: number = 1_000_000

/** How long until a cost fits; Infinity when it never will. */
export function waitFor(charge: Charge, state: unknown, now: number, cost: number): number {
  const algorithm = algorithms[charge.kind]
  const needed = algorithm.needs === undefined ? cost : algorithm.needs(state, charge, now, cost)
  if (needed === 0) return 0
  if (needed > charge.capacity && charge.kind !== 'first-minutes') return Infinity
  return algorithm.earliest(state, charge, now, needed) - now
}

/** How long until a policy has room for as much again: of what is counted by name, for one that is new. */
export function waitForAnother(charge: Charge, state: unknown, now: number): number {
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
  /** Finds the retry schedule beside a charge's counter; {@link noSchedule} where nobody waits. */
  schedule(charge: Charge): Schedule
  keepSchedule(charge: Charge, schedule: Schedule): void
  /** Finds what is reserved beside a charge's counter; {@link noReservations} where nothing is. */
  reservations(charge: Charge): Reservations
  keepReservations(charge: Charge, reservations: Reservations): void
}

/** All policies or none: the twin of lua/lib/together.lua, step by step the same. */
export function decideTogether(request: DecisionRequest, now: number, counters: Counters): StoreDecision {
  for (const charged of request.commit ? request.undo : []) correct(givenBack(charged), now, counters)

  // What each policy says on its own. The first minutes' extra never refuses: it stands in for those it may lift.
  const share = shareOfStanding(request.charges.at(-1), now, counters)
  const charges = throttled(request.charges, share)
  const states = charges.map((charge) => counters.open(charge))
  const waits = charges.map((charge, index) => {
    const cost = charge.after === true ? 1 : charge.cost
    return charge.kind === 'first-minutes' || cost === 0 ? 0 : waitFor(charge, states[index], now, cost)
  })
  const terms = request.tickets
  const desk = terms && openDesk(request, terms, now, counters, algorithms, states, waits)
  const ownWaits = [...waits]
  const spared = sharePools(charges, waits)
  const { hardWait, softWait } = longestOf(charges, waits)
  // Limits come before money: what is unpaid refuses only what they admit.
  const unpaid = charges.some(({ kind }, index) => kind === 'credits' && waits[index] !== 0)
  const extraIndex = charges.findIndex((charge) => charge.kind === 'first-minutes')
  const extra = charges[extraIndex]
  const extraState = states[extraIndex] as FirstMinutesState | undefined
  const extraEnds = extra && extraState ? extraState.start + extra.windowUs : 0
  const isEarly = desk?.shown === 'early'
  const lifts = !isEarly && share === 1000 && extra !== undefined && hasExtra(extraState!, extra, now, extra.cost)
  // A span is for one that others refused.
  const promising = typeof request.promise === 'object'
  const fits = !promising && !isEarly && hardWait === 0 && (softWait === 0 || lifts)
  const admitted = fits && !unpaid
  const isRedeemed = admitted && desk?.shown === 'kept'

  // What those who go first ask for is noted even when they do not get it: the others make room. Not what the pool can never
  // give, nor what something else refuses, or one client that is out of its own quota would hold up all who go after it.
  const refusedElsewhere = charges.some((charge, index) => {
    const inPool = charge.role !== undefined && charge.role !== 'whole'
    return !inPool && !charge.shadow && waits[index] !== 0 && !(charge.liftable && lifts)
  })
  if (request.commit && !promising && !refusedElsewhere) {
    charges.forEach((charge, index) => {
      if (charge.role !== 'demand' || spared[index] || charge.cost === 0 || charge.cost > charge.capacity) return
      // Charged afterwards, it is noted when it is known.
      if (charge.after === true && admitted) return
      noteDemand(states[index] as PoolDemandState, charge, charge.cost)
      counters.keep(charge, states[index])
    })
  }

  let wait = 0
  let reservedUs: number | undefined
  const added = charges.map(() => 0)
  if (fits && unpaid) {
    wait = Infinity
  } else if (isEarly) {
    wait = Math.max(hardWait, softWait)
  } else if (!admitted) {
    const refusal: Refusal = {
      request: { ...request, charges },
      now,
      counters,
      algorithms,
      states,
      waits,
      ownWaits,
      desk,
    }
    let slot: Slot | undefined
    if (extra !== undefined) {
      const { start, granted } = extraState!
      if (lifts) slot = slotWithExtra(refusal, hardWait, extra, extraState!, now)
      const renewal = start + extra.capacity
      if (slot === undefined && granted && softWait < Infinity && renewal < now + softWait) {
        slot = slotWithExtra(refusal, hardWait, extra, extraState!, renewal)
      }
    }
    if (slot === undefined && desk?.reservesUntilUs !== undefined) {
      slot = slotToReserve(refusal, Math.max(hardWait, softWait), desk)
      reservedUs = slot?.at
    }
    slot ??= slotOfRefused(refusal, Math.max(hardWait, softWait), undefined)
    if (request.commit && request.promise !== false) slot.promise()
    wait = slot.at - now
  } else if (request.commit) {
    if (isRedeemed) desk.redeem()
    charges.forEach((charge, index) => {
      const isExtra = index === extraIndex
      if (!isExtra && (waits[index] !== 0 || spared[index] || charge.cost === 0 || charge.after === true)) return
      const cost = isExtra && softWait === 0 ? 0 : charge.cost
      added[index] = algorithms[charge.kind].charge(states[index], charge, now, cost)
      counters.keep(charge, states[index])
      if (charge.kind === 'credits') return
      // Whoever was admitted had the room of one who may come now.
      const schedule = counters.schedule(charge)
      if (schedule === noSchedule || cost === 0 || isRedeemed) return
      counters.keepSchedule(charge, takeDue(dropLapsed(schedule, now), now, cost))
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
    const remaining = algorithm.remaining(states[index], charge, now)
    const waitUs = finite(waitForAnother(charge, states[index], now))
    const reserved = desk === undefined ? 0 : desk.unitsOf(index)
    return {
      verdict,
      // What is reserved is for others.
      remaining: reserved === 0 ? remaining : Math.max(0, remaining - reserved),
      waitUs: reserved === 0 || waitUs === null ? waitUs : Math.max(waitUs, waits[index]!),
      resetUs: Math.max(0, algorithm.expires(states[index], charge, now) - now),
      added: added[index]!,
    }
  })
  const decision = { admitted, nowUs: now, retryAfterUs: finite(wait), outcomes }
  const mayBeCut =
    !admitted && !promising && !isEarly && share === 1000 && charges.some(({ base }) => base !== undefined)
  const isOnlyCut = mayBeCut && fitsAtBase(charges, states, ownWaits, now)
  const answer = isOnlyCut ? { ...decision, onlyCut: true as const } : decision
  if (desk === undefined) return answer
  return { ...answer, ticket: { shown: isRedeemed ? 'redeemed' : desk.shown, reservedUs } }
}

/** The longest waits: of those that refuse whatever happens, and of those that the first minutes' extra may lift. */
function longestOf(charges: readonly Charge[], waits: readonly number[]): { hardWait: number; softWait: number } {
  let [hardWait, softWait] = [0, 0]
  charges.forEach((charge, index) => {
    if (charge.kind === 'credits' || charge.shadow || charge.role === 'own' || charge.role === 'demand') return
    if (charge.liftable) softWait = Math.max(softWait, waits[index]!)
    else hardWait = Math.max(hardWait, waits[index]!)
  })
  return { hardWait, softWait }
}

/** Whether what was refused would fit if nothing were cut, what was used as it stands. */
function fitsAtBase(
  charges: readonly Charge[],
  states: readonly unknown[],
  ownWaits: readonly number[],
  now: number,
): boolean {
  const atBase = charges.map((charge) => (charge.base === undefined ? charge : { ...charge, ...charge.base }))
  const waits = atBase.map((charge, index) => {
    return ownWaits[index] === 0 ? 0 : waitFor(charge, states[index], now, charge.after === true ? 1 : charge.cost)
  })
  sharePools(charges, waits)
  const { hardWait, softWait } = longestOf(charges, waits)
  if (hardWait > 0 || softWait === 0) return hardWait === 0
  const index = atBase.findIndex(({ kind }) => kind === 'first-minutes')
  return index !== -1 && hasExtra(states[index] as FirstMinutesState, atBase[index]!, now, atBase[index]!.cost)
}

/** What a client's standing, the last of the charges, leaves of its quotas, in thousandths. */
function shareOfStanding(last: Charge | undefined, now: number, counters: Counters): number {
  if (last?.kind !== 'standing') return 1000
  return shareLeft(counters.open(last) as StandingState, last.standing!, now)
}

/** What a standing that throttles leaves of the charges to its client's own counters of requests. */
export function throttled(charges: readonly Charge[], share: number): readonly Charge[] {
  const standing = charges.at(-1)
  if (share === 1000 || standing?.kind !== 'standing') return charges
  return charges.map((charge) => {
    const { kind, partition, role, cost, quota, capacity } = charge
    const isOwn = partition === standing.partition && (role === undefined || role === 'whole')
    if (!isOwn || !throttles.has(kind)) return charge
    return {
      ...charge,
      quota: throttledAmount(quota, cost, share),
      capacity: throttledAmount(capacity, cost, share),
    }
  })
}

const throttles: ReadonlySet<PolicyKind> = new Set(['token-bucket', 'sliding-window', 'sliding-log', 'fixed-window'])

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

/** When a state is worth nothing any more. */
export function keptUntil(kind: PolicyKind, state: unknown, limit: Limit, now: number): number {
  const algorithm = algorithms[kind]
  return algorithm.kept === undefined ? algorithm.expires(state, limit, now) : algorithm.kept(state, limit, now)
}

export function finite(wait: number): number | null {
  return wait === Infinity ? null : wait
}
