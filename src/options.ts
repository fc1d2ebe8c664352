import { IncomingMessage } from 'node:http'
import { Socket } from 'node:net'
import type { Request } from 'express'
import * as z from 'zod'
import { isAdaptive, type Adaptive } from './adaptive/adaptive.ts'
import { abuseOption, ladderOption, type AbuseOptions, type AbuseSettings } from './abuse/options.ts'
import type { Client } from './client.ts'
import { parseDuration, type Duration } from './duration.ts'
import { RampmeterError } from './errors.ts'
import type { Verifier } from './identify/verifier.ts'
import {
  checkPrice,
  readPayments,
  type PaymentSettings,
  type PaymentsOptions,
  type RoutePrice,
} from './payments/options.ts'
import { firstMinutes } from './policies/first-minutes.ts'
import type { Cost, OnStoreError, Policy } from './policy.ts'
import { readOptions } from './read-options.ts'
import { clashOf, type HeaderFamily } from './respond/fields.ts'
import type { RefusalHandler } from './respond/refuse.ts'
import type { Ladder } from './standing.ts'
import type { Store } from './stores/store.ts'
import type { InitialBurst, PoolOptions, PresetTier, TierAdaptivity, TierOptions } from './tier.ts'

/** What a route does differently: for `limiter.route(…)`, and as a value of the `routes` table. */
export interface RouteOptions<Tier extends string = string> {
  /** What the route is called where decisions are observed. */
  name?: string
  /** What a request costs, for every policy that has no cost of its own. Default 1. In `routes` it is also given the path's parameters. */
  cost?: RouteCost
  /**
   * What a request costs in credits, or what says so: `{ credits: 5 }`, or as a deposit `{ credits: 50, hold: '15m' }`. Needs
   * `payments` of the limiter. Default: nothing.
   */
  price?: RoutePrice
  /**
   * Limits of the route's own, on top of the tier's. Either one list for everybody, or one for each tier that has its own,
   * with `default` for the others.
   */
  policies?: readonly Policy[] | Partial<Record<Tier | 'default', readonly Policy[]>>
  /** The route's policies stand instead of the tier's, for each tier that it has some for. Default false. */
  replace?: boolean
  /**
   * A header field of the response that tells what it cost, as a whole number. It corrects the charge as `settle` does and is
   * taken out before the response leaves.
   */
  costHeader?: string
  /** What a request touches, for `uniqueTargets` that do not say themselves and for `abuse`: one text, or up to 32. Default: the path. */
  target?: RouteTarget
  /**
   * Only whoever proved to hold a key (DPoP, mTLS, a signature, an attestation) is let in; others are answered 401, with the
   * challenge that says how. Default: what the tier says.
   */
  requirePoP?: boolean
  /** Scopes that the client's token must all have; otherwise 403 `insufficient_scope`. Default none. */
  scopes?: readonly string[]
  /**
   * An action that must not be guessed at or flooded: its `policies` are lifted by no tier and no first minutes, its
   * `failures` reserve, and without a store it is closed. Default false.
   */
  highRisk?: boolean
  /** Served last to go where the limiter is `adaptive`: no cut of the tier's quotas counts here. Default false. */
  critical?: boolean
  /**
   * Whether its answers say how the app is, where the limiter is `adaptive`. False for what waits on purpose, such as long polls:
   * neither their time and errors count, nor that they are in flight. Their quotas stay. Default true.
   */
  health?: boolean
  /** What is done at which score here. Default: what the tier says, then `abuse`. */
  ladder?: Ladder
  /** Only clients that people have approved are let in: `limiter.review.approve(clientId, { scope, by })`. The route's `name` is the scope. Default false. */
  requireApproval?: boolean
}

/** What a request touches; with the parameters of the matched path for an entry of `routes`. */
export type RouteTarget = (
  req: Request,
  client: Client,
  params: Record<string, string | string[] | undefined>,
) => string | readonly string[] | undefined

/** A route's cost: as a policy's, with the parameters of the matched path for an entry of `routes`. */
export type RouteCost =
  | number
  | ((req: Request, client: Client, params: Record<string, string | string[] | undefined>) => number | Promise<number>)

/** Options of {@link rampmeter}. All have a default: `rampmeter()` works. */
export interface LimiterOptions<Tier extends string = PresetTier, Pool extends string = never> {
  /** Where the counters live. Default `memoryStore()`: this process only. */
  store?: Store
  /** Who is asking: verifiers, tried in order. The first identity wins; later ones add claims. Default `[]`: by address only. */
  identify?: readonly Verifier[]
  /**
   * Names the tier of a request; `client.tier` is what the presets would say. Default: the presets' own answer.
   * A name that is not configured fails the request with `RAMPMETER_UNKNOWN_TIER`; it is never unlimited.
   */
  classify?: (req: Request, client: Client<PresetTier | NoInfer<Tier>>) => NoInfer<Tier> | Promise<NoInfer<Tier>>
  /** The tiers and their limits. Default `presetTiers()`; to change one, `{ ...presetTiers(), human: { … } }`. */
  tiers?: Record<Tier, TierOptions<NoInfer<Pool>>>
  /** Instead of `tiers`: one set of limits for everybody, in a tier called `default`. */
  policies?: readonly Policy[]
  /**
   * Capacity that tiers share: name it in a tier with `pool`. Where several tiers share one, each keeps a guaranteed part, and
   * of the rest a tier gets what those of higher `priority` leave.
   */
  pools?: Record<Pool, PoolOptions>
  /** What single routes do differently: `'POST /search/:id'` or `'/search/:id'`, paths as in Express 5. The first that matches counts. */
  routes?: Record<string, RouteOptions<NoInfer<Tier>>>
  /** Lets quotas follow the load, and limits what is in flight: `adaptive()`. Default, and `false`: they stay as they are. */
  adaptive?: Adaptive | false | null
  /** Which header families to send. Default `['draft-11', 'draft-6']`. */
  headers?: readonly HeaderFamily[]
  /** Adds the limiter's fields to `Access-Control-Expose-Headers`, so that a browser's scripts can read them. Default false. */
  exposeHeaders?: boolean
  /** Where the limits are explained; in the refusal's body, for tiers that have none of their own. */
  docsUrl?: string
  /** Where a better tier can be had; in the refusal's body, for tiers that have none of their own, and that are not the best already. */
  upgradeUrl?: string
  /** Watches what clients do, and answers in proportion; `{}` means all presets. Default: nothing is watched. */
  abuse?: AbuseOptions
  /** Where the decision is put on the request, a name that requests do not have already. Default `rateLimit`. */
  property?: string
  /**
   * What policies without one of their own do when the store is away: `local` (default) decides in this process with a share
   * of the quota, `open` admits, `closed` refuses with 503.
   */
  onStoreError?: OnStoreError
  /** How many processes share the store, for the local share. Default: as many as were last seen in it, else 1. */
  processes?: number
  /** The longest a request waits for the store. Default 50 ms. */
  deadline?: Duration
  /** `shadow` decides, counts and reports, refuses nothing and sends no RateLimit fields. Default `enforce`. */
  mode?: 'enforce' | 'shadow'
  /** Enforces for this share of the clients, in percent, always the same ones; the others are in shadow. Default 100. */
  enforcePercent?: number
  /** Requests for which this is true are not seen at all: health checks, static files. */
  skip?: (req: Request) => boolean | Promise<boolean>
  /** Writes the body of a refusal. The status and all fields are set already. */
  handler?: RefusalHandler
  /** The address a request comes from. Default Express's `req.ip`, which obeys its `trust proxy`. */
  trustedAddress?: (req: Request) => string | undefined
  /**
   * How many wrong credentials an address may show within a window before no further unknown credential of it is looked at.
   * Default 20 a minute.
   */
  verification?: { failures: { quota: number; window: Duration } }
  /** The prefix length that counts as one IPv6 client. Default 64. */
  ipv6Subnet?: number
  /** How routes with a `price` are paid. Default: no route has one. */
  payments?: PaymentsOptions
  /**
   * Makes the names of counters in the store, and the `pk` that tells partitions apart on the wire, unguessable: at least 16
   * characters, the same in all processes. As a list, the newest first; names are made with the last, so that adding one in
   * front forgets nothing. Without it names are hashed without a key, and no `pk` is sent.
   */
  keySecret?: string | readonly [string, ...string[]]
  /**
   * Reserves slots for those who are refused: a refusal carries a ticket, and whoever returns it when it was told is admitted,
   * whatever else came meanwhile. Default `false`; `true` means `{ share: 0.25, horizon: '60s' }`. On a shared store it needs a
   * `keySecret`. All limiters that share counters should have the same.
   */
  tickets?: boolean | TicketOptions
}

/** How much is reserved for tickets, and for how long. */
export interface TicketOptions {
  /** The share of a policy's quota that may be reserved at a time, from 0.01 to 1. Default 0.25. */
  share?: number
  /** How far ahead a slot may be, from 1 s to an hour. Default `60s`. */
  horizon?: Duration
}

/** A route as the limiter works with it. */
export interface Route {
  readonly name: string | undefined
  /** What it is called where something is wrong with it. */
  readonly called: string
  readonly cost: RouteCost
  readonly price: RoutePrice | undefined
  readonly policies: Readonly<Record<string, readonly Policy[]>>
  readonly replace: boolean
  readonly costHeader: string | undefined
  readonly target: RouteTarget | undefined
  readonly highRisk: boolean
  readonly critical: boolean
  readonly health: boolean
  readonly requirePoP: boolean
  readonly scopes: readonly string[]
  readonly ladder: Ladder | undefined
  readonly requireApproval: boolean
}

/** A tier as the limiter works with it. */
export interface Tier {
  readonly policies: readonly Policy[]
  readonly initialBurst: InitialBurst | undefined
  readonly pool: string | undefined
  readonly priority: number
  readonly adaptive: Required<TierAdaptivity>
  readonly requirePoP: boolean
  readonly ladder: Ladder | undefined
  readonly docsUrl: string | undefined
  readonly upgradeUrl: string | undefined
}

/** A pool as the limiter works with it. */
export interface Pool {
  readonly policies: readonly Policy[]
  readonly guarantee: number
}

/** The options as the limiter works with them. */
export interface Settings {
  readonly store: Store | undefined
  readonly identify: readonly Verifier[]
  readonly classify: ((req: Request, client: Client) => string | Promise<string>) | undefined
  readonly tiers: Readonly<Record<string, Tier>>
  readonly pools: Readonly<Record<string, Pool>>
  readonly routes: Readonly<Record<string, Route>>
  readonly adaptive: Adaptive | undefined
  readonly headers: readonly HeaderFamily[]
  readonly exposeHeaders: boolean
  readonly docsUrl: string | undefined
  readonly upgradeUrl: string | undefined
  readonly abuse: AbuseSettings | undefined
  readonly property: string
  readonly onStoreError: OnStoreError
  readonly processes?: number | undefined
  readonly deadlineMs: number
  readonly mode: 'enforce' | 'shadow'
  readonly enforcePercent: number
  readonly skip: LimiterOptions['skip']
  readonly handler: LimiterOptions['handler']
  readonly trustedAddress: LimiterOptions['trustedAddress']
  readonly ipv6Subnet: number
  readonly payments: PaymentSettings | undefined
  readonly verification: { readonly failures: { readonly quota: number; readonly windowMs: number } }
  /** The newest first. Empty: names are hashed without a key. */
  readonly keySecrets: readonly string[]
  readonly tickets: { readonly share: number; readonly horizonMs: number } | undefined
}

/** The tier of a limiter that was given `policies`. */
export const defaultTier = 'default'

const aFunction = <T>(): z.ZodType<T> => z.custom<T>((value) => typeof value === 'function', 'a function')

const policies = z.array(
  z.custom<Policy>(
    (value) => typeof value === 'object' && value !== null && 'stateId' in value,
    'a policy, made by tokenBucket(…), slidingWindow(…), concurrency(…) or another builder of rampmeter',
  ),
)

const url = z.url({ protocol: /^https?$/, error: 'an http(s) URL' })

const tierName = /^[\w.-]{1,64}$/

const tierAdaptivity = z.strictObject({
  floor: z.number().min(0).max(1).default(0),
  ceiling: z.number().min(1).max(10).default(10),
  weight: z.number().min(0).max(10).default(1),
})

const asItGoes: Required<TierAdaptivity> = { floor: 0, ceiling: 10, weight: 1 }

const tierSchema: z.ZodType<TierOptions<string>> = z.strictObject({
  policies,
  initialBurst: z.custom<InitialBurst>((value) => typeof value === 'object' && value !== null, 'an object').optional(),
  pool: z.string().optional(),
  priority: z.int().min(0).max(1000).optional(),
  adaptive: tierAdaptivity.optional(),
  requirePoP: z.boolean().optional(),
  ladder: ladderOption.optional(),
  docsUrl: url.optional(),
  upgradeUrl: url.optional(),
}) as z.ZodType<TierOptions<string>>

const poolSchema = z.strictObject({ policies, guarantee: z.number().min(0).max(0.5).default(0.1) })

const routeSchema = z.strictObject({
  name: z.string().min(1).max(128).optional(),
  cost: z
    .union([z.int().min(0).max(1e12), aFunction<Exclude<Cost, number>>()], {
      error: 'a whole number from 0 to 10^12, or a function of the request and the client',
    })
    .default(1),
  price: z
    .custom<RoutePrice>(
      (value) => typeof value === 'function' || (typeof value === 'object' && value !== null),
      'a price such as { credits: 5 }, or a function',
    )
    .optional(),
  policies: z
    .union([policies, z.record(z.string(), policies)], { error: 'a list of policies, or one for each tier' })
    .optional(),
  replace: z.boolean().default(false),
  costHeader: z
    .string()
    .regex(/^[\w!#$%&'*+.^`|~-]+$/, 'the name of a header field')
    .optional(),
  target: aFunction<RouteTarget>().optional(),
  highRisk: z.boolean().default(false),
  critical: z.boolean().default(false),
  health: z.boolean().default(true),
  requirePoP: z.boolean().default(false),
  scopes: z
    .array(
      z
        .string()
        .regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'a scope: printable ASCII without spaces, quotes and backslashes'),
    )
    .default([]),
  ladder: ladderOption.optional(),
  requireApproval: z.boolean().default(false),
})

const secret = z.string().min(16, 'a text of at least 16 characters')

const ticketSchema = z.strictObject({
  share: z.number().min(0.01).max(1).default(0.25),
  horizon: z
    .unknown()
    .transform((value) => parseDuration(value, "tickets' horizon"))
    .prefault('60s'),
})

/** What Express and the usual body parsers put on a request; what Node does is there to be looked at. */
const namesOfExpress: ReadonlySet<string> = new Set(
  'app baseUrl body cookies fresh host hostname ip ips next originalUrl params path protocol query range res route secure signedCookies stale subdomains xhr'.split(
    ' ',
  ),
)

const isTaken = (name: string): boolean =>
  namesOfExpress.has(name) || name in IncomingMessage.prototype || name in new IncomingMessage(new Socket())

const limiterSchema = z.strictObject({
  store: z
    .custom<Store>(
      (value) => typeof (value as Partial<Store> | null)?.open === 'function',
      'a store, such as memoryStore() or redisStore(new Redis())',
    )
    .optional(),
  identify: z
    .array(
      z.custom<Verifier>(
        (value) => typeof (value as Partial<Verifier> | null)?.verify === 'function',
        'a verifier, such as apiKey({ lookup })',
      ),
    )
    .default([]),
  classify: aFunction<Settings['classify'] & {}>().optional(),
  tiers: z
    .record(z.string().regex(tierName, 'a tier name of 1 to 64 letters, digits, ".", "_" or "-"'), tierSchema)
    .optional(),
  policies: policies.optional(),
  pools: z
    .record(z.string().regex(tierName, 'a pool name of 1 to 64 letters, digits, ".", "_" or "-"'), poolSchema)
    .default({}),
  routes: z.record(z.string(), z.unknown()).default({}),
  adaptive: z
    .custom<Adaptive | false | null>(
      (value) => value === false || value === null || isAdaptive(value),
      'what `adaptive({ … })` returns, or false',
    )
    .optional(),
  headers: z.array(z.enum(['draft-11', 'draft-7', 'draft-6', 'legacy'])).default(['draft-11', 'draft-6']),
  exposeHeaders: z.boolean().default(false),
  docsUrl: url.optional(),
  upgradeUrl: url.optional(),
  abuse: abuseOption.optional(),
  property: z
    .string()
    .min(1)
    .refine((name) => !isTaken(name), 'a name that requests do not have already')
    .default('rateLimit'),
  onStoreError: z.enum(['local', 'open', 'closed']).default('local'),
  processes: z.int().min(1).max(100_000).optional(),
  deadline: z
    .unknown()
    .transform((value) => parseDuration(value, 'deadline'))
    .prefault('50ms'),
  mode: z.enum(['enforce', 'shadow']).default('enforce'),
  enforcePercent: z.number().min(0).max(100).default(100),
  skip: aFunction<Settings['skip'] & {}>().optional(),
  handler: aFunction<Settings['handler'] & {}>().optional(),
  trustedAddress: aFunction<Settings['trustedAddress'] & {}>().optional(),
  ipv6Subnet: z.int().min(1).max(128).default(64),
  payments: z.unknown().optional(),
  verification: z
    .strictObject({
      failures: z
        .strictObject({
          quota: z.int().min(1).max(1000),
          window: z.unknown().transform((value) => parseDuration(value, "verification's window")),
        })
        .transform(({ quota, window }) => ({ quota, windowMs: window })),
    })
    .prefault({ failures: { quota: 20, window: '1m' } }),
  keySecret: z
    .union([secret, z.array(secret).min(1)], { error: 'a text of at least 16 characters, or a list of such' })
    .optional(),
  tickets: z
    .union([z.boolean(), ticketSchema], { error: 'true, false or { share, horizon }: a share from 0.01 to 1' })
    .default(false),
})

/**
 * Reads the limiter's options once, so that no request has to.
 *
 * @throws {RampmeterError} with a code for each kind of mistake
 */
export function readLimiterOptions(
  options: object,
  presets: Readonly<Record<PresetTier, TierOptions<string>>>,
): Settings {
  const read = readOptions(limiterSchema, options, 'rampmeter')
  if (read.tiers !== undefined && read.policies !== undefined) {
    throw new RampmeterError(
      'RAMPMETER_TIERS_AND_POLICIES',
      'both `tiers` and `policies` were given; `policies` is for one set of limits for everybody: write only one of the two',
    )
  }
  if (read.classify !== undefined && read.policies !== undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      '`classify` chooses among `tiers`, and `policies` has none; give `tiers`, or leave `classify` out',
    )
  }
  const clash = clashOf(read.headers)
  if (clash !== null) {
    throw new RampmeterError(
      'RAMPMETER_HEADERS_CLASH',
      `\`headers\` lists ${clash.map((family) => `"${family}"`).join(' and ')}, which use the same field names; write one of them`,
    )
  }
  if (read.policies !== undefined && Object.keys(read.pools).length > 0) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      '`pools` were given beside `policies`; tiers draw on pools, so write `tiers`, or put a limit for everybody among `policies` with partition: "global"',
    )
  }
  const tiers =
    read.policies === undefined
      ? readTiers(read.tiers ?? presets, presets, read.pools, read.classify !== undefined)
      : oneTier(read.policies)
  const { keySecret, deadline, policies: _, tickets, ...rest } = read
  return {
    ...rest,
    store: read.store,
    adaptive: read.adaptive || undefined,
    classify: read.classify,
    abuse: read.abuse,
    docsUrl: read.docsUrl,
    upgradeUrl: read.upgradeUrl,
    skip: read.skip,
    handler: read.handler,
    trustedAddress: read.trustedAddress,
    payments: read.payments === undefined ? undefined : readPayments(read.payments),
    tiers,
    routes: Object.fromEntries(
      Object.entries(read.routes).map(([key, route]) => [key, readRoute(route, `routes[${JSON.stringify(key)}]`)]),
    ),
    deadlineMs: deadline,
    keySecrets: keySecret === undefined ? [] : [keySecret].flat(),
    tickets: tickets === false ? undefined : readTickets(tickets),
  }
}

function readTickets(tickets: true | z.output<typeof ticketSchema>): Settings['tickets'] {
  const { share, horizon } = tickets === true ? ticketSchema.parse({}) : tickets
  if (horizon >= 1000 && horizon <= 3_600_000) return { share, horizonMs: horizon }
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `tickets' horizon came out as ${horizon} ms; slots are reserved for at least a second ahead, and for at most an hour: write '60s'`,
  )
}

function oneTier(policies: readonly Policy[]): Record<string, Tier> {
  return {
    [defaultTier]: {
      policies,
      initialBurst: undefined,
      pool: undefined,
      priority: 0,
      adaptive: asItGoes,
      requirePoP: false,
      ladder: undefined,
      docsUrl: undefined,
      upgradeUrl: undefined,
    },
  }
}

function readTiers(
  tiers: Readonly<Record<string, TierOptions<string>>>,
  presets: object,
  pools: Readonly<Record<string, Pool>>,
  classified: boolean,
): Record<string, Tier> {
  if (defaultTier in tiers) {
    throw new RampmeterError(
      'RAMPMETER_RESERVED_TIER',
      'a tier is called "default", the name that `policies` and per-tier routes use; give it another',
    )
  }
  const missing = Object.keys(presets).filter((name) => !(name in tiers))
  if (missing.length > 0 && !classified) {
    throw new RampmeterError(
      'RAMPMETER_TIERS_NEED_CLASSIFY',
      `\`tiers\` lacks ${missing.map((name) => `"${name}"`).join(', ')}, where the presets would put clients; add \`classify: (req, client) => …\` that names your tiers, or start from { ...presetTiers(), … }`,
    )
  }
  const unused = Object.keys(pools).find((name) => !Object.values(tiers).some(({ pool }) => pool === name))
  if (unused !== undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `no tier draws on the pool ${JSON.stringify(unused)}; name it in one, with pool: ${JSON.stringify(unused)}, or leave it out`,
    )
  }
  return Object.fromEntries(
    Object.entries(tiers).map(
      ([
        name,
        {
          policies,
          initialBurst,
          pool,
          priority = 0,
          adaptive = asItGoes,
          requirePoP = false,
          ladder,
          docsUrl,
          upgradeUrl,
        },
      ]) => {
        // Also where it has nothing to stand in for.
        if (initialBurst !== undefined) firstMinutes(initialBurst)
        if (pool !== undefined && !Object.hasOwn(pools, pool)) {
          throw new RampmeterError(
            'RAMPMETER_UNKNOWN_POOL',
            `the tier "${name}" names the pool ${JSON.stringify(pool)}; \`pools\` has ${
              Object.keys(pools)
                .map((one) => `"${one}"`)
                .join(', ') || 'none'
            }`,
          )
        }
        return [
          name,
          {
            policies,
            initialBurst,
            pool,
            priority,
            adaptive: { ...asItGoes, ...adaptive },
            requirePoP,
            ladder,
            docsUrl,
            upgradeUrl,
          },
        ]
      },
    ),
  )
}

/**
 * Reads the options of a route.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function readRoute(options: unknown, what: string): Route {
  const { policies = {}, replace, highRisk, cost, ...rest } = readOptions(routeSchema, options, what)
  if (replace && Object.keys(policies).length === 0 && !Array.isArray(policies)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: \`replace\` is true and there are no \`policies\` to stand in the tier's place; give some, or \`policies: []\` for a route without limits`,
    )
  }
  if (highRisk && !Array.isArray(policies)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      Object.keys(policies).length === 0
        ? `${what}: highRisk is about the route's own \`policies\`, and there are none; write those that the action needs`
        : `${what}: a highRisk route has the same limits for every tier; write \`policies\` as one list`,
    )
  }
  if (rest.requireApproval && rest.name === undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: \`requireApproval\` has people approve the route's name, and it has none; give it a \`name\``,
    )
  }
  if (rest.price !== undefined && typeof rest.price !== 'function') checkPrice(rest.price, `the price of ${what}`)
  const unnamed = what === 'limiter.route' ? 'a route (give it a `name` to see which)' : what
  return {
    name: rest.name,
    called: rest.name === undefined ? unnamed : `route ${JSON.stringify(rest.name)}`,
    cost: cost as RouteCost,
    price: rest.price,
    policies: Array.isArray(policies) ? { [defaultTier]: policies } : policies,
    replace,
    costHeader: rest.costHeader,
    target: rest.target,
    highRisk,
    critical: rest.critical,
    health: rest.health,
    requirePoP: rest.requirePoP,
    scopes: rest.scopes,
    ladder: rest.ladder,
    requireApproval: rest.requireApproval,
  }
}

/**
 * Checks a list of policies that came without options around it.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 */
export function readPolicies(value: unknown, what: string): readonly Policy[] {
  return readOptions(z.strictObject({ policies }), { policies: value }, what).policies
}

/** What a request is that no route says anything about. */
export const plainRoute: Route = {
  name: undefined,
  called: 'a request',
  cost: 1,
  price: undefined,
  policies: {},
  replace: false,
  costHeader: undefined,
  target: undefined,
  highRisk: false,
  critical: false,
  health: true,
  requirePoP: false,
  scopes: [],
  ladder: undefined,
  requireApproval: false,
}
