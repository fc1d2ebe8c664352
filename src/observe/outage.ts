import { warn, type RampmeterError } from '../errors.ts'
import { causeOf } from './channels.ts'

/** An outage that comes and goes is told once in this time, in ms. */
const quietMs = 60_000

/**
 * Makes what tells whoever runs the app, by a process warning, that the store is away: once when it begins, and not again
 * within a minute. Every single decision without it is on `rampmeter:degraded`.
 */
export function createOutageWarning(): (error: RampmeterError, count: number) => void {
  let lastAt = -Infinity
  return function warnOfOutage(error, count) {
    const now = performance.now()
    if (count > 1 || now - lastAt < quietMs) return
    lastAt = now
    warn(
      'RAMPMETER_STORE_UNAVAILABLE',
      `the store is away, and requests are decided without it until it answers: ${causeOf(error)}`,
    )
  }
}
