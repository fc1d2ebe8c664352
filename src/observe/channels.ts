import { channel, type Channel } from 'node:diagnostics_channel'
import type { Client } from '../client.ts'
import type { Decision } from '../decision.ts'
import { classAndCodeOf, RampmeterError } from '../errors.ts'

/** A message of `rampmeter:decision`: one for each decision. It carries no claims, no request and no credential. */
export interface DecisionMessage extends Pick<
  Decision,
  'admitted' | 'enforced' | 'limits' | 'violated' | 'retryAfterMs' | 'degraded'
> {
  readonly client: Pick<Client, 'id' | 'kind' | 'tier' | 'provedBy'>
  readonly reason: Decision['reason'] | null
  /** The route's name, where it has one. */
  readonly route: string | null
}

/** A message of `rampmeter:degraded`: one for each decision that was made without the store. */
export interface DegradedMessage {
  /** Milliseconds since 1970. */
  readonly at: number
  /** How long the store was waited for, in ms. */
  readonly waitedMs: number
  /** The code of what went wrong, such as `RAMPMETER_STORE_UNAVAILABLE`, and its cause in words. */
  readonly code: string
  readonly cause: string
  /** Decisions made without the store since it last answered, this one included. */
  readonly count: number
}

const decisions: Channel = channel('rampmeter:decision')
const degradations: Channel = channel('rampmeter:degraded')

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
    route: route ?? null,
  }
  decisions.publish(message)
}

/** Tells who listens that the store was away. */
export function observeDegraded(error: unknown, waitedMs: number, count: number): void {
  if (!degradations.hasSubscribers) return
  const { code } = error as { code?: unknown }
  const message: DegradedMessage = {
    at: Date.now(),
    waitedMs,
    code: typeof code === 'string' ? code : 'RAMPMETER_STORE_UNAVAILABLE',
    cause: causeOf(error),
    count,
  }
  degradations.publish(message)
}

/** What went wrong: of our own errors the message, of others the class and the code. */
export function causeOf(error: unknown): string {
  const { cause } = error as { cause?: unknown }
  if (error instanceof RampmeterError && cause === undefined) return error.message
  return classAndCodeOf(cause instanceof Error ? cause : error)
}
