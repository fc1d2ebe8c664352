import type { Abuse, AbuseStatus } from './abuse/abuse.ts'
import { Suspensions } from './abuse/suspensions.ts'
import type { Client } from './client.ts'
import type { Ruling } from './decide.ts'
import { credentialDenial, type Refusal } from './demand.ts'
import { RampmeterError } from './errors.ts'
import type { Denial } from './identify/identify.ts'
import type { Verifier } from './identify/verifier.ts'
import type { Route, Tier } from './options.ts'
import { fnv1a } from './policies/build.ts'
import type { KnownStanding, Ladder, Step } from './standing.ts'
import type { Charge } from './stores/store.ts'
import { Recent } from './recent.ts'

/** Clients of which it is remembered what was last known, for decisions without the store. */
const rememberedClients = 50_000
/**
 * For so long, in ms: an hour. Most outages are shorter; after a longer one too many would be held to what is not so any more, since
 * nobody can be lifted meanwhile.
 */
export const heldForMs = 3_600_000

/** When an approval that cannot be looked up may be asked for again, in ms. */
const retryAwayMs = 1000

const stateId = fnv1a('@standing')

const nothing: readonly string[] = []

export interface WatchOptions {
  readonly abuse: Abuse
  readonly tiers: Readonly<Record<string, Tier>>
  readonly verifiers: readonly Verifier[]
  /** How a client can show that it holds a key. */
  readonly stepUp: () => Denial
  readonly isEnforced: (client: Client) => boolean
  /** False for a store that keeps no standings. */
  readonly hasStandings: boolean
  /** Goes on evenly. Default the process's own. */
  readonly clock?: { now(): number }
}

/** What was last known of a client, and until when the step that its score made holds. */
interface Held {
  readonly standing: KnownStanding
  readonly stepUntilMs: number
}

/** What a decision asks of a client's standing, and what it does with the answer. */
export class Watch {
  readonly #options: WatchOptions
  readonly #tierOfHash: ReadonlyMap<number, string>
  readonly #known: Recent<string, Held>
  /** Who is approved for what. */
  readonly #approved: Recent<string, true>
  readonly #clock: { now(): number }
  readonly #suspensions: Suspensions
  readonly #provesKeys: boolean

  constructor(options: WatchOptions) {
    this.#options = options
    this.#clock = options.clock ?? performance
    this.#suspensions = new Suspensions(this.#clock)
    const held = { max: rememberedClients, ttl: heldForMs, ttlResolution: 0, perf: this.#clock }
    this.#known = new Recent(held)
    this.#approved = new Recent(held)
    this.#tierOfHash = new Map(Object.keys(options.tiers).map((name) => [fnv1a(name), name]))
    this.#provesKeys = options.verifiers.some(({ mayProveKey = true }) => mayProveKey)
  }

  /** The client in the tier that people put it in, as far as is known here. */
  assigned(client: Client): Client {
    const tier = this.#tierOfHash.get(this.#known.get(client.id)?.standing.tier ?? 0)
    return tier === undefined || tier === client.tier
      ? client
      : { ...client, tier, reasons: [assignedReason, ...client.reasons] }
  }

  /** Whether the store knows of another tier than the decision was made for. */
  isOfOtherTier(client: Client, classified: Client): boolean {
    return this.assigned(classified).tier !== client.tier
  }

  /** @param pays it carries a payment, which answers a challenge */
  chargeFor(client: Client, route: Route, provesKey: boolean, pays = false): Charge | undefined {
    const { abuse, isEnforced, hasStandings } = this.#options
    if (!hasStandings && route.requireApproval) throw noStandings()
    if (!hasStandings) return undefined
    const scope = route.requireApproval ? route.name : undefined
    return {
      kind: 'standing',
      stateId,
      partition: client.id,
      windowUs: 1,
      quota: 1,
      capacity: 1,
      cost: 0,
      after: true,
      liftable: false,
      shadow: false,
      standing: abuse.query(
        this.ladderFor(client, route),
        scope,
        isEnforced(client),
        pays || this.#isAnswered(client, route, provesKey),
      ),
    }
  }

  ladderFor(client: Client, route: Route): Ladder | undefined {
    return route.ladder ?? this.#options.tiers[client.tier]?.ladder
  }

  /** Remembers what the store said of a client. */
  learn(client: Client, route: Route, { standing }: Ruling): void {
    if (standing === undefined) return
    const { id } = client
    this.#suspensions.learn(id, standing)
    const isHeld = strict.has(standing.step)
    if (standing.tier !== 0 || isHeld) {
      const isMet = standing.step !== 'challenge'
      const stepMs = isHeld ? this.#options.abuse.untilLeft(standing.score, this.ladderFor(client, route), isMet) : 0
      this.#known.set(id, { standing, stepUntilMs: this.#clock.now() + stepMs })
    } else if (this.#known.size > 0) {
      this.#known.delete(id)
    }
    if (!route.requireApproval) return
    if (standing.unapproved) this.#approved.delete(approvalName(id, route))
    else this.#approved.set(approvalName(id, route), true)
  }

  /** Why a client is refused for what it is, and not for what it asks; undefined where it is not. */
  refusalOf(
    client: Client,
    route: Route,
    provesKey: boolean,
    ruling: Ruling,
    query: Charge | undefined,
    pays = false,
  ): Refusal | undefined {
    const { standing } = ruling
    const left = ruling.degraded ? this.#suspensions.leftOf(client.id) : undefined
    if (left !== undefined) return { reason: 'abuse', retryAfterMs: left, violated: nothing }
    const refusal = this.#refusalOf(client, route, provesKey, ruling, query, pays)
    // Where its quotas refuse it too, that is not what it has to know.
    if (refusal?.reason === 'approval' || refusal?.stands === true) return { ...refusal, violated: nothing }
    if (refusal?.reason !== 'abuse') return refusal
    if (standing?.suspended === true) {
      return { ...refusal, retryAfterMs: standing.suspendedForMs ?? null, violated: nothing }
    }
    if (refusal.denial === undefined || standing === undefined) return { ...refusal, violated: nothing }
    const retryAfterMs = this.#options.abuse.untilLeft(standing.score, this.ladderFor(client, route), false)
    return { ...refusal, retryAfterMs, violated: nothing }
  }

  /** Remembers at once what people decide in this process; undefined in the place of a time: lifted. */
  decided(id: string, suspended: { readonly forMs: number | undefined } | undefined): void {
    if (suspended !== undefined) return this.#suspensions.add(id, suspended.forMs)
    this.#suspensions.remove(id)
    this.#known.delete(id)
  }

  /** Remembers an approval that people gave in this process. */
  approved(id: string, scope: string): void {
    this.#approved.set(approvalName(id, { name: scope }), true)
  }

  /** Forgets an approval that people took back in this process. */
  revoked(id: string, scope: string): void {
    this.#approved.delete(approvalName(id, { name: scope }))
  }

  #refusalOf(
    client: Client,
    route: Route,
    provesKey: boolean,
    ruling: Ruling,
    query: Charge | undefined,
    pays: boolean,
  ): Refusal | undefined {
    const { abuse } = this.#options
    const known = ruling.standing ?? this.#heldTo(client, ruling)
    if (known?.suspended === true) return { reason: 'abuse', retryAfterMs: null }
    if (known?.unapproved === true) {
      // People approve somebody with a name: a stranger is asked for that first.
      if (this.#mayProveItself(client)) {
        return { reason: 'proof', retryAfterMs: null, denial: credentialDenial(this.#options.verifiers), stands: true }
      }
      abuse.askApproval(client, route.name!)
      return { reason: 'approval', retryAfterMs: null }
    }
    if (ruling.degraded && route.requireApproval && !this.#approved.has(approvalName(client.id, route))) {
      return { reason: 'store', retryAfterMs: retryAwayMs }
    }
    if (known === undefined) return undefined
    if (query?.standing?.enforce !== true) return undefined
    const isDenied = isRefusal(known.step)
    if (isDenied && (provesKey || !this.#mayProveItself(client))) {
      const heldMs = (this.#known.get(client.id)?.stepUntilMs ?? 0) - this.#clock.now()
      const isAnswered = this.#isAnswered(client, route, provesKey)
      const retryAfterMs = ruling.degraded
        ? Math.ceil(heldMs)
        : abuse.untilLeft(known.score, this.ladderFor(client, route), isAnswered)
      return { reason: 'abuse', retryAfterMs }
    }
    if (isDenied || (known.step === 'challenge' && !pays && !this.#isAnswered(client, route, provesKey))) {
      const payable = !isDenied && !ruling.degraded
      return { reason: 'abuse', retryAfterMs: null, denial: this.#denialFor(client), ...(payable && { payable }) }
    }
    return undefined
  }

  statusOf(client: Client, ruling: Ruling, provesKey: boolean): AbuseStatus | undefined {
    const standing = ruling.standing ?? this.#heldTo(client, ruling)
    const status = this.#options.abuse.statusOf(standing)
    if (status === undefined || standing?.suspended === true || provesKey || !this.#mayProveItself(client))
      return status
    // Denied it would be challenged.
    if (!isRefusal(status.step) && !isRefusal(status.shadow ?? 'allow')) return status
    const { step, shadow, ...rest } = status
    const met = isRefusal(step) ? 'challenge' : step
    const untaken = shadow !== undefined && isRefusal(shadow) ? 'challenge' : shadow
    return { ...rest, step: met, ...(untaken !== undefined && untaken !== met && { shadow: untaken }) }
  }

  /** What was last known of a client, where the store is away. */
  #heldTo({ id }: Client, { degraded }: Ruling): KnownStanding | undefined {
    const held = degraded ? this.#known.get(id) : undefined
    if (held === undefined) return undefined
    // Suspensions hold for as long as they were made for.
    const standing = { ...held.standing, suspended: false, unapproved: false }
    return held.stepUntilMs > this.#clock.now() ? standing : { ...standing, ...nothingHeld }
  }

  /** Strangers answer for all who share their address. A credential shows who is none of those that are meant, so it is asked for. */
  #mayProveItself({ id, address, provedBy }: Client): boolean {
    return provedBy === null && id === address && this.#options.verifiers.length > 0
  }

  /** Where nothing could answer a challenge, none is asked for: throttling has to do. */
  #isAnswered(client: Client, route: Route, provesKey: boolean): boolean {
    if (this.#provesKeys || provesKey || this.answerPriceFor(client, route) !== undefined) return provesKey
    return this.#options.verifiers.length === 0 || client.provedBy !== null
  }

  /** What a payment costs that answers a challenge, on a route without a price; undefined where none is asked for. */
  answerPriceFor(client: Client, route: Route): { readonly credits: number } | undefined {
    return this.#options.abuse.answerPrice(this.ladderFor(client, route))
  }

  /** What asks for what answers a challenge, besides a payment. */
  #denialFor({ provedBy }: Client): Denial {
    const { verifiers, stepUp } = this.#options
    if (this.#provesKeys) return stepUp()
    return verifiers.length > 0 && provedBy === null ? credentialDenial(verifiers) : onlyPayment
  }
}

/** Of a store that knows no clients. */
export function noStandings(): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_NO_STANDINGS',
    'the store keeps limits and knows no clients; use memoryStore or redisStore, or give your store `standings`',
  )
}

const onlyPayment: Denial = { status: 402, challenges: [] }

const strict: ReadonlySet<Step> = new Set<Step>(['challenge', 'deny', 'suspend'])
function isRefusal(step: Step): boolean {
  return step === 'deny' || step === 'suspend'
}

const nothingHeld = { score: 0, signals: 0, step: 'allow' } as const

/** A route with `requireApproval` has a name, which is the scope. */
function approvalName(id: string, { name }: Pick<Route, 'name'>): string {
  return `${name} ${id}`
}

const assignedReason = 'people put it in this tier'
