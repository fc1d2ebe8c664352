// What the demo prints: a table, a sparkline for everybody, and what the refused were told.

import { styleText } from 'node:util'
import type { GuardName, Progress, Reply, Said } from './messages.ts'
import { isRefusal } from './refusal.ts'

export type VisitorName = 'agent' | 'person' | 'crawler'

/** One visitor at one API, and all that it was answered. */
export interface Visit {
  readonly guard: GuardName
  readonly visitor: VisitorName
  readonly replies: Reply[]
  progress: Progress | null
}

export interface Outcome {
  readonly ranMs: number
  /** Where the counters were. */
  readonly store: string
  readonly visits: readonly Visit[]
}

const guardTitles: Record<GuardName, string> = {
  rampmeter: 'rampmeter, preset tiers',
  'fixed-window': 'express-rate-limit, 100 a minute each',
}

export function intro(store: string, ms: number): string {
  return `
One API, started twice: behind ${bold('rampmeter')} with its preset tiers, and behind ${bold('express-rate-limit')} with 100 requests
a minute for each key, session or address. The same three come to both, all at once:

  agent    has an API key; reads the OpenAPI document and then all it finds, 20 requests at once; then settles down
  person   is logged in, and clicks
  crawler  shows no credential; reads what is public, 5 requests at once

Counters are in ${store}${store === 'memory' ? ' (with REDIS_URL they are in Redis)' : ''}. The visits take ${ms / 1000} seconds.
`
}

/** What `--json` prints. */
export function numbers({ ranMs, store, visits }: Outcome): object {
  return {
    ranMs,
    store,
    columnMs,
    visits: visits.map((visit) => {
      const { guard, visitor, replies, progress } = visit
      const { served, refused, failed } = partOf(replies)
      return {
        guard,
        visitor,
        served: served.length,
        refused: refused.length,
        failed: failed.length,
        longestWaitMs: longestWait(visit),
        progress: progress === null ? null : { ...progress, kind: undefined },
        returns: returnsOf(replies).map(({ returned, status }) => ({ ...returned, status })),
        firstRefusal: refused[0]?.said ?? null,
        servedOverTime: countsOf(served, ranMs),
        refusedOverTime: countsOf(refused, ranMs),
      }
    }),
  }
}

export function report(outcome: Outcome): string {
  return [table(outcome), sparklines(outcome), told(outcome), closing(outcome)].join('\n\n')
}

function table({ visits }: Outcome): string {
  const lines = [bold(`${' '.repeat(12)}served  refused  longest wait   how it went`)]
  for (const guard of guardsOf(visits)) {
    lines.push(bold(guardTitles[guard]))
    for (const visit of visits.filter((one) => one.guard === guard)) {
      const { served, refused } = partOf(visit.replies)
      const count = String(refused.length).padStart(9)
      lines.push(
        `  ${visit.visitor.padEnd(8)}${String(served.length).padStart(8)}` +
          `${refused.length > 0 ? red(count) : count}${waited(visit).padStart(14)}   ${story(visit)}`,
      )
    }
  }
  return lines.join('\n')
}

/** The longest wait, marked where it is not over. */
function waited(visit: Visit): string {
  const { progress } = visit
  return `${progress?.waiting == null ? '' : '> '}${seconds(longestWait(visit))}`
}

/** How it went, in words. */
function story({ visitor, replies, progress }: Visit): string {
  if (progress === null) return 'did not report'
  const { done, of, finishedAt, waiting, gaveUp } = progress
  const { failed } = partOf(replies)
  const parts: string[] = []
  if (visitor === 'person') parts.push(`${done} of ${of} clicks worked`)
  else if (finishedAt !== null && done === of) {
    parts.push(`read all ${of} documents in ${seconds(finishedAt)}, then looked after single ones`)
  } else {
    parts.push(`read ${done} of ${of} documents`)
    const returns = returnsOf(replies)
    if (returns.length > 0) {
      const admitted = returns.filter(({ status }) => !isRefusal(status)).length
      parts.push(`came back ${times(returns.length)} when told to, was let in ${times(admitted)}`)
    } else if (waiting !== null) parts.push(`still has to wait ${seconds(waiting.moreMs)}`)
  }
  if (gaveUp > 0) parts.push(`gave up ${gaveUp}`)
  if (failed.length > 0) parts.push(`${failed.length} failed`)
  return parts.join('; ')
}

const columnMs = 500
const bars = '▁▂▃▄▅▆▇█'

/** For each visitor one scale, so that its lines can be compared. */
function sparklines({ ranMs, visits }: Outcome): string {
  const lines = [
    bold(`Answers over time, a column for each ${columnMs / 1000} s`),
    dim(`${' '.repeat(32)}${ticks(ranMs)}`),
  ]
  for (const visitor of ['agent', 'person', 'crawler'] as const) {
    const rows = visits
      .filter((visit) => visit.visitor === visitor)
      .flatMap(({ guard, replies }) => {
        const { served, refused } = partOf(replies)
        return [
          { guard, what: 'served', counts: countsOf(served, ranMs), total: served.length },
          { guard, what: 'refused', counts: countsOf(refused, ranMs), total: refused.length },
        ]
      })
    const most = Math.max(...rows.flatMap(({ counts }) => counts))
    for (const { guard, what, counts, total } of rows) {
      const isServed = what === 'served'
      if (total === 0 && !isServed) continue
      const whose = isServed ? `${visitor.padEnd(9)}${guard.padEnd(13)}` : ' '.repeat(22)
      lines.push(`  ${whose}${what.padEnd(8)}${(isServed ? green : red)(spark(counts, most))} ${total}`)
    }
  }
  return lines.join('\n')
}

/** `0 s       5 s       10 s`, each above its column. */
function ticks(ranMs: number): string {
  let line = ''
  for (let ms = 0; ms < ranMs; ms += 5000) line = line.padEnd(ms / columnMs) + `${ms / 1000} s`
  return line
}

function spark(counts: readonly number[], most: number): string {
  return counts
    .map((count) => (count === 0 ? ' ' : bars[Math.min(bars.length - 1, Math.floor((count / most) * bars.length))]))
    .join('')
}

/** One refusal at each guard, shortened, and what came of obeying it. */
function told({ visits }: Outcome): string {
  const lines = [bold('What the refused were told')]
  for (const guard of guardsOf(visits)) {
    const visit = visits.find((one) => one.guard === guard && partOf(one.replies).refused.length > 0)
    if (visit === undefined) continue
    const refusals = partOf(visit.replies).refused.map(({ said }) => said!)
    const [back] = returnsOf(visit.replies)
    // The one that the first who came back had been given.
    const said = refusals.find(({ toldMs }) => toldMs === back?.returned.toldMs) ?? refusals[0]!
    lines.push(`  ${guardTitles[guard]}, to the ${visit.visitor}: ${red(String(said.status))}`)
    lines.push(...wordsOf(said).map((line) => `    ${line}`))
    if (back !== undefined) {
      const { toldMs, afterMs } = back.returned
      lines.push(`    -> told ${seconds(toldMs)}, came back after ${seconds(afterMs)}: ${green(String(back.status))}`)
    } else if (visit.progress?.waiting != null && said.toldMs !== null) {
      lines.push(`    -> told ${seconds(said.toldMs)}, and still waiting when this ended`)
    }
  }
  return lines.join('\n')
}

const toldHeaders = ['Retry-After', 'retry-after-ms', 'RateLimit-Policy', 'RateLimit', 'X-RateLimit-Tier']

/** Headers, then the body: of a problem document what says most. */
function wordsOf({ headers, body }: Said): string[] {
  const shown = toldHeaders.flatMap((name) => {
    const value = headers[name.toLowerCase()]
    return value === undefined ? [] : [`${name}: ${value}`]
  })
  if (!headers['content-type']?.includes('json')) return [...shown, body.trim()]
  const { status, detail, error } = JSON.parse(body)
  const { type, tier, retry_after_ms, limit, window } = error
  return [
    ...shown,
    `{ "status": ${status}, "detail": ${JSON.stringify(detail)},`,
    `  "error": ${JSON.stringify({ type, tier, retry_after_ms, limit, window }).slice(0, -1)}, … }, … }`,
  ]
}

/** What the difference came to, and why. */
function closing({ visits }: Outcome): string {
  const progressOf = (guard: GuardName): Progress | null | undefined =>
    visits.find((visit) => visit.guard === guard && visit.visitor === 'agent')?.progress
  const ours = progressOf('rampmeter')
  const plain = progressOf('fixed-window')
  if (ours == null || plain == null) return ''
  const reached =
    ours.finishedAt === null
      ? `${ours.done} of ${ours.of} documents so far`
      : `${ours.of} documents in ${seconds(ours.finishedAt)}`
  return `The agent got ${bold(reached)} behind the preset tiers; at 100 a minute it needs ${bold(`${Math.floor((plain.of - 1) / 100)} minutes`)} at least.
An agent comes in a burst, then hardly at all. The presets hold room for that (200 at once, and 500 more in an agent's
first five minutes), less for whoever shows no credential, and say to the millisecond when there is room again.
(express-rate-limit, too, can be given a \`limit\` for each client; this is one for all, as most APIs begin.)`
}

function guardsOf(visits: readonly Visit[]): GuardName[] {
  return [...new Set(visits.map(({ guard }) => guard))]
}

function partOf(replies: readonly Reply[]): { served: Reply[]; refused: Reply[]; failed: Reply[] } {
  return {
    served: replies.filter(({ status }) => status >= 200 && status < 400),
    refused: replies.filter(({ status }) => isRefusal(status)),
    failed: replies.filter(({ status }) => (status < 200 || status >= 400) && !isRefusal(status)),
  }
}

type Return = Reply & { returned: NonNullable<Reply['returned']> }

/** Those who came back when they were told to. */
function returnsOf(replies: readonly Reply[]): Return[] {
  return replies.filter((reply): reply is Return => reply.returned !== undefined)
}

/** The longest that one request had to wait, be it served by now or not. */
function longestWait({ replies, progress }: Visit): number {
  return Math.max(0, progress?.waiting?.forMs ?? 0, ...replies.map(({ waitedMs }) => waitedMs))
}

function countsOf(replies: readonly Reply[], ranMs: number): number[] {
  const counts = Array.from({ length: Math.ceil(ranMs / columnMs) }, () => 0)
  for (const { at } of replies) {
    const column = Math.floor(at / columnMs)
    if (column < counts.length) counts[column]! += 1
  }
  return counts
}

function seconds(ms: number): string {
  return ms === 0 ? '0 s' : `${(ms / 1000).toFixed(1)} s`
}

function times(count: number): string {
  return count === 1 ? 'once' : `${count} times`
}

const colours = process.stdout.isTTY && process.env['NO_COLOR'] === undefined

function style(format: 'bold' | 'dim' | 'red' | 'green'): (text: string) => string {
  return (text) => (colours ? styleText(format, text) : text)
}

const bold = style('bold')
const dim = style('dim')
const red = style('red')
const green = style('green')
