import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import express, { type Request } from 'express'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AttemptLimit } from '../../src/attempts.ts'
import { mtls, type MtlsOptions } from '../../src/identify/mtls.ts'
import type { Verification, Verifier } from '../../src/identify/verifier.ts'
import { createAuthority, selfSigned, type Authority, type Certificate } from '../certificates.ts'
import { audience, createSigningKey, issuer, jwtOf, noon, noonSeconds, type SigningKey } from './issuer.ts'

let authority: Authority
let serverCertificate: Certificate
let mine: Certificate
let others: Certificate
let unsigned: Certificate
let key: SigningKey
let strangersKey: SigningKey

beforeAll(async () => {
  authority = await createAuthority()
  ;[serverCertificate, mine, others, unsigned] = await Promise.all([
    authority.issue(),
    authority.issue({ name: 'an agent' }),
    authority.issue({ name: 'another agent' }),
    selfSigned({ name: 'an agent on its own' }),
  ])
  ;[key, strangersKey] = await Promise.all([createSigningKey(), createSigningKey()])
})

const closing: (() => unknown)[] = []

afterAll(async () => {
  for (const close of closing) await close()
})

function thumbprint({ der }: Certificate): string {
  return createHash('sha256').update(der).digest('base64url')
}

/** A good token that is bound to a certificate, with one thing otherwise. */
function tokenFor(certificate: Certificate, otherwise: object = {}, header: object = {}, by = key): Promise<string> {
  const claims = {
    iss: issuer,
    aud: audience,
    sub: 'agent-7',
    client_id: 'agent-7',
    scope: 'read',
    iat: noonSeconds,
    exp: noonSeconds + 300,
    cnf: { 'x5t#S256': thumbprint(certificate) },
    ...otherwise,
  }
  return by.sign(claims, { ...header })
}

function verifierOf(options: Partial<MtlsOptions> = {}): Verifier {
  return mtls({ issuer, audience, jwks: { keys: [key.jwk] }, now: () => noon, ...options })
}

function attemptsOf(limit = new AttemptLimit({ quota: 20, windowMs: 60_000 })) {
  return limit.of('ip:192.0.2.1')
}

/** A server over TLS that answers with what the verifier makes of each request. */
async function serve(verifier: Verifier): Promise<string> {
  const app = express()
  app.use(async (req, res) => void res.json(await verifier.verify(req, attemptsOf())))
  const server = https.createServer(
    { ...serverCertificate, ca: authority.cert, requestCert: true, rejectUnauthorized: false },
    app,
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return `https://localhost:${(server.address() as AddressInfo).port}/`
}

/** What it answers, over a connection with this certificate or by this agent. */
async function ask(
  url: string,
  headers: Record<string, string | string[]>,
  options: https.RequestOptions = {},
): Promise<Verification> {
  const [response] = (await once(
    https.get(url, { ca: authority.cert, agent: false, ...options, headers }),
    'response',
  )) as [IncomingMessage]
  response.setEncoding('utf8')
  return JSON.parse((await response.toArray()).join('')) as Verification
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })

/** A request of a trusted proxy, whose client showed a certificate. */
function proxied(token: string, certificate: Certificate | undefined, remoteAddress = '10.0.0.1'): Request {
  const fields: [string, string][] = [['Authorization', `Bearer ${token}`]]
  if (certificate !== undefined) fields.push(['Client-Cert', `:${certificate.der.toString('base64')}:`])
  return requestOf(fields, remoteAddress)
}

function requestOf(fields: [string, string][], remoteAddress = '10.0.0.1'): Request {
  const headers = Object.fromEntries(fields.map(([name, value]) => [name.toLowerCase(), value]))
  return { socket: { remoteAddress }, headers, rawHeaders: fields.flat() } as unknown as Request
}

const byProxy = { trustedProxies: '10.0.0.0/8' }

describe('a token that is bound to the certificate of the connection', () => {
  it('proves its client and that it holds the key', async () => {
    const url = await serve(verifierOf())
    expect(await ask(url, bearer(await tokenFor(mine)), mine)).toMatchObject({
      outcome: 'verified',
      identity: {
        id: `sub:${issuer}|agent-7`,
        kind: 'agent',
        provesKey: true,
        scopes: ['read'],
        claims: { client_id: 'agent-7' },
      },
    })
  })

  it('does so with a certificate that nobody signed', async () => {
    const url = await serve(verifierOf())
    expect(await ask(url, bearer(await tokenFor(unsigned)), unsigned)).toMatchObject({
      outcome: 'verified',
      identity: { provesKey: true },
    })
  })

  it('is the one of a connection that other tokens use too', async () => {
    const url = await serve(verifierOf())
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, key: mine.key, cert: mine.cert })
    closing.push(() => agent.destroy())
    const right = bearer(await tokenFor(mine))
    const wrong = bearer(await tokenFor(others))
    for (const [headers, outcome] of [
      [right, 'verified'],
      [wrong, 'invalid'],
      [right, 'verified'],
      [wrong, 'invalid'],
    ] as const) {
      expect((await ask(url, headers, { agent })).outcome).toBe(outcome)
    }
    expect(Object.values(agent.freeSockets).flat()).toHaveLength(1)
  })
})

describe('what is not its own is passed over:', () => {
  it.each<[string, () => Promise<Record<string, string>> | Record<string, string>]>([
    ['no credential', () => ({})],
    ['another scheme', () => ({ authorization: 'Basic dTpw' })],
    ['a token sent as DPoP', async () => ({ authorization: `DPoP ${await tokenFor(mine)}` })],
    ['an opaque token', () => bearer('mF_9.B5f-4.1JqM')],
    ['a token of another issuer', async () => bearer(await tokenFor(mine, { iss: 'https://else.example' }))],
    ['a token that is bound to nothing', async () => bearer(await tokenFor(mine, { cnf: undefined }))],
  ])('%s', async (_what, headers) => {
    const url = await serve(verifierOf())
    expect(await ask(url, await headers(), mine)).toEqual({ outcome: 'absent' })
  })
})

const refusal = (reason: string) => ({
  outcome: 'invalid',
  reason,
  challenge: `Bearer error="invalid_token", error_description="${reason}"`,
})

describe('refused with the challenge of RFC 6750:', () => {
  const unshown = 'the token is bound to a key that was not shown'
  const cases: [
    what: string,
    reason: string,
    token: () => Promise<string>,
    certificate: () => Certificate | undefined,
  ][] = [
    [
      'a token for another certificate',
      'the token is bound to another certificate',
      () => tokenFor(others),
      () => mine,
    ],
    [
      'a token without its certificate',
      'the token is bound to a certificate, and the client showed none',
      () => tokenFor(mine),
      () => undefined,
    ],
    [
      'a thumbprint cut short',
      'the token is bound to another certificate',
      () => tokenFor(mine, { cnf: { 'x5t#S256': thumbprint(mine).slice(0, 42) } }),
      () => mine,
    ],
    [
      'a thumbprint in hex',
      'the token is bound to another certificate',
      () => tokenFor(mine, { cnf: { 'x5t#S256': createHash('sha256').update(mine.der).digest('hex') } }),
      () => mine,
    ],
    [
      'a token that a DPoP key is bound to as well',
      unshown,
      () => tokenFor(mine, { cnf: { 'x5t#S256': thumbprint(mine), jkt: 'x' } }),
      () => mine,
    ],
    ['a token that is bound to a DPoP key', unshown, () => tokenFor(mine, { cnf: { jkt: 'x' } }), () => mine],
    [
      'a token with a binding nobody knows',
      unshown,
      () => tokenFor(mine, { cnf: { 'x5t#S256': thumbprint(mine), new: 1 } }),
      () => mine,
    ],
    ['a thumbprint that is no text', unshown, () => tokenFor(mine, { cnf: { 'x5t#S256': 1 } }), () => mine],
    ['an empty binding', unshown, () => tokenFor(mine, { cnf: {} }), () => mine],
    [
      'a signature of somebody else',
      "the token's signature is wrong",
      () => tokenFor(mine, {}, {}, strangersKey),
      () => mine,
    ],
    [
      'no signature',
      'the token is signed with an algorithm that is not accepted here',
      async () => jwtOf({ alg: 'none' }, { iss: issuer, cnf: { 'x5t#S256': thumbprint(mine) } }),
      () => mine,
    ],
    [
      'a token for another API',
      'the token is for somebody else',
      () => tokenFor(mine, { aud: 'https://else.example' }),
      () => mine,
    ],
    ['another kind of JWT', 'the token is no access token', () => tokenFor(mine, {}, { typ: 'dpop+jwt' }), () => mine],
  ]

  it.each(cases)('%s', async (_what, reason, token, certificate) => {
    const url = await serve(verifierOf())
    const answer = await ask(url, bearer(await token()), certificate())
    expect(answer).toEqual(refusal(reason))
  })

  it('a token that has expired, which is no failed proof', async () => {
    const url = await serve(verifierOf({ now: () => noon + 306_000 }))
    expect(await ask(url, bearer(await tokenFor(mine)), mine)).toEqual({
      ...refusal('the token has expired'),
      counts: false,
    })
  })

  it('two Authorization fields: 400', async () => {
    const url = await serve(verifierOf())
    const token = await tokenFor(mine)
    expect(await ask(url, { authorization: [`Bearer ${token}`, `Bearer ${token}`] }, mine)).toMatchObject({
      outcome: 'invalid',
      status: 400,
      counts: false,
      challenge: expect.stringMatching(/^Bearer error="invalid_request"/) as string,
    })
  })

  it('a token without a scope that is asked for: 403', async () => {
    const url = await serve(verifierOf({ scopes: ['read', 'write'] }))
    expect(await ask(url, bearer(await tokenFor(mine)), mine)).toMatchObject({
      outcome: 'invalid',
      status: 403,
      challenge: expect.stringContaining('scope="read write"') as string,
    })
  })

  it('with where the metadata is, and without anything of the credential', async () => {
    const resourceMetadata = 'https://api.example.com/.well-known/oauth-protected-resource'
    const url = await serve(verifierOf({ resourceMetadata }))
    const token = await tokenFor(others)
    const answer = JSON.stringify(await ask(url, bearer(token), mine))
    expect(answer).toContain(`resource_metadata=\\"${resourceMetadata}\\"`)
    for (const secret of [...token.split('.'), thumbprint(mine), thumbprint(others)])
      expect(answer).not.toContain(secret)
  })
})

describe('behind a proxy', () => {
  it('Client-Cert of a trusted one is the certificate', async () => {
    const token = await tokenFor(mine)
    expect(await verifierOf(byProxy).verify(proxied(token, mine), attemptsOf())).toMatchObject({
      outcome: 'verified',
      identity: { provesKey: true },
    })
    expect(await verifierOf(byProxy).verify(proxied(token, others), attemptsOf())).toEqual(
      refusal('the token is bound to another certificate'),
    )
  })

  it('Client-Cert of anybody else is not looked at', async () => {
    const none = refusal('the token is bound to a certificate, and the client showed none')
    const token = await tokenFor(mine)
    expect(await verifierOf(byProxy).verify(proxied(token, mine, '203.0.113.7'), attemptsOf())).toEqual(none)
    expect(await verifierOf().verify(proxied(token, mine), attemptsOf())).toEqual(none)
    // Over TLS, with a thief's own certificate and the field of the one it stole from.
    const url = await serve(verifierOf(byProxy))
    const headers = { ...bearer(token), 'client-cert': `:${mine.der.toString('base64')}:` }
    expect(await ask(url, headers, others)).toEqual(refusal('the token is bound to another certificate'))
  })

  it('Client-Cert that is none is 400, for those only who need it', async () => {
    const fields = (token: string): [string, string][] => [
      ['Authorization', `Bearer ${token}`],
      ['Client-Cert', 'garbage'],
    ]
    const bound = requestOf(fields(await tokenFor(mine)))
    expect(await verifierOf(byProxy).verify(bound, attemptsOf())).toEqual({
      outcome: 'invalid',
      status: 400,
      counts: false,
      reason: 'Client-Cert is not one certificate',
      challenge: 'Bearer error="invalid_request", error_description="Client-Cert is not one certificate"',
    })
    const unbound = requestOf(fields(await tokenFor(mine, { cnf: undefined })))
    expect(await verifierOf(byProxy).verify(unbound, attemptsOf())).toEqual({ outcome: 'absent' })
  })
})

describe('a stolen token', () => {
  it('is a failed proof for each certificate that it is tried with, and for each only once', async () => {
    const verifier = verifierOf(byProxy)
    const limit = new AttemptLimit({ quota: 20, windowMs: 60_000 })
    const token = await tokenFor(mine)
    const failures = async (certificate: Certificate | undefined): Promise<number> => {
      const attempts = attemptsOf(limit)
      await verifier.verify(proxied(token, certificate), attempts)
      return attempts.failures
    }
    expect([await failures(others), await failures(others), await failures(undefined)]).toEqual([1, 0, 1])
    expect([await failures(mine), await failures(unsigned)]).toEqual([0, 1])
  })

  it('does not lock out its owner at the same address', async () => {
    const verifier = verifierOf(byProxy)
    const limit = new AttemptLimit({ quota: 3, windowMs: 60_000 })
    const token = await tokenFor(mine)
    const outcome = async (certificate: Certificate): Promise<string> =>
      (await verifier.verify(proxied(token, certificate), attemptsOf(limit))).outcome
    expect(await outcome(mine)).toBe('verified')
    const thieves = await Promise.all(Array.from({ length: 5 }, (_, index) => selfSigned({ name: `thief ${index}` })))
    const outcomes = []
    for (const thief of thieves) outcomes.push(await outcome(thief))
    expect(outcomes).toEqual(['invalid', 'invalid', 'invalid', 'limited', 'limited'])
    expect(await outcome(mine)).toBe('verified')
  })
})

describe('whatever is sent', () => {
  it('ends in an answer of its kind, never in an exception', async () => {
    const verifier = verifierOf(byProxy)
    const good = await tokenFor(mine)
    const [header, payload, signature] = good.split('.') as [string, string, string]
    const part = fc.oneof(
      fc.constantFrom(header, payload, signature, ''),
      fc.json().map((text) => Buffer.from(text).toString('base64url')),
      fc.record({ iss: fc.constant(issuer), cnf: fc.anything() }).map((claims) => encode(claims)),
      fc.string(),
    )
    const token = fc.oneof(
      fc.tuple(part, part, part).map((parts) => parts.join('.')),
      fc.string({ unit: 'binary-ascii' }),
    )
    const field = fc.oneof(fc.string({ unit: 'binary-ascii' }), fc.constant(`:${mine.der.toString('base64')}:`))
    await fc.assert(
      fc.asyncProperty(token, fc.array(field, { maxLength: 2 }), async (credential, values) => {
        const fields: [string, string][] = [['Authorization', `Bearer ${credential}`]]
        for (const value of values) fields.push(['Client-Cert', value])
        const answer = await verifier.verify(requestOf(fields), attemptsOf())
        if (credential !== good) expect(answer.outcome).toMatch(/^(absent|invalid)$/)
        if (answer.outcome === 'invalid') {
          expect([undefined, 400, 401]).toContain(answer.status)
          expect(answer.challenge).toMatch(/^Bearer error="invalid_(token|request)", error_description="[^"\\]+"$/)
        }
      }),
      { numRuns: 500 },
    )
  })
})

function encode(value: unknown): string {
  try {
    return Buffer.from(JSON.stringify(value)).toString('base64url')
  } catch {
    return ''
  }
}

describe('how to step up', () => {
  it('is said in a challenge, and where a program finds out', () => {
    const resourceMetadata = 'https://api.example.com/.well-known/oauth-protected-resource'
    expect(verifierOf({ resourceMetadata }).stepUp).toEqual({
      challenge: `Bearer error="invalid_token", error_description="a token that is bound to the client's certificate is needed", resource_metadata="${resourceMetadata}"`,
    })
  })
})

describe('a token that is asked for', () => {
  it('is asked for with its scopes and what was wrong', () => {
    const verifier = verifierOf()
    expect(verifier.challengeFor!([])).toBe('Bearer')
    expect(verifier.challengeFor!(['read', 'write'], 'insufficient_scope')).toBe(
      'Bearer error="insufficient_scope", scope="read write"',
    )
  })
})

describe('options', () => {
  it('are checked', () => {
    expect(() => verifierOf({ trustedProxies: ['proxy.internal'] })).toThrow(
      'mtls: `trustedProxies`: saw a list of 1, expected addresses or subnets of proxies, such as "10.0.0.0/8" or "loopback"',
    )
    expect(() => verifierOf({ trustProxies: 'loopback' } as never)).toThrow('unknown option `trustProxies`')
  })
})
