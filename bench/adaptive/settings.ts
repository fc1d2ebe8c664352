/** A tier of the app: how many clients it has, what each may do, and what each asks for while the app is overloaded. */
export interface BenchTier {
  readonly name: 'low' | 'middle' | 'high'
  readonly clients: number
  /** Requests a second, as a bucket of ten seconds that holds one of them. */
  readonly perSecond: number
  readonly priority: number
  readonly floor: number
}

/** All quotas together are 2.2 times what the app can do: as everywhere, since not everybody comes at once. */
export const tiers: readonly BenchTier[] = [
  { name: 'low', clients: 30, perSecond: 3, priority: 0, floor: 0 },
  { name: 'middle', clients: 20, perSecond: 4, priority: 1, floor: 0 },
  { name: 'high', clients: 10, perSecond: 5, priority: 2, floor: 0.75 },
]

/** What each answer needs for so long, and how many of them the app has: connections to something that is slow. */
export const workMs = 40
export const connections = 4
export const capacity = (1000 * connections) / workMs

/** How often the app looks at its health. Ten seconds by default; here a run is a minute. */
export const everyMs = 500

/** Slower than this an answer is worth nothing to its client, who has gone after the second. */
export const worthMs = 500
export const patienceMs = 2000

/** No more than this are on their way at once: what comes above is dropped, and told. */
export const mostOutstanding = 2000

/** So many come at once in a burst: each client of the lowest tier once. */
export const burst = 30
export const burstsAt = [0.25, 0.65] as const

/** A stretch of time in which each client asks for such a part of its quota. */
export interface Phase {
  readonly name: 'calm' | 'burst' | 'overload' | 'after' | 'one alone'
  readonly ms: number
  readonly part: number
}

export const full: readonly Phase[] = [
  { name: 'calm', ms: 6000, part: 0.25 },
  // Nobody but two bursts of the lowest tier, each within what the app can answer in time.
  { name: 'burst', ms: 4000, part: 0 },
  { name: 'overload', ms: 15_000, part: 1 },
  { name: 'after', ms: 14_000, part: 0.2 },
  // Of the middle tier, which asks for twice its quota.
  { name: 'one alone', ms: 15_000, part: 2 },
]

export const quick: readonly Phase[] = full.map((phase) => ({ ...phase, ms: phase.ms / 10 }))

export const variants = ['static', 'levels', 'gradient', 'both'] as const
export type Variant = (typeof variants)[number]
