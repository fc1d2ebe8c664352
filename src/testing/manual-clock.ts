import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'

/** A clock that stands still until a test turns it. Calling it tells the time, in milliseconds since 1970. */
export interface ManualClock {
  (): number
  /**
   * Turns the clock on and returns the new time. Takes milliseconds, fractions and negative ones too (a clock that is set
   * back), or a text such as `'10s'`.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_DURATION`
   */
  advance(by: Duration): number
  /**
   * Sets the clock, in milliseconds since 1970, and returns that.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
   */
  set(ms: number): number
}

/**
 * Makes a clock for `memoryStore({ now })`, so that a test of an hour's quota takes no hour.
 *
 * It counts whole microseconds, as the stores do: a thousand steps of 0.001 ms are exactly 1 ms.
 *
 * @param startMs what it shows at first, in milliseconds since 1970. Default: 2026-01-01T00:00:00Z
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 *
 * @example
 * const clock = manualClock()
 * const limiter = rampmeter({ store: memoryStore({ now: clock }) })
 * clock.advance('1m')
 */
export function manualClock(startMs: number = Date.UTC(2026, 0, 1)): ManualClock {
  let us = readTime(startMs)

  function now(): number {
    return us / 1000
  }

  return Object.assign(now, {
    advance(by: Duration): number {
      if (typeof by === 'number' && Number.isFinite(by)) us = readTime((us + Math.round(by * 1000)) / 1000)
      else us += parseDuration(by, 'what the clock is advanced by') * 1000
      return now()
    },
    set(ms: number): number {
      us = readTime(ms)
      return now()
    },
  })
}

/** Microseconds of a time in milliseconds. */
function readTime(ms: number): number {
  const us = Math.round(ms * 1000)
  if (typeof ms !== 'number' || !Number.isSafeInteger(us) || us < 0) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `a clock was set to ${String(ms)}; write milliseconds since 1970, as Date.now() gives them`,
    )
  }
  return us
}
