import type { NextFunction, Request, Response } from 'express'
import { Admission, limitsOf, toldOf } from './admission.ts'
import { createClassifier } from './classify/classify.ts'
import { presetTiers } from './classify/presets.ts'
import type { Client } from './client.ts'
import { Decider } from './decide.ts'
import type { Decision, RefusalReason } from './decision.ts'
import { createDirect, invalidClient } from './direct.ts'
import { createEnforcement } from './enforce.ts'
import { createAddressReader } from './identify/address.ts'
import { createIdentifier, type Identified } from './identify/identify.ts'
import { createOutageReport } from './identify/outage.ts'
import type { Limiter, RouteMiddleware } from './limiter.ts'
import { createNames } from './names.ts'
import { observeDecision, observeDegraded } from './observe/channels.ts'
import { createOutageWarning } from './observe/outage.ts'
import { defaultTier, plainRoute, readLimiterOptions, readRoute, type LimiterOptions } from './options.ts'
import { Plans, type PlannedRoute } from './plan.ts'
import { circumstancesOfRequest, isClientId, isSamePrice, price, type PricedPolicy } from './price.ts'
import { createFieldWriter } from './respond/fields.ts'
import { createRefuser } from './respond/refuse.ts'
import { createRouteTable } from './route-table.ts'
import { nothingAtAll, Settlement } from './settlement.ts'
import { Settler } from './settler.ts'
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
 * Makes middleware that rate-limits an Express app in a way that people and agents can live with.
 *
 * Without options it limits by address, by the preset tiers, in memory.
 *
 * @example
 * app.use(rampmeter({ store: redisStore(new Redis()), identify: [apiKey({ lookup })] }))
 *
 * @throws {RampmeterError} for every mistake in the options, before the first request
 */
export function rampmeter<Tier extends string = PresetTier, Pool extends string = never>(
  options: LimiterOptions<Tier, Pool> = {},
): Limiter<Tier> {
  const settings = readLimiterOptions(options, presetTiers())
  const { tiers, property, skip } = settings
  const identify = createIdentifier({ verifiers: settings.identify, readAddress: createAddressReader(settings) })
  const reportOutage = createOutageReport()
  const classify = createClassifier({ ...settings, onlyTier: defaultTier in tiers ? defaultTier : undefined })
  const plans = new Plans(tiers, settings.pools)
  const base = plans.ofRoute(plainRoute, 'the limiter')
  const routeOf = createRouteTable(
    mapValues(settings.routes, (route, key) => plans.ofRoute(route, `routes[${JSON.stringify(key)}]`)),
    base,
  )
  // Opened last, since what follows finds no more mistakes: one that was would leave a connection open.
  const names = createNames(settings.keySecrets)
  const store = (settings.store ?? memoryStore()).open({ nameOf: names.nameOf })
  const warnOfOutage = createOutageWarning()
  const decider = new Decider({
    ...settings,
    store,
    onAway({ waitedMs, error, count }) {
      warnOfOutage(error, count)
      observeDegraded(error, waitedMs, count)
    },
  })
  const settler = new Settler(decider, plans, (error) => observeDegraded(error, 0, 1))
  const isEnforced = createEnforcement(settings.mode, settings.enforcePercent)
  const writer = createFieldWriter({ ...settings, families: settings.headers, pk: names.pk })
  const refuse = createRefuser({ ...settings, writer })
  const direct = createDirect({ plans, base, decider, settler, isEnforced })
  const passages = new WeakMap<Request, Passage>()

  /** The way of a request, in the order it happens. True when it goes on to the handler. */
  async function admit(req: Request, res: Response, next: NextFunction, own: PlannedRoute | null): Promise<boolean> {
    if (skip !== undefined && (await skip(req))) return true
    const outer = passages.get(req)

    const identified = await identify(req, outer?.identified)
    reportOutage(identified)
    const client = await classify(req, identified.client)

    const { value: planned, params } = own === null ? routeOf(req) : { value: own, params: {} }
    const plan = plans.forTier(planned, client.tier)
    const priced = await price(plan, client, circumstancesOfRequest(req, client, planned.route, params))
    if (outer !== undefined && isSettledBy(outer, identified, client, priced)) {
      settler.takeCost(res, outer.settlement, planned.route.costHeader)
      return true
    }

    const ruling = await decider.decide(priced, outer?.settlement.ruling)
    outer?.settlement.end()
    const settlement = new Settlement(ruling, priced)
    passages.set(req, { identified, client, priced, settlement })
    settler.follow(req, res, settlement)
    settler.takeCost(res, settlement, planned.route.costHeader)

    const obeyed = isEnforced(client)
    const unproven = ruling.admitted || !obeyed ? unprovenReason(identified) : undefined
    const limits = limitsOf(priced, ruling)
    const decision = new Admission({
      client,
      enforced: obeyed || unproven !== undefined,
      ruling,
      limits: limits.filter((limit) => limit !== undefined),
      ...unproven,
      settle: (total) => settler.withResponse(res, settlement, total),
      release: () => settler.releaseNow(settlement),
    })
    Reflect.set(req, property, decision)
    observeDecision(decision, planned.route.name)

    const policies = obeyed ? toldOf(priced, ruling, limits) : []
    const answer = { decision, policies, nowMs: ruling.nowUs / 1000 }
    if (outer !== undefined) writer.clear(res)
    if (decision.admitted || !decision.enforced) {
      if (obeyed) writer.write(res, answer)
      return true
    }
    await refuse(req, res, next, answer, unproven?.challenge)
    return false
  }

  /** A mistake on the way refuses the request, through the app's own error handler. */
  async function pass(req: Request, res: Response, next: NextFunction, own: PlannedRoute | null): Promise<void> {
    let goesOn: boolean
    try {
      goesOn = await admit(req, res, next, own)
    } catch (error) {
      // What fails is charged nothing, by the limiter further out neither.
      const outer = passages.get(req)
      if (outer !== undefined) settler.now(outer.settlement, nothingAtAll)
      next(error)
      return
    }
    if (goesOn) next()
  }

  function middleware(own: PlannedRoute | null): RouteMiddleware {
    return function limiter(req, res, next) {
      // What a handler's own types say of parameters and locals does not matter here.
      void pass(req as unknown as Request, res, next, own)
    }
  }

  return Object.assign(middleware(null), {
    ...direct,
    route: (options) => middleware(plans.ofRoute(readRoute(options, 'limiter.route'), 'limiter.route')),
    async reset(clientId) {
      if (!isClientId(clientId)) throw invalidClient()
      await decider.reset(clientId, plans.owners)
    },
    ready: () => store.ready(),
    flush: () => settler.flush(),
    health: () => ({ store: decider.health }),
    async close() {
      settler.stop()
      await within(closeWithinMs, settler.flush())
      await store.close()
    },
  } satisfies Omit<Limiter, never>) as Limiter<Tier>
}

/** Whether a limiter further out has decided the same: then its decision stands. */
function isSettledBy(
  outer: Passage,
  { outcome }: Identified,
  { id, tier }: Client,
  priced: readonly PricedPolicy[],
): boolean {
  const sameClient = outcome === 'known' && outer.client.id === id && outer.client.tier === tier
  return sameClient && isSamePrice(outer.priced, priced)
}

/** Why a request is refused whatever its limits say: its credential is wrong, or cannot be checked now. */
function unprovenReason(
  identified: Identified,
): { reason: RefusalReason; retryAfterMs: number | null; challenge?: string } | undefined {
  switch (identified.outcome) {
    case 'known':
      return undefined
    case 'invalid':
      return { reason: 'proof', retryAfterMs: null, challenge: identified.challenge }
    case 'unavailable':
      return { reason: 'verification', retryAfterMs: retryVerificationMs }
  }
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, map: (value: T, key: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value, key)]))
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([work, new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
  clearTimeout(timer)
}
