import { hash } from 'node:crypto'
import type { Request } from 'express'
import type * as jose from 'jose' with { 'resolution-mode': 'import' }
import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { challenge, type ChallengeParameters } from './challenge.ts'
import { fieldValues } from './fields.ts'
import { isHuge, isPublicJwk, type PublicJwk } from './key-source.ts'
import { loadJose } from './keys.ts'
import { createNonces } from './nonce.ts'
import { createTargets, normalizeTarget } from './target.ts'
import { asymmetric, clock, decodePart } from './tokens.ts'
import type { Attempts, SingleUse, Verification } from './verifier.ts'

/** How DPoP proofs are checked. */
export interface ProofOptions {
  /**
   * Where clients reach this API, such as `https://api.example.com`: what a proof must be made for. A path in it is one that a
   * proxy in front takes away. As a list where there are several.
   */
  origin: string | readonly string[]
  /**
   * Whether proofs have to carry a nonce of this server (RFC 9449 section 9): `require` asks whoever brings none for one, `offer`
   * gives nonces and takes proofs without, `false` (default) does neither. Servers that share a store need the limiter's `keySecret`.
   */
  nonce?: 'require' | 'offer' | false
  /** How old a proof may be. Default 60 s; its clock may be 5 s ahead. */
  window?: Duration
  /** The algorithms of proofs. Default: ES256, EdDSA, Ed25519, RS256, PS256. */
  proofAlgorithms?: readonly string[]
}

const origin = z.url({ protocol: /^https?$/, error: 'an http(s) origin, such as "https://api.example.com"' })

/** {@link ProofOptions}, read. */
export interface ProofSettings {
  readonly origin: readonly string[]
  readonly nonce: 'require' | 'offer' | false
  /** In ms. */
  readonly window: number
  readonly proofAlgorithms: readonly string[]
  readonly now: () => number
}

/** The part of a verifier's schema that is about proofs. */
export const proofShape: { [Name in keyof ProofSettings]-?: z.ZodType<ProofSettings[Name]> } = {
  origin: z
    .union([origin, z.array(origin).min(1)], { error: 'an http(s) origin, or a list of such' })
    .transform((value) => [value].flat()),
  nonce: z
    .union([z.literal('require'), z.literal('offer'), z.literal(false)], { error: '"require", "offer" or false' })
    .default(false),
  window: z
    .unknown()
    .transform((value) => parseDuration(value, 'window'))
    .prefault('60s'),
  proofAlgorithms: z.array(z.enum(asymmetric)).min(1).default(['ES256', 'EdDSA', 'Ed25519', 'RS256', 'PS256']),
  now: clock.default(() => Date.now),
}

/** How far a client's clock may be ahead, in ms. */
const skewMs = 5000

const longestProof = 8192
const longestJti = 512

/** Importing a key costs more than a signature, and a client uses one for long. */
const rememberedKeys = 10_000

/** A proof that says what it should; its signature is still to be checked. */
export interface ReadProof {
  readonly outcome: 'read'
  readonly text: string
  readonly alg: string
  readonly jwk: PublicJwk
  readonly jti: string
  readonly method: string
  readonly target: string
  readonly lastsMs: number
}

/** A proof whose key signed it. */
interface CheckedProof {
  readonly outcome: 'proven'
  /** The key's thumbprint (RFC 7638). */
  readonly jkt: string
  readonly singleUse: SingleUse
}

type ProofRefusal = Verification & { outcome: 'invalid' }

/** Checks DPoP proofs: RFC 9449 section 4.3, the cheap parts first. */
export interface ProofChecker {
  /** What every answer to a client that uses proofs carries: the nonce for its next one. */
  fields(): Readonly<Record<string, string>> | undefined
  /**
   * Reads the request's proof, all but its signature.
   *
   * @param token what it has to be for; undefined where no token goes with it
   */
  read(req: Request, token: string | undefined): ReadProof | ProofRefusal
  /**
   * Checks that a proof was signed with its own key, and that this is the key that is wanted.
   *
   * @param jkt the thumbprint of the wanted key; undefined: any
   * @param holder names what is bound to the key
   */
  verify(
    proof: ReadProof,
    jkt: string | undefined,
    holder: string,
    attempts: Attempts,
  ): Promise<CheckedProof | Exclude<Verification, { outcome: 'verified' | 'absent' }>>
  /** What answers a request whose proof is wrong. */
  refuse(reason: string, parameters?: ChallengeParameters & { counts?: boolean }): ProofRefusal
}

/**
 * Makes what checks proofs.
 *
 * @param secrets of the limiter: what nonces are made with
 * @param resourceMetadata for challenges
 */
export function createProofChecker(
  settings: ProofSettings,
  secrets: readonly string[],
  resourceMetadata?: string,
): ProofChecker {
  const { nonce, window, now } = settings
  const algorithms: ReadonlySet<unknown> = new Set(settings.proofAlgorithms)
  const algs = settings.proofAlgorithms.join(' ')
  const targetsOf = createTargets(settings.origin)
  const nonces = nonce === false ? undefined : createNonces({ use: 'DPoP', secrets, now })
  const keys = new LRUCache<string, { key: jose.CryptoKey; jkt: string }>({ max: rememberedKeys })

  function fields(): Readonly<Record<string, string>> | undefined {
    return nonces === undefined ? undefined : { 'DPoP-Nonce': nonces.current() }
  }

  function refuse(
    reason: string,
    { counts, ...parameters }: ChallengeParameters & { counts?: boolean } = {},
  ): ProofRefusal {
    const given = fields()
    return {
      outcome: 'invalid',
      reason,
      challenge: challenge('DPoP', {
        error: 'invalid_dpop_proof',
        error_description: reason,
        algs,
        resource_metadata: resourceMetadata,
        ...parameters,
      }),
      ...(counts !== undefined && { counts }),
      ...(given !== undefined && { fields: given }),
    }
  }

  const usedBefore = refuse('the proof was used before').challenge

  function askForNonce(): ProofRefusal {
    return refuse('a nonce of this server is needed', { error: 'use_dpop_nonce', counts: false })
  }

  function read(req: Request, token: string | undefined): ReadProof | ProofRefusal {
    const proofs = fieldValues(req, 'dpop')
    if (proofs.length === 0) return refuse('there is no proof')
    const text = proofs[0]!
    const parts = text.split('.')
    if (proofs.length > 1 || parts.length !== 3 || text.length > longestProof) {
      return refuse('there must be exactly one proof, a JWT')
    }
    const header = decodePart(parts[0]!)
    const claims = decodePart(parts[1]!)
    if (header === undefined || claims === undefined) return refuse('the proof cannot be read')
    const { typ, alg, jwk } = header
    if (typ !== 'dpop+jwt') return refuse('the type of the proof is not dpop+jwt')
    if (typeof alg !== 'string' || !algorithms.has(alg))
      return refuse('the proof is signed with an algorithm that is not accepted')
    if (!isPublicJwk(jwk) || isHuge(jwk)) return refuse('the proof does not carry a public key')
    if ('crit' in header) return refuse('the proof wants something understood that is not')

    const { jti, htm, htu, iat, ath } = claims
    if (typeof jti !== 'string' || jti === '' || jti.length > longestJti)
      return refuse('the jti of the proof is missing or wrong')
    if (htm !== req.method) return refuse('the proof is for another method')
    const target = typeof htu === 'string' ? targetOf(htu, targetsOf(req)) : undefined
    if (target === undefined) return refuse('the proof is for another address')
    if (typeof iat !== 'number') return refuse('the proof does not say when it was made')
    const lastsMs = iat * 1000 + window - now()
    if (!(lastsMs > 0) || lastsMs > window + skewMs) return refuse('the proof is too old, or of the future')
    if (!holdsAt(claims, now())) return refuse('the proof says that it does not hold now')
    if (token !== undefined && ath !== hash('sha256', token, 'base64url'))
      return refuse('the proof is for another token')
    if (nonces !== undefined && (nonce === 'require' || claims['nonce'] !== undefined)) {
      const shown = claims['nonce']
      if (typeof shown !== 'string' || !nonces.isGood(shown)) return askForNonce()
    }
    return { outcome: 'read', text, alg, jwk, jti, method: req.method, target, lastsMs: lastsMs + skewMs }
  }

  async function verify(
    { text, alg, jwk, jti, method, target, lastsMs }: ReadProof,
    jkt: string | undefined,
    attempts: Attempts,
  ): Promise<CheckedProof | ProofRefusal> {
    try {
      const { compactVerify, calculateJwkThumbprint, importJWK } = await loadJose()
      const { kty, crv, x, y, e, n } = jwk
      const name = JSON.stringify([alg, kty, crv, x, y, e, n])
      const known = keys.get(name)
      const thumbprint = known?.jkt ?? (await calculateJwkThumbprint(jwk))
      if (jkt !== undefined && thumbprint !== jkt)
        return refuse('the proof is signed with another key than the one wanted')
      const singleUse = {
        name: hash('sha256', JSON.stringify([thumbprint, method, target, jti]), 'base64url'),
        lastsMs,
        challenge: usedBefore,
      }
      if (attempts.wasUsed?.(singleUse.name) === true) return refuse('the proof was used before', { counts: false })
      const key = known?.key ?? ((await importJWK(jwk, alg)) as jose.CryptoKey)
      await compactVerify(text, key, { algorithms: [alg] })
      // Only now: what a stranger makes up must not drive out what is in use.
      if (known === undefined) keys.set(name, { key, jkt: thumbprint })
      return { outcome: 'proven', jkt: thumbprint, singleUse }
    } catch {
      // Whatever a key or signature made by a stranger leads to.
      return refuse('the signature of the proof is wrong')
    }
  }

  return {
    fields,
    read,
    refuse,
    verify: async (proof, jkt, holder, attempts) =>
      await attempts.check(
        `dpop ${holder} ${proof.text}`,
        () => verify(proof, jkt, attempts),
        `dpop ${holder} ${jkt ?? ''}`,
      ),
  }
}

/** What a JWT may say about when it holds (RFC 7519 sections 4.1.4 and 4.1.5); a proof need not, and one that does is taken at its word. */
function holdsAt({ exp, nbf }: Readonly<Record<string, unknown>>, now: number): boolean {
  const hasEnded = exp !== undefined && !(typeof exp === 'number' && now < exp * 1000 + skewMs)
  const hasBegun = nbf === undefined || (typeof nbf === 'number' && nbf * 1000 <= now + skewMs)
  return hasBegun && !hasEnded
}

/** Which of the targets a proof is for. Most write it as it is; what is written otherwise is compared in its normal form. */
function targetOf(htu: string, targets: readonly string[]): string | undefined {
  const written = htu.search(/[?#]/) === -1 ? htu : htu.slice(0, htu.search(/[?#]/))
  const meant = normalizeTarget(written)
  if (meant === undefined) return undefined
  return targets.some((target) => target === written || normalizeTarget(target) === meant) ? meant : undefined
}
