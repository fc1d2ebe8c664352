import { createHash, randomBytes } from 'node:crypto'
import type { Request } from 'express'
import type { Client } from './client.ts'
import { RampmeterError } from './errors.ts'
import { isThenable } from './identify/thenable.ts'
import type { DecideRequest } from './limiter.ts'
import type { Route } from './options.ts'
import type { Plan, PlannedPolicy } from './plan.ts'
import { fnv1a, isMeasured, largestAmount } from './policies/build.ts'
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
  /** Names the session that a slot is for. */
  sessionOf(policy: Policy): string
  targetsOf(policy: Policy): readonly string[]
}

/**
 * Prices a request: each policy of the plan that applies becomes a charge.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_COST`, `RAMPMETER_INVALID_QUOTA`, `RAMPMETER_INVALID_PARTITION`, `RAMPMETER_INVALID_TARGET`, `RAMPMETER_POLICY_FUNCTION_FAILED`, `RAMPMETER_MISSING_PARTITION`
 */
export async function price(plan: Plan, client: Client, circumstances: Circumstances): Promise<PricedPolicy[]> {
  const priced: PricedPolicy[] = []
  for (const planned of plan) {
    const { policy } = planned
    if (!circumstances.applies(policy)) continue
    // Before the cost: a promise that nobody waits for would end the process if it rejects.
    const { pooled } = planned
    const partition = pooled === undefined ? circumstances.partitionOf(policy) : `${reserved}pool:${pooled.pool}`
    const members = membersOf(policy, circumstances)
    const cost = members === none ? amountCharged(policy, circumstances) : members.length
    priced.push({
      // One by one: a spread here costs a third of a decision in memory.
      policy,
      ofRoute: planned.ofRoute,
      liftable: planned.liftable,
      highRisk: planned.highRisk,
      pooled,
      charge: chargeOf(planned, client, partition, typeof cost === 'number' ? cost : await cost, members),
    })
  }
  return priced
}

function chargeOf(
  { policy, liftable, highRisk, pooled }: PlannedPolicy,
  client: Client,
  partition: string,
  cost: number,
  members: readonly string[],
): Charge {
  const quota = amountOf(policy, 'quota', policy.quota, client)
  const burst = policy.burst === undefined ? quota : amountOf(policy, 'burst', policy.burst, client)
  const { kind, calendar } = policy
  return {
    kind,
    stateId: policy.stateId,
    partition,
    windowUs: policy.windowMs * 1000,
    quota,
    // What never refills holds nothing.
    capacity: policy.renewAfterMs === undefined ? (quota === 0 ? 0 : burst) : policy.renewAfterMs * 1000,
    cost: checkCost(cost, () => `the cost of policy ${JSON.stringify(policy.name)}`),
    members,
    calendar: calendar === undefined ? undefined : calendarLimit(calendar, policy.windowMs, placeOf(client.id)),
    untilExpiry: policy.per === undefined ? undefined : true,
    after: kind === 'failures' ? !(policy.reserve ?? highRisk) : policy.charge === 'after',
    role: pooled?.role,
    seating: pooled?.seating,
    liftable,
    shadow: policy.mode === 'shadow',
  }
}

/** What a policy charges: a failure is one, whatever the route costs, and what is measured costs nothing before it is. */
function amountCharged(policy: Policy, circumstances: Circumstances): number | Promise<number> {
  const { kind, unit } = policy
  return kind === 'failures' || unit === 'concurrent-requests' || isMeasured(policy) ? 1 : circumstances.costOf(policy)
}

/** The members of a plain amount. */
const none: readonly string[] = []

/** The most that one request may touch: as many as a mask of bits tells apart. */
const mostTargets = 32

/** Leases are told apart by who holds them and when they came. */
const leaseOwner = randomBytes(9).toString('base64url')
let leases = 0

function membersOf(policy: Policy, circumstances: Circumstances): readonly string[] {
  if (policy.kind === 'concurrency') {
    if (policy.per !== undefined) return [hashMember(circumstances.sessionOf(policy))]
    leases += 1
    return [`${leaseOwner}.${leases.toString(36)}`]
  }
  if (policy.kind !== 'unique-targets') return none
  return [...new Set(circumstances.targetsOf(policy).map(hashMember))]
}

/** 96 bits: no two targets of a client are ever taken for one, and none can be read in the store. */
function hashMember(text: string): string {
  return createHash('sha256').update(text).digest().subarray(0, 12).toString('base64url')
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
  if (
    list.length <= mostTargets &&
    list.every((target) => typeof target === 'string' && target.length <= longestTarget)
  ) {
    return list as string[]
  }
  throw new RampmeterError(
    'RAMPMETER_INVALID_TARGET',
    `the target of policy ${JSON.stringify(policy.name)} came out as ${Array.isArray(targets) ? `a list of ${targets.length}` : typeof targets}; return a text, a list of at most ${mostTargets} texts of at most ${longestTarget} characters, or undefined`,
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

/** What an HTTP request tells. */
export function circumstancesOfRequest(
  req: Request,
  client: Client,
  route: Route,
  params: Record<string, string | string[] | undefined>,
): Circumstances {
  let routeCost: number | Promise<number> | undefined
  return {
    applies(policy) {
      const { when } = policy
      return when === undefined || call(policy, 'when', () => when(req, client))
    },

    partitionOf(policy) {
      const { partition } = policy
      if (partition === 'client') return client.id
      if (partition === 'address') return client.address ?? client.id
      if (partition === 'tier') return `${reserved}tier:${client.tier}`
      if (partition === 'global') return `${reserved}global`
      return named(
        policy,
        call(policy, 'partition', () => partition(req, client)),
      )
    },

    costOf(policy) {
      const { cost } = policy
      if (typeof cost === 'number') return cost
      if (cost !== undefined)
        return callCost(`the cost of policy ${JSON.stringify(policy.name)}`, () => cost(req, client))
      const ofRoute = route.cost
      routeCost ??=
        typeof ofRoute === 'number'
          ? ofRoute
          : callCost(
              `the cost of ${route.name === undefined ? 'a route' : `route ${JSON.stringify(route.name)}`}`,
              () => ofRoute(req, client, params),
            )
      return routeCost
    },

    sessionOf(policy) {
      return readSession(
        policy,
        call(policy, 'per', () => policy.per!(req, client)),
      )
    },

    targetsOf(policy) {
      const own = policy.target
      if (own !== undefined)
        return readTargets(
          policy,
          call(policy, 'target', () => own(req, client)),
        )
      const ofRoute = route.target
      if (ofRoute !== undefined)
        return readTargets(
          policy,
          call(policy, 'target', () => ofRoute(req, client, params)),
        )
      return [`${req.baseUrl}${req.path}`.slice(0, longestTarget)]
    },
  }
}

/** What is told about a decision outside HTTP, where no function of a request can be called. */
export function circumstancesOfDecide(
  client: Client,
  { cost = 1, partitions = {}, target }: DecideRequest,
): Circumstances {
  return {
    applies: (policy) => policy.when === undefined || Object.hasOwn(partitions, policy.name),

    partitionOf(policy) {
      const { partition } = policy
      // Of sessions, what is given names the session, unless a function would tell whose they are.
      const isSession = policy.per !== undefined && typeof partition === 'string'
      const given = !isSession && Object.hasOwn(partitions, policy.name) ? partitions[policy.name] : undefined
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
    },

    costOf: (policy) => (typeof policy.cost === 'number' ? policy.cost : checkCost(cost, () => '`cost`')),

    // Nothing given, it is the client's one session.
    sessionOf: (policy) => {
      const isGiven = typeof policy.partition === 'string' && Object.hasOwn(partitions, policy.name)
      return readSession(policy, isGiven ? partitions[policy.name] : client.id)
    },

    targetsOf: (policy) => readTargets(policy, target),
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
