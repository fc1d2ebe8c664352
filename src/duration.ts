import ms, { type StringValue } from 'ms'
import { RampmeterError } from './errors.ts'

/** A span of time: a whole number of milliseconds, or a number with a unit: `'250ms'`, `'10s'`, `'1m'`, `'1h'`, `'1d'`. */
export type Duration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

/** A leap year: what no window needs to be longer than, and what keeps microseconds exact in a double. */
const longestMs = 366 * 24 * 3_600_000

/**
 * Reads a duration.
 *
 * @returns whole milliseconds, from 1 to 366 days
 * @throws {RampmeterError} `RAMPMETER_INVALID_DURATION`
 */
export function parseDuration(value: unknown, what: string): number {
  const read = typeof value === 'string' && /^\d+(\.\d+)?(ms|s|m|h|d)$/.test(value) ? ms(value as StringValue) : value
  if (typeof read !== 'number' || !Number.isInteger(read) || read < 1 || read > longestMs) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_DURATION',
      `${what} is ${typeof value === 'string' ? JSON.stringify(value) : String(value)}; write whole milliseconds or a text such as "250ms", "10s", "1m", "1h" or "1d", from 1 ms to 366 days${hintFor(value)}`,
    )
  }
  return read
}

/** What is meant by units that durations do not have. */
function hintFor(value: unknown): string {
  if (typeof value !== 'string') return ''
  if (/^\d*\s*w(eeks?)?$/i.test(value)) return '; a week is "7d"'
  const [, unit = ''] = /^\d*\s*(day|hour|minute|second)s?$/i.exec(value) ?? []
  if (unit !== '') return `; one ${unit.toLowerCase()} is "1${unit[0]!.toLowerCase()}"`
  if (/^\d*\s*mo(nths?)?$/i.test(value)) {
    return "; calendar months are a window of fixedWindow: { window: 'month', align: 'utc' }"
  }
  return ''
}

/** Writes milliseconds the short way people write windows: `60000` is `1m`, `90000` is `90s`. */
export function formatDuration(milliseconds: number): string {
  for (const [unit, size] of [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['m', 60_000],
    ['s', 1000],
  ] as const) {
    if (milliseconds % size === 0) return `${milliseconds / size}${unit}`
  }
  return `${milliseconds}ms`
}
