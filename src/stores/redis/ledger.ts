import {
  ledgerAnswers,
  partitionOfAccount,
  type LedgerAnswer,
  type LedgerCall,
  type LedgerStore,
  type MovementType,
  type StoredMovement,
  type TakeBack,
  type Totals,
} from '../ledger.ts'
import type { Connection } from './connection.ts'
import { untilMoved } from './moving-slots.ts'
import { keysOfAccount, type KeyNames } from './plan.ts'

/** How a Redis keeps accounts: lua/ledger.lua, which says what is sent and what comes back. */
export function createLedgerStore(connection: Connection, names: KeyNames, whileOpen: () => void): LedgerStore {
  async function run(account: string, plan: readonly (number | string)[]): Promise<unknown[]> {
    whileOpen()
    const call = { keys: keysOfAccount(names, partitionOfAccount(account)), plans: [JSON.stringify(plan)] }
    return (await untilMoved(() => connection.call('ledger', call))) as unknown[]
  }

  return {
    async ask(account, call, history) {
      const [code, available, held, ...more] = (await run(account, [
        operations[call.does],
        history,
        ...planOf(call),
      ])) as [number, number, number, ...number[]]
      return { code: ledgerAnswers[code]!, available, held, ...readMore(call, code, more) }
    },

    async history(account, { sinceMs, limit, after, newestFirst }) {
      const plan = [9, Number.MAX_SAFE_INTEGER, sinceMs, limit, after, Number(newestFirst)]
      const row = (await run(account, plan)) as string[]
      return Array.from({ length: row.length / 5 }, (_, nth): StoredMovement => {
        const [id, type, available, held, ref] = row.slice(nth * 5, nth * 5 + 5) as [
          string,
          MovementType,
          string,
          string,
          string,
        ]
        return { id, type, available: Number(available), held: Number(held), ref }
      })
    },

    async dangers() {
      whileOpen()
      try {
        const [memory, persistence] = await Promise.all([connection.info('memory'), connection.info('persistence')])
        return [
          ...new Set([
            ...memory.flatMap((info) => dangerOf(info, 'maxmemory_policy', 'noeviction', 'keys may be evicted')),
            ...persistence.flatMap((info) => dangerOf(info, 'aof_enabled', '1', 'there is no append-only file')),
          ]),
        ]
      } catch (error) {
        // What is said of an answer; whoever gave none may be safe.
        if (error instanceof Error && error.name === 'ReplyError') return ['its settings cannot be read (INFO)']
        throw error
      }
    },
  }
}

const operations: Record<LedgerCall['does'], number> = {
  balance: 1,
  grant: 2,
  hold: 3,
  capture: 4,
  release: 5,
  refund: 6,
  settle: 7,
  cancel: 8,
  sum: 10,
  'take-back': 11,
}

/** By their numbers in lua/ledger.lua, from 1 on. */
const takeBacks: readonly TakeBack[] = ['most', 'once', 'returned']

function planOf(call: LedgerCall): readonly (number | string)[] {
  switch (call.does) {
    case 'balance':
      return []
    case 'grant':
      return [call.amount, call.key, call.purchase, call.ref]
    case 'hold':
      return [call.charge, call.amount, call.forUs]
    case 'capture':
      return [call.charge, call.amount ?? -1]
    case 'refund':
      return [call.charge, call.amount ?? -1, call.key]
    case 'settle':
      return [call.charge, call.total]
    case 'release':
    case 'cancel':
      return [call.charge]
    case 'sum':
      return [call.rebuild ? 1 : 0]
    case 'take-back':
      return [
        call.purchase,
        call.by,
        takeBacks.indexOf(call.how) + 1,
        call.part,
        call.price,
        call.ref,
        call.early ? 1 : 0,
      ]
  }
}

function readMore(call: LedgerCall, code: number, more: readonly number[]): Partial<LedgerAnswer> {
  if (call.does === 'grant' && code === 0) return { id: more.join('-') }
  if (call.does === 'settle') return { total: more[0]! }
  if (call.does === 'take-back') return { moved: more[0]!, first: more[1] === 1 }
  if (call.does === 'sum') return { totals: readTotals(more), sums: readTotals(more.slice(5)) }
  return {}
}

function readTotals([available, held, granted, spent, refunded]: readonly number[]): Totals {
  return { available: available!, held: held!, granted: granted!, spent: spent!, refunded: refunded! }
}

function dangerOf(info: string, field: string, safe: string, danger: string): string[] {
  const [, value] = new RegExp(`^${field}:(\\S*)`, 'm').exec(info) ?? []
  if (value === safe) return []
  return [value === undefined ? `it does not tell its ${field}` : `${danger} (${field} is ${value})`]
}
