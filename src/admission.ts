import type { Client } from './client.ts'
import type { Ruling } from './decide.ts'
import type { Decision, LimitStatus, RefusalReason } from './decision.ts'
import type { Payment } from './payment.ts'
import type { PricedPolicy } from './price.ts'
import type { AppliedPolicy } from './respond/answer.ts'
import { nothingAtAll, type ActualCost } from './settlement.ts'
import type { ChargeOutcome } from './stores/store.ts'

/** What a decision tells about how it came about. */
export interface AdmissionFacts {
  readonly client: Client
  readonly enforced: boolean
  readonly ruling: Ruling
  readonly limits: readonly LimitStatus[]
  /** The reason that stands whatever the limits say: a credential was wrong, or could not be checked. */
  readonly reason?: RefusalReason | undefined
  /** What refused, where no policy did. */
  readonly violated?: readonly string[] | undefined
  /** When to come back, where the limits do not tell. */
  readonly retryAfterMs?: number | null | undefined
  /** What reserves the time that is told. */
  readonly ticket?: string | undefined
  /** What the client's conduct comes to. */
  readonly abuse?: Decision['abuse'] | undefined
  /** What it pays. */
  readonly payment?: Payment | undefined
  /** Takes a total that the app settles, or that all is to be given back. */
  readonly settle: (total: ActualCost | typeof nothingAtAll) => void
  /** Gives back the slots that the request holds. */
  readonly release: () => void
}

/** The decision about one request, as the app sees it. */
export class Admission implements Decision {
  readonly admitted: boolean
  readonly enforced: boolean
  readonly client: Client
  readonly limits: readonly LimitStatus[]
  readonly violated: readonly string[]
  readonly retryAfterMs: number | null
  readonly retryEstimated: boolean
  declare readonly reason?: RefusalReason
  declare readonly ticket?: string
  readonly degraded: boolean
  declare readonly abuse?: NonNullable<Decision['abuse']>
  declare readonly payment?: Payment
  readonly #settle: AdmissionFacts['settle']
  readonly #release: () => void

  constructor(facts: AdmissionFacts) {
    const {
      client,
      enforced,
      ruling,
      limits,
      reason,
      violated,
      retryAfterMs,
      ticket,
      abuse,
      payment,
      settle,
      release,
    } = facts
    this.admitted = ruling.admitted && reason === undefined
    this.enforced = enforced
    this.client = client
    this.limits = limits
    this.violated = violated ?? ruling.violated
    this.retryAfterMs = retryAfterMs === undefined ? inMs(ruling.retryAfterUs) : retryAfterMs
    const why = reason ?? (ruling.admitted ? undefined : reasonOf(ruling))
    if (why !== undefined) this.reason = why
    // Also where only a cut refused: the place is reserved, so somebody has to be able to come for it.
    if (reason === undefined && why !== undefined && ticket !== undefined) this.ticket = ticket
    this.retryEstimated = !this.admitted && this.retryAfterMs !== null && isEstimated(why, ruling, violated)
    this.degraded = ruling.degraded
    if (abuse !== undefined) this.abuse = abuse
    if (payment !== undefined) this.payment = payment
    this.#settle = settle
    this.#release = release
  }

  settle(actualCost: number | Record<string, number>): void {
    this.#settle(actualCost)
  }

  refund(): void {
    this.#settle(nothingAtAll)
  }

  release(): void {
    this.#release()
  }
}

/** Whether the wait is a guess. When an address may show credentials again is known, and when a step of a ladder is left. */
function isEstimated(
  reason: RefusalReason | undefined,
  { estimated }: Ruling,
  violated: readonly string[] | undefined,
): boolean {
  if (reason === 'abuse' && violated !== undefined) return false
  return reason === 'verification' || reason === 'payment' ? violated === undefined : estimated
}

function reasonOf({ degraded, retryAfterUs, byCapacity, cut }: Ruling): RefusalReason {
  if (cut !== undefined && retryAfterUs !== null) return 'abuse'
  if (byCapacity === true) return 'capacity'
  if (retryAfterUs === null) return 'never'
  return degraded ? 'store' : 'quota'
}

/** Microseconds as milliseconds, rounded up: whoever waits them does not come too early. */
function inMs<T extends number | null>(us: T): T {
  return (us === null ? null : Math.ceil(us / 1000)) as T
}

/** What is told of each policy that was decided: all but first minutes that are over; a pool's three charges as one. */
export function limitsOf(priced: readonly PricedPolicy[], ruling: Ruling): (LimitStatus | undefined)[] {
  const { outcomes, admitted } = ruling
  const lifted = admitted && outcomes.some(({ verdict }) => verdict === 'lifted')
  return outcomes.map((outcome, index) => {
    const { policy, charge, pooled } = priced[index]!
    const role = pooled?.role ?? 'whole'
    // First minutes lift nothing of a client that is throttled, so it is told nothing of them.
    const isLost = ruling.cut !== undefined && policy.kind === 'first-minutes'
    if (isLost || outcome.verdict === 'inactive' || role === 'own' || role === 'demand') return undefined
    const { verdict, remaining, waitUs, resetUs } = role === 'common' ? ofPool(outcomes, index) : outcome
    const free = policy.kind === 'first-minutes' ? !lifted : admitted && verdict !== 'fits'
    const isShared = role === 'common'
    const quota = isShared ? (pooled!.whole.quota as number) : charge.quota
    const own = priced[index - 1]?.charge.capacity ?? 0
    return {
      name: policy.name,
      quota,
      windowMs: policy.kind === 'concurrency' ? null : policy.windowMs,
      unit: policy.unit,
      cost: free || charge.after === true ? 0 : charge.cost,
      remaining,
      resetMs: inMs(resetUs),
      waitMs: inMs(waitUs),
      capacity:
        policy.kind === 'first-minutes'
          ? quota
          : isShared
            ? sharedCapacity(own, charge.capacity, waitUs === null)
            : heldAtMost(charge),
    }
  })
}

/** What a policy holds; told of a cost that it never holds, what it does when no cut is in force. */
function heldAtMost({ base, capacity, cost }: PricedPolicy['charge']): number {
  return base !== undefined && cost > base.capacity ? base.capacity : capacity
}

/** What a tier can use of a pool at once; by one request, which is charged to one of the parts, if that is what is asked. */
function sharedCapacity(own: number, common: number, byOneRequest: boolean): number {
  return byOneRequest ? Math.max(own, common) : own + common
}

/** What a pool has for a tier: its own part, and of the common part what those who go first leave. */
function ofPool(outcomes: readonly ChargeOutcome[], index: number): ChargeOutcome {
  const [own, common, demand] = outcomes.slice(index - 1, index + 2) as [ChargeOutcome, ChargeOutcome, ChargeOutcome]
  const ofCommon = Math.max(common.waitUs ?? Infinity, demand.waitUs ?? Infinity)
  const wait = Math.min(own.waitUs ?? Infinity, ofCommon)
  return {
    verdict: common.verdict === 'spared' ? own.verdict : common.verdict,
    remaining: own.remaining + Math.min(common.remaining, demand.remaining),
    waitUs: wait === Infinity ? null : wait,
    resetUs: Math.max(own.resetUs, common.resetUs),
  }
}

/** Of what {@link limitsOf} tells, all that is told. */
export function withoutGaps(limits: readonly (LimitStatus | undefined)[]): readonly LimitStatus[] {
  const hasGap = limits.includes(undefined)
  return (hasGap ? limits.filter((limit) => limit !== undefined) : limits) as readonly LimitStatus[]
}

/** What the header fields and a refusal's body tell of: what {@link limitsOf} tells, less the policies that refuse nothing. */
export function toldOf(
  priced: readonly PricedPolicy[],
  { outcomes, admitted }: Ruling,
  limits: ReturnType<typeof limitsOf>,
): AppliedPolicy[] {
  return priced.flatMap(({ policy, charge, ofRoute, pooled }, index) => {
    const status = limits[index]
    if (status === undefined || charge.shadow) return []
    const lifted = admitted && outcomes[index]!.verdict === 'lifted'
    return [{ policy, status, partition: charge.partition, ofRoute, ofPool: pooled !== undefined, lifted }]
  })
}
