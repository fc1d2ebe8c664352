import { isArrayBuffer } from 'node:util/types'
import { isInnerList, parseDictionary, parseItem, type Dictionary, type InnerList, type Item } from 'structured-headers'

/** A signature of a request, as it was sent: nothing in it is proven. */
export interface ShownSignature {
  readonly label: string
  /** The covered components and the parameters. */
  readonly input: InnerList
  /** Undefined where Signature has no member of this label. */
  readonly signature: Uint8Array | undefined
}

/** A field does not parse. */
export class Malformed extends Error {
  override readonly name = 'Malformed'
}

const tag = 'web-bot-auth'

/** Of each field; Node itself takes no more than 16 KiB in all unless it is told to. */
const longestField = 16_384

/**
 * Reads those signatures of a request that are Web Bot Auth's. Others are somebody else's and passed over.
 *
 * @throws {Malformed}
 */
export function readSignatures(
  inputLines: readonly string[],
  signatureLines: readonly string[],
): readonly ShownSignature[] {
  const inputs = [...parseField(inputLines, 'Signature-Input')].filter(([, member]) => member[1].get('tag') === tag)
  if (inputs.length === 0) return none
  const signatures = parseField(signatureLines, 'Signature')
  return inputs.map(([label, input]) => {
    // RFC 9421 section 4.1.
    if (!isInnerList(input)) throw new Malformed('a member of Signature-Input is not a list of components')
    const value = signatures.get(label)?.[0]
    if (value !== undefined && !isArrayBuffer(value)) {
      throw new Malformed('a member of Signature is not a byte sequence')
    }
    return { label, input, signature: value && new Uint8Array(value) }
  })
}

const none: readonly ShownSignature[] = []

/** Reads a Dictionary (RFC 9651 section 3.2), whose members must have different names (RFC 9421 section 4). */
function parseField(lines: readonly string[], name: string): Dictionary {
  const text = lines.join(', ')
  if (text.length > longestField) throw new Malformed(`${name} is longer than ${longestField} characters`)
  let dictionary: Dictionary
  try {
    dictionary = parseDictionary(text)
  } catch {
    throw new Malformed(`${name} is not a Dictionary (RFC 9651 section 3.2)`)
  }
  // The parser keeps the last of two members and says nothing.
  if (countMembers(text) !== dictionary.size) throw new Malformed(`${name} has two members of one name`)
  return dictionary
}

/** How many members a Dictionary that parses is written with: commas outside of strings and inner lists. */
function countMembers(text: string): number {
  if (text.trim() === '') return 0
  let members = 1
  let depth = 0
  // Within a Display String, `%"…"`, a backslash is itself; nothing else that parses has a `%` before a quote.
  for (const [part] of text.matchAll(/%"[^"]*"|"(?:[^"\\]|\\.)*"|[(),]/g)) {
    if (part === '(') depth += 1
    else if (part === ')') depth -= 1
    else if (part === ',' && depth === 0) members += 1
  }
  return members
}

/** What Signature-Agent says. */
export type SignatureAgent =
  /** A URL for each label. */
  | { readonly form: 'dictionary'; readonly members: Dictionary }
  /** One URL, as earlier drafts had it. */
  | { readonly form: 'string'; readonly item: Item }

/**
 * Reads Signature-Agent. Undefined where it did not come.
 *
 * @param legacy whether it may be a bare string; the two forms are told apart by their first character
 * @throws {Malformed}
 */
export function readSignatureAgent(lines: readonly string[], legacy: boolean): SignatureAgent | undefined {
  if (lines.length === 0) return undefined
  const name = 'Signature-Agent'
  if (!legacy || !lines[0]!.trimStart().startsWith('"')) return { form: 'dictionary', members: parseField(lines, name) }
  const text = lines.join(', ')
  if (text.length > longestField) throw new Malformed(`${name} is longer than ${longestField} characters`)
  try {
    return { form: 'string', item: parseItem(text) }
  } catch {
    throw new Malformed(`${name} is neither a Dictionary nor a String`)
  }
}
