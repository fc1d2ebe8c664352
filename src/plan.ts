import { RampmeterError } from './errors.ts'
import { defaultTier, readPolicies, type Pool, type Route, type Tier } from './options.ts'
import type { Seating } from './policies/algorithm.ts'
import { firstMinutes } from './policies/first-minutes.ts'
import { checkCapacity, sharePool } from './policies/pool.ts'
import type { Policy, PolicyKind } from './policy.ts'
import type { PoolRole } from './stores/store.ts'

/** A policy in the place it has for a tier and a route. */
export interface PlannedPolicy {
  readonly policy: Policy
  /** The route's own, not the tier's. */
  readonly ofRoute: boolean
  /** The first minutes' extra may stand in for it. */
  readonly liftable: boolean
  /** It guards a high-risk action. */
  readonly highRisk: boolean
  /** Its quota follows the load, where the limiter is adaptive. */
  readonly scales: boolean
  /** It belongs to a pool: which, and what it is there. */
  readonly pooled?: Pooled | undefined
}

/** A policy's place in a pool. One that several tiers share is three, one after the other: `own`, `common`, `demand`. */
interface Pooled {
  readonly pool: string
  readonly role: PoolRole
  readonly seating: Seating
  /** Of `common`: the quota of the whole pool, as it is told. */
  readonly whole: Pick<Policy, 'quota'>
}

/** All policies that a request of a tier may meet on a route. Which of them apply, the request tells. */
export type Plan = readonly PlannedPolicy[]

const requestCounting: ReadonlySet<PolicyKind> = new Set([
  'token-bucket',
  'sliding-window',
  'sliding-log',
  'fixed-window',
] as const)

/** A route with a plan for each tier, ready for requests. */
export interface PlannedRoute {
  readonly route: Route
  readonly plans: ReadonlyMap<string, Plan>
}

/** Makes plans, all that can be made before a request comes, so that a mistake in any of them is found when the app starts. */
export class Plans {
  readonly #tiers: Readonly<Record<string, Tier>>
  readonly #owners = new Set<number>()
  readonly #names = new Set<string>()
  /** What `decide` was given before, so that the same list is planned once. */
  readonly #extended = new WeakMap<readonly Policy[], Map<string, Plan>>()

  /** Routes within others, by the outer one. */
  readonly #within = new WeakMap<PlannedRoute, WeakMap<PlannedRoute, PlannedRoute>>()

  /** The policies of each tier's pool. */
  readonly #pooled: ReadonlyMap<string, readonly PlannedPolicy[]>

  constructor(tiers: Readonly<Record<string, Tier>>, pools: Readonly<Record<string, Pool>>) {
    this.#tiers = tiers
    this.#pooled = new Map(Object.keys(tiers).map((name) => [name, planPool(name, tiers, pools)]))
  }

  /** The state ids of all policies planned so far: some are stored apart, so whoever forgets a client has to name them. */
  get owners(): readonly number[] {
    return [...this.#owners]
  }

  /** @throws {RampmeterError} `RAMPMETER_UNKNOWN_TIER`, `RAMPMETER_DUPLICATE_POLICY`, `RAMPMETER_STATE_ID_CLASH` */
  ofRoute(route: Route, what: string): PlannedRoute {
    for (const name of Object.keys(route.policies)) {
      if (name !== defaultTier && !Object.hasOwn(this.#tiers, name)) {
        throw new RampmeterError(
          'RAMPMETER_UNKNOWN_TIER',
          `${what} has policies for the tier ${JSON.stringify(name)}; there are ${listOf(this.#tiers)}`,
        )
      }
    }
    const plans = Object.entries(this.#tiers).map(([name, tier]): [string, Plan] => {
      const key = [name, defaultTier].find((one) => Object.hasOwn(route.policies, one))
      const own = key === undefined ? undefined : route.policies[key]!
      // A tier that the route has nothing for keeps its own limits: to replace them by none would lift them.
      return [
        name,
        this.#note(
          planOf(
            tier,
            own ?? [],
            this.#pooled.get(name)!,
            { ...route, replace: route.replace && own !== undefined },
            `${what}, tier "${name}"`,
          ),
        ),
      ]
    })
    return { route, plans: new Map(plans) }
  }

  /**
   * A route that is met within another, as a `limiter.route()` behind an entry of `routes`: what the outer one says and the inner one
   * does not holds there too, but for its cost; and so do the policies that it has of its own, unless the inner one replaces them or has
   * one of that name. Else their charge would be given back with each request, and a limit of logins, say, would be none as soon as the
   * handler has a cost of its own.
   */
  within(outer: PlannedRoute, inner: PlannedRoute): PlannedRoute {
    let known = this.#within.get(outer)
    if (known === undefined) this.#within.set(outer, (known = new WeakMap()))
    let both = known.get(inner)
    if (both === undefined) known.set(inner, (both = withOuter(outer, inner)))
    return both
  }

  /** @throws {RampmeterError} `RAMPMETER_UNKNOWN_TIER`: a client in no tier that is known is never unlimited */
  forTier({ plans }: PlannedRoute, tier: string): Plan {
    const plan = plans.get(tier)
    if (plan !== undefined) return plan
    // What `decide` and `peek` take a client for that was given none.
    const seen =
      tier === defaultTier
        ? 'a client was given no `tier`, or "default", and this limiter has tiers; name one of them'
        : `a client was put in the tier ${JSON.stringify(tier)}`
    throw new RampmeterError('RAMPMETER_UNKNOWN_TIER', `${seen}; there are ${listOf(this.#tiers)}`)
  }

  /**
   * A tier's plan with further policies on top.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, and what {@link ofRoute} throws
   */
  extended(base: PlannedRoute, tier: string, policies: readonly Policy[]): Plan {
    this.forTier(base, tier)
    let plans = this.#extended.get(policies)
    if (plans === undefined) {
      readPolicies(policies, 'decide')
      this.#extended.set(policies, (plans = new Map()))
    }
    let plan = plans.get(tier)
    if (plan === undefined) {
      plan = this.#note(planOf(this.#tiers[tier]!, policies, this.#pooled.get(tier)!, base.route, 'decide'))
      plans.set(tier, plan)
    }
    return plan
  }

  /**
   * Sees to it that every name is that of some policy of this limiter: a misspelt one would be a limit left out in silence.
   *
   * @throws {RampmeterError} `RAMPMETER_UNKNOWN_POLICY`
   */
  checkNames(names: readonly string[], what: string): void {
    const unknown = names.find((name) => !this.#names.has(name))
    if (unknown === undefined) return
    throw new RampmeterError(
      'RAMPMETER_UNKNOWN_POLICY',
      `${what} names the policy ${JSON.stringify(unknown)}, which this limiter does not have; there are ${[...this.#names].map((name) => JSON.stringify(name)).join(', ') || 'none'}`,
    )
  }

  #note(plan: Plan): Plan {
    for (const { policy } of plan) {
      this.#owners.add(policy.stateId)
      this.#names.add(policy.name)
    }
    return plan
  }
}

function withOuter(outer: PlannedRoute, inner: PlannedRoute): PlannedRoute {
  const within = inner.route
  const route: Route = {
    ...within,
    critical: within.critical || outer.route.critical,
    highRisk: within.highRisk || outer.route.highRisk,
    costHeader: within.costHeader ?? outer.route.costHeader,
    ladder: within.ladder ?? outer.route.ladder,
  }
  let addsAny = (Object.keys(route) as (keyof Route)[]).some((option) => route[option] !== within[option])
  const { replace, policies } = within
  const plans = [...inner.plans].map(([tier, plan]): [string, Plan] => {
    if (replace && (Object.hasOwn(policies, tier) || Object.hasOwn(policies, defaultTier))) return [tier, plan]
    const names = new Set(plan.map(({ policy }) => policy.name))
    const kept = outer.plans.get(tier)!.filter(({ ofRoute, policy }) => ofRoute && !names.has(policy.name))
    if (kept.length === 0) return [tier, plan]
    addsAny = true
    const end = plan.findIndex(({ pooled, policy }) => pooled !== undefined || policy.kind === 'first-minutes')
    return [tier, end === -1 ? [...plan, ...kept] : [...plan.slice(0, end), ...kept, ...plan.slice(end)]]
  })
  return addsAny ? { route, plans: new Map(plans) } : inner
}

/** What a tier draws on in its pool: of a pool that it has to itself, all; of one that it shares, its part and the common one. */
function planPool(
  name: string,
  tiers: Readonly<Record<string, Tier>>,
  pools: Readonly<Record<string, Pool>>,
): PlannedPolicy[] {
  const { pool, priority } = tiers[name]!
  if (pool === undefined) return []
  const { policies, guarantee } = pools[pool]!
  const members = Object.keys(tiers).filter((other) => tiers[other]!.pool === pool)
  const seat = members.indexOf(name)
  const higher = members.flatMap((other, index) => (tiers[other]!.priority > priority ? [index] : []))
  const shared = { seats: members.length, seat, higher }
  return policies.flatMap((policy) => {
    // Slots come back when they come back: what others ask for in a window says nothing about them.
    const seating = policy.kind === 'concurrency' ? { ...shared, higher: [] } : shared
    const capacity = checkCapacity(policy, `the pool "${pool}"`)
    const planned = (part: Policy, role: PoolRole): PlannedPolicy => ({
      policy: part,
      ofRoute: false,
      highRisk: false,
      liftable: false,
      // What tiers share stays as it is: each of them would cut it differently.
      scales: role === 'whole' && isScalable(part),
      pooled: { pool, role, seating, whole: policy },
    })
    if (members.length === 1) return [planned(policy, 'whole')]
    if (policy.prefetch !== undefined) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `the pool "${pool}": several tiers share it, so that each request has to ask who goes first; leave \`prefetch\` out of ${JSON.stringify(policy.name)}`,
      )
    }
    const { guaranteed, common, demand } = sharePool(capacity, guarantee, seating, `the pool "${pool}"`)
    return [planned(guaranteed, 'own'), planned(common, 'common'), planned(demand, 'demand')]
  })
}

/**
 * Makes one plan: the tier's policies unless they are replaced, then `own`, then its pool, then the first minutes where they lift
 * anything.
 */
function planOf(
  tier: Tier,
  own: readonly Policy[],
  pooled: readonly PlannedPolicy[],
  { replace, highRisk }: Pick<Route, 'replace' | 'highRisk'>,
  what: string,
): Plan {
  const ofTier = replace ? [] : tier.policies
  for (const policy of [...ofTier, ...own]) checkPrefetch(policy, what)
  // Replaced by nothing, a route has no limits at all: a health check does not wait for a pool.
  const ofPool = replace && own.length === 0 ? [] : pooled
  const planned: PlannedPolicy[] = [
    ...ofTier.map((policy) => ({
      policy,
      ofRoute: false,
      highRisk: false,
      liftable: tier.initialBurst !== undefined && isLiftable(policy),
      scales: isScalable(policy),
    })),
    ...own.map((policy) => ({
      policy,
      ofRoute: true,
      highRisk,
      liftable: false,
      scales: !highRisk && isScalable(policy),
    })),
    ...ofPool,
  ]
  if (tier.initialBurst !== undefined && planned.some(({ liftable }) => liftable)) {
    const policy = firstMinutes(tier.initialBurst)
    planned.push({ policy, ofRoute: false, highRisk: false, liftable: false, scales: isScalable(policy) })
  }
  checkNames(planned, what)
  return planned
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` */
function checkPrefetch({ prefetch, partition, name }: Policy, what: string): void {
  if (prefetch === undefined || (partition !== 'client' && partition !== 'address')) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `${what}: \`prefetch\` is for counters that many clients share, and ${JSON.stringify(name)} is each ${partition}'s own; write partition: 'global', 'tier' or a function, or leave \`prefetch\` out`,
  )
}

/** A longer window's quota, cut for a minute, would lock out for hours whoever has used half of it. */
const longestScaledMs = 3_600_000

function isScalable({ kind, windowMs }: Policy): boolean {
  return windowMs <= longestScaledMs && (requestCounting.has(kind) || kind === 'first-minutes')
}

function isLiftable(policy: Policy): boolean {
  const { unit, mode, charge, kind } = policy
  return unit === 'requests' && mode === 'enforce' && charge === 'before' && requestCounting.has(kind)
}

function checkNames(plan: Plan, what: string): void {
  const names = new Set<string>()
  const stateIds = new Map<number, string>()
  for (const { policy, pooled } of plan) {
    if (names.has(policy.name) && (pooled === undefined || pooled.role === 'own' || pooled.role === 'whole')) {
      throw new RampmeterError(
        'RAMPMETER_DUPLICATE_POLICY',
        `${what} has two policies named ${JSON.stringify(policy.name)}; give each a \`name\` of its own${policy.name === policy.kind ? ' (without one, a policy is named after its kind)' : ''}`,
      )
    }
    names.add(policy.name)
    const other = stateIds.get(policy.stateId)
    if (other !== undefined) {
      throw new RampmeterError(
        'RAMPMETER_STATE_ID_CLASH',
        `${what} has the policies ${JSON.stringify(other)} and ${JSON.stringify(policy.name)}, whose counters would have the same 32-bit name; rename one of them`,
      )
    }
    stateIds.set(policy.stateId, policy.name)
  }
}

/** The names of the tiers, as a message lists them. */
function listOf(tiers: Readonly<Record<string, unknown>>): string {
  return Object.keys(tiers)
    .map((name) => `"${name}"`)
    .join(', ')
}
