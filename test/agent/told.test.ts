import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseHttpDate } from '../../src/agent/http-date.ts'
import { readLimits, readWait } from '../../src/agent/told.ts'
import { noon } from './world.ts'

const limitsOf = (fields: Record<string, string>) => readLimits(new Headers(fields), noon)
const waitOf = (fields: Record<string, string>) => readWait(new Headers(fields), noon)
const plain = { partition: null, unit: 'requests', quota: null, windowMs: null, effectiveMs: null }

describe('the limits that a response tells', () => {
  it('draft 11: each by name, with its policy', () => {
    expect(
      limitsOf({
        'RateLimit-Policy': '"per-minute";q=500;w=60, "tokens";q=9000;qu="tokens";w=3600;pk=:cHsdsRa894==:',
        RateLimit: '"per-minute";r=153;t=19, "tokens";r=0;t=7;pk=:cHsdsRa894==:;acme-note="x"',
      }),
    ).toEqual([
      { ...plain, name: 'per-minute', quota: 500, windowMs: 60_000, available: 153, effectiveMs: 19_000 },
      {
        name: 'tokens',
        unit: 'tokens',
        partition: 'cHsdsRa894==',
        quota: 9000,
        windowMs: 3_600_000,
        available: 0,
        effectiveMs: 7000,
      },
    ])
  })

  it('draft 11: without a policy, without a window, and over two lines', () => {
    const headers = new Headers({ RateLimit: '"a";r=5' })
    headers.append('RateLimit', '"b"; r=6; t=1')
    expect(readLimits(headers, noon)).toEqual([
      { ...plain, name: 'a', available: 5 },
      { ...plain, name: 'b', available: 6, effectiveMs: 1000 },
    ])
  })

  it.each([
    '"a";r=5;t=1, "b"',
    '"a";r=5;t=1, "b";r=-1',
    '"a";r=5;t=1, "b";r=1.0',
    '"a";r=5;t=1, b;r=1',
    '"a";r=5;t="1"',
    '"a";r=5;t=-1',
    '"a";r=5;pk="not bytes"',
    '"a";r=5;t=1,',
    '',
  ])('draft 11: %s is ignored as a whole', (field) => {
    expect(limitsOf({ RateLimit: field })).toEqual([])
  })

  it('draft 11: a malformed RateLimit-Policy is ignored, and RateLimit stands', () => {
    for (const policy of ['"a";q=x', '"a";q=5;w=0', '"a";w=60', '"a";q=5;qu=tokens', 'a;q=5']) {
      expect(limitsOf({ RateLimit: '"a";r=5;t=1', 'RateLimit-Policy': policy })).toEqual([
        { ...plain, name: 'a', available: 5, effectiveMs: 1000 },
      ])
    }
  })

  it('draft 11: more limits than anybody has are not looked at', () => {
    const many = Array.from({ length: 33 }, (_, index) => `"${index}";r=0;t=60`).join(', ')
    expect(limitsOf({ RateLimit: many })).toEqual([])
  })

  it('draft 7', () => {
    const fields = { RateLimit: 'limit=500, remaining=423, reset=12', 'RateLimit-Policy': '20000;w=3600, 500;w=60' }
    const expected = { ...plain, name: '*500', quota: 500, windowMs: 60_000, available: 423, effectiveMs: 12_000 }
    expect(limitsOf(fields)).toEqual([expected])
    for (const field of ['limit=500, remaining=-1, reset=12', 'limit=500, reset=12', 'limit=5, remaining=1, reset=x']) {
      expect(limitsOf({ RateLimit: field })).toEqual([])
    }
  })

  it('draft 6, and the drafts before it', () => {
    const fields = { 'RateLimit-Limit': '500', 'RateLimit-Remaining': '0', 'RateLimit-Reset': '24' }
    const expected = { ...plain, name: '*500', quota: 500, available: 0, effectiveMs: 24_000 }
    expect(limitsOf(fields)).toEqual([expected])
    expect(limitsOf({ ...fields, 'RateLimit-Limit': '500, 500;w=60' })).toEqual([{ ...expected, windowMs: 60_000 }])
    expect(limitsOf({ ...fields, 'RateLimit-Reset': 'soon' })).toEqual([])
    expect(limitsOf({ ...fields, 'RateLimit-Remaining': '0x1' })).toEqual([])
  })

  it.each([
    ['30', 30_000],
    [String(noon / 1000 + 30), 30_000],
    [String(noon + 30_000), 30_000],
    [String(noon / 1000 - 5), 0],
    ['1.5', 1500],
    ['in a while', null],
    ['-30', null],
  ])('X-RateLimit-Reset: %s', (reset, effectiveMs) => {
    const fields = { 'X-RateLimit-Limit': '60', 'X-RateLimit-Remaining': '1', 'X-RateLimit-Reset': reset }
    expect(limitsOf(fields)).toEqual([{ ...plain, name: '*60', quota: 60, available: 1, effectiveMs }])
  })

  it('a reset is a moment of the server, whatever our clock shows', () => {
    const date = new Date(noon + 3_600_000).toUTCString()
    const reset = String((noon + 3_600_000) / 1000 + 30)
    const fields = { Date: date, 'X-RateLimit-Limit': '60', 'X-RateLimit-Remaining': '1', 'X-RateLimit-Reset': reset }
    expect(limitsOf(fields)[0]).toMatchObject({ effectiveMs: 30_000 })
  })

  it('X-RateLimit-Resource tells limits apart, and X-Rate-Limit is the same', () => {
    const fields = { 'X-Rate-Limit-Remaining': '1', 'X-Rate-Limit-Resource': 'core' }
    expect(limitsOf(fields)).toEqual([{ ...plain, name: '*core', available: 1 }])
  })

  it('the newest family that is well-formed is the one that is believed', () => {
    const all = {
      RateLimit: '"a";r=5;t=1',
      'RateLimit-Limit': '10',
      'RateLimit-Remaining': '4',
      'X-RateLimit-Remaining': '3',
    }
    expect(limitsOf(all).map(({ available }) => available)).toEqual([5])
    expect(limitsOf({ ...all, RateLimit: 'broken;' }).map(({ available }) => available)).toEqual([4])
    expect(limitsOf({ 'X-RateLimit-Remaining': '3' }).map(({ available }) => available)).toEqual([3])
    expect(limitsOf({})).toEqual([])
  })

  it('anything at all can be in the fields', () => {
    const text = fc.string({ unit: fc.constantFrom(...Array.from('"a=;,: \t0159-.rtqw()?@%*Mon,GMT')) })
    fc.assert(
      fc.property(text, text, text, text, (one, two, three, four) => {
        const limits = limitsOf({
          RateLimit: one,
          'RateLimit-Policy': two,
          'RateLimit-Remaining': three,
          'RateLimit-Reset': four,
          'X-RateLimit-Remaining': four,
          'X-RateLimit-Reset': three,
          Date: two,
        })
        for (const { available, effectiveMs, windowMs } of limits) {
          expect(Number.isSafeInteger(available) && available >= 0).toBe(true)
          expect(effectiveMs === null || effectiveMs >= 0).toBe(true)
          expect(windowMs === null || windowMs > 0).toBe(true)
        }
        const wait = waitOf({ 'Retry-After': one, 'retry-after-ms': two, Date: three })
        expect(wait === null || wait.ms >= 0).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })
})

describe('the wait that a refusal tells', () => {
  it.each([
    [
      { 'Retry-After': '2', 'retry-after-ms': '1180' },
      { ms: 1180, exact: true },
    ],
    [
      { 'Retry-After': '2', 'retry-after-ms': 'soon' },
      { ms: 2000, exact: false },
    ],
    [{ 'Retry-After': '2' }, { ms: 2000, exact: false }],
    [{ 'Retry-After': 'Fri, 27 Feb 2026 12:00:30 GMT' }, { ms: 30_000, exact: false }],
    [{ 'Retry-After': 'Fri, 27 Feb 2026 11:00:00 GMT' }, { ms: 0, exact: false }],
    [
      { 'Retry-After': 'Fri, 27 Feb 2026 13:00:30 GMT', Date: 'Fri, 27 Feb 2026 13:00:00 GMT' },
      { ms: 30_000, exact: false },
    ],
    [{ 'Retry-After': '9'.repeat(400) }, { ms: Number.MAX_SAFE_INTEGER, exact: false }],
    [{ 'retry-after-ms': '9'.repeat(400) }, { ms: Number.MAX_SAFE_INTEGER, exact: true }],
    [{ 'Retry-After': '-1' }, null],
    [{ 'Retry-After': '1.5' }, null],
    [{ 'Retry-After': '2, 2' }, null],
    [{ 'Retry-After': '2026-02-27T12:00:30Z' }, null],
    [{ 'retry-after-ms': '1e3' }, null],
    [{}, null],
  ])('%j', (fields, expected) => {
    expect(waitOf(fields as Record<string, string>)).toEqual(expected)
  })
})

describe('an HTTP-date', () => {
  it('has three forms', () => {
    const moment = Date.UTC(1994, 10, 6, 8, 49, 37)
    expect(parseHttpDate('Sun, 06 Nov 1994 08:49:37 GMT', noon)).toBe(moment)
    expect(parseHttpDate('Sunday, 06-Nov-94 08:49:37 GMT', noon)).toBe(moment)
    expect(parseHttpDate('Sun Nov  6 08:49:37 1994', noon)).toBe(moment)
  })

  it('with two digits for the year is at most 50 years ahead', () => {
    expect(parseHttpDate('Friday, 27-Feb-76 12:00:00 GMT', noon)).toBe(Date.UTC(2076, 1, 27, 12))
    expect(parseHttpDate('Friday, 27-Feb-77 12:00:00 GMT', noon)).toBe(Date.UTC(1977, 1, 27, 12))
  })

  it.each([
    'Sun, 31 Feb 2026 00:00:00 GMT',
    'Sun, 06 Nov 1994 24:00:00 GMT',
    'Sun, 06 Nov 1994 08:49:37 CET',
    'Sun, 6 Nov 1994 08:49:37 GMT',
    '1994-11-06',
    '784111777',
    'tomorrow',
  ])('%s is none', (text) => {
    expect(parseHttpDate(text, noon)).toBeNull()
  })
})
