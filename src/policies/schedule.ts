/**
 * The retry schedule: which times refused clients were told, so that the next one is told another. Each policy has its own beside
 * its counter, while somebody waits. Only refusals read it: who is admitted depends on the counters alone.
 *
 * A *slot* is the moment told to one request, and a *promise* the room that it needs then: it is kept for whoever comes at the slot
 * or up to a second later (whole seconds, latency), and for nobody after that. The twin of lua/lib/schedule.lua, step by step the
 * same; whoever changes one changes the other.
 */
export interface Schedule {
  /** At most {@link mostRuns}, by when they begin. Never changed in place. */
  readonly runs: readonly Run[]
  /** Of a partition that clients share: who holds how much of it. At most {@link mostHolders}. */
  readonly holders: readonly Holder[]
}

/**
 * `count` promises of `cost` each, evenly spread from `first` to `last`, in µs. With a count of 0, promises of `cost` altogether,
 * somewhere between the two.
 */
export interface Run {
  readonly first: number
  readonly last: number
  readonly count: number
  readonly cost: number
  /**
   * Whether some were told later than that: 1, by a millisecond at most, since times are told in whole ones; 2, by two. 3, where
   * they are reserved (see reservations.ts).
   */
  readonly rounded: 0 | 1 | 2 | 3
}

/** What one client holds of a schedule: so many units, evenly spread. */
export interface Holder {
  /** A hash of its id. */
  readonly client: number
  readonly first: number
  readonly last: number
  readonly units: number
}

/**
 * The room that a counter has, seen from now, if nothing but what is promised is charged.
 *
 * - `pace`: it refills evenly. Amounts are in the counter's own weights (see the token bucket).
 * - `window`: what was charged leaves a window later.
 */
export type Room = PaceRoom | WindowRoom

export interface PaceRoom {
  readonly refills: true
  readonly deficit: number
  readonly at: number
  readonly quota: number
  readonly scale: number
  readonly weight: number
  /** In units. */
  readonly capacity: number
}

export interface WindowRoom {
  readonly refills: false
  readonly quota: number
  readonly windowUs: number
  /** Charges of one such cell may count as made when it ends; 0 where each has an entry of its own. The window is whole cells. */
  readonly cellUs: number
  /** What of all that was charged so far is still used at a time, at most. */
  usedAt(time: number): number
  /** From when on no more than that is. */
  fallsTo(used: number): number
}

export const noSchedule: Schedule = { runs: [], holders: [] }

/** Under which state id the schedule of a policy is kept. */
export function scheduleIdOf(stateId: number): number {
  return (stateId + 0x5c4ed01e) % 2 ** 32
}

const mostRuns = 8
/** From so many on that are more than a moment, turns of a bucket that would each be another run are spread into one. */
const manyTurns = 4
const mostHolders = 16

/** How long after its slot a promise is kept, in µs. */
export const lateUs = 1_000_000

/** How much later than its slot a promise may have been told, in µs. */
const roundingUs = 2000

/** Of a run that has no more promises, each is looked at; of a longer one, where it may be fullest. */
const mostLooks = 8

/** A slot that is not found in so many steps is looked for behind all others. */
const mostSteps = 64

/** What does not fit then, in µs: a year. */
const longestSearchUs = 2 ** 45

/** How far the slots of a run may be from where its even spread has them, in µs. */
const unevenUs = 4

/** What a charge of a bucket whose refills are rounded may cost more, in weights, and how many charges that is counted for. */
const roundedOff = 8
const mostRounded = 4096

/** Errors of a computation with fractions, in weights and in units. */
const roundingWeight = 0.5
const roundingUnits = 1e-6

/** What a client is kept waiting at most beyond what it would wait alone, in µs, where the longest of the windows is so long. */
export function reachOf(windowUs: number): number {
  return Math.max(60_000_000, 4 * windowUs)
}

/** How long a reserved slot is kept, in µs: two seconds after the time told, which is the slot rounded up to a millisecond. */
export const reservedUs = 2_001_000

/** How much later than its run has it a reservation may be, in µs. */
const reservedUnevenUs = 8

/** How long after its slot a promise is kept, where the last of a run was told latest. */
function latestUs({ rounded }: Run): number {
  if (rounded === 3) return reservedUs + reservedUnevenUs
  return rounded === 0 ? lateUs : lateUs + roundingUs
}

function totalOf(run: Run): number {
  return run.count === 0 ? run.cost : run.count * run.cost
}

/** How many steps of a run lie before a time within it: whole at its slots, and a fraction in between. */
function stepsTo({ first, last, count }: Run, time: number): number {
  const step = (last - first) / (count - 1)
  const steps = (time - first) / step
  const whole = Math.floor(steps + 0.5)
  return Math.abs(steps - whole) * step <= unevenUs ? whole : steps
}

/** What is promised for slots up to a time, at most: as if it came evenly in between. */
function upTo(run: Run, time: number): number {
  if (time < run.first) return 0
  if (time >= run.last || run.count === 0) return totalOf(run)
  return Math.min(run.count, stepsTo(run, time) + 1) * run.cost
}

/** What is promised for slots before a time, at least: as if it came evenly in between. */
function before(run: Run, time: number): number {
  if (time <= run.first) return 0
  if (time > run.last) return totalOf(run)
  return run.count === 0 ? 0 : Math.min(run.count - 1, stepsTo(run, time)) * run.cost
}

/** What is promised for slots up to a time. Where a run may come at any time within it, the most. */
function exactlyUpTo(run: Run, time: number): number {
  if (time < run.first) return 0
  if (time >= run.last || run.count === 0) return totalOf(run)
  return Math.min(run.count, Math.floor(stepsTo(run, time)) + 1) * run.cost
}

/** What is promised for slots before a time. Where a run may come at any time within it, the least. */
function exactlyBefore(run: Run, time: number): number {
  if (time <= run.first) return 0
  if (time > run.last) return totalOf(run)
  return run.count === 0 ? 0 : Math.min(run.count - 1, Math.ceil(stepsTo(run, time))) * run.cost
}

/**
 * The first moment from `from` on, at which `cost` can be promised: it fits then, and all that is promised already still does,
 * whenever within its second each of them comes. Infinity when none is found. Without promises it is `from` itself, which is to be
 * no sooner than the counter alone has room.
 *
 * @param isReserved it is to be kept as long as a reservation
 */
export function slotFor(
  room: Room,
  { runs }: Pick<Schedule, 'runs'>,
  from: number,
  cost: number,
  isReserved = false,
): number {
  if (runs.length === 0) return from
  const late = isReserved ? reservedUs : lateUs + roundingUs
  if (room.refills) return paceSlot(room, runs, from, cost, late)
  const slot = windowSlot(room, runs, from, cost, late)
  // Between many there are many places to look at, and behind them all there are few.
  const end = endOf(runs)
  return slot === Infinity && end > from ? windowSlot(room, runs, end, cost, late) : slot
}

function endOf(runs: readonly Run[]): number {
  return runs.reduce((latest, { last }) => Math.max(latest, last), 0)
}

/**
 * The most that a bucket lacks is the greatest of: what it lacked at first, less what has refilled since, with all that came; and
 * for each moment at which it may have been full, all that may have come since then, less what has refilled since then. Those
 * moments are the last ones at which somebody may come: in between, both change evenly.
 */
function paceSlot(room: PaceRoom, runs: readonly Run[], from: number, cost: number, longestLate: number): number {
  const { deficit, at, quota, scale, weight, capacity } = room
  const brim = capacity * weight
  const lates = runs.map(latestUs)

  const promised = (time: number): number => runs.reduce((sum, run) => sum + upTo(run, time), cost)
  const arrived = (time: number): number => runs.reduce((sum, run, index) => sum + before(run, time - lates[index]!), 0)
  const refill = (us: number): number => (Math.max(0, us) * quota) / scale
  const heavy = (units: number): number => {
    // Where refills are rounded, each charge costs a little more; and beyond 2⁵³ a product is off by a little.
    const product = units * weight + (scale === 1 ? 0 : roundedOff * Math.min(units, mostRounded))
    return product > Number.MAX_SAFE_INTEGER ? product * (1 + 2 ** -50) : product
  }
  const moments: number[] = []
  runs.forEach(({ first, last }, index) => moments.push(first + lates[index]!, last + lates[index]!))
  const arrivedBy = moments.map(arrived)
  const end = endOf(runs)

  /** By how much it would be overfull at `time`, from what may have come at one of the moments up to `until` and since. */
  const overAt = (time: number, until: number): number => {
    const units = promised(time)
    let over = deficit + heavy(units) - refill(time - at)
    moments.forEach((moment, index) => {
      if (moment > until) return
      over = Math.max(over, heavy(units - arrivedBy[index]!) - refill(time - moment) - roundingWeight)
    })
    return over - brim
  }

  // Where the bucket does not hold what refills in the second kept for those who are late, there is a gap after each turn, so that
  // each turn is a run. With room between all of them they are one, and about as soon.
  const evenly = Math.ceil(longestLate / (Math.floor(capacity / cost) - 1))
  const turns = runs.filter(({ count }) => count !== 1).length
  const isSpread = turns >= manyTurns && evenly < Infinity && refill(evenly) > cost * weight
  const behind = Math.max(from, isSpread ? end + evenly : end)
  // Most are behind all the others.
  const isBehindAll = isSpread || (end > from && deficit + heavy(promised(end)) - refill(end - at) > brim)
  let slot = isBehindAll ? behind : from
  for (let step = 0; step < mostSteps; step += 1) {
    const until = slot + longestLate
    const arrivedUntil = arrived(until)
    let blocked = 0
    const look = (time: number): void => {
      if (time <= slot || time <= blocked) return
      const units = promised(time)
      const since = Math.min(time, until)
      const arrivedSince = since === until ? arrivedUntil : arrived(since)
      const crowd = units - arrivedSince
      const isFull =
        since === time ? crowd - capacity > roundingUnits : heavy(crowd) - refill(time - since) - brim > roundingWeight
      if (isFull || overAt(time, since) > 0) blocked = time
    }
    if (end > slot) {
      for (const { first, last } of runs) {
        look(first)
        look(last)
      }
      for (const moment of moments) if (moment <= until) look(moment)
      look(until)
    }
    if (blocked > slot) {
      slot = blocked
      continue
    }
    const over = overAt(slot, slot)
    if (over > 0) {
      slot += Math.max(1, Math.ceil((over * scale) / quota))
      continue
    }
    const crowd = promised(slot) - arrived(slot) - capacity
    if (crowd <= roundingUnits) return slot
    const share = crowd / runs.length
    slot = runs.reduce((next, run, index) => Math.min(next, goneAt(run, lates[index]!, slot, share)), Infinity)
  }
  // Between many there are many places to look at. Behind them all, what has room once has room later too.
  return firstFrom(
    behind,
    (time) => overAt(time, time) <= 0 && promised(time) - arrived(time) - capacity <= roundingUnits,
  )
}

/** The first moment from `soonest` on that will do, where all after it do too; Infinity when there is none. */
function firstFrom(soonest: number, willDo: (time: number) => boolean): number {
  let span = 1
  while (!willDo(soonest + span)) {
    span *= 2
    if (span > longestSearchUs) return Infinity
  }
  let [before, found] = [soonest + Math.floor(span / 2), soonest + span]
  while (found - before > 1) {
    const middle = Math.floor((before + found) / 2)
    if (willDo(middle)) found = middle
    else before = middle
  }
  return found
}

function windowSlot(room: WindowRoom, runs: readonly Run[], from: number, cost: number, longestLate: number): number {
  const { quota, windowUs, cellUs } = room
  const longestLag = longestLate + windowUs + cellUs
  // What is reserved is kept against whoever comes: they too may come in the same cell.
  const isStrict = cellUs > 0 && (longestLate >= reservedUs || runs.some(({ rounded }) => rounded === 3))
  const promised = (time: number): number => runs.reduce((sum, run) => sum + upTo(run, time), cost)
  const exactlyPromised = (time: number): number => runs.reduce((sum, run) => sum + exactlyUpTo(run, time), cost)

  let slot = from
  for (let step = 0; step < mostSteps; step += 1) {
    const counted = runs.map((_, index) => (isStrict ? undefined : countedUs(runs, index, slot, cellUs)))
    const lags = runs.map((run, index) => windowUs + (counted[index] ?? latestUs(run) + cellUs))
    const gone = (time: number): number =>
      runs.reduce((sum, run, index) => sum + before(run, time - lags[index]! + 1), 0)
    /** The same, exactly. */
    const goneBy = (time: number): number =>
      runs.reduce((sum, run, index) => {
        if (counted[index] !== undefined) return sum + exactlyBefore(run, time - lags[index]! + 1)
        return sum + exactlyBefore(run, Math.floor((time - windowUs) / cellUs) * cellUs - latestUs(run))
      }, 0)
    let blocked = 0
    const look = (time: number, over: (time: number) => number): void => {
      if (time <= slot || time <= blocked || time >= slot + longestLag) return
      if (over(time) > 0) blocked = time
    }
    const exactlyOver = (time: number): number => room.usedAt(time) + exactlyPromised(time) - goneBy(time) - quota
    for (const run of runs) {
      const { first, last, count } = run
      if (last <= slot) continue
      if (count <= mostLooks) {
        look(first, exactlyOver)
        for (let index = 1; index < count - 1; index += 1) {
          look(first + Math.floor(((last - first) / (count - 1)) * index), exactlyOver)
        }
        look(last, exactlyOver)
        continue
      }
      // What is used leaves while a run goes on: it counts as at its beginning.
      const used = room.usedAt(Math.max(slot, first))
      const over = (time: number): number => used + promised(time) - gone(time) - quota
      look(first, over)
      look(last, over)
      runs.forEach((other, index) => {
        const leaves = other.first + lags[index]!
        if (leaves > first && leaves < last) look(leaves, over)
      })
    }
    if (blocked > slot) {
      slot = blocked
      continue
    }
    const used = room.usedAt(slot)
    const over = used + exactlyPromised(slot) - goneBy(slot) - quota
    if (over <= 0) return slot
    const share = over / (runs.length + 1)
    let next = Infinity
    runs.forEach((run, index) => {
      if (counted[index] !== undefined) {
        next = Math.min(next, goneAt(run, lags[index]! - 1, slot, share))
        return
      }
      // The next of them that is not gone, and the end of the cell that it may be charged in.
      const late = latestUs(run)
      const following = Math.max(run.first, Math.floor((slot - windowUs) / cellUs) * cellUs - late)
      if (following > run.last) return
      const ends = (Math.floor((following + late) / cellUs) + 1) * cellUs
      next = Math.min(next, ends + windowUs)
    })
    const falls = used === 0 ? Infinity : room.fallsTo(Math.max(0, Math.floor(used - share)))
    slot = Math.max(slot + 1, Math.min(next, falls))
  }
  return Infinity
}

/**
 * How long after its slot a promise counts as charged, at the latest: as long as the last of those who may come in the same cell.
 * Undefined where that is until its cell ends.
 */
function countedUs(runs: readonly Run[], which: number, slot: number, cellUs: number): number | undefined {
  const run = runs[which]!
  const { first, last, count } = run
  const late = latestUs(run)
  if (cellUs === 0) return late
  const ends = (Math.floor((last + late) / cellUs) + 1) * cellUs
  const begins = ends - cellUs
  const longestLate = lateUs + roundingUs
  if (first > begins - cellUs) {
    let latest = last + late
    if (slot < ends && slot + longestLate > latest && slot + longestLate >= begins) latest = slot + longestLate
    runs.forEach((other, index) => {
      if (index !== which && other.first < ends) latest = Math.max(latest, other.last + latestUs(other))
    })
    return Math.min(latest, ends) - first
  }
  const isSpaced = count > 1 && last - first > (count - 1) * (cellUs + late)
  const isApart = (from: number, to: number): boolean => to + longestLate + cellUs < first || from >= ends
  const isAlone =
    isApart(slot, slot) && runs.every((other, index) => index === which || isApart(other.first, other.last))
  return isSpaced && isAlone ? late : undefined
}

/** The first moment after `time` by which a run may have lost so much more; Infinity where it has lost all. */
function goneAt(run: Run, lag: number, time: number, share: number): number {
  const end = run.last + lag + 1
  if (end <= time) return Infinity
  if (run.count <= 1) return end
  const pace = (run.last - run.first) / ((run.count - 1) * run.cost)
  return Math.min(end, Math.max(time, run.first + lag) + Math.max(1, Math.ceil(share * pace)))
}

/** Notes a promise. */
export function addSlot(runs: readonly Run[], slot: number, cost: number, rounded: 0 | 1): Run[] {
  const added: Run = { first: slot, last: slot, count: 1, cost, rounded }
  const rest = [...runs]
  // The same moment: one promise of both.
  const same = rest.findIndex(({ last, first, count }) => last === slot && (count > 1 || first === slot))
  if (same >= 0) {
    const run = rest[same]!
    const both: Run = { ...added, cost: run.cost + cost, rounded: looser(run, added) }
    if (run.count > 1) {
      rest[same] = shortened(run)
      insert(rest, both)
    } else {
      rest[same] = run.count === 1 ? both : { ...run, cost: both.cost, rounded: both.rounded }
    }
    return fewer(rest)
  }
  if (!goOn(rest, added, 'run')) insert(rest, added)
  return fewer(rest)
}

function looser(one: Run, other: Run): Run['rounded'] {
  return one.rounded > other.rounded ? one.rounded : other.rounded
}

/**
 * Makes a promise the next of a run; or the second of what becomes one, which begins with the last of them or with any. Says
 * whether it could.
 */
function goOn(runs: Run[], promise: Run, after: 'run' | 'last' | 'any'): boolean {
  const { last: slot, cost } = promise
  let index = runs.findIndex(
    ({ first, last, count, cost: each }) =>
      count > 1 && each === cost && slot > last && Math.abs(slot - last - (last - first) / (count - 1)) <= 2,
  )
  const from = after === 'any' ? 0 : after === 'last' ? Math.max(0, runs.length - 1) : runs.length
  for (let place = runs.length - 1; index < 0 && place >= from; place -= 1) {
    const run = runs[place]!
    if (run.count === 1 && run.cost === cost && slot > run.last) index = place
  }
  if (index < 0) return false
  const run = runs[index]!
  runs[index] = { ...run, last: slot, count: run.count + 1, rounded: looser(run, promise) }
  return true
}

/** A run without its last promise. */
function shortened(run: Run): Run {
  const count = run.count - 1
  return { ...run, last: run.last - Math.floor((run.last - run.first) / count), count }
}

function insert(runs: Run[], run: Run): void {
  let index = runs.length
  while (index > 0 && runs[index - 1]!.first > run.first) index -= 1
  runs.splice(index, 0, run)
}

/** Makes runs of those that are one moment each. */
function evened(runs: readonly Run[], after: 'last' | 'any'): Run[] {
  const rest: Run[] = []
  for (const run of runs) if (run.count !== 1 || !goOn(rest, run, after)) insert(rest, run)
  return rest
}

/** Takes those that lie within a millisecond for one moment. */
function asMoment(run: Run): Run {
  if (run.count <= 1 || run.rounded === 2 || run.last - run.first > roundingUs / 2) return run
  return { ...run, last: run.first, count: 1, cost: totalOf(run), rounded: run.rounded === 0 ? 1 : 2 }
}

/**
 * Where there are too many, those within a millisecond count as one moment, which may be the next of a run. Then the two
 * neighbours that are closest become one, whose promises may come at any time within it.
 */
function fewer(runs: Run[]): Run[] {
  if (runs.length <= mostRuns) return runs
  let rest = evened(runs, 'last')
  if (rest.length > mostRuns) rest = evened(rest.map(asMoment), 'last')
  if (rest.length > mostRuns) rest = evened(rest, 'any')
  if (rest.length <= mostRuns) return rest
  let closest = 0
  let width = Infinity
  for (let index = 0; index + 1 < rest.length; index += 1) {
    const span = Math.max(rest[index]!.last, rest[index + 1]!.last) - rest[index]!.first
    if (span < width) {
      width = span
      closest = index
    }
  }
  const [one, other] = [rest[closest]!, rest[closest + 1]!]
  rest.splice(closest, 2, {
    first: one.first,
    last: Math.max(one.last, other.last),
    count: 0,
    cost: totalOf(one) + totalOf(other),
    rounded: looser(one, other),
  })
  return rest
}

/** How many of a run's promises have their slot at or before a time. */
function countUpTo({ first, last, count }: Run, time: number): number {
  if (time < first) return 0
  if (time >= last) return count
  return Math.min(count - 1, Math.floor(((time - first) / (last - first)) * (count - 1)) + 1)
}

/** A run without its first `gone` promises. */
function without(run: Run, gone: number): Run {
  if (gone === 0) return run
  const count = run.count - gone
  const first = count === 1 ? run.last : run.first + Math.floor(((run.last - run.first) / (run.count - 1)) * gone)
  return { ...run, first, count }
}

/** Drops what nobody waits for any more: promises a second after their slot. */
export function dropLapsed({ runs, holders }: Schedule, now: number): Schedule {
  const lapsed = now - lateUs
  if (runs.every(({ first }) => first > lapsed) && holders.every(({ first }) => first > lapsed)) {
    return { runs, holders }
  }
  const kept: Run[] = []
  for (const run of runs) {
    if (run.last <= lapsed) continue
    insert(kept, without(run, run.count === 0 ? 0 : countUpTo(run, lapsed)))
  }
  return { runs: kept, holders: heldAfter(holders, lapsed) }
}

function heldAfter(holders: readonly Holder[], time: number): Holder[] {
  const kept: Holder[] = []
  for (const holder of holders) {
    if (holder.last <= time) continue
    if (holder.first > time) {
      kept.push(holder)
      continue
    }
    const units = Math.ceil((holder.units * (holder.last - time)) / (holder.last - holder.first))
    kept.push({ ...holder, first: time, units })
  }
  return kept
}

/** Takes what was admitted off the promises that are due. */
export function takeDue({ runs, holders }: Schedule, now: number, cost: number): Schedule {
  if (runs.length === 0 || runs[0]!.first > now) return { runs, holders }
  let left = cost
  const kept: Run[] = []
  for (const run of runs) {
    if (left === 0 || run.first > now) {
      insert(kept, run)
    } else if (run.count <= 1) {
      const taken = run.last <= now ? Math.min(left, run.cost) : 0
      left -= taken
      if (taken < run.cost) insert(kept, { ...run, cost: run.cost - taken })
    } else {
      const taken = Math.min(countUpTo(run, now), Math.floor(left / run.cost))
      left -= taken * run.cost
      if (taken < run.count) insert(kept, without(run, taken))
    }
  }
  return { runs: kept, holders }
}

/** How many units are promised for a time or later. */
export function promisedFrom({ runs }: Schedule, time: number): number {
  return runs.reduce((sum, run) => sum + totalOf(run) - before(run, time), 0)
}

/** When nothing of a schedule counts any more. */
export function scheduleEnds({ runs, holders }: Schedule, now: number): number {
  let end = now
  for (const { last } of runs) end = Math.max(end, last + lateUs)
  for (const { last } of holders) end = Math.max(end, last + lateUs)
  return end
}

/** How many units of a shared schedule a client holds. */
export function heldBy({ holders }: Schedule, client: number): number {
  return holders.find((holder) => holder.client === client)?.units ?? 0
}

/** Notes that a client holds so much more. Where too many are noted, the one that holds least is not any more. */
export function addHolder(holders: readonly Holder[], client: number, slot: number, cost: number): Holder[] {
  const rest = [...holders]
  const index = rest.findIndex((holder) => holder.client === client)
  if (index >= 0) {
    const { first, last, units } = rest[index]!
    rest[index] = { client, first: Math.min(first, slot), last: Math.max(last, slot), units: units + cost }
    return rest
  }
  if (rest.length === mostHolders) {
    let least = 0
    rest.forEach(({ units }, place) => {
      if (units < rest[least]!.units) least = place
    })
    rest.splice(least, 1)
  }
  rest.push({ client, first: slot, last: slot, units: cost })
  return rest
}
