// Opaque access tokens: the API asks the authorization server about them (RFC 7662), remembers what it heard for a while, and refuses
// nobody because the server is away.
//
//   npm install rampmeter express     in a project of your own
//   node --import tsx examples/introspect.ts
//
// It plays all the parts: an authorization server, an API, an agent. It prints what the agent is answered, and how often the server
// was asked, and ends.

import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express, { type Express } from 'express'
import { introspect, rampmeter } from 'rampmeter'

const servers: Server[] = []

// The authorization server: it knows what its tokens are good for, and tells its APIs.
const tokens = new Map([
  ['agents-token', { sub: 'agent-7', client_id: 'agent-7', scope: 'orders:read', aud: 'https://api.example.com' }],
  ['busy-token', { sub: 'agent-8', client_id: 'agent-8', scope: 'orders:read', aud: 'https://api.example.com' }],
  ['anns-token', { sub: 'ann', client_id: 'shop', scope: 'orders:read', aud: 'https://api.example.com' }],
])
let asked = 0
let isAway = false
const issuerApp = express()
const issuer = await listen(issuerApp)
issuerApp.post('/introspect', express.urlencoded(), (req, res) => {
  asked += 1
  const isOurApi = req.headers.authorization === `Basic ${Buffer.from('orders-api:a-secret').toString('base64')}`
  if (isAway || !isOurApi) {
    res.sendStatus(isAway ? 503 : 401)
    return
  }
  const known = tokens.get((req.body as { token: string }).token)
  res.json(
    known === undefined ? { active: false } : { active: true, exp: Math.floor(Date.now() / 1000) + 300, ...known },
  )
})

// The API.
const limiter = rampmeter({
  identify: [
    introspect({
      endpoint: `${issuer}/introspect`,
      clientId: 'orders-api',
      clientSecret: 'a-secret',
      issuer: 'https://id.example.com',
      audience: 'https://api.example.com',
      scopes: ['orders:read'],
      // How long a revoked token may still work here. So short only that this program need not wait.
      cache: '1s',
    }),
  ],
})
const app = express()
const api = await listen(app)
app.use(limiter)
app.get('/orders', (req, res) => {
  const { id, tier } = req.rateLimit!.client
  res.send(`${tier}, ${id}`)
})

console.log(`a token of an agent:          ${await ask('agents-token')}`)
console.log(`a token of a person:          ${await ask('anns-token')}`)
console.log(`a token that nobody issued:   ${await ask('made-up')}`)
const before = asked
await Promise.all(Array.from({ length: 20 }, () => ask('busy-token')))
console.log(`twenty requests at once:      ${asked - before} question to the server`)

tokens.delete('agents-token')
await sleep(1100)
console.log(`a token that was revoked:     ${await ask('agents-token')}`)

isAway = true
console.log(`the server is away:           ${await ask('anns-token')}`)
isAway = false
console.log(`and is back:                  ${await ask('anns-token')}`)

for (const server of servers) server.close()
await limiter.close()

async function ask(token: string): Promise<string> {
  const response = await fetch(`${api}/orders`, { headers: { authorization: `Bearer ${token}` } })
  const body = await response.text()
  const told = response.ok ? body : (response.headers.get('www-authenticate') ?? 'no challenge: the token may be good')
  return `${response.status} ${told}`
}

async function listen(app: Express): Promise<string> {
  const server = app.listen(0, '127.0.0.1')
  servers.push(server)
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}
