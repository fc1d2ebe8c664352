import * as z from 'zod'
import { readOptions } from '../read-options.ts'
import { createCertificateReader, isThumbprintOf } from './certificate.ts'
import { challenge } from './challenge.ts'
import { isToken68, readAuthorization } from './fields.ts'
import { noteProven } from './proven.ts'
import { createProofChecker, proofShape, type ProofOptions } from './proof.ts'
import { bindingsOf } from './token-identity.ts'
import { createTokenReader, tokenShape, type TokenOptions } from './tokens.ts'
import { trustedProxyList, type TrustedProxies } from './trusted-proxies.ts'
import type { Verification, Verifier } from './verifier.ts'

export interface DpopOptions extends TokenOptions, ProofOptions {
  /** Of tokens that are bound to a certificate as well: the proxies that may tell it in `Client-Cert`, as for `mtls`. Default: nobody. */
  trustedProxies?: TrustedProxies
}

const schema = z.strictObject({ ...tokenShape, ...proofShape, trustedProxies: trustedProxyList })

const absent: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Proves a client by a JWT access token in `Authorization: DPoP` and a proof in `DPoP` that it holds the key to which the token
 * is bound (RFC 9449). A token that was copied is worth nothing without that key, and a proof admits one request: the store
 * remembers it, for all processes, in the same step as the decision.
 *
 * The client's id is `sub:<issuer>|<subject>`; an agent's tier is `verified-agent`.
 *
 * A token of its issuer that is bound to a key and comes as `Bearer` is refused. Passed over: other schemes, opaque tokens, tokens of
 * other issuers.
 *
 * @example
 * dpop({
 *   issuer: 'https://id.example.com',
 *   audience: 'https://api.example.com',
 *   jwks: 'https://id.example.com/keys',
 *   origin: 'https://api.example.com',
 * })
 *
 * @see [RFC 9449 section 4.3](https://www.rfc-editor.org/rfc/rfc9449#section-4.3)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function dpop(options: DpopOptions): Verifier {
  const settings = readOptions(schema, options, 'dpop')
  const tokens = createTokenReader(settings)
  const readCertificate = createCertificateReader(settings)
  const { resourceMetadata, nonce, proofAlgorithms } = settings
  const algs = proofAlgorithms.join(' ')
  const malformed = (reason: string): Verification =>
    Object.freeze({
      outcome: 'invalid',
      status: 400,
      counts: false,
      reason,
      challenge: challenge('DPoP', {
        error: 'invalid_request',
        error_description: reason,
        algs,
        resource_metadata: resourceMetadata,
      }),
    })
  const twice = malformed('the request has several Authorization fields')
  // No other verifier could make anything of it.
  const unreadable = malformed('what follows DPoP in Authorization is no token')

  function withSecrets(secrets: readonly string[]): Verifier {
    const proofs = createProofChecker(settings, secrets, resourceMetadata)

    return {
      name: 'dpop',
      shownIn: 'authorization',
      stepUp: { challenge: challenge('DPoP', { algs, resource_metadata: resourceMetadata }) },
      challengeFor: (scopes, error) =>
        challenge('DPoP', { error, scope: scopes.join(' '), algs, resource_metadata: resourceMetadata }),
      ...(nonce !== false && { withSecrets, fieldNames: ['DPoP-Nonce'] }),

      async verify(req, attempts) {
        const authorization = readAuthorization(req)
        if (authorization === undefined) return absent
        if (authorization === null) return twice
        const { scheme, credential } = authorization
        if (scheme !== 'dpop' && scheme !== 'bearer') return absent
        if (scheme === 'dpop' && !isToken68(credential)) return unreadable
        const claims = tokens.unproven(credential)
        if (claims === undefined) return absent
        if (scheme === 'bearer') {
          if (bindingsOf(claims)?.jkt === undefined) return absent
          return await attempts.check(`downgraded ${credential}`, () =>
            proofs.refuse('the token is bound to a key: send it as DPoP, with a proof', { error: 'invalid_token' }),
          )
        }

        const proof = proofs.read(req, credential)
        if (proof.outcome !== 'read') {
          // To ask for a nonce costs nothing, and whoever needs one has done nothing wrong.
          if (proof.counts === false) return proof
          return await attempts.check(`dpop ${credential} ${req.headers['dpop']?.toString()}`, () => proof)
        }
        const token = await tokens.read(credential, 'DPoP', attempts)
        if (token.outcome !== 'token') return token
        const { bindings } = token
        if (bindings?.jkt === undefined || bindings.others) {
          return await attempts.check(`unbound ${credential}`, () =>
            proofs.refuse('the token is bound to something else than the key of a proof', { error: 'invalid_token' }),
          )
        }
        if (bindings.x5t !== undefined) {
          const certificate = readCertificate(req)
          if (certificate === undefined || certificate === 'malformed' || !isThumbprintOf(certificate, bindings.x5t)) {
            return await attempts.check(`uncertified ${credential}`, () =>
              proofs.refuse('the token is bound to a certificate that was not shown', { error: 'invalid_token' }),
            )
          }
        }
        const checked = await proofs.verify(proof, bindings.jkt, token.name, attempts)
        if (checked.outcome !== 'proven') return checked

        noteProven(req, attempts)
        const fields = proofs.fields()
        const lacking = tokens.refuseScopes(token.identity, 'DPoP')
        if (lacking !== undefined) return { ...lacking, ...(fields && { fields }) }
        return {
          outcome: 'verified',
          identity: { ...token.identity, provesKey: true, thumbprint: bindings.jkt },
          singleUses: [checked.singleUse],
          ...(fields && { fields }),
        }
      },
    }
  }

  return withSecrets([])
}
