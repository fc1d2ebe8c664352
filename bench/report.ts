import { baseline } from './dimensions.ts'
import { addedUs, bareApp, type HttpSample } from './http.ts'
import { ours } from './libraries/libraries.ts'
import type { DecisionSample, Measured } from './slice.ts'
import { ratio, ratioOfMedians, spread, type Spread } from './statistics.ts'
import { grouped, table, type Column } from './table.ts'

/** A row of a table, with ours that it is set against: of the same number of limits, and measured in the same rounds. */
interface Row<Sample> extends Measured<Sample> {
  readonly ours: readonly Sample[]
}

const limits: Column<Row<object>> = { title: 'limits', cell: (row) => String(row.limits) }
const name: Column<Row<object>> = { title: '', words: true, cell: (row) => row.name }

const perSecond: Column<Row<DecisionSample>> = {
  title: 'decisions/s',
  cell: ({ samples }) => grouped(median(samples, 'perSecond')),
}

/** Decisions on Redis. The ratios are ours to the row's. */
export function redisTable(measured: readonly Measured<DecisionSample>[]): string {
  return table(besideOurs(measured), [
    limits,
    name,
    perSecond,
    number('p50 µs', 'p50Us', 0),
    number('Node µs', 'nodeUs', 1),
    number('Redis µs', 'redisUs', 1),
    number('calls', 'calls', 2),
    number('in scripts', 'inside', 1),
    toTheirs('decisions/s', 'perSecond'),
    toTheirs('Node', 'nodeUs'),
    toTheirs('Redis', 'redisUs'),
  ])
}

/** Refusals of one client that keeps asking. */
export function stormTable(measured: readonly Measured<DecisionSample>[]): string {
  return table(besideOurs(measured), [
    name,
    perSecond,
    number('Node µs', 'nodeUs', 2),
    number('Redis µs', 'redisUs', 2),
    {
      title: 'calls per 1000',
      cell: ({ samples }) => (median(samples, 'calls') * 1000).toFixed(2),
    },
    toTheirs('decisions/s', 'perSecond'),
    toTheirs('Node', 'nodeUs'),
  ])
}

/** Decisions in memory. */
export function memoryTable(measured: readonly Measured<DecisionSample>[]): string {
  return table(besideOurs(measured), [
    limits,
    name,
    perSecond,
    number('Node µs', 'nodeUs', 2),
    toTheirs('decisions/s', 'perSecond'),
    toTheirs('Node', 'nodeUs'),
  ])
}

/** What each dimension costs, to one token bucket. */
export function dimensionTable(measured: readonly Measured<DecisionSample>[]): string {
  const one = measured.find(({ name }) => name === baseline)!.samples
  const toOne = (what: string, field: 'nodeUs' | 'redisUs'): Column<Row<DecisionSample>> => ({
    title: `${what} : ${baseline}`,
    cell({ samples, name }) {
      const compared = ratio(numbers(samples, field), numbers(one, field))
      return name === baseline || Number.isNaN(compared.median) ? '' : times(compared)
    },
  })
  const rows = measured.map((row) => ({ ...row, ours: one }))
  return table<Row<DecisionSample>>(rows, [
    limits,
    name,
    number('Node µs', 'nodeUs', 1),
    number('Redis µs', 'redisUs', 1),
    number('calls', 'calls', 2),
    toOne('Node', 'nodeUs'),
    toOne('Redis', 'redisUs'),
  ])
}

/** Requests over HTTP: what each limiter adds to the bare app, and ours to theirs. */
export function httpTable(measured: readonly Measured<HttpSample>[]): string {
  const bare = measured.find(({ name }) => name === bareApp)!.samples
  return table<Row<HttpSample>>(besideOurs(measured), [
    limits,
    name,
    { title: 'requests/s', cell: ({ samples }) => grouped(median(samples, 'perSecond')) },
    number('server µs', 'serverUs', 0),
    {
      title: 'added µs',
      cell: (row) => (row.name === bareApp ? '' : between(spread(addedUs(row.samples, bare)), 1)),
    },
    number('Redis µs', 'redisUs', 1),
    number('calls', 'calls', 2),
    number('p50 ms', 'p50Ms', 2),
    number('p99 ms', 'p99Ms', 2),
    {
      title: 'ours : added',
      cell: (row) => (isAlone(row) ? '' : times(ratioOfMedians(addedUs(row.ours, bare), addedUs(row.samples, bare)))),
    },
    toTheirs('requests/s', 'perSecond'),
  ])
}

function besideOurs<Sample>(measured: readonly Measured<Sample>[]): Row<Sample>[] {
  return measured.map((one) => {
    const own = measured.find(({ name, limits }) => name === ours && limits === one.limits)
    return { ...one, ours: own?.samples ?? [] }
  })
}

/** Ours, set against itself, says nothing. */
function isAlone({ name, ours: own }: Row<unknown>): boolean {
  return name === ours || own.length === 0
}

function number<Field extends string>(
  title: string,
  field: Field,
  digits: number,
): Column<Row<Readonly<Record<Field, number>>>> {
  return { title, cell: ({ samples }) => median(samples, field).toFixed(digits) }
}

function toTheirs<Field extends string>(what: string, field: Field): Column<Row<Readonly<Record<Field, number>>>> {
  return {
    title: `ours : ${what}`,
    cell: (row) => (isAlone(row) ? '' : times(ratio(numbers(row.ours, field), numbers(row.samples, field)))),
  }
}

function numbers<Field extends string>(samples: readonly Readonly<Record<Field, number>>[], field: Field): number[] {
  return samples.map((sample) => sample[field])
}

function median<Field extends string>(samples: readonly Readonly<Record<Field, number>>[], field: Field): number {
  return spread(numbers(samples, field)).median
}

function between({ median, low, high }: Spread, digits: number): string {
  return `${median.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`
}

/** A ratio; empty where there is nothing to divide by, as of Redis where none is asked. */
function times({ median, low, high }: Spread): string {
  return Number.isFinite(median) ? `**${median.toFixed(2)}** (${low.toFixed(2)} to ${high.toFixed(2)})` : ''
}
