// Whatever stands in the fields, the answer is one of three, comes soon, and parses where it is a field.

import fc from 'fast-check'
import { parseDictionary } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import type { Verification } from '../../../src/identify/verifier.ts'
import { webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import { agentUrl, key, noonSeconds, options, requestOf, signFields, unlimited } from './signing.ts'

const right = { ...signFields() }

const verifier = webBotAuth({ ...options, legacy: true })

/** RFC 9110 section 11.6.1, as we write it. */
const challengeGrammar =
  /^Web-Bot-Auth error="invalid_(request|signature)", error_description="[\x20\x21\x23-\x5b\x5d-\x7e]+"$/

function check(verification: Verification): void {
  expect(['absent', 'invalid', 'verified']).toContain(verification.outcome)
  if (verification.outcome === 'verified') expect(verification.identity.id.startsWith('agent:https://')).toBe(true)
  if (verification.outcome !== 'invalid') return
  expect(verification.challenge).toMatch(challengeGrammar)
  expect([400, undefined]).toContain(verification.status)
  expect(parseDictionary(verification.fields!['Accept-Signature']!).size).toBe(1)
}

async function answer(
  fields: Record<string, string | string[]>,
  url = '/search',
  method = 'GET',
): Promise<Verification> {
  // Of this process's own time: how long it waits for a busy machine says nothing.
  const before = process.cpuUsage()
  const verification = await verifier.verify(requestOf(fields, { url, method }), unlimited)
  const { user, system } = process.cpuUsage(before)
  expect((user + system) / 1000).toBeLessThan(500)
  check(verification)
  return verification
}

const word = fc.constantFrom(
  'sig1',
  'sig2',
  '=',
  '(',
  ')',
  ';',
  ',',
  ' ',
  '"',
  '\\',
  ':',
  '?1',
  '%"',
  '@',
  '*',
  '-',
  '.',
  '1',
  '999999999999999',
  '1.5',
  '"@method"',
  '"@authority"',
  '"@path"',
  '"@query-param"',
  '"signature-agent"',
  ';key="sig1"',
  ';key=',
  ';sf',
  ';bs',
  ';req',
  ';tr',
  `;created=${noonSeconds}`,
  `;expires=${noonSeconds + 50}`,
  `;keyid="${key.keyid}"`,
  ';tag="web-bot-auth"',
  ';alg="ed25519"',
  ':AAAA:',
  `"${agentUrl}"`,
  '"https://bot.example"',
  'é',
  '\t',
  '\0',
)
const soup = fc.array(word, { maxLength: 40 }).map((words) => words.join(''))
const anything = fc.oneof(soup, fc.string({ unit: 'binary', maxLength: 200 }))

describe('fields of any shape', () => {
  it('are answered', async () => {
    await fc.assert(
      fc.asyncProperty(anything, anything, anything, async (input, signature, agent) => {
        await answer({ 'Signature-Input': input, Signature: signature, 'Signature-Agent': agent })
      }),
      { numRuns: 1500 },
    )
  })

  it('each beside two that are right, are never proven', async () => {
    const names = Object.keys(right) as (keyof typeof right)[]
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...names), anything, async (name, value) => {
        expect((await answer({ ...right, [name]: value })).outcome).not.toBe('verified')
      }),
      { numRuns: 1500 },
    )
  })

  it('that parse, with parameters and components of any kind, are never proven', async () => {
    const parameter = fc.constantFrom(
      'created=-1',
      'created=1.0',
      'created=@1',
      'created',
      'expires=999999999999999',
      'expires=?0',
      'keyid=:AAAA:',
      'keyid=x',
      'alg=ed25519',
      'alg=?1',
      'nonce=%"f%c3%bc"',
      'tag=web-bot-auth',
      'constructor="x"',
      '__proto__="x"',
      'a*="b"',
    )
    const component = fc.constantFrom(
      '"@method"',
      '"@authority"',
      '"@target-uri"',
      '"signature-agent";key="sig1"',
      '"signature-agent"',
      '1',
      'token',
      ':AA==:',
      '?1',
      '@1',
      '%"x"',
      '"__proto__"',
      '"constructor"',
      '"@query-param";name="q"',
      '"@method";req',
      '"host";sf',
      '"host";bs',
      '"host";key="a"',
    )
    await fc.assert(
      fc.asyncProperty(fc.array(component), fc.array(parameter), async (components, parameters) => {
        const rest = [
          `created=${noonSeconds - 1}`,
          `expires=${noonSeconds + 9}`,
          `keyid="${key.keyid}"`,
          'tag="web-bot-auth"',
        ]
        const input = `sig1=(${components.join(' ')});${[...rest, ...parameters].join(';')}`
        const verification = await answer({ ...right, 'Signature-Input': input })
        expect(verification.outcome).not.toBe('verified')
      }),
      { numRuns: 1500 },
    )
  })

  it('are answered whatever the method and the target are', async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), async (url, method) => {
        const { outcome } = await answer(right, url, method)
        expect(outcome === 'verified').toBe(method === 'GET' && /^\/search(\?|$)/.test(url))
      }),
    )
  })

  it.each<[string, Record<string, string | string[]>]>([
    [
      'ten thousand labels',
      { ...right, 'Signature-Input': Array.from({ length: 10_000 }, (_none, nth) => `s${nth}=()`).join(',') },
    ],
    ['ten thousand lines', { ...right, Signature: Array.from({ length: 10_000 }, (_none, nth) => `s${nth}=:AA==:`) }],
    [
      'as many components as fit',
      { ...right, 'Signature-Input': `sig1=(${'"@method" '.repeat(1500)});created=1;expires=2;tag="web-bot-auth"` },
    ],
    ['open parentheses', { ...right, 'Signature-Input': `sig1=${'('.repeat(16_000)}` }],
    ['open quotes', { ...right, 'Signature-Agent': `sig1=${'"\\'.repeat(8000)}` }],
    ['spaces', { ...right, 'Signature-Agent': `sig1=1${' '.repeat(16_000)}x` }],
    ['percent signs', { ...right, 'Signature-Input': `sig1=("a" ${'%"'.repeat(8000)}` }],
    ['a long URL', { ...right, 'Signature-Agent': `sig1="https://bot.example/${'../'.repeat(5000)}"` }],
  ])('%s are answered', async (_what, fields) => {
    expect((await answer(fields)).outcome).not.toBe('verified')
  })

  it('that are right are proven: the fuzz begins where something can be found', async () => {
    expect((await answer(right)).outcome).toBe('verified')
  })
})
