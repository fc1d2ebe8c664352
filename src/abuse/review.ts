import { RampmeterError } from '../errors.ts'
import type { CaseKind, KnownStanding, Standings, Step } from '../standing.ts'
import type { CheckClientId } from './client-id.ts'

/** A moment: a Date, or ms since 1970. */
export type Moment = Date | number

/** A client that people should look at. */
export interface ReviewCase {
  readonly clientId: string
  /** `suspended` by people, `review` after a score suspended it, `approval` for a scope. */
  readonly state: 'suspended' | 'review' | 'approval'
  /** ms since 1970. */
  readonly since: number
  readonly until?: number
  readonly by?: string
  readonly reason?: string
  readonly scope?: string
}

/** What is known of a client. */
export interface ReviewedClient {
  readonly clientId: string
  /** In points; null where this limiter has no `abuse`, and so cannot tell. */
  readonly score: number | null
  /** `suspend` where people suspended it; else null where this limiter has no `abuse`. */
  readonly step: Step | null
  readonly suspension: {
    readonly by: string
    readonly reason: string
    readonly at: number
    readonly until?: number
  } | null
  readonly assignment: {
    readonly tier: string
    readonly by: string
    readonly at: number
    readonly until?: number
  } | null
  readonly approvals: readonly { readonly scope: string; readonly by: string; readonly at: number }[]
}

/** One line of an audit trail: who did what, when, and why. */
export interface AuditEntry {
  readonly at: number
  readonly by: string
  readonly action: 'suspend' | 'lift' | 'approve' | 'revoke' | 'assign' | 'unassign'
  readonly reason?: string
  readonly scope?: string
  readonly tier?: string
  readonly until?: number
}

/**
 * What people decide about clients. It reaches all processes with their next decision. While the store is away all of it rejects with
 * `RAMPMETER_STORE_UNAVAILABLE`, and what was to be decided may have been or not: it can be decided again.
 */
export interface Review {
  /** Who is suspended, and who waits for a review or an approval; the oldest first. */
  list(): Promise<ReviewCase[]>
  get(clientId: string): Promise<ReviewedClient>
  /** Refuses whatever the client sends, with 403, until the time given or until somebody lifts it. */
  suspend(clientId: string, how: { by: string; reason: string; until?: Moment }): Promise<void>
  /** Ends a suspension, whoever made it, and forgets the client's score. */
  lift(clientId: string, how: { by: string; reason: string }): Promise<void>
  /** Lets the client use a route with `requireApproval`; its name is the scope. */
  approve(clientId: string, how: { scope: string; by: string }): Promise<void>
  /** Takes an approval back. */
  revoke(clientId: string, how: { scope: string; by: string; reason?: string }): Promise<void>
  /** The last 1000 decisions about the client, assignments and approvals too; the oldest first. */
  audit(clientId: string): Promise<AuditEntry[]>
}

export interface ReviewOptions {
  readonly standings: () => Standings
  readonly hash: (text: string) => number
  readonly look: (clientId: string) => Promise<KnownStanding>
  readonly checkId: CheckClientId
  readonly tiers: readonly string[]
  /** The names of this limiter's routes with `requireApproval`, as far as there are any yet. */
  readonly scopes: ReadonlySet<string>
  /** False where this limiter keeps no scores. */
  readonly hasScores: boolean
  /** What this process knows of a client, for the edge. */
  readonly marksOf: (clientId: string) => { addresses: string[]; ja4s: string[]; credentials: string[] }
  /** Hears of a suspension as soon as it holds, and of its end. */
  readonly onSuspended: (clientId: string, suspended: { readonly forMs: number | undefined } | undefined) => void
  /** Hears that an approval was given. */
  readonly onApproved: (clientId: string, scope: string) => void
  /** Hears that an approval was taken back. */
  readonly onRevoked: (clientId: string, scope: string) => void
}

/** Of one kind: so many may wait for people at once. */
export const mostCases = 10_000
/** After so long, in ms, whoever nobody has looked at waits no more: 30 days. */
export const caseLastsMs: number = 30 * 24 * 3_600_000

/** What a case is noted by. */
export function caseName(clientId: string, kind: CaseKind, scope = ''): string {
  return `@case:${kind}:${scope}\n${clientId}`
}

/** Kinds that people are shown. */
const shown: readonly CaseKind[] = ['suspended', 'review', 'approval']

/** What is done about a client, and by whom: the argument of each call. */
type How = Readonly<Record<string, unknown>>

export function createReview(options: ReviewOptions): Review & { assign: Assign; unassign: Unassign } {
  const { standings, hash, look, checkId, tiers, scopes, hasScores } = options
  const { onSuspended, onApproved, onRevoked } = options

  function check(clientId: string, how: How, known: readonly string[], what: string): void {
    checkId(clientId, what)
    const unknown = Object.keys(how).find((key) => !known.includes(key))
    if (unknown !== undefined) {
      throw new RampmeterError(
        'RAMPMETER_UNKNOWN_OPTION',
        `${what}: unknown option \`${unknown}\`; there are ${known.join(', ')}`,
      )
    }
    text(how['by'], `${what}: \`by\` says who decided`)
  }

  function checkScope(scope: unknown, what: string): asserts scope is string {
    text(scope, `${what}: \`scope\` is the name of a route with \`requireApproval\``)
    // A process that serves no such route cannot know their names.
    if (scopes.size === 0 || scopes.has(scope as string)) return
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: no route with \`requireApproval\` is called ${JSON.stringify(scope)}; there are ${[...scopes].map((one) => `"${one}"`).join(', ')}`,
    )
  }

  return {
    async list() {
      const cases = await Promise.all(shown.map((kind) => standings().cases(kind)))
      return cases
        .flat()
        .map((one) => JSON.parse(one) as ReviewCase)
        .map(({ clientId, state, since, until, by, reason, scope }): ReviewCase => ({
          clientId,
          state,
          since,
          ...(until !== undefined && { until }),
          ...(by !== undefined && { by }),
          ...(reason !== undefined && { reason }),
          ...(scope !== undefined && { scope }),
        }))
        .sort((one, other) => one.since - other.since)
    },

    async get(clientId) {
      checkId(clientId, 'review.get')
      const [fields, known, now] = await Promise.all([
        standings().rule(clientId, { set: {}, take: [], audit: '' }),
        look(clientId),
        standings().now(),
      ])
      const read = <T>(field: string): T | null =>
        fields[field] === undefined ? null : (JSON.parse(fields[field]) as T)
      const approvals = Object.keys(fields).filter((field) => field.startsWith('da:'))
      const assignment = read<NonNullable<ReviewedClient['assignment']>>('dt')
      const isOver = assignment?.until !== undefined && assignment.until <= now
      return {
        clientId,
        score: hasScores ? known.score : null,
        step: known.suspended ? 'suspend' : hasScores ? known.step : null,
        suspension: known.suspended ? read('ds') : null,
        assignment: isOver ? null : assignment,
        approvals: approvals.map((field) => read<ReviewedClient['approvals'][number]>(field)!),
      }
    },

    async suspend(clientId, how) {
      check(clientId, how ?? {}, ['by', 'reason', 'until'], 'review.suspend')
      const { by, reason, until } = how
      text(reason, 'review.suspend: `reason` says why')
      const at = await standings().now()
      const untilMs = moment(until, at, 'review.suspend')
      const words = { by, reason, at, ...(untilMs !== undefined && { until: untilMs }) }
      await standings().rule(clientId, {
        set: { s: untilMs === undefined ? '-1' : String(untilMs * 1000), ds: JSON.stringify(words) },
        take: [],
        audit: JSON.stringify({ action: 'suspend', ...words } satisfies AuditEntry),
      })
      const forMs = untilMs === undefined ? undefined : untilMs - at
      onSuspended(clientId, { forMs })
      const one: ReviewCase = {
        clientId,
        state: 'suspended',
        since: at,
        by,
        reason,
        ...(untilMs !== undefined && { until: untilMs }),
      }
      const marked = JSON.stringify({ ...one, ...options.marksOf(clientId) })
      const name = caseName(clientId, 'suspended')
      await standings().putCase('suspended', name, marked, Number.MAX_SAFE_INTEGER, forMs ?? 0)
      await standings().takeCase('review', caseName(clientId, 'review'))
    },

    async lift(clientId, how) {
      check(clientId, how ?? {}, ['by', 'reason'], 'review.lift')
      const { by, reason } = how
      text(reason, 'review.lift: `reason` says why')
      const at = await standings().now()
      await standings().rule(clientId, {
        set: {},
        take: ['s', 'ds', 'b', 'v'],
        audit: JSON.stringify({ at, action: 'lift', by, reason } satisfies AuditEntry),
      })
      onSuspended(clientId, undefined)
      const kinds: readonly CaseKind[] = ['suspended', 'review', 'denied']
      await Promise.all(kinds.map((kind) => standings().takeCase(kind, caseName(clientId, kind))))
    },

    async approve(clientId, how) {
      check(clientId, how ?? {}, ['by', 'scope'], 'review.approve')
      const { by, scope } = how
      checkScope(scope, 'review.approve')
      const at = await standings().now()
      const place = scopeHash(scope, hash)
      await standings().rule(clientId, {
        set: { [`a:${place}`]: '1', [`da:${place}`]: JSON.stringify({ scope, by, at }) },
        take: [],
        audit: JSON.stringify({ at, action: 'approve', by, scope } satisfies AuditEntry),
      })
      onApproved(clientId, scope)
      await standings().takeCase('approval', caseName(clientId, 'approval', scope))
    },

    async revoke(clientId, how) {
      check(clientId, how ?? {}, ['by', 'scope', 'reason'], 'review.revoke')
      const { by, scope, reason } = how
      checkScope(scope, 'review.revoke')
      if (reason !== undefined) text(reason, 'review.revoke: `reason` says why')
      const place = scopeHash(scope, hash)
      const at = await standings().now()
      const entry: AuditEntry = { at, action: 'revoke', by, scope, ...(reason !== undefined && { reason }) }
      await standings().rule(clientId, {
        set: {},
        take: [`a:${place}`, `da:${place}`],
        audit: JSON.stringify(entry),
      })
      onRevoked(clientId, scope)
    },

    async audit(clientId) {
      checkId(clientId, 'review.audit')
      return (await standings().trail(clientId)).map((line) => JSON.parse(line) as AuditEntry)
    },

    async assign(clientId, how) {
      check(clientId, how ?? {}, ['by', 'tier', 'until'], 'assign')
      const { tier, by, until } = how
      if (!tiers.includes(tier)) {
        throw new RampmeterError(
          'RAMPMETER_UNKNOWN_TIER',
          `assign names the tier ${JSON.stringify(tier)}; there are ${tiers.map((one) => `"${one}"`).join(', ')}`,
        )
      }
      const at = await standings().now()
      const untilMs = moment(until, at, 'assign')
      const words = { tier, by, at, ...(untilMs !== undefined && { until: untilMs }) }
      await standings().rule(clientId, {
        set: {
          t: String(hash(tier)),
          u: String(untilMs === undefined ? 0 : untilMs * 1000),
          dt: JSON.stringify(words),
        },
        take: [],
        audit: JSON.stringify({ action: 'assign', ...words } satisfies AuditEntry),
      })
    },

    async unassign(clientId, how) {
      check(clientId, how ?? {}, ['by'], 'unassign')
      const at = await standings().now()
      await standings().rule(clientId, {
        set: {},
        take: ['t', 'u', 'dt'],
        audit: JSON.stringify({ at, action: 'unassign', by: how.by } satisfies AuditEntry),
      })
    },
  }
}

/** Puts a client in a tier, in all processes with their next decision about it. */
export type Assign = (clientId: string, how: { tier: string; until?: Moment; by: string }) => Promise<void>
/** Ends that. */
export type Unassign = (clientId: string, how: { by: string }) => Promise<void>

/** 0 is for none. */
export function scopeHash(scope: string, hash: (text: string) => number): number {
  return hash(`scope ${scope}`) || 1
}

function text(value: unknown, what: string): void {
  if (typeof value === 'string' && value !== '' && value.length <= 1024) return
  throw new RampmeterError('RAMPMETER_INVALID_OPTION', `${what}; write a text of 1 to 1024 characters`)
}

/** The last moment whose µs are exact: in the year 2255. */
const lastMomentMs = 9e12

/** A moment to come, by the clock of the store. */
function moment(value: unknown, now: number, what: string): number | undefined {
  if (value === undefined) return undefined
  const ms = value instanceof Date ? value.getTime() : value
  if (typeof ms !== 'number' || !Number.isFinite(ms) || ms < 0 || ms >= lastMomentMs) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `${what}: \`until\` is no time before the year 2255; write a Date, or ms since 1970, or leave it out for good`,
    )
  }
  if (ms > now) return Math.floor(ms)
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `${what}: \`until\` is ${new Date(ms).toISOString()}, which is over; write a Date to come, or ms (not seconds) since 1970`,
  )
}
