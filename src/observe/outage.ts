import { warn, type RampmeterError } from '../errors.ts'
import type { StoreName } from '../store-name.ts'
import { causeOf } from './channels.ts'

/** An outage that comes and goes is told once in this time, in ms. */
const quietMs = 60_000

let lastAt = -Infinity

/** The stores whose outage has been told, until they are back. */
const told = new Set<string>()

/**
 * Tells whoever runs the app, by a process warning, that the store is away: once for an outage, and not within a minute of another,
 * whichever of a process's limiters met it. One that began within that minute is told after it, if it is still on. Every single decision without it is on `rampmeter:degraded`.
 *
 * @param count which decision of the outage it is
 * @param store which it is; null where it does not say
 * @param isAlone nobody knows how many processes share the store, so this one gives out whole quotas
 */
export function warnOfOutage(error: RampmeterError, count: number, isAlone: boolean, store: StoreName | null): void {
  const now = performance.now()
  const name = nameOf(store)
  if ((count > 1 && told.has(name)) || now - lastAt < quietMs) return
  lastAt = now
  told.add(name)
  const alone = isAlone
    ? '; it was not reached since the start, so this process takes itself for the only one: set `processes` where there are more'
    : ''
  const which = store === null ? '' : ` (${store.kind} ${store.address})`
  warn(
    'RAMPMETER_STORE_UNAVAILABLE',
    `the store is away, and requests are decided without it until it answers: ${causeOf(error)}${which}${alone}`,
  )
}

/** The store is back: its next outage is another. */
export function endOutage(store: StoreName | null): void {
  told.delete(nameOf(store))
}

function nameOf(store: StoreName | null): string {
  return store === null ? '' : `${store.kind} ${store.address}`
}
