import type { Request } from 'express'
import { fieldValues } from '../fields.ts'

/** What a signer may have meant by this request's host and target. */
export interface SignedTarget {
  /** Scheme and authority, in lower case and without a default port. */
  readonly origin: string
  /** Path and query as they were sent, with what a proxy took away in front. */
  readonly target: string
}

/**
 * Makes what tells for which host and path a request may have been signed. The host comes from configuration: whoever was sent a
 * signed request for another host could send it on with that host's name in `Host`.
 *
 * @param origins each may have a path, which a proxy in front takes away. Of several, `Host` only chooses; where it names none of
 *   them, because a proxy rewrote it, all may have been meant
 */
export function createTarget(origins: readonly string[]): (req: Request) => readonly SignedTarget[] {
  const known = origins.map((one) => {
    const { origin, host, pathname } = new URL(one)
    return { origin, host, prefix: pathname.replace(/\/$/, '') }
  })

  return function targetsOf(req) {
    const target = originForm(req.originalUrl ?? req.url)
    const shown = fieldValues(req, 'host')[0]?.toLowerCase()
    const meant = known.length === 1 ? known : known.filter(({ host }) => host === shown)
    return (meant.length === 0 ? known : meant).map(({ origin, prefix }) => ({ origin, target: `${prefix}${target}` }))
  }
}

/** A request target may be a whole URI (RFC 9112 section 3.2.2). */
function originForm(target: string): string {
  if (target.startsWith('/')) return target
  const rest = /^https?:\/\/[^/?#]*(.*)$/is.exec(target)?.[1] ?? target
  return rest.startsWith('/') ? rest : `/${rest}`
}
