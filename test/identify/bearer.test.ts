import express, { type Request } from 'express'
import fc from 'fast-check'
import * as oauth from 'oauth4webapi'
import { beforeAll, describe, expect, it } from 'vitest'
import { bearer } from '../../src/identify/bearer.ts'
import { protectedResource } from '../../src/identify/protected-resource.ts'
import type { Verification } from '../../src/identify/verifier.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { expressVersions, opened, serve, tellDecision, type Served } from '../http/serve.ts'
import { startAuthorizationServer, type AuthorizationServer } from './authorization-server.ts'
import { audience, claims, createSigningKey, issuer, jwtOf, noon, type SigningKey } from './issuer.ts'
import { unlimited } from './unlimited.ts'

const insecure = { [oauth.allowInsecureRequests]: true }

async function api(server: AuthorizationServer, express_ = express): Promise<Served> {
  const app = express_()
  const limiter = opened(
    rampmeter({
      identify: [bearer({ issuer: server.issuer, audience, jwks: `${server.issuer}/jwks`, scopes: ['orders:read'] })],
    }),
  )
  app.use(limiter)
  app.use(tellDecision)
  return await serve(app)
}

/** Gets a token as an agent does that knows nothing but the issuer. */
async function tokenFor(server: AuthorizationServer, parameters: Record<string, string>): Promise<string> {
  const issuer = new URL(server.issuer)
  const discovered = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
  const as = await oauth.processDiscoveryResponse(issuer, discovered)
  const client = { client_id: 'agent' }
  const secret = oauth.ClientSecretBasic('an agent secret')
  const response = await oauth.clientCredentialsGrantRequest(as, client, secret, parameters, insecure)
  return (await oauth.processClientCredentialsResponse(as, client, response)).access_token
}

describe.each(expressVersions)('an agent with a token of its own, on $name', ({ express }) => {
  it('is let in as an agent', async () => {
    const server = await startAuthorizationServer()
    const { port } = await api(server, express as never)
    const token = await tokenFor(server, { resource: audience, scope: 'orders:read' })
    const url = new URL(`http://127.0.0.1:${port}/orders`)
    const response = await oauth.protectedResourceRequest(token, 'GET', url, undefined, undefined, insecure)
    expect(response.status).toBe(200)
    expect(response.headers.get('x-ratelimit-tier')).toBe('agent')
    expect(await response.json()).toMatchObject({
      client: {
        id: `sub:${server.issuer}|agent`,
        kind: 'agent',
        tier: 'agent',
        provedBy: 'bearer',
        confidence: 0.8,
        reasons: ["the token is a client's own (sub is its client)"],
      },
    })
  })
})

describe('a token that does not do', () => {
  it('is answered so that a client can read why', async () => {
    const server = await startAuthorizationServer()
    const { port } = await api(server)
    const url = new URL(`http://127.0.0.1:${port}/orders`)
    const why = async (parameters: Record<string, string>): Promise<unknown> => {
      const token = await tokenFor(server, parameters)
      const asked = oauth.protectedResourceRequest(token, 'GET', url, undefined, undefined, insecure)
      return await asked.then(
        () => undefined,
        (error: unknown) => ({ status: (error as oauth.WWWAuthenticateChallengeError).status, ...challengeOf(error) }),
      )
    }
    expect(await why({ resource: 'https://other.example', scope: 'orders:read' })).toEqual({
      status: 401,
      scheme: 'bearer',
      parameters: { error: 'invalid_token', error_description: 'the token is for somebody else', scope: 'orders:read' },
    })
    expect(await why({ resource: audience, scope: 'orders:write' })).toEqual({
      status: 403,
      scheme: 'bearer',
      parameters: { error: 'insufficient_scope', error_description: 'the token lacks a scope', scope: 'orders:read' },
    })
  })
})

function challengeOf(error: unknown): object {
  expect(error).toBeInstanceOf(oauth.WWWAuthenticateChallengeError)
  const { cause } = error as oauth.WWWAuthenticateChallengeError
  expect(cause).toHaveLength(1)
  const { scheme, parameters } = cause[0]!
  return { scheme, parameters }
}

describe('while the keys cannot be had', () => {
  it('nobody is refused for it, who has a token, and others are served', async () => {
    const server = await startAuthorizationServer()
    const served = await api(server)
    const token = await tokenFor(server, { resource: audience, scope: 'orders:read' })
    const headers = { authorization: `Bearer ${token}` }
    server.faults.set('/jwks', 500)
    for (let count = 0; count < 5; count += 1) {
      const { status, headers: told, body } = await served.ask('/', { headers })
      expect(status).toBe(503)
      expect(Number(told['retry-after'])).toBeGreaterThan(0)
      expect(told['www-authenticate']).toBeUndefined()
      expect(body).not.toContain(token.split('.')[2])
    }
    expect(server.asked('/jwks')).toBe(1)
    expect((await served.ask('/')).status).toBe(200)
  })
})

describe('the Authorization field', () => {
  let key: SigningKey
  beforeAll(async () => {
    key = await createSigningKey()
  })

  const plain = () => bearer({ issuer, audience, jwks: { keys: [key.jwk] }, now: () => noon })

  async function plainApi(): Promise<Served> {
    const app = express()
    app.use(
      opened(
        rampmeter({
          policies: [],
          identify: [plain()],
          verification: { failures: { quota: 1000, window: '1m' } },
        }),
      ),
    )
    app.use(tellDecision)
    return await serve(app)
  }

  it.each(['Bearer', 'bearer', 'BEARER', 'Bearer  '])('may say %j', async (scheme) => {
    const { json } = await (
      await plainApi()
    ).ask('/', { headers: { authorization: `${scheme} ${await key.sign(claims)}` } })
    expect(json.client).toMatchObject({ provedBy: 'bearer' })
  })

  it.each(['Basic', 'DPoP', 'Bearer,', 'Bearer:', 'BearerX', 'Token'])(
    'is passed over where it says %j',
    async (scheme) => {
      const { json } = await (
        await plainApi()
      ).ask('/', { headers: { authorization: `${scheme} ${await key.sign(claims)}` } })
      expect(json.client).toMatchObject({ provedBy: null })
    },
  )

  it('must come once: of two, proxies might read the other', async () => {
    const served = await plainApi()
    const field = `Authorization: Bearer ${await key.sign(claims)}\r\n`
    const head = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n'
    expect(await served.send(`${head}${field}\r\n`)).toContain('"provedBy":"bearer"')
    for (const other of [field, 'Authorization: Basic YTpi\r\n', 'authorization:\r\n']) {
      for (const fields of [field + other, other + field]) {
        const answer = await served.send(`${head}${fields}\r\n`)
        expect(answer).toMatch(/^HTTP\/1\.1 400 /)
        expect(answer).toMatch(
          /^WWW-Authenticate: Bearer error="invalid_request", error_description="the request has several Authorization fields"\r$/m,
        )
      }
    }
  })

  it('must come once, also where an adapter joined two into one', async () => {
    const token = await key.sign(claims)
    const verify = (authorization: string | string[]) =>
      plain().verify({ headers: { authorization }, rawHeaders: [] } as unknown as Request, unlimited)
    expect(await verify(`Bearer ${token}`)).toMatchObject({ outcome: 'verified' })
    expect(await verify(`Bearer ${token}, DPoP ${token}`)).toMatchObject({ outcome: 'invalid', status: 400 })
    expect(await verify([`Bearer ${token}`, `Bearer ${token}`])).toMatchObject({ outcome: 'invalid', status: 400 })
    expect(await verify('Digest username="a", realm="b"')).toEqual({ outcome: 'absent' })
  })

  it('leads to an answer in time, whatever stands in it', async () => {
    const served = await plainApi()
    const good = await key.sign(claims)
    const base64url = fc.string({ unit: fc.constantFrom(...Array.from('ABCDwxyz0189-_')), maxLength: 200 })
    const json = fc.jsonValue({ maxDepth: 3 })
    const header = fc.record(
      {
        alg: fc.oneof(fc.constantFrom('ES256', 'none', 'HS256', 'RS256'), json),
        typ: json,
        kid: json,
        crit: json,
        b64: json,
      },
      { requiredKeys: [] },
    )
    const payload = fc.record(
      { iss: fc.constant(issuer), aud: json, sub: json, exp: json, iat: json, nbf: json, cnf: json, act: json },
      { requiredKeys: ['iss'] },
    )
    const token = fc.oneof(
      base64url,
      fc.tuple(base64url, base64url, base64url).map((parts) => parts.join('.')),
      fc.tuple(header, payload, base64url).map(([head, body, signature]) => jwtOf(head, body, signature)),
      // A good one with a piece replaced.
      fc
        .tuple(fc.nat(good.length), fc.nat(20), base64url)
        .map(([at, cut, piece]) => good.slice(0, at) + piece + good.slice(at + cut)),
    )
    const field = fc.string({
      unit: fc
        .integer({ min: 0x20, max: 0xff })
        .filter((code) => code !== 0x7f)
        .map((code) => String.fromCharCode(code)),
    })
    const value = fc.oneof(
      field,
      fc
        .tuple(fc.constantFrom('Bearer', 'bearer', 'DPoP', 'Bearer '), fc.oneof(token, field))
        .map((parts) => parts.join(' ')),
    )
    await fc.assert(
      fc.asyncProperty(value, async (authorization) => {
        const startedAt = performance.now()
        const head = `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ${authorization}\r\n\r\n`
        const answer = await served.send(Buffer.from(head, 'latin1'))
        expect(answer).toMatch(/^HTTP\/1\.1 (200|400|401) /)
        if (!answer.startsWith('HTTP/1.1 200')) {
          expect(answer).toMatch(
            /^WWW-Authenticate: Bearer error="invalid_(?:token|request)", error_description="[\w' ]+"\r$/m,
          )
        }
        expect(performance.now() - startedAt).toBeLessThan(10_000)
      }),
      { numRuns: 400 },
    )
  })

  it('is read from a signed token of any content without an error', async () => {
    const value = fc.oneof(fc.jsonValue({ maxDepth: 3 }), fc.constantFrom(1e308, -1, Number.MAX_SAFE_INTEGER))
    const names = [
      'sub',
      'exp',
      'iat',
      'nbf',
      'cnf',
      'act',
      'scope',
      'scp',
      'client_id',
      'azp',
      'gty',
      'xms_act_fct',
      'idtyp',
    ]
    const signed = fc.record(Object.fromEntries(names.map((name) => [name, value])), { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(signed, async (changes) => {
        const authorization = `Bearer ${await key.sign({ ...claims, ...changes })}`
        const req = { headers: { authorization }, rawHeaders: ['Authorization', authorization] } as unknown as Request
        const { outcome, ...rest } = (await plain().verify(req, unlimited)) as Verification & {
          identity?: { id: string }
        }
        expect(['verified', 'invalid']).toContain(outcome)
        if (rest.identity !== undefined) expect(rest.identity.id.length).toBeLessThanOrEqual(1024)
      }),
      { numRuns: 400 },
    )
  })
})

describe('the options', () => {
  it('that are wrong are told at start-up, without what a URL keeps secret', () => {
    expect(() =>
      bearer({ issuer, audience, jwks: 'https://user:hunter2-hunter2-hunter2-hunter2@id.example.com/keys' }),
    ).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION', message: expect.not.stringContaining('hunter2') }),
    )
  })

  it('take the metadata URL of `protectedResource`', async () => {
    const metadata = protectedResource({ resource: audience, authorizationServers: [issuer] })
    const app = express()
    app.use(
      opened(
        rampmeter({ identify: [bearer({ issuer, audience, jwks: { keys: [] }, resourceMetadata: metadata.url })] }),
      ),
    )
    const { port } = await serve(app)
    const response = await fetch(`http://127.0.0.1:${port}/`, {
      headers: { authorization: `Bearer ${jwtOf({ alg: 'ES256' }, claims)}` },
    })
    expect(response.headers.get('www-authenticate')).toContain(
      'resource_metadata="https://api.example.com/.well-known/oauth-protected-resource"',
    )
  })
})
