import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { isHuge, isPublicJwk, type KeySource, type PublicJwk } from './key-source.ts'
import { createKeys, isNoSuchKey, KeysUnavailable, loadJose, withKey } from './keys.ts'
import { isWellFormed } from './subject.ts'
import { tokenIdentity } from './token-identity.ts'
import { decodePart, livesAtMost } from './tokens.ts'
import { readTypedJwt, type TypedJwt } from './typed-jwt.ts'
import type { Attempts, Identity, Verification } from './verifier.ts'

/** What is wanted of client attestations. */
export interface ClientAttestationSettings {
  readonly jwks: KeySource
  /** Empty: whoever has one of the keys. */
  readonly issuer: readonly string[]
  /** Names the attester in ids where an attestation does not say who made it. */
  readonly attester: string
  readonly algorithms: readonly string[]
  /** In ms. */
  readonly maxLifetime?: number | undefined
  /** In ms. */
  readonly clockTolerance: number
  readonly now: () => number
}

/** A client attestation that is what it should be. Whether whoever sent it holds its key is another question. */
export interface ClientAttestation {
  readonly outcome: 'attested'
  readonly identity: Identity
  /** The client's public key. */
  readonly jwk: PublicJwk
  /** Its thumbprint (RFC 7638). */
  readonly jkt: string
  /** A hash of the attestation. */
  readonly name: string
}

/** Why an attestation, or the proof that goes with it, will not do. */
export type AttestationRefusal = Verification & { readonly outcome: 'invalid' }

/** Writes what answers such a one. */
export type RefuseAttestation = (
  reason: string,
  parameters?: { readonly error?: string; readonly counts?: boolean },
) => AttestationRefusal

/** What became of one that was checked. */
type AttestationVerification = ClientAttestation | Exclude<Verification, { outcome: 'verified' | 'absent' }>

/** Reads client attestations: draft-ietf-oauth-attestation-based-client-auth, Client Attestation JWT. */
export interface AttestationReader {
  /**
   * Reads one, all but its signature.
   *
   * @param values all values of the field `OAuth-Client-Attestation`
   * @returns undefined for one of another attester
   */
  read(values: readonly string[]): TypedJwt | AttestationRefusal | undefined
  /** Checks that a trusted attester signed it, and that it is fresh. */
  verify(attestation: TypedJwt, attempts: Attempts): Promise<AttestationVerification>
}

/** Those that are remembered as good, and for how long at most: so long a key that its attester withdrew serves on. */
const rememberedAttestations = 10_000
const rememberedCharacters = 20_000_000
const rememberedForMs = 60_000

const noAgents: ReadonlySet<string> = new Set()

let readers = 0

/** Makes what reads client attestations. One that was found good is remembered, by hash, for a minute or until it expires. */
export function createAttestationReader(
  settings: ClientAttestationSettings,
  refuse: RefuseAttestation,
): AttestationReader {
  const { issuer: issuers, attester, algorithms, maxLifetime, clockTolerance, now } = settings
  const findKey = createKeys(settings.jwks)
  const good = new LRUCache<string, { attestation: ClientAttestation; until: number }>({
    max: rememberedAttestations,
    maxSize: rememberedCharacters,
  })
  // Two verifiers may want different things of the same attestation.
  const reader = (readers += 1)

  function read(values: readonly string[]): TypedJwt | AttestationRefusal | undefined {
    if (issuers.length > 0 && isOfOthers(values)) return undefined
    const jwt = readTypedJwt(values, 'the attestation', 'oauth-client-attestation+jwt', algorithms)
    if (typeof jwt === 'string') return refuse(jwt)
    const { iss, sub, exp } = jwt.claims
    if (iss !== undefined && (typeof iss !== 'string' || iss === '')) {
      return refuse('the attestation does not say who made it')
    }
    if (typeof sub !== 'string' || sub === '') return refuse('the attestation does not say of which client it is')
    if (typeof exp !== 'number') return refuse('the attestation does not say when it expires')
    if (keyOf(jwt.claims) === undefined) return refuse('the attestation does not carry a public key')
    return jwt
  }

  /** Also of nobody who is named. What cannot be read is refused, whoever made it. */
  function isOfOthers(values: readonly string[]): boolean {
    return values.every((value) => {
      const claims = decodePart(value.split('.')[1] ?? '')
      return claims !== undefined && !(issuers as readonly unknown[]).includes(claims['iss'])
    })
  }

  async function verify({ text, header, claims, parts }: TypedJwt, name: string): Promise<AttestationVerification> {
    const { jwtVerify, calculateJwkThumbprint } = await loadJose()
    try {
      await withKey(findKey, header, parts, async (key) =>
        jwtVerify(text, key, {
          algorithms: [...algorithms],
          clockTolerance: clockTolerance / 1000,
          currentDate: new Date(now()),
        }),
      )
      const { exp, iat } = claims as { exp: number; iat?: unknown }
      if (maxLifetime !== undefined && !livesAtMost(maxLifetime, exp, iat, now() + clockTolerance)) {
        return refuse('the attestation lives longer than is accepted here', {
          error: 'use_fresh_attestation',
          counts: false,
        })
      }
      const jwk = keyOf(claims)!
      const identity = identityOf(claims)
      if (identity === undefined) return refuse('the attestation names nobody')
      const jkt = await calculateJwkThumbprint(jwk)
      const attestation: ClientAttestation = {
        outcome: 'attested',
        identity: { ...identity, thumbprint: jkt },
        jwk,
        jkt,
        name,
      }
      const until = Math.min(exp * 1000 + clockTolerance, now() + rememberedForMs)
      good.set(name, { attestation, until }, { size: text.length })
      return attestation
    } catch (error) {
      return refuseFor(error)
    }
  }

  /**
   * `sub:<attester>|<client>`. A runtime is attested, and what runs there is taken for an agent: whoever logs in there shows a token
   * besides.
   */
  function identityOf(claims: TypedJwt['claims']): Identity | undefined {
    const { iss, sub } = claims
    const maker = typeof iss === 'string' && iss !== '' ? iss : attester
    const id = isWellFormed(maker) ? tokenIdentity(maker, undefined, { sub }, noAgents)?.id : undefined
    if (id === undefined) return undefined
    return {
      id,
      kind: 'agent',
      confidence: 0.9,
      reason: 'a trusted attester vouches for the runtime of the client',
      provesKey: true,
      claims: { attested: { ...claims } },
    }
  }

  function refuseFor(error: unknown): AttestationVerification {
    if (error instanceof KeysUnavailable) {
      return { outcome: 'unavailable', reason: 'the keys of the attester cannot be had now', cause: error }
    }
    if (isNoSuchKey(error)) return refuse('the attestation is signed with a key that no attester has')
    const { code, claim } = error as { code?: unknown; claim?: unknown }
    // Its signature was good: whoever shows it has had it rightly.
    if (code === 'ERR_JWT_EXPIRED') {
      return refuse('the attestation has expired', { error: 'use_fresh_attestation', counts: false })
    }
    if (code === 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED') return refuse("the attestation's signature is wrong")
    if (code === 'ERR_JWT_CLAIM_VALIDATION_FAILED') {
      // What is early is not wrong.
      return claim === 'nbf'
        ? refuse('the attestation is not valid yet', { counts: false })
        : refuse('a claim of the attestation is wrong')
    }
    // Whatever else an attestation made by a stranger leads to.
    return refuse('the attestation cannot be read')
  }

  return {
    read,

    async verify(attestation, attempts) {
      const name = hash('sha256', attestation.text, 'base64url')
      const remembered = good.get(name)
      if (remembered !== undefined) {
        if (now() < remembered.until) return remembered.attestation
        good.delete(name)
      }
      return await attempts.check(`attestation ${reader} ${attestation.text}`, () => verify(attestation, name))
    },
  }
}

/** The client's key in `cnf` (RFC 7800 section 3.2). */
function keyOf({ cnf }: TypedJwt['claims']): PublicJwk | undefined {
  const { jwk } = typeof cnf === 'object' && cnf !== null ? (cnf as { jwk?: unknown }) : {}
  return isPublicJwk(jwk) && !isHuge(jwk) ? jwk : undefined
}
