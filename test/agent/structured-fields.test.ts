import fc from 'fast-check'
import {
  DisplayString,
  parseDictionary as theirDictionary,
  parseList as theirList,
  serializeList,
  Token,
  type BareItem as TheirBareItem,
} from 'structured-headers'
import { describe, expect, it } from 'vitest'
import { parseDictionary, parseList, type Item } from '../../src/agent/structured-fields.ts'

/** Whether the library that the server writes its fields with would take a text. */
function accepts(parse: (text: string) => unknown, text: string): boolean {
  try {
    parse(text)
    return true
  } catch {
    return false
  }
}

const key = fc.stringMatching(/^[a-z*][a-z0-9_.*-]{0,5}$/)
const bare: fc.Arbitrary<TheirBareItem> = fc.oneof(
  fc.integer({ min: -999_999_999_999_999, max: 999_999_999_999_999 }),
  fc.integer({ min: -999_999, max: 999_999 }).map((thousandths) => thousandths / 1000 + 0.5),
  fc.stringMatching(/^[\x20-\x7e]{0,12}$/),
  fc.stringMatching(/^[A-Za-z*][\w!#$%&'*+.^`|~:/-]{0,8}$/).map((text) => new Token(text)),
  fc.uint8Array({ maxLength: 9 }).map((bytes) => bytes.buffer.slice(0, bytes.byteLength)),
  fc.boolean(),
  fc.integer({ min: 0, max: 4e9 }).map((seconds) => new Date(seconds * 1000)),
  fc.string({ maxLength: 6, unit: 'grapheme' }).map((text) => new DisplayString(text)),
)
const parameters = fc.array(fc.tuple(key, bare), { maxLength: 3 }).map((pairs) => new Map(pairs))
const item = fc.tuple(bare, parameters)

/** Text that is nearly a structured field. */
const nearly = fc
  .array(
    fc
      .constantFrom(
        [
          '"a"',
          '"',
          '\\',
          'a',
          'r',
          't',
          '=',
          ';',
          ',',
          ' ',
          '\t',
          '0',
          '1',
          '12',
          '-',
          '.',
          '5',
          ':YQ==:',
          ':',
          '?1',
          '?',
        ],
        [
          ':=:',
          ':YQ=:',
          ':Y:',
          ':YQ:',
          '%"a"',
          '%',
          '(',
          ')',
          '(1 2)',
          '*',
          'A',
          '\u0000',
          'é',
          '999999999999999',
          '00',
          '1.25',
          '1.2345',
        ],
      )
      .chain((parts) => fc.constantFrom(...parts)),
    { maxLength: 9 },
  )
  .map((parts) => parts.join(''))

describe('a List', () => {
  it('is read as it was written', () => {
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 4 }), (members) => {
        const text = serializeList(members)
        const read = parseList(text)
        expect(read).toHaveLength(members.length)
        read!.forEach(({ bare: got, parameters: gotParameters }, index) => {
          const [value, expected] = members[index]!
          expect([...gotParameters.keys()]).toEqual([...expected.keys()])
          if (typeof value === 'string' || typeof value === 'boolean') expect(got.value).toBe(value)
          if (typeof value === 'string') expect(got.type).toBe('string')
          if (typeof value === 'number') expect(got.value).toBeCloseTo(value, 3)
          if (value instanceof Token) expect(got).toEqual({ type: 'token', value: value.toString() })
          if (value instanceof DisplayString) expect(got).toEqual({ type: 'display-string', value: value.toString() })
          if (value instanceof Date) expect(got).toEqual({ type: 'date', value: value.getTime() / 1000 })
          if (value instanceof ArrayBuffer) expect(got.type).toBe('bytes')
        })
      }),
      { numRuns: 500 },
    )
  })

  it('is refused as a whole where the field is malformed, as structured-headers does', () => {
    fc.assert(
      fc.property(nearly, (text) => {
        fc.pre(text.trim() !== '')
        expect([text, parseList(text) !== null]).toEqual([text, accepts(theirList, text)])
      }),
      { numRuns: 5000 },
    )
  })

  it.each([
    ['"a";r=1,', 'a comma that promises more'],
    ['"a" ;r=1', 'a space before a parameter'],
    ['"a";R=1', 'a key in capitals'],
    ['"a";r=1.', 'a decimal without decimals'],
    ['"a";r=1.2345', 'too many decimals'],
    ['"a";r=1234567890123456', 'too many digits'],
    ['"a;r=1', 'a string that nothing ends'],
    ['"a\\b";r=1', 'an escape that is none'],
    ['"é";r=1', 'letters outside ASCII'],
    ['"a";r=--1', 'two signs'],
    ['', 'nothing'],
  ])('%s is none: %s', (text) => {
    expect(parseList(text)).toBeNull()
  })

  // Not compared: structured-headers takes a Date only at the very end of a field.
  it('may hold Dates', () => {
    expect(parseList('@1;a, @-5')?.map(({ bare }) => bare)).toEqual([
      { type: 'date', value: 1 },
      { type: 'date', value: -5 },
    ])
    expect(parseList('@1.5')).toBeNull()
    expect(parseList('@')).toBeNull()
  })

  it('is not read where it is longer than any honest one', () => {
    expect(parseList(`"${'a'.repeat(8000)}";r=1`)).not.toBeNull()
    expect(parseList(`"${'a'.repeat(8200)}";r=1`)).toBeNull()
  })

  it('is read in time however it is malformed', () => {
    for (const part of ['"a";r=1, ', '(1 ', ';a', '"\\"', '%"%c3', '1.', ':a', ', \t']) {
      const started = performance.now()
      parseList(part.repeat(8192 / part.length))
      parseDictionary(part.repeat(8192 / part.length))
      expect(performance.now() - started).toBeLessThan(5000)
    }
  })
})

describe('a Dictionary', () => {
  it('is refused as a whole where the field is malformed, as structured-headers does', () => {
    fc.assert(
      fc.property(nearly, (text) => {
        fc.pre(text.trim() !== '')
        expect([text, parseDictionary(text) !== null]).toEqual([text, accepts(theirDictionary, text)])
      }),
      { numRuns: 5000 },
    )
  })

  it('keeps the last of a key that comes twice', () => {
    const read: Map<string, Item> = parseDictionary('limit=1, remaining=5;x, limit=2, on')!
    expect(read.get('limit')?.bare).toEqual({ type: 'integer', value: 2 })
    expect(read.get('on')?.bare).toEqual({ type: 'boolean', value: true })
  })
})
