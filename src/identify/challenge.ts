/** What a challenge says besides its scheme (RFC 6750 section 3, RFC 9449 section 7.1, RFC 9728 section 5.1). */
export interface ChallengeParameters {
  readonly error?: string | undefined
  readonly error_description?: string | undefined
  readonly scope?: string | undefined
  readonly algs?: string | undefined
  readonly resource_metadata?: string | undefined
}

/**
 * Writes a `WWW-Authenticate` value (RFC 9110 section 11.6.1): every parameter as a quoted string, as their specifications
 * want. Nothing that a client sent belongs in it.
 */
export function challenge(scheme: string, parameters: ChallengeParameters): string {
  const written = Object.entries(parameters)
    .filter((entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '')
    .map(([name, value]) => `${name}="${quotable(value)}"`)
  return written.length === 0 ? scheme : `${scheme} ${written.join(', ')}`
}

/** What may stand in a quoted string here: printable ASCII, and none of what would have to be escaped. */
function quotable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '').replace(/["\\]/g, "'")
}
