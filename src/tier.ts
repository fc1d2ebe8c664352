import type { Duration } from './duration.ts'
import type { Amount, Policy } from './policy.ts'
import type { Ladder } from './standing.ts'

/** The six tiers that `presetTiers()` configures and that the preset classifier chooses from. */
export type PresetTier = 'anonymous' | 'unverified-agent' | 'human' | 'agent' | 'verified-agent' | 'premium'

/** Extra quota for a client's first minutes. */
export interface InitialBurst {
  /** How much extra, once. */
  quota: Amount
  /** For how long from the first admitted request. */
  window: Duration
  /** How long after a grant the client may be granted it again, at least the window. Default 24 hours. */
  renewAfter?: Duration
}

/** Capacity that all clients of the tiers that name it share. */
export interface PoolOptions {
  /** The limits of all of them together; quotas are numbers. */
  policies: readonly Policy[]
  /** The share of it that is kept for each tier, whoever floods the rest: from 0 to 0.5. Default 0.1. */
  guarantee?: number
}

/**
 * How a tier's quotas follow the load. With the multiplier `m` that all processes share, they are multiplied by
 * `clamp(1 + (m - 1) × weight, floor, ceiling)`.
 */
export interface TierAdaptivity {
  /** The least that they are multiplied by: from 0 to 1. Default 0. */
  floor?: number
  /** The most that they are multiplied by: from 1 to 10. Default 10. */
  ceiling?: number
  /** How much the load moves them: 0 not at all, 1 (default) as it goes, at most 10. */
  weight?: number
}

/**
 * What clients of a tier get.
 *
 * @typeParam Pool the names of the limiter's `pools`
 */
export interface TierOptions<Pool extends string = never> {
  /** The limits, all of which must admit a request. `[]` means unlimited. */
  policies: readonly Policy[]
  /**
   * Extra quota for a client's first minutes: a policy named `first-minutes`, charged only where the tier's own
   * request-counting policies would refuse. Default: none.
   */
  initialBurst?: InitialBurst
  /**
   * The capacity that all clients of this tier share, with those of other tiers that name it. A tier that has a pool to itself
   * never waits for the load of another. Default: none.
   */
  pool?: Pool
  /** Who goes first when a shared pool runs short: the higher. Default 0; the presets have 0 to 4. */
  priority?: number
  /** How the tier's quotas follow the load, where the limiter is `adaptive`. Default: as it goes. */
  adaptive?: TierAdaptivity
  /** Clients of this tier have to prove that they hold a key. Whoever did not is answered 401. Default false. */
  requirePoP?: boolean
  /** What is done at which score with clients of this tier. Default: what `abuse` says. */
  ladder?: Ladder
  /** Where a client of this tier can get a better one; in the refusal's body. Default: the limiter's, unless no tier gives more. */
  upgradeUrl?: string
  /** Where these limits are explained; in the refusal's body. Default: the limiter's. */
  docsUrl?: string
}
