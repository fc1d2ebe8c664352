import * as z from 'zod'
import { readOptions } from '../read-options.ts'
import { createCertificateReader, isThumbprintOf } from './certificate.ts'
import { challenge } from './challenge.ts'
import { readAuthorization } from './fields.ts'
import { noteProven } from './proven.ts'
import { createTokenReader, tokenShape, type TokenOptions } from './tokens.ts'
import { trustedProxyList, type TrustedProxies } from './trusted-proxies.ts'
import type { Verification, Verifier } from './verifier.ts'

export interface MtlsOptions extends TokenOptions {
  /**
   * The proxies that end TLS in front of this server and tell the client's certificate in `Client-Cert` (RFC 9440). They must take
   * away what clients write into that field. Addresses, subnets, or `loopback`, `linklocal`, `uniquelocal`, as for Express's `trust proxy`.
   * From anybody else the field is not looked at. Default: nobody.
   */
  trustedProxies?: TrustedProxies
}

const schema = z.strictObject({ ...tokenShape, trustedProxies: trustedProxyList })

const absent: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Proves a client by a JWT access token that is bound to the certificate with which it connected (RFC 8705 section 3). A token that was
 * copied is worth nothing without the certificate's key.
 *
 * The server has to ask for certificates: `https.createServer({ requestCert: true, rejectUnauthorized: false, … })`. They need not be
 * signed by anybody whom it trusts, since it is the token that says whose certificate it is.
 *
 * The client's id is `sub:<issuer>|<subject>`; an agent's tier is `verified-agent`.
 *
 * Refused: a token for another certificate, or bound to anything else besides. Passed over: tokens that are bound to nothing (let `bearer`
 * read them, after this verifier), other schemes, opaque tokens, tokens of other issuers.
 *
 * @example mtls({ issuer: 'https://id.example.com', audience: 'https://api.example.com', jwks: 'https://id.example.com/keys' })
 *
 * @see [RFC 8705 section 3](https://www.rfc-editor.org/rfc/rfc8705#section-3)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function mtls(options: MtlsOptions): Verifier {
  const settings = readOptions(schema, options, 'mtls')
  const tokens = createTokenReader(settings)
  const readCertificate = createCertificateReader(settings)
  const unreadable = (reason: string): Verification =>
    Object.freeze({
      outcome: 'invalid',
      status: 400,
      counts: false,
      reason,
      challenge: challenge('Bearer', {
        error: 'invalid_request',
        error_description: reason,
        resource_metadata: settings.resourceMetadata,
      }),
    })
  const twice = unreadable('the request has several Authorization fields')
  const malformed = unreadable('Client-Cert is not one certificate')

  return {
    name: 'mtls',
    shownIn: 'authorization',
    stepUp: {
      challenge: tokens.refuse('Bearer', "a token that is bound to the client's certificate is needed").challenge,
    },
    challengeFor: (scopes, error) =>
      challenge('Bearer', { error, scope: scopes.join(' '), resource_metadata: settings.resourceMetadata }),

    async verify(req, attempts) {
      const authorization = readAuthorization(req)
      if (authorization === undefined) return absent
      if (authorization === null) return twice
      const { scheme, credential } = authorization
      if (scheme !== 'bearer' || tokens.unproven(credential)?.['cnf'] == null) return absent

      const certificate = readCertificate(req)
      if (certificate === 'malformed') return malformed
      const token = await tokens.read(credential, 'Bearer', attempts)
      if (token.outcome !== 'token') return token
      const { bindings } = token
      if (bindings?.x5t === undefined || bindings.jkt !== undefined || bindings.others) {
        return await attempts.check(`unshown ${credential}`, () =>
          tokens.refuse('Bearer', 'the token is bound to a key that was not shown'),
        )
      }
      if (certificate === undefined || !isThumbprintOf(certificate, bindings.x5t)) {
        const reason =
          certificate === undefined
            ? 'the token is bound to a certificate, and the client showed none'
            : 'the token is bound to another certificate'
        return await attempts.check(`certificate ${certificate?.thumbprint ?? 'none'} ${credential}`, () =>
          tokens.refuse('Bearer', reason),
        )
      }
      noteProven(req, attempts)
      const lacking = tokens.refuseScopes(token.identity, 'Bearer')
      return (
        lacking ?? { outcome: 'verified', identity: { ...token.identity, provesKey: true, thumbprint: bindings.x5t } }
      )
    },
  }
}
