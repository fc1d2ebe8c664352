import { createHash } from 'node:crypto'
import type { NextFunction, Request, Response } from 'express'
import { Admission, limitsOf } from './admission.ts'
import { presetTierOf, presetTiers } from './classify/presets.ts'
import type { Client } from './client.ts'
import { Decider, type Ruling } from './decide.ts'
import type { Decision } from './decision.ts'
import { RampmeterError, warn } from './errors.ts'
import { createAddressReader } from './identify/address.ts'
import { createIdentifier, type Identified } from './identify/identify.ts'
import type { DecideRequest, Limiter, RouteMiddleware } from './limiter.ts'
import { createNames } from './names.ts'
import { observeDecision, observeDegraded } from './observe/channels.ts'
import { defaultTier, plainRoute, readLimiterOptions, readRoute, type LimiterOptions, type Route } from './options.ts'
import { listOf, planOf, planRoute, type Plan } from './plan.ts'
import type { Policy } from './policy.ts'
import { circumstancesOfDecide, circumstancesOfRequest, isClientId, price, type PricedPolicy } from './price.ts'
import type { Answer, AppliedPolicy } from './respond/answer.ts'
import { createFieldWriter } from './respond/fields.ts'
import { createRefuser } from './respond/refuse.ts'
import { createRouteTable, type PathParams } from './route-table.ts'
import { Settlement, type ActualCost } from './settlement.ts'
import { memoryStore } from './stores/memory.ts'
import type { PresetTier } from './tier.ts'

declare global {
  namespace Express {
    interface Request {
      /** What the limiter decided; absent where it did not see the request. */
      rateLimit?: Decision
    }
  }
}

/** A route with its plans, ready for requests. */
interface ReadyRoute {
  readonly route: Route
  readonly plans: ReadonlyMap<string, Plan>
}

/** What a limiter remembers of a request, for a `limiter.route()` further in. */
interface Passage {
  readonly identified: Identified
  readonly client: Client
  readonly priced: readonly PricedPolicy[]
  readonly settlement: Settlement
}

/** How long `close` waits for what is owed, in ms. */
const closeWithinMs = 5000

/** When a request whose credential could not be checked may come again, in ms: an estimate. */
const retryVerificationMs = 5000

/**
 * Makes middleware that rate-limits an Express app, in a way that people and agents can live with.
 *
 * Without options it limits by address and by the preset tiers, in memory.
 *
 * @example
 * app.use(rampmeter({ store: redisStore(new Redis()), identify: [apiKey({ lookup })] }))
 *
 * @throws {RampmeterError} for every mistake in the options, before the first request
 */
export function rampmeter<Tier extends string = PresetTier>(options: LimiterOptions<Tier> = {}): Limiter<Tier> {
  const settings = readLimiterOptions(options, presetTiers())
  const { tiers } = settings
  const names = createNames(settings.keySecrets)
  const store = (settings.store ?? memoryStore()).open({ nameOf: names.nameOf })
  const identify = createIdentifier({ verifiers: settings.identify, readAddress: createAddressReader(settings) })
  const decider = new Decider({
    ...settings,
    store,
    onAway: ({ waitedMs, error, count }) =>
      observeDegraded({ at: Date.now(), waitedMs, code: error.code, cause: causeOf(error), count }),
  })
  const writer = createFieldWriter({
    families: settings.headers,
    exposeHeaders: settings.exposeHeaders,
    ...(names.pk !== undefined && { pk: names.pk }),
  })
  const refuse = createRefuser({
    writer,
    handler: settings.handler,
    tiers,
    docsUrl: settings.docsUrl,
    upgradeUrl: settings.upgradeUrl,
  })
  /** Sliding logs are stored apart, so `reset` has to know which there are. */
  const logIds = new Set<number>()
  const plain = makeReady(plainRoute, 'the limiter')
  const findRoute = createRouteTable(
    Object.fromEntries(
      Object.entries(settings.routes).map(([key, route]): [string, ReadyRoute] => [
        key,
        makeReady(route, `routes[${JSON.stringify(key)}]`),
      ]),
    ),
  )
  const passages = new WeakMap<Request, Passage>()
  const owed = new Set<Promise<void>>()
  let warnedLate = false

  function makeReady(route: Route, what: string): ReadyRoute {
    const plans = planRoute(tiers, route, what)
    for (const plan of plans.values()) noteLogs(plan)
    return { route, plans }
  }

  function noteLogs(plan: Plan): void {
    for (const { policy } of plan) if (policy.kind === 'sliding-log') logIds.add(policy.stateId)
  }

  /** The way of a request, in the order it happens. True when it goes on to the handler. */
  async function admit(req: Request, res: Response, next: NextFunction, own: ReadyRoute | undefined): Promise<boolean> {
    if (settings.skip !== undefined && (await settings.skip(req))) return true
    const outer = passages.get(req)
    const identified = await identify(req, outer?.identified)
    const client = await classify(req, identified)
    const { ready, params } = own === undefined ? routeOf(req) : { ready: own, params: {} }
    const priced = await price(planFor(ready, client), client, circumstancesOfRequest(req, client, ready.route, params))
    if (outer !== undefined && isSame(outer.priced, priced)) return true
    const ruling = await decider.decide(priced, outer?.settlement.ruling)

    const settlement = new Settlement(ruling, priced)
    passages.set(req, { identified, client, priced, settlement })
    const mustProve = identified.outcome !== 'known'
    const obeyed = isEnforced(client)
    const unproven = mustProve && (ruling.admitted || !obeyed)
    const limits = limitsOf(priced, ruling)
    const decision = new Admission({
      client,
      enforced: obeyed || mustProve,
      ruling,
      limits: limits.filter((limit) => limit !== undefined),
      settle: (total) => settleWithResponse(res, settlement, total),
      ...(unproven && identified.outcome === 'invalid' && { reason: 'proof', retryAfterMs: null }),
      ...(unproven &&
        identified.outcome === 'unavailable' && { reason: 'verification', retryAfterMs: retryVerificationMs }),
    })
    ;(req as unknown as Record<string, unknown>)[settings.property] = decision
    observeDecision(decision, ready.route.name)

    const answer: Answer = {
      decision,
      policies: obeyed ? toldOf(priced, ruling, limits) : [],
      nowMs: ruling.nowUs / 1000,
    }
    if (outer !== undefined) writer.clear(res)
    if (decision.admitted || !decision.enforced) {
      if (obeyed) writer.write(res, answer)
      return true
    }
    await refuse(
      req,
      res,
      next,
      answer,
      unproven && identified.outcome === 'invalid' ? identified.challenge : undefined,
    )
    return false
  }

  async function classify(req: Request, { client: identified }: Identified): Promise<Client> {
    const { namedTier, provesKey, ...known } = identified
    if (defaultTier in tiers) return { ...known, tier: defaultTier }
    const tier = namedTier ?? presetTierOf({ ...known, provesKey })
    const client: Client = { ...known, tier }
    if (settings.classify === undefined) return client
    const chosen = await settings.classify(req, client)
    return chosen === tier ? client : { ...client, tier: chosen }
  }

  function routeOf(req: Request): { ready: ReadyRoute; params: PathParams } {
    const found = findRoute(req)
    return found === undefined ? { ready: plain, params: {} } : { ready: found.value, params: found.params }
  }

  function planFor({ plans }: ReadyRoute, client: Client): Plan {
    const plan = plans.get(client.tier)
    if (plan !== undefined) return plan
    throw new RampmeterError(
      'RAMPMETER_UNKNOWN_TIER',
      `a client was put in the tier ${JSON.stringify(client.tier)}; there are ${listOf(tiers)}`,
    )
  }

  /** The same clients always, so that nobody is limited on one request and not on the next. */
  function isEnforced(client: Client): boolean {
    if (settings.mode === 'shadow') return false
    if (settings.enforcePercent === 100) return true
    const share = createHash('sha256').update(client.id).digest().readUInt32BE() / 2 ** 32
    return share * 100 < settings.enforcePercent
  }

  function settleWithResponse(res: Response, settlement: Settlement, total: ActualCost): void {
    settlement.state(total)
    if (res.closed || res.destroyed) {
      if (!warnedLate) {
        warnedLate = true
        warn(
          'RAMPMETER_LATE_SETTLE',
          'a cost was settled after its response had ended or its client had gone, and changed nothing; settle before the response ends',
        )
      }
      return
    }
    if (res.listeners('close').every((listener) => !paying.has(listener))) {
      const pay = (): void => payOwed(settlement)
      paying.add(pay)
      res.once('close', pay)
    }
  }

  function payOwed(settlement: Settlement): void {
    const corrections = settlement.take()
    if (corrections.length === 0) return
    const payment = decider.settle(settlement.ruling, corrections).catch((error: unknown) => {
      observeDegraded({
        at: Date.now(),
        waitedMs: 0,
        code: 'RAMPMETER_STORE_UNAVAILABLE',
        cause: causeOf(error),
        count: 1,
      })
    })
    owed.add(payment)
    void payment.finally(() => owed.delete(payment))
  }

  function middleware(own: ReadyRoute | undefined): RouteMiddleware {
    return function limiter(req, res, next) {
      // A handler's own types of parameters and locals do not matter here.
      admit(req as unknown as Request, res as unknown as Response, next, own).then((goesOn) => {
        if (goesOn) next()
      }, next)
    }
  }

  async function decideWithoutRequest(
    client: Client,
    plan: Plan,
    request: DecideRequest,
    commit: boolean,
  ): Promise<Decision> {
    const priced = await price(plan, client, circumstancesOfDecide(client, request))
    const ruling = await decider.decide(priced, undefined, commit)
    const settlement = new Settlement(ruling, priced)
    const decision = new Admission({
      client,
      enforced: isEnforced(client),
      ruling,
      limits: limitsOf(priced, ruling).filter((limit) => limit !== undefined),
      settle: (total) => {
        settlement.state(total)
        payOwed(settlement)
      },
    })
    if (commit) observeDecision(decision, undefined)
    return decision
  }

  const decidePlans = new WeakMap<readonly Policy[], Map<string, Plan>>()

  function planForDecide(client: Client, policies: readonly Policy[] | undefined): Plan {
    const plan = planFor(plain, client)
    if (policies === undefined) return plan
    let plans = decidePlans.get(policies)
    if (plans === undefined) decidePlans.set(policies, (plans = new Map()))
    let own = plans.get(client.tier)
    if (own === undefined) {
      own = planOf(tiers[client.tier]!, policies, false, 'decide')
      noteLogs(own)
      plans.set(client.tier, own)
    }
    return own
  }

  return Object.assign(middleware(undefined), {
    route(routeOptions: object): RouteMiddleware {
      return middleware(makeReady(readRoute(routeOptions, 'limiter.route'), 'limiter.route'))
    },

    async decide(request: DecideRequest): Promise<Decision> {
      const client = namedClient(request?.client)
      return await decideWithoutRequest(client, planForDecide(client, request.policies), request, true)
    },

    async peek(who: { id: string; tier?: string }): Promise<Decision> {
      const client = namedClient(who)
      const tellable = planFor(plain, client).filter(({ policy }) => isTellable(policy, client))
      return await decideWithoutRequest(client, tellable, { client: who }, false)
    },

    async reset(clientId: string): Promise<void> {
      if (!isClientId(clientId)) throw invalidClient()
      await store.reset(clientId, [...logIds])
    },

    ready: () => store.ready(),

    async flush(): Promise<void> {
      await Promise.all(owed)
    },

    health: () => ({ store: decider.health }),

    async close(): Promise<void> {
      await within(closeWithinMs, Promise.all(owed))
      await store.close()
    },
  }) satisfies Limiter as Limiter<Tier>
}

/** A client that the app names itself, outside HTTP. */
function namedClient(who: { id: string; tier?: string } | undefined): Client {
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

/** Listeners that pay what a response owes, so that each response has one. */
const paying = new WeakSet<object>()

/** Whether two prices are the same charges: then what the outer limiter charged stands. */
function isSame(one: readonly PricedPolicy[], other: readonly PricedPolicy[]): boolean {
  return (
    one.length === other.length &&
    one.every(({ charge }, index) => {
      const same = other[index]!.charge
      return (
        charge.stateId === same.stateId &&
        charge.partition === same.partition &&
        charge.cost === same.cost &&
        charge.quota === same.quota &&
        charge.capacity === same.capacity &&
        charge.shadow === same.shadow
      )
    })
  )
}

function toldOf(
  priced: readonly PricedPolicy[],
  { outcomes, admitted }: Ruling,
  limits: ReturnType<typeof limitsOf>,
): AppliedPolicy[] {
  return priced.flatMap(({ policy, charge, ofRoute }, index) => {
    const status = limits[index]
    if (status === undefined || charge.shadow) return []
    return [
      {
        policy,
        status,
        partition: charge.partition,
        ofRoute,
        lifted: admitted && outcomes[index]!.verdict === 'lifted',
      },
    ]
  })
}

/** Whether a policy's counter can be told without a request. */
function isTellable({ partition, when }: Policy, client: Client): boolean {
  return when === undefined && typeof partition === 'string' && (partition !== 'address' || client.address !== null)
}

function invalidClient(): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_INVALID_CLIENT',
    'a client id is missing, longer than 1024 characters, or begins with "@"; write the id as in `req.rateLimit.client.id`, such as "key:acme"',
  )
}

/** What went wrong, by its class and code alone: a driver's message may name hosts or users. */
function causeOf(error: unknown): string {
  const { cause } = error as { cause?: unknown }
  const told = cause instanceof Error ? cause : error
  if (!(told instanceof Error)) return typeof told
  const { code } = told as { code?: unknown }
  return typeof code === 'string' ? `${told.name} ${code}` : told.name
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([work, new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
  clearTimeout(timer)
}
