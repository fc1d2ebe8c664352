import { randomBytes } from 'node:crypto'
import type { Request } from 'express'
import { Abuse } from './abuse/abuse.ts'
import { createClientIdCheck } from './abuse/client-id.ts'
import { createEdge } from './abuse/edge.ts'
import { checkLadder, checkLadderPrice } from './abuse/ladder.ts'
import { createReview } from './abuse/review.ts'
import { Adaptivity, type Place } from './adaptive/adaptivity.ts'
import { AttemptLimit } from './attempts.ts'
import { createBeside } from './beside.ts'
import { createClassifier } from './classify/classify.ts'
import { presetTiers } from './classify/presets.ts'
import { Decider } from './decide.ts'
import type { Decision } from './decision.ts'
import { checkDemand, createDemand, stepUpOf } from './demand.ts'
import { createDirect, invalidClient } from './direct.ts'
import { createEnforcement } from './enforce.ts'
import { RampmeterError } from './errors.ts'
import { addressIdOf, createAddressReader } from './identify/address.ts'
import { createIdentifier } from './identify/identify.ts'
import { createOutageReport } from './identify/outage.ts'
import type { Verifier } from './identify/verifier.ts'
import { createJudge } from './judge.ts'
import type { Limiter, LimiterHealth, RouteMiddleware } from './limiter.ts'
import { localShareOf } from './local-share.ts'
import { createNames } from './names.ts'
import { createNotes } from './notes.ts'
import { observeBack, observeCrowded, observeDegraded, observeLevel, observeUnsettled } from './observe/channels.ts'
import { endOutage, warnOfOutage } from './observe/outage.ts'
import {
  defaultTier,
  plainRoute,
  readLimiterOptions,
  readRoute,
  type LimiterOptions,
  type Route,
  type Settings,
} from './options.ts'
import { Plans, type PlannedRoute } from './plan.ts'
import { fnv1a } from './policies/build.ts'
import { isClientId } from './price.ts'
import { processesOf } from './processes.ts'
import { readyWithin } from './ready.ts'
import { createFieldWriter } from './respond/fields.ts'
import { createRefuser } from './respond/refuse.ts'
import { createRequestPath } from './request-path.ts'
import { createRouteTable } from './route-table.ts'
import { Settler } from './settler.ts'
import { breakersOf } from './stores/breaker.ts'
import { patienceOf } from './stores/guard.ts'
import { createTickets } from './tickets.ts'
import { memoryStore } from './stores/memory.ts'
import { patientStandings } from './stores/patient-standings.ts'
import type { OpenStore } from './stores/store.ts'
import type { Standings } from './standing.ts'
import { adaptiveTierOf, createUnadaptiveWarning } from './unadaptive.ts'
import { Pay } from './pay.ts'
import { internalsOf } from './payments/ledger.ts'
import { checkNames, checkPayable } from './payments/options.ts'
import type { PresetTier } from './tier.ts'
import { noStandings, Watch } from './watch.ts'

declare global {
  namespace Express {
    interface Request {
      /** What the limiter decided; absent where it did not see the request. */
      rateLimit?: Decision
    }
  }
}

/** How long `close` waits for what is owed, in ms. */
const closeWithinMs = 5000

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
  const warnOfUnadaptive = createUnadaptiveWarning(options.adaptive)
  const adaptiveTier = adaptiveTierOf(options.tiers ?? {}, presetTiers())
  if (adaptiveTier !== undefined) warnOfUnadaptive('adaptive', `the tier "${adaptiveTier}"`)
  // Verifiers of one limiter know each other's nonces.
  const secrets = settings.keySecrets.length > 0 ? settings.keySecrets : [randomBytes(32).toString('base64url')]
  const verifiers = settings.identify.map((verifier) => verifier.withSecrets?.(secrets) ?? verifier)
  const { failures } = settings.verification
  const attempts = new AttemptLimit(failures)
  const identify = createIdentifier({
    verifiers,
    readAddress: createAddressReader(settings),
    attemptsOf: (address) => attempts.of(address),
  })
  const demand = createDemand(verifiers)
  const askForTicket =
    settings.tickets &&
    createTickets({
      ...settings.tickets,
      secrets,
      onShown: (client, became) => abuse.noteTicket(client.id, became, tiers[client.tier]?.ladder),
    })
  const besideOf = createBeside(attempts, failures)
  const reportOutage = createOutageReport()
  const classify = createClassifier({ ...settings, onlyTier: defaultTier in tiers ? defaultTier : undefined })
  const plans = new Plans(tiers, settings.pools)
  const hasProviders = (settings.payments?.providers.length ?? 0) > 0
  checkLadderPrice(settings.abuse?.ladder, hasProviders, 'the ladder of `abuse`')
  for (const [name, tier] of Object.entries(tiers)) {
    checkDemand(verifiers, tier, `the tier "${name}"`)
    checkLadder(tier, settings.abuse, `the tier "${name}"`)
    checkLadderPrice(tier.ladder, hasProviders, `the ladder of the tier "${name}"`)
  }
  /** What people can approve clients for. */
  const scopes = new Set<string>()
  const base = plans.ofRoute(plainRoute, 'the limiter')
  const routeOf = createRouteTable(
    mapValues(settings.routes, (route, key) => planRoute(route, `routes[${JSON.stringify(key)}]`)),
    base,
  )
  const { payments } = settings
  checkLedger(settings)
  checkNames(payments, verifiers.length > 0)
  // Opened last, since what follows finds no more mistakes: one that was would leave a connection open.
  const names = createNames(settings.keySecrets)
  const kept = settings.store ?? memoryStore()
  const store = kept.open({ nameOf: names.nameOf })
  const storeName = store.name ?? null
  if (store.local !== true) requireSecret(verifiers, settings, store)
  // Told how many they are, or where there is nothing to divide, nobody counts them.
  const isCounted = settings.processes === undefined && store.local !== true
  const processes = processesOf(kept)
  const uncount = processes.use(
    isCounted ? store.post?.bind(store) : undefined,
    () => store.ready(),
    store.connections?.bind(store),
  )
  const adaptivity =
    settings.adaptive &&
    new Adaptivity({
      settings: settings.adaptive,
      tiers,
      post: store.post && ((...posted) => store.post!('multiplier', ...posted)),
      ready: () => store.ready(),
      onLevel: observeLevel,
    })
  const decider = new Decider({
    ...settings,
    store,
    breakers: breakersOf(kept),
    local: localShareOf(kept, names.nameOf),
    processes: () => settings.processes ?? processes.count,
    cutLastsMs: adaptivity?.cutLastsMs,
    onAway(away) {
      warnOfOutage(away.error, away.count, isCounted && !processes.isKnown, storeName)
      observeDegraded(away, storeName)
    },
    onCrowded: (crowded) => observeCrowded(crowded, storeName),
    onBack(back) {
      endOutage(storeName)
      observeBack(back, storeName)
    },
  })
  const onUnsettled = (error: unknown): void => observeUnsettled(error, storeName)
  const settler = new Settler(decider, plans, onUnsettled)
  const pay =
    payments === undefined
      ? undefined
      : new Pay(payments, decider, settings.deadlineMs, onUnsettled, verifiers.length > 0)
  const isEnforced = createEnforcement(settings.mode, settings.enforcePercent)
  const asked =
    store.standings === undefined || store.local === true
      ? store.standings
      : patientStandings(store.standings, (call) => decider.patiently(call))
  const standings = (): Standings => {
    if (asked !== undefined) return asked
    throw noStandings()
  }
  const needsApproval = Object.values(settings.routes).some(({ requireApproval }) => requireApproval)
  if (settings.abuse !== undefined || needsApproval) standings()
  const checkId = createClientIdCheck({
    isClientId,
    addressIdOf: (written) => addressIdOf(written, settings.ipv6Subnet),
  })
  const abuse = new Abuse(settings.abuse, {
    standings,
    checkId,
    hash: fnv1a,
    onFailure: onUnsettled,
    // Strangers at an address that is denied may show a credential where there is one to show.
    isTurnedAway: (id) => isEnforced({ id }) && (verifiers.length === 0 || !id.startsWith('ip:')),
    ladderOfTier: (tier) => tiers[tier]?.ladder,
  })
  if (abuse.watches) pay?.hearDisputes((clientId) => abuse.report(clientId, 'dispute'))
  const watch = new Watch({
    abuse,
    tiers,
    verifiers,
    stepUp: () => stepUpOf(verifiers),
    isEnforced,
    hasStandings: store.standings !== undefined,
  })
  const writer = createFieldWriter({
    ...settings,
    families: settings.headers,
    pk: names.pk,
    otherFields: [
      ...(verifiers.length === 0 ? [] : ['WWW-Authenticate']),
      ...verifiers.flatMap(({ fieldNames = [] }) => fieldNames),
      ...new Set(payments?.providers.flatMap(({ fieldNames = [] }) => fieldNames)),
      ...(settings.tickets === undefined ? [] : ['RateLimit-Ticket']),
    ],
  })
  const refuse = createRefuser({ ...settings, writer })
  const multiplierOf = (tier: string, critical = false): number => adaptivity?.multiplierOf(tier, critical) ?? 1
  const direct = createDirect({
    plans,
    base,
    decider,
    settler,
    isEnforced,
    askForTicket,
    multiplierOf,
    watch,
    onDecided: ({ abuse: met, enforced }) => abuse.count(met, enforced),
  })
  const { assign, unassign, ...review } = createReview({
    standings,
    hash: fnv1a,
    look: (clientId) => direct.look(clientId),
    checkId,
    tiers: Object.keys(tiers),
    scopes,
    hasScores: abuse.watches,
    marksOf: (clientId) => abuse.marksOf(clientId),
    onSuspended: (clientId, suspended) => watch.decided(clientId, suspended),
    onApproved: (clientId, scope) => watch.approved(clientId, scope),
    onRevoked: (clientId, scope) => watch.revoked(clientId, scope),
  })
  const places = createNotes<Request, Place>()
  const judge = createJudge({
    classify,
    watch,
    routeFor,
    plans,
    demand,
    verifiers,
    tiers,
    isEnforced,
    adaptivity,
    places,
    multiplierOf,
    pay,
    besideOf,
    askForTicket,
    decider,
    reportOutage,
    attempts,
  })
  const pass = createRequestPath({
    skip,
    property,
    identify,
    reportOutage,
    judge,
    routeFor,
    isEnforced,
    settler,
    watch,
    abuse,
    adaptivity,
    places,
    pay,
    writer,
    refuse,
  })

  function planRoute(route: Route, what: string): PlannedRoute {
    checkDemand(verifiers, route, what)
    checkPayable(route, settings.payments, what)
    checkLadder(route, settings.abuse, what)
    checkLadderPrice(route.ladder, hasProviders, `the ladder of ${what}`)
    if (route.critical || !route.health) warnOfUnadaptive(route.critical ? 'critical' : 'health', what)
    if (route.requireApproval) scopes.add(route.name!)
    return plans.ofRoute(route, what)
  }

  function routeFor(req: Request, own: PlannedRoute | null): ReturnType<typeof routeOf> {
    return own === null ? routeOf(req) : { value: own, params: {} }
  }

  async function readyToServe(): Promise<void> {
    await store.ready()
    await store.check?.()
    await pay?.ready()
  }

  function middleware(own: PlannedRoute | null): RouteMiddleware {
    return function limiter(req, res, next) {
      // What a handler's own types say of parameters and locals does not matter here.
      void pass(req as unknown as Request, res, next, own)
    }
  }

  return Object.assign(middleware(null), {
    ...direct,
    route(options) {
      const planned = planRoute(readRoute(options, 'limiter.route'), 'limiter.route')
      if (planned.route.critical) adaptivity?.criticalRoutes.expect(planned)
      return middleware(planned)
    },
    review,
    assign,
    unassign,
    incidents: { list: (filter) => abuse.incidents.list(filter) },
    abuse: {
      async report(clientId, what, about) {
        if (!isClientId(clientId)) throw invalidClient()
        await abuse.report(clientId, what, about)
      },
    },
    edge: createEdge(standings, fnv1a),
    async reset(clientId) {
      if (!isClientId(clientId)) throw invalidClient()
      await decider.reset(clientId, plans.owners)
    },
    ready: (waits) => readyWithin(readyToServe, waits),
    async flush() {
      // One call of it may follow another, each as patient.
      const observed = within(patienceOf(settings.deadlineMs), abuse.flush())
      await Promise.all([settler.flush(), observed, pay?.flush()])
    },
    health: () => ({
      ...healthOf(decider.health, pay?.ledgerIsSafe, isCounted && processes.isForbidden),
      ...(decider.masters && { masters: decider.masters }),
      ...adaptivity?.health,
      ...(abuse.steps !== undefined && { abuse: abuse.steps }),
    }),
    async close() {
      settler.stop()
      // Nobody waits for what is taken off a board: who closes a connection waits for what is under way on it, if not for ever.
      void adaptivity?.stop()
      const flushed = Promise.all([settler.flush(), abuse.flush(), pay?.flush()])
      // A store that is away may be back by then.
      await within(
        closeWithinMs,
        flushed.then(() => decider.drained()),
      )
      // Payments of clients that have gone are taken now.
      await within(closeWithinMs, pay?.close() ?? Promise.resolve())
      decider.close()
      void uncount()
      await store.close()
    },
  } satisfies Omit<Limiter, never>) as Limiter<Tier>
}

/** A store that could lose money is not all that it has to be. */
function healthOf(
  met: LimiterHealth['store'],
  isSafe: boolean | null | undefined,
  isForbidden: boolean,
): LimiterHealth {
  const store = isForbidden && met === 'up' ? 'degraded' : met
  if (isSafe === undefined) return { store }
  if (isSafe === false) return { store: store === 'up' ? 'degraded' : store, ledger: 'unsafe' }
  return { store, ledger: isSafe === null ? 'unknown' : 'safe' }
}

/** @throws {RampmeterError} `RAMPMETER_LEDGER_STORE` */
function checkLedger({ payments, store }: ReturnType<typeof readLimiterOptions>): void {
  if (payments?.ledger === undefined || internalsOf(payments.ledger).store === store) return
  throw new RampmeterError(
    'RAMPMETER_LEDGER_STORE',
    'the ledger is on another store than the limiter, which could not charge it with its limits; give both the same: const store = …; creditLedger({ store }); rampmeter({ store, … })',
  )
}

/**
 * Processes that share a store must agree on the nonces and tickets they give.
 *
 * @throws {RampmeterError} `RAMPMETER_KEY_SECRET_NEEDED`
 */
function requireSecret(
  verifiers: readonly Verifier[],
  { keySecrets: secrets, tickets }: Pick<Settings, 'keySecrets' | 'tickets'>,
  store: OpenStore,
): void {
  const signing = verifiers.find((verifier) => verifier.withSecrets !== undefined)
  if (secrets.length > 0 || (signing === undefined && tickets === undefined)) return
  void store.close()
  if (signing === undefined) {
    throw new RampmeterError(
      'RAMPMETER_KEY_SECRET_NEEDED',
      '`tickets` are signed, and the store is shared: the processes need a `keySecret` to know those of one another; give all of them the same, at least 16 characters',
    )
  }
  throw new RampmeterError(
    'RAMPMETER_KEY_SECRET_NEEDED',
    `the verifier "${signing.name}" gives nonces, and the store is shared: the processes need a \`keySecret\` to know those of one another; give all of them the same, at least 16 characters`,
  )
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, map: (value: T, key: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([key, value]) => [key, map(value, key)]))
}

async function within(ms: number, work: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  await Promise.race([work, new Promise((resolve) => (timer = setTimeout(resolve, ms)))])
  clearTimeout(timer)
}
