import { createHash, randomBytes } from 'node:crypto'
import type { Request } from 'express'
import type { Client } from './client.ts'
import { RampmeterError } from './errors.ts'
import { isThenable } from './identify/thenable.ts'
import type { DecideRequest } from './limiter.ts'
import type { Route } from './options.ts'
import type { Plan, PlannedPolicy } from './plan.ts'
import { fnv1a, isMeasured, largestAmount, mostMembers } from './policies/build.ts'
import { calendarLimit } from './policies/calendar.ts'
import type { Amount, Policy } from './policy.ts'
import type { Charge } from './stores/store.ts'

/** A policy that applies to a request, with what it claims. */
export interface PricedPolicy extends PlannedPolicy {
  readonly charge: Charge
}

/** What a request tells about a policy: whether it applies, whose counter it uses, what it costs there, and what it touches. */
export interface Circumstances {
  applies(policy: Policy): boolean
  partitionOf(policy: Policy): string
  costOf(policy: Policy): number | Promise<number>
  /** Says whose cost that was, where it is none. */
  nameOfCost(policy: Policy): string
  /** Names the session that a slot is for. */
  sessionOf(policy: Policy): string
  targetsOf(policy: Policy): readonly string[]
}

/**
 * Prices a request: each policy of the plan that applies becomes a charge.
 *
 * @param multiplier what quotas that follow the load are multiplied by
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_COST`, `RAMPMETER_INVALID_QUOTA`, `RAMPMETER_INVALID_PARTITION`, `RAMPMETER_INVALID_TARGET`, `RAMPMETER_POLICY_FUNCTION_FAILED`, `RAMPMETER_MISSING_PARTITION`
 */
export function price(
  plan: Plan,
  client: Client,
  circumstances: Circumstances,
  multiplier = 1,
): PricedPolicy[] | Promise<PricedPolicy[]> {
  return priceFrom(0, [], plan, client, circumstances, multiplier)
}

/** Goes on with a plan. A cost that has to be waited for is waited for before the next policy is asked. */
function priceFrom(
  from: number,
  priced: PricedPolicy[],
  plan: Plan,
  client: Client,
  circumstances: Circumstances,
  multiplier: number,
): PricedPolicy[] | Promise<PricedPolicy[]> {
  for (let index = from; index < plan.length; index += 1) {
    const planned = plan[index]!
    const { policy, pooled } = planned
    if (!circumstances.applies(policy)) continue
    // Before the cost: a promise that nobody waits for would end the process if it rejects.
    const partition = pooled === undefined ? circumstances.partitionOf(policy) : `${reserved}pool:${pooled.pool}`
    const members = membersOf(policy, circumstances)
    const cost = members === none ? amountCharged(policy, circumstances) : members.length
    if (isThenable(cost)) {
      return cost.then((known) => {
        priced.push(pricedAt(planned, client, circumstances, partition, known, members, multiplier))
        return priceFrom(index + 1, priced, plan, client, circumstances, multiplier)
      })
    }
    priced.push(pricedAt(planned, client, circumstances, partition, cost, members, multiplier))
  }
  return priced
}

function pricedAt(
  planned: PlannedPolicy,
  client: Client,
  circumstances: Circumstances,
  partition: string,
  cost: unknown,
  members: readonly string[],
  multiplier: number,
): PricedPolicy {
  const { policy } = planned
  const known = isWhole(cost) ? cost : checkCost(cost, () => circumstances.nameOfCost(policy))
  const all = members === none && policy.kind === 'concurrency' ? newLeases(known, policy) : members
  return {
    // One by one: a spread here costs a third of a decision in memory.
    policy,
    ofRoute: planned.ofRoute,
    liftable: planned.liftable,
    highRisk: planned.highRisk,
    scales: planned.scales,
    pooled: planned.pooled,
    charge: chargeOf(planned, client, partition, known, all, planned.scales ? multiplier : 1),
  }
}

function chargeOf(
  { policy, liftable, highRisk, pooled }: PlannedPolicy,
  client: Client,
  partition: string,
  cost: number,
  members: readonly string[],
  multiplier: number,
): Charge {
  const whole = amountOf(policy, 'quota', policy.quota, client)
  const wholeBurst = policy.burst === undefined ? whole : amountOf(policy, 'burst', policy.burst, client)
  const { kind, calendar } = policy
  // The extra of first minutes may shrink, and is never more than was promised.
  const scale = kind === 'first-minutes' ? Math.min(multiplier, 1) : multiplier
  const quota = scaled(whole, scale)
  const capacity = capacityOf(policy, quota, scaled(wholeBurst, scale))
  const ahead = policy.prefetch === undefined ? nothingAhead : aheadOf(policy, policy.prefetch, quota, capacity, pooled)
  return {
    kind,
    stateId: policy.stateId,
    partition,
    windowUs: policy.windowMs * 1000 + ahead.windowUs,
    quota,
    capacity: capacity - ahead.capacity,
    base: scale < 1 ? { quota: whole, capacity: capacityOf(policy, whole, wholeBurst) - ahead.capacity } : undefined,
    cost,
    members,
    calendar: calendar === undefined ? undefined : calendarLimit(calendar, policy.windowMs, placeOf(client.id)),
    untilExpiry: policy.per === undefined ? undefined : true,
    after: kind === 'failures' ? !(policy.reserve ?? highRisk) : policy.charge === 'after',
    role: pooled?.role,
    seating: pooled?.seating,
    holder: partition === client.id ? undefined : holderOf(client.id),
    prefetch: ahead.prefetch,
    liftable,
    shadow: policy.mode === 'shadow',
  }
}

/** What changes about a charge whose units may be spent later than they are charged. */
interface Ahead {
  readonly prefetch: Charge['prefetch']
  /** By how much its window is longer. */
  readonly windowUs: number
  /** By how much its bucket is smaller. */
  readonly capacity: number
}

const nothingAhead: Ahead = { prefetch: undefined, windowUs: 0, capacity: 0 }

/**
 * Units may be spent up to `ttl` after they were charged. So that no window ever sees more than its quota, a sliding one counts
 * them for so much longer, and a bucket holds what refills in that time less: what it gives in any span is then at most its burst
 * and what refills in the span. A fixed window's are not spent after it has ended.
 */
function aheadOf(
  { kind, windowMs }: Policy,
  { share, ttlMs }: NonNullable<Policy['prefetch']>,
  quota: number,
  capacity: number,
  pooled: PlannedPolicy['pooled'],
): Ahead {
  const less = kind === 'token-bucket' ? Math.ceil((quota * ttlMs) / windowMs) : 0
  const units = Math.min(Math.floor(quota * share), Math.floor((capacity - less) / 4))
  if (units < 2 || (pooled !== undefined && pooled.role !== 'whole')) return nothingAhead
  const windowUs = kind === 'sliding-window' || kind === 'sliding-log' ? ttlMs * 1000 : 0
  return { prefetch: { units, ttlMs }, windowUs, capacity: less }
}

/** What never refills holds nothing. Of first minutes, it is when they are granted anew. */
function capacityOf({ renewAfterMs }: Policy, quota: number, burst: number): number {
  return renewAfterMs === undefined ? (quota === 0 ? 0 : burst) : renewAfterMs * 1000
}

/** In whole units, and never nothing of something: that would be no limit to wait for. */
function scaled(amount: number, multiplier: number): number {
  if (multiplier === 1) return amount
  // A product such as 100 × 0.29 falls short of the whole number that it is.
  return Math.min(largestAmount, Math.max(Math.min(amount, 1), Math.floor(amount * multiplier + 1e-9)))
}

/** What a policy charges: a failure and a slot are one, whatever the route costs, and so is what is measured before it is. */
function amountCharged(policy: Policy, circumstances: Circumstances): number | Promise<number> {
  const isOne = policy.cost === undefined && (policy.kind === 'failures' || policy.holdsSlots)
  return isOne || isMeasured(policy) ? 1 : circumstances.costOf(policy)
}

/** The members of a plain amount. */
const none: readonly string[] = []

/** Leases are told apart by who holds them and when they came. */
const leaseOwner = randomBytes(9).toString('base64url')
let leases = 0

function membersOf(policy: Policy, circumstances: Circumstances): readonly string[] {
  if (policy.kind === 'concurrency') {
    if (policy.per !== undefined) return [hashMember(circumstances.sessionOf(policy))]
    // Where it says itself how many it takes, they are made when that is known.
    return policy.cost === undefined ? [newLease()] : none
  }
  if (policy.kind !== 'unique-targets') return none
  return [...new Set(circumstances.targetsOf(policy).map(hashMember))]
}

function newLease(): string {
  leases += 1
  return `${leaseOwner}.${leases.toString(36)}`
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_COST` */
function newLeases(count: number, policy: Policy): readonly string[] {
  if (count <= mostMembers) return Array.from({ length: count }, newLease)
  throw new RampmeterError(
    'RAMPMETER_INVALID_COST',
    `the cost of policy ${JSON.stringify(policy.name)} came out as ${count}; a request takes at most ${mostMembers} slots`,
  )
}

/** 96 bits: no two targets of a client are ever taken for one, and none can be read in the store. */
function hashMember(text: string): string {
  return createHash('sha256').update(text).digest().subarray(0, 12).toString('base64url')
}

/** A client's name in the retry schedules and reservations that it shares with others. */
export function holderOf(client: string): number {
  return fnv1a(client) || 1
}

/** A client's place among those whom a calendar quota refused, from 0 to 1: always the same. */
function placeOf(client: string): number {
  // Ids that differ in their last letter only would lie side by side.
  let mixed = fnv1a(client)
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32
}

function amountOf(policy: Policy, what: 'quota' | 'burst', amount: Amount, client: Client): number {
  if (typeof amount === 'number') return amount
  const value: unknown = call(policy, what, () => amount(client))
  if (!isWhole(value)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_QUOTA',
      `the ${what} of policy ${JSON.stringify(policy.name)} came out as ${show(value)}; return a whole number from 0 to 10^12`,
    )
  }
  return value
}

/**
 * Lets a cost through that can be charged.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_COST`
 */
export function checkCost(cost: unknown, what: () => string): number {
  if (isWhole(cost)) return cost
  throw new RampmeterError(
    'RAMPMETER_INVALID_COST',
    `${what()} came out as ${show(cost)}; it must be a whole number from 0 to 10^12 (round it up, and charge in smaller units where fractions matter)`,
  )
}

function isWhole(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= largestAmount
}

/** Shows a number, and anything else by its type alone: it may be a credential. */
export function show(value: unknown): string {
  if (typeof value === 'number' || value == null) return String(value)
  return isThenable(value) ? 'a promise' : `a value of type ${typeof value}`
}

/** Calls a function of the app's that answers at once; what it throws is told as ours, with whose function it was. */
function call<T>(policy: Policy, what: string, run: () => T): T {
  let answer: T
  try {
    answer = run()
  } catch (cause) {
    throw new RampmeterError(
      'RAMPMETER_POLICY_FUNCTION_FAILED',
      `the function \`${what}\` of policy ${JSON.stringify(policy.name)} threw; the request was refused and nothing was charged`,
      { cause },
    )
  }
  if (!isThenable(answer)) return answer
  // Nobody waits for it, and what is rejected unseen ends the process.
  answer.then(undefined, () => {})
  throw new RampmeterError(
    'RAMPMETER_POLICY_FUNCTION_FAILED',
    `the function \`${what}\` of policy ${JSON.stringify(policy.name)} returned a promise; it has to answer at once: learn what it needs earlier, as claims of the client`,
  )
}

async function callCost(what: string, run: () => number | Promise<number>): Promise<number> {
  try {
    return await run()
  } catch (cause) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_COST',
      `${what} threw; the request was refused and nothing was charged`,
      { cause },
    )
  }
}

/** Partitions that are not a client or an address begin with this, which no client id does. */
const reserved = '@'

/** Whether a text can name a client without being taken for another kind of partition. */
export function isClientId(id: unknown): id is string {
  return typeof id === 'string' && id.length > 0 && id.length <= 1024 && !id.startsWith(reserved)
}

function named(policy: Policy, name: unknown): string {
  if (typeof name !== 'string' || name.length === 0 || name.length > 4096) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_PARTITION',
      `the partition of policy ${JSON.stringify(policy.name)} came out as ${typeof name === 'string' ? `a text of ${name.length} characters` : typeof name}; return a text of 1 to 4096 characters`,
    )
  }
  return `${reserved}by:${name}`
}

function readTargets(policy: Policy, targets: unknown): readonly string[] {
  const list: unknown[] = targets === undefined ? [] : [targets].flat()
  const wrong = list.findIndex((target) => typeof target !== 'string' || target.length > longestTarget)
  if (list.length <= mostMembers && wrong === -1) return list as string[]
  const kindOf = (target: unknown): string =>
    typeof target === 'string' ? `a text of ${target.length} characters` : typeof target
  const seen = Array.isArray(targets)
    ? `a list of ${targets.length}${wrong === -1 ? '' : `, in which [${wrong}] is ${kindOf(list[wrong])}`}`
    : kindOf(targets)
  throw new RampmeterError(
    'RAMPMETER_INVALID_TARGET',
    `the target of policy ${JSON.stringify(policy.name)} came out as ${seen}; return a text, a list of at most ${mostMembers} texts of at most ${longestTarget} characters, or undefined`,
  )
}

function readSession(policy: Policy, session: unknown): string {
  if (typeof session === 'string' && session !== '' && session.length <= longestTarget) return session
  throw new RampmeterError(
    'RAMPMETER_INVALID_TARGET',
    `the session that a slot of policy ${JSON.stringify(policy.name)} is for came out as ${typeof session === 'string' ? `a text of ${session.length} characters` : typeof session}; return a text of 1 to ${longestTarget} characters that names it`,
  )
}

/** In characters. */
const longestTarget = 8192

/** A policy's own cost, or that of the route. */
function nameOfCost({ name, cost }: Policy, route: Route): string {
  if (cost !== undefined) return `the cost of policy ${JSON.stringify(name)}`
  return `the cost of ${route.called}`
}

/** A route, and the parameters of its path, for its `target`. */
export interface TargetedRoute {
  readonly route: Route
  readonly params: Record<string, string | string[] | undefined>
}

/** What an HTTP request tells. */
export class CircumstancesOfRequest implements Circumstances {
  readonly #req: Request
  readonly #client: Client
  readonly #route: Route
  readonly #params: Record<string, string | string[] | undefined>
  readonly #touching: TargetedRoute
  #routeCost: number | Promise<number> | undefined

  /** @param touching says what the request touches: the route itself, or one further out where it does not say */
  constructor(
    req: Request,
    client: Client,
    route: Route,
    params: Record<string, string | string[] | undefined>,
    touching: TargetedRoute = { route, params },
  ) {
    this.#req = req
    this.#client = client
    this.#route = route
    this.#params = params
    this.#touching = touching
  }

  applies(policy: Policy): boolean {
    const { when } = policy
    return when === undefined || call(policy, 'when', () => when(this.#req, this.#client))
  }

  partitionOf(policy: Policy): string {
    const { partition } = policy
    const client = this.#client
    if (partition === 'client') return client.id
    if (partition === 'address') return client.address ?? client.id
    if (partition === 'tier') return `${reserved}tier:${client.tier}`
    if (partition === 'global') return `${reserved}global`
    return named(
      policy,
      call(policy, 'partition', () => partition(this.#req, client)),
    )
  }

  costOf(policy: Policy): number | Promise<number> {
    const { cost } = policy
    if (typeof cost === 'number') return cost
    if (cost !== undefined) return callCost(this.nameOfCost(policy), () => cost(this.#req, this.#client))
    const ofRoute = this.#route.cost
    this.#routeCost ??=
      typeof ofRoute === 'number'
        ? ofRoute
        : callCost(this.nameOfCost(policy), () => ofRoute(this.#req, this.#client, this.#params))
    return this.#routeCost
  }

  nameOfCost(policy: Policy): string {
    return nameOfCost(policy, this.#route)
  }

  sessionOf(policy: Policy): string {
    return readSession(
      policy,
      call(policy, 'per', () => policy.per!(this.#req, this.#client)),
    )
  }

  targetsOf(policy: Policy): readonly string[] {
    const own = policy.target
    if (own !== undefined)
      return readTargets(
        policy,
        call(policy, 'target', () => own(this.#req, this.#client)),
      )
    const { route, params } = this.#touching
    const ofRoute = route.target
    if (ofRoute !== undefined)
      return readTargets(
        policy,
        call(policy, 'target', () => ofRoute(this.#req, this.#client, params)),
      )
    return [`${this.#req.baseUrl}${this.#req.path}`.slice(0, longestTarget)]
  }
}

/** What is told about a decision outside HTTP, where no function of a request can be called. */
export class CircumstancesOfDecide implements Circumstances {
  readonly #client: Client
  readonly #request: DecideRequest

  constructor(client: Client, request: DecideRequest) {
    this.#client = client
    this.#request = request
  }

  applies(policy: Policy): boolean {
    return policy.when === undefined || this.#isGiven(policy)
  }

  partitionOf(policy: Policy): string {
    const { partition } = policy
    const client = this.#client
    // Of sessions, what is given names the session, unless a function would tell whose they are.
    const isSession = policy.per !== undefined && typeof partition === 'string'
    const given = !isSession && this.#isGiven(policy) ? this.#request.partitions![policy.name] : undefined
    if (partition === 'address') {
      const address = given ?? client.address
      if (typeof address === 'string' && address !== '') return address.startsWith('ip:') ? address : `ip:${address}`
    } else if (given !== undefined) {
      return named(policy, given)
    } else if (partition === 'client') {
      return client.id
    } else if (partition === 'tier') {
      return `${reserved}tier:${client.tier}`
    } else if (partition === 'global') {
      return `${reserved}global`
    }
    throw new RampmeterError(
      'RAMPMETER_MISSING_PARTITION',
      `policy ${JSON.stringify(policy.name)} counts by ${partition === 'address' ? 'address' : 'what a function of the request returns'}, and there is no request; write partitions: { ${JSON.stringify(policy.name)}: '…' }`,
    )
  }

  costOf({ cost }: Policy): number {
    const { cost: asked = 1 } = this.#request
    return typeof cost === 'number' ? cost : asked
  }

  nameOfCost(): string {
    return '`cost`'
  }

  sessionOf(policy: Policy): string {
    // Nothing given, it is the client's one session.
    const isGiven = typeof policy.partition === 'string' && this.#isGiven(policy)
    return readSession(policy, isGiven ? this.#request.partitions![policy.name] : this.#client.id)
  }

  targetsOf(policy: Policy): readonly string[] {
    return readTargets(policy, this.#request.target)
  }

  #isGiven({ name }: Policy): boolean {
    const { partitions } = this.#request
    return partitions !== undefined && Object.hasOwn(partitions, name)
  }
}

/** Whether two prices are the same charges: then what was charged for the one stands for the other. */
export function isSamePrice(one: readonly PricedPolicy[], other: readonly PricedPolicy[]): boolean {
  if (one.length !== other.length) return false
  return one.every(({ charge }, index) => {
    const same = other[index]!.charge
    return (
      charge.stateId === same.stateId &&
      charge.partition === same.partition &&
      charge.cost === same.cost &&
      charge.quota === same.quota &&
      charge.capacity === same.capacity &&
      charge.shadow === same.shadow &&
      charge.after === same.after &&
      (charge.kind === 'concurrency' || charge.members?.join() === same.members?.join())
    )
  })
}
