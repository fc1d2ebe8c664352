import type { LayoutFinding } from './layouts.ts'
import type { HeapBytes } from './memory/in-process.ts'
import type { ClientBytes, CrowdBytes } from './memory/in-redis.ts'
import { spread } from './statistics.ts'
import type { StartFinding } from './start-up.ts'
import { grouped, table, type Column } from './table.ts'

const limits: Column<{ limits: number }> = { title: 'limits', cell: (row) => String(row.limits) }
const name: Column<{ name: string }> = { title: '', words: true, cell: (row) => row.name }

/** What one client's keys take in Redis. */
export function clientTable(found: readonly ClientBytes[]): string {
  return table(found, [
    limits,
    name,
    { title: 'bytes after 1 request', cell: ({ afterOne }) => grouped(afterOne) },
    { title: 'after 1000', cell: ({ afterThousand }) => grouped(afterThousand) },
  ])
}

/** What many clients take in Redis that have asked once. */
export function crowdTable(found: readonly CrowdBytes[]): string {
  return table(found, [
    limits,
    name,
    { title: 'clients', cell: ({ clients }) => grouped(clients) },
    { title: 'bytes a client', cell: ({ bytesEach }) => grouped(bytesEach) },
    { title: 'keys a client', cell: ({ keysEach }) => keysEach.toFixed(2) },
  ])
}

/** The same in memory stores. */
export function heapTable(found: readonly HeapBytes[]): string {
  return table(found, [
    limits,
    name,
    { title: 'clients', cell: ({ clients }) => grouped(clients) },
    { title: 'bytes of heap a client', cell: ({ bytesEach }) => grouped(bytesEach) },
  ])
}

/** Ways to lay out state. */
export function layoutTable(found: readonly LayoutFinding[]): string {
  const median = (values: readonly number[]): number => spread(values).median
  return table(found, [
    { title: 'policies', cell: ({ policies }) => String(policies) },
    name,
    { title: 'reads', cell: ({ samples }) => median(samples.map(({ reads }) => reads)).toFixed(0) },
    { title: 'writes', cell: ({ samples }) => median(samples.map(({ writes }) => writes)).toFixed(0) },
    { title: 'bytes a client', cell: ({ bytes }) => grouped(bytes) },
    {
      title: 'Redis µs',
      cell({ samples }) {
        const { median: middle, low, high } = spread(samples.map(({ redisUs }) => redisUs))
        return `${middle.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`
      },
    },
  ])
}

/** What it takes until a process can limit. */
export function startTable(found: readonly StartFinding[]): string {
  const median = (title: string, field: keyof StartFinding['samples'][number]): Column<StartFinding> => ({
    title,
    cell: ({ samples }) => spread(samples.map((sample) => sample[field])).median.toFixed(1),
  })
  return table(found, [
    name,
    median('import, ms', 'importMs'),
    median('a limiter, ms', 'startMs'),
    median('processor time of both, ms', 'cpuMs'),
    median('heap, MB', 'heapMB'),
  ])
}
