// What makes a JWT access token good: one defect a test, over real HTTP, by the verifier that adds the least to it.

import { createHmac } from 'node:crypto'
import express from 'express'
import type { Request } from 'express'
import { exportSPKI, importJWK, type CryptoKey } from 'jose'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { AttemptLimit } from '../../src/attempts.ts'
import { bearer } from '../../src/identify/bearer.ts'
import type { TokenOptions } from '../../src/identify/tokens.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { opened, serve, tellDecision, type Served } from '../http/serve.ts'
import { audience, claims, createSigningKey, issuer, jwtOf, noon, noonSeconds, type SigningKey } from './issuer.ts'
import { unlimited } from './unlimited.ts'

let key: SigningKey
let stranger: SigningKey
let time = noon

beforeAll(async () => {
  key = await createSigningKey()
  stranger = await createSigningKey('ES256', key.jwk.kid)
})

beforeEach(() => {
  time = noon
})

const plain = (): TokenOptions => ({ issuer, audience, jwks: { keys: [key.jwk] }, now: () => time })

/** An API that wants nothing but a token that is good. */
async function api(options: Partial<TokenOptions> = {}, quota = 1000): Promise<Served> {
  const app = express()
  const limiter = rampmeter({
    identify: [bearer({ ...plain(), ...options })],
    policies: [],
    verification: { failures: { quota, window: '1m' } },
  })
  opened(limiter)
  app.use(limiter)
  app.use(tellDecision)
  return await serve(app)
}

async function show(served: Served, token: string) {
  return await served.ask('/', { headers: { authorization: `Bearer ${token}` } })
}

const challengeOf = (reason: string): string => `Bearer error="invalid_token", error_description="${reason}"`

describe('a good token', () => {
  it('names its client, who has proven no key', async () => {
    const { status, json } = await show(await api(), await key.sign({ ...claims, scope: 'a b' }))
    expect(status).toBe(200)
    expect(json.client).toMatchObject({
      id: 'sub:https://id.example.com|ann',
      kind: 'unknown',
      confidence: 0,
      provedBy: 'bearer',
      reasons: ['the token does not say who uses it'],
      claims: { sub: 'ann', scope: 'a b' },
    })
  })

  it.each(['ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519', 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'])(
    'may be signed with %s',
    async (alg) => {
      const other = await createSigningKey(alg)
      const served = await api({ jwks: { keys: [key.jwk, other.jwk] } })
      expect((await show(served, await other.sign(claims))).status).toBe(200)
    },
  )

  it.each(['at+jwt', 'AT+JWT', 'application/at+jwt', 'JWT', 'jwt', undefined])('may be of type %s', async (typ) => {
    expect((await show(await api(), await key.sign(claims, { typ }))).status).toBe(200)
  })

  it.each([
    ['with one of several issuers', { issuer: [issuer, 'https://other.example'] }, {}],
    ['for one of several audiences', { audience: ['https://other.example', audience] }, {}],
    ['for several, of which this is one', {}, { aud: ['https://other.example', audience] }],
    ['whose clock is a little ahead', {}, { nbf: noonSeconds + 5, iat: noonSeconds + 5 }],
    ['that expired within the tolerance', {}, { exp: noonSeconds - 4 }],
    ['that lives as long as it may', { maxLifetime: '1m' }, {}],
    ['whose cnf is null', {}, { cnf: null }],
    ['without a kid, of the only key', {}, {}],
    ['with scopes, by scope', { scopes: ['read'] }, { scope: 'write read' }],
    ['with scopes, by scp as a list', { scopes: ['read'] }, { scp: ['write', 'read'] }],
    ['with scopes, by scp as a text', { scopes: ['read', 'write'] }, { scp: 'write read' }],
  ] as const)('%s', async (_what, options, added) => {
    expect((await show(await api(options), await key.sign({ ...claims, ...added }))).status).toBe(200)
  })

  it('is verified once a minute, and not after it expired', async () => {
    let asked = 0
    const served = await api({
      async jwks() {
        asked += 1
        return (await importJWK(key.jwk)) as CryptoKey
      },
    })
    const token = await key.sign({ ...claims, exp: noonSeconds + 90 })
    for (let count = 0; count < 5; count += 1) expect((await show(served, token)).status).toBe(200)
    expect(asked).toBe(1)
    time += 59_999
    expect((await show(served, token)).status).toBe(200)
    expect(asked).toBe(1)
    time += 1
    expect((await show(served, token)).status).toBe(200)
    expect(asked).toBe(2)
    time = noon + 94_999
    expect((await show(served, token)).status).toBe(200)
    time = noon + 95_000
    const late = await show(served, token)
    expect(late.status).toBe(401)
    expect(late.headers['www-authenticate']).toBe(challengeOf('the token has expired'))
  })

  it('is good for a verifier that wants it so, also while another one looks at it', async () => {
    const attempts = new AttemptLimit({ quota: 20, windowMs: 60_000 }).of('ip:192.0.2.1')
    const [here, there] = [bearer(plain()), bearer({ ...plain(), audience: 'https://other.example' })]
    const authorization = `Bearer ${await key.sign(claims)}`
    const req = { headers: { authorization }, rawHeaders: ['Authorization', authorization] } as unknown as Request
    const answers = await Promise.all([here.verify(req, attempts), there.verify(req, attempts)])
    expect(answers).toMatchObject([{ outcome: 'verified' }, { outcome: 'invalid' }])
  })
})

interface Defect {
  readonly name: string
  readonly token: () => string | Promise<string>
  readonly reason: string
  readonly options?: Partial<TokenOptions>
}

const lived = { maxLifetime: '1m' } as const

const defects: readonly Defect[] = [
  ...['dpop+jwt', 'logout+jwt', 'id_token+jwt', 'oauth-client-attestation+jwt', ''].map((typ) => ({
    name: `is of type "${typ}"`,
    token: () => key.sign(claims, { typ }),
    reason: 'the token is no access token',
  })),
  {
    name: 'is of a type that is no text',
    token: async () => resigned({ alg: 'ES256', typ: 7, kid: key.jwk.kid }),
    reason: 'the token is no access token',
  },
  {
    name: 'is not signed',
    token: () => jwtOf({ alg: 'none' }, claims, ''),
    reason: 'the token is signed with an algorithm that is not accepted here',
  },
  {
    name: 'is signed with the public key as a shared secret',
    token: () => signedWithPublicKey(),
    reason: 'the token is signed with an algorithm that is not accepted here',
  },
  {
    name: 'is signed with an algorithm that was not allowed',
    token: () => key.sign(claims),
    options: { algorithms: ['RS256'] },
    reason: 'the token is signed with an algorithm that is not accepted here',
  },
  {
    name: 'has an alg that is no text',
    token: () => jwtOf({ alg: ['ES256'] }, claims),
    reason: 'the token is signed with an algorithm that is not accepted here',
  },
  {
    name: 'says another algorithm than its key is for',
    token: async () => resigned({ alg: 'ES384', kid: key.jwk.kid }),
    reason: 'the token is signed with a key that its issuer does not have',
  },
  {
    name: 'names a key that the issuer does not have',
    token: () => key.sign(claims, { kid: 'made up' }),
    reason: 'the token is signed with a key that its issuer does not have',
  },
  {
    name: 'names a key by a kid that is no text',
    token: async () => resigned({ alg: 'ES256', kid: 7 }),
    reason: 'the token is signed with a key that its issuer does not have',
  },
  {
    name: 'is signed by a stranger who took the name of the key',
    token: () => stranger.sign(claims),
    reason: "the token's signature is wrong",
  },
  {
    name: 'brings the key of a stranger along',
    token: () => stranger.sign(claims, { jwk: stranger.jwk, jku: 'https://evil.example/keys' }),
    reason: "the token's signature is wrong",
  },
  {
    name: 'was changed after it was signed',
    async token() {
      const [header, , signature] = (await key.sign(claims)).split('.')
      const payload = Buffer.from(JSON.stringify({ ...claims, sub: 'bob' })).toString('base64url')
      return `${header}.${payload}.${signature}`
    },
    reason: "the token's signature is wrong",
  },
  {
    name: 'has a signature with a space in it',
    token: async () => (await key.sign(claims)).replace(/.{9}$/, ' $&'),
    reason: 'the token cannot be read',
  },
  {
    name: 'has a signature with padding',
    token: async () => `${await key.sign(claims)}==`,
    reason: 'the token cannot be read',
  },
  {
    name: 'wants something understood that is not',
    token: async () => resigned({ alg: 'ES256', kid: key.jwk.kid, crit: ['exp'] }),
    reason: 'the token wants something understood that is not',
  },
  {
    name: 'is not UTF-8',
    token: () => key.sign(Buffer.from(JSON.stringify(claims).replace('ann', '\u00ff'), 'latin1')),
    reason: 'the token cannot be read',
  },
  {
    name: 'is for somebody else',
    token: () => with_({ aud: 'https://other.example' }),
    reason: 'the token is for somebody else',
  },
  { name: 'is for nobody', token: () => with_({ aud: undefined }), reason: 'the token is for somebody else' },
  { name: 'is for an empty list', token: () => with_({ aud: [] }), reason: 'the token is for somebody else' },
  {
    name: 'is for a place below this one',
    token: () => with_({ aud: `${audience}/admin` }),
    reason: 'the token is for somebody else',
  },
  { name: 'never expires', token: () => with_({ exp: undefined }), reason: 'the token does not say when it expires' },
  {
    name: 'expires at a text',
    token: () => with_({ exp: String(noonSeconds + 60) }),
    reason: 'the token does not say when it expires',
  },
  { name: 'has expired', token: () => with_({ exp: noonSeconds - 5 }), reason: 'the token has expired' },
  { name: 'is not valid yet', token: () => with_({ nbf: noonSeconds + 6 }), reason: 'the token is not valid yet' },
  { name: 'is valid from a text', token: () => with_({ nbf: 'now' }), reason: 'the token is not valid yet' },
  {
    name: 'was issued at a text',
    token: () => with_({ iat: 'now' }),
    reason: 'the token says wrongly when it was issued',
  },
  {
    name: 'lives too long',
    token: () => with_({ exp: noonSeconds + 61 }),
    options: lived,
    reason: 'the token lives longer than is accepted here',
  },
  {
    name: 'does not say how long it lives',
    token: () => with_({ iat: undefined }),
    options: lived,
    reason: 'the token lives longer than is accepted here',
  },
  {
    name: 'says that it will be issued, and so lives longer than it says',
    token: () => with_({ iat: noonSeconds + 3600, exp: noonSeconds + 3660 }),
    options: lived,
    reason: 'the token lives longer than is accepted here',
  },
  ...(
    [
      ['a DPoP key', { jkt: 'x' }],
      ['a certificate', { 'x5t#S256': 'x' }],
      ['both', { jkt: 'x', 'x5t#S256': 'x' }],
      ['a key that is written out', { jwk: { kty: 'EC' } }],
      ['a thumbprint that is no text', { jkt: 7 }],
      ['nothing that can be read', 'x'],
      ['an empty object', {}],
      ['an empty list', []],
      ['false', false],
    ] as const
  ).map(([what, cnf]) => ({
    name: `is bound to ${what}`,
    token: () => with_({ cnf }),
    reason: 'the token is bound to a key that was not shown',
  })),
  { name: 'names nobody', token: () => with_({ sub: undefined }), reason: 'the token names nobody' },
  { name: 'has an empty subject', token: () => with_({ sub: '' }), reason: 'the token names nobody' },
  { name: 'has a subject that is a number', token: () => with_({ sub: 7 }), reason: 'the token names nobody' },
  {
    name: 'has a subject that is a number, and a client with which others would share it',
    token: () => with_({ sub: 7, client_id: 'shop' }),
    reason: 'the token names nobody',
  },
  { name: 'has an endless subject', token: () => with_({ sub: 'a'.repeat(1000) }), reason: 'the token names nobody' },
  {
    name: 'has a subject with half a character',
    token: () => key.sign(Buffer.from(JSON.stringify(claims).replace('ann', '\\ud800'))),
    reason: 'the token names nobody',
  },
]

function with_(changes: object): Promise<string> {
  return key.sign({ ...claims, ...changes })
}

/** Signed rightly, with a header that jose would not write. */
async function resigned(header: object): Promise<string> {
  const [head, payload] = jwtOf(header, claims).split('.')
  const signed = Buffer.from(`${head}.${payload}`)
  const signature = await crypto.subtle.sign({ name: 'ECDSA', hash: 'SHA-256' }, key.privateKey, signed)
  return `${head}.${payload}.${Buffer.from(signature).toString('base64url')}`
}

async function signedWithPublicKey(): Promise<string> {
  const [head, payload] = jwtOf({ alg: 'HS256', kid: key.jwk.kid }, claims).split('.')
  const publicKey = (await importJWK({ ...key.jwk, ext: true }, 'ES256', { extractable: true })) as CryptoKey
  const secret = await exportSPKI(publicKey)
  return `${head}.${payload}.${createHmac('sha256', secret).update(`${head}.${payload}`).digest('base64url')}`
}

describe('a token is refused that', () => {
  it.each(defects.map((defect) => [defect.name, defect] as const))('%s', async (_name, defect) => {
    const served = await api(defect.options)
    const token = await defect.token()
    const { status, headers, body } = await show(served, token)
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toBe(challengeOf(defect.reason))
    for (const part of token.split('.').filter((part) => part.length > 8)) expect(body).not.toContain(part)
    // The same without the defect is good: it was that, and nothing else.
    expect((await show(await api(), await key.sign(claims))).status).toBe(200)
  })

  it('its algorithm has no key for here, in a set that has keys without alg', async () => {
    const { alg: _alg, ...jwk } = key.jwk
    const served = await api({ jwks: { keys: [jwk] } })
    const { status, headers } = await show(served, await resigned({ alg: 'ES384', kid: key.jwk.kid }))
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toBe(
      challengeOf('the token is signed with a key that its issuer does not have'),
    )
  })
})

describe('a token is passed over that', () => {
  it.each([
    ['is of another issuer', () => with_({ iss: 'https://other.example' })],
    ['is of an issuer with a slash more', () => with_({ iss: `${issuer}/` })],
    ['is of no issuer', () => with_({ iss: undefined })],
    ['is of a list of issuers', () => with_({ iss: [issuer] })],
    ['is opaque', () => 'mF_9.B5f-4.1JqM'],
    ['is encrypted', async () => `${await key.sign(claims)}.AAAA.AAAA`],
    ['has no signature part', async () => (await key.sign(claims)).split('.').slice(0, 2).join('.')],
    ['has a payload that is a list', () => key.sign([claims])],
    ['is empty', () => ''],
  ])('%s', async (_what, token) => {
    const { status, json } = await show(await api(), await token())
    expect(status).toBe(200)
    expect(json.client).toMatchObject({ kind: 'anonymous', provedBy: null })
  })

  it('is longer than any', async () => {
    const authorization = `Bearer ${await with_({ pad: 'x'.repeat(13_000) })}`
    const req = { headers: { authorization }, rawHeaders: ['Authorization', authorization] } as unknown as Request
    expect(authorization.length).toBeGreaterThan(16_400)
    expect(await bearer(plain()).verify(req, unlimited)).toEqual({ outcome: 'absent' })
  })

  it('is nested beyond reason', async () => {
    const nested = Buffer.from(`{"iss":"${issuer}","a":${'['.repeat(11_000)}`).toString('base64url')
    const head = Buffer.from('{"alg":"ES256"}').toString('base64url')
    expect((await show(await api(), `${head}.${nested}.AAAA`)).json.client).toMatchObject({ kind: 'anonymous' })
  })
})

describe('scopes', () => {
  const resourceMetadata = `${audience}/.well-known/oauth-protected-resource`

  it.each([
    ['none', {}],
    ['others', { scope: 'orders:readonly write' }],
    ['some', { scope: 'orders:read' }],
    ['what is no list', { scope: { 'orders:read': true } }],
  ])('that are lacking, from a token with %s, are asked for', async (_what, added) => {
    const served = await api({ scopes: ['orders:read', 'orders:write'], resourceMetadata }, 3)
    for (let count = 0; count < 5; count += 1) {
      // It is no failed proof: however many come, they are answered so.
      const { status, headers } = await show(served, await with_({ ...added, jti: count }))
      expect(status).toBe(403)
      expect(headers['www-authenticate']).toBe(
        `Bearer error="insufficient_scope", error_description="the token lacks a scope", scope="orders:read orders:write", resource_metadata="${resourceMetadata}"`,
      )
    }
  })

  it('are told to whoever comes with a wrong token, as MCP clients expect', async () => {
    const served = await api({ scopes: ['orders:read'], resourceMetadata })
    expect((await show(served, await stranger.sign(claims))).headers['www-authenticate']).toBe(
      `Bearer error="invalid_token", error_description="the token's signature is wrong", scope="orders:read", resource_metadata="${resourceMetadata}"`,
    )
  })
})

describe('what is counted as a failed proof', () => {
  it('is no token that its issuer signed and that came too late', async () => {
    const served = await api({}, 3)
    for (let count = 0; count < 6; count += 1) {
      expect((await show(served, await with_({ exp: noonSeconds - 60, jti: count }))).status).toBe(401)
    }
    expect((await show(served, await key.sign(claims))).status).toBe(200)
  })

  it('is each wrong token, once; then none is looked at, but those that were good before', async () => {
    const served = await api({}, 3)
    const good = await key.sign(claims)
    expect((await show(served, good)).status).toBe(200)
    const wrong = await stranger.sign(claims)
    for (let count = 0; count < 10; count += 1) expect((await show(served, wrong)).status).toBe(401)
    expect((await show(served, await stranger.sign(claims))).status).toBe(401)
    expect((await show(served, await stranger.sign(claims))).status).toBe(401)
    const turnedAway = await show(served, await key.sign({ ...claims, sub: 'bob' }))
    expect(turnedAway.status).toBe(429)
    expect(Number(turnedAway.headers['retry-after'])).toBeGreaterThan(50)
    expect((await show(served, good)).status).toBe(200)
  })
})

describe('the options', () => {
  it.each([
    ['no issuer', { issuer: '' }, 'RAMPMETER_INVALID_OPTION'],
    ['no audience', { audience: [] }, 'RAMPMETER_INVALID_OPTION'],
    ['a shared secret', { algorithms: ['HS256'] }, 'RAMPMETER_INVALID_OPTION'],
    ['no signature', { algorithms: ['none'] }, 'RAMPMETER_INVALID_OPTION'],
    ['a lifetime without a unit', { maxLifetime: '60' }, 'RAMPMETER_INVALID_DURATION'],
    ['a scope with a space', { scopes: ['a b'] }, 'RAMPMETER_INVALID_OPTION'],
    ['what does not exist', { audiance: audience }, 'RAMPMETER_UNKNOWN_OPTION'],
    ['metadata that is no URL', { resourceMetadata: '/.well-known' }, 'RAMPMETER_INVALID_OPTION'],
  ])('do not take %s', (_what, options, code) => {
    expect(() => bearer({ ...plain(), ...options } as TokenOptions)).toThrow(expect.objectContaining({ code }))
  })
})
