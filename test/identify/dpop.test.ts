// The checklist of RFC 9449 section 4.3, one test a line with exactly one defect each.

import type { Request } from 'express'
import fc from 'fast-check'
import { exportJWK, generateKeyPair } from 'jose'
import { describe, expect, it, vi } from 'vitest'
import { AttemptLimit } from '../../src/attempts.ts'
import { RampmeterError } from '../../src/errors.ts'
import { dpop, type DpopOptions } from '../../src/identify/dpop.ts'
import type { Verification, Verifier } from '../../src/identify/verifier.ts'
import { createHolder, type Holder, type ProofChanges } from './holder.ts'
import { audience, claims, createSigningKey, issuer, jwtOf, noon, noonSeconds, type SigningKey } from './issuer.ts'
import { unlimited } from './unlimited.ts'

const origin = 'https://api.example.com'

interface Scene {
  readonly key: SigningKey
  readonly holder: Holder
  readonly verifier: Verifier
  /** A token of the holder's. */
  readonly token: string
}

async function setScene(options: Partial<DpopOptions> = {}, claimed: Record<string, unknown> = {}): Promise<Scene> {
  const key = await createSigningKey()
  const holder = await createHolder()
  const verifier = dpop({ issuer, audience, jwks: { keys: [key.jwk] }, origin, now: () => noon, ...options })
  const token = await key.sign({ ...claims, client_id: 'ann', cnf: { jkt: holder.jkt }, ...claimed })
  return { key, holder, verifier, token }
}

interface Shown {
  readonly method?: string
  readonly url?: string
  readonly authorization?: string | readonly string[]
  readonly proofs?: readonly string[]
  readonly more?: object
}

function requestOf({ method = 'GET', url = '/a', authorization = [], proofs = [], more }: Shown): Request {
  const fields = [
    ...[authorization].flat().map((value) => ['Authorization', value]),
    ...proofs.map((value) => ['DPoP', value]),
  ]
  const headers: Record<string, string> = {}
  for (const [name, value] of fields) {
    const lower = name!.toLowerCase()
    if (headers[lower] === undefined) headers[lower] = value!
    else if (lower === 'dpop') headers[lower] += `, ${value}`
  }
  return { method, originalUrl: url, headers, rawHeaders: fields.flat(), ...more } as unknown as Request
}

/** Shows a token with a proof for `GET /a`, as the changes say. */
async function show(
  { holder, verifier, token }: Scene,
  changes: ProofChanges = {},
  shown: Shown = {},
): Promise<Verification> {
  const proof = await holder.prove('GET', `${origin}/a`, token, changes)
  return await verifier.verify(requestOf({ authorization: `DPoP ${token}`, proofs: [proof], ...shown }), unlimited)
}

function refusedWith(error: string): unknown {
  return expect.objectContaining({
    outcome: 'invalid',
    reason: expect.any(String),
    challenge: expect.stringMatching(
      new RegExp(`^DPoP error="${error}", error_description="[^"]+", algs="ES256 EdDSA Ed25519 RS256 PS256"$`),
    ),
  })
}

const invalidProof = refusedWith('invalid_dpop_proof')
const invalidToken = refusedWith('invalid_token')

describe('a token with its proof', () => {
  it('is verified, and may be shown once', async () => {
    const scene = await setScene()
    expect(await show(scene, { claims: { jti: 'one' } })).toEqual({
      outcome: 'verified',
      identity: {
        id: `sub:${issuer}|ann`,
        kind: 'agent',
        confidence: 0.8,
        reason: expect.any(String),
        provesKey: true,
        thumbprint: expect.stringMatching(/^[\w-]{43}$/),
        claims: expect.objectContaining({ sub: 'ann' }),
      },
      singleUses: [
        {
          name: expect.stringMatching(/^[\w-]{43}$/),
          lastsMs: 65_000,
          challenge: expect.stringMatching(/^DPoP error="invalid_dpop_proof"/),
        },
      ],
    })
  })

  it('is named by key, method, address and jti alone', async () => {
    const scene = await setScene()
    const nameOf = async (changes: ProofChanges, shown: Shown = {}): Promise<string> => {
      const verification = await show(scene, changes, shown)
      if (verification.outcome !== 'verified') throw new Error(verification.outcome)
      return verification.singleUses![0]!.name
    }
    const one = await nameOf({ claims: { jti: 'one' } })
    expect(await nameOf({ claims: { jti: 'one', iat: noonSeconds - 9, extra: 1 } })).toBe(one)
    expect(await nameOf({ claims: { jti: 'one', htu: `${origin}/%61?q=1` } }, { url: '/a?q=2' })).toBe(one)
    expect(await nameOf({ claims: { jti: 'two' } })).not.toBe(one)
    expect(await nameOf({ claims: { jti: 'one', htm: 'PUT' } }, { method: 'PUT' })).not.toBe(one)
    expect(await nameOf({ claims: { jti: 'one', htu: `${origin}/b` } }, { url: '/b' })).not.toBe(one)
  })

  it.each(['ES256', 'EdDSA', 'Ed25519', 'RS256', 'PS256'])('may be signed with %s', async (alg) => {
    const scene = await setScene()
    const holder = await createHolder(alg)
    const token = await scene.key.sign({ ...claims, cnf: { jkt: holder.jkt } })
    expect(await show({ ...scene, holder, token })).toMatchObject({ outcome: 'verified' })
    // And again, when the key is known.
    expect(await show({ ...scene, holder, token })).toMatchObject({ outcome: 'verified' })
  })

  it('may write its scheme in any case', async () => {
    const scene = await setScene()
    expect(await show(scene, {}, { authorization: `dpop ${scene.token}` })).toMatchObject({ outcome: 'verified' })
  })
})

describe('1: exactly one field with one JWT', () => {
  it('none', async () => {
    expect(await show(await setScene(), {}, { proofs: [] })).toEqual(invalidProof)
  })

  it('two, also where they are joined', async () => {
    const scene = await setScene()
    const proofs = await Promise.all([1, 2].map(() => scene.holder.prove('GET', `${origin}/a`, scene.token)))
    expect(await show(scene, {}, { proofs })).toEqual(invalidProof)
    expect(await show(scene, {}, { proofs: [proofs.join(', ')] })).toEqual(invalidProof)
  })

  it.each(['', 'x', 'a.b', '..', 'a.b.c', 'a.b.c.d', '{}', 'e30.e30.e30', 'WzFd.WzFd.AA', 'bnVsbA.bnVsbA.AA'])(
    '%j',
    async (proof) => {
      expect(await show(await setScene(), {}, { proofs: [proof] })).toEqual(invalidProof)
    },
  )

  it('too long a one', async () => {
    expect(await show(await setScene(), { claims: { filler: 'x'.repeat(9000) } })).toEqual(invalidProof)
  })
})

it.each(['JWT', 'at+jwt', 'DPoP+JWT', 'application/dpop+jwt', undefined, 7])('2: typ %j', async (typ) => {
  expect(await show(await setScene(), { header: { typ } })).toEqual(invalidProof)
})

describe('3: an asymmetric algorithm of the list', () => {
  it.each(['none', 'HS256', 'RS384', 'ES256K', undefined, 7, null])('%j', async (alg) => {
    const scene = await setScene()
    const { jwk } = scene.holder
    const said = { jti: '1', htm: 'GET', htu: `${origin}/a`, iat: noonSeconds }
    expect(await show(scene, {}, { proofs: [jwtOf({ typ: 'dpop+jwt', alg, jwk }, said)] })).toEqual(invalidProof)
  })

  it('one that the options leave out', async () => {
    const scene = await setScene({ proofAlgorithms: ['PS256'] })
    expect(await show(scene)).toMatchObject({ outcome: 'invalid', challenge: expect.stringContaining('algs="PS256"') })
  })

  it('another than the key is for', async () => {
    const scene = await setScene()
    const { jwk } = await createHolder('RS256')
    expect(await show(scene, { header: { jwk } })).toEqual(invalidProof)
  })
})

describe('4: a public key', () => {
  it.each(['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'])('with the private member %s', async (member) => {
    const scene = await setScene()
    expect(await show(scene, { header: { jwk: { ...scene.holder.jwk, [member]: 'AA' } } })).toEqual(invalidProof)
  })

  it.each([
    undefined,
    null,
    'x',
    7,
    [],
    {},
    { kty: 'oct', k: 'AA' },
    { kty: 'EC' },
    { kty: 'EC', crv: 'P-256', x: 'AA', y: 'AA' },
    { kty: 'XX' },
  ])('not %j', async (jwk) => {
    expect(await show(await setScene(), { header: { jwk } })).toEqual(invalidProof)
  })

  it.each([
    ['modulus', { n: 'u'.repeat(1367), e: 'AQAB' }],
    ['exponent', { n: 'u'.repeat(342), e: 'u'.repeat(9) }],
  ])('not one whose %s makes a signature cost a hundred others', async (_what, members) => {
    expect(await show(await setScene(), { header: { jwk: { kty: 'RSA', ...members } } })).toMatchObject({
      outcome: 'invalid',
      reason: 'the proof does not carry a public key',
    })
  })

  it('not a weak one', async () => {
    const scene = await setScene()
    const { publicKey, privateKey } = await crypto.subtle.generateKey(
      { name: 'RSASSA-PKCS1-v1_5', modulusLength: 1024, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-256' },
      true,
      ['sign', 'verify'],
    )
    const jwk = await exportJWK(publicKey)
    const head = Buffer.from(JSON.stringify({ typ: 'dpop+jwt', alg: 'RS256', jwk })).toString('base64url')
    const text = `${head}.${(await scene.holder.prove('GET', `${origin}/a`, scene.token)).split('.')[1]}`
    const signature = await crypto.subtle.sign('RSASSA-PKCS1-v1_5', privateKey, Buffer.from(text))
    const proof = `${text}.${Buffer.from(signature).toString('base64url')}`
    expect(await show(scene, {}, { proofs: [proof] })).toEqual(invalidProof)
  })
})

describe('5: its claims', () => {
  it.each([
    ['jti', undefined],
    ['jti', 7],
    ['jti', ''],
    ['jti', 'x'.repeat(513)],
    ['htm', undefined],
    ['htm', ['GET']],
    ['htu', undefined],
    ['htu', 7],
    ['iat', undefined],
    ['iat', String(noonSeconds)],
    ['iat', null],
    ['ath', undefined],
    ['ath', 7],
  ])('%s: %j', async (claim, value) => {
    expect(await show(await setScene(), { claims: { [claim]: value } })).toEqual(invalidProof)
  })

  it('a jti of 512 characters', async () => {
    expect(await show(await setScene(), { claims: { jti: 'x'.repeat(512) } })).toMatchObject({ outcome: 'verified' })
  })

  it.each([
    [{ exp: noonSeconds - 5 }, invalidProof],
    [{ exp: 'later' }, invalidProof],
    [{ nbf: noonSeconds + 6 }, invalidProof],
    [{ nbf: 'now' }, invalidProof],
    [{ exp: noonSeconds - 4, nbf: noonSeconds + 5 }, expect.objectContaining({ outcome: 'verified' })],
  ])('what it says itself of when it holds: %j', async (more, answer: unknown) => {
    expect(await show(await setScene(), { claims: more })).toEqual(answer)
  })

  it('a critical extension that is not understood', async () => {
    const scene = await setScene()
    const { jwk } = scene.holder
    const proof = jwtOf({ typ: 'dpop+jwt', alg: 'ES256', jwk, crit: ['x'], x: 1 }, { jti: '1' })
    expect(await show(scene, {}, { proofs: [proof] })).toMatchObject({ reason: expect.stringContaining('understood') })
  })
})

it.each(['get', 'POST', 'GET '])('6: htm %j for GET', async (htm) => {
  expect(await show(await setScene(), { claims: { htm } })).toEqual(invalidProof)
})

describe('7: htu', () => {
  it.each([
    ['https://api.example.com/a', '/a'],
    ['https://api.example.com/a', '/a?b=c'],
    ['https://api.example.com/a?b=c', '/a'],
    ['https://api.example.com/a#x', '/a'],
    ['HTTPS://API.Example.COM:443/a', '/a'],
    ['https://api.example.com/%7Ea', '/~a'],
    ['https://api.example.com/~a', '/%7ea'],
    ['https://api.example.com/a%2fb', '/a%2Fb'],
    ['https://api.example.com/x/../a', '/a'],
    ['https://api.example.com/a', '/./a'],
    ['https://api.example.com', '/'],
    ['https://api.example.com/', 'https://elsewhere.example/'],
    ['https://api.example.com/a', 'http://elsewhere.example/a?b'],
    ['https://api.example.com/', 'http://elsewhere.example'],
    ['https://api.example.com/a|b', '/a|b'],
    ['https://api.example.com/a%7Cb', '/a|b'],
  ])('%s for %s', async (htu, url) => {
    expect(await show(await setScene(), { claims: { htu } }, { url })).toMatchObject({ outcome: 'verified' })
  })

  it.each([
    ['http://api.example.com/a', '/a'],
    ['https://api.example.com:8443/a', '/a'],
    ['https://api.example.com.evil.example/a', '/a'],
    ['https://evil.example/a', '/a'],
    ['https://user@api.example.com/a', '/a'],
    ['https://@api.example.com/a', '/a'],
    ['https://api.example.com/A', '/a'],
    ['https://api.example.com/a/', '/a'],
    ['https://api.example.com/a/b', '/a%2Fb'],
    ['https://api.example.com\\a', '/a'],
    ['https:\\\\api.example.com/a', '/a'],
    ['https:api.example.com/a', '/a'],
    ['https:///api.example.com/a', '/a'],
    ['https://api.example.com/\ta', '/a'],
    [' https://api.example.com/a', '/a'],
    ['//api.example.com/a', '/a'],
    ['/a', '/a'],
    ['', '/a'],
    ['https://api.example.com/ä', '/%C3%A4'],
  ])('not %s for %s', async (htu, url) => {
    expect(await show(await setScene(), { claims: { htu } }, { url })).toEqual(invalidProof)
  })

  it('is compared with what is configured, not with Host', async () => {
    const scene = await setScene()
    const more = { headers: { host: 'evil.example', authorization: 'x', dpop: 'x' } }
    const req = (proof: string): Request =>
      requestOf({ authorization: `DPoP ${scene.token}`, proofs: [proof], more: { hostname: 'evil.example', ...more } })
    const forEvil = await scene.holder.prove('GET', 'https://evil.example/a', scene.token)
    expect(await scene.verifier.verify(req(forEvil), unlimited)).toEqual(invalidProof)
    const forUs = await scene.holder.prove('GET', `${origin}/a`, scene.token)
    expect(await scene.verifier.verify(req(forUs), unlimited)).toMatchObject({ outcome: 'verified' })
  })

  it('may have one of several origins, and a path that a proxy takes away', async () => {
    const scene = await setScene({ origin: ['https://one.example', 'https://two.example/v1/'] })
    const outcomes = await Promise.all(
      ['https://one.example/a', 'https://two.example/v1/a', 'https://two.example/a', 'https://one.example/v1/a'].map(
        async (htu) => (await show(scene, { claims: { htu } })).outcome,
      ),
    )
    expect(outcomes).toEqual(['verified', 'verified', 'invalid', 'invalid'])
  })
})

it.each([
  [-60, 'invalid'],
  [-59, 'verified'],
  [0, 'verified'],
  [5, 'verified'],
  [6, 'invalid'],
  [1e300, 'invalid'],
  [-1e300, 'invalid'],
])('8: iat %d s from now is %s', async (seconds, outcome) => {
  expect(await show(await setScene(), { claims: { iat: noonSeconds + seconds } })).toMatchObject({ outcome })
})

it('9: ath of another token', async () => {
  const scene = await setScene()
  const other = await scene.key.sign({ ...claims, jti: 'other', cnf: { jkt: scene.holder.jkt } })
  expect(await show(scene, {}, { authorization: `DPoP ${other}` })).toEqual(invalidProof)
})

it('10: the proof of another key', async () => {
  const scene = await setScene()
  const thief = await createHolder()
  const proof = await thief.prove('GET', `${origin}/a`, scene.token)
  expect(await show(scene, {}, { proofs: [proof] })).toEqual(invalidProof)
})

describe('11: the signature', () => {
  it('of another key than the one shown', async () => {
    const { privateKey } = await generateKeyPair('ES256')
    expect(await show(await setScene(), { signedBy: privateKey })).toEqual(invalidProof)
  })

  it('of other claims', async () => {
    const scene = await setScene()
    const [head, body] = (await scene.holder.prove('GET', `${origin}/a`, scene.token)).split('.')
    const other = (await scene.holder.prove('GET', `${origin}/a`, scene.token)).split('.')[2]
    expect(await show(scene, {}, { proofs: [`${head}.${body}.${other}`] })).toEqual(invalidProof)
  })

  it('is not verified for a proof that is wrong anyway, nor for a wrong token', async () => {
    const scene = await setScene()
    const verify = vi.spyOn(crypto.subtle, 'verify')
    try {
      await show(scene, { claims: { htm: 'PUT' } })
      expect(verify).toHaveBeenCalledTimes(0)
      await show(scene, {}, { authorization: `DPoP ${jwtOf({ alg: 'none' }, claims)}` })
      expect(verify).toHaveBeenCalledTimes(0)
      const [head, body] = scene.token.split('.')
      const forged = `${head}.${body}.${'A'.repeat(86)}`
      const proof = await scene.holder.prove('GET', `${origin}/a`, forged)
      await show(scene, {}, { authorization: `DPoP ${forged}`, proofs: [proof] })
      // The token's alone.
      expect(verify).toHaveBeenCalledTimes(1)
    } finally {
      verify.mockRestore()
    }
  })
})

describe('12: the scheme', () => {
  it('Bearer with a bound token is refused, not downgraded', async () => {
    const scene = await setScene()
    expect(await show(scene, {}, { authorization: `Bearer ${scene.token}` })).toEqual(invalidToken)
    expect(await show(scene, {}, { authorization: `Bearer ${scene.token}`, proofs: [] })).toEqual(invalidToken)
  })

  it('Bearer with a token that is bound to nothing, or to a certificate, is left to others', async () => {
    const scene = await setScene()
    for (const cnf of [undefined, { 'x5t#S256': 'x' }]) {
      const token = await scene.key.sign({ ...claims, cnf })
      expect(await show(scene, {}, { authorization: `Bearer ${token}` })).toEqual({ outcome: 'absent' })
    }
  })

  it('twice is 400', async () => {
    const scene = await setScene()
    for (const authorization of [
      [`DPoP ${scene.token}`, `Bearer ${scene.token}`],
      [`DPoP ${scene.token}`, `DPoP ${scene.token}`],
    ]) {
      expect(await show(scene, {}, { authorization })).toMatchObject({
        outcome: 'invalid',
        status: 400,
        challenge: expect.stringContaining('error="invalid_request"'),
      })
    }
  })

  it.each([
    'DPoP',
    'DPoP ',
    'DPoP "opaque"',
    'DPoP a b',
    'DPoP a, Digest b',
    'DPoP a, Bearer b',
    'Bearer a, DPoP b',
    'bearer a,dpop b',
  ])('%j is 400: it is no token, whoever reads it', async (authorization) => {
    expect(await show(await setScene(), {}, { authorization })).toMatchObject({
      outcome: 'invalid',
      status: 400,
      counts: false,
      challenge: expect.stringContaining('error="invalid_request"'),
    })
  })

  it.each(['Basic eDp5', 'DPoP opaque', 'Digest x', 'Digest a="b", Bearer c', 'Bearer a, b', ''])(
    '%j is left to others',
    async (authorization) => {
      expect(await show(await setScene(), {}, { authorization })).toEqual({ outcome: 'absent' })
    },
  )

  it('without a token is left to others, also with a proof', async () => {
    expect(await show(await setScene(), {}, { authorization: [] })).toEqual({ outcome: 'absent' })
  })

  it('of another issuer is left to others', async () => {
    const scene = await setScene()
    const token = await scene.key.sign({ ...claims, iss: 'https://other.example', cnf: { jkt: scene.holder.jkt } })
    expect(await show({ ...scene, token })).toEqual({ outcome: 'absent' })
  })

  it.each([[{}], [{ cnf: { jkt: 7 } }], [{ cnf: 'x' }], [{ cnf: { 'x5t#S256': 'x' } }], [{ cnf: {} }]])(
    'DPoP with a token that is bound to no key: %j',
    async (more) => {
      const scene = await setScene()
      const token = await scene.key.sign({ ...claims, ...more })
      expect(await show({ ...scene, token })).toEqual(invalidToken)
    },
  )

  it('DPoP with a token that is bound to more than is shown', async () => {
    const scene = await setScene()
    for (const more of [{ kid: '1' }, { 'x5t#S256': 'of a certificate' }]) {
      const token = await scene.key.sign({ ...claims, cnf: { jkt: scene.holder.jkt, ...more } })
      expect(await show({ ...scene, token })).toEqual(invalidToken)
    }
  })
})

describe('13: nonces', () => {
  const nonceOf = (verification: Verification): string => verification.fields!['DPoP-Nonce']!

  it('are not spoken of unless asked for', async () => {
    const verification = await show(await setScene(), { claims: { nonce: 'whatever' } })
    expect(verification).toMatchObject({ outcome: 'verified' })
    expect(verification.fields).toBeUndefined()
  })

  it('that are required are asked for, given with every answer, and good for a while', async () => {
    let now = noon
    const scene = await setScene({ nonce: 'require', now: () => now })
    const asked = await show(scene)
    expect(asked).toEqual(refusedWith('use_dpop_nonce'))
    expect(asked).toMatchObject({ counts: false })
    const nonce = nonceOf(asked)
    const answer = await show(scene, { claims: { nonce } })
    expect(answer).toMatchObject({ outcome: 'verified' })
    expect(nonceOf(answer)).toBe(nonce)
    for (const wrong of ['', 'x', 7, `${nonce}x`, nonce.toLowerCase()]) {
      expect(await show(scene, { claims: { nonce: wrong } })).toEqual(refusedWith('use_dpop_nonce'))
    }
    now = noon + 30_000
    const later = await show(scene, { claims: { nonce } })
    expect(later).toMatchObject({ outcome: 'verified' })
    expect(nonceOf(later)).not.toBe(nonce)
    now = noon - 30_000
    expect(await show(scene, { claims: { nonce, iat: noonSeconds - 30 } })).toMatchObject({ outcome: 'verified' })
    now = noon + 60_000
    expect(await show(scene, { claims: { nonce, iat: noonSeconds + 60 } })).toEqual(refusedWith('use_dpop_nonce'))
  })

  it('that are offered need not be taken, but not another', async () => {
    const scene = await setScene({ nonce: 'offer' })
    const without = await show(scene)
    expect(without).toMatchObject({ outcome: 'verified' })
    expect(await show(scene, { claims: { nonce: nonceOf(without) } })).toMatchObject({ outcome: 'verified' })
    expect(await show(scene, { claims: { nonce: 'another' } })).toEqual(refusedWith('use_dpop_nonce'))
  })

  it('are those of whoever has the same secret, the old one too', async () => {
    const scene = await setScene({ nonce: 'offer' })
    const [old, current, other] = [
      'an old secret, long enough',
      'a new secret, long enough',
      'of somebody else entirely',
    ]
    const given = async (...secrets: string[]): Promise<string> =>
      nonceOf(await show({ ...scene, verifier: scene.verifier.withSecrets!(secrets) }))
    const takes = async (nonce: string, ...secrets: string[]): Promise<boolean> => {
      const verification = await show(
        { ...scene, verifier: scene.verifier.withSecrets!(secrets) },
        { claims: { nonce } },
      )
      return verification.outcome === 'verified'
    }
    expect(await given(old)).toBe(await given(old))
    expect(await given(current, old)).toBe(await given(current))
    expect(await takes(await given(old), current, old)).toBe(true)
    expect(await takes(await given(current), old)).toBe(false)
    expect(await takes(await given(other), current, old)).toBe(false)
  })
})

describe('the token itself', () => {
  it('that has expired is refused and does not count', async () => {
    const scene = await setScene({}, { exp: noonSeconds - 6 })
    const verification = await show(scene)
    expect(verification).toMatchObject({
      outcome: 'invalid',
      counts: false,
      challenge: expect.stringContaining('DPoP error="invalid_token"'),
    })
  })

  it('that lacks a scope is 403 and does not count', async () => {
    const scene = await setScene({ scopes: ['read', 'write'] }, { scope: 'read' })
    expect(await show(scene)).toMatchObject({
      outcome: 'invalid',
      status: 403,
      counts: false,
      challenge: expect.stringMatching(/^DPoP error="insufficient_scope".*scope="read write"/),
    })
  })

  it('names the metadata of the resource in every challenge', async () => {
    const scene = await setScene({ resourceMetadata: 'https://api.example.com/.well-known/oauth-protected-resource' })
    const metadata = 'resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"'
    expect(await show(scene, {}, { proofs: [] })).toMatchObject({ challenge: expect.stringContaining(metadata) })
    expect(scene.verifier.stepUp).toEqual({ challenge: `DPoP algs="ES256 EdDSA Ed25519 RS256 PS256", ${metadata}` })
  })
})

describe('failed proofs', () => {
  it('are counted by what is wrong: twenty requests with one wrong token are one', async () => {
    const scene = await setScene()
    const limit = new AttemptLimit({ quota: 5, windowMs: 60_000 })
    const [head, body] = scene.token.split('.')
    const forged = `${head}.${body}.${'A'.repeat(86)}`
    const attempts = Array.from({ length: 20 }, () => limit.of('ip:192.0.2.1'))
    const outcomes = await Promise.all(
      attempts.map(async (one) => {
        const proof = await scene.holder.prove('GET', `${origin}/a`, forged)
        return (await scene.verifier.verify(requestOf({ authorization: `DPoP ${forged}`, proofs: [proof] }), one))
          .outcome
      }),
    )
    expect(new Set(outcomes)).toEqual(new Set(['invalid']))
    expect(attempts.reduce((sum, { failures }) => sum + failures, 0)).toBe(1)
  })

  it('end in being told to wait, while whoever holds a good one is served on', async () => {
    const scene = await setScene()
    const limit = new AttemptLimit({ quota: 5, windowMs: 60_000 })
    const ask = async (who: Scene, changes: ProofChanges = {}): Promise<Verification> => {
      const proof = await who.holder.prove('GET', `${origin}/a`, who.token, changes)
      return await who.verifier.verify(
        requestOf({ authorization: `DPoP ${who.token}`, proofs: [proof] }),
        limit.of('ip:192.0.2.1'),
      )
    }
    expect(await ask(scene)).toMatchObject({ outcome: 'verified' })
    const { privateKey } = await generateKeyPair('ES256')
    const stranger = { ...scene, holder: await createHolder() }
    const strangers = {
      ...stranger,
      token: await scene.key.sign({ ...claims, jti: 's', cnf: { jkt: stranger.holder.jkt } }),
    }
    for (let index = 0; index < 5; index += 1) {
      expect(await ask(strangers, { signedBy: privateKey })).toMatchObject({ outcome: 'invalid' })
    }
    expect(await ask(strangers)).toEqual({ outcome: 'limited', retryAfterMs: expect.any(Number) })
    expect(await ask(scene)).toMatchObject({ outcome: 'verified' })
    // Half of a good credential buys as many tries, not tries without end.
    for (let index = 0; index < 5; index += 1) {
      expect(await ask(scene, { signedBy: privateKey })).toMatchObject({ outcome: 'invalid' })
    }
    expect(await ask(scene, { signedBy: privateKey })).toMatchObject({ outcome: 'limited' })
  })
})

describe('whatever comes', () => {
  it('ends in an answer, never in a throw', async () => {
    const scene = await setScene({ nonce: 'offer' })
    const good = await scene.holder.prove('GET', `${origin}/a`, scene.token)
    const text = fc.oneof(
      fc.string({ maxLength: 60 }),
      fc.string({ unit: 'binary', maxLength: 60 }),
      fc.constantFrom(good, scene.token, `${good}.`, good.slice(1), good.slice(0, -4)),
      fc.array(fc.base64String({ maxLength: 40 }), { maxLength: 5 }).map((parts) => parts.join('.')),
      fc.tuple(fc.json(), fc.json()).map(([head, body]) => {
        const encode = (part: string): string => Buffer.from(part).toString('base64url')
        return `${encode(head)}.${encode(body)}.AA`
      }),
      fc
        .record({
          typ: fc.constant('dpop+jwt'),
          alg: fc.constantFrom('ES256', 'RS256', 'EdDSA'),
          jwk: fc.oneof(fc.anything(), fc.constant(scene.holder.jwk)),
        })
        .chain((head) =>
          fc
            .dictionary(
              fc.constantFrom('jti', 'htm', 'htu', 'iat', 'ath', 'nonce'),
              fc.oneof(fc.anything(), fc.constantFrom('GET', `${origin}/a`, noonSeconds)),
            )
            .map((body) => {
              const encode = (part: unknown): string => Buffer.from(JSON.stringify(part) ?? '').toString('base64url')
              try {
                return `${encode(head)}.${encode(body)}.AA`
              } catch {
                return ''
              }
            }),
        ),
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(text, { maxLength: 3 }),
        fc.constantFrom('DPoP', 'Bearer', 'dpop', 'X'),
        fc.oneof(text, fc.constant(scene.token)),
        async (proofs, scheme, token) => {
          const verification = await scene.verifier.verify(
            requestOf({ authorization: `${scheme} ${token}`, proofs }),
            unlimited,
          )
          expect(['absent', 'invalid', 'verified']).toContain(verification.outcome)
          if (verification.outcome === 'invalid') expect(verification.challenge).toMatch(/^DPoP [\x20-\x7e]+$/)
        },
      ),
    )
  })
})

describe('options', () => {
  const right = { issuer, audience, jwks: 'https://id.example.com/keys', origin }
  it.each<[string, object]>([
    ['RAMPMETER_INVALID_OPTION', { ...right, origin: undefined }],
    ['RAMPMETER_INVALID_OPTION', { ...right, origin: 'api.example.com' }],
    ['RAMPMETER_INVALID_OPTION', { ...right, origin: [] }],
    ['RAMPMETER_INVALID_OPTION', { ...right, nonce: true }],
    ['RAMPMETER_INVALID_OPTION', { ...right, proofAlgorithms: ['HS256'] }],
    ['RAMPMETER_INVALID_OPTION', { ...right, jwks: 'http://id.example.com/keys' }],
    ['RAMPMETER_INVALID_OPTION', { ...right, issuer: undefined }],
    ['RAMPMETER_INVALID_DURATION', { ...right, window: 'soon' }],
    ['RAMPMETER_UNKNOWN_OPTION', { ...right, windows: '60s' }],
  ])('%s', (code, options) => {
    expect(() => dpop(options as never)).toThrow(RampmeterError)
    expect(() => dpop(options as never)).toThrow(code)
  })

  it('are enough', () => {
    expect(dpop(right)).toMatchObject({ name: 'dpop' })
    expect(dpop(right)).not.toHaveProperty('withSecrets')
    expect(dpop({ ...right, nonce: 'offer' })).toHaveProperty('withSecrets')
  })
})
