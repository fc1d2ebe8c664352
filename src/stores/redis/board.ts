import { checkPost, mostEntries } from '../board.ts'
import type { ScriptCall } from './plan.ts'

/** The call of lua/board.lua that posts one entry. */
export function planPost(key: string, board: string, entry: string, value: number, ttlMs: number): ScriptCall {
  checkPost(board, entry, value, ttlMs)
  return { keys: [key], plans: [entry, String(value), String(ttlMs), String(mostEntries)] }
}
