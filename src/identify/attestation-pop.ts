import { hash } from 'node:crypto'
import type * as jose from 'jose' with { 'resolution-mode': 'import' }
import { LRUCache } from 'lru-cache'
import type { AttestationRefusal, ClientAttestation, RefuseAttestation } from './client-attestation.ts'
import { loadJose } from './keys.ts'
import type { Nonces } from './nonce.ts'
import { readTypedJwt, type TypedJwt } from './typed-jwt.ts'
import type { Attempts, LimitedVerification, SingleUse } from './verifier.ts'

/** What is wanted of proofs of possession. */
export interface PopSettings {
  /** Whom they must be made for. */
  readonly resource: readonly string[]
  readonly proofAlgorithms: readonly string[]
  /** How old one may be, in ms. */
  readonly window: number
  /** In ms. */
  readonly clockTolerance: number
  readonly challenge: 'require' | 'offer' | false
  readonly now: () => number
}

/** A proof of possession that says what it should; its signature is still to be checked. */
interface ReadPop extends Pick<TypedJwt, 'outcome' | 'text' | 'alg'> {
  readonly jti: string
  readonly lastsMs: number
}

/** A proof of possession that was signed with the attested key. */
export interface CheckedPop {
  readonly outcome: 'proven'
  readonly singleUse: SingleUse
}

/** Checks proofs of possession: draft-ietf-oauth-attestation-based-client-auth, Client Attestation PoP JWT. The cheap parts first. */
export interface PopChecker {
  /**
   * Reads one, all but its signature.
   *
   * @param values all values of the field `OAuth-Client-Attestation-PoP`
   */
  read(values: readonly string[]): ReadPop | AttestationRefusal
  /** Checks that it was signed with the attested key. */
  verify(
    pop: ReadPop,
    attestation: ClientAttestation,
    attempts: Attempts,
  ): Promise<CheckedPop | AttestationRefusal | LimitedVerification>
}

const longestJti = 512

/** Importing a key costs more than a signature, and a client uses one for long. */
const rememberedKeys = 10_000

const what = 'the proof of possession'

/**
 * Makes what checks proofs of possession.
 *
 * @param nonces the challenges; undefined where none are given
 */
export function createPopChecker(
  settings: PopSettings,
  nonces: Nonces | undefined,
  refuse: RefuseAttestation,
): PopChecker {
  const { resource, proofAlgorithms, window, clockTolerance, challenge, now } = settings
  const keys = new LRUCache<string, jose.CryptoKey>({ max: rememberedKeys })
  const usedBefore = refuse(`${what} was used before`).challenge

  function read(values: readonly string[]): ReadPop | AttestationRefusal {
    const pop = readTypedJwt(values, what, 'oauth-client-attestation-pop+jwt', proofAlgorithms)
    if (typeof pop === 'string') return refuse(pop)
    const { aud, jti, iat, challenge: shown } = pop.claims
    // For one audience and no other: whoever else was meant could use it here.
    const audience = Array.isArray(aud) && aud.length === 1 ? (aud[0] as unknown) : aud
    if (!(resource as readonly unknown[]).includes(audience)) return refuse(`${what} is for somebody else`)
    if (typeof jti !== 'string' || jti === '' || jti.length > longestJti) {
      return refuse(`the jti of ${what} is missing or wrong`)
    }
    if (typeof iat !== 'number') return refuse(`${what} does not say when it was made`)
    const lastsMs = iat * 1000 + window - now()
    if (!(lastsMs > 0) || lastsMs > window + clockTolerance) return refuse(`${what} is too old, or of the future`)
    if (nonces !== undefined && (challenge === 'require' || shown !== undefined)) {
      if (typeof shown !== 'string' || !nonces.isGood(shown)) {
        return refuse('a challenge of this server is needed', { error: 'use_attestation_challenge', counts: false })
      }
    }
    return { outcome: 'read', text: pop.text, alg: pop.alg, jti, lastsMs: lastsMs + clockTolerance }
  }

  async function verify(
    { text, alg, jti, lastsMs }: ReadPop,
    { jwk, jkt }: ClientAttestation,
    attempts: Attempts,
  ): Promise<CheckedPop | AttestationRefusal> {
    const singleUse = {
      name: hash('sha256', JSON.stringify(['attestation-pop', jkt, jti]), 'base64url'),
      lastsMs,
      challenge: usedBefore,
    }
    if (attempts.wasUsed?.(singleUse.name) === true) return refuse(`${what} was used before`, { counts: false })
    try {
      const { importJWK, jwtVerify } = await loadJose()
      const name = `${alg} ${jkt}`
      const key = keys.get(name) ?? ((await importJWK(jwk, alg)) as jose.CryptoKey)
      await jwtVerify(text, key, {
        algorithms: [alg],
        clockTolerance: clockTolerance / 1000,
        currentDate: new Date(now()),
      })
      keys.set(name, key)
      return { outcome: 'proven', singleUse }
    } catch {
      // Whatever a signature made by a stranger leads to, and an `exp` or `nbf` that says that it does not hold now.
      return refuse(`${what} is not signed with the attested key, or does not hold now`)
    }
  }

  return {
    read,
    verify: async (pop, attestation, attempts) =>
      await attempts.check(
        `attestation-pop ${attestation.name} ${pop.text}`,
        () => verify(pop, attestation, attempts),
        `attestation-pop ${attestation.name}`,
      ),
  }
}
