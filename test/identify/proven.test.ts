// One Authorization field, several verifiers that read it: the first that finds it good has the word.

import https from 'node:https'
import { once } from 'node:events'
import type http from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type Express } from 'express'
import { beforeAll, expect, it, onTestFinished } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import { bearer } from '../../src/identify/bearer.ts'
import { introspect } from '../../src/identify/introspect.ts'
import { mtls } from '../../src/identify/mtls.ts'
import type { Verifier } from '../../src/identify/verifier.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { selfSigned, type Certificate } from '../certificates.ts'
import { opened, serve, tellDecision } from '../http/serve.ts'
import { startAuthorizationServer } from './authorization-server.ts'
import { audience, claims, createSigningKey, noon, type SigningKey } from './issuer.ts'

let key: SigningKey
let certificate: Certificate

beforeAll(async () => {
  key = await createSigningKey()
  certificate = await selfSigned()
})

const tokens = () => ({ issuer: claims.iss, audience, jwks: { keys: [key.jwk] }, now: () => noon })

function appWith(identify: readonly Verifier[]): Express {
  const app = express()
  app.use(opened(rampmeter({ identify, policies: [] })))
  app.use(tellDecision)
  return app
}

async function askOverTls(app: Express, token: string): Promise<{ status: number | undefined; body: string }> {
  const { key, cert } = certificate
  const server = https.createServer({ key, cert, requestCert: true, rejectUnauthorized: false }, app)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  const headers = { authorization: `Bearer ${token}` }
  const request = https.get({ host: '127.0.0.1', port, ca: cert, key, cert, agent: false, headers })
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  response.setEncoding('utf8')
  return { status: response.statusCode, body: (await response.toArray()).join('') }
}

it('a token that mtls found good is not refused by bearer, which looks at no certificate', async () => {
  const digest = await crypto.subtle.digest('SHA-256', new Uint8Array(certificate.der))
  const cnf = { 'x5t#S256': Buffer.from(digest).toString('base64url') }
  const token = await key.sign({ ...claims, cnf })
  expect(await askOverTls(appWith([mtls(tokens()), bearer(tokens())]), token)).toMatchObject({
    status: 200,
    body: expect.stringContaining('"provedBy":"mtls"'),
  })
  expect(await askOverTls(appWith([bearer(tokens()), mtls(tokens())]), token)).toMatchObject({ status: 401 })
})

it('an API key in Authorization is not asked about as a token, nor a token looked up as a key', async () => {
  const server = await startAuthorizationServer()
  const looked: string[] = []
  const lookup = (shown: string) => {
    looked.push(shown)
    return shown === 'our-key' ? { id: 'acme' } : null
  }
  const introspection = introspect({
    endpoint: `${server.issuer}/introspect`,
    clientId: 'agent',
    clientSecret: 'an agent secret',
  })
  const served = await serve(appWith([bearer(tokens()), apiKey({ header: 'authorization', lookup }), introspection]))
  const show = async (text: string) => (await served.ask('/', { headers: { authorization: `Bearer ${text}` } })).json
  expect((await show('our-key')).client).toMatchObject({ id: 'key:acme' })
  expect(server.asked('/introspect')).toBe(0)
  expect((await show(await key.sign(claims))).client).toMatchObject({ provedBy: 'bearer' })
  expect(looked).toEqual(['our-key'])
  server.tokens.set('opaque', { active: true, sub: 'ann' })
  expect((await show('opaque')).client).toMatchObject({ provedBy: 'introspect' })
})

it('what was found good is so for one request, and for one limiter', async () => {
  const served = await serve(appWith([bearer(tokens())]))
  const headers = { authorization: `Bearer ${await key.sign(claims)}` }
  for (let count = 0; count < 3; count += 1) {
    expect((await served.ask('/', { headers })).json.client).toMatchObject({ provedBy: 'bearer' })
  }
  const outer = express()
  outer.use(opened(rampmeter({ identify: [bearer(tokens())], policies: [], property: 'first' })))
  outer.use(opened(rampmeter({ identify: [bearer(tokens())], policies: [], property: 'second' })))
  outer.use((req, res) => {
    const { first, second } = req as unknown as Record<'first' | 'second', { client: unknown }>
    res.json([first.client, second.client])
  })
  const both = await (await serve(outer)).ask('/', { headers })
  expect(both.json).toMatchObject([{ provedBy: 'bearer' }, { provedBy: 'bearer' }])
})
