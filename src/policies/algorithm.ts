/** The numbers an algorithm works with. Times are microseconds, amounts whole units. */
export interface Limit {
  readonly windowUs: number
  readonly quota: number
  /** What fits at once when nothing is used. `first-minutes` keeps its renewal here, in microseconds. */
  readonly capacity: number
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
  /** Whole units that fit now. */
  remaining(state: State, limit: Limit, now: number): number
  /** Uses `cost`, whether it fits or not. */
  charge(state: State, limit: Limit, now: number, cost: number): void
  /** Gives back `cost` of what was charged at `chargedAt`; nothing once that has left its window. */
  refund(state: State, limit: Limit, now: number, chargedAt: number, cost: number): void
  /** When nothing in the state counts any more. From then on it is as if there were none. */
  expires(state: State, limit: Limit, now: number): number
}
