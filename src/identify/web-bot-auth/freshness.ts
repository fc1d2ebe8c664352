/** A field of a response, or null. */
export type ResponseField = (name: string) => string | null

/** What says nothing is asked for again after ten minutes. */
const defaultMs = 10 * 60_000

/** Whatever a directory says, it is not asked more often than that for keys it has given, nor more seldom. */
const leastMs = 60_000
const mostMs = 24 * 3_600_000

/**
 * For how long a response is fresh, in ms: `Cache-Control`, else `Expires`, less `Age` (RFC 9111 sections 4.2.1 and 4.2.3), within
 * a minute and a day.
 */
export function freshnessOf(field: ResponseField, now: number): number {
  const age = /^\d{1,10}$/.test(field('age') ?? '') ? Number(field('age')) * 1000 : 0
  return Math.min(mostMs, Math.max(leastMs, lifetimeOf(field, now) - age))
}

function lifetimeOf(field: ResponseField, now: number): number {
  const control = (field('cache-control') ?? '').toLowerCase()
  if (/(^|[\s,])no-(store|cache)\b/.test(control)) return 0
  const maxAge = /(?:^|[\s,])max-age="?(\d{1,10})/.exec(control)
  if (maxAge !== null) return Number(maxAge[1]) * 1000
  const expires = field('expires')
  if (expires === null) return defaultMs
  const date = Date.parse(field('date') ?? '')
  // One that is no date is in the past (RFC 9111 section 5.3).
  return (Date.parse(expires) || 0) - (Number.isNaN(date) ? now : date)
}

/** What `Retry-After` asks for (RFC 9110 section 10.2.3), in ms; 0 where it asks for nothing. */
export function retryAfterOf(field: ResponseField, now: number): number {
  const value = field('retry-after') ?? ''
  if (/^\d{1,10}$/.test(value)) return Number(value) * 1000
  return Math.max(0, (Date.parse(value) || 0) - now)
}
