import { RampmeterError } from '../errors.ts'

/** How many entries a board holds. */
export const mostEntries = 1000

/** The longest that an entry lives, in ms: a day. */
const longestMs = 86_400_000

/**
 * Lets through what can be posted.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 */
export function checkPost(board: string, entry: string, value: number, ttlMs: number): void {
  const isName = (text: string): boolean => /^[\w.-]{1,64}$/.test(text)
  const fits = Number.isSafeInteger(value) && Number.isInteger(ttlMs) && ttlMs >= 0 && ttlMs <= longestMs
  if (isName(board) && isName(entry) && fits) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    'post was given a board or entry whose name is not 1 to 64 letters, digits, ".", "_" or "-", a value that is not a whole number, or a life that is not 0 ms to a day',
  )
}

/** The boards of a process: the twin of lua/board.lua. */
export class Boards {
  readonly #boards = new Map<string, Map<string, { readonly value: number; readonly untilUs: number }>>()

  /** @param now in µs */
  post(name: string, entry: string, value: number, ttlMs: number, now: number): number[] {
    checkPost(name, entry, value, ttlMs)
    const board = this.#boards.get(name) ?? new Map<string, { value: number; untilUs: number }>()
    for (const [other, { untilUs }] of board) {
      if (other === entry || untilUs <= now || untilUs > now + longestMs * 1000) board.delete(other)
    }
    if (ttlMs > 0 && board.size < mostEntries) board.set(entry, { value, untilUs: now + ttlMs * 1000 })
    if (board.size > 0) this.#boards.set(name, board)
    else this.#boards.delete(name)
    return [...board.values()].map((one) => one.value)
  }

  clear(): void {
    this.#boards.clear()
  }
}
