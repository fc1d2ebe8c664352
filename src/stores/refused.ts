import type { Algorithm } from '../policies/algorithm.ts'
import {
  addHolder,
  addSlot,
  dropLapsed,
  heldBy,
  lateUs,
  promisedFrom,
  reachOf,
  slotFor,
  type Room,
  type Schedule,
} from '../policies/schedule.ts'
import type { FirstMinutesState } from '../policies/first-minutes.ts'
import type { PolicyKind } from '../policy.ts'
import type { Charge, DecisionRequest } from './store.ts'
import type { TicketDesk } from './ticket-desk.ts'
import type { Counters } from './together.ts'

/** A request that was refused, and what each policy said. */
export interface Refusal {
  readonly request: DecisionRequest
  readonly now: number
  readonly counters: Counters
  readonly algorithms: Readonly<Record<PolicyKind, Algorithm<unknown>>>
  readonly states: readonly unknown[]
  /** How long each charge has to wait, a pool's three brought together. */
  readonly waits: readonly number[]
  /** The same, each of a pool's three on its own. */
  readonly ownWaits: readonly number[]
  /** What is reserved, where tickets are asked for. */
  readonly desk: TicketDesk | undefined
}

/** When a refused request is told to come back. */
export interface Slot {
  /** In µs; Infinity when it never helps. */
  readonly at: number
  /** There was none that could be kept: it is as late as anybody is told. */
  readonly isBeyond?: true
  /** Notes it in all schedules, so that nobody else is told the same room. */
  promise(): void
}

/** A policy's say in when there is room for a request, others who wait considered. */
interface Seat {
  /** The first moment from `from` on. */
  slot(from: number): number
  promise(slot: number, reach: number): void
}

/** No client holds more of a shared schedule than this part of it. */
const partOfClient = 16

/** In so many rounds all policies agree on a moment, or none is promised. */
const mostRounds = 32

/**
 * Finds the moment at which the first minutes' extra will stand in for those that it may lift: that which was granted; or, if none
 * is in force, one that begins when the first of those who were told so comes. None if it has no room for all of them.
 *
 * @param fromUs from when on there is one
 */
export function slotWithExtra(
  refusal: Refusal,
  wait: number,
  extra: Charge,
  state: FirstMinutesState,
  fromUs: number,
): Slot | undefined {
  const { now, counters } = refusal
  const schedule = dropLapsed(counters.schedule(extra), now)
  const isGranted = state.granted && fromUs < state.start + extra.capacity
  const promised = promisedFrom(schedule, fromUs)
  if ((isGranted ? state.used : 0) + promised + extra.cost > extra.quota) return undefined
  const slot = slotOfRefused(refusal, Math.max(wait, fromUs - now), extra)
  let [first, last] = [slot.at, slot.at]
  for (const run of schedule.runs) {
    if (run.last < fromUs) continue
    first = Math.min(first, run.first)
    last = Math.max(last, run.last)
  }
  // One alone begins it when it comes.
  if (!isGranted && promised === 0) return slot
  const ends = (isGranted ? state.start : Math.max(first, fromUs)) + extra.windowUs
  return last + lateUs < ends ? slot : undefined
}

/**
 * Finds the moment to tell: the first at which all policies have room for it besides those who were told earlier, those too that
 * have room now. Nobody waiting, it is the end of `wait`. Beyond the reach of the schedule nothing is promised.
 *
 * @param wait how long it would wait alone, in µs
 * @param extra the first minutes' extra, where it is to stand in for those that it may lift: they have no say
 * @param isReserved it is to be kept as long as a reservation
 */
export function slotOfRefused(refusal: Refusal, wait: number, extra: Charge | undefined, isReserved = false): Slot {
  const { request, now, waits } = refusal
  const { charges, promise } = request
  if (wait === Infinity) return { at: Infinity, promise: () => {} }
  let from = now + wait
  let longest = 0
  charges.forEach((charge, index) => {
    if (waits[index] !== 0 && mayRefuse(charge) && !(charge.liftable && extra !== undefined))
      longest = Math.max(longest, charge.windowUs)
  })
  const reach = reachOf(longest)
  let until = from + reach
  if (typeof promise === 'object') {
    from = Math.max(from, promise.fromUs)
    until = Math.max(from, promise.untilUs)
  }
  const seats: Seat[] = []
  const lifted: { seat: Seat; fromUs: number }[] = []
  charges.forEach((charge, index) => {
    if (!mayRefuse(charge)) return
    for (const seat of seatOf(refusal, charge, index, isReserved)) {
      if (charge.liftable && extra !== undefined) lifted.push({ seat, fromUs: now + waits[index]! })
      else seats.push(seat)
    }
  })
  const at = agree(seats, from, until)
  if (at > until) return { at: until, isBeyond: true, promise: () => {} }
  return {
    at,
    promise() {
      for (const seat of seats) seat.promise(at, reach)
      // If there is room when it comes, it is charged like any other, whatever others do until then.
      for (const { seat, fromUs } of lifted) if (at >= fromUs) seat.promise(at, reach)
      if (extra !== undefined) note(refusal, extra, dropLapsed(refusal.counters.schedule(extra), now), at, reach)
    },
  }
}

/** Finds a moment that can be reserved; undefined where there is none near enough. */
export function slotToReserve(refusal: Refusal, wait: number, desk: TicketDesk): Slot | undefined {
  if (wait === Infinity) return undefined
  const { at, isBeyond } = slotOfRefused(refusal, wait, undefined, true)
  if (isBeyond || at > desk.reservesUntilUs!) return undefined
  return { at, promise: () => desk.reserve(at) }
}

function mayRefuse({ kind, shadow, role }: Charge): boolean {
  return !shadow && kind !== 'first-minutes' && kind !== 'credits' && role !== 'own' && role !== 'demand'
}

function agree(seats: readonly Seat[], from: number, until: number): number {
  let at = from
  for (let round = 0; round < mostRounds; round += 1) {
    let later = at
    for (const seat of seats) later = Math.max(later, seat.slot(later))
    if (later === at) return at
    if (later > until) return Infinity
    at = later
  }
  return Infinity
}

function seatOf(refusal: Refusal, charge: Charge, index: number, isReserved: boolean): Seat[] {
  if (charge.role !== 'common') return openSeat(refusal, charge, index, isReserved)
  // A pool has room when either part has.
  const { now, ownWaits, request } = refusal
  const [own] = openSeat(refusal, request.charges[index - 1]!, index - 1, isReserved)
  const [common] = openSeat(refusal, charge, index, isReserved)
  if (own === undefined || common === undefined) return []
  const ownFrom = now + ownWaits[index - 1]!
  const commonFrom = now + Math.max(ownWaits[index]!, ownWaits[index + 1]!)
  const slotOf = (seat: Seat, from: number): number => (from === Infinity ? Infinity : seat.slot(from))
  return [
    {
      slot: (from) => Math.min(slotOf(own, Math.max(from, ownFrom)), slotOf(common, Math.max(from, commonFrom))),
      promise(slot, reach) {
        const seat = slotOf(own, Math.max(slot, ownFrom)) === slot ? own : common
        seat.promise(slot, reach)
      },
    },
  ]
}

/**
 * A seat in a policy's schedule. None where it costs nothing, where what it will cost or when there is room is not known, and by the
 * calendar, where all are told times that are spread already.
 */
function openSeat(refusal: Refusal, charge: Charge, index: number, isReserved: boolean): Seat[] {
  const { now, counters, algorithms, states, desk } = refusal
  const algorithm = algorithms[charge.kind]
  if (algorithm.room === undefined || charge.calendar !== undefined) return []
  if (charge.after === true || charge.cost === 0) return []
  const schedule = dropLapsed(counters.schedule(charge), now)
  const reserved = desk?.runsOf(index) ?? []
  const runs = reserved.length === 0 ? schedule.runs : [...schedule.runs, ...reserved]
  let room: Room | undefined
  return [
    {
      slot(from) {
        if (runs.length === 0) return from
        room ??= algorithm.room!(states[index], charge, now)
        return slotFor(room, { runs }, from, charge.cost, isReserved)
      },
      promise: (slot, reach) => note(refusal, charge, schedule, slot, reach),
    },
  ]
}

/** Notes a promise, unless the client holds its part of a schedule that others share. */
function note({ now, counters }: Refusal, charge: Charge, schedule: Schedule, slot: number, reach: number): void {
  const { cost, holder, capacity, quota, windowUs } = charge
  let { holders } = schedule
  if (holder !== undefined) {
    const whole = Math.max(capacity, quota) + Math.floor((quota * reach) / windowUs)
    const part = Math.max(cost, Math.floor(whole / partOfClient))
    if (heldBy(schedule, holder) + cost > part) return
    holders = addHolder(holders, holder, slot, cost)
  }
  const runs = addSlot(schedule.runs, slot, cost, (slot - now) % 1000 === 0 ? 0 : 1)
  counters.keepSchedule(charge, { runs, holders })
}
