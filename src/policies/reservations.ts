/**
 * Reservations: slots that tickets hold. A promise (see schedule.ts) is soft, a newcomer that finds room takes it; a reservation is
 * kept against everybody: whoever is admitted must leave room for all of them, whenever within its two seconds each of them comes.
 * Each policy keeps its own beside its counter, while there are any. The twin of lua/lib/reservations.lua, step by step the same.
 */
import { reservedUs, type PaceRoom, type Room, type Run, type WindowRoom } from './schedule.ts'

export interface Reservations {
  /** By slot, at most {@link mostReservations}. Never changed in place. */
  readonly kept: readonly Reservation[]
  /** Who let one lapse lately, at most {@link mostLapses}, the oldest first. */
  readonly lapses: readonly Lapse[]
}

/** Room for a cost, for whoever brings the ticket. */
export interface Reservation {
  /** From when on, in µs. */
  readonly slot: number
  readonly cost: number
  /** The ticket's id. */
  readonly id: number
  /** A hash of the client's id. */
  readonly client: number
}

interface Lapse {
  readonly client: number
  readonly at: number
}

export const noReservations: Reservations = { kept: [], lapses: [] }

/** Under which state id the reservations of a policy are kept. */
export function reservationsIdOf(stateId: number): number {
  return (stateId + 0x71c4e75d) % 2 ** 32
}

const mostReservations = 64
const mostLapses = 16

/** No client has more of what others share than this part of it. */
const partOfClient = 16

/** How long a lapse is remembered at most, in µs. */
const longestLapseUs = 3_600_000_000

/** As many runs as the reservations become where somebody else's slot is sought. */
const mostRuns = 6

/** How far a slot may be from where its run has it, in µs. */
const unevenUs = 4

/** What a charge of a bucket whose refills are rounded may cost more, in weights. */
const roundedOff = 4

/** For how long after a lapse a client gets no ticket. */
export function lapseUs(windowUs: number): number {
  return Math.min(windowUs, longestLapseUs)
}

/** Takes out those whose time is over, and notes that their clients let them lapse. The same object where nothing has changed. */
export function dropLate(reservations: Reservations, windowUs: number, now: number): Reservations {
  const { kept, lapses } = reservations
  const isLate = kept.length > 0 && kept[0]!.slot + reservedUs <= now
  const isOver = lapses.length > 0 && lapses[0]!.at + lapseUs(windowUs) <= now
  if (!isLate && !isOver) return reservations
  const left = lapses.filter(({ at }) => at + lapseUs(windowUs) > now)
  const still: Reservation[] = []
  for (const one of kept) {
    const at = one.slot + reservedUs
    if (at > now) still.push(one)
    else if (at + lapseUs(windowUs) > now) noteLapse(left, { client: one.client, at })
  }
  return { kept: still, lapses: left }
}

function noteLapse(lapses: Lapse[], lapse: Lapse): void {
  const index = lapses.findIndex(({ client }) => client === lapse.client)
  if (index >= 0) lapses.splice(index, 1)
  else if (lapses.length === mostLapses) lapses.shift()
  lapses.push(lapse)
}

export function reservationOf({ kept }: Reservations, id: number): Reservation | undefined {
  return kept.find((one) => one.id === id)
}

export function withoutReservation({ kept, lapses }: Reservations, id: number): Reservations {
  return { kept: kept.filter((one) => one.id !== id), lapses }
}

export function withReservation({ kept, lapses }: Reservations, added: Reservation): Reservations {
  const more = [...kept]
  let index = more.length
  while (index > 0 && more[index - 1]!.slot > added.slot) index -= 1
  more.splice(index, 0, added)
  return { kept: more, lapses }
}

/** How many units are reserved. */
export function reservedUnits({ kept }: Reservations): number {
  let sum = 0
  for (const { cost } of kept) sum += cost
  return sum
}

/**
 * Whether a policy may reserve so much more: within its share of the quota, and where clients share the counter, within the part of
 * one of them.
 */
export function mayReserve({ kept }: Reservations, cost: number, most: number, sharedBy: number | undefined): boolean {
  if (kept.length >= mostReservations) return false
  let all = cost
  let own = cost
  let count = 1
  for (const one of kept) {
    all += one.cost
    if (one.client !== sharedBy) continue
    own += one.cost
    count += 1
  }
  if (all > Math.max(cost, most)) return false
  if (sharedBy === undefined) return true
  return own <= Math.max(cost, Math.floor(most / partOfClient)) && count <= mostReservations / partOfClient
}

/** Whether a client let one lapse within so long. */
export function hasLapsed({ lapses }: Reservations, client: number, withinUs: number, now: number): boolean {
  return lapses.some((lapse) => lapse.client === client && lapse.at + withinUs > now)
}

/** When nothing of it counts any more. */
export function reservationsEnd({ kept, lapses }: Reservations, windowUs: number, now: number): number {
  let end = now
  for (const { slot } of kept) end = Math.max(end, slot + reservedUs + lapseUs(windowUs))
  for (const { at } of lapses) end = Math.max(end, at + lapseUs(windowUs))
  return end
}

/** Whether all that is reserved still has room, whenever each comes, once `cost` is charged now. */
export function leavesRoom(room: Room, { kept }: Reservations, now: number, cost: number): boolean {
  if (kept.length === 0) return true
  return room.refills ? paceLeaves(room, kept, now, cost) : windowLeaves(room, kept, now, cost)
}

/**
 * The later a reservation is used, the less has refilled since: so the bucket lacks most at a time if those whose time is over by
 * then came at their last moment, and all others who may have come come just then. It lacks most where somebody's time begins.
 */
function paceLeaves(
  { deficit, at, quota, scale, weight, capacity }: PaceRoom,
  kept: readonly Reservation[],
  now: number,
  cost: number,
): boolean {
  const brim = capacity * weight
  const heavy = (units: number): number => units * weight + (scale === 1 ? 0 : roundedOff)
  const after = (lacking: number, us: number): number => Math.max(0, lacking - (Math.max(0, us) * quota) / scale)
  let time = Math.max(now, at)
  let lacking = after(deficit, now - at) + heavy(cost)
  let due = 0
  let over = 0
  for (const { slot, cost: units } of kept) {
    const from = Math.max(now, slot)
    while (kept[over]!.slot + reservedUs <= from) {
      const { slot: earlier, cost: taken } = kept[over]!
      lacking = after(lacking, earlier + reservedUs - time) + heavy(taken)
      time = Math.max(time, earlier + reservedUs)
      due -= heavy(taken)
      over += 1
    }
    due += heavy(units)
    if (after(lacking, from - time) + due > brim) return false
  }
  return true
}

function windowLeaves(room: WindowRoom, kept: readonly Reservation[], now: number, cost: number): boolean {
  const { quota, windowUs, cellUs } = room
  /** When a charge is gone: its cell may yet get later ones, which it then leaves with. */
  const goneAt = (time: number): number => windowUs + (cellUs === 0 ? time : (Math.floor(time / cellUs) + 1) * cellUs)
  const ownGone = goneAt(now)
  let reserved = 0
  let gone = 0
  for (const { slot, cost: units } of kept) {
    const from = Math.max(now, slot)
    reserved += units
    while (goneAt(kept[gone]!.slot + reservedUs) <= from) {
      reserved -= kept[gone]!.cost
      gone += 1
    }
    if (room.usedAt(from) + reserved + (from < ownGone ? cost : 0) > quota) return false
  }
  return true
}

/**
 * The reservations as the runs of a schedule, for whoever seeks a slot besides them: where slots are as far apart as each other, one
 * run; else neighbours that may come at any time within it.
 */
export function asRuns({ kept }: Reservations): Run[] {
  const runs: Run[] = []
  let index = 0
  while (index < kept.length) {
    const { slot: first, cost } = kept[index]!
    let count = 1
    let last = first
    // Between which steps a run may have all of them where it should.
    let least = 0
    let most = Infinity
    for (let next = index + 1; next < kept.length; next += 1) {
      const { slot, cost: other } = kept[next]!
      const step = (slot - first) / count
      if (other !== cost || slot <= last || step < least || step > most) break
      least = Math.max(least, (slot - first - unevenUs) / count)
      most = Math.min(most, (slot - first + unevenUs) / count)
      last = slot
      count += 1
    }
    runs.push({ first: first - unevenUs, last: last - (count === 1 ? 0 : unevenUs), count, cost, rounded: 3 })
    if (count === 1) runs[runs.length - 1] = { first, last, count, cost, rounded: 3 }
    index += count
  }
  while (runs.length > mostRuns) joinClosest(runs)
  return runs
}

/** Makes the two neighbours that are closest one, whose slots may be anywhere within it. */
function joinClosest(runs: Run[]): void {
  let closest = 0
  let width = Infinity
  for (let index = 0; index + 1 < runs.length; index += 1) {
    const span = runs[index + 1]!.last - runs[index]!.first
    if (span < width) {
      width = span
      closest = index
    }
  }
  const [one, other] = [runs[closest]!, runs[closest + 1]!]
  const units = (run: Run): number => (run.count === 0 ? run.cost : run.count * run.cost)
  runs.splice(closest, 2, { first: one.first, last: other.last, count: 0, cost: units(one) + units(other), rounded: 3 })
}

/** The first moment at which all that is reserved has come or lapsed, and `cost` fits whatever became of it. */
export function afterAll(room: Room, reservations: Reservations, from: number, cost: number): number {
  const { kept } = reservations
  const ends = Math.max(from, kept.at(-1)!.slot + reservedUs)
  if (!room.refills) return ends + room.windowUs + room.cellUs
  const { deficit, at, quota, scale, weight, capacity } = room
  const units =
    (room.scale === 1 ? 0 : roundedOff * kept.length) + (reservedUnits(reservations) + cost - capacity) * weight
  return Math.max(ends, at) + Math.max(0, Math.ceil(((deficit + units) * scale) / quota))
}
