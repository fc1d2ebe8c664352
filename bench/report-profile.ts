import { parties, type Party } from './profile/parties.ts'
import type { ProfileFinding } from './profile/node-time.ts'
import type { StepFinding } from './profile/redis-time.ts'
import { spread } from './statistics.ts'
import { table, type Column } from './table.ts'

/** Where Node's time goes, in µs a decision or a request. */
export function profileTable(found: readonly ProfileFinding[]): string {
  const timeOf = (party: Party): Column<ProfileFinding> => ({
    title: party,
    cell: ({ us, parties: shares }) => (us * shares.get(party)!).toFixed(2),
  })
  return table<ProfileFinding>(found, [
    { title: '', words: true, cell: ({ load }) => load },
    { title: 'limits', cell: ({ limits }) => String(limits) },
    { title: '', words: true, cell: ({ name }) => name },
    { title: 'Node µs', cell: ({ us }) => us.toFixed(2) },
    ...parties.map(timeOf),
  ])
}

/** What each step costs Redis. */
export function stepTable(found: readonly StepFinding[]): string {
  return table<StepFinding>(found, [
    { title: 'limits', cell: ({ limits }) => String(limits) },
    { title: '', words: true, cell: ({ name }) => name },
    {
      title: 'Redis µs',
      cell({ samples }) {
        const { median, low, high } = spread(samples.map(({ redisUs }) => redisUs))
        return `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`
      },
    },
  ])
}
