// An agent that signs its requests (RFC 9421, Web Bot Auth): known by the URL at which it publishes its keys.
//
//   npm install rampmeter express     in a project of your own
//   node --import tsx examples/web-bot-auth.ts
//
// It plays all the parts: an API, an agent, a thief who saw one of its requests, and somebody who signs as somebody else. It
// prints what each is answered, and ends.

import { createHash, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { rampmeter, webBotAuth } from 'rampmeter'

// The agent: a key, and the URL that it names in each request. In production it serves the public half there, as a JSON Web
// Key Set, and keeps the private one to itself.
const directory = 'https://agent.example/keys.json'
const { privateKey, publicKey } = generateKeyPairSync('ed25519')
const jwk = publicKey.export({ format: 'jwk' })

// The API. In production `directories` is `{ [directory]: true }`: the keys are then fetched from there.
const limiter = rampmeter({
  identify: [webBotAuth({ origin: 'https://api.example.com', directories: { [directory]: { keys: [jwk] } } })],
})
const app = express()
app.use(limiter)
app.get('/{*path}', (req, res) => {
  const { id, tier } = req.rateLimit!.client
  res.send(`${tier}, ${id.startsWith('ip:') ? 'by its address' : id}`)
})
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')

// Those who ask.
const signed = signRequest('GET', '/search', directory, privateKey)
console.log(`the agent:           ${await ask('/search', signed)}`)
console.log(`a thief:             ${await ask('/accounts', signed)}`)

const forged = signRequest('GET', '/search', directory, generateKeyPairSync('ed25519').privateKey)
console.log(`a forger:            ${await ask('/search', forged)}`)

const named = { 'user-agent': 'agent.example/1.0 (a bot)', 'signature-agent': `sig1="${directory}"` }
console.log(`one that only says:  ${await ask('/search', named)}`)

server.close()
await limiter.close()

/** Signs a request for the next minute: its method, its host, its path, and by whom it is. */
function signRequest(method: string, path: string, agent: string, key: KeyObject): Record<string, string> {
  const created = Math.floor(Date.now() / 1000)
  const parameters = [`created=${created}`, `expires=${created + 60}`, `keyid="${thumbprint()}"`, 'tag="web-bot-auth"']
  const covered = [
    ['"@method"', method],
    ['"@authority"', 'api.example.com'],
    ['"@path"', path],
    ['"signature-agent";key="sig1"', `"${agent}"`],
  ]
  const input = `(${covered.map(([name]) => name).join(' ')});${parameters.join(';')}`
  const base = [...covered.map(([name, value]) => `${name}: ${value}`), `"@signature-params": ${input}`].join('\n')
  return {
    'signature-agent': `sig1="${agent}"`,
    'signature-input': `sig1=${input}`,
    signature: `sig1=:${sign(null, Buffer.from(base), key).toString('base64')}:`,
  }
}

/** RFC 7638, with the members that RFC 8037 wants for Ed25519. */
function thumbprint(): string {
  const { crv, kty, x } = jwk
  return createHash('sha256').update(JSON.stringify({ crv, kty, x })).digest('base64url')
}

async function ask(path: string, headers: Record<string, string>): Promise<string> {
  const response = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`, { headers })
  return `${response.status} ${response.headers.get('www-authenticate') ?? (await response.text())}`
}
