import type { Request } from 'express'

/**
 * A URI made comparable (RFC 3986 sections 6.2.2 and 6.2.3): scheme and host in lower case, no default port, no dot segments, no query
 * and fragment, `%7e` as `~` and `%2f` as `%2F`. Undefined for what is no http(s) URI, or carries a user.
 */
export function normalizeTarget(uri: string): string | undefined {
  // What the URL parser would quietly take for something else: a backslash for a slash, a tab for nothing.
  if (!/^https?:\/\/[^/?#\\]/i.test(uri) || /[^\x21-\x7e]|\\/.test(uri) || !URL.canParse(uri)) return undefined
  const { protocol, host, pathname, username, password } = new URL(uri)
  if (username !== '' || password !== '' || uri.slice(0, uri.indexOf('/', 8) >>> 0).includes('@')) return undefined
  return `${protocol}//${host}${normalizePath(pathname)}`
}

const unreserved = /^[\w.~-]$/

/** Escapes what may not stand in a path, and undoes what need not be escaped. */
function normalizePath(path: string): string {
  if (/^[\w.~\-/]*$/.test(path)) return path
  return path
    .replace(/%([0-9a-f]{2})/gi, (escape, hex: string) => {
      const character = String.fromCharCode(Number.parseInt(hex, 16))
      return unreserved.test(character) ? character : escape.toUpperCase()
    })
    .replace(/[^\w.~\-/%!$&'()*+,;=:@]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** The URIs that a request may be known by from outside, without its query, one for each origin. */
export type TargetsOf = (req: Request) => readonly string[]

/**
 * Makes what tells by which URI a client addressed this server. Its origin comes from configuration: a `Host` field says what a
 * client wants to be true.
 *
 * @param origins each may have a path, which a proxy in front takes away
 */
export function createTargets(origins: readonly string[]): TargetsOf {
  const prefixes = origins.map((origin) => {
    const { protocol, host, pathname } = new URL(origin)
    return `${protocol}//${host}${pathname.replace(/\/$/, '')}`
  })
  return function targetsOf(req) {
    const path = pathOf(req.originalUrl)
    return prefixes.map((prefix) => `${prefix}${path}`)
  }
}

/** The path of a request target, which may be in absolute form (RFC 9112 section 3.2.2). */
function pathOf(target: string): string {
  const end = target.search(/[?#]/)
  const path = end === -1 ? target : target.slice(0, end)
  if (path.startsWith('/')) return path
  const absolute = /^https?:\/\/[^/]*(.*)$/i.exec(path)
  return absolute === null ? `/${path}` : absolute[1] || '/'
}
