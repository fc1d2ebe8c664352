import type { Request } from 'express'
import * as z from 'zod'
import type { Client } from '../client.ts'
import { slidingWindow } from '../policies/sliding-window.ts'
import { tokenBucket } from '../policies/token-bucket.ts'
import type { Policy } from '../policy.ts'
import { readOptions } from '../read-options.ts'
import type { PresetTier, TierOptions } from '../tier.ts'
import { createActivity, largestThreshold } from './behaviour.ts'

/** What a preset tier allows: requests a minute and an hour, and how many of them at once. */
interface Allowance {
  readonly perMinute: number
  readonly burst: number
  readonly perHour: number
}

/**
 * The first two have one rate: an unproven hint chooses a burst that fits how an agent reads an API, and earns no more.
 */
const allowances: Record<PresetTier, Allowance> = {
  anonymous: { perMinute: 30, burst: 10, perHour: 500 },
  'unverified-agent': { perMinute: 30, burst: 60, perHour: 500 },
  human: { perMinute: 100, burst: 30, perHour: 3000 },
  agent: { perMinute: 500, burst: 200, perHour: 20_000 },
  'verified-agent': { perMinute: 1000, burst: 500, perHour: 50_000 },
  premium: { perMinute: 2000, burst: 1000, perHour: 100_000 },
}

const firstMinutes = { quota: 500, window: '5m' } as const

export interface PresetTiersOptions {
  /** Caps what all `human` clients of one address use together, in requests a minute. Default: no cap, as offices share addresses. */
  perAddress?: number
}

const tiersSchema = z.strictObject({ perAddress: z.int().min(1).max(1e12).optional() })

/**
 * The six tiers that a limiter has when it is given none. To change one, `{ ...presetTiers(), human: { … } }`.
 *
 * Each has a token bucket `per-minute` and a sliding window `per-hour`; `agent` and `verified-agent` get 500 requests extra in
 * their first five minutes. Their `priority` rises from 0 (`anonymous`, `unverified-agent`) to 4 (`premium`), which is never cut below
 * three quarters where the limiter is `adaptive`.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function presetTiers(options: PresetTiersOptions = {}): Record<PresetTier, TierOptions> {
  const { perAddress } = readOptions(tiersSchema, options, 'presetTiers')
  const addressCap =
    perAddress === undefined
      ? []
      : [slidingWindow({ name: 'per-address', quota: perAddress, window: '1m', partition: 'address' })]
  return {
    anonymous: { policies: policiesOf('anonymous'), priority: 0 },
    'unverified-agent': { policies: policiesOf('unverified-agent'), priority: 0 },
    human: { policies: [...policiesOf('human'), ...addressCap], priority: 1 },
    agent: { policies: policiesOf('agent'), priority: 2, initialBurst: { ...firstMinutes } },
    'verified-agent': { policies: policiesOf('verified-agent'), priority: 3, initialBurst: { ...firstMinutes } },
    premium: { policies: policiesOf('premium'), priority: 4, adaptive: { floor: 0.75 } },
  }
}

function policiesOf(tier: PresetTier): Policy[] {
  const { perMinute, burst, perHour } = allowances[tier]
  return [
    tokenBucket({ name: 'per-minute', quota: perMinute, window: '1m', burst }),
    slidingWindow({ name: 'per-hour', quota: perHour, window: '1h' }),
  ]
}

/** The preset tier of a client, by what it proved. Nobody is `premium` but by a credential that says so. */
export function presetTierOf(client: Pick<Client, 'kind' | 'hint'> & { readonly provesKey: boolean }): PresetTier {
  switch (client.kind) {
    case 'anonymous':
      return client.hint === null ? 'anonymous' : 'unverified-agent'
    case 'agent':
      return client.provesKey ? 'verified-agent' : 'agent'
    case 'human':
    case 'unknown':
      return 'human'
  }
}

export interface PresetClassifierOptions {
  /**
   * A login session that sends more requests than this in a minute is treated as an `agent` while it does. From 1 to 10 000.
   * Default: off.
   */
  agentAbove?: number
  /** The time in ms, for tests. Default: a clock that is never set back. */
  now?: () => number
}

const classifierSchema = z.strictObject({
  agentAbove: z.int().min(1).max(largestThreshold).optional(),
  now: z.custom<() => number>((value) => typeof value === 'function', 'a function that tells ms').optional(),
})

/**
 * What a limiter without `classify` does: a credential's own tier, else the preset tier of what was proved; both are in
 * `client.tier` already. With `agentAbove` it also watches how sessions behave, each process what it sees itself.
 *
 * Only a session that would be `human` is moved, so that nobody loses a better tier, and only a proven one: an address that sends
 * much earns nothing by it.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function presetClassifier(options: PresetClassifierOptions = {}): (req: Request, client: Client) => PresetTier {
  const { agentAbove, now } = readOptions(classifierSchema, options, 'presetClassifier')
  if (agentAbove === undefined) return (_req, client) => client.tier as PresetTier

  const activity = createActivity({ threshold: agentAbove, now: now ?? (() => performance.now()) })
  return function classify(req, client) {
    if (client.tier !== 'human' || client.provedBy !== 'session') return client.tier as PresetTier
    return activity.exceeds(client.id, req) ? 'agent' : 'human'
  }
}
