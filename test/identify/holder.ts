// Somebody who holds a key, and makes DPoP proofs with it: right ones, and such as nobody should.

import { createHash, randomUUID } from 'node:crypto'
import { calculateJwkThumbprint, CompactSign, exportJWK, generateKeyPair, type CryptoKey, type JWK } from 'jose'
import { noonSeconds } from './issuer.ts'

/** What a proof says otherwise than it should; undefined leaves a member out. */
export interface ProofChanges {
  readonly header?: Record<string, unknown>
  readonly claims?: Record<string, unknown>
  /** Signed with another key than it shows. */
  readonly signedBy?: CryptoKey
}

export interface Holder {
  readonly alg: string
  readonly jwk: JWK
  /** With its private members. */
  readonly privateJwk: JWK
  readonly privateKey: CryptoKey
  readonly jkt: string
  /** A proof for one request with a token, made at noon unless it says otherwise. */
  prove(htm: string, htu: string, token: string | undefined, changes?: ProofChanges): Promise<string>
}

export async function createHolder(alg = 'ES256'): Promise<Holder> {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true })
  const jwk = await exportJWK(publicKey)
  return {
    alg,
    jwk,
    privateJwk: await exportJWK(privateKey),
    privateKey,
    jkt: await calculateJwkThumbprint(jwk),
    async prove(htm, htu, token, { header, claims, signedBy = privateKey } = {}) {
      const all = {
        jti: randomUUID(),
        htm,
        htu,
        iat: noonSeconds,
        ...(token !== undefined && { ath: createHash('sha256').update(token).digest('base64url') }),
        ...claims,
      }
      return await new CompactSign(new TextEncoder().encode(JSON.stringify(all)))
        .setProtectedHeader({ typ: 'dpop+jwt', alg, jwk, ...header })
        .sign(signedBy)
    },
  }
}
