import type http from 'node:http'
import https from 'node:https'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { inspect } from 'node:util'
import express, { type Express, type Request } from 'express'
import fc from 'fast-check'
import * as oauth from 'oauth4webapi'
import { afterEach, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest'
import { bearer } from '../../src/identify/bearer.ts'
import { introspect, type IntrospectOptions } from '../../src/identify/introspect.ts'
import { noteProven } from '../../src/identify/proven.ts'
import type { Verifier } from '../../src/identify/verifier.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { createAuthority, selfSigned, type Certificate } from '../certificates.ts'
import { opened, serve, tellDecision, type Reply, type Served } from '../http/serve.ts'
import { startAuthorizationServer, type AuthorizationServer } from './authorization-server.ts'
import { audience, claims, createSigningKey, jwtOf, noon, noonSeconds } from './issuer.ts'
import { unlimited } from './unlimited.ts'

// With what would break the pair of them apart if it were not encoded.
const clientId = 'api:orders'
const clientSecret = 'hunter2: +%25&é'
const insecure = { [oauth.allowInsecureRequests]: true }

let server: AuthorizationServer
let time = noon

beforeEach(async () => {
  time = noon
  server = await startAuthorizationServer()
  server.clients.set(clientId, clientSecret)
})

const options = (): IntrospectOptions => ({
  endpoint: `${server.issuer}/introspect`,
  clientId,
  clientSecret,
  now: () => time,
})

/** An app whose callers are told by introspection. */
function appWith(changes: Partial<IntrospectOptions> = {}, quota = 1000): Express {
  const app = express()
  const limiter = rampmeter({
    identify: [introspect({ ...options(), ...changes })],
    policies: [],
    verification: { failures: { quota, window: '1m' } },
  })
  app.use(opened(limiter))
  app.use(tellDecision)
  return app
}

const api = async (changes?: Partial<IntrospectOptions>, quota?: number): Promise<Served> =>
  await serve(appWith(changes, quota))

async function show(served: Served, token: string, scheme = 'Bearer'): Promise<Reply> {
  return await served.ask('/', { headers: { authorization: `${scheme} ${token}` } })
}

const asked = (): number => server.asked('/introspect')

/** What the server says of the token `t`, good for a minute. */
function say(changes: object = {}, token = 't'): void {
  const { iss: _iss, ...rest } = claims
  server.tokens.set(token, { active: true, client_id: 'app', ...rest, ...changes })
}

const challengeOf = (reason: string): string => `Bearer error="invalid_token", error_description="${reason}"`

function requestWith(authorization: string): Request {
  return { headers: { authorization }, rawHeaders: ['Authorization', authorization] } as unknown as Request
}

describe('an active token', () => {
  it('names its client, and the server is asked as RFC 7662 says', async () => {
    say({ scope: 'orders:read' })
    const { status, json } = await show(await api(), 't')
    expect(status).toBe(200)
    expect(json.client).toMatchObject({
      id: `sub:${server.issuer}|ann`,
      kind: 'unknown',
      provedBy: 'introspect',
      claims: { sub: 'ann', client_id: 'app', scope: 'orders:read' },
    })
    expect(server.bodies('/introspect').map(String)).toEqual(['token=t&token_type_hint=access_token'])
  })

  it.each<[string, object, Partial<IntrospectOptions>, string, string]>([
    ['the issuer that it names', { iss: 'https://id.example.com' }, {}, 'https://id.example.com|ann', 'unknown'],
    ['the issuer that is expected', {}, { issuer: 'https://id.example.com' }, 'https://id.example.com|ann', 'unknown'],
    ['its client', { sub: undefined }, {}, '|app', 'unknown'],
    ['its client, though it has a user name', { sub: undefined, username: 'ann@example.com' }, {}, '|app', 'unknown'],
    [
      'its user, where nothing else is told',
      { sub: null, client_id: null, username: 'ann@example.com' },
      {},
      '|ann@example.com',
      'unknown',
    ],
    ['an agent by its client', { sub: 'app' }, {}, '|app', 'agent'],
    ['an agent that acts for somebody', { act: { sub: 'bot' } }, {}, '|ann|agent', 'agent'],
    ['an agent of the list', {}, { agents: ['app'] }, '|ann|agent', 'agent'],
  ])('is counted by %s', async (_what, changes, added, id, kind) => {
    say(changes)
    const { json } = await show(await api(added), 't')
    expect(json.client).toMatchObject({ id: `sub:${id.startsWith('|') ? server.issuer : ''}${id}`, kind })
  })

  it.each<[string, object, Partial<IntrospectOptions>]>([
    ['of the audience', {}, { audience }],
    ['of one of several audiences', { aud: ['x', audience] }, { audience: [audience] }],
    ['that lives as long as it may', {}, { maxLifetime: '1m' }],
    ['that expired within the tolerance', { exp: noonSeconds - 4 }, {}],
    ['with all scopes', { scope: 'c b a' }, { scopes: ['a', 'b'] }],
    [
      'whose server writes null for nothing',
      { cnf: null, iss: null, exp: null, nbf: null, scope: null, token_type: null },
      {},
    ],
    ['that names the right issuer', { iss: 'https://id.example.com' }, { issuer: 'https://id.example.com' }],
  ])('%s is good', async (_what, changes, added) => {
    say(changes)
    expect((await show(await api(added), 't')).status).toBe(200)
  })

  it('of an agent, opaque, got and used by a client that nobody here wrote', async () => {
    const as = { issuer: server.issuer, token_endpoint: `${server.issuer}/token` }
    const client: oauth.Client = { client_id: 'agent' }
    const secret = oauth.ClientSecretBasic('an agent secret')
    const response = await oauth.clientCredentialsGrantRequest(
      as,
      client,
      secret,
      { opaque: 'yes', resource: audience },
      insecure,
    )
    const { access_token } = await oauth.processClientCredentialsResponse(as, client, response)
    const { port } = await api({ audience, now: Date.now })
    const url = new URL(`http://127.0.0.1:${port}/`)
    const answer = await oauth.protectedResourceRequest(access_token, 'GET', url, undefined, undefined, insecure)
    expect(await answer.json()).toMatchObject({ client: { id: `sub:${server.issuer}|agent`, kind: 'agent' } })
    // The server means the same by its answer as that client reads.
    const introspection = { ...as, introspection_endpoint: `${server.issuer}/introspect` }
    const read = await oauth.introspectionRequest(introspection, client, secret, access_token, insecure)
    expect(await oauth.processIntrospectionResponse(introspection, client, read)).toMatchObject({
      active: true,
      sub: 'agent',
    })
  })
})

describe('a token is refused that', () => {
  it.each<[string, object | null, string, Partial<IntrospectOptions>?]>([
    ['is not known', null, 'the token is not active'],
    ['is not active', { active: false }, 'the token is not active'],
    ['is a refresh token, by token_use', { token_use: 'refresh_token' }, 'the token is no access token'],
    ['is a refresh token, by token_type', { token_type: 'refresh_token' }, 'the token is no access token'],
    ['is a refresh token, by typ', { typ: 'Refresh' }, 'the token is no access token'],
    ['is an ID token, by typ', { typ: 'ID' }, 'the token is no access token'],
    [
      'is of another issuer',
      { iss: 'https://other.example' },
      'the token is of another issuer',
      { issuer: 'https://id.example.com' },
    ],
    ['is for somebody else', { aud: 'https://other.example' }, 'the token is for somebody else', { audience }],
    ['is for nobody', { aud: undefined }, 'the token is for somebody else', { audience }],
    ['has expired', { exp: noonSeconds - 5 }, 'the token has expired'],
    ['is not valid yet', { nbf: noonSeconds + 6 }, 'the token is not valid yet'],
    [
      'lives too long',
      { exp: noonSeconds + 61 },
      'the token lives longer than is accepted here',
      { maxLifetime: '1m' },
    ],
    ['never expires', { exp: undefined }, 'the token lives longer than is accepted here', { maxLifetime: '1m' }],
    [
      'does not say since when it lives',
      { iat: undefined },
      'the token lives longer than is accepted here',
      { maxLifetime: '1m' },
    ],
    ['names nobody', { sub: undefined, client_id: undefined }, 'the token names nobody'],
    ['has an empty subject and nothing else', { sub: '', client_id: '', username: '' }, 'the token names nobody'],
    ['has an endless subject', { sub: 'a'.repeat(1025) }, 'the token names nobody'],
    [
      'is bound to a DPoP key',
      { cnf: { jkt: 'k' } },
      'the token is bound to something else than the key that was shown',
    ],
    [
      'is bound to a certificate',
      { cnf: { 'x5t#S256': 'c' } },
      "the token is bound to another certificate than the client's",
    ],
    [
      'is bound to something else',
      { cnf: { jwk: {} } },
      'the token is bound to something else than the key that was shown',
    ],
    [
      'is bound to what cannot be read',
      { cnf: 'k' },
      'the token is bound to something else than the key that was shown',
    ],
    [
      'is of type DPoP, with a key that is not told',
      { token_type: 'DPoP' },
      'the token is bound to something else than the key that was shown',
    ],
  ])('%s', async (_what, changes, reason, added = {}) => {
    if (changes !== null) say(changes)
    const { status, headers } = await show(await api(added), 't')
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toBe(challengeOf(reason))
    say()
    expect((await show(await api(), 't')).status).toBe(200)
  })

  it('lacks scopes: 403, with those that are needed', async () => {
    say({ scope: 'a' })
    const resourceMetadata = `${audience}/.well-known/oauth-protected-resource`
    const { status, headers } = await show(await api({ scopes: ['a', 'b'], resourceMetadata }), 't')
    expect(status).toBe(403)
    expect(headers['www-authenticate']).toBe(
      `Bearer error="insufficient_scope", error_description="the token lacks a scope", scope="a b", resource_metadata="${resourceMetadata}"`,
    )
  })
})

it('a token that is not valid yet is no failed proof', async () => {
  say({ nbf: noonSeconds + 6 })
  const served = await api({}, 1)
  expect((await show(served, 't')).status).toBe(401)
  say({}, 'u')
  expect((await show(served, 'u')).status).toBe(200)
})

it.each(['DPoP', 'DPoP a b', 'DPoP a, Bearer b'])(
  'what is no token is 400 where proofs are read: %j',
  async (authorization) => {
    const { status, headers } = await (await api({ origin: audience })).ask('/', { headers: { authorization } })
    expect(status).toBe(400)
    expect(headers['www-authenticate']).toMatch(/^(DPoP|Bearer) error="invalid_request"/)
    expect(asked()).toBe(0)
  },
)

describe('a credential is passed over, and not sent to the server, that', () => {
  it.each([
    ['is of another scheme', 'Basic YTpi'],
    ['comes with a DPoP proof, which is not looked at without an origin', 'DPoP t'],
    ['is empty', 'Bearer '],
    ['is no token by its characters', 'Bearer a,b'],
    ['has a space in it', 'Bearer a b'],
    ['has an = in its middle', 'Bearer a=b'],
  ])('%s', async (_what, authorization) => {
    const { status, json } = await (await api()).ask('/', { headers: { authorization } })
    expect(status).toBe(200)
    expect(json.client).toMatchObject({ kind: 'anonymous' })
    expect(asked()).toBe(0)
  })

  it('is longer than any', async () => {
    const answer = await introspect(options()).verify(requestWith(`Bearer ${'a'.repeat(16_385)}`), unlimited)
    expect(answer).toEqual({ outcome: 'absent' })
    expect(asked()).toBe(0)
  })

  it('is a JWT of another issuer than the one expected', async () => {
    const issuer = 'https://id.example.com'
    const key = await createSigningKey()
    const ours = await key.sign({ ...claims, iss: issuer })
    const other = await key.sign({ ...claims, iss: 'https://other.example' })
    say({}, ours)
    say({}, other)
    const served = await api({ issuer })
    expect((await show(served, other)).json.client).toMatchObject({ kind: 'anonymous' })
    expect(asked()).toBe(0)
    expect((await show(served, ours)).json.client).toMatchObject({ provedBy: 'introspect' })
    expect(asked()).toBe(1)
  })

  it('is any JWT, where no issuer is expected', async () => {
    const token = await (await createSigningKey()).sign({ ...claims, iss: server.issuer })
    say({}, token)
    expect((await show(await api(), token)).json.client).toMatchObject({ kind: 'anonymous' })
    expect(asked()).toBe(0)
  })

  it('but not one that only looks like a JWT', async () => {
    const token = 'aaaa.bbbb.cccc'
    say({}, token)
    expect((await show(await api(), token)).json.client).toMatchObject({ provedBy: 'introspect' })
  })

  it.each<[string, Partial<IntrospectOptions>, number]>([
    ['is the business of bearer', {}, 200],
    ['unless it is to be refused when it was revoked', { issuer: claims.iss }, 401],
  ])('%s', async (_what, added, afterwards) => {
    const app = express()
    const key = await createSigningKey()
    const identify = [
      bearer({ issuer: claims.iss, audience, jwks: { keys: [key.jwk] }, now: () => time }),
      introspect({ ...options(), ...added, cache: false }),
    ]
    app.use(opened(rampmeter({ policies: [], identify })))
    app.use(tellDecision)
    const served = await serve(app)
    const token = await key.sign(claims)
    say()
    say({}, token)
    expect((await show(served, jwtOf({ alg: 'ES256' }, claims))).status).toBe(401)
    expect(asked()).toBe(0)
    expect((await show(served, 't')).json.client).toMatchObject({ provedBy: 'introspect' })
    expect((await show(served, token)).json.client).toMatchObject({ provedBy: 'bearer' })
    server.tokens.delete(token)
    expect((await show(served, token)).status).toBe(afterwards)
  })

  it('a verifier before it, which knows it, found good', async () => {
    const app = express()
    const own: Verifier = {
      name: 'own',
      verify(req, attempts) {
        if (req.headers.authorization !== 'Bearer our-key') return { outcome: 'absent' }
        noteProven(req, attempts)
        return { outcome: 'verified', identity: { id: 'own:1', kind: 'agent', confidence: 1, reason: 'it is ours' } }
      },
    }
    app.use(opened(rampmeter({ policies: [], identify: [own, introspect(options())] })))
    app.use(tellDecision)
    const served = await serve(app)
    expect((await show(served, 'our-key')).json.client).toMatchObject({ id: 'own:1' })
    expect(asked()).toBe(0)
    expect((await show(served, 'other')).status).toBe(401)
    expect(asked()).toBe(1)
  })

  it('came twice: 400', async () => {
    const head = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer t\r\n'
    const answer = await (await api()).send(`${head}Authorization: Bearer u\r\n\r\n`)
    expect(answer).toMatch(/^HTTP\/1\.1 400 /)
    expect(answer).toMatch(/^WWW-Authenticate: Bearer error="invalid_request"/m)
    expect(asked()).toBe(0)
  })
})

describe('the server is asked', () => {
  it('once about a token that many show at once', async () => {
    say()
    const verifier = introspect({ ...options(), cache: false })
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => Promise.resolve(verifier.verify(requestWith('Bearer t'), unlimited))),
    )
    expect(new Set(answers.map(({ outcome }) => outcome))).toEqual(new Set(['verified']))
    expect(asked()).toBe(1)
  })

  it('again after ten seconds, so that a token that is revoked stops', async () => {
    say()
    const served = await api()
    for (let count = 0; count < 5; count += 1) await show(served, 't')
    server.tokens.clear()
    time += 9999
    expect((await show(served, 't')).status).toBe(200)
    expect(asked()).toBe(1)
    time += 1
    expect((await show(served, 't')).status).toBe(401)
    expect(asked()).toBe(2)
  })

  it('as often as `cache` says', async () => {
    say({ exp: noonSeconds + 3600 })
    const served = await api({ cache: '1m' })
    await show(served, 't')
    time += 59_999
    await show(served, 't')
    expect(asked()).toBe(1)
    time += 1
    await show(served, 't')
    expect(asked()).toBe(2)
  })

  it('each time, with `cache: false`', async () => {
    say()
    const served = await api({ cache: false })
    for (let count = 0; count < 3; count += 1) expect((await show(served, 't')).status).toBe(200)
    expect(asked()).toBe(3)
  })

  it('again when the token has expired, however long answers are remembered', async () => {
    say({ exp: noonSeconds + 3 })
    const served = await api({ cache: '1h' })
    await show(served, 't')
    time += 2999
    await show(served, 't')
    expect(asked()).toBe(1)
    time += 1
    await show(served, 't')
    expect(asked()).toBe(2)
  })

  it('once about a wrong token that is tried again', async () => {
    const served = await api()
    for (let count = 0; count < 5; count += 1) expect((await show(served, 'wrong')).status).toBe(401)
    expect(asked()).toBe(1)
  })

  it('no more for an address that has guessed too often, but for tokens that were good', async () => {
    say()
    const served = await api({ cache: false }, 3)
    expect((await show(served, 't')).status).toBe(200)
    for (let count = 0; count < 3; count += 1) expect((await show(served, `guess${count}`)).status).toBe(401)
    expect((await show(served, 'guess3')).status).toBe(429)
    expect(asked()).toBe(4)
    expect((await show(served, 't')).status).toBe(200)
  })

  it('again about a token that has gone out of memory, which holds so many characters', async () => {
    const claim = 'x'.repeat(50_000)
    let calls = 0
    const fetch = (async () => {
      calls += 1
      return Response.json({ active: true, sub: 'ann', claim })
    }) as typeof globalThis.fetch
    const verifier = introspect({ ...options(), cache: '1h', fetch })
    for (let count = 0; count < 450; count += 1) await verifier.verify(requestWith(`Bearer t${count}`), unlimited)
    expect(calls).toBe(450)
    await verifier.verify(requestWith('Bearer t449'), unlimited)
    expect(calls).toBe(450)
    await verifier.verify(requestWith('Bearer t0'), unlimited)
    expect(calls).toBe(451)
  })
})

describe('a server that cannot be asked', () => {
  const faults: [string, Parameters<AuthorizationServer['faults']['set']>[1], string][] = [
    ['answers 500', 500, 'HTTP_500'],
    ['does not know us', 401, 'HTTP_401'],
    ['forbids it', 403, 'HTTP_403'],
    ['wants us to slow down', 429, 'HTTP_429'],
    ['does not take the token', 400, 'HTTP_400'],
    ['sends us elsewhere', (_req, res) => void res.writeHead(307, { location: '/other' }).end(), 'HTTP_307'],
    ['answers with a page', (_req, res) => void res.end('<html>t</html>'), 'MALFORMED'],
    ['answers with a list', (_req, res) => void res.end('[]'), 'MALFORMED'],
    ['answers with null', (_req, res) => void res.end('null'), 'MALFORMED'],
    ['does not say whether it is active', (_req, res) => void res.end('{"sub":"ann"}'), 'MALFORMED'],
    ['says so in a text', (_req, res) => void res.end('{"active":"true","sub":"ann"}'), 'MALFORMED'],
    [
      'writes times as texts',
      (_req, res) => void res.end('{"active":true,"sub":"ann","exp":"2000000000"}'),
      'MALFORMED',
    ],
    ['names a subject that is no text', (_req, res) => void res.end('{"active":true,"sub":["ann"]}'), 'MALFORMED'],
    [
      'names an audience that is no text',
      (_req, res) => void res.end('{"active":true,"sub":"ann","aud":[7]}'),
      'MALFORMED',
    ],
    [
      'answers without end',
      (_req, res) => void res.end(`{"active":true,"sub":"ann","a":"${'a'.repeat(70_000)}"}`),
      'TOO_LONG',
    ],
    ['hangs up', (req) => void req.socket.destroy(), 'UND_ERR_SOCKET'],
  ]

  it.each(faults)('that %s makes it 503, never 401', async (_what, fault, code) => {
    server.faults.set('/introspect', fault)
    const { status, headers } = await show(await api(), 't')
    expect(status).toBe(503)
    expect(headers['www-authenticate']).toBeUndefined()
    expect(Number(headers['retry-after'])).toBeGreaterThan(0)
    expect(server.asked('/other')).toBe(0)
    const answer = await introspect(options()).verify(requestWith('Bearer t'), unlimited)
    expect(answer).toMatchObject({ outcome: 'unavailable', cause: { name: 'IntrospectionFailed', code } })
  })

  it('that is not there makes it 503', async () => {
    await server.close()
    expect(await introspect(options()).verify(requestWith('Bearer t'), unlimited)).toMatchObject({
      outcome: 'unavailable',
      cause: { code: 'ECONNREFUSED' },
    })
  })

  it.each([
    ['does not answer', () => {}],
    ['does not end its answer', (_req: http.IncomingMessage, res: http.ServerResponse) => void res.write('{"active":')],
  ])('that %s is waited for so long', async (_what, fault) => {
    server.faults.set('/introspect', fault)
    const startedAt = Date.now()
    const answer = await introspect({ ...options(), timeout: '200ms' }).verify(requestWith('Bearer t'), unlimited)
    expect(answer).toMatchObject({ outcome: 'unavailable', cause: { code: 'TIMEOUT' } })
    expect(Date.now() - startedAt).toBeGreaterThanOrEqual(199)
    expect(Date.now() - startedAt).toBeLessThan(2000)
  })

  it('is waited for so long, also by a `fetch` that overlooks the signal', async () => {
    const verifier = introspect({ ...options(), timeout: '50ms', fetch: () => new Promise(() => {}) })
    expect(await verifier.verify(requestWith('Bearer t'), unlimited)).toMatchObject({ outcome: 'unavailable' })
  })

  it('leaves no secret in what is reported', async () => {
    const secrets = [
      's3cr3t-token',
      clientSecret,
      'hunter2',
      Buffer.from('hunter2').toString('base64').slice(0, 8),
      'private@example.com',
    ]
    const causes: unknown[] = []
    for (const fetch of [
      async () => new Response('{"sub":"private@example.com",,}'),
      async () => new Response('{"active":true,"sub":"private@example.com","exp":"private@example.com"}'),
      async (_url: unknown, init: unknown) => {
        throw Object.assign(new Error(`cannot send ${inspect(init)}`), { init })
      },
    ] as (typeof globalThis.fetch)[]) {
      const answer = await introspect({ ...options(), fetch }).verify(requestWith('Bearer s3cr3t-token'), unlimited)
      expect(answer).toMatchObject({ outcome: 'unavailable' })
      causes.push(answer)
    }
    const shown = inspect(causes, { depth: 10, showHidden: true })
    for (const secret of secrets) expect(shown).not.toContain(secret)
  })

  describe('is asked no more than it needs', () => {
    beforeEach(() => {
      vi.useFakeTimers({ toFake: ['performance'] })
      vi.advanceTimersByTime(1)
    })

    afterEach(() => {
      vi.useRealTimers()
    })

    it('after three failures: then once a second, two, four, eight', async () => {
      const served = await api()
      server.faults.set('/introspect', 503)
      let count = 0
      const tryOne = async (): Promise<number> => (await show(served, `t${(count += 1)}`)).status
      for (let tries = 0; tries < 20; tries += 1) expect(await tryOne()).toBe(503)
      expect(asked()).toBe(3)
      for (const [nth, pause] of [1000, 2000, 4000, 8000, 8000].entries()) {
        vi.advanceTimersByTime(pause - 1)
        await tryOne()
        expect(asked()).toBe(3 + nth)
        vi.advanceTimersByTime(1)
        // All the others wait for what becomes of the first.
        expect(new Set(await Promise.all(Array.from({ length: 10 }, tryOne)))).toEqual(new Set([503]))
        expect(asked()).toBe(4 + nth)
      }
    })

    it('and is asked about everybody again when it has answered one', async () => {
      const served = await api()
      server.faults.set('/introspect', 503)
      for (let count = 0; count < 5; count += 1) await show(served, `lost${count}`)
      server.faults.clear()
      for (let count = 0; count < 10; count += 1) say({}, `t${count}`)
      expect((await show(served, 't0')).status).toBe(503)
      vi.advanceTimersByTime(1000)
      const replies = await Promise.all(Array.from({ length: 10 }, (_, count) => show(served, `t${count}`)))
      expect(replies.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200))
      expect(asked()).toBe(3 + 10)
    })

    it('but a token that it does not take shuts out nobody else', async () => {
      const served = await api()
      say()
      server.faults.set('/introspect', 400)
      for (let count = 0; count < 10; count += 1) expect((await show(served, `strange${count}`)).status).toBe(503)
      server.faults.clear()
      expect((await show(served, 't')).status).toBe(200)
    })

    it('and one failure in between is only that', async () => {
      const served = await api({ cache: false })
      say()
      for (let count = 0; count < 5; count += 1) {
        server.faults.set('/introspect', 500)
        expect((await show(served, 't')).status).toBe(503)
        expect((await show(served, 't')).status).toBe(503)
        server.faults.clear()
        expect((await show(served, 't')).status).toBe(200)
      }
    })
  })

  it('does not matter for tokens that were good a moment ago', async () => {
    say()
    const served = await api()
    expect((await show(served, 't')).status).toBe(200)
    server.faults.set('/introspect', 503)
    expect((await show(served, 't')).status).toBe(200)
  })
})

describe('a token that is bound to a DPoP key', () => {
  /** An API and an agent with a key and an opaque token for it. */
  async function agent(changes: Partial<IntrospectOptions> = {}) {
    const app = express()
    const served = await serve(app)
    const origin = `http://127.0.0.1:${served.port}`
    app.use(appWith({ origin, now: Date.now, ...changes }))
    const as = { issuer: server.issuer, token_endpoint: `${server.issuer}/token` }
    const client: oauth.Client = { client_id: 'agent' }
    const keys = await oauth.generateKeyPair('ES256')
    const DPoP = oauth.DPoP(client, keys)
    const secret = oauth.ClientSecretBasic('an agent secret')
    const response = await oauth.clientCredentialsGrantRequest(
      as,
      client,
      secret,
      { opaque: 'yes' },
      { DPoP, ...insecure },
    )
    const { access_token } = await oauth.processClientCredentialsResponse(as, client, response)
    const use = (dpop: oauth.DPoPHandle | undefined, token = access_token, path = '/orders') =>
      oauth
        .protectedResourceRequest(token, 'GET', new URL(origin + path), undefined, undefined, {
          ...insecure,
          ...(dpop && { DPoP: dpop }),
        })
        .then(
          async (answer) => ({
            status: answer.status,
            json: (await answer.json()) as never,
            parameters: undefined,
            scheme: '',
          }),
          (error: oauth.WWWAuthenticateChallengeError) => ({
            status: error.status,
            json: undefined,
            ...error.cause[0]!,
          }),
        )
    return { served, client, DPoP, access_token, use }
  }

  it('proves its client with the key', async () => {
    const { DPoP, use } = await agent()
    for (let count = 0; count < 3; count += 1) {
      const { status, json } = await use(DPoP)
      expect(status).toBe(200)
      expect(json).toMatchObject({
        client: { id: `sub:${server.issuer}|agent`, kind: 'agent', provedBy: 'introspect' },
      })
    }
    expect(asked()).toBe(1)
  })

  it('is refused with another key', async () => {
    const { client, use } = await agent()
    const stolen = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
    expect(await use(stolen)).toMatchObject({
      status: 401,
      scheme: 'dpop',
      parameters: { error: 'invalid_dpop_proof' },
    })
  })

  it('is refused as a bearer token, with how to send it', async () => {
    const { use } = await agent()
    expect(await use(undefined)).toMatchObject({
      status: 401,
      scheme: 'dpop',
      parameters: {
        error: 'invalid_token',
        error_description: 'the token is bound to a key: send it as DPoP, with a proof',
        algs: 'ES256 EdDSA Ed25519 RS256 PS256',
      },
    })
  })

  it('is not asked about where the proof is wrong already', async () => {
    const { served, access_token } = await agent()
    const answer = await show(served, access_token, 'DPoP')
    expect(answer.status).toBe(401)
    expect(answer.headers['www-authenticate']).toMatch(/^DPoP error="invalid_dpop_proof"/)
    expect(asked()).toBe(0)
  })

  it('is the only kind that goes with a proof', async () => {
    const { DPoP, use } = await agent()
    say({ exp: undefined, iat: undefined })
    expect(await use(DPoP, 't')).toMatchObject({
      status: 401,
      scheme: 'dpop',
      parameters: {
        error: 'invalid_token',
        error_description: 'the token is bound to something else than the key that was shown',
      },
    })
    expect(await use(DPoP, 'unknown')).toMatchObject({
      status: 401,
      scheme: 'dpop',
      parameters: { error: 'invalid_token', error_description: 'the token is not active' },
    })
  })

  it('is refused where it is bound to a certificate, too, that was not shown', async () => {
    const { DPoP, access_token, use } = await agent()
    const answer = server.tokens.get(access_token) as { cnf: object }
    server.tokens.set(access_token, { ...answer, cnf: { ...answer.cnf, 'x5t#S256': 'c' } })
    expect(await use(DPoP)).toMatchObject({
      status: 401,
      parameters: { error_description: "the token is bound to another certificate than the client's" },
    })
  })

  it('may have to come with a nonce, which the client learns from the challenge', async () => {
    const { DPoP, use } = await agent({ nonce: 'require' })
    expect(await use(DPoP)).toMatchObject({ status: 401, parameters: { error: 'use_dpop_nonce' } })
    expect(await use(DPoP)).toMatchObject({ status: 200 })
  })
})

describe('a token that is bound to a certificate', () => {
  /** What an API over TLS answers who connects with this certificate. */
  async function apiOverTls(changes: Partial<IntrospectOptions> = {}) {
    const authority = await createAuthority()
    const { key, cert } = await authority.issue()
    const tls = https.createServer({ key, cert, requestCert: true, rejectUnauthorized: false }, appWith(changes))
    tls.listen(0, '127.0.0.1')
    await once(tls, 'listening')
    onTestFinished(() => {
      tls.closeAllConnections()
      tls.close()
    })
    const { port } = tls.address() as AddressInfo
    return async (certificate: Certificate | undefined, fields: Record<string, string> = {}) => {
      const request = https.get({
        host: '127.0.0.1',
        port,
        ca: authority.cert,
        agent: false,
        headers: { authorization: 'Bearer t', ...fields },
        ...(certificate && { key: certificate.key, cert: certificate.cert }),
      })
      const [response] = (await once(request, 'response')) as [http.IncomingMessage]
      response.setEncoding('utf8')
      const body = (await response.toArray()).join('')
      return { status: response.statusCode, challenge: response.headers['www-authenticate'], body }
    }
  }

  async function thumbprint({ der }: Certificate): Promise<string> {
    return Buffer.from(await crypto.subtle.digest('SHA-256', new Uint8Array(der))).toString('base64url')
  }

  it('proves its client with the certificate of the connection, and with no other', async () => {
    const ask = await apiOverTls()
    const [own, other] = [await selfSigned(), await selfSigned()]
    say({ cnf: { 'x5t#S256': await thumbprint(own) } })
    expect(await ask(own)).toMatchObject({ status: 200, body: expect.stringContaining('"provedBy":"introspect"') })
    const refused = {
      status: 401,
      challenge: challengeOf("the token is bound to another certificate than the client's"),
    }
    expect(await ask(other)).toMatchObject(refused)
    expect(await ask(undefined)).toMatchObject(refused)
    expect(await ask(undefined, { 'client-cert': `:${own.der.toString('base64')}:` })).toMatchObject(refused)
    expect(await ask(own)).toMatchObject({ status: 200 })
  })

  it('may be told by a trusted proxy', async () => {
    const ask = await apiOverTls({ trustedProxies: 'loopback' })
    const own = await selfSigned()
    say({ cnf: { 'x5t#S256': await thumbprint(own) } })
    expect(await ask(undefined, { 'client-cert': `:${own.der.toString('base64')}:` })).toMatchObject({ status: 200 })
    expect(await ask(own)).toMatchObject({ status: 401 })
    expect(await ask(undefined, { 'client-cert': 'x' })).toMatchObject({ status: 400 })
  })
})

describe('whatever stands in Authorization', () => {
  it('leads to an answer in time', async () => {
    const served = await api()
    const text = fc.string({
      unit: fc
        .integer({ min: 0x20, max: 0xff })
        .filter((code) => code !== 0x7f)
        .map((code) => String.fromCharCode(code)),
    })
    const token = fc.oneof(
      text,
      fc.base64String({ minLength: 4 }),
      fc.tuple(fc.base64String(), fc.base64String(), fc.base64String()).map((parts) => parts.join('.')),
    )
    const value = fc.oneof(
      text,
      fc.tuple(fc.constantFrom('Bearer', 'bearer', 'DPoP'), token).map((parts) => parts.join(' ')),
    )
    await fc.assert(
      fc.asyncProperty(value, async (authorization) => {
        const head = `GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: ${authorization}\r\n\r\n`
        const answer = await served.send(Buffer.from(head, 'latin1'))
        expect(answer).toMatch(/^HTTP\/1\.1 (200|401) /)
        if (answer.startsWith('HTTP/1.1 401'))
          expect(answer).toMatch(/^WWW-Authenticate: Bearer error="invalid_token"/m)
      }),
      { numRuns: 200 },
    )
    for (const body of server.bodies('/introspect')) expect(body.get('token')).toMatch(/^[\w\-.~+/]+=*$/)
  })

  it('and whatever the server answers', async () => {
    const value = fc.jsonValue({ maxDepth: 3 })
    const names = [
      'sub',
      'exp',
      'iat',
      'nbf',
      'aud',
      'iss',
      'cnf',
      'act',
      'scope',
      'client_id',
      'username',
      'token_type',
      'typ',
    ]
    const answers = fc.oneof(
      value,
      fc.record(
        { active: fc.constant(true), ...Object.fromEntries(names.map((name) => [name, value])) },
        { requiredKeys: ['active'] },
      ),
    )
    await fc.assert(
      fc.asyncProperty(answers, async (said) => {
        const fetch = (async () => Response.json(said)) as typeof globalThis.fetch
        const verifier = introspect({ ...options(), audience, maxLifetime: '1h', fetch })
        const { outcome } = await verifier.verify(requestWith('Bearer t'), unlimited)
        expect(['verified', 'invalid', 'unavailable']).toContain(outcome)
      }),
      { numRuns: 500 },
    )
  })
})

describe('the options', () => {
  it.each<[string, object, string]>([
    ['an endpoint over http', { endpoint: 'http://id.example.com/introspect' }, 'RAMPMETER_INVALID_OPTION'],
    ['an endpoint with a password', { endpoint: 'https://a:b@id.example.com/' }, 'RAMPMETER_INVALID_OPTION'],
    ['no endpoint', { endpoint: undefined }, 'RAMPMETER_INVALID_OPTION'],
    ['no secret', { clientSecret: '' }, 'RAMPMETER_INVALID_OPTION'],
    ['no id', { clientId: undefined }, 'RAMPMETER_INVALID_OPTION'],
    ['a cache without a unit', { cache: '10' }, 'RAMPMETER_INVALID_DURATION'],
    ['a cache that is true', { cache: true }, 'RAMPMETER_INVALID_DURATION'],
    ['no time at all', { timeout: 0 }, 'RAMPMETER_INVALID_DURATION'],
    ['nonces without an origin', { nonce: 'require' }, 'RAMPMETER_INVALID_OPTION'],
    ['proxies that are counted', { trustedProxies: 1 }, 'RAMPMETER_INVALID_OPTION'],
    ['what does not exist', { secret: 'x' }, 'RAMPMETER_UNKNOWN_OPTION'],
  ])('do not take %s', (_what, changes, code) => {
    expect(() => introspect({ ...options(), ...changes })).toThrow(expect.objectContaining({ code }))
  })

  it('take an URL, and keep the secret to themselves', () => {
    expect(introspect({ ...options(), endpoint: new URL('https://id.example.com/introspect') }).name).toBe('introspect')
    expect(() => introspect({ ...options(), clientSecret: ['hunter2'] as never })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('hunter2') }),
    )
  })

  it('offer DPoP as the way to a better tier only where it is looked at', () => {
    expect(introspect(options()).stepUp).toBeUndefined()
    expect(introspect({ ...options(), origin: audience }).stepUp?.challenge).toBe(
      'DPoP algs="ES256 EdDSA Ed25519 RS256 PS256"',
    )
    expect(introspect(options()).challengeFor!(['a', 'b'], 'insufficient_scope')).toBe(
      'Bearer error="insufficient_scope", scope="a b"',
    )
  })
})
