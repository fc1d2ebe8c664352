import { parseDictionary, serializeInnerList, serializeItem, type Dictionary, type InnerList } from 'structured-headers'
import { isInnerList, type Item } from 'structured-headers'

/** What of a request can be signed. */
export interface SignedMessage {
  readonly method: string
  /** Scheme and authority that this server is known by, in lower case and without a default port: `https://api.example.com`. */
  readonly origin: string
  /** The request target in origin form, as it was sent: `/search?q=lamp`. */
  readonly target: string
  /** The values of a field, one for each line it came on; empty where it did not come. */
  readonly fields: (name: string) => readonly string[]
}

/** Why there is no signature base. */
export class Unbuildable extends Error {
  override readonly name = 'Unbuildable'
}

/** More components are not worth looking up; signers cover four to ten. */
const mostComponents = 40

/** RFC 9110 section 5.1, in lower case as RFC 9421 section 2.1 wants it. */
const fieldName = /^[!#$%&'*+.^_`|~0-9a-z-]+$/

/** Fields that are Dictionaries, for `sf`. Of others nothing here can know which kind of structured field they are. */
const dictionaries: ReadonlySet<string> = new Set([
  'accept-signature',
  'content-digest',
  'priority',
  'repr-digest',
  'signature',
  'signature-agent',
  'signature-input',
  'want-content-digest',
  'want-repr-digest',
])

/**
 * Makes the signature base of a request (RFC 9421 section 2.5): a line for each covered component, then the signature's parameters.
 * It is ASCII, so one character is one byte.
 *
 * @param input the member of Signature-Input: the covered components, and the parameters
 * @throws {Unbuildable} for a component that comes twice, is not there, or does not belong to a request
 */
export function signatureBase(message: SignedMessage, input: InnerList): string {
  const [components] = input
  if (components.length > mostComponents) throw new Unbuildable(`it covers more than ${mostComponents} components`)
  const seen = new Set<string>()
  const read = createReader(message)
  const lines = components.map((component) => {
    const identity = identityOf(component)
    if (seen.has(identity)) throw new Unbuildable('it covers a component twice')
    seen.add(identity)
    const value = read(component)
    // A line break would let one value pass for two components.
    if (!/^[\t\x20-\x7e]*$/.test(value)) throw new Unbuildable('a covered component is not printable ASCII')
    return `${serializeItem(component)}: ${value}`
  })
  return [...lines, `"@signature-params": ${serializeInnerList(input)}`].join('\n')
}

/** RFC 9421 section 2: of two identifiers that are compared, the order of the parameters does not count. */
function identityOf([name, parameters]: Item): string {
  return serializeItem([name, new Map([...parameters].sort(([one], [other]) => (one < other ? -1 : 1)))])
}

/** Makes what finds the values of components. Fields and the query are parsed once, however many components are of them. */
function createReader({ method, origin, target, fields }: SignedMessage): (component: Item) => string {
  const mark = target.indexOf('?')
  const path = (mark === -1 ? target : target.slice(0, mark)) || '/'
  const query = mark === -1 ? '' : target.slice(mark + 1)
  const parsed = new Map<string, Dictionary>()
  let parameters: URLSearchParams | undefined

  function dictionaryOf(name: string): Dictionary {
    let dictionary = parsed.get(name)
    if (dictionary === undefined) {
      try {
        dictionary = parseDictionary(linesOf(name).join(', '))
      } catch {
        throw new Unbuildable('it covers a member of a field that is no Dictionary')
      }
      parsed.set(name, dictionary)
    }
    return dictionary
  }

  function linesOf(name: string): readonly string[] {
    const lines = fields(name)
    if (lines.length === 0) throw new Unbuildable('it covers a field that did not come')
    return lines.map((line) => line.replace(/^[\t ]+|[\t ]+$/g, ''))
  }

  function fieldValue(name: string, options: Item[1]): string {
    if (!fieldName.test(name)) throw new Unbuildable('it covers something that is no field name')
    const { sf, bs, key, ...others } = Object.fromEntries(options)
    if (Object.keys(others).length > 0) throw new Unbuildable('a covered field has a parameter that no request has')
    if (key !== undefined) {
      if (typeof key !== 'string' || bs !== undefined) throw new Unbuildable('a covered field has an unfit `key`')
      const member = dictionaryOf(name).get(key)
      if (member === undefined) throw new Unbuildable('it covers a member that its field does not have')
      return serializeMember(member)
    }
    if (sf === true && bs === undefined && dictionaries.has(name)) {
      return [...dictionaryOf(name)].map(([label, member]) => serializeNamed(label, member)).join(', ')
    }
    if (sf !== undefined) throw new Unbuildable('a covered field has `sf`, and its kind is not known')
    if (bs === undefined) return linesOf(name).join(', ')
    if (bs !== true) throw new Unbuildable('a covered field has an unfit `bs`')
    return linesOf(name)
      .map((line) => `:${Buffer.from(line, 'latin1').toString('base64')}:`)
      .join(', ')
  }

  function queryParameter(options: Item[1]): string {
    const { name, ...others } = Object.fromEntries(options)
    if (typeof name !== 'string' || Object.keys(others).length > 0) throw new Unbuildable('@query-param has no name')
    parameters ??= new URLSearchParams(query)
    const values = [...parameters].filter(([one]) => percentEncode(one) === name)
    // RFC 9421 section 2.2.8: which of several would be meant cannot be told.
    if (values.length !== 1) throw new Unbuildable('it covers a query parameter that does not come exactly once')
    return percentEncode(values[0]![1])
  }

  const derived: Readonly<Record<string, () => string>> = {
    '@method': () => method,
    '@authority': () => origin.slice(origin.indexOf('//') + 2),
    '@scheme': () => origin.slice(0, origin.indexOf(':')),
    '@target-uri': () => `${origin}${mark === 0 ? '/' : ''}${target || '/'}`,
    '@request-target': () => target,
    '@path': () => path,
    '@query': () => `?${query}`,
  }

  return function read([name, options]) {
    if (typeof name !== 'string') throw new Unbuildable('it covers something that is not a text')
    if (name === '@query-param') return queryParameter(options)
    if (!name.startsWith('@')) return fieldValue(name, options)
    if (!Object.hasOwn(derived, name) || options.size > 0) throw new Unbuildable('it covers what no request has')
    return derived[name]!()
  }
}

function serializeMember(member: Item | InnerList): string {
  return isInnerList(member) ? serializeInnerList(member) : serializeItem(member)
}

/** RFC 9651 section 4.1.2: a member that is true is written as its name. */
function serializeNamed(label: string, member: Item | InnerList): string {
  return member[0] === true
    ? `${label}${serializeItem(member as Item).slice(2)}`
    : `${label}=${serializeMember(member)}`
}

/** As application/x-www-form-urlencoded has it, but for the space (RFC 9421 section 2.2.8). */
function percentEncode(text: string): string {
  return encodeURIComponent(text).replace(
    /[!'()~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  )
}
