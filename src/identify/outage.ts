import { classAndCodeOf, RampmeterError, warn } from '../errors.ts'
import type { Identified } from './identify.ts'

/**
 * Makes what reports, once, that a credential could not be checked. Whoever showed it is answered 503, and without this nobody
 * who runs the app would learn why.
 */
export function createOutageReport(): (identified: Identified) => void {
  let reported = false

  return function reportOutage(identified) {
    if (reported || identified.outcome !== 'unavailable') return
    reported = true
    const { reason, cause } = identified
    if (cause instanceof RampmeterError) warn(cause.code, `${cause.message}${becauseOf(cause.cause)}`)
    else warn('RAMPMETER_LOOKUP_FAILED', `${reason}; whoever showed a credential was answered 503${becauseOf(cause)}`)
  }
}

function becauseOf(error: unknown): string {
  return error instanceof Error ? `; the cause was ${classAndCodeOf(error)}` : ''
}
