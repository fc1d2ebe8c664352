import fc from 'fast-check'
import { parseDictionary, type InnerList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import { readKeySet, verifiesWith } from '../../../src/identify/web-bot-auth/keys.ts'
import { signatureBase, Unbuildable, type SignedMessage } from '../../../src/identify/web-bot-auth/signature-base.ts'
import { vectors } from './rfc9421.ts'

function inputOf(text: string): InnerList {
  return parseDictionary(`sig=${text}`).get('sig') as InnerList
}

function messageOf(
  changes: Partial<Omit<SignedMessage, 'fields'>>,
  fields: Record<string, string | string[]> = {},
): SignedMessage {
  return {
    method: 'GET',
    origin: 'https://www.example.com',
    target: '/',
    ...changes,
    fields: (name) => [fields[name] ?? []].flat(),
  }
}

/** The value of one component. */
function valueOf(message: SignedMessage, component: string): string {
  const base = signatureBase(message, inputOf(`(${component})`))
  const [line, ...rest] = base.split('\n')
  expect(rest).toEqual([`"@signature-params": (${component})`])
  expect(line!.startsWith(`${component}: `)).toBe(true)
  return line!.slice(component.length + 2)
}

describe('RFC 9421 appendix B', () => {
  it.each(vectors)('$name', ({ request, key, algorithm, input, lines, signature }) => {
    const base = signatureBase(messageOf(request, request.fields), inputOf(input))
    expect(base).toBe([...lines, `"@signature-params": ${input}`].join('\n'))

    const [verifier] = readKeySet([key]).values()
    const bytes = Buffer.from(signature, 'base64')
    expect(verifiesWith(verifier!, algorithm, base, bytes)).toBe(true)
    expect(verifiesWith(verifier!, algorithm, `${base} `, bytes)).toBe(false)
  })

  it('B.4: what is not covered may change, and what is covered may not', () => {
    const { request, key, algorithm, input, signature } = vectors[5]
    const [verifier] = readKeySet([key]).values()
    const verifies = (changes: Partial<SignedMessage>, fields: Record<string, string | string[]> = {}): boolean =>
      verifiesWith(
        verifier!,
        algorithm,
        signatureBase(messageOf({ ...request, ...changes }, { ...request.fields, ...fields }), inputOf(input)),
        Buffer.from(signature, 'base64'),
      )
    expect(verifies({ target: '/demo?name1=Value1&Name2=value2&param=added' }, { 'accept-language': 'en' })).toBe(true)
    expect(verifies({}, { referer: 'https://developer.example.org/demo' })).toBe(true)
    expect(verifies({}, { accept: ['application/json', '*/*'] })).toBe(true)
    expect(verifies({ method: 'POST' })).toBe(false)
    expect(verifies({ origin: 'https://example.com' })).toBe(false)
    expect(verifies({}, { accept: ['*/*', 'application/json'] })).toBe(false)
  })
})

// The examples of RFC 9421 section 2.2.
describe('derived components', () => {
  const request = messageOf({ method: 'POST', target: '/path?param=value&foo=bar&baz=batman' })
  it.each([
    ['"@method"', 'POST'],
    ['"@target-uri"', 'https://www.example.com/path?param=value&foo=bar&baz=batman'],
    ['"@authority"', 'www.example.com'],
    ['"@scheme"', 'https'],
    ['"@request-target"', '/path?param=value&foo=bar&baz=batman'],
    ['"@path"', '/path'],
    ['"@query"', '?param=value&foo=bar&baz=batman'],
  ])('%s is %s', (component, value) => {
    expect(valueOf(request, component)).toBe(value)
  })

  it.each([
    ['/path', '?'],
    ['/path?', '?'],
    ['/path?queryString', '?queryString'],
    ['/path??a=b?', '??a=b?'],
    ['/path?param=value&foo=bar&baz=bat%2Dman', '?param=value&foo=bar&baz=bat%2Dman'],
  ])('"@query" of %s is %s', (target, value) => {
    expect(valueOf(messageOf({ target }), '"@query"')).toBe(value)
  })

  const query =
    '/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&empty=&x=*-._~!()'
  it.each([
    ['var', 'this%20is%20a%20big%0Amultiline%20value'],
    ['bar', 'with%20plus%20whitespace'],
    ['fa%C3%A7ade%22%3A%20', 'something'],
    ['empty', ''],
    ['x', '*-._%7E%21%28%29'],
  ])('"@query-param" %s is %s', (name, value) => {
    expect(valueOf(messageOf({ target: query }), `"@query-param";name="${name}"`)).toBe(value)
  })
})

// The examples of RFC 9421 section 2.1.
describe('fields', () => {
  const request = messageOf(
    {},
    {
      host: 'www.example.com',
      'x-ows-header': '   Leading and trailing whitespace.   ',
      'cache-control': ['max-age=60', '   must-revalidate'],
      'example-dict': '  a=1,    b=2;x=1;y=2,   c=(a   b   c), d',
      'x-empty-header': '',
      'example-header': ['value, with, lots', 'of, commas'],
      'content-digest': ' sha-256=:AAAA:,   sha-512=:BBBB:;x, flag;y',
    },
  )
  it.each([
    ['"host"', 'www.example.com'],
    ['"x-ows-header"', 'Leading and trailing whitespace.'],
    ['"cache-control"', 'max-age=60, must-revalidate'],
    ['"x-empty-header"', ''],
    ['"example-dict"', 'a=1,    b=2;x=1;y=2,   c=(a   b   c), d'],
    ['"example-dict";key="a"', '1'],
    ['"example-dict";key="d"', '?1'],
    ['"example-dict";key="b"', '2;x=1;y=2'],
    ['"example-dict";key="c"', '(a b c)'],
    ['"example-header"', 'value, with, lots, of, commas'],
    ['"example-header";bs', ':dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:'],
    ['"content-digest";sf', 'sha-256=:AAAA:, sha-512=:BBBB:;x, flag;y'],
  ])('%s is %s', (component, value) => {
    expect(valueOf(request, component)).toBe(value)
  })
})

describe('what has no signature base', () => {
  const request = messageOf(
    { target: '/?twice=1&twice=2' },
    { 'x-note': 'a note', 'x-text': 'not a, dictionary!', 'x-break': 'a\n"@method": POST', 'x-foreign': 'caf\u00e9' },
  )
  it.each([
    ['a component twice', '"@method" "@path" "@method"'],
    ['a field that did not come', '"x-none"'],
    ['a member that its field does not have', '"signature-agent";key="sig1"'],
    ['a member of what is no Dictionary', '"x-text";key="a"'],
    ['`sf` of a field that may be anything', '"x-note";sf'],
    ['`sf` and `bs`', '"x-note";sf;bs'],
    ['`key` and `bs`', '"x-note";key="a";bs'],
    ['a key that is no text', '"x-note";key=1'],
    ['a trailer', '"x-note";tr'],
    ['a field of the request that a response answers', '"x-note";req'],
    ['a parameter that nobody knows', '"x-note";more'],
    ['a name in capitals', '"X-Note"'],
    ['a name that is none', '"x note"'],
    ['a component that is no text', 'token'],
    ['@status', '"@status"'],
    ['@signature-params', '"@signature-params"'],
    ['what nobody derives', '"@body"'],
    ['what every object has', '"@constructor" "constructor"'],
    ['a derived component with a parameter', '"@method";req'],
    ['a query parameter without a name', '"@query-param"'],
    ['a query parameter that comes twice', '"@query-param";name="twice"'],
    ['a query parameter that does not come', '"@query-param";name="none"'],
    ['a line break', '"x-break"'],
    ['what is not ASCII', '"x-foreign"'],
    ['too much', Array.from({ length: 41 }, (_none, nth) => `"@query-param";name="${nth}"`).join(' ')],
  ])('%s', (_what, components) => {
    expect(() => signatureBase(request, inputOf(`(${components})`))).toThrow(Unbuildable)
  })

  it('a component twice, with its parameters in another order', () => {
    const message = messageOf({}, { 'content-digest': 'a=1' })
    const components = ['"content-digest";sf;key="a"', '"content-digest";key="a";sf'] as const
    for (const one of components) expect(valueOf(message, one)).toBe('1')
    expect(() => signatureBase(message, inputOf(`(${components.join(' ')})`))).toThrow('twice')
  })

  it('is made in time that does not grow with what is covered, however long a field is', () => {
    const long = Array.from({ length: 1500 }, (_none, nth) => `k${nth}="${nth}"`).join(', ')
    const components = Array.from({ length: 40 }, (_none, nth) => `"x-long";key="k${nth}"`).join(' ')
    const before = process.cpuUsage()
    signatureBase(messageOf({}, { 'x-long': long }), inputOf(`(${components})`))
    const { user, system } = process.cpuUsage(before)
    expect((user + system) / 1000).toBeLessThan(400)
  })

  it('has as many lines as components, whatever the values are', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (field, target) => {
        try {
          const base = signatureBase(messageOf({ target }, { 'x-a': field }), inputOf('("x-a" "@path" "@query")'))
          expect(base.split('\n')).toHaveLength(4)
        } catch (error) {
          if (!(error instanceof Unbuildable)) throw error
        }
      }),
    )
  })
})
