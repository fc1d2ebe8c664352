import express, { type Express } from 'express'
import * as oauth from 'oauth4webapi'
import { describe, expect, it } from 'vitest'
import { bearer } from '../../src/identify/bearer.ts'
import { protectedResource, type ProtectedResourceOptions } from '../../src/identify/protected-resource.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { expressVersions, opened, serve, tellDecision, type Served } from '../http/serve.ts'
import { startAuthorizationServer } from './authorization-server.ts'

const insecure = { [oauth.allowInsecureRequests]: true }

const options = { resource: 'https://api.example.com', authorizationServers: ['https://id.example.com'] }

const wellKnown = '/.well-known/oauth-protected-resource'

async function serveMetadata(
  changes: Partial<ProtectedResourceOptions> = {},
  app: Express = express(),
): Promise<Served> {
  app.use(protectedResource({ ...options, ...changes }))
  app.use((req, res) => void res.status(418).send(`the app's own: ${req.url}`))
  return await serve(app)
}

describe('the place of the metadata', () => {
  it.each([
    ['https://api.example.com', wellKnown],
    ['https://api.example.com/', wellKnown],
    ['https://api.example.com/mcp', `${wellKnown}/mcp`],
    ['https://api.example.com/mcp/', `${wellKnown}/mcp/`],
    ['https://api.example.com:8443/a/b', `${wellKnown}/a/b`],
    ['https://api.example.com/r%20s', `${wellKnown}/r%20s`],
    ['http://localhost:3000/mcp', `${wellKnown}/mcp`],
  ])('of %s is %s', async (resource, path) => {
    const handler = protectedResource({ ...options, resource })
    expect(handler.path).toBe(path)
    expect(handler.url).toBe(new URL(resource).origin + path)
    const { status, json } = await (await serveMetadata({ resource })).ask(path)
    expect(status).toBe(200)
    // Clients compare it with what they asked for (RFC 9728 section 3.3): as it was written, with its slash or without.
    expect(json.resource).toBe(resource)
  })

  it('may have a query, where the resource has one', async () => {
    const resource = 'https://api.example.com/r?tenant=a'
    expect(protectedResource({ ...options, resource }).url).toBe(`https://api.example.com${wellKnown}/r?tenant=a`)
    const served = await serveMetadata({ resource })
    expect((await served.ask(`${wellKnown}/r?tenant=a`)).status).toBe(200)
    expect((await served.ask(`${wellKnown}/r?tenant=b`)).status).toBe(418)
    expect((await served.ask(`${wellKnown}/r`)).status).toBe(418)
  })

  it.each([
    '/',
    '/.well-known',
    `${wellKnown}/`,
    `${wellKnown}/mcp/`,
    `${wellKnown}/mcp/more`,
    `${wellKnown}/MCP`,
    '/.well-known/oauth-authorization-server/mcp',
    `/mcp${wellKnown}`,
    '/?x=/.well-known/oauth-protected-resource/mcp',
  ])('is not %s', async (path) => {
    const served = await serveMetadata({ resource: 'https://api.example.com/mcp' })
    for (const method of ['GET', 'POST', 'OPTIONS']) {
      const { status, headers } = await served.ask(path, { method })
      expect(status).toBe(418)
      expect(headers['access-control-allow-origin']).toBeUndefined()
    }
  })

  it('does not depend on a query, nor on the form of the target', async () => {
    const served = await serveMetadata()
    expect((await served.ask(`${wellKnown}?x=1`)).status).toBe(200)
    const answer = await served.send(
      `GET http://evil.example${wellKnown} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
    expect(answer).toContain('"resource":"https://api.example.com"')
  })
})

describe.each(expressVersions)('on $name', ({ express }) => {
  it('the answer is JSON that anybody may read and keep for a while', async () => {
    const served = await serveMetadata({ scopes: ['orders:read'] }, express())
    const { status, headers, json } = await served.ask(wellKnown)
    expect(status).toBe(200)
    expect(headers).toMatchObject({
      'content-type': expect.stringMatching(/^application\/json\b/),
      'access-control-allow-origin': '*',
      'cache-control': 'public, max-age=600',
    })
    expect(json).toEqual({
      resource: 'https://api.example.com',
      authorization_servers: ['https://id.example.com'],
      scopes_supported: ['orders:read'],
      bearer_methods_supported: ['header'],
    })
    const head = await served.ask(wellKnown, { method: 'HEAD' })
    expect(head).toMatchObject({ status: 200, body: '', headers: { 'content-length': headers['content-length'] } })
  })

  it('a browser that asks first is told that it may', async () => {
    const served = await serveMetadata({}, express())
    const { status, headers, body } = await served.ask(wellKnown, {
      method: 'OPTIONS',
      headers: {
        origin: 'https://inspector.example',
        'access-control-request-method': 'GET',
        'access-control-request-headers': 'mcp-protocol-version',
      },
    })
    expect({ status, body }).toEqual({ status: 204, body: '' })
    expect(headers).toMatchObject({
      'access-control-allow-origin': '*',
      'access-control-allow-methods': 'GET, HEAD',
      'access-control-allow-headers': '*',
    })
  })

  it.each(['POST', 'PUT', 'DELETE', 'PATCH'])('%s is not for it', async (method) => {
    const { status, headers } = await (await serveMetadata({}, express())).ask(wellKnown, { method })
    expect(status).toBe(405)
    expect(headers['allow']).toBe('GET, HEAD, OPTIONS')
  })

  it('it serves as a route, in a router, and below a path', async () => {
    const handler = protectedResource({ ...options, resource: 'https://api.example.com/mcp' })
    const places: ((app: Express) => unknown)[] = [
      (app) => app.get(handler.path, handler),
      (app) => app.all(handler.path, handler),
      (app) => app.use('/.well-known', handler),
      (app) => app.use(express.Router().use(handler)),
    ]
    for (const place of places) {
      const app = express()
      place(app)
      const { json } = await (await serve(app)).ask(handler.path)
      expect(json).toMatchObject({ resource: 'https://api.example.com/mcp' })
    }
  })
})

describe('all that may be said', () => {
  it('is said as RFC 9728 names it', async () => {
    const served = await serveMetadata({
      jwksUri: 'https://api.example.com/keys',
      resourceName: 'Orders',
      resourceDocumentation: 'https://api.example.com/docs',
      dpopSigningAlgValuesSupported: ['ES256', 'EdDSA'],
      dpopBoundAccessTokensRequired: true,
      tlsClientCertificateBoundAccessTokens: false,
      maxAge: '1h',
    })
    const { headers, json } = await served.ask(wellKnown)
    expect(headers['cache-control']).toBe('public, max-age=3600')
    expect(json).toEqual({
      resource: 'https://api.example.com',
      authorization_servers: ['https://id.example.com'],
      bearer_methods_supported: ['header'],
      jwks_uri: 'https://api.example.com/keys',
      resource_name: 'Orders',
      resource_documentation: 'https://api.example.com/docs',
      dpop_signing_alg_values_supported: ['ES256', 'EdDSA'],
      dpop_bound_access_tokens_required: true,
      tls_client_certificate_bound_access_tokens: false,
    })
  })

  it.each<[string, object, string]>([
    ['a resource over http', { resource: 'http://api.example.com' }, 'RAMPMETER_INVALID_OPTION'],
    ['a resource with a fragment', { resource: 'https://api.example.com/#mcp' }, 'RAMPMETER_INVALID_OPTION'],
    ['a resource with an empty fragment', { resource: 'https://api.example.com/#' }, 'RAMPMETER_INVALID_OPTION'],
    ['a resource with a user', { resource: 'https://a:b@api.example.com/' }, 'RAMPMETER_INVALID_OPTION'],
    ['a resource that is a name', { resource: 'api.example.com' }, 'RAMPMETER_INVALID_OPTION'],
    ['no resource', { resource: undefined }, 'RAMPMETER_INVALID_OPTION'],
    ['no issuer', { authorizationServers: [] }, 'RAMPMETER_INVALID_OPTION'],
    ['an issuer over http', { authorizationServers: ['http://id.example.com'] }, 'RAMPMETER_INVALID_OPTION'],
    ['an issuer with a query', { authorizationServers: ['https://id.example.com/?a=b'] }, 'RAMPMETER_INVALID_OPTION'],
    ['a scope with a space', { scopes: ['a b'] }, 'RAMPMETER_INVALID_OPTION'],
    ['a shared secret', { dpopSigningAlgValuesSupported: ['HS256'] }, 'RAMPMETER_INVALID_OPTION'],
    ['no signature', { dpopSigningAlgValuesSupported: ['none'] }, 'RAMPMETER_INVALID_OPTION'],
    ['an age that is none', { maxAge: 'long' }, 'RAMPMETER_INVALID_DURATION'],
    ['what does not exist', { scopesSupported: [] }, 'RAMPMETER_UNKNOWN_OPTION'],
  ])('is not %s', (_what, changes, code) => {
    expect(() => protectedResource({ ...options, ...changes })).toThrow(expect.objectContaining({ code }))
  })
})

describe('a client that knows nothing but the address', () => {
  it('finds from a refusal to a token that is taken', async () => {
    const server = await startAuthorizationServer()
    const app = express()
    const served = await serve(app)
    const resource = `http://127.0.0.1:${served.port}/mcp`
    const metadata = protectedResource({ resource, authorizationServers: [server.issuer], scopes: ['tools'] })
    app.use(metadata)
    app.use(
      opened(
        rampmeter({
          identify: [
            bearer({
              issuer: server.issuer,
              audience: resource,
              jwks: `${server.issuer}/jwks`,
              scopes: ['tools'],
              resourceMetadata: metadata.url,
            }),
          ],
        }),
      ),
    )
    app.use('/mcp', (req, res, next) => {
      if (req.rateLimit!.client.provedBy !== null) return next()
      res.set('WWW-Authenticate', `Bearer resource_metadata="${metadata.url}", scope="tools"`).sendStatus(401)
    })
    app.use(tellDecision)

    const use = (token: string) =>
      oauth.protectedResourceRequest(token, 'POST', new URL(resource), undefined, undefined, insecure)
    const challengeOf = (request: Promise<unknown>) =>
      request.then(
        () => undefined,
        (error: oauth.WWWAuthenticateChallengeError) => error.cause[0]!.parameters,
      )
    expect(await served.ask('/mcp')).toMatchObject({ status: 401 })
    const told = await challengeOf(use('made-up'))
    expect(told).toEqual({ resource_metadata: metadata.url, scope: 'tools' })

    const place = new URL(resource)
    const discovered = await oauth.resourceDiscoveryRequest(place, insecure)
    expect(discovered.url).toBe(told!.resource_metadata)
    const { authorization_servers, scopes_supported } = await oauth.processResourceDiscoveryResponse(place, discovered)
    const issuer = new URL(authorization_servers![0]!)
    const as = await oauth.processDiscoveryResponse(
      issuer,
      await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
    )
    const client = { client_id: 'agent' }
    const tokenResponse = await oauth.clientCredentialsGrantRequest(
      as,
      client,
      oauth.ClientSecretBasic('an agent secret'),
      { resource, scope: scopes_supported!.join(' ') },
      insecure,
    )
    const { access_token } = await oauth.processClientCredentialsResponse(as, client, tokenResponse)
    expect(await (await use(access_token)).json()).toMatchObject({
      client: { id: `sub:${server.issuer}|agent`, kind: 'agent', provedBy: 'bearer' },
    })
    // What verifiers refuse says where to look, too.
    expect(await challengeOf(use(`${access_token.slice(0, -8)}AAAAAAAA`))).toMatchObject({
      error: 'invalid_token',
      resource_metadata: metadata.url,
      scope: 'tools',
    })
  })
})
