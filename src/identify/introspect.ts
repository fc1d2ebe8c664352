import { hash } from 'node:crypto'
import type { Request } from 'express'
import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { clientOf } from './agent-claims.ts'
import { createCertificateReader, isThumbprintOf } from './certificate.ts'
import { challenge } from './challenge.ts'
import { isToken68, readAuthorization } from './fields.ts'
import { createIntrospection, IntrospectionFailed, type Introspected } from './introspection.ts'
import { isTrustworthyUrl } from './key-source.ts'
import { createProofChecker, proofShape, type ProofChecker, type ProofOptions, type ReadProof } from './proof.ts'
import { isProven, noteProven } from './proven.ts'
import { bindingsOf, missingScopes, tokenIdentity } from './token-identity.ts'
import {
  decodePart,
  insufficientScope,
  livesAtMost,
  tokenShape,
  type AccessToken,
  type TokenOptions,
  type TokenVerification,
} from './tokens.ts'
import { trustedProxyList, type TrustedProxies } from './trusted-proxies.ts'
import type { Attempts, SingleUse, Verification, Verifier } from './verifier.ts'

export interface IntrospectOptions
  extends
    Pick<TokenOptions, 'maxLifetime' | 'scopes' | 'resourceMetadata' | 'agents' | 'now'>,
    Partial<Pick<TokenOptions, 'audience'>>,
    Partial<ProofOptions> {
  /** The authorization server's introspection endpoint: https, or http on loopback. */
  endpoint: string | URL
  /** Whom this API is to the authorization server. */
  clientId: string
  /** Shown by `client_secret_basic`. */
  clientSecret: string
  /**
   * Whose tokens these are. What the answer says of that must be the same. JWTs are asked about only where they name this issuer, also
   * those that a verifier before this one found good: so they are not good any longer when they are revoked. Default: what the answer
   * says, else the endpoint's origin, and all JWTs are passed over.
   */
  issuer?: string
  /**
   * How long an active token is taken for active without asking again: the longest that a revoked one still works. `false` asks for every
   * request. Default 10 s: an agent's burst costs one call, and somebody who revokes a token sees it stop while they watch.
   */
  cache?: Duration | false
  /** The longest that an answer may take. Default 5 s. */
  timeout?: Duration
  /** Where clients reach this API; without it, tokens that are bound to a DPoP key are refused, and `Authorization: DPoP` is passed over. */
  origin?: string | readonly string[]
  /** The proxies that tell the client's certificate in `Client-Cert`, as for `mtls`. Default: nobody. */
  trustedProxies?: TrustedProxies
  /** What asks the endpoint. Default: `fetch`. */
  fetch?: typeof globalThis.fetch
}

const duration = (name: string): z.ZodPipe<z.ZodUnknown, z.ZodTransform<number>> =>
  z.unknown().transform((value) => parseDuration(value, `introspect's ${name}`))

const schema = z.strictObject({
  ...proofShape,
  endpoint: z
    .custom<string | URL>(
      (value) => (typeof value === 'string' || value instanceof URL) && isTrustworthyUrl(value),
      'an https URL (http only on loopback) without a user',
    )
    .transform(String),
  clientId: z.string().min(1),
  clientSecret: z.string().min(1),
  issuer: z.string().min(1).optional(),
  audience: tokenShape.audience.optional(),
  maxLifetime: tokenShape.maxLifetime,
  scopes: tokenShape.scopes,
  resourceMetadata: tokenShape.resourceMetadata,
  agents: tokenShape.agents,
  cache: z.union([z.literal(false), duration('cache')]).prefault('10s'),
  timeout: duration('timeout').prefault('5s'),
  origin: proofShape.origin.optional(),
  trustedProxies: trustedProxyList,
  fetch: z.custom<typeof globalThis.fetch>((value) => typeof value === 'function', 'a function as fetch').optional(),
})

/** Longer ones are nobody's: Node's own limit for all fields together is 16 KB. */
const longestToken = 16_384

/** How far the authorization server's clock and this one may differ, in ms. */
const skewMs = 5000

/** Active tokens that are remembered, and of how many characters their answers may be in all. */
const rememberedTokens = 10_000
const rememberedCharacters = 20_000_000

/** What servers call a token that is none for an API: RFC 7662 lets them answer for refresh tokens, and some do for ID tokens. */
const otherTokens = /^(?:refresh|offline|id)(?:[_ -]?token)?$/i

type Scheme = 'Bearer' | 'DPoP'

const schemes: ReadonlyMap<string, Scheme> = new Map([
  ['bearer', 'Bearer'],
  ['dpop', 'DPoP'],
])

const absent: Verification = Object.freeze({ outcome: 'absent' })

let verifiers = 0

/**
 * Proves a client by a token that its authorization server knows (RFC 7662), in `Authorization: Bearer`, or `DPoP` where `origin` is
 * given.
 *
 * A token that is bound to a key (`cnf`) is good only with it: a DPoP proof (RFC 9449), or the certificate of the connection (RFC 8705).
 * One that is bound to nothing proves that somebody has it, and not that they are whom it was issued to.
 *
 * The client's id is `sub:<issuer>|<sub>`; where there is no `sub`, `client_id` or else `username` stands there.
 *
 * It claims every opaque token, since nothing in one says whose it is: an `apiKey` that reads `Authorization` stands before it. JWTs
 * are passed over, but those of `issuer`.
 *
 * An authorization server that cannot be asked is answered 503.
 *
 * @example introspect({ endpoint: 'https://id.example.com/introspect', clientId: 'api', clientSecret: process.env.SECRET })
 *
 * @see [RFC 7662 section 2](https://www.rfc-editor.org/rfc/rfc7662#section-2)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function introspect(options: IntrospectOptions): Verifier {
  const settings = readOptions(schema, options, 'introspect')
  const { issuer, audience = [], maxLifetime, scopes, resourceMetadata, cache, origin, nonce, now } = settings
  if (origin === undefined && nonce !== false) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'introspect: `nonce` is for DPoP proofs, and without `origin` none is looked at; write both, or neither',
    )
  }
  const ask = createIntrospection({ ...settings, fetch: settings.fetch ?? fetchAsItIsNow })
  const readCertificate = createCertificateReader(settings)
  const fallbackIssuer = issuer ?? new URL(settings.endpoint).origin
  const algs = settings.proofAlgorithms.join(' ')
  const agents: ReadonlySet<string> = new Set(settings.agents)
  const active = new LRUCache<string, { token: AccessToken; until: number }>({
    max: rememberedTokens,
    maxSize: rememberedCharacters,
  })
  // Two verifiers may ask two servers about the same token.
  const verifier = `introspect ${(verifiers += 1)}`

  function isOurs(token: string): boolean {
    if (token.length > longestToken || !isToken68(token)) return false
    const claims = readJwt(token)
    if (claims === undefined) return true
    return issuer !== undefined && (claims['iss'] ?? issuer) === issuer
  }

  function refuse(scheme: Scheme, reason: string, counts?: boolean): Verification & { outcome: 'invalid' } {
    return {
      outcome: 'invalid',
      reason,
      challenge: challenge(scheme, {
        error: 'invalid_token',
        error_description: reason,
        scope: scopes.join(' '),
        algs: scheme === 'DPoP' ? algs : undefined,
        resource_metadata: resourceMetadata,
      }),
      ...(counts !== undefined && { counts }),
    }
  }

  const malformed = (reason: string, scheme: Scheme = 'Bearer'): Verification =>
    Object.freeze({
      outcome: 'invalid',
      status: 400,
      counts: false,
      reason,
      challenge: challenge(scheme, {
        error: 'invalid_request',
        error_description: reason,
        algs: scheme === 'DPoP' ? algs : undefined,
        resource_metadata: resourceMetadata,
      }),
    })
  const severalFields = malformed('the request has several Authorization fields')
  const badToken = malformed('what follows DPoP in Authorization is no token', 'DPoP')
  const badCertificate = malformed('Client-Cert is not one certificate')

  async function introspectToken(text: string, name: string, scheme: Scheme): Promise<TokenVerification> {
    let answer: Introspected
    try {
      answer = await ask(text)
    } catch (error) {
      if (!(error instanceof IntrospectionFailed)) throw error
      return { outcome: 'unavailable', reason: 'tokens cannot be introspected now', cause: error }
    }
    const token = answer === null ? refuse(scheme, 'the token is not active') : judge(answer, name, scheme)
    if (token.outcome === 'token' && cache !== false) {
      const exp = (answer!['exp'] as number | null | undefined) ?? Infinity
      const until = Math.min(exp * 1000, now() + cache)
      active.set(name, { token, until }, { size: JSON.stringify(answer).length })
    }
    return token
  }

  /** What an active token is worth here. */
  function judge(answer: NonNullable<Introspected>, name: string, scheme: Scheme): TokenVerification {
    // Some servers write null for what they do not say.
    const claims = Object.fromEntries(Object.entries(answer).filter(([, value]) => value !== null))
    const { iss, aud, exp, nbf, iat } = claims as Readonly<{
      iss?: string
      aud?: string | string[]
      exp?: number
      nbf?: number
      iat?: number
    }>
    if (isOtherToken(claims)) return refuse(scheme, 'the token is no access token')
    if (issuer !== undefined && iss !== undefined && iss !== issuer)
      return refuse(scheme, 'the token is of another issuer')
    if (audience.length > 0 && ![aud ?? []].flat().some((one) => audience.includes(one))) {
      return refuse(scheme, 'the token is for somebody else')
    }
    if (exp !== undefined && exp * 1000 + skewMs <= now()) return refuse(scheme, 'the token has expired', false)
    // What is early is not wrong.
    if (nbf !== undefined && nbf * 1000 - skewMs > now()) return refuse(scheme, 'the token is not valid yet', false)
    if (maxLifetime !== undefined && !livesAtMost(maxLifetime, exp, iat, now() + skewMs)) {
      return refuse(scheme, 'the token lives longer than is accepted here', false)
    }
    const identity = tokenIdentity(iss || fallbackIssuer, undefined, named(claims), agents)
    if (identity === undefined) return refuse(scheme, 'the token names nobody')
    return { outcome: 'token', identity: { ...identity, claims }, bindings: bindingsAsTyped(claims), name }
  }

  async function read(text: string, scheme: Scheme, attempts: Attempts): Promise<TokenVerification> {
    const name = hash('sha256', text, 'base64url')
    const remembered = active.get(name)
    if (remembered !== undefined) {
      if (now() < remembered.until) return remembered.token
      active.delete(name)
    }
    return await attempts.check(`${verifier} ${scheme} ${text}`, () => introspectToken(text, name, scheme))
  }

  /** Asks whether a JWT that another verifier found good, with all that it is bound to, was revoked. */
  async function readAgain(text: string, scheme: Scheme, attempts: Attempts): Promise<Verification> {
    const token = await read(text, scheme, attempts)
    return token.outcome === 'token' ? { outcome: 'verified', identity: token.identity } : token
  }

  /** Refuses a token that does not show what it is bound to. What is refused depends on the rest of the request, so that is named. */
  async function refuseUnshown(
    text: string,
    what: string,
    answer: Verification & { outcome: 'invalid' },
    attempts: Attempts,
  ): Promise<Verification> {
    return await attempts.check(`${verifier} unshown ${what} ${text}`, () => answer)
  }

  function withSecrets(secrets: readonly string[]): Verifier {
    const proofs: ProofChecker | undefined =
      origin === undefined ? undefined : createProofChecker({ ...settings, origin }, secrets, resourceMetadata)

    /** Checks all that a token is bound to; undefined where it is bound to nothing. */
    async function checkBindings(
      req: Request,
      text: string,
      scheme: Scheme,
      token: AccessToken,
      proof: ReadProof | undefined,
      attempts: Attempts,
    ): Promise<Shown | Verification | undefined> {
      const { bindings } = token
      if (bindings === undefined && proof === undefined) return undefined
      if (bindings?.jkt !== undefined && proof === undefined && proofs !== undefined) {
        const answer = refuse('DPoP', 'the token is bound to a key: send it as DPoP, with a proof')
        return await refuseUnshown(text, scheme, answer, attempts)
      }
      if (bindings === undefined || bindings.others || (bindings.jkt === undefined) !== (proof === undefined)) {
        const answer = refuse(scheme, 'the token is bound to something else than the key that was shown')
        return await refuseUnshown(text, scheme, answer, attempts)
      }
      if (bindings.x5t !== undefined) {
        const certificate = readCertificate(req)
        if (certificate === 'malformed') return badCertificate
        if (certificate === undefined || !isThumbprintOf(certificate, bindings.x5t)) {
          const answer = refuse(scheme, "the token is bound to another certificate than the client's")
          return await refuseUnshown(text, `certificate ${certificate?.thumbprint}`, answer, attempts)
        }
      }
      if (proofs === undefined || proof === undefined) return { outcome: 'shown', singleUses: [] }
      const checked = await proofs.verify(proof, bindings.jkt, token.name, attempts)
      return checked.outcome === 'proven' ? { outcome: 'shown', singleUses: [checked.singleUse] } : checked
    }

    return {
      name: 'introspect',
      shownIn: 'authorization',
      ...(proofs !== undefined && {
        stepUp: { challenge: challenge('DPoP', { algs, resource_metadata: resourceMetadata }) },
      }),
      ...(nonce !== false && { withSecrets, fieldNames: ['DPoP-Nonce'] }),

      challengeFor: (wanted, error) =>
        challenge('Bearer', { error, scope: wanted.join(' '), resource_metadata: resourceMetadata }),

      async verify(req, attempts) {
        const authorization = readAuthorization(req)
        if (authorization === undefined) return absent
        if (authorization === null) return severalFields
        const { credential: text } = authorization
        const scheme = schemes.get(authorization.scheme)
        if (scheme === 'DPoP' && proofs !== undefined && !isToken68(text)) return badToken
        if (scheme === undefined || !isOurs(text)) return absent
        if (isProven(req, attempts))
          return readJwt(text) === undefined ? absent : await readAgain(text, scheme, attempts)
        if (scheme === 'DPoP' && proofs === undefined) return absent

        const proof = scheme === 'DPoP' ? proofs!.read(req, text) : undefined
        if (proof?.outcome === 'invalid') {
          // To ask for a nonce costs nothing, and whoever needs one has done nothing wrong.
          if (proof.counts === false) return proof
          return await refuseUnshown(text, `proof ${String(req.headers['dpop'])}`, proof, attempts)
        }
        const token = await read(text, scheme, attempts)
        if (token.outcome !== 'token') return token
        const shown = await checkBindings(req, text, scheme, token, proof, attempts)
        if (shown !== undefined && shown.outcome !== 'shown') return shown

        const fields = scheme === 'DPoP' ? proofs!.fields() : undefined
        if (missingScopes(scopes, token.identity.scopes).length > 0) {
          const lacking = insufficientScope(scheme, scopes, resourceMetadata)
          return { ...lacking, ...(fields && { fields }) }
        }
        noteProven(req, attempts)
        return {
          outcome: 'verified',
          identity: {
            ...token.identity,
            provesKey: shown !== undefined,
            ...(shown && { thumbprint: token.bindings!.jkt ?? token.bindings!.x5t! }),
          },
          ...(shown !== undefined && shown.singleUses.length > 0 && { singleUses: shown.singleUses }),
          ...(fields && { fields }),
        }
      },
    }
  }

  return withSecrets([])
}

/** Everything that a token is bound to was shown. */
interface Shown {
  readonly outcome: 'shown'
  readonly singleUses: readonly SingleUse[]
}

/** Looked up at each call, so that what instruments or replaces the global later is used. */
const fetchAsItIsNow: typeof globalThis.fetch = (input, init) => globalThis.fetch(input, init)

/** What a signed JWT claims, unproven; undefined where a text is none. */
function readJwt(token: string): Record<string, unknown> | undefined {
  const [header, payload, ...rest] = token.split('.')
  return rest.length === 1 && decodePart(header!) !== undefined ? decodePart(payload!) : undefined
}

function isOtherToken({ token_type, token_use, typ }: Readonly<Record<string, unknown>>): boolean {
  return [token_type, token_use, typ].some((kind) => typeof kind === 'string' && otherTokens.test(kind))
}

/** A `username` names the client where nothing else does. */
function named(claims: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return claims['sub'] || clientOf(claims) !== undefined ? claims : { ...claims, sub: claims['username'] }
}

/** What a token is bound to. A DPoP token whose key the server does not tell is bound to something that nothing here can check. */
function bindingsAsTyped(claims: Readonly<Record<string, unknown>>): AccessToken['bindings'] {
  const bindings = bindingsOf(claims)
  const isDpop = /^dpop$/i.test(String(claims['token_type']))
  if (!isDpop || bindings?.jkt !== undefined) return bindings
  return { jkt: undefined, x5t: bindings?.x5t, others: true }
}
