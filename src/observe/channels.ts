import { channel, type Channel } from 'node:diagnostics_channel'
import type { Client } from '../client.ts'
import type { Decision } from '../decision.ts'
import { classAndCodeOf, RampmeterError, withoutCode } from '../errors.ts'
import type { StoreName } from '../store-name.ts'

/** A message of `rampmeter:decision`: one for each decision. It carries no claims, no request and no credential. */
export interface DecisionMessage extends Pick<
  Decision,
  'admitted' | 'enforced' | 'limits' | 'violated' | 'retryAfterMs' | 'degraded'
> {
  readonly client: Pick<Client, 'id' | 'kind' | 'tier' | 'provedBy'>
  readonly reason: Decision['reason'] | null
  /** What the client's conduct comes to; null without the option `abuse`. */
  readonly abuse: Pick<NonNullable<Decision['abuse']>, 'score' | 'step' | 'shadow' | 'signals'> | null
  /** The route's name, where it has one. */
  readonly route: string | null
}

/**
 * A message of `rampmeter:degraded`: one for each decision that was made without the store, for each correction that is not
 * known to have been delivered, for each request that a client's own flood left no room for, and one when the store is back.
 */
export interface DegradedMessage {
  /**
   * `away`: it was decided without the store. `back`: the store answers again. `unsettled`: what there was to tell it beside decisions
   * (what a request turned out to cost, what a client did) is not known to have reached it, which by itself is no outage. `crowded`: the store is well,
   * and a client asked for more at once than could be sent within the deadline; what was too much is refused, and it is no outage.
   */
  readonly state: 'away' | 'back' | 'crowded' | 'unsettled'
  /** Milliseconds since 1970. */
  readonly at: number
  /** When this outage began, likewise. */
  readonly since: number
  /** For how long it has lasted, in ms, also where the clock was set meanwhile. */
  readonly forMs: number
  /** How long the store was waited for, in ms: 0 while it is not asked any more but for probes. */
  readonly waitedMs: number
  /** The code of what went wrong, such as `RAMPMETER_STORE_UNAVAILABLE`, and its cause in words; of `back` what went wrong last. */
  readonly code: string
  readonly cause: string
  /**
   * Decisions made without the store in this outage, this one included; of `back` all of them. Of `crowded` those of one flood, as are `since` and
   * `forMs`: it is over after a second without.
   */
  readonly count: number
  /** Which store it is, by where it was to be found; null of one that does not say. It has no credentials. */
  readonly store: StoreName | null
}

/**
 * Why a ticket that was shown counted for nothing.
 *
 * - `forged`: it is none of ours, or cannot be read.
 * - `foreign`: it was issued to another client, another key, or for other charges: another route or cost.
 * - `lapsed`: it came more than 2 s after its time.
 * - `used`: it was used before, or what it reserved has been forgotten since.
 */
export type TicketFailure = 'forged' | 'foreign' | 'lapsed' | 'used'

/** A message of `rampmeter:ticket`: one for each ticket that counted for nothing. It does not carry the ticket. */
export interface TicketMessage {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly client: Pick<Client, 'id' | 'kind' | 'tier' | 'provedBy'>
  readonly address: string | null
  readonly why: TicketFailure
}

/** A message of `rampmeter:level`: one for each change of the level of an adaptive limiter. */
export interface LevelMessage {
  readonly from: string
  readonly to: string
  /** What quotas are multiplied by from now on, before a tier's own weight. */
  readonly multiplier: number
  /** Why, where it is trouble: `latency`, `errors`, `eventLoop` or `cpu`; on the way up still what it was. Else null. */
  readonly cause: string | null
  /** This process is in another level by itself, and follows one that is, or just was, worse off. */
  readonly shared: boolean
  /** As `limiter.health()` has it. */
  readonly health: object
}

const decisions: Channel = channel('rampmeter:decision')
const degradations: Channel = channel('rampmeter:degraded')
const tickets: Channel = channel('rampmeter:ticket')

const levels: Channel = channel('rampmeter:level')

/** Tells who listens that the level has changed. */
export function observeLevel(message: LevelMessage): void {
  if (levels.hasSubscribers) levels.publish(message)
}

/** Tells who listens about a decision; builds nothing when nobody does. */
export function observeDecision(decision: Decision, route: string | undefined): void {
  if (!decisions.hasSubscribers) return
  const { admitted, enforced, limits, violated, retryAfterMs, degraded, reason } = decision
  const { id, kind, tier, provedBy } = decision.client
  const message: DecisionMessage = {
    client: { id, kind, tier, provedBy },
    admitted,
    enforced,
    limits,
    violated,
    retryAfterMs,
    degraded,
    reason: reason ?? null,
    abuse: decision.abuse ?? null,
    route: route ?? null,
  }
  decisions.publish(message)
}

/** Tells who listens that a ticket counted for nothing. */
export function observeTicket({ id, kind, tier, provedBy, address }: Client, why: TicketFailure): void {
  if (!tickets.hasSubscribers) return
  const message: TicketMessage = { at: Date.now(), client: { id, kind, tier, provedBy }, address, why }
  tickets.publish(message)
}

/** Tells who listens that a decision was made without the store. */
export function observeDegraded(
  { waitedMs, ...outage }: Outage & { readonly waitedMs: number },
  store: StoreName | null,
): void {
  publish('away', store, outage, waitedMs)
}

/** Tells who listens that a client asked for more at once than could be sent. */
export function observeCrowded(
  { waitedMs, ...outage }: Outage & { readonly waitedMs: number },
  store: StoreName | null,
): void {
  publish('crowded', store, outage, waitedMs)
}

/** Tells who listens that the store is back. */
export function observeBack(outage: Outage, store: StoreName | null): void {
  publish('back', store, outage, 0)
}

/** Tells who listens that what there was to tell the store beside decisions is not known to have reached it. */
export function observeUnsettled(error: unknown, store: StoreName | null): void {
  publish('unsettled', store, { error, since: Date.now(), forMs: 0, count: 1 }, 0)
}

/** What is known of an outage. */
interface Outage {
  readonly error: unknown
  readonly count: number
  readonly since: number
  readonly forMs: number
}

function publish(
  state: DegradedMessage['state'],
  store: StoreName | null,
  { error, since, forMs, count }: Outage,
  waitedMs: number,
): void {
  if (!degradations.hasSubscribers) return
  const { code } = error as { code?: unknown }
  const message: DegradedMessage = {
    state,
    at: Date.now(),
    since,
    forMs,
    waitedMs,
    code: typeof code === 'string' ? code : 'RAMPMETER_STORE_UNAVAILABLE',
    cause: causeOf(error),
    count,
    store,
  }
  degradations.publish(message)
}

/** What went wrong: of our own errors what they say, of others the class and the code. */
export function causeOf(error: unknown): string {
  const { cause } = error as { cause?: unknown }
  if (cause instanceof Error) return causeOf(cause)
  return error instanceof RampmeterError ? withoutCode(error) : classAndCodeOf(error)
}
