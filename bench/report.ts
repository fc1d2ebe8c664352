import type { DecisionSample, Measured } from './decisions.ts'
import { baseline } from './dimensions.ts'
import { bareApp, type HttpSample } from './http.ts'
import { ratio, spread, type Spread } from './statistics.ts'

/** A row of a table, with the two that it is set against: of the same number of limits, and measured in the same rounds. */
interface Row<Sample> extends Measured<Sample> {
  readonly ours: readonly Sample[]
  readonly bare: readonly Sample[] | undefined
}

interface Column<Sample> {
  readonly title: string
  readonly cell: (row: Row<Sample>) => string
}

const ours = 'rampmeter'

const limits: Column<object> = { title: 'limits', cell: (row) => String(row.limits) }
const name: Column<object> = { title: '', cell: (row) => row.name }

/** Decisions on Redis. The ratios are ours to the row's. */
export function redisTable(measured: readonly Measured<DecisionSample>[]): string {
  return table<DecisionSample>(measured, [
    limits,
    name,
    { title: 'decisions/s', cell: ({ samples }) => grouped(median(samples, 'perSecond')) },
    { title: 'p50 µs', cell: ({ samples }) => median(samples, 'p50Us').toFixed(0) },
    { title: 'Node µs', cell: ({ samples }) => median(samples, 'nodeUs').toFixed(1) },
    { title: 'Redis µs', cell: ({ samples }) => median(samples, 'redisUs').toFixed(1) },
    { title: 'calls', cell: ({ samples }) => median(samples, 'calls').toFixed(2) },
    { title: 'in scripts', cell: ({ samples }) => median(samples, 'inside').toFixed(1) },
    toTheirs('decisions/s', 'perSecond'),
    toTheirs('Node', 'nodeUs'),
    toTheirs('Redis', 'redisUs'),
  ])
}

/** Decisions in memory. */
export function memoryTable(measured: readonly Measured<DecisionSample>[]): string {
  return table<DecisionSample>(measured, [
    limits,
    name,
    { title: 'decisions/s', cell: ({ samples }) => grouped(median(samples, 'perSecond')) },
    { title: 'Node µs', cell: ({ samples }) => median(samples, 'nodeUs').toFixed(2) },
    toTheirs('decisions/s', 'perSecond'),
    toTheirs('Node', 'nodeUs'),
  ])
}

/** What each dimension costs, to one token bucket. */
export function dimensionTable(measured: readonly Measured<DecisionSample>[]): string {
  const one = measured.find(({ name }) => name === baseline)!.samples
  const toOne = (what: string, field: 'nodeUs' | 'redisUs'): Column<DecisionSample> => ({
    title: `${what} : ${baseline}`,
    cell: ({ samples, name }) => {
      const compared = ratio(
        samples.map((sample) => sample[field]),
        one.map((sample) => sample[field]),
      )
      return name === baseline || Number.isNaN(compared.median) ? '' : times(compared)
    },
  })
  return table<DecisionSample>(measured, [
    limits,
    name,
    { title: 'Node µs', cell: ({ samples }) => median(samples, 'nodeUs').toFixed(1) },
    { title: 'Redis µs', cell: ({ samples }) => median(samples, 'redisUs').toFixed(1) },
    { title: 'calls', cell: ({ samples }) => median(samples, 'calls').toFixed(2) },
    toOne('Node', 'nodeUs'),
    toOne('Redis', 'redisUs'),
  ])
}

/** Requests over HTTP: what each limiter adds to the bare app, and ours to theirs. */
export function httpTable(measured: readonly Measured<HttpSample>[]): string {
  return table<HttpSample>(measured, [
    limits,
    name,
    { title: 'requests/s', cell: ({ samples }) => grouped(median(samples, 'perSecond')) },
    { title: 'server µs', cell: ({ samples }) => median(samples, 'serverUs').toFixed(0) },
    { title: 'added µs', cell: ({ samples, bare }) => between(spread(addedUs(samples, bare!)), 0) },
    { title: 'Redis µs', cell: ({ samples }) => median(samples, 'redisUs').toFixed(1) },
    { title: 'calls', cell: ({ samples }) => median(samples, 'calls').toFixed(2) },
    { title: 'p50 ms', cell: ({ samples }) => median(samples, 'p50Ms').toFixed(2) },
    { title: 'p99 ms', cell: ({ samples }) => median(samples, 'p99Ms').toFixed(2) },
    {
      title: 'ours : added',
      cell: (row) =>
        row.name === bareApp ? '' : times(ratio(addedUs(row.ours, row.bare!), addedUs(row.samples, row.bare!))),
    },
    toTheirs('requests/s', 'perSecond'),
  ])
}

/** The processor time that a limiter adds to a request, by round. */
function addedUs(samples: readonly HttpSample[], bare: readonly HttpSample[]): number[] {
  return samples.map(({ serverUs }, round) => serverUs - bare[round]!.serverUs)
}

function toTheirs<Field extends string>(what: string, field: Field): Column<Record<Field, number>> {
  return {
    title: `ours : ${what}`,
    cell: (row) =>
      times(
        ratio(
          row.ours.map((sample) => sample[field]),
          row.samples.map((sample) => sample[field]),
        ),
      ),
  }
}

function median<Field extends string>(samples: readonly Record<Field, number>[], field: Field): number {
  return spread(samples.map((sample) => sample[field])).median
}

/** A whole number with its thousands apart. */
function grouped(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(?:\d{3})+$)/g, ' ')
}

function between({ median, low, high }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`
}

function times({ median, low, high }: Spread): string {
  return `**${median.toFixed(2)}** (${low.toFixed(2)} to ${high.toFixed(2)})`
}

/** A Markdown table that also reads well as it is: columns as wide as what is in them, all but the name to the right. */
function table<Sample extends object>(
  measured: readonly Measured<Sample>[],
  columns: readonly Column<Sample>[],
): string {
  const samplesOf = (limits: number, name: string): readonly Sample[] | undefined =>
    measured.find((one) => one.limits === limits && one.name === name)?.samples
  const cells = measured.map((one) => {
    const row = { ...one, ours: samplesOf(one.limits, ours)!, bare: samplesOf(one.limits, bareApp) }
    // Ours, set against itself, says nothing.
    return columns.map(({ title, cell }) => (one.name === ours && title.startsWith('ours : ') ? '' : cell(row)))
  })
  const widths = columns.map(({ title }, column) =>
    Math.max(title.length, 3, ...cells.map((row) => row[column]!.length)),
  )
  const line = (row: readonly string[]): string =>
    `| ${row.map((text, column) => (columns[column] === name ? text.padEnd(widths[column]!) : text.padStart(widths[column]!))).join(' | ')} |`
  const rule = widths.map((width, column) =>
    columns[column] === name ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  )
  return [line(columns.map(({ title }) => title)), line(rule), ...cells.map(line)].join('\n')
}
