// What the drafts print, and what others have found that must not pass.

import { createPrivateKey, sign } from 'node:crypto'
import { parseDictionary, type InnerList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import { readKeySet, verifiesWith } from '../../../src/identify/web-bot-auth/keys.ts'
import { signatureBase } from '../../../src/identify/web-bot-auth/signature-base.ts'
import { createWebBotAuth, webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import type { Verification } from '../../../src/identify/verifier.ts'
import { negativeVectors, type NegativeVector } from './negative-vectors.ts'
import { ed25519Key, ed25519PrivateKey, rsaPssKey } from './rfc9421.ts'
import { requestOf, unlimited } from './signing.ts'

const directoryUrl = 'https://signature-agent.test/.well-known/http-message-signatures-directory'

/** The published vectors are good for a hundred years, which no option allows. */
const ages = 200 * 366 * 24 * 3_600_000

/** Answers at the one URL that the vectors have a directory at. */
async function fetchVectors(url: string | URL | Request): Promise<Response> {
  if (url !== directoryUrl) return new Response(null, { status: 404 })
  return Response.json({ keys: [{ ...ed25519Key, use: 'sig' }] })
}

function verifyVector({
  now,
  method,
  fields,
}: Pick<NegativeVector, 'now' | 'method' | 'fields'>): Promise<Verification> {
  const verifier = createWebBotAuth({
    origin: ['https://example.com'],
    directories: new Map(),
    trust: () => true,
    fetch: fetchVectors,
    maxLifetime: ages,
    clockTolerance: 5000,
    legacy: false,
    testKeys: true,
    now: () => now * 1000,
  })
  return Promise.resolve(
    verifier.verify(requestOf({ Host: 'example.com', ...fields }, { method, url: '/' }), unlimited),
  )
}

describe('negative vectors', () => {
  it('are those that were published', () => {
    expect(negativeVectors).toHaveLength(17)
    expect(new Set(negativeVectors.map(({ id }) => id)).size).toBe(17)
  })

  it.each(negativeVectors.filter(({ reason }) => reason !== null))('$id: $title', async (vector) => {
    const verification = await verifyVector(vector)
    expect(verification.outcome).toBe(vector.outcome === 'invalid' ? 'invalid' : 'absent')
    const { reason, note } = verification as { reason?: string; note?: string }
    expect(reason ?? note).toContain(vector.reason)
  })

  it('NV-08: the body has not come yet, so it is not looked at, and the request as a whole not proven', async () => {
    const vector = negativeVectors.find(({ id }) => id === 'NV-08')!
    expect(await verifyVector(vector)).toMatchObject({ outcome: 'verified', identity: { provesKey: false } })
  })

  it('are wrong in nothing else: signed anew without the defect, the same request passes', async () => {
    const input = negativeVectors.find(({ id }) => id === 'NV-06')!.fields['Signature-Input']!
    const base = `"@authority": example.com\n"signature-agent";key="sig1": "https://signature-agent.test"\n"@signature-params": ${input.slice(5)}`
    const key = createPrivateKey({ key: ed25519PrivateKey, format: 'jwk' })
    const Signature = `sig1=:${sign(null, Buffer.from(base), key).toString('base64')}:`
    const fields = { 'Signature-Agent': 'sig1="https://signature-agent.test"', 'Signature-Input': input, Signature }
    expect(await verifyVector({ now: 1735689660, method: 'GET', fields })).toMatchObject({
      outcome: 'verified',
      identity: { id: `agent:${directoryUrl}|ip:192.0.2.1` },
    })
  })
})

// draft-ietf-webbotauth-httpsig-protocol, "Test Vectors".
const nonces = {
  rsa: 'wcfPQPh7SzkvrIVvhD00vNk9PkxJNY2NVbYl2PVBB4zmUoluSwE7W6bPtF60QA3k8g06FU7PPCD+J58YofY1zg==',
  rsaLegacy: 'XSHtZVCThSIAksXsH9WBs6AtxtXC0eQGiIcUGSoJstFs8lAWakjhrfwzLhyjtme5iXMZvmFWqDEs6cT3Jf+BbQ==',
  ed25519: 'n9p433xm+NJ3ph3upfBIGmsuwHw387YV7Q/F+6BSpGCVjYCqQw6rznNA8PVVLySrAWsv0hQtFioQb6E1YsauiA==',
  ed25519Legacy: 'e8N7S2MFd/qrd6T2R3tdfAuuANngKI7LFtKYI/vowzk4lAZYadIX6wW25MwG7DCT9RUKAJ0qVkU0mEeLElW1qg==',
}

const rsaId = 'oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA'
const ed25519Id = 'poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U'

function inputOf(covered: string, keyid: string, alg: string, expires: number, nonce: string): string {
  return `sig2=(${covered});created=1735689600;keyid="${keyid}";alg="${alg}";expires=${expires};nonce="${nonce}";tag="web-bot-auth"`
}

const dictionary = '"@authority" "signature-agent";key="sig2"'
const bare = '"@authority" "signature-agent"'
const anHour = 1735693200
const anAge = 4889289600

const draftVectors = [
  {
    name: 'RSASSA-PSS',
    legacy: false,
    key: rsaPssKey,
    algorithm: 'rsa-pss-sha512',
    input: inputOf(dictionary, rsaId, 'rsa-pss-sha512', anAge, nonces.rsa),
    signature:
      'iOCCPgZeV5D5KlfZLXIFQOZR2njqFiCMZIrb5HRRLrFZR5Wtpsn7HwbKfWYHqW3dYU7HV/RohjNg7fuyQ1Mdy2J4mya9JnQCZtCcIcOK/LM9Yc6g6ZTw0onurllrzEzuNQIFFkBTgPJZlA3rHioFrmDmn+nnN7HaC+it/PA2iGfENHYq9D3Ud7ZeDICmF1s5bsMgc+y+MxTPFQHxOEyhbCDjZbT5yeSkGP1Czczg7Cpf0Fz/wuF3mJJ7TL1mzQk3PPizXFr/EnjdUWri1/W8M/f93d389BFF+qbkISzAvOHEk5TqOoyrzzotTn3xmYN6SCGTHG42fK4rA4Ei0qCnnA==',
  },
  {
    name: 'RSASSA-PSS, bare string',
    legacy: true,
    key: rsaPssKey,
    algorithm: 'rsa-pss-sha512',
    input: inputOf(bare, rsaId, 'rsa-pss-sha512', anHour, nonces.rsaLegacy),
    signature:
      'I1QWNzGXdP1a4dSvOHLCVOOanEYHDk+ZsVxM9MLX/p4ko69ghKwR5EOtAD96g7g4GWP7lmpM/jFAf9q8EFRDTPLjUXySwMv4YPgabv2LQihTJG2y8a2m6IGltyruwQNiqSJVUuRaG9+b17CGmAMFZh30X6GXLdQJrCARpeTqPwp2DC+a8haDE/VE5EruqzjA5/2mKwvrkzkSqeW5tOVtFwWRRHIOidquf/8Je6kM9mhgkg4arudLA5SL4wyyYE1jURIgcOl8agrfdJ5Def23DIRtiOLRa8jT9cpTLFAuFHN+mrZA/LH9h0gSIg1cPb+0cMASee5uku1KjWcFer7jWA==',
  },
  {
    name: 'EdDSA',
    legacy: false,
    key: ed25519Key,
    algorithm: 'ed25519',
    input: inputOf(dictionary, ed25519Id, 'ed25519', anAge, nonces.ed25519),
    signature: 'CGokAoY/FrPpyuzTe1Fb2kLTAH9Idw6qSFd1+D77r1firsMRCxeuLu5e6O+ek3zQgDMAzjiXtLVfqE00xnABCQ==',
  },
  {
    name: 'EdDSA, bare string',
    legacy: true,
    key: ed25519Key,
    algorithm: 'ed25519',
    input: inputOf(bare, ed25519Id, 'ed25519', anHour, nonces.ed25519Legacy),
    signature: 'jdq0SqOwHdyHr9+r5jw3iYZH6aNGKijYp/EstF4RQTQdi5N5YYKrD+mCT1HA1nZDsi6nJKuHxUi/5Syp3rLWBA==',
  },
] as const

describe("the draft's test vectors", () => {
  const agentOf = (legacy: boolean): string => `${legacy ? '' : 'sig2='}"https://signature-agent.test"`

  it.each(draftVectors)('$name verifies', ({ legacy, key, algorithm, input, signature }) => {
    const fields: Record<string, string> = { 'signature-agent': agentOf(legacy) }
    const base = signatureBase(
      {
        method: 'GET',
        origin: 'https://example.com',
        target: '/path/to/resource',
        fields: (name) => [fields[name] ?? []].flat(),
      },
      parseDictionary(input).get('sig2') as InnerList,
    )
    const [verifier] = readKeySet([key]).values()
    expect(verifiesWith(verifier!, algorithm, base, Buffer.from(signature, 'base64'))).toBe(true)
  })

  it.each(draftVectors)('$name, for an hour only, is taken: with `legacy` where it is', async (vector) => {
    const { legacy, key, input, signature } = vector
    const verifier = webBotAuth({
      origin: 'https://example.com',
      directories: { 'https://signature-agent.test': { keys: [key] } },
      legacy,
      testKeys: true,
      now: () => 1735689660_000,
    })
    const fields = { 'Signature-Agent': agentOf(legacy), 'Signature-Input': input, Signature: `sig2=:${signature}:` }
    const verification = await verifier.verify(requestOf(fields, { url: '/path/to/resource' }), unlimited)
    if (legacy) expect(verification).toMatchObject({ identity: { id: `agent:${directoryUrl}|ip:192.0.2.1` } })
    else
      expect(verification).toMatchObject({ outcome: 'invalid', reason: expect.stringContaining('it lasts too long') })
  })
})
