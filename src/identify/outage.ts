import { RampmeterError, warn } from '../errors.ts'
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

/** By its class and code alone: the message of a database's driver may name hosts, users or what was looked for. */
function becauseOf(error: unknown): string {
  if (!(error instanceof Error)) return ''
  const { code } = error as { code?: unknown }
  return `; the cause was ${error.name}${typeof code === 'string' ? ` ${code}` : ''}`
}
