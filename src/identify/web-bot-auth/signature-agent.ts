import { normalizeTarget } from '../target.ts'

/** Where a signer says that its keys are. */
export interface DirectoryUrl {
  /** Names the signer: the URL normalised (RFC 3986 sections 6.2.2 and 6.2.3), without its query. */
  readonly id: string
  /** What is fetched: the same with its query. */
  readonly url: string
}

/** Longer ones are nobody's; with a scheme and an address the client's id stays below its own bound. */
const longestUrl = 900

const wellKnown = '/.well-known/http-message-signatures-directory'

/**
 * Reads the URL that a Signature-Agent member carries: https, absolute, without a user and a fragment. A bare origin means the
 * well-known place on it, as older drafts have it; anything with a path is the key set itself. Undefined for anything else.
 *
 * @see draft-ietf-webbotauth-httpsig-protocol, "Key Distribution and Discovery"
 */
export function readDirectoryUrl(value: unknown): DirectoryUrl | undefined {
  if (typeof value !== 'string' || value.length > longestUrl) return undefined
  if (!/^https:\/\//i.test(value) || value.includes('#')) return undefined
  const normal = normalizeTarget(value)
  if (normal === undefined || normal.length > longestUrl) return undefined
  const { origin, pathname, search } = new URL(value)
  if (pathname === '/' && search === '') {
    const url = `${origin}${wellKnown}`
    return { id: url, url }
  }
  return { id: normal, url: `${normal}${search}` }
}
