// A trusted runtime: somebody vouches for the client and its key, and the client shows with each request that it holds that key
// (draft-ietf-oauth-attestation-based-client-auth).
//
//   npm install rampmeter express jose     in a project of your own
//   node --import tsx examples/attestation.ts
//
// It plays all the parts: an attester, an API, an agent, and a thief who has read the agent's request. It prints what each is
// answered, and ends.

import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { attestation, rampmeter } from 'rampmeter'

const resource = 'https://api.example.com'

// The attester, such as the platform that runs the agent: it knows what runs there, and signs which key that has.
const attesterKey = await generateKeyPair('ES256')
const agentKey = await generateKeyPair('ES256')
const attested = await new SignJWT({ cnf: { jwk: await exportJWK(agentKey.publicKey) } })
  .setProtectedHeader({ alg: 'ES256', typ: 'oauth-client-attestation+jwt' })
  .setIssuer('https://platform.example')
  .setSubject('agent-7')
  .setIssuedAt()
  .setExpirationTime('1h')
  .sign(attesterKey.privateKey)

// The API. In production `jwks` is the URL of the attester's keys.
const limiter = rampmeter({
  identify: [
    attestation({
      resource,
      issuer: 'https://platform.example',
      jwks: { keys: [await exportJWK(attesterKey.publicKey)] },
      challenge: 'require',
    }),
  ],
  keySecret: 'a secret of the server, from its environment',
})
const app = express()
app.use(limiter)
app.get('/orders', (req, res) => {
  const { id, tier } = req.rateLimit!.client
  res.send(`${tier}, ${id}`)
})
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/orders`

/** The agent's part: a proof for one request. */
async function prove(challenge?: string): Promise<string> {
  return await new SignJWT({ jti: randomUUID(), ...(challenge && { challenge }) })
    .setProtectedHeader({ alg: 'ES256', typ: 'oauth-client-attestation-pop+jwt' })
    .setAudience(resource)
    .setIssuedAt()
    .sign(agentKey.privateKey)
}

async function ask(who: string, pop: string): Promise<string | undefined> {
  const response = await fetch(url, {
    headers: { 'oauth-client-attestation': attested, 'oauth-client-attestation-pop': pop },
  })
  const said = response.headers.get('www-authenticate') ?? (await response.text())
  console.log(`${`${who}:`.padEnd(20)} ${response.status} ${said}`)
  return response.headers.get('oauth-client-attestation-challenge') ?? undefined
}

const challenge = await ask('the agent at first', await prove())
const pop = await prove(challenge)
await ask('the agent', pop)
await ask('a thief', pop)

server.close()
await limiter.close()
