// Signers that nobody here wrote, over HTTP; and a verifier of theirs, to know what ours must not do as well.

import { once } from 'node:events'
import type { webcrypto } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Request as ExpressRequest } from 'express'
import * as httpMessageSig from 'http-message-sig'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { signatureHeaders, verify as verifyTheirs } from 'web-bot-auth'
import { signerFromJWK } from 'web-bot-auth/crypto'
import { webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import type { Verification, Verifier } from '../../../src/identify/verifier.ts'
import { address, key, makeKey, requestOf, signFields, unlimited } from './signing.ts'

const origin = 'https://api.example.com'
const agent = 'https://bot.example'
const directory = `${agent}/.well-known/http-message-signatures-directory`
const privateJwk = key.privateKey.export({ format: 'jwk' })

let server: Server
let port = 0
let verifier: Verifier
let found: Verification[] = []

beforeAll(async () => {
  server = createServer((req, res) => {
    void Promise.resolve(verifier.verify(req as ExpressRequest, unlimited)).then((verification) => {
      found.push(verification)
      res.end()
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  port = (server.address() as AddressInfo).port
})

beforeEach(() => {
  found = []
  verifier = webBotAuth({ origin, directories: { [agent]: { keys: [key.jwk] } }, legacy: true })
})

afterAll(() => void server.close())

async function send(path: string, headers: Record<string, string>, method = 'GET'): Promise<Verification> {
  await fetch(`http://127.0.0.1:${port}${path}`, { method, headers })
  return found.at(-1)!
}

describe('http-message-sig 0.3', () => {
  const seconds = (): number => Math.floor(Date.now() / 1000)

  async function signWith(
    components: readonly httpMessageSig.SignatureComponent[],
    request: { method?: string; path?: string; headers?: Record<string, string> } = {},
    alg = 'ed25519',
    keyPair?: webcrypto.CryptoKeyPair,
    keyid = key.keyid,
  ): Promise<Record<string, string>> {
    const headers = { 'signature-agent': `sig1="${agent}"`, ...request.headers }
    const privateKey =
      keyPair?.privateKey ?? (await crypto.subtle.importKey('jwk', privateJwk, 'Ed25519', false, ['sign']))
    const { signature, signatureInput } = await httpMessageSig.createSignature(
      new Request(`${origin}${request.path ?? '/search?q=lamp'}`, { method: request.method ?? 'GET', headers }),
      {
        label: 'sig1',
        components,
        parameters: { created: seconds(), expires: seconds() + 60, keyid, alg, tag: 'web-bot-auth' },
        signer: httpMessageSig.webcrypto.signer(privateKey),
      },
    )
    return { ...headers, signature, 'signature-input': signatureInput }
  }

  const member = httpMessageSig.component('signature-agent', { key: 'sig1' })

  it('signs this request, and is proven', async () => {
    const fields = await signWith(['@method', '@authority', '@path', '@query', member])
    expect(await send('/search?q=lamp', fields)).toMatchObject({
      outcome: 'verified',
      identity: { id: `agent:${directory}`, provesKey: true },
    })
    expect(await send('/search?q=lamps', fields)).toMatchObject({ outcome: 'invalid' })
    expect(await send('/search?q=lamp', fields, 'POST')).toMatchObject({ outcome: 'invalid' })
  })

  it('signs a target and some fields', async () => {
    const request = {
      method: 'POST',
      path: '/orders',
      headers: { accept: 'text/html, */*;q=0.1', 'content-type': 'a/b' },
    }
    const fields = await signWith(['@method', '@target-uri', '@scheme', 'accept', 'content-type', member], request)
    expect(await send('/orders', fields, 'POST')).toMatchObject({ identity: { provesKey: true } })
  })

  it('signs with RSA-PSS', async () => {
    const rsa = { name: 'RSA-PSS', modulusLength: 2048, publicExponent: new Uint8Array([1, 0, 1]), hash: 'SHA-512' }
    const pair = await crypto.subtle.generateKey(rsa, true, ['sign', 'verify'])
    const { kty, e, n } = await crypto.subtle.exportKey('jwk', pair.publicKey)
    const thumbprint = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify({ e, kty, n })))
    const keyid = Buffer.from(thumbprint).toString('base64url')
    verifier = webBotAuth({ origin, directories: { [agent]: { keys: [{ kty, e, n }] } } })
    const components = ['@method', '@authority', '@path', member]
    const fields = await signWith(components, {}, 'rsa-pss-sha512', pair, keyid)
    expect(await send('/search', fields)).toMatchObject({ identity: { provesKey: true } })
  })
})

describe('web-bot-auth 0.1.3', () => {
  async function signWith(agentField: string, components?: ('@method' | '@authority' | '@path' | 'signature-agent')[]) {
    const created = new Date()
    const headers = { 'signature-agent': agentField }
    const signed = await signatureHeaders(
      new Request(`${origin}/search`, { headers }),
      await signerFromJWK(privateJwk),
      { created, expires: new Date(created.getTime() + 60_000), ...(components && { components }) },
    )
    return { ...headers, signature: signed.Signature, 'signature-input': signed['Signature-Input'] }
  }

  it('signs the host, as it does by itself: an agent, by URL and address', async () => {
    expect(await send('/search', await signWith(`"${agent}"`))).toMatchObject({
      outcome: 'verified',
      identity: { id: `agent:${directory}|${address}`, provesKey: false },
    })
  })

  it('signs the request where it is told to: proven', async () => {
    const fields = await signWith(`"${agent}"`, ['@method', '@authority', '@path', 'signature-agent'])
    expect(await send('/search', fields)).toMatchObject({ identity: { id: `agent:${directory}`, provesKey: true } })
    expect(await send('/admin', fields)).toMatchObject({ outcome: 'invalid' })
  })

  it('knows only the older form, which has to be allowed', async () => {
    verifier = webBotAuth({ origin, directories: { [agent]: { keys: [key.jwk] } } })
    expect(await send('/search', await signWith(`"${agent}"`))).toMatchObject({ outcome: 'invalid', status: 400 })
  })

  it('verifies a signature over nothing; we do not', async () => {
    const created = Math.floor(Date.now() / 1000)
    const fields = signFields({ covered: [], params: { created, expires: created + 60 } })
    const shown = { Signature: fields.Signature, 'Signature-Input': fields['Signature-Input'] }
    // It takes a signature for right where its callback does not throw: what was covered is nobody's question.
    await verifyTheirs(new Request('https://anywhere.example/', { headers: shown }), () => undefined)
    const req = requestOf({ ...shown, 'Signature-Agent': `sig1="${agent}"` })
    expect(await verifier.verify(req, unlimited)).toMatchObject({
      outcome: 'invalid',
      reason: 'the signature is refused: it does not cover the host',
    })
  })

  it("signs with another's key: refused", async () => {
    const stranger = makeKey()
    verifier = webBotAuth({ origin, directories: { [agent]: { keys: [stranger.jwk] } }, legacy: true })
    expect(await send('/search', await signWith(`"${agent}"`))).toMatchObject({ outcome: 'invalid' })
  })
})
