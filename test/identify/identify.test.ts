import type { Request } from 'express'
import { describe, expect, it, vi } from 'vitest'
import { AttemptLimit } from '../../src/attempts.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import { createIdentifier, type Identified } from '../../src/identify/identify.ts'
import { session } from '../../src/identify/session.ts'
import type { Identity, Verification, Verifier } from '../../src/identify/verifier.ts'

const address = 'ip:203.0.113.7'

function requestOf(headers: Record<string, string> = {}, more: object = {}): Request {
  return { headers, rawHeaders: Object.entries(headers).flat(), ...more } as unknown as Request
}

function identify(verifiers: Verifier[], req: Request = requestOf()): Identified | Promise<Identified> {
  return createIdentifier({
    verifiers,
    readAddress: () => address,
    attemptsOf: (from) => new AttemptLimit({ quota: 20, windowMs: 60_000 }).of(from),
  })(req)
}

function saying(
  name: string,
  verification: unknown,
): Verifier & { verify: ReturnType<typeof vi.fn<Verifier['verify']>> } {
  return { name, verify: vi.fn<Verifier['verify']>(() => verification as Verification) }
}

function verified(identity: Partial<Identity>): Verification {
  return { outcome: 'verified', identity: { id: 'x:1', kind: 'agent', confidence: 1, reason: 'because', ...identity } }
}

const absent: Verification = { outcome: 'absent' }

describe('a request that proves nothing', () => {
  const stranger = {
    id: address,
    kind: 'anonymous',
    provedBy: null,
    confidence: 0,
    claims: {},
    address,
    namedTier: null,
    provesKey: false,
  }

  it('is its address', () => {
    expect(identify([])).toMatchObject({
      outcome: 'known',
      client: { ...stranger, hint: null, reasons: ['no credential was shown'] },
      answers: [],
    })
  })

  it('may hint at what it is, which is told as unproven', () => {
    expect(identify([saying('a', absent)], requestOf({ 'user-agent': 'ClaudeBot/1.0' }))).toMatchObject({
      outcome: 'known',
      client: {
        ...stranger,
        hint: { agent: 'ClaudeBot', operator: 'Anthropic', role: 'crawler' },
        reasons: ['no credential was shown', 'the User-Agent says ClaudeBot, unproven'],
      },
      answers: [absent],
    })
  })

  it('may have shown a key nobody knows: the notes say so', async () => {
    const req = requestOf({ 'x-api-key': 'made-up', 'user-agent': 'curl/8' })
    const { client, failures } = await identify([apiKey({ lookup: () => null })], req)
    expect(failures).toBe(1)
    expect(client).toMatchObject({
      ...stranger,
      reasons: ['an API key was shown that is not known', 'the User-Agent says curl, unproven'],
    })
    expect(JSON.stringify(client)).not.toContain('made-up')
  })

  it('may have no headers at all', () => {
    expect(identify([], {} as Request)).toMatchObject({ outcome: 'known', client: stranger })
  })
})

describe('verifiers', () => {
  it('are asked in order; the first identity wins, later ones add claims', () => {
    const third = saying(
      'third',
      verified({ id: 'z:3', kind: 'human', claims: { b: 30, c: 30 }, tier: 'gold', reason: 'third' }),
    )
    const result = identify([
      saying('first', { ...absent, note: 'first passed' }),
      saying(
        'second',
        verified({ id: 'y:2', claims: { a: 2, b: 2 }, tier: 'premium', provesKey: true, reason: 'second' }),
      ),
      third,
    ])
    expect(result).toMatchObject({
      outcome: 'known',
      client: {
        id: 'y:2',
        kind: 'agent',
        provedBy: 'second',
        confidence: 1,
        reasons: ['second', 'third agrees and adds claims: third', 'first passed'],
        claims: { a: 2, b: 2, c: 30 },
        address,
        hint: null,
        namedTier: 'premium',
        provesKey: true,
      },
    })
    expect(third.verify).toHaveBeenCalledTimes(1)
  })

  it('do not lend a later proof or tier to an earlier identity', () => {
    const { client } = identify([
      saying('weak', verified({ id: 'weak:1' })),
      saying('strong', verified({ id: 'strong:1', provesKey: true, tier: 'premium' })),
    ]) as Identified
    expect(client).toMatchObject({ id: 'weak:1', provesKey: false, namedTier: null })
  })

  it('that are secondary name somebody only where no other does, in whatever order, and their claims are theirs', async () => {
    const attested: Verification = {
      ...(verified({
        id: 'at:1',
        kind: 'agent',
        provesKey: true,
        reason: 'attested',
        claims: { attested: 1 },
      }) as object),
      outcome: 'verified',
      secondary: true,
    } as Verification
    const token = verified({
      id: 'sub:1',
      kind: 'unknown',
      confidence: 0,
      reason: 'a token',
      claims: { attested: 'a lie', a: 1 },
    })
    const ofToken = { id: 'sub:1', kind: 'unknown', provedBy: 'token', provesKey: false, claims: { attested: 1, a: 1 } }
    for (const order of [
      [saying('attestation', attested), saying('token', token)],
      [saying('token', token), saying('attestation', attested)],
    ]) {
      const { client } = await identify(order)
      expect(client).toMatchObject({ ...ofToken, reasons: ['a token', 'attestation agrees and adds claims: attested'] })
    }
    const { client } = await identify([saying('none', absent), saying('attestation', attested)])
    expect(client).toMatchObject({ id: 'at:1', provedBy: 'attestation', provesKey: true, claims: { attested: 1 } })
  })

  it('that use one proof use it once', async () => {
    const proof = { name: 'p', lastsMs: 1, challenge: 'X' }
    const both = ['a', 'b'].map((name) => saying(name, { ...verified({}), singleUses: [proof, { ...proof, name }] }))
    expect(await identify(both)).toMatchObject({ singleUses: [proof, { name: 'a' }, { name: 'b' }] })
  })

  it.each<[string, unknown]>([
    ['no list', {}],
    ['a text', 'x'],
    ['nothing in it', [null]],
    ['a proof without a challenge', [{ name: 'p', lastsMs: 1 }]],
    ['a challenge that cannot stand in a field', [{ name: 'p', lastsMs: 1, challenge: 'X\r\nY: 1' }]],
    ['a name that is no hash', [{ name: 'a proof', lastsMs: 1, challenge: 'X' }]],
    ['a name that is long', [{ name: 'p'.repeat(65), lastsMs: 1, challenge: 'X' }]],
    ['no time', [{ name: 'p', lastsMs: Number.NaN, challenge: 'X' }]],
    ['no time that could be waited', [{ name: 'p', lastsMs: 1e12, challenge: 'X' }]],
  ])('that give single uses with %s fail the request, and not when the proof is shown again', (_what, singleUses) => {
    const one = saying('mine', { ...verified({}), singleUses })
    expect(() => identify([one])).toThrow('RAMPMETER_INVALID_IDENTITY')
  })

  it('that check and answer with nothing fail the request, with a code', async () => {
    const mine: Verifier = {
      name: 'mine',
      verify: async (_req, attempts) => await attempts.check('x', () => undefined as never),
    }
    await expect(identify([mine])).rejects.toThrow('RAMPMETER_INVALID_IDENTITY')
  })

  it('may give fields to the response, and a hint that earns nothing', async () => {
    const hint = { agent: 'agent.example', role: 'bot' } as const
    const result = await identify([
      saying('a', { ...absent, fields: { 'DPoP-Nonce': '1' }, hint, note: 'unproven' }),
      saying('b', { ...absent, fields: { 'X-Other': '2' } }),
    ])
    expect(result).toMatchObject({ fields: { 'DPoP-Nonce': '1', 'X-Other': '2' }, client: { hint, kind: 'anonymous' } })
  })

  it('that answer at once need no promise; one that does not makes it one', async () => {
    const now = [saying('a', absent), saying('b', verified({ id: 'b:1' }))]
    expect(identify(now)).toMatchObject({ outcome: 'known' })

    const later = [
      saying('a', Promise.resolve(absent)),
      saying('b', verified({})),
      saying('c', Promise.resolve(absent)),
    ]
    const result = identify(later)
    expect(result).toBeInstanceOf(Promise)
    expect(await result).toMatchObject({ outcome: 'known', client: { provedBy: 'b' } })

    // oxlint-disable-next-line unicorn/no-thenable -- what a query builder is
    const lazy = { then: (resolve: (value: Verification) => void) => resolve(verified({ id: 'lazy:1' })) }
    expect(await identify([saying('lazy', lazy)])).toMatchObject({ client: { id: 'lazy:1' } })
  })

  it('give the same answer at once and later', async () => {
    const verifications: Verification[] = [
      absent,
      { outcome: 'absent', note: 'noted' },
      verified({ id: 'a:1', claims: { a: 1 } }),
      verified({ id: 'b:1', claims: { a: 2, b: 2 } }),
      { outcome: 'invalid', reason: 'wrong', challenge: 'Bearer' },
      { outcome: 'unavailable', reason: 'down', cause: 'x' },
    ]
    for (const one of verifications) {
      for (const two of verifications) {
        for (const three of verifications) {
          const all = [one, two, three]
          const atOnce = identify(all.map((verification, index) => saying(`v${index}`, verification)))
          for (let mask = 1; mask < 8; mask += 1) {
            const mixed = all.map((verification, index) =>
              saying(`v${index}`, mask & (1 << index) ? Promise.resolve(verification) : verification),
            )
            expect(await identify(mixed)).toEqual(atOnce)
          }
        }
      }
    }
  })

  it.each<[string, Verification & { outcome: 'invalid' | 'unavailable' }]>([
    ['invalid', { outcome: 'invalid', reason: 'the signature is wrong', challenge: 'Bearer error="invalid_token"' }],
    ['unavailable', { outcome: 'unavailable', reason: 'no keys', cause: new Error('ECONNREFUSED') }],
  ])('that find a credential %s end it, charged to the address, whatever was proven before', (_what, verification) => {
    const after = saying('after', verified({}))
    for (const before of [[], [saying('before', verified({ id: 'before:1', tier: 'premium', claims: { a: 1 } }))]]) {
      const result = identify([...before, saying('wrong', verification), after]) as Identified
      const { outcome } = verification
      expect(result).toMatchObject({
        outcome,
        ...(verification.outcome === 'invalid'
          ? { denial: { status: 401, challenges: [verification.challenge] }, failures: 1 }
          : { reason: verification.reason, failures: 0 }),
        client: {
          id: address,
          kind: 'anonymous',
          provedBy: null,
          namedTier: null,
          claims: {},
        },
      })
      expect(result.client.reasons[0]).toBe((verification as { reason: string }).reason)
    }
    expect(after.verify).not.toHaveBeenCalled()
  })

  it('that throw fail the request', async () => {
    const bug = new TypeError('a bug')
    const thrower: Verifier = {
      name: 'thrower',
      verify: () => {
        throw bug
      },
    }
    expect(() => identify([thrower])).toThrow(bug)
    await expect(identify([saying('later', Promise.resolve(absent)), thrower])).rejects.toBe(bug)
    await expect(identify([saying('rejects', Promise.reject(bug))])).rejects.toBe(bug)
  })

  it('of both kinds work together', async () => {
    const verifiers = [
      apiKey({
        lookup: async (key) => (key === 'k' ? { id: 'acme', type: 'agent', tier: 'premium', claims: { n: 1 } } : null),
      }),
      session((req) => (req as { user?: { id: number } }).user && { id: 42, claims: { n: 2, seats: 3 } }),
    ]
    expect(await identify(verifiers, requestOf({ 'x-api-key': 'k' }, { user: {} }))).toMatchObject({
      client: { id: 'key:acme', kind: 'agent', provedBy: 'api-key', namedTier: 'premium', claims: { n: 1, seats: 3 } },
    })
    expect(await identify(verifiers, requestOf({ 'x-api-key': 'wrong' }, { user: {} }))).toMatchObject({
      client: { id: 'session:42', kind: 'human', provedBy: 'session', namedTier: null },
    })
    expect(identify(verifiers, requestOf())).toMatchObject({ client: { id: address } })
  })

  it("do not hand one request's claims to the next", () => {
    const kept = verified({ id: 'a:1', claims: { quota: 5 } })
    const first = identify([saying('a', kept)]) as Identified
    first.client.claims['quota'] = 1_000_000
    expect((identify([saying('a', kept)]) as Identified).client.claims).toEqual({ quota: 5 })
  })
})

describe('asked again about the same request', () => {
  function identifierOf(...verifiers: Verifier[]): ReturnType<typeof createIdentifier> {
    return createIdentifier({
      verifiers,
      readAddress: () => address,
      attemptsOf: (from) => new AttemptLimit({ quota: 20, windowMs: 60_000 }).of(from),
    })
  }

  it('asks nobody when no answer may change', () => {
    const key = saying('key', verified({ id: 'key:1' }))
    const again = identifierOf(key)
    const earlier = again(requestOf()) as Identified
    expect(again(requestOf(), earlier)).toEqual(earlier)
    expect(key.verify).toHaveBeenCalledTimes(1)
  })

  it('asks only those whose answer may change, and sees a login', () => {
    const key = saying('key', { outcome: 'absent', note: 'a key nobody knows' })
    const last = saying('last', verified({ id: 'last:1', claims: { plan: 'a' } }))
    const login = session((req) => (req as { user?: { id: number } }).user)
    const again = identifierOf(key, login, last)
    const req = requestOf()
    const before = again(req) as Identified
    expect(before.client).toMatchObject({ id: 'last:1', provedBy: 'last' })

    Object.assign(req, { user: { id: 42 } })
    const after = again(req, before) as Identified
    expect(after.client).toMatchObject({
      id: 'session:42',
      provedBy: 'session',
      claims: { plan: 'a' },
      reasons: expect.arrayContaining(['a key nobody knows']) as unknown,
    })
    expect(key.verify).toHaveBeenCalledTimes(1)
    expect(last.verify).toHaveBeenCalledTimes(1)
    expect(again(req, before)).toEqual(again(req))
  })

  it('asks for the first time those behind whom the search had ended', () => {
    let loggedIn = true
    const login: Verifier = {
      name: 'login',
      mayChange: true,
      verify: () => (loggedIn ? { outcome: 'unavailable', reason: 'down', cause: null } : absent),
    }
    const key = saying('key', verified({ id: 'key:1' }))
    const again = identifierOf(login, key)
    const before = again(requestOf()) as Identified
    expect(before.outcome).toBe('unavailable')
    loggedIn = false
    expect(again(requestOf(), before)).toMatchObject({ outcome: 'known', client: { id: 'key:1' } })
    expect(key.verify).toHaveBeenCalledTimes(1)
  })
})

describe('what a verifier of the app may not answer', () => {
  it.each<[string, unknown]>([
    ['nothing', undefined],
    ['null', null],
    ['a text', 'absent'],
    ['an unknown outcome', { outcome: 'maybe' }],
    ['no identity', { outcome: 'verified' }],
    ['an empty id', verified({ id: '' })],
    ['a number for an id', verified({ id: 42 as never })],
    ['an id without a scheme', verified({ id: 'secret' })],
    ['an id that is only a scheme', verified({ id: 'secret:' })],
    ['an id that looks like an address', verified({ id: 'ip:203.0.113.7' })],
    ['the same in capitals', verified({ id: 'IP:203.0.113.7' })],
    ['a long id', verified({ id: `x:${'secret'.repeat(200)}` })],
    ['an id with half a surrogate pair', verified({ id: 'x:\udfff' })],
    ['a kind there is none of', verified({ kind: 'secret' as never })],
    ['an anonymous kind', verified({ kind: 'anonymous' as never })],
    ['too much confidence', verified({ confidence: 1.01 })],
    ['no confidence', verified({ confidence: Number.NaN })],
    ['no reason', verified({ reason: 7 as never })],
    ['an empty tier', verified({ tier: '' })],
    ['a null tier', verified({ tier: null as never })],
    ['claims that are a list', verified({ claims: ['secret'] as never })],
    ['a proof that is a text', verified({ provesKey: 'false' as never })],
    ['an invalid credential without a challenge', { outcome: 'invalid', reason: 'r' }],
    [
      'a challenge that would split the response',
      { outcome: 'invalid', reason: 'r', challenge: 'Bearer\r\nX: secret' },
    ],
    ['a challenge that is empty', { outcome: 'invalid', reason: 'r', challenge: '' }],
    ['an outage without a reason', { outcome: 'unavailable' }],
  ])('%s', async (_what, verification) => {
    const expected = expect.objectContaining({ code: 'RAMPMETER_INVALID_IDENTITY' }) as unknown
    let thrown: unknown
    try {
      await identify([saying('of-the-app', verification)])
    } catch (error) {
      thrown = error
    }
    expect(thrown).toEqual(expected)
    expect((thrown as Error).message).toContain('"of-the-app"')
    expect((thrown as Error).message).not.toMatch(/secret|203\.0/)
    await expect(identify([saying('of-the-app', Promise.resolve(verification))])).rejects.toEqual(expected)
  })

  it('and what it may, at the edges', () => {
    for (const identity of [
      { id: `x:${'y'.repeat(1022)}` },
      { id: 'x:\n' },
      { id: 'sub:https://issuer.example|42|agent' },
      { id: 'x:😀', confidence: 0, kind: 'unknown' as const, reason: '' },
    ]) {
      expect(identify([saying('v', verified(identity))])).toMatchObject({ client: { id: identity.id } })
    }
  })
})
