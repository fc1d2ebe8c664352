import type { Policy } from '../policy.ts'

/** What of a tier says how much its clients get. */
export interface TierLimits {
  readonly policies?: readonly Policy[]
  readonly pool?: string | undefined
  readonly priority?: number
}

/**
 * Whether every other tier is known to give no more than this one, so that nothing higher can be had. Where tiers cannot be
 * compared (policies of other names or windows, quotas of each client's own, another pool) it is false; and of a tier that stands alone, of
 * which the app alone knows what lies beyond it.
 */
export function isBestTier(name: string, tiers: Readonly<Record<string, TierLimits>>): boolean {
  const tier = tiers[name]!
  const others = Object.keys(tiers).filter((other) => other !== name)
  return others.length > 0 && others.every((other) => givesNoMore(tiers[other]!, tier))
}

/** Each limit of the one has its match in the other, which is as low or lower. */
function givesNoMore(other: TierLimits, { policies, pool, priority = 0 }: TierLimits): boolean {
  if (policies === undefined || other.policies === undefined) return false
  if ((other.priority ?? 0) > priority || (pool !== undefined && other.pool !== pool)) return false
  const byId = new Map(other.policies.map((policy) => [policy.stateId, policy]))
  return policies.every((policy) => {
    const match = byId.get(policy.stateId)
    return match !== undefined && isAtMost(match.quota, policy.quota) && isAtMost(burstOf(match), burstOf(policy))
  })
}

function burstOf({ burst, quota }: Policy): Policy['quota'] {
  return burst ?? quota
}

function isAtMost(amount: Policy['quota'], other: Policy['quota']): boolean {
  return amount === other || (typeof amount === 'number' && typeof other === 'number' && amount <= other)
}
