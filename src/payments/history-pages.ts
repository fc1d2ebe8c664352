import { RampmeterError } from '../errors.ts'
import { cameBefore, type HistoryQuery, type StoredMovement } from '../stores/ledger.ts'
import type { HistoryEntry } from './ledger.ts'

/** Where a page begins: after this movement, or after the sum of all up to it. */
export interface PageStart {
  readonly movement: string
  readonly isSum: boolean
}

const idSyntax = /^([\w-]{22})\.(\d{1,16}-\d{1,16})(~?)$/

/** The sum of what was trimmed has the place of the last of that, and another id: it is told in place of all of them. */
export function entriesOf(account: string, movements: readonly StoredMovement[]): HistoryEntry[] {
  return movements.map(({ id, type, available, held, ref }) => ({
    id: `${account}.${id}${type === 'checkpoint' ? '~' : ''}`,
    at: Number(id.slice(0, id.indexOf('-'))),
    type,
    available,
    held,
    ref: ref === '' ? null : ref,
  }))
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` */
export function pageStart(after: unknown, account: string): PageStart {
  if (after === undefined) return { movement: '', isSum: false }
  const [, of, movement, sum] = typeof after === 'string' ? (idSyntax.exec(after) ?? []) : []
  if (movement !== undefined && of === account) return { movement, isSum: sum === '~' }
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    'history: `after` is no id of an entry of this account; write the `id` of the last entry that was told before',
  )
}

/**
 * Whether what comes after the start has since become part of a sum that has some of what was told before in it: then no page could
 * go on from there.
 *
 * @param oldest what the account's history begins with now
 */
export async function isCut(
  start: PageStart,
  { limit, newestFirst }: HistoryQuery,
  page: readonly StoredMovement[],
  oldest: () => Promise<StoredMovement | undefined>,
): Promise<boolean> {
  if (start.movement === '') return false
  if (!newestFirst) return page[0]?.type === 'checkpoint'
  // A full page goes on, and one that ends with a sum, or comes after one, is the last.
  if (start.isSum || page.length === limit || page.at(-1)?.type === 'checkpoint') return false
  const first = await oldest()
  return first?.type === 'checkpoint' && !cameBefore(first.id, start.movement)
}
