// Who signs tokens in a test, and a clock that the test turns.

import { CompactSign, exportJWK, generateKeyPair, type CryptoKey, type JWK } from 'jose'

export const issuer = 'https://id.example.com'
export const audience = 'https://api.example.com'

/** A time at which nothing happens by itself, in ms. */
export const noon: number = Date.UTC(2026, 1, 27, 12)

/** {@link noon} in seconds, as tokens write times. */
export const noonSeconds: number = noon / 1000

/** What a token of a person says, for one minute from noon. */
export const claims = {
  iss: issuer,
  aud: audience,
  sub: 'ann',
  iat: noonSeconds,
  exp: noonSeconds + 60,
} as const

export interface SigningKey {
  readonly alg: string
  /** As it stands in the issuer's set. */
  readonly jwk: JWK
  readonly privateKey: CryptoKey
  /** Signs whatever it is given, also what no issuer would. */
  sign(payload: unknown, header?: Record<string, unknown>): Promise<string>
}

export async function createSigningKey(alg = 'ES256', kid: string | undefined = `${alg}-1`): Promise<SigningKey> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  return {
    alg,
    jwk: { ...(await exportJWK(publicKey)), ...(kid !== undefined && { kid }), alg, use: 'sig' },
    privateKey,
    sign(payload, header = {}) {
      const bytes = payload instanceof Uint8Array ? payload : new TextEncoder().encode(JSON.stringify(payload))
      const all = { alg, typ: 'at+jwt', ...(kid !== undefined && { kid }), ...header }
      return new CompactSign(bytes).setProtectedHeader(all).sign(privateKey)
    },
  }
}

/** A JWT put together by hand. */
export function jwtOf(header: unknown, payload: unknown, signature = 'AAAA'): string {
  const encode = (part: unknown): string => Buffer.from(JSON.stringify(part)).toString('base64url')
  return `${encode(header)}.${encode(payload)}.${signature}`
}
