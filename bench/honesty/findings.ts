import type { Seen } from './log.ts'
import type { Played } from './play.ts'

/** What came of herds of one size, with one client and one limiter. */
export interface HerdFinding {
  readonly limiter: string
  readonly ours: boolean
  readonly client: string
  readonly herd: number
  /** Calls that were refused when they first asked. */
  readonly refused: number
  /** Of those, how many the next request of the same call served. */
  readonly firstRetry: number
  /** Calls in all, and the requests made for them. */
  readonly calls: number
  readonly requests: number
  /** Retries that were refused again. */
  readonly inVain: number
  /** Calls that were never served. */
  readonly givenUp: number
  /** When the last one was served, in ms after the quota began to be used up, in the slowest of these herds. */
  readonly lastMs: number
  /** How much earlier the quota would have allowed as many requests as were admitted until then. */
  readonly laterMs: number
}

/** What came of herds that differ in nothing but their addresses. */
export function herdFinding(plays: readonly Played[]): HerdFinding {
  const { limiter, client, limit } = plays[0]!
  const each = plays.map(oneHerd)
  const sum = (field: 'refused' | 'firstRetry' | 'requests' | 'inVain' | 'givenUp'): number =>
    each.reduce((total, finding) => total + finding[field], 0)
  return {
    limiter: limiter.name,
    ours: limiter.ours,
    client,
    herd: limit.herd,
    refused: sum('refused'),
    firstRetry: sum('firstRetry'),
    calls: limit.herd * plays.length,
    requests: sum('requests'),
    inVain: sum('inVain'),
    givenUp: sum('givenUp'),
    lastMs: Math.max(...each.map(({ lastMs }) => lastMs)),
    laterMs: Math.max(...each.map(({ laterMs }) => laterMs)),
  }
}

function oneHerd({
  limiter,
  limit,
  seen,
}: Played): Omit<HerdFinding, 'limiter' | 'ours' | 'client' | 'herd' | 'calls'> {
  const start = startOf(seen)
  const calls = Array.from({ length: limit.herd }, (_, index) => requestsOf(seen, `herd-${index}`))
  const served = calls.flatMap((requests) => requests.filter(({ status }) => status === 200))
  const refused = calls.filter((requests) => requests[0]?.status === 429)
  const requests = calls.reduce((total, made) => total + made.length, 0)
  const last = served.reduce((late, one) => (one.answeredAt > late.answeredAt ? one : late))
  const admitted = seen.filter(({ status, at }) => status === 200 && at <= last.at).length
  return {
    refused: refused.length,
    firstRetry: refused.filter((made) => made[1]?.status === 200).length,
    requests,
    inVain: requests - served.length - refused.length,
    givenUp: calls.filter((made) => !made.some(({ status }) => status === 200)).length,
    lastMs: last.answeredAt - start,
    laterMs: last.answeredAt - start - earliestMs(limiter.even, limit, admitted),
  }
}

/** What came of the calls that got a ticket when they first asked, and of those that did not. */
export interface TicketFinding {
  readonly client: string
  readonly herd: number
  readonly refused: number
  readonly tickets: number
  /** Of those with a ticket, how many the next request served; and of those without. */
  readonly servedWith: number
  readonly servedWithout: number
}

export function ticketFinding(plays: readonly Played[]): TicketFinding {
  const { client, limit } = plays[0]!
  const refused = plays.flatMap(({ seen }) =>
    Array.from({ length: limit.herd }, (_, index) => requestsOf(seen, `herd-${index}`)).filter(
      ([first]) => first?.status === 429,
    ),
  )
  const [withOne, without] = [true, false].map((ticket) => refused.filter(([first]) => first!.ticket === ticket))
  const served = (calls: readonly Seen[][]): number => calls.filter(([, second]) => second?.status === 200).length
  return {
    client,
    herd: limit.herd,
    refused: refused.length,
    tickets: withOne!.length,
    servedWith: served(withOne!),
    servedWithout: served(without!),
  }
}

/** When the quota allows as many requests, the first at 0: evenly after the first quota, or a quota each window. */
function earliestMs(even: boolean, { quota, windowMs }: Played['limit'], admitted: number): number {
  const quotas = admitted / quota
  return (even ? Math.max(0, quotas - 1) : Math.ceil(quotas) - 1) * windowMs
}

/** When the quota began to be used up. */
function startOf(seen: readonly Seen[]): number {
  return Math.min(...seen.filter(({ call }) => call === 'fill').map(({ at }) => at))
}

/** The requests of a call, in the order in which they came. */
function requestsOf(seen: readonly Seen[], call: string): Seen[] {
  return seen.filter((one) => one.call === call).toSorted((one, other) => one.at - other.at)
}

/** What came of lone clients. */
export interface LoneFinding {
  readonly limiter: string
  readonly ours: boolean
  readonly retries: number
  readonly admitted: number
  /** How long after its earliest time each came back, in ms. */
  readonly lateMs: readonly number[]
}

export function loneFinding(plays: readonly Played[]): LoneFinding {
  const { limiter } = plays[0]!
  const retries = plays.map(({ limit, seen }) => {
    const retry = requestsOf(seen, 'herd-0').at(-1)!
    const before = seen.filter((one) => one !== retry && one.status === 200).length
    const neededMs = earliestMs(limiter.even, limit, before + 1)
    return { admitted: retry.status === 200, lateMs: retry.at - startOf(seen) - neededMs }
  })
  return {
    limiter: limiter.name,
    ours: limiter.ours,
    retries: retries.length,
    admitted: retries.filter(({ admitted }) => admitted).length,
    lateMs: retries.map(({ lateMs }) => lateMs),
  }
}
