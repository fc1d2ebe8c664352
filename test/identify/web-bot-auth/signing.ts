// Signs requests as an agent would, from lines that each test writes out: nothing here is shared with what it tests.

import { createHash, generateKeyPairSync, sign, type JsonWebKey, type KeyObject } from 'node:crypto'
import type { Request } from 'express'
import type { Attempts, Verification } from '../../../src/identify/verifier.ts'
import type { WebBotAuthOptions } from '../../../src/identify/web-bot-auth/options.ts'
import { webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'

export const address = 'ip:192.0.2.1'

/** Lets a verifier do all its work at once. */
export const unlimited: Attempts = { address, check: (_credential, work) => Promise.resolve(work()) }

/** The same, and writes down what was asked. */
export function recording(): Attempts & { readonly credentials: string[]; readonly holders: (string | undefined)[] } {
  const credentials: string[] = []
  const holders: (string | undefined)[] = []
  return {
    address,
    credentials,
    holders,
    check(credential, work, holder) {
      credentials.push(credential)
      holders.push(holder)
      return Promise.resolve(work())
    },
  }
}

/** A Friday in February. */
export const noon = Date.UTC(2026, 1, 27, 12)
export const noonSeconds = noon / 1000

export interface TestKey {
  readonly privateKey: KeyObject
  readonly jwk: JsonWebKey
  readonly keyid: string
}

/** RFC 8037 appendix A.3. */
function keyOf(privateKey: KeyObject, publicKey: KeyObject): TestKey {
  const jwk = publicKey.export({ format: 'jwk' })
  const { crv, kty, x } = jwk
  const keyid = createHash('sha256').update(JSON.stringify({ crv, kty, x })).digest('base64url')
  return { privateKey, jwk, keyid }
}

export function makeKey(): TestKey {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  return keyOf(privateKey, publicKey)
}

/** The agent of the tests, and where it says its keys are. */
export const key = makeKey()
export const agentUrl = 'https://bot.example/keys'
export const agentId = `agent:${agentUrl}`

/** A signature as a test wants it; what is left out is right. */
export interface Signing {
  readonly label?: string
  /** Identifier and value of each covered component, as they stand in the signature base. */
  readonly covered?: readonly (readonly [identifier: string, value: string])[]
  /** Undefined leaves a parameter out. */
  readonly params?: Readonly<Record<string, string | number | undefined>>
  /** The value of Signature-Agent's member. */
  readonly url?: string
  readonly key?: TestKey
}

/** What covers this request, and not only its host. */
export const wholeRequest = [
  ['"@method"', 'GET'],
  ['"@authority"', 'api.example.com'],
  ['"@path"', '/search'],
  ['"signature-agent";key="sig1"', `"${agentUrl}"`],
] as const

export const hostOnly = [
  ['"@authority"', 'api.example.com'],
  ['"signature-agent";key="sig1"', `"${agentUrl}"`],
] as const

/** The three fields of a signed request. */
export interface SignatureFields {
  readonly 'Signature-Agent': string
  readonly 'Signature-Input': string
  readonly Signature: string
}

export function signFields(signing: Signing = {}): SignatureFields {
  const { label = 'sig1', covered = wholeRequest, url = agentUrl, key: signer = key } = signing
  const params = {
    created: noonSeconds - 10,
    expires: noonSeconds + 50,
    keyid: signer.keyid,
    tag: 'web-bot-auth',
    ...signing.params,
  }
  const written = Object.entries(params)
    .filter((entry) => entry[1] !== undefined)
    .map(([name, value]) => `;${name}=${typeof value === 'number' ? value : `"${value}"`}`)
  const input = `(${covered.map(([identifier]) => identifier).join(' ')})${written.join('')}`
  const base = [...covered.map(([identifier, value]) => `${identifier}: ${value}`), `"@signature-params": ${input}`]
  const signature = sign(null, Buffer.from(base.join('\n')), signer.privateKey).toString('base64')
  return {
    'Signature-Agent': `${label}="${url}"`,
    'Signature-Input': `${label}=${input}`,
    Signature: `${label}=:${signature}:`,
  }
}

/** A request as Node and Express make it of these fields. */
export function requestOf(
  fields: Readonly<Record<string, string | readonly string[]>>,
  { method = 'GET', url = '/search' }: { method?: string; url?: string } = {},
): Request {
  const raw = Object.entries({ Host: 'api.example.com', ...fields }).flatMap(([name, values]) =>
    [values].flat().map((value) => [name, value] as [string, string]),
  )
  const headers: Record<string, string> = {}
  for (const [name, value] of raw) {
    const lower = name.toLowerCase()
    headers[lower] = headers[lower] === undefined ? value : `${headers[lower]}, ${value}`
  }
  return { method, url, originalUrl: url, headers, rawHeaders: raw.flat() } as unknown as Request
}

/** The verifier of the tests: knows the agent's key beforehand, and stands at noon. */
export const options: WebBotAuthOptions = {
  origin: 'https://api.example.com',
  directories: { [agentUrl]: { keys: [key.jwk] } },
  now: () => noon,
}

export async function verify(
  req: Request,
  changes: Partial<WebBotAuthOptions> = {},
  attempts: Attempts = unlimited,
): Promise<Verification> {
  return await webBotAuth({ ...options, ...changes }).verify(req, attempts)
}
