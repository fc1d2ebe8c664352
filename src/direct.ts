import { Admission, limitsOf } from './admission.ts'
import type { Client } from './client.ts'
import type { Decider } from './decide.ts'
import type { Decision } from './decision.ts'
import { RampmeterError } from './errors.ts'
import type { DecideRequest } from './limiter.ts'
import { observeDecision } from './observe/channels.ts'
import { defaultTier } from './options.ts'
import type { Plan, PlannedRoute, Plans } from './plan.ts'
import type { Policy } from './policy.ts'
import { circumstancesOfDecide, isClientId, price } from './price.ts'
import { Settlement } from './settlement.ts'
import type { Settler } from './settler.ts'

export interface DirectOptions {
  readonly plans: Plans
  /** What applies to every request. */
  readonly base: PlannedRoute
  readonly decider: Decider
  readonly settler: Settler
  readonly isEnforced: (client: Client) => boolean
}

/** Whom a decision is about, outside HTTP. */
type Who = DecideRequest['client']

/** Makes the decisions that need no HTTP request: `limiter.decide` and `limiter.peek`. */
export function createDirect({ plans, base, decider, settler, isEnforced }: DirectOptions): {
  decide(request: DecideRequest): Promise<Decision>
  peek(who: Who): Promise<Decision>
} {
  async function rule(client: Client, plan: Plan, request: DecideRequest, commit: boolean): Promise<Decision> {
    const priced = await price(plan, client, circumstancesOfDecide(client, request))
    const ruling = await decider.decide(priced, undefined, commit)
    const settlement = new Settlement(ruling, priced)
    return new Admission({
      client,
      enforced: isEnforced(client),
      ruling,
      limits: limitsOf(priced, ruling).filter((limit) => limit !== undefined),
      settle: (total) => settler.now(settlement, total),
      release: () => settler.releaseNow(settlement),
    })
  }

  return {
    async decide(request) {
      const client = namedClient(request?.client)
      checkMembers(request)
      const { policies } = request
      const plan =
        policies === undefined ? plans.forTier(base, client.tier) : plans.extended(base, client.tier, policies)
      plans.checkNames(Object.keys(request.partitions ?? {}), 'decide: `partitions`')
      const decision = await rule(client, plan, request, true)
      observeDecision(decision, undefined)
      return decision
    },

    async peek(who) {
      const client = namedClient(who)
      const plan = plans.forTier(base, client.tier).filter(({ policy }) => isTellable(policy, client))
      return await rule(client, plan, { client: who }, false)
    },
  }
}

const members: ReadonlySet<string> = new Set([
  'client',
  'cost',
  'policies',
  'partitions',
  'target',
] satisfies (keyof DecideRequest)[])

/** A misspelt cost would charge 1, and a misspelt list of policies would limit nothing. */
function checkMembers(request: DecideRequest): void {
  for (const member of Object.keys(request)) {
    if (members.has(member)) continue
    throw new RampmeterError(
      'RAMPMETER_UNKNOWN_OPTION',
      `decide: unknown option \`${member}\`; there are ${[...members].join(', ')}`,
    )
  }
  const { partitions } = request
  if (partitions !== undefined && (typeof partitions !== 'object' || partitions === null)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'decide: `partitions` is no object; write { "name of the policy": "whose counter" }',
    )
  }
}

/** A client that the app names itself. */
function namedClient(who: Who | undefined): Client {
  if (!isClientId(who?.id)) throw invalidClient()
  return {
    id: who.id,
    kind: 'unknown',
    tier: who.tier ?? defaultTier,
    provedBy: null,
    confidence: 0,
    reasons: ['named by the app'],
    claims: {},
    address: who.id.startsWith('ip:') ? who.id : null,
    hint: null,
  }
}

/** Whether a policy's counter can be told without a request. */
function isTellable({ partition, when }: Policy, client: Client): boolean {
  return when === undefined && typeof partition === 'string' && (partition !== 'address' || client.address !== null)
}

export function invalidClient(): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_INVALID_CLIENT',
    'a client id is missing, longer than 1024 characters, or begins with "@"; write the id as in `req.rateLimit.client.id`, such as "key:acme"',
  )
}
