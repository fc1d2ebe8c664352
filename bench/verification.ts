// What it costs to find out who is asking: the processor time of a request's proof, and which share of it is the signature.
//
//   node --import tsx bench/verification.ts

import type { webcrypto } from 'node:crypto'
import type { Request } from 'express'
import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { calculateThumbprint, generateKeyPair as generateHolder, generateProof } from 'dpop'
import { bearer, dpop, type Attempts, type Verifier } from 'rampmeter'

const rounds = 9
const requests = 400
const issuer = 'https://id.example.com'
const audience = 'https://api.example.com'

const issuerKey = await generateKeyPair('ES256')
const tokens = { issuer, audience, jwks: { keys: [await exportJWK(issuerKey.publicKey)] } }

async function issueToken(claims: Record<string, unknown>): Promise<string> {
  return await new SignJWT({ client_id: 'agent', ...claims })
    .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt' })
    .setIssuer(issuer)
    .setAudience(audience)
    .setSubject('agent')
    .setIssuedAt()
    .setExpirationTime('30m')
    .sign(issuerKey.privateKey)
}

/** Nothing is limited here: what is measured is the work. */
const attempts: Attempts = { address: 'ip:192.0.2.1', check: (_credential, work) => work() }

function requestOf(fields: Record<string, string>): Request {
  const rawHeaders = Object.entries(fields).flat()
  return { method: 'GET', originalUrl: '/orders?page=1', headers: fields, rawHeaders } as unknown as Request
}

/** Processor time of all threads a request, in µs: the middle of several rounds. */
async function measure(run: (index: number) => unknown): Promise<number> {
  const times: number[] = []
  for (let round = 0; round <= rounds; round += 1) {
    const before = process.cpuUsage()
    for (let index = 0; index < requests; index += 1) await run(round * requests + index)
    const { user, system } = process.cpuUsage(before)
    times.push((user + system) / requests)
  }
  // The first round is for the compiler.
  return times.slice(1).sort((a, b) => a - b)[Math.floor(rounds / 2)]!
}

async function expectVerified(verifier: Verifier, req: Request): Promise<void> {
  const { outcome } = await verifier.verify(req, attempts)
  if (outcome !== 'verified') throw new Error(`the bench's own proof was ${outcome}`)
}

/** The signature alone, as WebCrypto verifies it. */
async function signatureOf(
  alg: { name: string; hash?: string },
  key: webcrypto.CryptoKey,
  signed: string,
): Promise<number> {
  const end = signed.lastIndexOf('.')
  const [data, signature] = [Buffer.from(signed.slice(0, end)), Buffer.from(signed.slice(end + 1), 'base64url')]
  return await measure(() => crypto.subtle.verify(alg, key, signature, data))
}

const rows: [what: string, us: number, signature: number][] = []
for (const alg of ['ES256', 'Ed25519'] as const) {
  const holder = await generateHolder(alg)
  const token = await issueToken({ cnf: { jkt: await calculateThumbprint(holder.publicKey) } })
  const proofs: string[] = []
  for (let index = 0; index < (rounds + 1) * requests; index += 1) {
    proofs.push(await generateProof(holder, `${audience}/orders`, 'GET', undefined, token))
  }
  const verifier = dpop({ ...tokens, origin: audience })
  const whole = await measure((index) =>
    expectVerified(verifier, requestOf({ authorization: `DPoP ${token}`, dpop: proofs[index]! })),
  )
  const parameters = alg === 'ES256' ? { name: 'ECDSA', hash: 'SHA-256' } : { name: 'Ed25519' }
  rows.push([`dpop, ${alg}`, whole, await signatureOf(parameters, holder.publicKey, proofs[0]!)])
}

const token = await issueToken({})
const known = bearer(tokens)
rows.push([
  'bearer, a token seen before',
  await measure(() => expectVerified(known, requestOf({ authorization: `Bearer ${token}` }))),
  0,
])
const fresh: string[] = []
for (let index = 0; index < (rounds + 1) * requests; index += 1) fresh.push(await issueToken({ jti: String(index) }))
rows.push([
  'bearer, a new token',
  await measure((index) => expectVerified(known, requestOf({ authorization: `Bearer ${fresh[index]!}` }))),
  await signatureOf({ name: 'ECDSA', hash: 'SHA-256' }, issuerKey.publicKey, fresh[0]!),
])

console.log('| a request with | µs of processor time | of it the signature | share |\n| --- | ---: | ---: | ---: |')
for (const [what, us, signature] of rows) {
  const share = signature === 0 ? '' : `${Math.round((100 * signature) / us)} %`
  console.log(`| ${what} | ${us.toFixed(0)} | ${signature === 0 ? '' : signature.toFixed(0)} | ${share} |`)
}
