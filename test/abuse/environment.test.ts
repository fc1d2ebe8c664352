import type { Request } from 'express'
import { describe, expect, it } from 'vitest'
import { cloudflare, createEnvironment, fastly, type EnvironmentReader } from '../../src/abuse/environment.ts'
import { warningsOf } from '../http/warnings.ts'

const requestWith = (headers: Record<string, string | string[]>): Request => ({ headers }) as unknown as Request

describe('what Cloudflare says', () => {
  it('is read from the fields that were named, and from no other', () => {
    const sent = requestWith({
      'cf-ipcountry': 'NL',
      'cf-ja4': 't13d1516h2_8daaf6152771_b186095e22b6',
      'x-asn': '64500',
    })
    expect(cloudflare()(sent)).toEqual({ country: 'NL', asn: undefined, ja4: undefined })
    expect(cloudflare({ ja4: 'Cf-Ja4', asn: 'X-Asn' })(sent)).toEqual({
      country: 'NL',
      asn: '64500',
      ja4: 't13d1516h2_8daaf6152771_b186095e22b6',
    })
  })

  it.each(['XX', 'T1', 'ZZ', '', 'NLD', '?', '**'])('"%s" is no country', (country) => {
    expect(cloudflare()(requestWith({ 'cf-ipcountry': country }))?.country).toBeUndefined()
  })
})

describe('what Fastly says', () => {
  it('is read from the fields of our VCL', () => {
    const sent = { 'fastly-client-country': 'nl', 'fastly-client-asn': '64500', 'fastly-client-ja4': 't13d_a_b' }
    expect(fastly()(requestWith(sent))).toEqual({ country: 'NL', asn: '64500', ja4: 't13d_a_b' })
  })

  it.each(['0', '-1', 'AS64500', '1e9', ''])('"%s" is no network', (asn) => {
    expect(fastly()(requestWith({ 'fastly-client-asn': asn }))?.asn).toBeUndefined()
  })

  it('is ignored where a field comes twice or is no fingerprint', () => {
    const sent = { 'fastly-client-country': ['NL', 'BR'], 'fastly-client-ja4': 'x'.repeat(65) }
    expect(fastly()(requestWith(sent))).toEqual({ country: undefined, asn: undefined, ja4: undefined })
  })
})

describe('a reader that fails', () => {
  it.each([
    () => {
      throw new Error('no')
    },
    () => 'NL' as never,
    () => 7 as never,
    async () => ({ country: 'NL' }) as never,
    async () => {
      throw new Error('no')
    },
    () => ({ country: 'x'.repeat(129) }),
    () => ({ country: { toString: () => 'NL' } as never }),
    () => ({ asn: { toString: null } as never }),
    () => ({ asn: 7, ja4: Symbol('x') as never }),
    () => ({
      get country(): string {
        throw new Error('no')
      },
    }),
    () => ({ countri: 'DE' }) as never,
    () => ['DE'] as never,
    () => new Map([['country', 'DE']]) as never,
    () => ({ country: 'DE', asn: Number.NaN }),
    () => ({ asn: -1 }),
    () => ({ asn: Infinity }),
    () => Number.NaN as never,
  ])('says nothing of any request, and is reported once (%#)', async (reader) => {
    const warnings = warningsOf('RAMPMETER_ENVIRONMENT_FAILED')
    const read = createEnvironment(reader as EnvironmentReader)
    for (let count = 0; count < 1000; count += 1) {
      expect(read(requestWith({}))).toEqual({ country: undefined, asn: undefined, ja4: undefined })
    }
    expect(await warnings()).toHaveLength(1)
  })
})

it('a name that is misspelt is told with those that there are, and the others are believed', async () => {
  const warnings = warningsOf('RAMPMETER_ENVIRONMENT_FAILED')
  const read = createEnvironment((() => ({ country: 'DE', jaa4: 't13d' })) as EnvironmentReader)
  expect(read(requestWith({}))).toEqual({ country: 'DE', asn: undefined, ja4: undefined })
  read(requestWith({}))
  const [warning, ...others] = await warnings()
  expect(others).toEqual([])
  expect(warning!.message).toMatch(/unknown name "jaa4".*write \{ country: 'NL', asn: 64500, ja4: 't13d…' \}/)
})

it('nothing to tell is no mistake', async () => {
  const warnings = warningsOf('RAMPMETER_ENVIRONMENT_FAILED')
  for (const told of [undefined, null, {}, { country: undefined, asn: null, ja4: '' }, { asn: 64500 }])
    createEnvironment((() => told) as EnvironmentReader)(requestWith({}))
  expect(await warnings()).toEqual([])
})
