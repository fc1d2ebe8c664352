import type { ConductEvent, ConductRules, KnownStanding, Observed, StandingQuery } from '../standing.ts'
import { steps, taken } from '../standing.ts'
import type { Algorithm } from './algorithm.ts'

/** What a client's conduct has come to. The twin of the field `b` that lua/lib/conduct.lua keeps. */
export interface Standing {
  /** In thousandths of a point, at `at`. */
  score: number
  /**
   * Of each ladder that it was put on lately, the step and the lowest score since, where that is a step at all: a strict ladder of one
   * route does not say where it is on another's.
   */
  steps: readonly (readonly [ladder: number, step: number, lowest: number])[]
  at: number
  /** When it last did what adds to it, in µs. */
  offence: number
  /** Bits of the signals that say something. */
  signals: number
}

/** What people decided about a client. */
export interface Rulings {
  /** Until when it is suspended, in µs; 0 for not, -1 for good. */
  suspendedUntil: number
  /** A hash of its tier; 0 for none. */
  tier: number
  /** Until when, in µs; 0 for good. */
  tierUntil: number
  /** Hashes of the scopes that are approved. */
  readonly approved: Set<number>
}

/** What a decision sees. */
export interface StandingState {
  readonly rulings: Rulings | undefined
  readonly standing: Standing | undefined
}

/** A step that a score made ends so long after the last offence, whatever the score, in µs. */
const longestStepUs = 2 * 3_600_000_000

/** Factors of 2^-(1/2), 2^-(1/4), … 2^-(1/256), times 2^16: whole numbers, so that both languages decay alike. */
const factors = [46341, 55109, 60097, 62757, 64132, 64830, 65182, 65359] as const

/** What is left of a count that halves every `halfLife`. It falls in steps of a 256th of that, at the same moments for everybody. */
export function decayed(value: number, from: number, now: number, halfLife: number): number {
  // A clock that stepped forward and back: nobody is held to it for the step.
  if (value === 0 || from - now > halfLife) return 0
  const tick = Math.max(1, Math.floor(halfLife / 256))
  const ticks = Math.floor(now / tick) - Math.floor(from / tick)
  if (ticks <= 0) return value
  const halves = Math.floor(ticks / 256)
  if (halves >= 40) return 0
  let rest = ticks - halves * 256
  let left = value
  let bit = 128
  for (const factor of factors) {
    if (rest >= bit) {
      rest -= bit
      left = Math.floor((left * factor) / 65536)
    }
    bit /= 2
  }
  return Math.floor(left / 2 ** halves)
}

/** Where a score stands on a ladder, by where it stood before. */
export function stepOn(ladder: readonly number[], before: number, score: number): number {
  let step = stepDown(ladder, before, score)
  for (let higher = 4; higher > step; higher -= 1) {
    if (score >= ladder[2 * higher - 2]!) step = higher
  }
  return step
}

function stepDown(ladder: readonly number[], before: number, score: number): number {
  let step = before
  while (step > 0 && score < ladder[2 * step - 1]!) step -= 1
  return step
}

/** What a ladder is known by. */
function nameOf(ladder: readonly number[]): number {
  return ladder.reduce((name, score) => (name * 69069 + score) % 2 ** 32, 0)
}

/** Whether its steps are over, whatever the score. */
function isOver({ offence }: Standing, now: number): boolean {
  return Math.abs(now - offence) > longestStepUs
}

/** A standing as it is now. */
function standingNow(
  standing: Standing | undefined,
  ladder: readonly number[],
  halfLife: number,
  now: number,
): { score: number; step: number } {
  if (standing === undefined || halfLife === 0) return { score: 0, step: 0 }
  const score = decayed(standing.score, standing.at, now, halfLife)
  if (isOver(standing, now)) return { score, step: 0 }
  const name = standing.steps.length === 0 ? 0 : nameOf(ladder)
  const [, before, lowest] = standing.steps.find(([one]) => one === name) ?? [name, 0, 0]
  return { score, step: stepOn(ladder, stepDown(ladder, before, lowest), score) }
}

const THROTTLE = 1
const CHALLENGE = 2
const DENY = 3

function isSuspended({ rulings }: StandingState, now: number): boolean {
  return rulings !== undefined && (rulings.suspendedUntil === -1 || rulings.suspendedUntil > now)
}

/** Rounded up; 0 for good. */
function suspendedForMs({ suspendedUntil }: Rulings, now: number): number {
  return suspendedUntil === -1 ? 0 : Math.ceil((suspendedUntil - now) / 1000)
}

function isUnapproved({ rulings }: StandingState, { scope }: StandingQuery): boolean {
  return scope !== 0 && !(rulings?.approved.has(scope) ?? false)
}

function tierOf({ rulings }: StandingState, now: number): number {
  return rulings !== undefined && (rulings.tierUntil === 0 || rulings.tierUntil > now) ? rulings.tier : 0
}

/** What throttling leaves of quotas, in thousandths; 1000 where it does not throttle. */
export function shareLeft(state: StandingState, query: StandingQuery, now: number): number {
  const { step } = standingNow(state.standing, query.ladder, query.halfLifeUs, now)
  return query.enforce && taken(step, query.idle) >= THROTTLE ? query.share : 1000
}

/**
 * A client's standing, as a charge that refuses: the twin of lua/lib/standing.lua. It is read only, and its outcome tells what was
 * read: `remaining` the score, the signals and the step, the time until it is free what people decided, with the tier, or for how long
 * it is suspended still.
 */
export const standingAlgorithm: Algorithm<StandingState> = {
  open: (stored) => stored ?? { rulings: undefined, standing: undefined },

  earliest(state, limit, now) {
    const query = limit.standing!
    if (isSuspended(state, now) || isUnapproved(state, query)) return Infinity
    const step = taken(standingNow(state.standing, query.ladder, query.halfLifeUs, now).step, query.idle)
    const refuses = query.enforce && (step >= DENY || (step === CHALLENGE && !query.answered))
    return refuses ? Infinity : now
  },

  remaining(state, limit, now) {
    const query = limit.standing!
    const { score, step } = standingNow(state.standing, query.ladder, query.halfLifeUs, now)
    const signals = query.halfLifeUs === 0 || score === 0 ? 0 : (state.standing?.signals ?? 0)
    return (score * 2 ** 20 + signals) * 8 + step
  },

  charge: () => 0,
  refund() {},

  expires(state, limit, now) {
    const query = limit.standing!
    const flags = (isSuspended(state, now) ? 1 : 0) + (isUnapproved(state, query) ? 2 : 0)
    const told = isSuspended(state, now) ? suspendedForMs(state.rulings!, now) : tierOf(state, now)
    return now + told * 4 + flags
  },
}

/** Reads what a standing's outcome tells. */
export function readStanding(
  { remaining, resetUs }: { remaining: number; resetUs: number },
  { idle }: Pick<StandingQuery, 'idle'>,
): KnownStanding {
  const rest = Math.floor(remaining / 8)
  const flags = resetUs % 4
  const suspended = flags % 2 === 1
  const told = Math.floor(resetUs / 4)
  const reached = remaining % 8
  const step = taken(reached, idle)
  return {
    score: Math.floor(rest / 2 ** 20) / 1000,
    step: steps[step]!,
    ...(step !== reached && { shadow: steps[reached]! }),
    signals: rest % 2 ** 20,
    tier: suspended ? 0 : told,
    suspended,
    ...(suspended && told > 0 && { suspendedForMs: told }),
    unapproved: flags >= 2,
  }
}

/** What throttling leaves of an amount: a part of it, but never less than one request needs. */
export function throttledAmount(amount: number, cost: number, share: number): number {
  return Math.min(amount, Math.max(1, cost, Math.floor((amount * share) / 1000)))
}

/** How many requests came lately, and on the whole, in millionths, as of when; and at which endpoint. */
type Pace = [fast: number, slow: number, at: number, endpoint: number]

/** What is remembered of a client's conduct. The twin of the field `v` that lua/lib/conduct.lua keeps. */
export interface Conduct {
  /** Of each signal: count in millionths, as of when, and since when it is above zero. */
  readonly counts: [value: number, at: number, since: number][]
  /** The times that were told and not kept yet: to whom, when, when they were told, and for what. */
  told: [tag: number, toldAt: number, refusedAt: number, target: number][]
  /** How many requests were too early and count for nothing, in millionths. */
  leeway: number
  /** Endpoints that were asked for too early, lately. */
  strays: number[]
  /** How many targets are marked. */
  marked: number
  /** When the last new one was. */
  markedAt: number
  /** What was counted as missing or forbidden and has not been served since: the target, when, and as which of both. */
  missed: [target: number, at: number, result: number][]
  requests: number
  last: number
  run: number
  places: [place: number, software: number, at: number][]
  readonly pace: Pace
  /** Of the endpoints it asked for last, the one asked for longest ago first. */
  paces: Pace[]
  /** Of each label: when its incident began, was last seen, was last told of. */
  readonly labels: [first: number, last: number, told: number][]
}

export function newConduct(signals: number): Conduct {
  return {
    counts: Array.from({ length: signals }, () => [0, 0, 0]),
    told: [],
    leeway: 0,
    strays: [],
    marked: 0,
    markedAt: 0,
    missed: [],
    requests: 0,
    last: -1,
    run: 0,
    places: [],
    pace: [0, 0, 0, 0],
    paces: [],
    labels: Array.from({ length: 6 }, () => [0, 0, 0]),
  }
}

/** Notes that a target was touched, and says whether it is new. */
export interface Marks {
  mark(target: number): boolean
  clear(): void
}

// Places of the signals that are counted here, in `signalNames`.
const EARLY = 0
const EXHAUSTED = 1
const GREEDY = 2
const NEW = 3
const MISSING = 4
const FORBIDDEN = 5
const SEQUENTIAL = 6
const SLOW = 7
const impatience = [EARLY, EXHAUSTED, GREEDY] as const
const BURSTS = 10
const ENVIRONMENTS = 11

const one = 1_000_000

/** What a request sent before its client can have read a refusal is: so long after it, in µs. */
const underWayUs = 1_000_000
/** A time counts as come a little before it has, in µs: clocks differ. */
const toleranceUs = 250_000
/** What was told and not kept is forgotten so long after its time, in µs. */
const toldForUs = 120_000_000
const mostTold = 64
/**
 * So many times that have not come yet may be those of as many workers with one credential, each of which waits by itself while the
 * others go on: only who has more of them ignores what it is told.
 */
const mostWaiting = 32
/** So many requests that are early count for nothing: more workers begin with a refusal each, before the first of them comes back. */
const mostLeeway = 32 * one
/**
 * What one that is admitted takes away. Whoever waits as it was told is admitted then, so workers that wait are refused once for each time
 * that they are admitted. Who is refused more than this oftener does not wait.
 */
const credit = (5 * one) / 4
const mostStrays = 4
const mostPlaces = 8
/**
 * Up to which count places add, in tenths of the threshold. Where a credential is used is no misconduct: by the presets it leads to a
 * challenge and no further, with all that adds a little on top, and to throttling where only addresses are known.
 */
const mostOfKnownPlaces = 21
const mostOfAddresses = 12
const mostPaces = 6
/** Of 2048 marks; then they begin anew. */
const mostMarked = 1024
/** A client's first requests mark nothing: most clients that come once never come again. */
const unmarkedRequests = 3
/** Who has more of them that are remembered is denied by then. */
const mostMissed = 64
const mostThresholds = 6
const mostWeights = 5
const mostScore = 200_000
/** The steps of so many ladders are remembered of a client. */
const mostLadders = 8

/** Takes what a request tells into a client's conduct: the twin of lua/lib/conduct.lua. */
export function observe(
  conduct: Conduct,
  marks: Marks,
  event: ConductEvent,
  rules: ConductRules,
  now: number,
  touched: Set<number>,
): void {
  const add = (signal: number, amount: number): void => {
    const rule = rules.signals[signal]!
    const count = conduct.counts[signal]!
    const value = decayed(count[0], count[1], now, rule.halfLifeUs) + amount
    count[0] = Math.max(0, Math.min(value, mostThresholds * rule.threshold))
    count[1] = now
    if (count[0] === 0) count[2] = 0
    else if (count[2] === 0) count[2] = now
    if (amount > 0) touched.add(signal)
  }
  const valueOf = (signal: number): number => {
    const [value, at] = conduct.counts[signal]!
    return decayed(value, at, now, rules.signals[signal]!.halfLifeUs)
  }

  for (let index = 0; index < event.adds.length; index += 2) add(event.adds[index]!, event.adds[index + 1]!)
  if (event.outcome !== 0) {
    const at = event.atUs > 0 && event.atUs < now ? event.atUs : now
    conduct.requests = Math.min(conduct.requests + 1, 1000)
    const isNew =
      event.target >= 0 && conduct.requests > unmarkedRequests
        ? markTarget(conduct, marks, event.target, rules.halfLifeUs, now)
        : false
    const isRetry = conduct.told.some((told) => told[0] === event.tag && told[3] === event.target)
    const early = event.outcome === 4 ? 'neither' : takeTold(conduct, event, at)
    if (early === 'admitted') {
      const rest = credit - Math.max(...impatience.map(valueOf))
      for (const signal of impatience) add(signal, -credit)
      if (rest > 0) conduct.leeway = Math.max(0, conduct.leeway - rest)
    } else if (early === 'early' && conduct.leeway < mostLeeway) {
      conduct.leeway += one
    } else if (early === 'early') {
      if (!conduct.strays.includes(event.endpoint)) {
        conduct.strays.push(event.endpoint)
        if (conduct.strays.length > mostStrays) conduct.strays.shift()
      }
      // Of very many targets those that are new cannot all be told from those that were asked for.
      const isGreedy = !isRetry && (isNew || valueOf(NEW) >= rules.signals[NEW]!.threshold)
      if (isGreedy) add(GREEDY, one)
      else add(conduct.strays.length >= 3 ? EXHAUSTED : EARLY, one)
    }
    if (conduct.strays.length > 0 && valueOf(EARLY) + valueOf(EXHAUSTED) + valueOf(GREEDY) < one) conduct.strays = []

    if (event.sequence >= 0) {
      const apart = Math.abs(event.sequence - conduct.last)
      conduct.run = conduct.last >= 0 && apart >= 1 && apart <= 3 ? Math.min(conduct.run + 1, 1000) : 0
      conduct.last = event.sequence
      if (conduct.run >= 3) add(SEQUENTIAL, one)
    }
    if (event.result === 1) {
      if (isNew) add(NEW, one)
      takeBack(conduct, event.target, now, rules, add)
      if (event.outcome !== 4) for (const signal of [MISSING, FORBIDDEN, SLOW]) add(signal, -one / 4)
    } else if (event.result === 4) {
      if (isNew) add(NEW, one)
    } else if (event.result >= 2) {
      if (isNew || conduct.requests <= unmarkedRequests) {
        for (const signal of signalsOfMiss(event.result)) add(signal, one)
        if (event.target >= 0) conduct.missed.push([event.target, now, event.result])
        if (conduct.missed.length > mostMissed) conduct.missed.shift()
      }
    } else if (isRefused(event) && isNew && valueOf(MISSING) * 4 < valueOf(NEW)) {
      add(NEW, one)
    }
    noteBurst(conduct, event.endpoint, rules.halfLifeUs, now, add)
  }
  const addUpTo = (signal: number, amount: number, most: number): void => {
    const room = Math.floor((most * rules.signals[signal]!.threshold) / 10) - valueOf(signal)
    if (room > 0) add(signal, Math.min(amount, room))
  }
  if (event.software !== 0) notePlace(conduct, event, rules.halfLifeUs, now, addUpTo)
}

function markTarget(conduct: Conduct, marks: Marks, target: number, halfLife: number, now: number): boolean {
  if (conduct.marked >= mostMarked || now - conduct.markedAt > 2 * halfLife) {
    marks.clear()
    conduct.marked = 0
  }
  const isNew = marks.mark(target)
  if (isNew) {
    conduct.marked += 1
    conduct.markedAt = now
  }
  return isNew
}

function isRefused({ outcome }: ConductEvent): boolean {
  return outcome === 2 || outcome === 3
}

function signalsOfMiss(result: number): readonly number[] {
  return result === 2 ? [MISSING, SLOW] : [FORBIDDEN, SLOW]
}

/** What is served was no guess, whatever was answered before: it was created meanwhile, or granted. What is left of its misses is given back. */
function takeBack(
  conduct: Conduct,
  target: number,
  now: number,
  rules: ConductRules,
  add: (signal: number, by: number) => void,
): void {
  if (conduct.missed.length === 0) return
  const missed = conduct.missed.filter((miss) => miss[0] === target)
  conduct.missed = conduct.missed.filter((miss) => miss[0] !== target)
  for (const [, at, result] of missed) {
    for (const signal of signalsOfMiss(result)) add(signal, -decayed(one, at, now, rules.signals[signal]!.halfLifeUs))
  }
}

/**
 * A request is early if more times were told to its sender than it may have workers that wait, none of which has come, it can have read the
 * first of them, and it was refused again: who is admitted was right to come.
 */
function takeTold(conduct: Conduct, event: ConductEvent, at: number): 'early' | 'admitted' | 'neither' {
  conduct.told = conduct.told.filter(([, toldAt]) => toldAt + toldForUs >= at)
  let waiting = 0
  let firstToldAt = Infinity
  let due = -1
  conduct.told.forEach(([tag, toldAt, refusedAt], index) => {
    if (tag !== event.tag) return
    waiting += 1
    firstToldAt = Math.min(firstToldAt, refusedAt)
    if (toldAt - toleranceUs <= at && (due === -1 || toldAt < conduct.told[due]![1])) due = index
  })
  const isMany = waiting >= mostWaiting || (waiting > 0 && conduct.told.length >= mostTold)
  const early = isMany && due === -1 && isRefused(event) && at > firstToldAt + underWayUs
  if (due !== -1) conduct.told.splice(due, 1)
  // Of many workers that share a credential each is told a time of its own, and comes back at that.
  if (event.outcome === 2 && conduct.told.length < mostTold)
    conduct.told.push([event.tag, event.toldUs, at, event.target])
  if (early) return 'early'
  return event.outcome === 1 && (due !== -1 || isMany) ? 'admitted' : 'neither'
}

/** A burst is eight times the client's own past, in all or at this endpoint. */
function noteBurst(
  conduct: Conduct,
  endpoint: number,
  halfLife: number,
  now: number,
  add: (signal: number, by: number) => void,
): void {
  const own = conduct.paces.findIndex((pace) => pace[3] === endpoint)
  const pace: Pace = own === -1 ? [0, 0, 0, endpoint] : conduct.paces[own]!
  if (own !== -1) conduct.paces.splice(own, 1)
  else if (conduct.paces.length >= mostPaces) conduct.paces.shift()
  conduct.paces.push(pace)
  const inAll = isBurst(conduct.pace, halfLife, now)
  if (isBurst(pace, halfLife, now) || inAll) add(BURSTS, one)
}

/** Counts a request, and compares the last half minute with the last hour, with the default half-life. */
function isBurst(pace: Pace, halfLife: number, now: number): boolean {
  pace[0] = Math.min(decayed(pace[0], pace[2], now, Math.floor(halfLife / 20)) + one, 1000 * one)
  pace[1] = Math.min(decayed(pace[1], pace[2], now, halfLife * 6) + one, 8000 * one)
  pace[2] = now
  return pace[1] >= 50 * one && pace[0] >= 30 * one && pace[0] * 15 > pace[1]
}

/**
 * One credential, used by turns from places by software that are not one client's: by so many programs in so many places as there are
 * of the fewer. Few programs on many hosts are a fleet's.
 */
function notePlace(
  conduct: Conduct,
  { place, software, placeIsKnown }: ConductEvent,
  halfLife: number,
  now: number,
  addUpTo: (signal: number, by: number, most: number) => void,
): void {
  conduct.places = conduct.places.filter(([, , at]) => at > now - halfLife)
  const own = conduct.places.findIndex(([where, by]) => where === place && by === software)
  const others = conduct.places.filter(([where, by]) => where !== place && by !== software)
  const lastAt = own === -1 ? 0 : conduct.places[own]![2]
  if (others.some(([, , at]) => at >= lastAt)) {
    const hands = Math.min(new Set(others.map(([where]) => where)).size, new Set(others.map(([, by]) => by)).size)
    if (placeIsKnown === 1) addUpTo(ENVIRONMENTS, hands >= 2 ? one : one / 4, mostOfKnownPlaces)
    else if (hands >= 4) addUpTo(ENVIRONMENTS, ((Math.min(hands, 7) - 3) * one) / 4, mostOfAddresses)
  }
  if (own !== -1) conduct.places.splice(own, 1)
  else if (conduct.places.length >= mostPlaces) conduct.places.shift()
  conduct.places.push([place, software, now])
}

/** Makes a client's standing of its conduct, and tells what is new. */
export function judge(
  conduct: Conduct,
  standing: Standing | undefined,
  rules: ConductRules,
  ladder: readonly number[],
  now: number,
  touched: ReadonlySet<number>,
): { standing: Standing; observed: Observed } {
  const values = conduct.counts.map(([value, at], signal) => decayed(value, at, now, rules.signals[signal]!.halfLifeUs))
  const reaches = (signal: number): boolean => values[signal]! >= rules.signals[signal]!.threshold
  const { score: left, step: before } = standingNow(standing, ladder, rules.halfLifeUs, now)
  let labelled = 0
  // Of what tells little, several together would tell no more: a client whose server fails asks oftener, too.
  let slight = 0
  let signals = 0
  let offended = false
  const seen = new Set<number>()
  rules.signals.forEach(({ weight, threshold, needs, label }, signal) => {
    if (weight === 0 || !reaches(signal) || (needs !== 0 && !reaches(needs - 1))) return
    const points = Math.floor((weight * Math.min(values[signal]!, mostWeights * threshold)) / threshold)
    if (label === 0) slight = Math.max(slight, points)
    else labelled += points
    signals += 2 ** signal
    if (!touched.has(signal)) return
    offended = true
    if (label !== 0) seen.add(label - 1)
  })
  // A count that falls below its threshold ends nothing at once: the score falls as it would have without another request.
  const score = Math.max(left, Math.min(labelled + slight, mostScore))
  const reached = stepOn(ladder, before, score)
  const step = offended ? reached : Math.min(before, reached)
  const quiet = 6 * rules.halfLifeUs
  let began = 0
  let changed = 0
  for (let label = 0; label < conduct.labels.length; label += 1) {
    if (!seen.has(label)) continue
    const incident = conduct.labels[label]!
    if (incident[0] === 0 || now - incident[1] > quiet) {
      incident[0] = now
      incident[2] = 0
      began += 2 ** label
    }
    incident[1] = now
    if (step !== before || now - incident[2] >= rules.halfLifeUs) {
      incident[2] = now
      changed += 2 ** label
    }
  }
  return {
    standing: {
      score,
      steps: stepsOn(ladder, step, standing === undefined || isOver(standing, now) ? [] : standing.steps, score, left),
      at: now,
      offence: offended ? now : (standing?.offence ?? 0),
      signals,
    },
    observed: {
      score,
      before,
      step,
      signals,
      began,
      changed,
      counts:
        changed === 0 ? [] : values.flatMap((value, signal) => [Math.floor(value / 1000), conduct.counts[signal]![2]]),
      labels: changed === 0 ? [] : conduct.labels.flatMap(([first, last]) => [first, last]),
    },
  }
}

/** The steps on all ladders, the one that it was put on last at the end. */
function stepsOn(
  ladder: readonly number[],
  step: number,
  known: Standing['steps'],
  score: number,
  left: number,
): Standing['steps'] {
  if (step === 0 && known.length === 0) return known
  const name = nameOf(ladder)
  const others = known
    .filter(([one]) => one !== name)
    .map(([one, before, lowest]) => [one, before, Math.min(lowest, left)] as const)
  return (step === 0 ? others : [...others, [name, step, score] as const]).slice(-mostLadders)
}

/** Until when it is worth remembering, in µs: until each count has fallen below one, and a while for what was told and touched. */
export function rememberedUntil(conduct: Conduct, rules: ConductRules, now: number): number {
  let until = now + 2 * rules.halfLifeUs
  conduct.counts.forEach(([value, at], signal) => {
    let halves = 0
    for (let left = value; left >= one / 2; left = Math.floor(left / 2)) halves += 1
    if (halves > 0) until = Math.max(until, at + halves * rules.signals[signal]!.halfLifeUs)
  })
  for (const [, last] of conduct.labels) {
    if (last > 0) until = Math.max(until, last + 6 * rules.halfLifeUs)
  }
  return until
}
