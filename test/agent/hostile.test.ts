// Whatever a server answers, a call ends: within bounded time and a bounded number of requests, with a response or with what
// fetch would throw, and with nothing left behind.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createWorld, watch } from './world.ts'

const integer = fc.oneof(
  fc.integer({ min: 0, max: 100 }),
  fc.constantFrom(0, 1, 59, 60, 61, 3600, 86_400, 2 ** 31, 2 ** 53, 999_999_999_999_999),
)
const text = fc.oneof(
  integer.map(String),
  integer.map((number) => `-${number}`),
  fc.constantFrom(
    '',
    'NaN',
    'Infinity',
    '1e9',
    '0x10',
    '1.5',
    '1,2',
    'never',
    '\t',
    'null',
    'Fri, 27 Feb 2026 12:00:30 GMT',
  ),
  fc.constantFrom('Thu, 01 Jan 1970 00:00:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT', '9'.repeat(400)),
  fc.string({ unit: fc.constantFrom(...Array.from('"a=;,: 0159-.rtqw()?@%*')), maxLength: 20 }),
)
const named = fc
  .array(
    fc
      .record({
        name: fc.constantFrom('a', 'b', 'first-minutes', ''),
        r: integer,
        t: fc.option(integer),
        pk: fc.boolean(),
      })
      .map(({ name, r, t, pk }) => `"${name}";r=${r}${t === null ? '' : `;t=${t}`}${pk ? ';pk=:YQ==:' : ''}`),
    { minLength: 1, maxLength: 4 },
  )
  .map((members) => members.join(', '))
const policies = fc
  .array(
    fc
      .record({
        name: fc.constantFrom('a', 'b', 'first-minutes'),
        q: integer,
        w: fc.option(integer),
        unit: fc.boolean(),
      })
      .map(({ name, q, w, unit }) => `"${name}";q=${q}${w === null ? '' : `;w=${w}`}${unit ? ';qu="tokens"' : ''}`),
    { minLength: 1, maxLength: 3 },
  )
  .map((members) => members.join(', '))

const headers = fc
  .record(
    {
      'Retry-After': text,
      'retry-after-ms': text,
      RateLimit: fc.oneof(named, text),
      'RateLimit-Policy': fc.oneof(policies, text),
      'RateLimit-Limit': text,
      'RateLimit-Remaining': text,
      'RateLimit-Reset': text,
      'X-RateLimit-Limit': text,
      'X-RateLimit-Remaining': text,
      'X-RateLimit-Reset': text,
      'RateLimit-Ticket': text,
      'DPoP-Nonce': text,
      'WWW-Authenticate': fc.constantFrom('DPoP error="use_dpop_nonce"', 'DPoP', 'Bearer', ''),
      Date: text,
      Age: text,
    },
    { requiredKeys: [] },
  )
  .map((fields) => fields as Record<string, string>)

const answer = fc.record({ status: fc.constantFrom(200, 200, 401, 402, 403, 429, 429, 429, 500, 503), headers })

describe('whatever a server answers', () => {
  it('every call ends, in bounded time and requests, and nothing stays behind', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(answer, { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 1, max: 25 }),
        fc.constantFrom(0, 3, 700),
        async (answers, count, latency) => {
          const perCall = 3
          const world = createWorld(
            (_, nth) => {
              const { status, headers } = answers[(nth - 1) % answers.length]!
              return new Response('{}', { status, headers })
            },
            {
              latency,
              maxWait: '10s',
              retryBudget: { perCall },
              prove: () => 'proof',
              pay: () => ({ 'x-payment': 'money' }),
            },
          )
          const calls = Array.from({ length: count }, (_, n) => watch(world.fetch(`https://h.example.com/${n % 3}`)))
          // One wait before it is sent, and one and an answer for each time it is sent.
          await world.advance((perCall + 3) * (10_000 + latency) + 1)
          for (const call of calls) {
            expect(call.done).toBe(true)
            expect(call.error).toBeUndefined()
            expect(call.value?.bodyUsed).toBe(false)
          }
          expect(world.asked.length).toBeLessThanOrEqual(count * (1 + perCall + 2))
          for (const { ms } of world.waits) expect(ms >= 0 && ms <= 10_000).toBe(true)
          // It may be that nothing is known but that it is not the time yet: then the clock is all that is left.
          expect(world.timers()).toBe(0)
        },
      ),
      { numRuns: 400 },
    )
  }, 120_000)

  it('a server that refuses everything is asked once a call, once more if it says when, and as often as the budget says', async () => {
    await fc.assert(
      fc.asyncProperty(headers, fc.integer({ min: 1, max: 40 }), async (fields, count) => {
        const world = createWorld(() => new Response('', { status: 429, headers: fields }), { maxWait: '5s' })
        for (let n = 0; n < count; n += 1) watch(world.fetch('https://h.example.com/a'))
        await world.advance(20 * 60_000)
        expect(world.asked.length).toBeLessThanOrEqual(2 * count + 10)
        expect(world.timers()).toBe(0)
      }),
      { numRuns: 200 },
    )
  }, 120_000)

  it('a server that counts down for ever slows a call by no more than maxWait a wait', async () => {
    const world = createWorld(() => new Response('', { headers: { RateLimit: '"a";r=0;t=9' } }), { maxWait: '10s' })
    const calls = Array.from({ length: 5 }, () => watch(world.fetch('https://h.example.com/a')))
    await world.advance(10_000)
    expect(calls.every(({ done }) => done)).toBe(true)
  })
})
