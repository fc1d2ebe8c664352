import { clientOf, readBearer, type Claims } from './agent-claims.ts'
import { isWellFormed } from './subject.ts'
import type { Identity } from './verifier.ts'

/** What a token binds itself to (RFC 7800 `cnf`): the keys without which it is worth nothing. */
export interface Bindings {
  /** The thumbprint of a DPoP key (RFC 9449 section 6.1). */
  readonly jkt: string | undefined
  /** The thumbprint of a certificate (RFC 8705 section 3.1). */
  readonly x5t: string | undefined
  /** There are others, which nothing here can check. */
  readonly others: boolean
}

/** Reads what a token is bound to; undefined for one that is bound to nothing. */
export function bindingsOf(claims: Claims): Bindings | undefined {
  const { cnf } = claims
  if (cnf === undefined || cnf === null) return undefined
  if (typeof cnf !== 'object') return { jkt: undefined, x5t: undefined, others: true }
  const { jkt, 'x5t#S256': x5t, ...others } = cnf as Record<string, unknown>
  return {
    jkt: typeof jkt === 'string' ? jkt : undefined,
    x5t: typeof x5t === 'string' ? x5t : undefined,
    others:
      Object.keys(others).length > 0 ||
      (jkt !== undefined && typeof jkt !== 'string') ||
      (x5t !== undefined && typeof x5t !== 'string') ||
      (jkt === undefined && x5t === undefined),
  }
}

/** What a client's id may have: a verifier that answers with a longer one is taken for broken. */
const longestId = 1024

/**
 * Whose token it is: `sub:<iss>|<sub>`, or the client where it names no subject. An agent that acts for somebody has a quota of
 * its own, `…|agent`: one, however many agents act for the same person.
 *
 * Undefined where it names nobody that could be counted, or names its subject in a way that cannot be read.
 *
 * @param type the token's `typ`, in lower case
 */
export function tokenIdentity(
  issuer: string,
  type: string | undefined,
  claims: Claims,
  agents: ReadonlySet<string>,
): Omit<Identity, 'provesKey'> | undefined {
  const { sub } = claims
  // One that is there and is no text (RFC 7519 section 4.1.2) names somebody: all of them would share what is their client's.
  if (sub != null && typeof sub !== 'string') return undefined
  const subject = sub || clientOf(claims)
  if (subject === undefined || !isWellFormed(subject)) return undefined
  const { actsFor, ...bearer } = readBearer(type, claims, agents)
  const id = `sub:${issuer}|${actsFor ? `${subject}|agent` : unlikeAnAgent(subject)}`
  if (id.length > longestId) return undefined
  const scopes = scopesOf(claims)
  return {
    id,
    ...bearer,
    ...(scopes !== undefined && { scopes }),
    claims: { ...claims },
  }
}

/** A subject that itself ends in `|agent` must not be taken for the agent of another. */
function unlikeAnAgent(subject: string): string {
  return /\|agent(?:\|self)*$/.test(subject) ? `${subject}|self` : subject
}

/** The scopes of a token: `scope` (RFC 9068 section 2.2.3, RFC 7662), or `scp` as some issuers write it. */
function scopesOf(claims: Claims): string[] | undefined {
  const claim = claims['scope'] ?? claims['scp']
  if (typeof claim === 'string') return claim.split(' ').filter((scope) => scope !== '')
  if (Array.isArray(claim)) return claim.filter((scope): scope is string => typeof scope === 'string')
  return undefined
}

/** Those of the wanted scopes that are lacking. */
export function missingScopes(wanted: readonly string[], scopes: readonly string[] = []): string[] {
  return wanted.filter((scope) => !scopes.includes(scope))
}
