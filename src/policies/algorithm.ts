import type { StandingQuery } from '../standing.ts'
import type { Room } from './schedule.ts'

/** The numbers an algorithm works with. Times are microseconds, amounts whole units. */
export interface Limit {
  readonly windowUs: number
  readonly quota: number
  /** What fits at once when nothing is used. `first-minutes` keeps its renewal here, in microseconds. */
  readonly capacity: number
  /** What is counted by name: the lease of a request in flight, or the targets it touches. None for plain amounts. */
  readonly members?: readonly string[]
  /** For windows that follow the calendar: where one begins and when refused clients are told to come back. */
  readonly calendar?: CalendarLimit | undefined
  /** Of a pool: which of its tiers asks. */
  readonly seating?: Seating | undefined
  /** Slots that nobody gives back: they come back when their leases run out. */
  readonly untilExpiry?: boolean | undefined
  /** Of a client's standing: what is asked of it. */
  readonly standing?: StandingQuery | undefined
}

/** A tier's place among those that share a pool. */
export interface Seating {
  /** How many tiers share the pool, and which of them this is, from 0. */
  readonly seats: number
  readonly seat: number
  /** The seats of those who go first. */
  readonly higher: readonly number[]
}

/** A calendar as arithmetic. */
export interface CalendarLimit {
  /** Added to the end of the period that a refused client is told, in µs, so that not everybody returns at once. */
  readonly spreadUs: number
  /** Where some period begins, in µs: periods are as long as the window. */
  readonly originUs: number
  /** The day that months begin with; 0 where periods are no months. */
  readonly monthDay: number
}

/**
 * The arithmetic of one kind of limit. Each has a twin of the same name in `lua/lib/`, which Redis runs: what one computes
 * the other does too, to the microsecond, and a differential test plays both the same histories.
 *
 * Whole numbers below 2⁵³ throughout, so that both languages are exact.
 */
export interface Algorithm<State> {
  /**
   * Makes a stored state fit for use at `now`. Without one, a fresh one.
   *
   * What time alone has done to it (what has expired) goes into a state that is new, for the store to keep if something is
   * then charged. What is to last even if the request is refused is changed in `stored` itself: a time that lies more than a
   * window ahead (the clock stepped forward and back) becomes now, and a quota that changed is settled.
   *
   * @param correcting the limit is that of an earlier charge: it is not the one in force, and settles nothing
   */
  open(stored: State | undefined, limit: Limit, now: number, correcting?: boolean): State
  /**
   * The first moment, from `now` on, at which `cost` fits if nothing else is charged; Infinity when there is none that can be
   * counted. `cost` is at most the capacity.
   */
  earliest(state: State, limit: Limit, now: number, cost: number): number
  /** What a cost comes to here: less where some of it is counted already. Default: the cost itself. */
  needs?(state: State, limit: Limit, now: number, cost: number): number
  /** Whole units that fit now. */
  remaining(state: State, limit: Limit, now: number): number
  /** Uses `cost`, whether it fits or not. Of members, tells which are new: a bit for each, the first the lowest. */
  charge(state: State, limit: Limit, now: number, cost: number): number
  /**
   * Gives back `cost` of what was charged at `chargedAt`; nothing once that has left its window.
   *
   * @param added what `charge` told
   */
  refund(state: State, limit: Limit, now: number, chargedAt: number, cost: number, added: number): void
  /** When nothing in the state counts any more. */
  expires(state: State, limit: Limit, now: number): number
  /** The room that is left, for the retry schedule. None where nobody knows when room comes back, or where it is told spread already. */
  room?(state: State, limit: Limit, now: number): Room
  /** When the state is worth nothing any more; from then on it is as if there were none. Default: when it expires. */
  kept?(state: State, limit: Limit, now: number): number
}

const none: readonly string[] = []

/** What is counted by name. */
export function membersOf({ members = none }: Limit): readonly string[] {
  return members
}
