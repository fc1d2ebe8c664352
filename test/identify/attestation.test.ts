import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { generateProof, generateKeyPair as generateDpopKeyPair } from 'dpop'
import express, { type Request } from 'express'
import fc from 'fast-check'
import { calculateJwkThumbprint, exportJWK } from 'jose'
import { beforeAll, describe, expect, it } from 'vitest'
import { AttemptLimit } from '../../src/attempts.ts'
import { attestation, type AttestationOptions } from '../../src/identify/attestation.ts'
import type { Verification, Verifier } from '../../src/identify/verifier.ts'
import { createSigningKey, jwtOf, noon, noonSeconds, type SigningKey } from './issuer.ts'
import { unlimited } from './unlimited.ts'

const resource = 'https://api.example.com'
const attester = 'https://attester.example.com'

let attesterKey: SigningKey
let clientKey: SigningKey
let strangersKey: SigningKey
/** The client's public key as an attestation carries it. */
let jwk: object
let privateJwk: Record<string, unknown>
let jkt: string

beforeAll(async () => {
  ;[attesterKey, clientKey, strangersKey] = await Promise.all([
    createSigningKey(),
    createSigningKey('ES256', 'client'),
    createSigningKey('ES256', 'stranger'),
  ])
  const { kty, crv, x, y } = clientKey.jwk
  jwk = { kty, crv, x, y }
  privateJwk = { ...(await exportJWK(clientKey.privateKey)) }
  jkt = await calculateJwkThumbprint(jwk)
})

const attestationType = 'oauth-client-attestation+jwt'
const popType = 'oauth-client-attestation-pop+jwt'

/** A good attestation, with one thing otherwise. */
function attest(otherwise: object = {}, header: object = {}, key = attesterKey): Promise<string> {
  const claims = {
    iss: attester,
    sub: 'agent-7',
    iat: noonSeconds - 60,
    exp: noonSeconds + 3600,
    cnf: { jwk },
    ...otherwise,
  }
  return key.sign(claims, { typ: attestationType, ...header })
}

let proofs = 0

/** A good proof of possession, with one thing otherwise. */
function prove(otherwise: object = {}, header: object = {}, key = clientKey): Promise<string> {
  const claims = { aud: resource, jti: `proof-${(proofs += 1)}`, iat: noonSeconds, ...otherwise }
  return key.sign(claims, { typ: popType, kid: undefined, ...header })
}

type Field = [name: string, value: string]

/** A request as Node makes it of these fields. */
function requestOf(...fields: Field[]): Request {
  const headers: Record<string, string> = {}
  for (const [name, value] of fields) headers[name.toLowerCase()] ??= value
  return { method: 'GET', originalUrl: '/orders?page=2', headers, rawHeaders: fields.flat() } as unknown as Request
}

const attested = (jwt: string): Field => ['OAuth-Client-Attestation', jwt]
const proven = (jwt: string): Field => ['OAuth-Client-Attestation-PoP', jwt]

async function goodFields(): Promise<Field[]> {
  return [attested(await attest()), proven(await prove())]
}

interface Clock {
  at: number
}

function verifierOf(options: Partial<AttestationOptions> = {}, clock: Clock = { at: noon }): Verifier {
  return attestation({ resource, jwks: { keys: [attesterKey.jwk] }, now: () => clock.at, ...options })
}

async function verify(fields: Field[], options?: Partial<AttestationOptions>, clock?: Clock): Promise<Verification> {
  return await verifierOf(options, clock).verify(requestOf(...fields), unlimited)
}

const refusal = (reason: string, error = 'invalid_client_attestation') => ({
  outcome: 'invalid',
  reason,
  challenge: `Bearer error="${error}", error_description="${reason}"`,
})

describe('an attestation with its proof of possession', () => {
  it('proves a client that holds a key', async () => {
    expect(await verify(await goodFields())).toEqual({
      outcome: 'verified',
      identity: {
        id: `sub:${attester}|agent-7`,
        kind: 'agent',
        confidence: 0.9,
        reason: 'a trusted attester vouches for the runtime of the client',
        provesKey: true,
        thumbprint: expect.stringMatching(/^[\w-]{43}$/) as string,
        claims: { attested: expect.objectContaining({ sub: 'agent-7', iss: attester }) as object },
      },
      secondary: true,
      singleUses: [
        {
          name: expect.stringMatching(/^[\w-]{43}$/) as string,
          lastsMs: 65_000,
          challenge: refusal('the proof of possession was used before').challenge,
        },
      ],
    })
  })

  it.each(['ES256', 'EdDSA', 'Ed25519', 'RS256', 'PS256'])('may be signed with %s', async (alg) => {
    const [byAttester, byClient] = await Promise.all([createSigningKey(alg), createSigningKey(alg)])
    const { kty, crv, x, y, n, e } = byClient.jwk
    const fields = [
      attested(await attest({ cnf: { jwk: { kty, crv, x, y, n, e } } }, {}, byAttester)),
      proven(await prove({}, {}, byClient)),
    ]
    expect(await verify(fields, { jwks: { keys: [byAttester.jwk] } })).toMatchObject({ outcome: 'verified' })
  })

  it('may be used for many requests, with a proof each', async () => {
    const verifier = verifierOf()
    const jwt = await attest()
    const names = new Set<string>()
    for (let request = 0; request < 3; request += 1) {
      const answer = await verifier.verify(requestOf(attested(jwt), proven(await prove())), unlimited)
      for (const { name } of (answer as Verification & { outcome: 'verified' }).singleUses!) names.add(name)
    }
    expect(names.size).toBe(3)
  })

  it('has a proof whose name is the same whenever it is shown, and another for another key', async () => {
    const fields = [attested(await attest()), proven(await prove({ jti: 'same' }))]
    const { kty, crv, x, y } = strangersKey.jwk
    const others = [
      attested(await attest({ cnf: { jwk: { kty, crv, x, y } } })),
      proven(await prove({ jti: 'same' }, {}, strangersKey)),
    ]
    const nameOf = async (shown: Field[]): Promise<string> =>
      ((await verify(shown)) as Verification & { outcome: 'verified' }).singleUses![0]!.name
    expect(await nameOf(fields)).toBe(await nameOf(fields))
    expect(await nameOf(others)).not.toBe(await nameOf(fields))
  })

  it('is one audience, as a text or alone in a list', async () => {
    const proof = (aud: unknown) => prove({ aud })
    expect((await verify([attested(await attest()), proven(await proof([resource]))])).outcome).toBe('verified')
    const several = { resource: ['https://else.example', resource] }
    expect((await verify([attested(await attest()), proven(await proof(resource))], several)).outcome).toBe('verified')
  })
})

describe('who it is', () => {
  it.each<[string, object, Partial<AttestationOptions>, string]>([
    ['the iss claim names the attester', {}, {}, `sub:${attester}|agent-7`],
    ['else the option', { iss: undefined }, { attester: 'factory' }, 'sub:factory|agent-7'],
    ['else nothing does', { iss: undefined }, {}, 'sub:attester|agent-7'],
    ['no subject is taken for an agent of another', { sub: 'ann|agent' }, {}, `sub:${attester}|ann|agent|self`],
  ])('%s', async (_what, otherwise, options, id) => {
    const fields = [attested(await attest(otherwise)), proven(await prove())]
    expect(await verify(fields, options)).toMatchObject({ outcome: 'verified', identity: { id } })
  })

  it.each([
    ['a subject that is too long', { sub: 'x'.repeat(1000) }],
    ['an attester that is too long', { iss: 'x'.repeat(1020) }],
    ['a subject that is no well-formed text', { sub: '\ud800' }],
    ['an attester that is no well-formed text', { iss: '\ud800' }],
  ])('%s is nobody', async (_what, otherwise) => {
    expect(await verify([attested(await attest(otherwise)), proven(await prove())])).toEqual(
      refusal('the attestation names nobody'),
    )
  })
})

describe('what is not its own is passed over:', () => {
  it.each<[string, () => Promise<Field[]>, Partial<AttestationOptions>]>([
    ['no attestation', async () => [['Host', 'api.example.com']], {}],
    ['a proof alone', async () => [proven(await prove())], {}],
    ['another attester', goodFields, { issuer: 'https://else.example' }],
    [
      'nobody named, where one is wanted',
      async () => [attested(await attest({ iss: undefined })), proven(await prove())],
      { issuer: attester },
    ],
  ])('%s', async (_what, fields, options) => {
    expect(await verify(await fields(), options)).toEqual({ outcome: 'absent' })
  })

  it.each(['x', 'x.y.z', 'e30.W10.AAAA'])('but not what cannot be read: %s', async (text) => {
    expect(await verify([attested(text)], { issuer: attester })).toEqual(
      refusal('the attestation must be exactly one JWT'),
    )
  })

  it('nor two of which one is its own', async () => {
    const fields = [attested(await attest()), attested(await attest({ iss: 'https://else.example' }))]
    expect(await verify(fields, { issuer: attester })).toEqual(refusal('the attestation must be exactly one JWT'))
  })

  it('and its own is not, among several', async () => {
    const issuer = ['https://else.example', attester]
    expect(await verify(await goodFields(), { issuer })).toMatchObject({ outcome: 'verified' })
  })
})

describe('an attestation is refused for', () => {
  const noKey = 'the attestation does not carry a public key'
  const notOne = 'the attestation must be exactly one JWT'
  it.each<[string, () => Promise<Field[]> | Field[], string]>([
    ['coming twice', async () => [attested(await attest()), attested(await attest())], notOne],
    ['being a list', async () => [attested(`${await attest()}, ${await attest()}`)], notOne],
    ['being no JWT', () => [attested('x')], notOne],
    ['having a fourth part', async () => [attested(`${await attest()}.AAAA`)], notOne],
    ['having no signature', async () => [attested((await attest()).replace(/[^.]*$/, ''))], notOne],
    ['being longer than anybody needs', () => [attested(`${'x'.repeat(17_000)}.e30.AAAA`)], notOne],
    [
      'another type',
      async () => [attested(await attest({}, { typ: 'JWT' }))],
      `the type of the attestation is not ${attestationType}`,
    ],
    [
      'no algorithm',
      () => [attested(jwtOf({ typ: attestationType, alg: 'none' }, { sub: 'x' }))],
      'the attestation is signed with an algorithm that is not accepted here',
    ],
    [
      'a shared secret',
      () => [attested(jwtOf({ typ: attestationType, alg: 'HS256' }, { sub: 'x' }))],
      'the attestation is signed with an algorithm that is not accepted here',
    ],
    [
      'wanting something understood',
      async () => [attested(jwtOf({ typ: attestationType, alg: 'ES256', crit: ['exp'] }, {}))],
      'the attestation wants something understood that is not',
    ],
    [
      'no subject',
      async () => [attested(await attest({ sub: undefined }))],
      'the attestation does not say of which client it is',
    ],
    [
      'a subject that is no text',
      async () => [attested(await attest({ sub: 7 }))],
      'the attestation does not say of which client it is',
    ],
    [
      'an attester that is no text',
      async () => [attested(await attest({ iss: 7 }))],
      'the attestation does not say who made it',
    ],
    [
      'an attester without a name',
      async () => [attested(await attest({ iss: '' }))],
      'the attestation does not say who made it',
    ],
    [
      'a key that takes long to compute with',
      async () => [attested(await attest({ cnf: { jwk: { kty: 'RSA', n: 'u'.repeat(342), e: 'u'.repeat(342) } } }))],
      noKey,
    ],
    [
      'no end',
      async () => [attested(await attest({ exp: undefined }))],
      'the attestation does not say when it expires',
    ],
    ['no cnf', async () => [attested(await attest({ cnf: undefined }))], noKey],
    ['no key in cnf', async () => [attested(await attest({ cnf: { jkt } }))], noKey],
    ['a key that is a text', async () => [attested(await attest({ cnf: { jwk: JSON.stringify(jwk) } }))], noKey],
    ['the private key', async () => [attested(await attest({ cnf: { jwk: privateJwk } }))], noKey],
    [
      'a shared secret as key',
      async () => [attested(await attest({ cnf: { jwk: { kty: 'oct', k: 'AAAA' } } }))],
      noKey,
    ],
    ...['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'].map((member): [string, () => Promise<Field[]>, string] => [
      `the private member ${member}`,
      async () => [attested(await attest({ cnf: { jwk: { ...jwk, [member]: 'AAAA' } } }))],
      noKey,
    ]),
    [
      'a signature with a key that no attester has',
      async () => [attested(await attest({}, {}, strangersKey))],
      'the attestation is signed with a key that no attester has',
    ],
    [
      'a signature that is wrong',
      async () => [attested(await attest({}, { kid: attesterKey.jwk.kid }, strangersKey))],
      "the attestation's signature is wrong",
    ],
    [
      'a key that is none',
      async () => [attested(await attest({ cnf: { jwk: { kty: 'EC' } } }))],
      'the attestation cannot be read',
    ],
  ])('%s', async (_what, fields, reason) => {
    const shown = [...(await fields()), proven(await prove())]
    expect(await verify(shown)).toEqual(refusal(reason))
  })

  it('not holding yet, which is no failed proof', async () => {
    const shown = [attested(await attest({ nbf: noonSeconds + 60 })), proven(await prove())]
    expect(await verify(shown)).toEqual({ ...refusal('the attestation is not valid yet'), counts: false })
  })

  it('being too old, which is no failed proof', async () => {
    const fields = async (exp: number): Promise<Field[]> => [attested(await attest({ exp })), proven(await prove())]
    expect((await verify(await fields(noonSeconds - 4))).outcome).toBe('verified')
    expect(await verify(await fields(noonSeconds - 5))).toEqual({
      ...refusal('the attestation has expired', 'use_fresh_attestation'),
      counts: false,
    })
  })

  it('having been good a moment ago and not now', async () => {
    const clock = { at: noon }
    const verifier = verifierOf({}, clock)
    const jwt = await attest({ exp: noonSeconds + 10 })
    const ask = async (): Promise<Verification> =>
      await verifier.verify(requestOf(attested(jwt), proven(await prove({ iat: clock.at / 1000 }))), unlimited)
    expect((await ask()).outcome).toBe('verified')
    clock.at += 15_000
    expect(await ask()).toMatchObject({ outcome: 'invalid', reason: 'the attestation has expired' })
  })

  it.each([
    ['says nothing of when it was made', undefined],
    ['was made to live longer', noonSeconds - 7201],
    ['claims to be made later than now', noonSeconds + 3600],
  ])('a lifetime that is too long: it %s', async (_what, iat) => {
    const fields = [attested(await attest({ iat })), proven(await prove())]
    expect(await verify(fields, { maxLifetime: '2h' })).toEqual({
      ...refusal('the attestation lives longer than is accepted here', 'use_fresh_attestation'),
      counts: false,
    })
    expect((await verify(await goodFields(), { maxLifetime: '2h' })).outcome).toBe('verified')
  })

  it('keys that cannot be had: no refusal, but unavailable', async () => {
    const jwks = () => Promise.reject(new Error('no route to host'))
    expect(await verify(await goodFields(), { jwks })).toMatchObject({ outcome: 'unavailable' })
  })
})

describe('a proof of possession is refused for', () => {
  const notOne = 'the proof of possession must be exactly one JWT'
  const unsigned = 'the proof of possession is not signed with the attested key, or does not hold now'
  const elsewhere = 'the proof of possession is for somebody else'
  const late = 'the proof of possession is too old, or of the future'
  const noJti = 'the jti of the proof of possession is missing or wrong'
  const foreignAlgorithm = 'the proof of possession is signed with an algorithm that is not accepted here'
  it.each<[string, () => Promise<Field[]> | Field[], string]>([
    ['being missing', () => [], 'there is no proof of possession'],
    ['coming twice', async () => [proven(await prove()), proven(await prove())], notOne],
    ['being a list', async () => [proven(`${await prove()}, ${await prove()}`)], notOne],
    ['being empty', () => [proven('')], notOne],
    [
      'being an attestation',
      async () => [proven(await attest())],
      `the type of the proof of possession is not ${popType}`,
    ],
    [
      'another type',
      async () => [proven(await prove({}, { typ: 'dpop+jwt' }))],
      `the type of the proof of possession is not ${popType}`,
    ],
    ['no algorithm', () => [proven(jwtOf({ typ: popType, alg: 'none' }, {}))], foreignAlgorithm],
    ['a shared secret', () => [proven(jwtOf({ typ: popType, alg: 'HS256' }, {}))], foreignAlgorithm],
    ['another audience', async () => [proven(await prove({ aud: 'https://else.example' }))], elsewhere],
    ['several audiences', async () => [proven(await prove({ aud: [resource, 'https://else.example'] }))], elsewhere],
    ['a slash more in its audience', async () => [proven(await prove({ aud: `${resource}/` }))], elsewhere],
    ['no audience', async () => [proven(await prove({ aud: undefined }))], elsewhere],
    ['no jti', async () => [proven(await prove({ jti: undefined }))], noJti],
    ['an empty jti', async () => [proven(await prove({ jti: '' }))], noJti],
    ['a jti that is no text', async () => [proven(await prove({ jti: 7 }))], noJti],
    ['a jti that is too long', async () => [proven(await prove({ jti: 'x'.repeat(513) }))], noJti],
    [
      'no iat',
      async () => [proven(await prove({ iat: undefined }))],
      'the proof of possession does not say when it was made',
    ],
    [
      'an iat that is a text',
      async () => [proven(await prove({ iat: `${noonSeconds}` }))],
      'the proof of possession does not say when it was made',
    ],
    ['being a minute old', async () => [proven(await prove({ iat: noonSeconds - 60 }))], late],
    ['being of the future', async () => [proven(await prove({ iat: noonSeconds + 6 }))], late],
    ['being of an endless future', async () => [proven(await signRaw('{"iat":1e999}'))], late],
    ['having expired', async () => [proven(await prove({ exp: noonSeconds - 6 }))], unsigned],
    ['another key', async () => [proven(await prove({}, {}, strangersKey))], unsigned],
    ["the attester's key", async () => [proven(await prove({}, {}, attesterKey))], unsigned],
    ['a changed claim', async () => [proven(await changed())], unsigned],
    [
      'an algorithm that does not fit the key',
      () => [proven(jwtOf({ typ: popType, alg: 'RS256' }, { aud: resource, jti: 'x', iat: noonSeconds }))],
      unsigned,
    ],
  ])('%s', async (_what, fields, reason) => {
    expect(await verify([attested(await attest()), ...(await fields())])).toEqual(refusal(reason))
  })

  /** Signs claims that are completed by these, as they are written. */
  function signRaw(json: string): Promise<string> {
    const text = `{"aud":"${resource}","jti":"x",${json.slice(1)}`
    return clientKey.sign(new TextEncoder().encode(text), { typ: popType })
  }

  async function changed(): Promise<string> {
    const [header, , signature] = (await prove()).split('.')
    const claims = { aud: resource, jti: 'changed', iat: noonSeconds }
    return `${header}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.${signature}`
  }

  it('nothing at the edges of its window', async () => {
    for (const iat of [noonSeconds - 59.9, noonSeconds + 5]) {
      expect((await verify([attested(await attest()), proven(await prove({ iat }))])).outcome).toBe('verified')
    }
    const short = { window: '10s', clockTolerance: '1s' } as const
    for (const [iat, outcome] of [
      [noonSeconds - 9, 'verified'],
      [noonSeconds - 10, 'invalid'],
      [noonSeconds + 1, 'verified'],
      [noonSeconds + 2, 'invalid'],
    ] as const) {
      expect((await verify([attested(await attest()), proven(await prove({ iat }))], short)).outcome).toBe(outcome)
    }
  })
})

describe('a challenge', () => {
  const field = 'OAuth-Client-Attestation-Challenge'
  const needed = refusal('a challenge of this server is needed', 'use_attestation_challenge')
  const clock = { at: noon }
  const withChallenge = async (challenge: unknown): Promise<Request> =>
    requestOf(attested(await attest()), proven(await prove({ challenge })))

  it('is not asked for by default, and one of others does not matter', async () => {
    expect(verifierOf()).not.toHaveProperty('withSecrets')
    const answer = await verify([attested(await attest()), proven(await prove({ challenge: 'theirs' }))])
    expect(answer.outcome).toBe('verified')
    expect(answer.fields).toBeUndefined()
  })

  it('that is required is given to who brings none, and it is no failed proof', async () => {
    const verifier = verifierOf({ challenge: 'require' }, clock).withSecrets!(['a secret'])
    const asked = await verifier.verify(await withChallenge(undefined), unlimited)
    const given = asked.fields![field]!
    expect(asked).toEqual({ ...needed, counts: false, fields: { [field]: given } })
    const answer = await verifier.verify(await withChallenge(given), unlimited)
    expect(answer).toMatchObject({ outcome: 'verified', fields: { [field]: given } })
  })

  it.each([['made up'], [''], [7], [null], [['x']]])('%j is none of this server', async (challenge) => {
    for (const mode of ['require', 'offer'] as const) {
      const verifier = verifierOf({ challenge: mode }, clock)
      expect(await verifier.verify(await withChallenge(challenge), unlimited)).toMatchObject({
        ...needed,
        counts: false,
      })
    }
  })

  it('that is offered need not be brought', async () => {
    const answer = await verifierOf({ challenge: 'offer' }, clock).verify(await withChallenge(undefined), unlimited)
    expect(answer).toMatchObject({
      outcome: 'verified',
      fields: { [field]: expect.stringMatching(/^[\w-]+$/) as string },
    })
  })

  it('goes with refusals too', async () => {
    const verifier = verifierOf({ challenge: 'offer' }, clock)
    const req = requestOf(attested(await attest({}, {}, strangersKey)), proven(await prove()))
    expect(await verifier.verify(req, unlimited)).toMatchObject({
      outcome: 'invalid',
      fields: { [field]: expect.any(String) as string },
    })
  })

  it('is good for a while, in every process with the secret', async () => {
    const turning = { at: noon }
    const one = verifierOf({ challenge: 'require' }, turning).withSecrets!(['new', 'old'])
    const other = verifierOf({ challenge: 'require' }, turning).withSecrets!(['old'])
    const stranger = verifierOf({ challenge: 'require' }, turning).withSecrets!(['else'])
    const given = other.stepUp!.fields![field]!
    const outcomeOf = async (verifier: Verifier): Promise<string> => {
      const iat = turning.at / 1000
      const req = requestOf(attested(await attest()), proven(await prove({ challenge: given, iat })))
      return (await verifier.verify(req, unlimited)).outcome
    }
    expect([await outcomeOf(one), await outcomeOf(other), await outcomeOf(stranger)]).toEqual([
      'verified',
      'verified',
      'invalid',
    ])
    turning.at += 90_000
    expect([await outcomeOf(one), await outcomeOf(other)]).toEqual(['invalid', 'invalid'])
  })

  it('is offered to who has to step up', () => {
    expect(verifierOf().stepUp).toEqual({
      challenge: refusal('a client attestation with a proof of possession is needed').challenge,
    })
    expect(verifierOf({ challenge: 'offer' }).stepUp).toEqual({
      challenge: refusal('a client attestation with a proof of possession is needed', 'use_attestation_challenge')
        .challenge,
      fields: { [field]: expect.stringMatching(/^[\w-]+$/) as string },
    })
  })
})

describe('possession by the DPoP proof of the request', () => {
  // The npm package takes the time from the system.
  const options = { now: Date.now }
  const url = `${resource}/orders`
  let keyPair: Awaited<ReturnType<typeof generateDpopKeyPair>>
  let cnf: object

  beforeAll(async () => {
    keyPair = await generateDpopKeyPair('ES256')
    const { kty, crv, x, y } = await exportJWK(keyPair.publicKey)
    cnf = { jwk: { kty, crv, x, y } }
  })

  const attestNow = (otherwise: object = {}): Promise<string> =>
    attest({ cnf, iat: Date.now() / 1000, exp: Date.now() / 1000 + 60, ...otherwise })

  const dpopOf = async (...rest: (string | undefined)[]): Promise<Field> => [
    'DPoP',
    await generateProof(keyPair, rest[0] ?? url, rest[1] ?? 'GET', rest[2], rest[3]),
  ]

  it('proves the same', async () => {
    const answer = await verify([attested(await attestNow()), await dpopOf()], options)
    expect(answer).toMatchObject({
      outcome: 'verified',
      identity: { id: `sub:${attester}|agent-7`, provesKey: true },
      singleUses: [{ challenge: expect.stringMatching(/^DPoP error="invalid_dpop_proof"/) as string }],
    })
  })

  it.each<[string, () => Promise<Field[]>, string]>([
    [
      'another key',
      async () => [attested(await attestNow({ cnf: { jwk } })), await dpopOf()],
      'the proof is signed with another key than the one wanted',
    ],
    [
      'another method',
      async () => [attested(await attestNow()), await dpopOf(url, 'POST')],
      'the proof is for another method',
    ],
    [
      'another address',
      async () => [attested(await attestNow()), await dpopOf(`${resource}/else`)],
      'the proof is for another address',
    ],
    [
      'another host',
      async () => [attested(await attestNow()), await dpopOf('https://else.example/orders')],
      'the proof is for another address',
    ],
    [
      'two proofs',
      async () => [attested(await attestNow()), await dpopOf(), await dpopOf()],
      'there must be exactly one proof, a JWT',
    ],
    [
      'a token that is not the one of the proof',
      async () => [attested(await attestNow()), await dpopOf(), ['Authorization', 'DPoP some-token']],
      'the proof is for another token',
    ],
  ])('is refused for %s', async (_what, fields, reason) => {
    expect(await verify(await fields(), options)).toEqual(refusal(reason))
  })

  it('goes with the token where the token comes as DPoP', async () => {
    const fields: Field[] = [
      attested(await attestNow()),
      await dpopOf(url, 'GET', undefined, 'some-token'),
      ['Authorization', 'DPoP some-token'],
    ]
    expect((await verify(fields, options)).outcome).toBe('verified')
  })

  it('is not looked at where there is a proof of its own kind, and its key may be another', async () => {
    const now = Date.now() / 1000
    const own = proven(await prove({ iat: now }))
    const fields = [attested(await attestNow({ cnf: { jwk } })), own, await dpopOf()]
    expect((await verify(fields, options)).outcome).toBe('verified')
    expect(await verify([attested(await attestNow()), own, await dpopOf()], options)).toEqual(
      refusal('the proof of possession is not signed with the attested key, or does not hold now'),
    )
  })

  it('carries the challenge as its nonce', async () => {
    const verifier = verifierOf({ ...options, challenge: 'require' })
    const asked = await verifier.verify(requestOf(attested(await attestNow()), await dpopOf()), unlimited)
    const given = asked.fields!['OAuth-Client-Attestation-Challenge']!
    expect(asked).toMatchObject({
      outcome: 'invalid',
      counts: false,
      challenge: expect.stringMatching(/^DPoP error="use_dpop_nonce"/) as string,
      fields: { 'DPoP-Nonce': given },
    })
    const proof = await dpopOf(url, 'GET', given)
    expect(await verifier.verify(requestOf(attested(await attestNow()), proof), unlimited)).toMatchObject({
      outcome: 'verified',
      fields: { 'DPoP-Nonce': given, 'OAuth-Client-Attestation-Challenge': given },
    })
    // The same text is good as the challenge of a proof of possession.
    const pop = proven(await prove({ iat: Date.now() / 1000, challenge: given }))
    const byPop = await verifier.verify(requestOf(attested(await attestNow({ cnf: { jwk } })), pop), unlimited)
    expect(byPop.outcome).toBe('verified')
  })

  it('is for the origin that is configured, and none where nothing says which', async () => {
    const elsewhere = { ...options, origin: 'https://public.example.com/api' }
    const proof = await dpopOf('https://public.example.com/api/orders')
    expect((await verify([attested(await attestNow()), proof], elsewhere)).outcome).toBe('verified')
    const urn = { ...options, resource: 'urn:example:api' }
    expect(await verify([attested(await attestNow()), await dpopOf()], urn)).toEqual(
      refusal('there is no proof of possession'),
    )
  })
})

describe('beside a token', () => {
  const tokenOf = (claims: object): Field => ['Authorization', `Bearer ${jwtOf({ alg: 'ES256' }, claims)}`]

  it.each<[string, Field]>([
    ['of the same client', tokenOf({ sub: 'ann', client_id: 'agent-7' })],
    ['that names no client', tokenOf({ sub: 'ann' })],
    ['that cannot be read', ['Authorization', 'Bearer mF_9.B5f-4.1JqM']],
    ['of another scheme', ['Authorization', 'Basic dTpw']],
  ])('%s it is verified', async (_what, token) => {
    expect((await verify([...(await goodFields()), token])).outcome).toBe('verified')
  })

  it('of another client it is refused', async () => {
    expect(await verify([...(await goodFields()), tokenOf({ sub: 'agent-7', client_id: 'agent-8' })])).toEqual(
      refusal('the attestation is of another client than the token'),
    )
  })
})

describe('what it costs', () => {
  /** How often the attester's key is asked for: once for each signature. */
  async function counting(): Promise<{ verifier: Verifier; looked: () => number }> {
    const { importJWK } = await import('jose')
    const key = await importJWK(attesterKey.jwk)
    let looked = 0
    const jwks = () => {
      looked += 1
      return key
    }
    return { verifier: verifierOf({ jwks }), looked: () => looked }
  }

  it('one signature of the attester, for a minute of requests', async () => {
    const { verifier, looked } = await counting()
    const jwt = await attest()
    for (let request = 0; request < 5; request += 1) {
      await verifier.verify(requestOf(attested(jwt), proven(await prove())), unlimited)
    }
    expect(looked()).toBe(1)
  })

  it('no signature where something cheaper is wrong', async () => {
    const { verifier, looked } = await counting()
    for (const proof of [await prove({ aud: 'x' }), await prove({ iat: 0 }), await prove({ jti: 1 })]) {
      expect((await verifier.verify(requestOf(attested(await attest()), proven(proof)), unlimited)).outcome).toBe(
        'invalid',
      )
    }
    expect(looked()).toBe(0)
  })

  it('a failure for each distinct wrong credential, none for what is late or incomplete, and then nothing more', async () => {
    const { verifier, looked } = await counting()
    const limit = new AttemptLimit({ quota: 3, windowMs: 60_000 })
    const ask = async (...fields: Field[]): Promise<[outcome: string, failures: number]> => {
      const attempts = limit.of('ip:192.0.2.1')
      const { outcome } = await verifier.verify(requestOf(...fields), attempts)
      return [outcome, attempts.failures]
    }
    const good = await attest()
    const bare: Field[] = [attested(good)]
    expect(await ask(...bare)).toEqual(['invalid', 1])
    expect(await ask(...bare)).toEqual(['invalid', 0])
    expect(await ask(attested(await attest({ exp: noonSeconds - 60 })), proven(await prove()))).toEqual(['invalid', 0])
    expect(await ask(attested(good), proven(await prove()))).toEqual(['verified', 0])
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await ask(attested(await attest({}, {}, strangersKey)), proven(await prove()))).toEqual(['invalid', 1])
    }
    const before = looked()
    expect(await ask(attested(await attest({ sub: 'unseen' })), proven(await prove()))).toEqual(['limited', 0])
    expect(looked()).toBe(before)
    // Whoever was seen good is served on.
    expect(await ask(attested(good), proven(await prove()))).toEqual(['verified', 0])
  })
})

describe('at an address with too many failures', () => {
  it('a client can still get the challenge that it needs', async () => {
    const verifier = verifierOf({ challenge: 'require' })
    const jwt = await attest()
    const limit = new AttemptLimit({ quota: 1, windowMs: 60_000 })
    const ask = async (...fields: Field[]): Promise<Verification> =>
      await verifier.verify(requestOf(...fields), limit.of('ip:192.0.2.1'))
    const given = verifier.stepUp!.fields!['OAuth-Client-Attestation-Challenge']!
    const fields = async (challenge?: string): Promise<Field[]> => [attested(jwt), proven(await prove({ challenge }))]
    expect((await ask(...(await fields(given)))).outcome).toBe('verified')
    expect((await ask(attested('x'))).outcome).toBe('invalid')
    expect((await ask(attested('y'))).outcome).toBe('limited')
    expect((await ask(...(await fields()))).fields).toEqual({ 'OAuth-Client-Attestation-Challenge': given })
    expect(await ask(...(await fields()))).toMatchObject({ outcome: 'invalid', counts: false })
    expect((await ask(...(await fields(given)))).outcome).toBe('verified')
  })
})

describe('over a real connection', () => {
  it('two fields are seen as two', async () => {
    const verifier = verifierOf()
    const app = express()
    app.use(async (req, res) => void res.json(await verifier.verify(req, unlimited)))
    const server = createServer(app).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo

    async function send(...fields: Field[]): Promise<Verification> {
      const socket = connect(port, '127.0.0.1')
      const lines = fields.map(([name, value]) => `${name}: ${value}`)
      socket.write(['GET / HTTP/1.1', 'Host: x', 'Connection: close', ...lines, '', ''].join('\r\n'))
      const answer = (await socket.setEncoding('utf8').toArray()).join('')
      return JSON.parse(answer.slice(answer.indexOf('\r\n\r\n') + 4)) as Verification
    }

    try {
      const [first, second] = await goodFields()
      expect(await send(first!, second!)).toMatchObject({ outcome: 'verified' })
      expect(await send(first!, first!, second!)).toEqual(refusal('the attestation must be exactly one JWT'))
      expect(await send(first!, second!, second!)).toEqual(refusal('the proof of possession must be exactly one JWT'))
    } finally {
      server.close()
    }
  })
})

describe('whatever is sent', () => {
  it('ends in an answer of its kind, never in an exception, and never in another client', async () => {
    const verifier = verifierOf()
    const [good, proof] = [await attest(), await prove()]
    const pieces = [...good.split('.'), ...proof.split('.')]
    const part = fc.oneof(
      fc.constantFrom(...pieces),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
      fc
        .record({ sub: fc.constant('x'), exp: fc.constant(1e12), cnf: fc.record({ jwk: fc.object() }) })
        .map((claims) => Buffer.from(JSON.stringify(claims, writable)).toString('base64url')),
      fc.string(),
    )
    const jwt = fc.oneof(
      fc.constantFrom(good, proof),
      fc.tuple(part, part, part).map((parts) => parts.join('.')),
      fc.string({ unit: 'binary-ascii' }),
    )
    const name = fc.constantFrom('OAuth-Client-Attestation', 'OAuth-Client-Attestation-PoP', 'DPoP', 'Authorization')
    await fc.assert(
      fc.asyncProperty(jwt, fc.array(fc.tuple(name, jwt), { maxLength: 3 }), async (shown, rest) => {
        const answer = await verifier.verify(requestOf(attested(shown), ...rest), unlimited)
        if (answer.outcome === 'verified') {
          expect([shown, rest.find(([field]) => field === 'OAuth-Client-Attestation-PoP')?.[1]]).toEqual([good, proof])
          return
        }
        expect(answer).toMatchObject({
          outcome: 'invalid',
          challenge: expect.stringMatching(/^Bearer error="\w+", error_description="[^"\\]+"$/) as string,
        })
        expect(answer).not.toHaveProperty('status')
      }),
      { numRuns: 500 },
    )
  })

  /** JSON has no big integers. */
  function writable(_key: string, value: unknown): unknown {
    return typeof value === 'bigint' ? Number(value) : value
  }
})

describe('options', () => {
  it.each<[string, object, RegExp]>([
    ['no resource', { resource: undefined }, /attestation: `resource`/],
    ['no keys', { jwks: 'ftp://keys' }, /`jwks`: saw "ftp:\/\/keys"/],
    ['a challenge that is true', { challenge: true }, /`challenge`/],
    ['a shared secret', { algorithms: ['HS256'] }, /`algorithms\.0`/],
    ['a nonce', { nonce: 'require' }, /unknown option `nonce`/],
  ])('%s is a mistake', (_what, options, message) => {
    expect(() => verifierOf(options)).toThrow(message)
  })

  it('say where the metadata is', async () => {
    const resourceMetadata = 'https://api.example.com/.well-known/oauth-protected-resource'
    expect(await verify([attested('x')], { resourceMetadata })).toMatchObject({
      challenge: expect.stringContaining(`resource_metadata="${resourceMetadata}"`) as string,
    })
  })
})
