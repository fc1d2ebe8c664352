import type { IncomingMessage } from 'node:http'

/**
 * Every value of a header field, as often as it came. Node joins two fields of a name with a comma and of some names,
 * `Authorization` among them, drops the second: which of two counts is a question on which a proxy and this server might
 * differ, so whoever reads a credential has to see both.
 *
 * @param name in lower case
 */
export function fieldValues(req: Pick<IncomingMessage, 'headers' | 'rawHeaders'>, name: string): readonly string[] {
  const joined = Object.hasOwn(req.headers, name) ? req.headers[name] : undefined
  if (joined === undefined) return none
  const values: string[] = []
  const raw = (req.rawHeaders as string[] | undefined) ?? none
  for (let index = 0; index < raw.length; index += 2) {
    const field = raw[index]!
    if (field.length === name.length && field.toLowerCase() === name) values.push(raw[index + 1]!)
  }
  // Serverless adapters leave the raw fields empty, and middleware may have set this one itself.
  if (values.length > 0) return values
  return typeof joined === 'string' ? [joined] : joined
}

const none: readonly string[] = []

/**
 * The value of a field that comes once: null if it came more often, undefined if it did not come. For fields whose value has no
 * comma: one means that an adapter joined two.
 *
 * @param name in lower case
 */
export function onlyField(
  req: Pick<IncomingMessage, 'headers' | 'rawHeaders'>,
  name: string,
): string | null | undefined {
  const values = fieldValues(req, name)
  if (values.length === 0) return undefined
  const value = values[0]!
  if (values.length > 1) return null
  const isJoined = value.includes(',') && (req.rawHeaders?.length ?? 0) === 0
  return isJoined ? null : value
}

/** What stands in an `Authorization` field (RFC 9110 section 11.4). */
export interface Authorization {
  /** In lower case. */
  readonly scheme: string
  readonly credential: string
}

/** Two credentials in one field, as a client or a proxy joins them. */
const twoSchemes = /^(?:bearer|dpop) [^,]*,\s*(?:bearer|dpop) /i

/** Reads the one `Authorization` field there is: null where there are several, undefined where there is none. */
export function readAuthorization(
  req: Pick<IncomingMessage, 'headers' | 'rawHeaders'>,
): Authorization | null | undefined {
  const values = fieldValues(req, 'authorization')
  if (values.length === 0) return undefined
  const value = values[0]!
  // A token has no comma; other schemes have parameters, which an adapter leaves as they are.
  const isJoined = (req.rawHeaders?.length ?? 0) === 0 && /^(?:bearer|dpop) .*,/i.test(value)
  if (values.length > 1 || isJoined || twoSchemes.test(value)) return null
  const space = value.indexOf(' ')
  if (space === -1) return { scheme: value.toLowerCase(), credential: '' }
  return { scheme: value.slice(0, space).toLowerCase(), credential: value.slice(space + 1).trim() }
}

/** Whether a text can be a token (RFC 6750 section 2.1, RFC 9449 section 7.1). */
export function isToken68(text: string): boolean {
  return /^[A-Za-z0-9\-._~+/]+=*$/.test(text)
}
