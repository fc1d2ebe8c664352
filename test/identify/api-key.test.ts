import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { getHeapSnapshot } from 'node:v8'
import express, { type Request } from 'express'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { RampmeterError } from '../../src/errors.ts'
import { apiKey, type ApiKeyOptions } from '../../src/identify/api-key.ts'
import type { Subject } from '../../src/identify/subject.ts'
import type { Verification } from '../../src/identify/verifier.ts'
import { unlimited } from './unlimited.ts'

/** A request as Node makes it of these fields: joined in `headers`, as they came in `rawHeaders`. */
function requestOf(...fields: [name: string, value: string][]): Request {
  const headers: Record<string, string> = {}
  for (const [name, value] of fields) {
    const lower = name.toLowerCase()
    if (headers[lower] === undefined) headers[lower] = value
    else if (lower !== 'authorization') headers[lower] += `, ${value}`
  }
  return { headers, rawHeaders: fields.flat() } as unknown as Request
}

const withKey = (key: string): Request => requestOf(['Host', 'api.example.com'], ['X-API-Key', key])

const unknownKey: unknown = expect.objectContaining({
  outcome: 'absent',
  note: 'an API key was shown that is not known',
})

const keys: Record<string, Subject> = {
  'k-agent': { id: 'acme', type: 'agent', tier: 'premium', claims: { quota: 9 } },
  'k-service': { id: 'cron', type: 'service' },
  'k-user': { id: 'ann', type: 'user' },
  'k-plain': { id: 'old' },
  'k-number': { id: 7, type: null, tier: null, claims: null },
}

/** lru-cache takes an entry that was made at 0 for one that never expires. */
function turnTheClock(): void {
  vi.useFakeTimers()
  vi.advanceTimersByTime(1)
}

afterEach(() => {
  vi.useRealTimers()
})

describe('a known key', () => {
  it.each([
    ['k-agent', { id: 'key:acme', kind: 'agent', tier: 'premium', claims: { quota: 9 } }],
    ['k-service', { id: 'key:cron', kind: 'agent' }],
    ['k-user', { id: 'key:ann', kind: 'human' }],
    ['k-plain', { id: 'key:old', kind: 'unknown', confidence: 0 }],
    ['k-number', { id: 'key:7', kind: 'unknown' }],
  ])('%s is %j, found at once or later', async (key, identity) => {
    const sync = apiKey({ lookup: (shown) => keys[shown] })
    const async = apiKey({ lookup: async (shown) => keys[shown] })
    expect(sync.name).toBe('api-key')
    expect(sync.verify(withKey(key), unlimited)).toMatchObject({
      outcome: 'verified',
      identity: { ...identity, provesKey: false },
    })
    expect(await async.verify(withKey(key), unlimited)).toEqual(sync.verify(withKey(key), unlimited))
  })

  it('is looked up with the request that showed it', () => {
    const lookup = vi.fn((_key: string, _req: Request) => null)
    const req = withKey('k')
    void apiKey({ lookup }).verify(req, unlimited)
    expect(lookup.mock.calls).toEqual([['k', req]])
  })

  it('may come in another field, by any spelling', () => {
    const verifier = apiKey({ header: 'X-Token', lookup: (shown) => keys[shown] })
    expect(verifier.verify(requestOf(['x-TOKEN', 'k-user']), unlimited)).toMatchObject({ identity: { id: 'key:ann' } })
    expect(verifier.verify(withKey('k-user'), unlimited)).toEqual({ outcome: 'absent' })
  })

  it.each([
    ['Bearer k-user', 'key:ann'],
    ['bearer   k-user', 'key:ann'],
    ['Basic k-user', undefined],
    ['BearerX k-user', undefined],
    ['k-user', undefined],
  ])('in Authorization: %s', (value, id) => {
    const verifier = apiKey({ header: 'authorization', lookup: (shown) => keys[shown] })
    const verification = verifier.verify(requestOf(['Authorization', value]), unlimited)
    if (id === undefined) expect(verification).toEqual({ outcome: 'absent' })
    else expect(verification).toMatchObject({ identity: { id } })
  })
})

describe('a key nobody knows', () => {
  const refused = {
    outcome: 'invalid',
    reason: 'the API key is not known',
    challenge: 'ApiKey realm="api", in="header", name="x-api-key"',
  }

  it.each([
    ['null', () => null],
    ['undefined', () => undefined],
    ['null, later', async () => null],
  ])('for which the look-up says %s', async (_what, lookup) => {
    expect(await apiKey({ lookup }).verify(withKey('nope'), unlimited)).toEqual(unknownKey)
    expect(await apiKey({ lookup, unknown: 'refuse' }).verify(withKey('nope'), unlimited)).toEqual(refused)
  })

  it('in Authorization is refused with the challenge of RFC 6750', () => {
    const verifier = apiKey({ header: 'authorization', lookup: () => null, unknown: 'refuse' })
    expect(verifier.verify(requestOf(['Authorization', 'Bearer nope']), unlimited)).toMatchObject({
      challenge: 'Bearer realm="api", error="invalid_token"',
    })
  })

  it.each<[string, Request]>([
    ['comes twice', requestOf(['X-API-Key', 'k-user'], ['x-api-key', 'k-user'])],
    ['comes twice, apart', requestOf(['X-API-Key', 'k-user'], ['Host', 'x'], ['X-Api-Key', 'k-agent'])],
    [
      'is a list, where the raw fields are lost',
      { headers: { 'x-api-key': 'k-user, k-agent' }, rawHeaders: [] } as never,
    ],
    ['is an array, where the raw fields are lost', { headers: { 'x-api-key': ['k-user', 'k-agent'] } } as never],
    ['is empty', withKey('')],
    ['is too long', withKey('k'.repeat(4097))],
  ])('because it %s: no look-up', (_what, req) => {
    const lookup = vi.fn((shown: string) => keys[shown])
    expect(apiKey({ lookup }).verify(req, unlimited)).toEqual(unknownKey)
    expect(apiKey({ lookup, unknown: 'refuse' }).verify(req, unlimited)).toEqual({ ...refused, counts: false })
    expect(lookup).not.toHaveBeenCalled()
  })

  it.each<[string, Request]>([
    ['no raw fields', { headers: { 'x-api-key': 'k-user' }, rawHeaders: [] } as never],
    ['no such property', { headers: { 'x-api-key': 'k-user' } } as never],
    ['a field set by middleware', { headers: { 'x-api-key': 'k-user' }, rawHeaders: ['Host', 'x'] } as never],
  ])('is not what one is that comes once, with %s', (_what, req) => {
    expect(apiKey({ lookup: (shown) => keys[shown] }).verify(req, unlimited)).toMatchObject({
      identity: { id: 'key:ann' },
    })
  })

  it('may contain a comma and the longest length allowed', () => {
    const long = 'k,'.repeat(2048)
    const verifier = apiKey({ lookup: (shown) => (shown === long ? { id: 'long' } : null) })
    expect(verifier.verify(withKey(long), unlimited)).toMatchObject({ identity: { id: 'key:long' } })
  })

  it('and no key at all is absent without a note', () => {
    expect(apiKey({ lookup: () => null, unknown: 'refuse' }).verify(requestOf(['Host', 'x']), unlimited)).toEqual({
      outcome: 'absent',
    })
  })
})

describe('over a real connection', () => {
  it('two fields are seen as two, whichever field it is', async () => {
    const app = express()
    const inOwnField = apiKey({ lookup: (shown) => keys[shown] })
    const inAuthorization = apiKey({ header: 'authorization', lookup: (shown) => keys[shown] })
    app.use((req, res) => void res.json([inOwnField.verify(req, unlimited), inAuthorization.verify(req, unlimited)]))
    const server = createServer(app)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo

    async function send(...lines: string[]): Promise<Verification[]> {
      const answer = await new Promise<string>((resolve, reject) => {
        let text = ''
        connect(port, '127.0.0.1')
          .on('data', (chunk) => (text += chunk.toString()))
          .on('end', () => resolve(text))
          .on('error', reject)
          .end(['GET / HTTP/1.1', 'Host: x', 'Connection: close', ...lines, '', ''].join('\r\n'))
      })
      return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)) as Verification[]
    }

    try {
      expect(await send('X-API-Key: k-user', 'Authorization: Bearer k-agent')).toMatchObject([
        { identity: { id: 'key:ann' } },
        { identity: { id: 'key:acme' } },
      ])
      expect(await send('X-API-Key: k-user', 'x-api-key: k-agent')).toEqual([unknownKey, { outcome: 'absent' }])
      expect(await send('Authorization: Bearer k-user', 'Authorization: Bearer k-agent')).toEqual([
        { outcome: 'absent' },
        unknownKey,
      ])
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
  })
})

describe('a look-up that fails', () => {
  const lookups: [string, () => unknown][] = [
    [
      'throws',
      () => {
        throw new Error('password is hunter2')
      },
    ],
    ['rejects', () => Promise.reject(new Error('password is hunter2'))],
  ]
  it.each(lookups)('%s: unavailable, never unknown', async (_what, lookup) => {
    const verification = await apiKey({ lookup: lookup as never, cache: '1m', unknown: 'refuse' }).verify(
      withKey('s3cret'),
      unlimited,
    )
    expect(verification).toMatchObject({ outcome: 'unavailable', cause: { code: 'RAMPMETER_LOOKUP_FAILED' } })
    const { cause, reason } = verification as Verification & { outcome: 'unavailable' }
    expect(`${reason} ${(cause as Error).message}`).not.toMatch(/s3cret|hunter2/)
    expect((cause as Error).cause).toMatchObject({ message: 'password is hunter2' })
  })

  it.each([
    true,
    false,
    0,
    'acme',
    [],
    {},
    { id: '' },
    { id: 'a', type: 'robot' },
    { id: 'a', tier: 1 },
    { id: 'a', claims: 1 },
  ])('answers %j: unavailable', async (answer) => {
    for (const lookup of [() => answer, async () => answer]) {
      const verification = await apiKey({ lookup: lookup as never }).verify(withKey('k'), unlimited)
      expect(verification).toMatchObject({ outcome: 'unavailable', cause: { code: 'RAMPMETER_INVALID_IDENTITY' } })
    }
  })

  it('is not remembered', async () => {
    let broken = true
    const verifier = apiKey({
      cache: '1h',
      lookup: async () => {
        if (broken) throw new Error('down')
        return { id: 'acme' }
      },
    })
    expect(await verifier.verify(withKey('k'), unlimited)).toMatchObject({ outcome: 'unavailable' })
    broken = false
    expect(await verifier.verify(withKey('k'), unlimited)).toMatchObject({ outcome: 'verified' })
  })
})

describe('look-ups of one key', () => {
  function slow(): {
    lookup: ReturnType<typeof vi.fn<ApiKeyOptions['lookup']>>
    answer: (subject: Subject | null) => void
  } {
    const waiting: ((subject: Subject | null) => void)[] = []
    return {
      lookup: vi.fn<ApiKeyOptions['lookup']>(() => new Promise((resolve) => waiting.push(resolve))),
      answer: (subject) => waiting.shift()!(subject),
    }
  }

  it('under way at once are one, and the next is another', async () => {
    const { lookup, answer } = slow()
    const verifier = apiKey({ lookup })
    const many = Array.from({ length: 20 }, () => verifier.verify(withKey('k'), unlimited))
    const other = verifier.verify(withKey('another'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(2)
    answer({ id: 'acme' })
    answer(null)
    const answers = await Promise.all(many.map(async (one) => one))
    expect(new Set(answers.map((one) => JSON.stringify(one))).size).toBe(1)
    expect(answers[0]).toMatchObject({ identity: { id: 'key:acme' } })
    expect(await other).toEqual(unknownKey)

    const again = verifier.verify(withKey('k'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(3)
    answer(null)
    expect(await again).toEqual(unknownKey)
  })

  it('are joined when they fail, and tried anew', async () => {
    const lookup = vi.fn(async () => {
      throw new Error('down')
    })
    const verifier = apiKey({ lookup })
    await Promise.all([verifier.verify(withKey('k'), unlimited), verifier.verify(withKey('k'), unlimited)])
    expect(lookup).toHaveBeenCalledTimes(1)
    await verifier.verify(withKey('k'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(2)
  })

  it('do not wait for ever for one that hangs, and its late answer replaces nothing', async () => {
    turnTheClock()
    const { lookup, answer } = slow()
    const verifier = apiKey({ lookup, cache: '1h' })
    const hung = verifier.verify(withKey('k'), unlimited)
    await vi.advanceTimersByTimeAsync(9_000)
    void verifier.verify(withKey('k'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(1)
    await vi.advanceTimersByTimeAsync(2_000)
    const fresh = verifier.verify(withKey('k'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(2)
    answer({ id: 'withdrawn' })
    answer(null)
    expect(await fresh).toEqual(unknownKey)
    expect(await hung).toMatchObject({ identity: { id: 'key:withdrawn' } })
    expect(await verifier.verify(withKey('k'), unlimited)).toEqual(unknownKey)
    expect(lookup).toHaveBeenCalledTimes(2)
  })
})

describe('cache', () => {
  it.each([
    ['found', { id: 'acme' }, 'verified'],
    ['not found', null, 'absent'],
  ])('remembers what was %s for its time, sync and async', async (_what, subject, outcome) => {
    turnTheClock()
    for (const answer of [() => subject, async () => subject]) {
      const lookup = vi.fn(answer)
      const verifier = apiKey({ lookup, cache: '30s' })
      expect(await verifier.verify(withKey('k'), unlimited)).toMatchObject({ outcome })
      await vi.advanceTimersByTimeAsync(29_900)
      expect(verifier.verify(withKey('k'), unlimited)).toMatchObject({ outcome })
      expect(lookup).toHaveBeenCalledTimes(1)
      await vi.advanceTimersByTimeAsync(200)
      expect(await verifier.verify(withKey('k'), unlimited)).toMatchObject({ outcome })
      expect(lookup).toHaveBeenCalledTimes(2)
    }
  })

  it('is off unless asked for', () => {
    const lookup = vi.fn(() => null)
    const verifier = apiKey({ lookup })
    void verifier.verify(withKey('k'), unlimited)
    void verifier.verify(withKey('k'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(2)
  })

  it('is bounded, and made-up keys do not drive out known ones', () => {
    const lookup = vi.fn((key: string) => (key === 'real' ? { id: 'acme' } : null))
    const verifier = apiKey({ lookup, cache: '1h' })
    void verifier.verify(withKey('real'), unlimited)
    for (let index = 0; index < 12_000; index += 1) void verifier.verify(withKey(`made-up-${index}`), unlimited)
    lookup.mockClear()
    void verifier.verify(withKey('real'), unlimited)
    expect(lookup).not.toHaveBeenCalled()
    void verifier.verify(withKey('made-up-11999'), unlimited)
    expect(lookup).not.toHaveBeenCalled()
    void verifier.verify(withKey('made-up-0'), unlimited)
    expect(lookup).toHaveBeenCalledTimes(1)
  })

  it('keeps no key in memory', async () => {
    const makeKey = (): string => ['vErY', 'sEcReT', process.pid].join('-')
    const marker = `remembered-${process.pid}`
    const verifier = apiKey({ cache: '1h', lookup: async (key) => ({ id: `${marker}-${key.length}` }) })
    await verifier.verify(withKey(makeKey()), unlimited)
    // What is reachable, texts once each. The key itself is written only afterwards, so that it is not this test that keeps it.
    let heap = ''
    for await (const chunk of getHeapSnapshot()) heap += String(chunk)
    expect(heap).toContain(marker)
    expect(heap.includes(makeKey())).toBe(false)
    expect(await verifier.verify(withKey(makeKey()), unlimited)).toMatchObject({ outcome: 'verified' })
  })
})

describe('any request', () => {
  it('gets an answer, and never a throw', () => {
    const verifier = apiKey({ lookup: (shown) => keys[shown] })
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('X-API-Key', 'x-api-key', 'Host', ''), fc.string({ unit: 'binary' })), {
          maxLength: 4,
        }),
        fc.boolean(),
        (fields, raw) => {
          const req = requestOf(...fields)
          if (!raw) req.rawHeaders = []
          const shown = fields.filter(([name]) => name.toLowerCase() === 'x-api-key')
          const verification = verifier.verify(req, unlimited) as Verification
          expect(['absent', 'verified', 'unavailable']).toContain(verification.outcome)
          if (shown.length === 0) expect(verification).toEqual({ outcome: 'absent' })
          if (shown.length > 1) expect(verification).toEqual(unknownKey)
        },
      ),
    )
  })
})

describe('options', () => {
  const lookup = (): null => null

  it.each<[unknown, string]>([
    [{}, 'RAMPMETER_INVALID_OPTION'],
    [{ lookup: 'k' }, 'RAMPMETER_INVALID_OPTION'],
    [{ lookup, header: 'x api key' }, 'RAMPMETER_INVALID_OPTION'],
    [{ lookup, header: '' }, 'RAMPMETER_INVALID_OPTION'],
    [{ lookup, unknown: 'maybe' }, 'RAMPMETER_INVALID_OPTION'],
    [{ lookup, cache: '30 seconds' }, 'RAMPMETER_INVALID_DURATION'],
    [{ lookup, cache: true }, 'RAMPMETER_INVALID_DURATION'],
    [{ lookup, ttl: '30s' }, 'RAMPMETER_UNKNOWN_OPTION'],
    [undefined, 'RAMPMETER_INVALID_OPTION'],
  ])('%j is %s', (options, code) => {
    let thrown: unknown
    try {
      apiKey(options as never)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(RampmeterError)
    expect(thrown).toMatchObject({ code })
  })
})
