import { randomBytes } from 'node:crypto'
import type { Request } from 'express'
import * as z from 'zod'
import type { Duration } from '../duration.ts'
import { readOptions } from '../read-options.ts'
import { clientOf } from './agent-claims.ts'
import { createPopChecker, type CheckedPop, type PopChecker } from './attestation-pop.ts'
import { challenge } from './challenge.ts'
import {
  createAttestationReader,
  type AttestationRefusal,
  type ClientAttestation,
  type RefuseAttestation,
} from './client-attestation.ts'
import { fieldValues, readAuthorization } from './fields.ts'
import type { KeySource } from './key-source.ts'
import { createNonces } from './nonce.ts'
import { createProofChecker, proofShape, type ProofChecker } from './proof.ts'
import { decodePart, tokenShape } from './tokens.ts'
import type { TypedJwt } from './typed-jwt.ts'
import type { Attempts, Verification, Verifier } from './verifier.ts'

export interface AttestationOptions {
  /** This API's identifier (RFC 9728): whom a proof of possession must be made for, its `aud`, exactly. As a list where it has several. */
  resource: string | readonly string[]
  /** The attesters' keys: the URL of a JSON Web Key Set, the set itself, or a function that finds a key as jose's do. */
  jwks: KeySource
  /**
   * Whose attestations these are: the `iss` claim, exactly. Attestations of others, and those without `iss`, are passed over. Default:
   * whoever has one of the keys. Give it where there are several attesters, so that none speaks for another.
   */
  issuer?: string | readonly string[]
  /** Names the attester in client ids, where attestations have no `iss`. Default: the URL of `jwks`, or `attester`. */
  attester?: string
  /**
   * Whether proofs of possession have to carry a challenge of this server: `require` asks whoever brings none for one, `offer` gives
   * challenges and takes proofs without, `false` (default) does neither. Servers that share a store need the limiter's `keySecret`.
   */
  challenge?: 'require' | 'offer' | false
  /**
   * Where clients reach this API, for those who show possession by a DPoP proof: as for `dpop`. Default: the origin of `resource`, where
   * that is an http(s) URL.
   */
  origin?: string | readonly string[]
  /** How old a proof may be. Default 60 s. */
  window?: Duration
  /** The algorithms of attestations. Default: ES256, ES384, ES512, EdDSA, Ed25519, RS256, RS384, RS512, PS256, PS384, PS512. */
  algorithms?: readonly string[]
  /** The algorithms of proofs. Default: ES256, EdDSA, Ed25519, RS256, PS256. */
  proofAlgorithms?: readonly string[]
  /** The longest an attestation may live, from `iat` to `exp`. Default: as long as its attester says. */
  maxLifetime?: Duration
  /** How far the clocks of attesters and clients and this one may differ. Default 5 s. */
  clockTolerance?: Duration
  /** The URL of this resource's metadata (RFC 9728), for challenges; `protectedResource` serves it. */
  resourceMetadata?: string
  /** The time in ms since 1970, for tests. */
  now?: () => number
}

const schema = z.strictObject({
  resource: tokenShape.audience,
  jwks: tokenShape.jwks,
  issuer: tokenShape.issuer.optional(),
  attester: z.string().min(1).max(100).optional(),
  challenge: proofShape.nonce,
  origin: proofShape.origin.optional(),
  window: proofShape.window,
  algorithms: tokenShape.algorithms,
  proofAlgorithms: proofShape.proofAlgorithms,
  maxLifetime: tokenShape.maxLifetime,
  clockTolerance: tokenShape.clockTolerance,
  resourceMetadata: tokenShape.resourceMetadata,
  now: tokenShape.now,
})

type Settings = z.output<typeof schema>

const absent: Verification = Object.freeze({ outcome: 'absent' })

const challengeField = 'OAuth-Client-Attestation-Challenge'

/**
 * Proves the runtime of a client by an attestation of somebody whom the operator trusts, in `OAuth-Client-Attestation`, and that the client
 * holds the key in it: by a proof of possession in `OAuth-Client-Attestation-PoP`, or without that field by the request's DPoP proof, made
 * with the same key (draft-ietf-oauth-attestation-based-client-auth). A proof admits one request: the store remembers it, for all
 * processes.
 *
 * Alone the client's id is `sub:<attester>|<client>` and its kind `agent`; its tier is `verified-agent`. Beside a token it adds
 * what was attested to the claims, as `client.claims.attested`; an attestation of another client than the token's is refused.
 *
 * Passed over: requests without an attestation, and attestations of others than `issuer`.
 *
 * @example attestation({ resource: 'https://api.example.com', jwks: 'https://attester.example.com/keys' })
 *
 * @see [draft-ietf-oauth-attestation-based-client-auth](https://datatracker.ietf.org/doc/draft-ietf-oauth-attestation-based-client-auth/)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function attestation(options: AttestationOptions): Verifier {
  const settings = readOptions(schema, options, 'attestation')
  const { resourceMetadata } = settings

  const refuse: RefuseAttestation = (reason, { counts, error = 'invalid_client_attestation' } = {}) => ({
    outcome: 'invalid',
    reason,
    challenge: challenge('Bearer', { error, error_description: reason, resource_metadata: resourceMetadata }),
    ...(counts !== undefined && { counts }),
  })
  const attestations = createAttestationReader(
    { ...settings, issuer: settings.issuer ?? [], attester: settings.attester ?? nameOf(settings.jwks) },
    refuse,
  )

  function withSecrets(secrets: readonly string[]): Verifier {
    // Challenges are DPoP nonces too, since a DPoP proof brings a challenge as its nonce.
    const signers = secrets.length > 0 ? secrets : [randomBytes(32).toString('base64url')]
    const nonces =
      settings.challenge === false ? undefined : createNonces({ use: 'DPoP', secrets: signers, now: settings.now })
    const pops = createPopChecker(settings, nonces, refuse)
    const proofs = createProofs(settings, signers)

    function possessionOf(req: Request): Possession | AttestationRefusal {
      const shown = fieldValues(req, 'oauth-client-attestation-pop')
      if (shown.length > 0) return byPop(pops, shown)
      if (proofs === undefined || fieldValues(req, 'dpop').length === 0) {
        return refuse('there is no proof of possession')
      }
      return byDpop(proofs, req, refuse)
    }

    async function judge(req: Request, jwt: TypedJwt | AttestationRefusal, attempts: Attempts): Promise<Verification> {
      if (jwt.outcome !== 'read') return await refuseOnce(req, jwt, attempts)
      const possession = possessionOf(req)
      if (possession.outcome !== 'shown') return await refuseOnce(req, possession, attempts)
      if (isOfAnother(jwt, req)) {
        return await refuseOnce(req, refuse('the attestation is of another client than the token'), attempts)
      }
      const attested = await attestations.verify(jwt, attempts)
      if (attested.outcome !== 'attested') return attested
      const proven = await possession.verify(attested, attempts)
      if (proven.outcome !== 'proven') return proven
      const { identity } = attested
      const { fields } = possession
      return {
        outcome: 'verified',
        identity,
        secondary: true,
        singleUses: [proven.singleUse],
        ...(fields && { fields }),
      }
    }

    return {
      name: 'attestation',
      get stepUp() {
        const error = nonces === undefined ? 'invalid_client_attestation' : 'use_attestation_challenge'
        return {
          challenge: refuse('a client attestation with a proof of possession is needed', { error }).challenge,
          ...(nonces !== undefined && { fields: { [challengeField]: nonces.current() } }),
        }
      },
      ...(nonces !== undefined && { withSecrets, fieldNames: [challengeField, 'DPoP-Nonce'] }),

      async verify(req, attempts) {
        const shown = fieldValues(req, 'oauth-client-attestation')
        const jwt = shown.length === 0 ? undefined : attestations.read(shown)
        if (jwt === undefined) return absent
        const answer = await judge(req, jwt, attempts)
        return nonces === undefined
          ? answer
          : { ...answer, fields: { ...answer.fields, [challengeField]: nonces.current() } }
      },
    }
  }

  return withSecrets([])
}

/** What shows that the client holds the attested key; its signature is still to be checked. */
interface Possession {
  readonly outcome: 'shown'
  readonly fields?: Readonly<Record<string, string>> | undefined
  verify(
    attested: ClientAttestation,
    attempts: Attempts,
  ): Promise<CheckedPop | Exclude<Verification, { outcome: 'verified' | 'absent' }>>
}

function byPop(pops: PopChecker, shown: readonly string[]): Possession | AttestationRefusal {
  const pop = pops.read(shown)
  if (pop.outcome !== 'read') return pop
  return { outcome: 'shown', verify: async (attested, attempts) => await pops.verify(pop, attested, attempts) }
}

/** The request's DPoP proof (RFC 9449), which goes with the token where the token comes as DPoP. */
function byDpop(proofs: ProofChecker, req: Request, refuse: RefuseAttestation): Possession | AttestationRefusal {
  const authorization = readAuthorization(req)
  const proof = proofs.read(req, authorization?.scheme === 'dpop' ? authorization.credential : undefined)
  // One that only lacks a nonce is asked for it in the words of DPoP, which its client knows.
  if (proof.outcome !== 'read') return proof.counts === false ? proof : refuse(proof.reason)
  return {
    outcome: 'shown',
    fields: proofs.fields(),
    async verify(attested, attempts) {
      const checked = await proofs.verify(proof, attested.jkt, `attestation ${attested.name}`, attempts)
      return checked.outcome === 'invalid' ? refuse(checked.reason) : checked
    },
  }
}

function createProofs(settings: Settings, secrets: readonly string[]): ProofChecker | undefined {
  const { challenge: nonce, resource, window, proofAlgorithms, resourceMetadata, now } = settings
  const urls = resource.filter((one) => /^https?:/i.test(one) && URL.canParse(one))
  const origin = settings.origin ?? [...new Set(urls.map((one) => new URL(one).origin))]
  return origin.length === 0
    ? undefined
    : createProofChecker({ origin, nonce, window, proofAlgorithms, now }, secrets, resourceMetadata)
}

/**
 * Whether the request's token says that it was issued to another client. Nothing of the token is proven here: it can only lead to a
 * refusal, and one that cannot be read leads to none.
 */
function isOfAnother(jwt: TypedJwt, req: Request): boolean {
  const payload = readAuthorization(req)?.credential.split('.')[1]
  const client = clientOf((payload === undefined ? undefined : decodePart(payload)) ?? {})
  return client !== undefined && client !== jwt.claims['sub']
}

/** Counts a failed proof once, however often it comes. What is only incomplete is none. */
async function refuseOnce(req: Request, refusal: AttestationRefusal, attempts: Attempts): Promise<Verification> {
  if (refusal.counts === false) return refusal
  const shown = ['oauth-client-attestation', 'oauth-client-attestation-pop', 'dpop', 'authorization'].map((name) =>
    fieldValues(req, name),
  )
  return await attempts.check(`attestation ${JSON.stringify(shown)}`, () => refusal)
}

/** A name for the attester of attestations that do not say whose they are. */
function nameOf(jwks: KeySource): string {
  return typeof jwks === 'string' || jwks instanceof URL ? String(jwks) : 'attester'
}
