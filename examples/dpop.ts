// A token that only its holder can use: each request carries a proof that was made with the key it is bound to (RFC 9449).
//
//   npm install rampmeter express jose dpop     in a project of your own
//   node --import tsx examples/dpop.ts
//
// It plays all the parts: an issuer of tokens, an API, an agent, and a thief who has the agent's token and one of its proofs. It prints
// what each is answered, and ends.

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { calculateThumbprint, generateKeyPair, generateProof } from 'dpop'
import express from 'express'
import { exportJWK, generateKeyPair as generateIssuerKey, SignJWT } from 'jose'
import { bearer, dpop, rampmeter } from 'rampmeter'

const issuer = 'https://id.example.com'
const audience = 'https://api.example.com'

// The issuer: it binds a token to the key that its client shows.
const issuerKey = await generateIssuerKey('ES256')

async function issueToken(clientId: string, jkt: string): Promise<string> {
  return await new SignJWT({ client_id: clientId, cnf: { jkt } })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(audience)
    .setSubject(clientId)
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(issuerKey.privateKey)
}

// The API. In production `jwks` is the URL of the issuer's keys, and `origin` where clients reach it.
const app = express()
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')
const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const tokens = { issuer, audience, jwks: { keys: [await exportJWK(issuerKey.publicKey)] } }
const limiter = rampmeter({ identify: [dpop({ ...tokens, origin }), bearer(tokens)] })
app.use(limiter)
app.get('/orders', (req, res) => {
  const { id, tier } = req.rateLimit!.client
  res.send(`${tier}, ${id}`)
})

async function ask(who: string, token: string, proof?: string): Promise<void> {
  const headers =
    proof === undefined ? { authorization: `Bearer ${token}` } : { authorization: `DPoP ${token}`, dpop: proof }
  const response = await fetch(`${origin}/orders`, { headers })
  const said = response.ok ? await response.text() : response.headers.get('www-authenticate')!.replace(/, algs=.*/, '')
  console.log(`${`${who}:`.padEnd(28)}${response.status} ${said}`)
}

// The agent: a key of its own, a token bound to it, and a proof for each request.
const agentKey = await generateKeyPair('ES256')
const token = await issueToken('agent-7', await calculateThumbprint(agentKey.publicKey))
const proof = await generateProof(agentKey, `${origin}/orders`, 'GET', undefined, token)
await ask('the agent', token, proof)
await ask('the agent, again', token, await generateProof(agentKey, `${origin}/orders`, 'GET', undefined, token))

// The thief has seen all of that pass by.
const thiefKey = await generateKeyPair('ES256')
await ask('a thief, the same proof', token, proof)
await ask('a thief, with a key', token, await generateProof(thiefKey, `${origin}/orders`, 'GET', undefined, token))
await ask('a thief, without a proof', token)

await limiter.close()
server.close()
