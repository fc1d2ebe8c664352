import { Admission, limitsOf, withoutGaps } from './admission.ts'
import type { Client } from './client.ts'
import type { Decider, Ruling } from './decide.ts'
import type { Decision } from './decision.ts'
import { RampmeterError } from './errors.ts'
import type { DecideRequest } from './limiter.ts'
import { observeDecision } from './observe/channels.ts'
import { defaultTier } from './options.ts'
import type { Plan, PlannedRoute, Plans } from './plan.ts'
import type { Policy } from './policy.ts'
import { CircumstancesOfDecide, isClientId, price, type PricedPolicy } from './price.ts'
import { Settlement } from './settlement.ts'
import type { Settler } from './settler.ts'
import type { KnownStanding } from './standing.ts'
import type { createTickets } from './tickets.ts'
import type { Watch } from './watch.ts'

export interface DirectOptions {
  readonly plans: Plans
  /** What applies to every request. */
  readonly base: PlannedRoute
  readonly decider: Decider
  readonly settler: Settler
  readonly isEnforced: (client: Client) => boolean
  /** Where slots are reserved. */
  readonly askForTicket: ReturnType<typeof createTickets> | undefined
  /** What the quotas of a tier are multiplied by now. */
  readonly multiplierOf: (tier: string) => number
  readonly watch: Watch
  /** Hears of each decision, and not of looks. */
  readonly onDecided: (decision: Decision) => void
}

/** Whom a decision is about, outside HTTP. */
type Who = DecideRequest['client']

/** Makes the decisions that need no HTTP request: `limiter.decide` and `limiter.peek`. */
export function createDirect({
  plans,
  base,
  decider,
  settler,
  isEnforced,
  askForTicket,
  multiplierOf,
  watch,
  onDecided,
}: DirectOptions): {
  decide(request: DecideRequest): Promise<Decision>
  peek(who: Who): Promise<Decision>
  /** What is known of a client, by the ladder of the tier that it is in. */
  look(clientId: string, tier?: string): Promise<KnownStanding>
} {
  function rule(
    named: Client,
    planFor: (tier: string) => Plan,
    request: DecideRequest,
    commit: boolean,
    tell: (decision: Decision) => Decision,
    earlier?: Ruling,
  ): Promise<Decision> {
    const client = watch.assigned(named)
    const circumstances = new CircumstancesOfDecide(client, request)
    const pricing = price(planFor(client.tier), client, circumstances, multiplierOf(client.tier))
    return Array.isArray(pricing) ? decided(pricing) : pricing.then(decided)

    // Not `async`: every decision in flight would keep a frame of it, and collecting them costs what deciding does.
    function decided(asked: readonly PricedPolicy[]): Promise<Decision> {
      const enforced = isEnforced(client)
      const isVouched = isVouchedFor(client)
      const standing = watch.chargeFor(client, base.route, isVouched)
      const shown = askForTicket?.({ client, thumbprint: undefined, priced: asked }, request.ticket)
      const options = { commit, promise: enforced, tickets: shown?.terms, standing }
      return decider.decide(asked, earlier, options).then((ruling) => {
        watch.learn(client, base.route, ruling)
        if (earlier === undefined && watch.isOfOtherTier(client, named)) {
          return rule(named, planFor, request, commit, tell, ruling)
        }
        const priced = ruling.cut ?? asked
        const refusal = watch.refusalOf(client, base.route, isVouched, ruling, standing)
        const settlement = new Settlement(ruling, priced)
        const decision = new Admission({
          client,
          enforced: enforced || refusal !== undefined,
          ruling,
          ...refusal,
          abuse: watch.statusOf(client, ruling, isVouched),
          limits: withoutGaps(limitsOf(priced, ruling)),
          ticket: shown?.read(ruling.ticket),
          settle: (total) => settler.now(settlement, total),
          release: () => settler.releaseNow(settlement),
        })
        return tell(decision)
      })
    }
  }

  const planOfTier = (tier: string): Plan => plans.forTier(base, tier)

  function begin(request: DecideRequest): Promise<Decision> {
    const client = namedClient(request?.client)
    checkMembers(request)
    const { policies } = request
    const planFor = policies === undefined ? planOfTier : (tier: string): Plan => plans.extended(base, tier, policies)
    planFor(client.tier)
    if (request.partitions !== undefined) plans.checkNames(Object.keys(request.partitions), 'decide: `partitions`')
    return rule(client, planFor, request, true, observed)
  }

  function observed(decision: Decision): Decision {
    onDecided(decision)
    observeDecision(decision, undefined)
    return decision
  }

  return {
    // Not `async`, as above; what is wrong with a request rejects all the same.
    decide(request) {
      try {
        return begin(request)
      } catch (error) {
        return Promise.resolve().then(() => {
          throw error
        })
      }
    },

    async peek(who) {
      const client = namedClient(who)
      const planFor = (tier: string): Plan =>
        plans.forTier(base, tier).filter(({ policy }) => isTellable(policy, client))
      return await rule(client, planFor, { client: who }, false, (decision) => decision)
    },

    async look(clientId, tier = defaultTier) {
      const client = watch.assigned(namedClient({ id: clientId, tier }))
      const standing = watch.chargeFor(client, base.route, true)
      const ruling = await decider.decide([], undefined, { commit: false, standing })
      if (ruling.standing !== undefined) return ruling.standing
      throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'the store was away, so nothing is known of the client')
    },
  }
}

const members: ReadonlySet<string> = new Set([
  'client',
  'cost',
  'policies',
  'partitions',
  'target',
  'ticket',
] satisfies (keyof DecideRequest)[])

/** A misspelt cost would charge 1, and a misspelt list of policies would limit nothing. */
function checkMembers(request: DecideRequest): void {
  for (const member in request) {
    if (members.has(member) || !Object.hasOwn(request, member)) continue
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

const namedByApp: readonly string[] = Object.freeze(['named by the app'])
const noClaims: Client['claims'] = Object.freeze({})

/** A client that the app names itself. */
function namedClient(who: Who | undefined): Client {
  if (!isClientId(who?.id)) throw invalidClient()
  return {
    id: who.id,
    kind: 'unknown',
    tier: who.tier ?? defaultTier,
    provedBy: null,
    confidence: 0,
    reasons: namedByApp,
    claims: noClaims,
    address: who.id.startsWith('ip:') ? who.id : null,
    hint: null,
  }
}

/** The app vouches for whom it names: nothing more could be asked of it here. Who is behind an address nobody knows. */
function isVouchedFor({ address }: Client): boolean {
  return address === null
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
