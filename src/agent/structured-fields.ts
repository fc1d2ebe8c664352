// Structured fields, as far as RateLimit fields need them: whole or not at all. Written here and not taken from a package,
// since an agent's bundle should need none.

/** A bare item with its type: `5` and `5.0`, or `"a"` and `a`, are different things in a structured field. */
export interface BareItem {
  readonly type:
    | 'integer'
    | 'decimal'
    | 'string'
    | 'token'
    | 'bytes'
    | 'boolean'
    | 'date'
    | 'display-string'
    | 'inner-list'
  /** Of bytes the base64 text; of an inner list nothing, since no field here has one. */
  readonly value: number | string | boolean
}

export interface Item {
  readonly bare: BareItem
  readonly parameters: ReadonlyMap<string, BareItem>
}

/** More than any honest field has; what is longer is not read at all. */
const longestField = 8192

/**
 * Reads a List.
 *
 * @returns its members, or null where the text is none: a field that fails to parse is ignored as a whole
 * @see [RFC 9651 section 4.2.1](https://www.rfc-editor.org/rfc/rfc9651#section-4.2.1)
 */
export function parseList(text: string): Item[] | null {
  return parse(text, (cursor) => {
    const members: Item[] = []
    do {
      members.push(readMember(cursor))
    } while (nextMember(cursor))
    return members
  })
}

/**
 * Reads a Dictionary.
 *
 * @returns its members by key, or null where the text is none
 * @see [RFC 9651 section 4.2.2](https://www.rfc-editor.org/rfc/rfc9651#section-4.2.2)
 */
export function parseDictionary(text: string): Map<string, Item> | null {
  return parse(text, (cursor) => {
    const members = new Map<string, Item>()
    do {
      const key = take(cursor, keyPattern)
      members.set(key, skip(cursor, '=') ? readMember(cursor) : { bare: yes, parameters: readParameters(cursor) })
    } while (nextMember(cursor))
    return members
  })
}

interface Cursor {
  readonly text: string
  at: number
}

class Malformed extends Error {}

const yes: BareItem = { type: 'boolean', value: true }

const keyPattern = /[a-z*][a-z0-9_.*-]*/y
const numberPattern = /-?(?:\d{1,12}\.\d{1,3}|\d{1,15})(?![\d.])/y
const stringPattern = /"((?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"/y
const tokenPattern = /[A-Za-z*][\w!#$%&'*+.^`|~:/-]*/y
// Base64, whose padding may be missing as a whole.
const bytesPattern = /:(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?:/y
const booleanPattern = /\?[01]/y
const datePattern = /@-?\d{1,15}(?![\d.])/y
const displayPattern = /%"(?:[\x20-\x21\x23\x24\x26-\x7e]|%[0-9a-f]{2})*"/y
const spaces = / */y
const optionalWhitespace = /[ \t]*/y

function parse<Result>(text: string, read: (cursor: Cursor) => Result): Result | null {
  if (text.length > longestField) return null
  const cursor = { text, at: 0 }
  try {
    take(cursor, spaces)
    const result = read(cursor)
    take(cursor, spaces)
    return cursor.at === text.length ? result : null
  } catch (error) {
    if (error instanceof Malformed) return null
    throw error
  }
}

/** Whether another member follows: a comma at the end promises one that does not come. */
function nextMember(cursor: Cursor): boolean {
  take(cursor, optionalWhitespace)
  if (!skip(cursor, ',')) return false
  take(cursor, optionalWhitespace)
  return true
}

function readMember(cursor: Cursor): Item {
  if (!skip(cursor, '(')) return readItem(cursor)
  for (;;) {
    take(cursor, spaces)
    if (skip(cursor, ')')) break
    readItem(cursor)
    if (!/[ )]/.test(cursor.text.charAt(cursor.at))) throw new Malformed()
  }
  return { bare: { type: 'inner-list', value: '' }, parameters: readParameters(cursor) }
}

function readItem(cursor: Cursor): Item {
  return { bare: readBareItem(cursor), parameters: readParameters(cursor) }
}

function readParameters(cursor: Cursor): Map<string, BareItem> {
  const parameters = new Map<string, BareItem>()
  while (skip(cursor, ';')) {
    take(cursor, spaces)
    const key = take(cursor, keyPattern)
    parameters.set(key, skip(cursor, '=') ? readBareItem(cursor) : yes)
  }
  return parameters
}

function readBareItem(cursor: Cursor): BareItem {
  const first = cursor.text.charAt(cursor.at)
  if (first === '"') {
    const quoted = take(cursor, stringPattern)
    return { type: 'string', value: quoted.slice(1, -1).replaceAll(/\\(.)/g, '$1') }
  }
  if (/[-\d]/.test(first)) {
    const digits = take(cursor, numberPattern)
    return { type: digits.includes('.') ? 'decimal' : 'integer', value: Number(digits) }
  }
  if (/[A-Za-z*]/.test(first)) return { type: 'token', value: take(cursor, tokenPattern) }
  if (first === ':') return { type: 'bytes', value: take(cursor, bytesPattern).slice(1, -1) }
  if (first === '?') return { type: 'boolean', value: take(cursor, booleanPattern) === '?1' }
  if (first === '@') return { type: 'date', value: Number(take(cursor, datePattern).slice(1)) }
  if (first === '%') return { type: 'display-string', value: decodeDisplay(take(cursor, displayPattern).slice(2, -1)) }
  throw new Malformed()
}

function decodeDisplay(encoded: string): string {
  try {
    return decodeURIComponent(encoded)
  } catch {
    throw new Malformed()
  }
}

/** Takes what a sticky pattern matches here. */
function take(cursor: Cursor, pattern: RegExp): string {
  pattern.lastIndex = cursor.at
  const [found] = pattern.exec(cursor.text) ?? []
  if (found === undefined) throw new Malformed()
  cursor.at += found.length
  return found
}

function skip(cursor: Cursor, character: string): boolean {
  if (cursor.text.charAt(cursor.at) !== character) return false
  cursor.at += 1
  return true
}
