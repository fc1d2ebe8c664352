// JWT access tokens, and how a client that knows only the API's address finds out where to get one (RFC 9728, RFC 8414), as MCP
// clients do.
//
//   npm install rampmeter express jose     in a project of your own
//   node --import tsx examples/bearer.ts
//
// It plays all the parts: an authorization server, an API, an agent, and a thief who has the agent's token. It prints what each is
// answered, and ends.

import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type Express } from 'express'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { bearer, protectedResource, rampmeter } from 'rampmeter'

const servers: Server[] = []

// The authorization server: it tells about itself, publishes its key, and gives tokens to its one client.
const issuerApp = express()
const issuer = await listen(issuerApp)
const { publicKey, privateKey } = await generateKeyPair('ES256')
const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'k1', alg: 'ES256' }] }
issuerApp.get('/.well-known/oauth-authorization-server', (_req, res) => {
  res.json({ issuer, token_endpoint: `${issuer}/token`, jwks_uri: `${issuer}/jwks` })
})
issuerApp.get('/jwks', (_req, res) => void res.json(jwks))
issuerApp.post('/token', express.urlencoded(), async (req, res) => {
  const { resource, scope } = req.body as { resource: string; scope: string }
  if (req.headers.authorization !== `Basic ${Buffer.from('agent-7:a-secret').toString('base64')}`) {
    res.status(401).json({ error: 'invalid_client' })
    return
  }
  const token = await new SignJWT({ client_id: 'agent-7', scope })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: 'k1' })
    .setIssuer(issuer)
    .setAudience(resource)
    .setSubject('agent-7')
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(privateKey)
  res.json({ access_token: token, token_type: 'Bearer', expires_in: 300 })
})

// The API.
const app = express()
const resource = `${await listen(app)}/orders`
const metadata = protectedResource({ resource, authorizationServers: [issuer], scopes: ['orders:read'] })
const limiter = rampmeter({
  identify: [
    bearer({
      issuer,
      audience: resource,
      jwks: `${issuer}/jwks`,
      maxLifetime: '10m',
      resourceMetadata: metadata.url,
    }),
  ],
})
app.use(metadata) // before the limiter: whoever has no requests left may still find out how to get a token
app.use(limiter)
app.use('/orders', (req, res, next) => {
  if (req.rateLimit!.client.provedBy !== null) return next()
  // The limiter counts strangers by address, and leaves it to the app whether it serves them.
  res.set('WWW-Authenticate', `Bearer resource_metadata="${metadata.url}"`).sendStatus(401)
})
app.get('/orders', limiter.route({ scopes: ['orders:read'] }), (req, res) => {
  const { tier, reasons } = req.rateLimit!.client
  res.send(`${tier}, since ${reasons[0]}`)
})

// An agent that knows the address of the API and its own secret.
console.log(`without a token:             ${await ask()}`)
const token = await getToken(resource, 'orders:read')
console.log(`the agent:                   ${await ask(token)}`)
console.log(`a token for another API:     ${await ask(await getToken('https://other.example', 'orders:read'))}`)
console.log(`a token for something else:  ${await ask(await getToken(resource, 'orders:write'))}`)
console.log(`a token that was changed:    ${await ask(token.replace(/.{8}$/, 'AAAAAAAA'))}`)
console.log(`a thief with a copy:         ${await ask(token)}`)

for (const server of servers) server.close()
await limiter.close()

/** Asks for the orders, and tells what came. Ports differ from run to run, so they are left out. */
async function ask(token?: string): Promise<string> {
  const response = await fetch(resource, { headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })
  const told = response.headers.get('www-authenticate') ?? (await response.text())
  return `${response.status} ${told.replaceAll(/:\d+/g, '')}`
}

/** From a refusal to a token. */
async function getToken(audience: string, scope: string): Promise<string> {
  const refusal = await fetch(resource)
  const [, place] = /resource_metadata="([^"]+)"/.exec(refusal.headers.get('www-authenticate') ?? '') ?? []
  const { authorization_servers } = (await readJson(place!)) as { authorization_servers: string[] }
  const about = await readJson(`${authorization_servers[0]}/.well-known/oauth-authorization-server`)
  const response = await fetch((about as { token_endpoint: string }).token_endpoint, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from('agent-7:a-secret').toString('base64')}` },
    body: new URLSearchParams({ grant_type: 'client_credentials', resource: audience, scope }),
  })
  return ((await response.json()) as { access_token: string }).access_token
}

async function readJson(url: string): Promise<unknown> {
  return await (await fetch(url)).json()
}

async function listen(app: Express): Promise<string> {
  const server = app.listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
