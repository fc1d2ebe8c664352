// A token that only its holder can use: it is bound to the certificate with which its client connects (RFC 8705).
//
//   npm install rampmeter express jose selfsigned     in a project of your own
//   node --import tsx examples/mtls.ts
//
// It plays all the parts: an issuer of tokens, an API, an agent, and a thief who has the agent's token. It prints what each is
// answered, and ends.

import { createHash, X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { mtls, rampmeter } from 'rampmeter'
import { generate } from 'selfsigned'

const issuer = 'https://id.example.com'
const audience = 'https://api.example.com'

// The issuer: it binds a token to the certificate that its client shows.
const issuerKey = await generateKeyPair('ES256')

async function issueToken(clientId: string, certificate: string): Promise<string> {
  const thumbprint = createHash('sha256').update(new X509Certificate(certificate).raw).digest('base64url')
  return await new SignJWT({ client_id: clientId, cnf: { 'x5t#S256': thumbprint } })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(audience)
    .setSubject(clientId)
    .setIssuedAt()
    .setExpirationTime('5m')
    .sign(issuerKey.privateKey)
}

// The API. In production `jwks` is the URL of the issuer's keys.
const limiter = rampmeter({
  identify: [mtls({ issuer, audience, jwks: { keys: [await exportJWK(issuerKey.publicKey)] } })],
})
const app = express()
app.use(limiter)
app.get('/orders', (req, res) => {
  const { id, tier } = req.rateLimit!.client
  res.send(`${tier}, ${id}`)
})

const serverPair = await makeCertificate('localhost')
const server = https.createServer(
  {
    key: serverPair.private,
    cert: serverPair.cert,
    // Every client is asked for a certificate, and served without one, or with one that nobody signed: it is the token that says
    // whose certificate it is.
    requestCert: true,
    rejectUnauthorized: false,
  },
  app,
)
server.listen(0, '127.0.0.1')
await once(server, 'listening')

// Those who ask.
const [agent, thief] = await Promise.all([makeCertificate('agent-7'), makeCertificate('mallory')])
const token = await issueToken('agent-7', agent.cert)
console.log(`the agent:                     ${await ask(agent)}`)
console.log(`a thief:                       ${await ask(thief)}`)
console.log(`a thief without a certificate: ${await ask()}`)

server.close()
await limiter.close()

/** Asks for the orders with the agent's token. */
async function ask(certificate?: { private: string; cert: string }): Promise<string> {
  const request = https.get({
    host: 'localhost',
    port: (server.address() as AddressInfo).port,
    path: '/orders',
    headers: { authorization: `Bearer ${token}` },
    ca: serverPair.cert,
    ...(certificate && { key: certificate.private, cert: certificate.cert }),
    agent: false,
  })
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  response.setEncoding('utf8')
  const body = (await response.toArray()).join('')
  return `${response.statusCode} ${response.headers['www-authenticate'] ?? body}`
}

async function makeCertificate(name: string): Promise<{ private: string; cert: string }> {
  return await generate([{ name: 'commonName', value: name }], { keyType: 'ec', algorithm: 'sha256' })
}
