import * as z from 'zod'
import { readOptions } from '../read-options.ts'
import { challenge } from './challenge.ts'
import { readAuthorization } from './fields.ts'
import { isProven, noteProven } from './proven.ts'
import { createTokenReader, tokenShape, type TokenOptions } from './tokens.ts'
import type { Verification, Verifier } from './verifier.ts'

const schema = z.strictObject(tokenShape)

const absent: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Proves a client by a JWT access token in `Authorization: Bearer` (RFC 6750, RFC 9068).
 *
 * It proves that somebody has the token, and not that they are whom it was issued to: a token copied from a log works as well. A
 * token that is bound to a key (`cnf`) is refused here, since nothing shows the key: let `dpop` or `mtls` read it, before this
 * verifier.
 *
 * The client's id is `sub:<issuer>|<subject>`. Its kind is `agent` where the token says so (an actor, a client's own token), else
 * `unknown`.
 *
 * Passed over: other schemes, opaque tokens, tokens of other issuers, and what a verifier before this one found good.
 *
 * @example bearer({ issuer: 'https://id.example.com', audience: 'https://api.example.com', jwks: 'https://id.example.com/keys' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function bearer(options: TokenOptions): Verifier {
  const settings = readOptions(schema, options, 'bearer')
  const tokens = createTokenReader(settings)
  const twice: Verification = Object.freeze({
    outcome: 'invalid',
    status: 400,
    counts: false,
    reason: 'the request has several Authorization fields',
    challenge: challenge('Bearer', {
      error: 'invalid_request',
      error_description: 'the request has several Authorization fields',
      resource_metadata: settings.resourceMetadata,
    }),
  })

  return {
    name: 'bearer',
    shownIn: 'authorization',
    mayProveKey: false,
    challengeFor: (scopes, error) =>
      challenge('Bearer', { error, scope: scopes.join(' '), resource_metadata: settings.resourceMetadata }),
    async verify(req, attempts) {
      const authorization = readAuthorization(req)
      if (authorization === undefined) return absent
      if (authorization === null) return twice
      const { scheme, credential } = authorization
      if (scheme !== 'bearer' || isProven(req, attempts) || !tokens.isOurs(credential)) return absent

      const token = await tokens.read(credential, 'Bearer', attempts)
      if (token.outcome !== 'token') return token
      if (token.bindings !== undefined) {
        return await attempts.check(`unbound ${credential}`, () =>
          tokens.refuse('Bearer', 'the token is bound to a key that was not shown'),
        )
      }
      const lacking = tokens.refuseScopes(token.identity, 'Bearer')
      if (lacking !== undefined) return lacking
      noteProven(req, attempts)
      return { outcome: 'verified', identity: token.identity }
    },
  }
}
