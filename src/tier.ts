import type { Duration } from './duration.ts'
import type { Amount, Policy } from './policy.ts'

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

/** What clients of a tier get. */
export interface TierOptions {
  /** The limits, all of which must admit a request. `[]` means unlimited. */
  policies: readonly Policy[]
  /**
   * Extra quota for a client's first minutes: a policy named `first-minutes`, charged only where the tier's own
   * request-counting policies would refuse. Default: none.
   */
  initialBurst?: InitialBurst
  /** Where a client of this tier can get a better one; in the refusal's body. Default: the limiter's. */
  upgradeUrl?: string
  /** Where these limits are explained; in the refusal's body. Default: the limiter's. */
  docsUrl?: string
}
