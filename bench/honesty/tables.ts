import { quantile } from '../statistics.ts'
import type { HerdFinding, LoneFinding, TicketFinding } from './findings.ts'

/** A column: its title, whether it is words, and what stands in it. */
interface Column<Row> {
  readonly title: string
  readonly words?: boolean
  readonly cell: (row: Row) => string
}

export function loneTable(findings: readonly LoneFinding[]): string {
  return markdownTable<LoneFinding>(findings, [
    { title: '', words: true, cell: ({ limiter }) => limiter },
    { title: 'retries', cell: ({ retries }) => String(retries) },
    { title: 'admitted', cell: ({ admitted }) => String(admitted) },
    { title: 'later than needed, median ms', cell: ({ lateMs }) => quantile(lateMs, 0.5).toFixed(1) },
    { title: 'least', cell: ({ lateMs }) => Math.min(...lateMs).toFixed(1) },
    { title: 'most', cell: ({ lateMs }) => Math.max(...lateMs).toFixed(1) },
  ])
}

export function herdTable(findings: readonly HerdFinding[]): string {
  return markdownTable<HerdFinding>(findings, [
    { title: 'herd', cell: ({ herd }) => String(herd) },
    { title: 'client', words: true, cell: ({ client }) => client },
    { title: 'limiter', words: true, cell: ({ limiter }) => limiter },
    { title: 'refused at first', cell: ({ refused }) => String(refused) },
    { title: 'served by first retry', cell: firstRetryCell },
    { title: 'requests a call', cell: (row) => requestsACall(row).toFixed(2) },
    { title: 'retries in vain', cell: ({ inVain }) => String(inVain) },
    { title: 'gave up', cell: ({ givenUp }) => String(givenUp) },
    { title: 'last served, s', cell: ({ lastMs }) => seconds(lastMs) },
    { title: 'later than the quota, s', cell: ({ laterMs }) => seconds(laterMs) },
  ])
}

export function ticketTable(findings: readonly TicketFinding[]): string {
  return markdownTable<TicketFinding>(findings, [
    { title: 'herd', cell: ({ herd }) => String(herd) },
    { title: 'client', words: true, cell: ({ client }) => client },
    { title: 'refused at first', cell: ({ refused }) => String(refused) },
    { title: 'with a ticket', cell: ({ tickets }) => String(tickets) },
    {
      title: 'served by first retry, with one',
      cell: ({ tickets, servedWith }) => (tickets === 0 ? '-' : `${servedWith} (${percent(servedWith / tickets)})`),
    },
    {
      title: 'without',
      cell: ({ refused, tickets, servedWithout }) =>
        refused === tickets ? '-' : `${servedWithout} (${percent(servedWithout / (refused - tickets))})`,
    },
  ])
}

/** Ours, each of its kinds, beside whichever peer does best in each respect. */
export function ratioTable(findings: readonly HerdFinding[]): string {
  const rows = findings
    .filter(({ ours }) => ours)
    .map((ours) => ({
      ours,
      peers: findings.filter((one) => !one.ours && one.herd === ours.herd && one.client === ours.client),
    }))
  return markdownTable(rows, [
    { title: 'herd', cell: ({ ours }) => String(ours.herd) },
    { title: 'client', words: true, cell: ({ ours }) => ours.client },
    { title: '', words: true, cell: ({ ours }) => ours.limiter },
    {
      title: 'served by first retry, best peer',
      cell: ({ ours, peers }) => `${percent(firstRetryShare(ours))}, ${percent(bestFirstRetry(peers))}`,
    },
    { title: 'ratio', cell: ({ ours, peers }) => times(firstRetryShare(ours) / bestFirstRetry(peers)) },
    {
      title: 'requests for a served call, best peer',
      cell: ({ ours, peers }) => `${perServed(ours).toFixed(2)}, ${Math.min(...peers.map(perServed)).toFixed(2)}`,
    },
    { title: 'ratio of these', cell: ({ ours, peers }) => times(perServed(ours) / Math.min(...peers.map(perServed))) },
    {
      title: 'gave up, best peer',
      cell: ({ ours, peers }) => `${ours.givenUp}, ${Math.min(...peers.map(({ givenUp }) => givenUp))}`,
    },
    {
      title: 'later than the quota, best peer, s',
      cell: ({ ours, peers }) => `${seconds(ours.laterMs)}, ${seconds(leastLate(peers))}`,
    },
  ])
}

function bestFirstRetry(peers: readonly HerdFinding[]): number {
  return Math.max(...peers.map(firstRetryShare).filter((share) => !Number.isNaN(share)))
}

/** Of those for which the fewest gave up: whoever serves half of a herd is done early. */
function leastLate(peers: readonly HerdFinding[]): number {
  const fewest = Math.min(...peers.map(({ givenUp }) => givenUp))
  return Math.min(...peers.filter(({ givenUp }) => givenUp === fewest).map(({ laterMs }) => laterMs))
}

function firstRetryShare({ firstRetry, refused }: HerdFinding): number {
  return firstRetry / refused
}

function firstRetryCell(finding: HerdFinding): string {
  return finding.refused === 0 ? '-' : `${finding.firstRetry} (${percent(firstRetryShare(finding))})`
}

function requestsACall({ requests, calls }: HerdFinding): number {
  return requests / calls
}

function perServed({ requests, calls, givenUp }: HerdFinding): number {
  return requests / (calls - givenUp)
}

/** To a tenth, and never 100 % of what is less than all. */
function percent(share: number): string {
  return Number.isFinite(share) ? `${Math.floor(share * 1000) / 10} %` : '-'
}

function times(value: number): string {
  return Number.isFinite(value) ? `**${value.toFixed(2)}**` : '-'
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(2)
}

/** A Markdown table that also reads well as it is: columns as wide as what is in them, words to the left. */
export function markdownTable<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row)))
  const widths = columns.map(({ title }, index) => Math.max(title.length, 3, ...cells.map((row) => row[index]!.length)))
  const line = (row: readonly string[]): string =>
    `| ${row.map((text, index) => (columns[index]!.words ? text.padEnd(widths[index]!) : text.padStart(widths[index]!))).join(' | ')} |`
  const rule = widths.map((width, index) => (columns[index]!.words ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`))
  return [line(columns.map(({ title }) => title)), line(rule), ...cells.map(line)].join('\n')
}
