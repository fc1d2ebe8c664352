// Who holds a key, over real HTTP, with clients that nobody here wrote: `dpop` makes the proofs, `oauth4webapi` gets the tokens.

import { spawn } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { calculateThumbprint, generateKeyPair, generateProof, type KeyPair } from 'dpop'
import express, { type Express } from 'express'
import * as oauth from 'oauth4webapi'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import { bearer } from '../../src/identify/bearer.ts'
import { dpop, type DpopOptions } from '../../src/identify/dpop.ts'
import { session } from '../../src/identify/session.ts'
import type { Verifier } from '../../src/identify/verifier.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Limiter } from '../../src/limiter.ts'
import { startAuthorizationServer } from '../identify/authorization-server.ts'
import { createSigningKey, type SigningKey } from '../identify/issuer.ts'
import { clientOf, redisProcess } from './redis-process.ts'
import { opened, serve, tellDecision, type Reply, type Served } from './serve.ts'
import { openRedis, stores } from './stores.ts'

const issuer = 'https://id.example.com'
const audience = 'https://api.example.com'
const origin = 'https://api.example.com'

interface Agent {
  readonly pair: KeyPair
  readonly token: string
  /** Fields that show the token with a proof of its own for each request. */
  fields(changes?: Changes): Promise<Record<string, string>>
}

interface Changes {
  readonly method?: string
  readonly path?: string
  readonly nonce?: string
  readonly more?: Record<string, string | number>
}

async function createAgent(key: SigningKey, claims: Record<string, unknown> = {}): Promise<Agent> {
  const pair = await generateKeyPair('ES256')
  const now = Math.floor(Date.now() / 1000)
  const jkt = await calculateThumbprint(pair.publicKey)
  const token = await key.sign({
    iss: issuer,
    aud: audience,
    sub: 'acme',
    client_id: 'acme',
    iat: now,
    exp: now + 300,
    cnf: { jkt },
    ...claims,
  })
  return {
    pair,
    token,
    async fields({ method = 'GET', path = '/', nonce, more } = {}) {
      const proof = await generateProof(pair, `${origin}${path}`, method, nonce, token, more)
      return { authorization: `DPoP ${token}`, dpop: proof }
    },
  }
}

interface Api {
  readonly key: SigningKey
  readonly limiter: Limiter
  readonly served: Served
}

async function serveApi(
  options: LimiterOptions<string> & {
    dpop?: Partial<DpopOptions>
    app?: (app: Express, limiter: Limiter) => Express
  } = {},
): Promise<Api> {
  const { dpop: changes, app = (plain) => plain.get('/', tellDecision), ...rest } = options
  const key = await createSigningKey()
  const tokens = { issuer, audience, jwks: { keys: [key.jwk] } }
  const limiter = opened(
    rampmeter({
      deadline: '5s',
      identify: [dpop({ ...tokens, origin, ...changes }), bearer(tokens), apiKey({ lookup: () => null })],
      ...rest,
    } as LimiterOptions),
  ) as unknown as Limiter
  return { key, limiter, served: await serve(app(express().use(limiter), limiter)) }
}

describe.each(stores)('proofs $name', ({ makeStore }) => {
  it('earn the tier of verified agents, and admit one request', async () => {
    const { key, served } = await serveApi({ store: await makeStore() })
    const agent = await createAgent(key)
    const headers = await agent.fields()
    const first = await served.ask('/', { headers })
    expect(first.status).toBe(200)
    expect(first.headers['x-ratelimit-tier']).toBe('verified-agent')
    expect(first.json.client).toMatchObject({
      id: `sub:${issuer}|acme`,
      kind: 'agent',
      provedBy: 'dpop',
      tier: 'verified-agent',
    })
    expect(first.json.limits.map(({ name }: { name: string }) => name)).toEqual([
      'per-minute',
      'per-hour',
      'first-minutes',
    ])

    const again = await served.ask('/', { headers })
    expect(again.status).toBe(401)
    expect(again.headers['www-authenticate']).toMatch(
      /^DPoP error="invalid_dpop_proof", error_description="the proof was used before", algs=/,
    )
    expect(again.headers['cache-control']).toBe('no-store')
    expect(again.problem).toMatchObject({ type: 'about:blank', status: 401 })
    expect((await served.ask('/', { headers: await agent.fields() })).status).toBe(200)
  })

  it('shown by twenty at once admit one of them', async () => {
    const { key, served } = await serveApi({ store: await makeStore() })
    const headers = await (await createAgent(key)).fields()
    const replies = await Promise.all(Array.from({ length: 20 }, () => served.ask('/', { headers })))
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(replies.filter(({ status }) => status === 401 || status === 429)).toHaveLength(19)
  })

  it('shown again and again are one failure of their address', async () => {
    const { key, served } = await serveApi({
      store: await makeStore(),
      verification: { failures: { quota: 2, window: '1m' } },
      policies: [slidingWindow({ quota: 100, window: '1h' })],
    })
    const headers = await (await createAgent(key)).fields()
    for (let index = 0; index < 6; index += 1) await served.ask('/', { headers })
    expect((await served.ask('/', { headers: await (await createAgent(key)).fields() })).status).toBe(200)
  })

  it('shown again and again cost no signature each', async () => {
    const { key, served } = await serveApi({ store: await makeStore() })
    const headers = await (await createAgent(key)).fields()
    const verified = vi.spyOn(crypto.subtle, 'verify')
    onTestFinished(() => verified.mockRestore())
    for (const status of [200, 401]) expect((await served.ask('/', { headers })).status).toBe(status)
    const signatures = verified.mock.calls.length
    for (let index = 0; index < 5; index += 1) {
      const reply = await served.ask('/', { headers })
      expect(reply.headers['www-authenticate']).toContain('the proof was used before')
    }
    expect(verified).toHaveBeenCalledTimes(signatures)
  })

  it('of a request that was refused are not used up', async () => {
    const store = await makeStore()
    const { key, limiter, served } = await serveApi({ store, policies: [slidingWindow({ quota: 1, window: '1h' })] })
    const agent = await createAgent(key)
    expect((await served.ask('/', { headers: await agent.fields() })).status).toBe(200)
    const headers = await agent.fields()
    expect((await served.ask('/', { headers })).status).toBe(429)
    await limiter.reset(`sub:${issuer}|acme`)
    expect((await served.ask('/', { headers })).status).toBe(200)
    await limiter.reset(`sub:${issuer}|acme`)
    expect((await served.ask('/', { headers })).status).toBe(401)
  })

  it('of a request that a route further in refused are not used up either', async () => {
    const { key, limiter, served } = await serveApi({
      store: await makeStore(),
      policies: [slidingWindow({ quota: 100, window: '1h' })],
      app: (plain, outer) =>
        plain
          .get('/', outer.route({ policies: [slidingWindow({ name: 'tight', quota: 1, window: '1h' })] }), tellDecision)
          .get('/wire', outer.route({ scopes: ['wire'] }), tellDecision),
    })
    const agent = await createAgent(key)
    expect((await served.ask('/', { headers: await agent.fields() })).status).toBe(200)
    const headers = await agent.fields()
    for (let index = 0; index < 2; index += 1) expect((await served.ask('/', { headers })).status).toBe(429)
    await limiter.reset(`sub:${issuer}|acme`)
    const replies = await Promise.all(Array.from({ length: 5 }, () => served.ask('/', { headers })))
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(replies.filter(({ status }) => status === 401)).toHaveLength(4)
    await limiter.reset(`sub:${issuer}|acme`)
    expect((await served.ask('/', { headers })).status).toBe(401)

    const unscoped = await agent.fields({ path: '/wire' })
    for (let index = 0; index < 2; index += 1) {
      expect((await served.ask('/wire', { headers: unscoped })).status).toBe(403)
    }
  })

  it('are used up in shadow too, whatever the limits would have said', async () => {
    const { key, served } = await serveApi({
      store: await makeStore(),
      mode: 'shadow',
      policies: [slidingWindow({ quota: 1, window: '1h' })],
    })
    const agent = await createAgent(key)
    await served.ask('/', { headers: await agent.fields() })
    const headers = await agent.fields()
    expect((await served.ask('/', { headers })).status).toBe(200)
    expect((await served.ask('/', { headers })).status).toBe(401)
  })

  it('are used up by unlimited clients too', async () => {
    const { key, served } = await serveApi({ store: await makeStore(), policies: [] })
    const headers = await (await createAgent(key)).fields()
    expect((await served.ask('/', { headers })).status).toBe(200)
    expect((await served.ask('/', { headers })).status).toBe(401)
  })

  it('serve one request through a limiter, another and a route', async () => {
    const store = await makeStore()
    const key = await createSigningKey()
    const identify = [dpop({ issuer, audience, jwks: { keys: [key.jwk] }, origin })]
    const outer = opened(rampmeter({ store, deadline: '5s', identify }))
    const other = opened(rampmeter({ store, deadline: '5s', identify }))
    const served = await serve(
      express()
        .use(outer)
        .use(other)
        .get('/', outer.route({ cost: 3 }), tellDecision),
    )
    const headers = await (await createAgent(key)).fields()
    const reply = await served.ask('/', { headers })
    expect(reply.status).toBe(200)
    expect(reply.json.client.provedBy).toBe('dpop')
    expect((await served.ask('/', { headers })).status).toBe(401)
  })

  it('that are wrong are charged to the address, until none is looked at', async () => {
    const { key, served } = await serveApi({
      store: await makeStore(),
      verification: { failures: { quota: 3, window: '1m' } },
      policies: [slidingWindow({ quota: 100, window: '1h' })],
    })
    const [agent, stranger] = [await createAgent(key), await createAgent(key, { sub: 'other' })]
    expect((await served.ask('/', { headers: await agent.fields() })).status).toBe(200)
    for (let index = 0; index < 3; index += 1) {
      const { authorization } = await stranger.fields()
      const reply = await served.ask('/', {
        headers: { authorization, ...(await agent.fields()), dpop: `x.y.${index}` },
      })
      expect(reply.status).toBe(401)
      expect(reply.headers['ratelimit']).toContain('r=')
    }
    const refused = await served.ask('/', { headers: await stranger.fields() })
    expect(refused.status).toBe(429)
    expect(refused.problem).toMatchObject({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      'violated-policies': ['failed-proofs'],
      error: { type: 'rate_limit_exceeded', retry_after: expect.any(Number) },
    })
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(50)
    expect(refused.problem).not.toHaveProperty('retryable')
    expect((await served.ask('/', { headers: await agent.fields() })).status).toBe(200)
    expect((await served.ask('/')).status).toBe(200)
  })
})

describe('two processes that share one Redis', () => {
  interface Shared {
    readonly key: SigningKey
    readonly ports: readonly number[]
    readonly ask: (
      port: number,
      headers: Record<string, string>,
    ) => Promise<{ status: number; headers: Headers; body: string }>
  }

  async function startTwo(): Promise<Shared> {
    const { url, prefix } = await openRedis()
    const key = await createSigningKey()
    const ports = await Promise.all(
      [1, 2].map(async () => {
        const program = fileURLToPath(new URL('proof-process.ts', import.meta.url))
        const child = spawn(
          process.execPath,
          ['--import', 'tsx', program, url, prefix, issuer, JSON.stringify({ keys: [key.jwk] })],
          { stdio: ['ignore', 'pipe', 'inherit'] },
        )
        onTestFinished(() => void child.kill('SIGKILL'))
        const [output] = (await once(child.stdout, 'data')) as [Buffer]
        return Number(output.toString())
      }),
    )
    return {
      key,
      ports,
      async ask(port, headers) {
        const reply = await fetch(`http://127.0.0.1:${port}/`, { headers })
        return { status: reply.status, headers: reply.headers, body: await reply.text() }
      },
    }
  }

  it('refuse the second use of a proof that the first accepted, and know the nonces of each other', async () => {
    const { key, ports, ask } = await startTwo()
    const [one, two] = ports as [number, number]
    const agent = await createAgent(key)
    const headers = await agent.fields()
    const first = await ask(one, headers)
    expect(first.status).toBe(200)
    expect((await ask(two, headers)).status).toBe(401)

    const nonce = first.headers.get('dpop-nonce')!
    expect((await ask(two, await agent.fields({ nonce }))).status).toBe(200)
    const asked = await ask(two, await agent.fields({ nonce: 'of nobody' }))
    expect(asked.status).toBe(401)
    expect(asked.headers.get('www-authenticate')).toContain('error="use_dpop_nonce"')
    expect((await ask(one, await agent.fields({ nonce: asked.headers.get('dpop-nonce')! }))).status).toBe(200)
  })

  it('know of failed proofs that the other saw, a decision later', async () => {
    const { key, ports, ask } = await startTwo()
    const [one, two] = ports as [number, number]
    for (let index = 0; index < 4; index += 1) {
      expect((await ask(one, { authorization: `DPoP ${(await createAgent(key)).token}` })).status).toBe(401)
    }
    const stranger = await createAgent(key)
    expect((await ask(two, { authorization: `DPoP ${stranger.token}` })).status).toBe(401)
    const refused = await ask(two, await stranger.fields())
    expect(refused.status).toBe(429)
    expect(JSON.parse(refused.body)['violated-policies']).toEqual(['failed-proofs'])
  })
})

describe('without the store', () => {
  it('a proof is single-use per process, and what was used meanwhile is not taken again after', async () => {
    const redis = await redisProcess()
    await redis.start()
    const { key, served, limiter } = await serveApi({
      store: redisStore(clientOf(redis)),
      deadline: '500ms',
      policies: [slidingWindow({ quota: 100, window: '1h' })],
    })
    await limiter.ready()
    const agent = await createAgent(key)
    const before = await agent.fields()
    expect((await served.ask('/', { headers: before })).status).toBe(200)
    await redis.kill()
    expect((await served.ask('/', { headers: before })).status).toBe(401)
    const during = await agent.fields()
    expect((await served.ask('/', { headers: during })).status).toBe(200)
    expect((await served.ask('/', { headers: during })).status).toBe(401)
    await redis.start()
    await vi.waitFor(async () => {
      expect((await served.ask('/', { headers: await agent.fields() })).json.degraded).toBe(false)
    }, 10_000)
    expect((await served.ask('/', { headers: during })).status).toBe(401)
  })
})

describe('step-up', () => {
  it('says how', async () => {
    const { served } = await serveApi({
      app: (app, limiter) => app.get('/', tellDecision).get('/wire', limiter.route({ requirePoP: true }), tellDecision),
    })
    expect((await served.ask('/')).status).toBe(200)
    const asked = await served.ask('/wire')
    expect(asked.status).toBe(401)
    expect(asked.headers['www-authenticate']).toBe('DPoP algs="ES256 EdDSA Ed25519 RS256 PS256"')
    expect(asked.problem.error.type).toBe('invalid_credential')
  })

  it('lets in whoever shows a key, and nobody who shows less', async () => {
    const key = await createSigningKey()
    const tokens = { issuer, audience, jwks: { keys: [key.jwk] } }
    const limiter = opened(
      rampmeter({
        identify: [
          dpop({ ...tokens, origin }),
          bearer(tokens),
          apiKey({ lookup: (shown) => (shown === 'known' ? { id: 'acme', type: 'agent' } : null) }),
          session((req) => (req.get('x-user') === undefined ? null : { id: req.get('x-user')! })),
        ],
      }),
    )
    const served = await serve(
      express()
        .use(limiter)
        .get('/wire', limiter.route({ requirePoP: true }), tellDecision),
    )
    const agent = await createAgent(key)
    const unbound = await createAgent(key, { cnf: undefined })
    const status = async (headers: Record<string, string>): Promise<number> =>
      (await served.ask('/wire', { headers })).status
    expect(await status(await agent.fields({ path: '/wire' }))).toBe(200)
    expect(await status({ authorization: `Bearer ${unbound.token}` })).toBe(401)
    expect(await status({ authorization: `Bearer ${agent.token}` })).toBe(401)
    expect(await status({ 'x-api-key': 'known' })).toBe(401)
    expect(await status({ 'x-user': 'ann' })).toBe(401)
    expect(await status({})).toBe(401)
  })

  it('is asked of a tier, in shadow too', async () => {
    const policies = [slidingWindow({ quota: 100, window: '1h' })]
    const { key, served } = await serveApi({
      mode: 'shadow',
      tiers: { strict: { policies, requirePoP: true }, open: { policies } },
      classify: (_req, client) => (client.kind === 'anonymous' ? 'open' : 'strict'),
    })
    const unbound = await createAgent(key, { cnf: undefined })
    expect((await served.ask('/', { headers: { authorization: `Bearer ${unbound.token}` } })).status).toBe(401)
    expect((await served.ask('/', { headers: await (await createAgent(key)).fields() })).status).toBe(200)
    expect((await served.ask('/')).status).toBe(200)
  })
})

describe('scopes of a route', () => {
  it('are asked of whoever has none, and named to whoever lacks some', async () => {
    const { key, served } = await serveApi({
      app: (app, limiter) => app.get('/', limiter.route({ scopes: ['read', 'write'] }), tellDecision),
    })
    const ask = async (claims: Record<string, unknown>): Promise<Reply> =>
      await served.ask('/', { headers: await (await createAgent(key, claims)).fields() })
    expect((await ask({ scope: 'write read' })).status).toBe(200)
    const lacking = await ask({ scope: 'read' })
    expect(lacking.status).toBe(403)
    expect(lacking.headers['www-authenticate']).toMatch(/^DPoP error="insufficient_scope", scope="read write", algs=/)
    expect(lacking.problem).toMatchObject({ type: 'about:blank', error: { type: 'insufficient_scope' } })
    const none = await served.ask('/')
    expect(none.status).toBe(401)
    expect(none.headers['www-authenticate']).toMatch(
      /^DPoP scope="read write", algs="[^"]+", Bearer scope="read write"$/,
    )
  })
})

describe('a client nobody here wrote', () => {
  it('gets a bound token and uses it, and is asked for a nonce on the way', async () => {
    const server = await startAuthorizationServer()
    const app = express()
    const served = await serve(app)
    const here = `http://127.0.0.1:${served.port}`
    const jwks = `${server.issuer}/jwks`
    app.use(
      opened(
        rampmeter({
          identify: [dpop({ issuer: server.issuer, audience: here, jwks, origin: here, nonce: 'require' })],
        }),
      ),
    )
    app.get('/documents', tellDecision)

    const client: oauth.Client = { client_id: 'agent' }
    const options = { [oauth.allowInsecureRequests]: true }
    const as = await oauth.processDiscoveryResponse(
      new URL(server.issuer),
      await oauth.discoveryRequest(new URL(server.issuer), { algorithm: 'oauth2', ...options }),
    )
    const pair = await oauth.generateKeyPair('ES256')
    const DPoP = oauth.DPoP(client, pair)
    const response = await oauth.clientCredentialsGrantRequest(
      as,
      client,
      oauth.ClientSecretBasic('an agent secret'),
      { resource: here },
      { DPoP, ...options },
    )
    const { access_token: token } = await oauth.processClientCredentialsResponse(as, client, response)
    const ask = (): Promise<Response> =>
      oauth.protectedResourceRequest(token, 'GET', new URL(`${here}/documents?page=1`), undefined, undefined, {
        DPoP,
        ...options,
      })
    const first = await ask().catch((error: unknown) => {
      if (!oauth.isDPoPNonceError(error)) throw error
      return ask()
    })
    expect(first.status).toBe(200)
    expect(await first.json()).toMatchObject({ client: { provedBy: 'dpop', tier: 'verified-agent' } })
    expect((await ask()).status).toBe(200)
  })
})

describe('secrets', () => {
  it('stand in no log, error, key or message', async () => {
    const { redis, prefix } = await openRedis()
    const written: string[] = []
    for (const stream of [process.stdout, process.stderr]) {
      const spy = vi.spyOn(stream, 'write').mockImplementation((chunk) => (written.push(String(chunk)), true))
      onTestFinished(() => spy.mockRestore())
    }
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void written.push(String(warning)))
    onTestFinished(() => warned.mockRestore())
    const listen = (message: unknown): void => void written.push(JSON.stringify(message))
    subscribe('rampmeter:decision', listen)
    onTestFinished(() => void unsubscribe('rampmeter:decision', listen))

    const { key, served } = await serveApi({ store: redisStore(redis, { prefix }) })
    const agent = await createAgent(key)
    const headers = await agent.fields()
    const replies = [await served.ask('/', { headers }), await served.ask('/', { headers })]
    replies.push(await served.ask('/', { headers: { ...headers, authorization: `Bearer ${agent.token}` } }))
    replies.push(await served.ask('/', { headers: { ...headers, dpop: `${headers['dpop']}x` } }))
    expect(replies.map(({ status }) => status)).toEqual([200, 401, 401, 401])

    const keys = await redis.keys(`${prefix}*`)
    expect(keys.length).toBeGreaterThan(0)
    const values = await Promise.all(keys.map((name) => redis.dump(name)))
    const refusals = replies.slice(1).map(({ headers: told, body }) => JSON.stringify(told) + body)
    const everything = [...written, ...keys, ...values.map(String), ...refusals].join('\n')
    const secrets = [agent.token, headers['dpop']!].flatMap((text) => [text, ...text.split('.')])
    const { jti } = JSON.parse(Buffer.from(headers['dpop']!.split('.')[1]!, 'base64url').toString()) as { jti: string }
    for (const secret of [...secrets, jti, 'acme']) {
      // The client's id is told to whoever observes.
      if (secret === 'acme') expect([...keys, ...refusals].join()).not.toContain(secret)
      else expect(everything).not.toContain(secret)
    }
  })
})

describe('scripts of another origin', () => {
  it('can read what a proof needs', async () => {
    const { key, served } = await serveApi({ exposeHeaders: true, dpop: { nonce: 'require' } })
    const { headers } = await served.ask('/', { headers: await (await createAgent(key)).fields() })
    expect(headers['dpop-nonce']).toBeDefined()
    expect(headers['access-control-expose-headers']).toContain('DPoP-Nonce')
    expect(headers['access-control-expose-headers']).toContain('WWW-Authenticate')
  })
})

describe('start-up', () => {
  it('finds that nobody could ever show what is asked for', () => {
    const policies = [slidingWindow({ quota: 1, window: '1h' })]
    const identify = [bearer({ issuer, audience, jwks: 'https://id.example.com/keys' }), apiKey({ lookup: () => null })]
    const limiter = opened(rampmeter({ identify }))
    expect(() => limiter.route({ requirePoP: true })).toThrow('RAMPMETER_INVALID_OPTION')
    expect(() => rampmeter({ identify, routes: { '/': { requirePoP: true } } })).toThrow('RAMPMETER_INVALID_OPTION')
    expect(() => rampmeter({ tiers: { all: { policies, requirePoP: true } }, classify: () => 'all' })).toThrow(
      'RAMPMETER_INVALID_OPTION',
    )
    const own: Verifier = { name: 'own', verify: () => ({ outcome: 'absent' }) }
    opened(rampmeter({ identify: [...identify, own] })).route({ requirePoP: true })
  })

  const right = { issuer, audience, jwks: 'https://id.example.com/keys', origin }

  it('wants a secret where processes share nonces', async () => {
    const { redis, prefix } = await openRedis()
    const store = redisStore(redis, { prefix })
    expect(() => rampmeter({ store, identify: [dpop({ ...right, nonce: 'offer' })] })).toThrow(
      'RAMPMETER_KEY_SECRET_NEEDED',
    )
    opened(rampmeter({ store, identify: [dpop(right)] }))
    opened(rampmeter({ store: memoryStore(), identify: [dpop({ ...right, nonce: 'offer' })] }))
    opened(rampmeter({ store, keySecret: 'long enough a secret', identify: [dpop({ ...right, nonce: 'offer' })] }))
  })
})
