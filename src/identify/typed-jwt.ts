import type { SignedParts } from './keys.ts'
import { decodePart } from './tokens.ts'

/** A JWT of the type that is wanted. Nothing in it is proven. */
export interface TypedJwt {
  readonly outcome: 'read'
  readonly text: string
  readonly alg: string
  readonly header: Readonly<Record<string, unknown>>
  readonly claims: Readonly<Record<string, unknown>>
  readonly parts: SignedParts
}

/** Longer ones are nobody's: Node's own limit for all fields together is 16 KB. */
const longest = 16_384

/**
 * Reads a JWT that stands alone in a field of its own, all but its signature. One of another type must not be taken for it, however well it
 * is signed (RFC 8725 section 3.11).
 *
 * @param values all values of the field
 * @param what names it, for the reason: `the proof`
 * @returns a reason where it is not what is wanted
 */
export function readTypedJwt(
  values: readonly string[],
  what: string,
  type: string,
  algorithms: readonly string[],
): TypedJwt | string {
  const text = values[0] ?? ''
  const [protectedHeader = '', payload = '', signature = '', ...rest] = text.length > longest ? [] : text.split('.')
  const header = decodePart(protectedHeader)
  const claims = decodePart(payload)
  // What decodes base64 overlooks spaces: one JWT would have spellings without end.
  const isJwt = header !== undefined && claims !== undefined && /^[\w-]+$/.test(signature) && rest.length === 0
  if (values.length !== 1 || !isJwt) return `${what} must be exactly one JWT`
  const { typ, alg } = header
  if (typ !== type) return `the type of ${what} is not ${type}`
  if (typeof alg !== 'string' || !algorithms.includes(alg)) {
    return `${what} is signed with an algorithm that is not accepted here`
  }
  if ('crit' in header) return `${what} wants something understood that is not`
  return { outcome: 'read', text, alg, header, claims, parts: { protected: protectedHeader, payload, signature } }
}
