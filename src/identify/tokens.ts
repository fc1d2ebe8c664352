import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import type { Claims } from './agent-claims.ts'
import { challenge, type ChallengeParameters } from './challenge.ts'
import { keySource, type KeySource } from './key-source.ts'
import { createKeys, isNoSuchKey, KeysUnavailable, loadJose, withKey } from './keys.ts'
import { bindingsOf, missingScopes, tokenIdentity, type Bindings } from './token-identity.ts'
import type { Attempts, Identity, Verification } from './verifier.ts'

/** What verifiers of JWT access tokens take. */
export interface TokenOptions {
  /** Whose tokens these are: the `iss` claim, exactly. Tokens of other issuers are passed over. */
  issuer: string | readonly string[]
  /** Who they must be meant for: this API's identifier, in the `aud` claim. */
  audience: string | readonly string[]
  /** The issuer's keys: the URL of its JSON Web Key Set, the set itself, or a function that finds a key as jose's do. */
  jwks: KeySource
  /** Default: ES256, ES384, ES512, EdDSA, Ed25519, RS256, RS384, RS512, PS256, PS384, PS512. No shared secrets, never `none`. */
  algorithms?: readonly string[]
  /** The longest a token may live, from `iat` to `exp`. Default: as long as its issuer says. */
  maxLifetime?: Duration
  /** Scopes that a token must all have. Missing ones are answered 403 `insufficient_scope`. */
  scopes?: readonly string[]
  /** How far the issuer's clock and this one may differ. Default 5 s. */
  clockTolerance?: Duration
  /** The URL of this resource's metadata (RFC 9728), for challenges; `protectedResource` serves it. */
  resourceMetadata?: string
  /** Client ids that are known to be agents, for tokens that do not say so themselves. */
  agents?: readonly string[]
  /** The time in ms since 1970, for tests. */
  now?: () => number
}

/** The algorithms that a signature may have here: those whose verifier holds no secret. */
export const asymmetric = [
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
] as const

const texts = z.union([z.string().min(1), z.array(z.string().min(1)).min(1)], { error: 'a text, or a list of such' })

/** RFC 6749 section 3.3. */
export const scopeList: z.ZodType<string[]> = z.array(
  z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/, 'a scope: printable ASCII without spaces, quotes and backslashes'),
)

export const clock: z.ZodType<() => number> = z.custom<() => number>(
  (value) => typeof value === 'function',
  'a function that tells ms',
)

/** {@link TokenOptions}, read. */
export interface TokenSettings {
  readonly issuer: readonly string[]
  readonly audience: readonly string[]
  readonly jwks: KeySource
  readonly algorithms: readonly string[]
  /** In ms. */
  readonly maxLifetime?: number | undefined
  readonly scopes: readonly string[]
  /** In ms. */
  readonly clockTolerance: number
  readonly resourceMetadata?: string | undefined
  readonly agents: readonly string[]
  readonly now: () => number
}

/** The part of a verifier's schema that is about tokens. */
export const tokenShape: { [Name in keyof TokenSettings]-?: z.ZodType<TokenSettings[Name]> } = {
  issuer: texts.transform((value) => [value].flat()),
  audience: texts.transform((value) => [value].flat()),
  jwks: keySource,
  algorithms: z
    .array(z.enum(asymmetric))
    .min(1)
    .default([...asymmetric]),
  maxLifetime: z
    .unknown()
    .transform((value) => parseDuration(value, 'maxLifetime'))
    .optional(),
  scopes: scopeList.default([]),
  clockTolerance: z
    .unknown()
    .transform((value) => parseDuration(value, 'clockTolerance'))
    .prefault('5s'),
  resourceMetadata: z.url({ protocol: /^https?$/, error: 'an http(s) URL' }).optional(),
  agents: z.array(z.string()).default([]),
  now: clock.default(() => Date.now),
}

/** A token that is what it should be. Whether whoever sent it holds its keys is another question. */
export interface AccessToken {
  readonly outcome: 'token'
  readonly identity: Omit<Identity, 'provesKey'>
  readonly bindings: Bindings | undefined
  /** A hash of the token. */
  readonly name: string
}

/** What became of a token that was read. */
export type TokenVerification = AccessToken | Exclude<Verification, { outcome: 'verified' | 'absent' }>

/** Reads tokens in the name of one verifier. */
export interface TokenReader {
  /** Whether a text looks like a token of the issuer: then it is this verifier's to judge. Nothing in it is proven by that. */
  isOurs(token: string): boolean
  /** What a token of ours claims. Nothing of it is proven. */
  unproven(token: string): Claims | undefined
  /**
   * Checks a token: signature, issuer, audience, times.
   *
   * @param scheme the scheme it came with, in which a challenge answers
   */
  read(token: string, scheme: string, attempts: Attempts): Promise<TokenVerification>
  /** What answers a token that lacks scopes; undefined for one that has them all. */
  refuseScopes(identity: Pick<Identity, 'scopes'>, scheme: string): Verification | undefined
  /** What answers a wrong token. */
  refuse(scheme: string, reason: string, parameters?: ChallengeParameters & { counts?: boolean }): TokenRefusal
}

type TokenRefusal = Verification & { outcome: 'invalid' }

/** Longer ones are nobody's: Node's own limit for all fields together is 16 KB. */
const longestToken = 16_384

/** The tokens that are remembered as good, and for how long at most: so long a key that its issuer withdrew serves on. */
const rememberedTokens = 10_000
const rememberedCharacters = 20_000_000
const rememberedForMs = 60_000

let readers = 0

/** JWTs of other kinds must not be taken for access tokens (RFC 8725 section 3.11); many issuers write plain `JWT`. */
const accessTokenTypes: ReadonlySet<string | undefined> = new Set([undefined, 'jwt', 'at+jwt', 'aa-agent+jwt'])

/**
 * Makes what reads the JWT access tokens of an issuer (RFC 7519, RFC 9068). A token that was found good is remembered, by hash, for a
 * minute or until it expires.
 */
export function createTokenReader(settings: TokenSettings): TokenReader {
  const { issuer: issuers, audience, algorithms, maxLifetime, scopes, clockTolerance, resourceMetadata, now } = settings
  const findKey = createKeys(settings.jwks)
  const agents: ReadonlySet<string> = new Set(settings.agents)
  const good = new LRUCache<string, { token: AccessToken; until: number }>({
    max: rememberedTokens,
    maxSize: rememberedCharacters,
  })
  // Two verifiers of one issuer may want different things of the same token.
  const reader = (readers += 1)

  function refuse(
    scheme: string,
    reason: string,
    { counts, ...parameters }: ChallengeParameters & { counts?: boolean } = {},
  ): TokenRefusal {
    return {
      outcome: 'invalid',
      reason,
      challenge: challenge(scheme, {
        error: 'invalid_token',
        error_description: reason,
        scope: scopes.join(' '),
        resource_metadata: resourceMetadata,
        ...parameters,
      }),
      ...(counts !== undefined && { counts }),
    }
  }

  function peek(token: string): { header: Readonly<Record<string, unknown>>; claims: Claims } | undefined {
    if (token.length > longestToken) return undefined
    const parts = token.split('.')
    if (parts.length !== 3) return undefined
    const claims = decodePart(parts[1]!)
    const header = decodePart(parts[0]!)
    if (header === undefined || claims === undefined || !(issuers as readonly unknown[]).includes(claims['iss']))
      return undefined
    return { header, claims }
  }

  async function verify(token: string, name: string, scheme: string): Promise<TokenVerification> {
    const { header } = peek(token)!
    const type = typeOf(header)
    if (!accessTokenTypes.has(type)) return refuse(scheme, 'the token is no access token')
    if (!(algorithms as readonly unknown[]).includes(header['alg'])) {
      return refuse(scheme, 'the token is signed with an algorithm that is not accepted here')
    }
    if ('crit' in header) return refuse(scheme, 'the token wants something understood that is not')
    const [protectedHeader, payload, signature] = token.split('.') as [string, string, string]
    // What decodes base64 overlooks spaces: one token would have spellings without end, each remembered and checked for itself.
    if (!/^[\w-]+$/.test(signature)) return refuse(scheme, 'the token cannot be read')
    const { jwtVerify } = await loadJose()
    try {
      const { payload: claims } = await withKey(
        findKey,
        header,
        { protected: protectedHeader, payload, signature },
        async (key) =>
          await jwtVerify(token, key, {
            algorithms: [...algorithms],
            issuer: [...issuers],
            audience: [...audience],
            requiredClaims: ['exp'],
            clockTolerance: clockTolerance / 1000,
            currentDate: new Date(now()),
          }),
      )
      return conclude(claims, type, name, scheme, token.length)
    } catch (error) {
      return refuseFor(error, scheme)
    }
  }

  function conclude(
    claims: Claims,
    type: string | undefined,
    name: string,
    scheme: string,
    size: number,
  ): TokenVerification {
    const { iss, exp, iat } = claims as { iss: string; exp: number; iat?: unknown }
    if (maxLifetime !== undefined && !livesAtMost(maxLifetime, exp, iat, now() + clockTolerance)) {
      return refuse(scheme, 'the token lives longer than is accepted here', { counts: false })
    }
    const identity = tokenIdentity(iss, type, claims, agents)
    if (identity === undefined) return refuse(scheme, 'the token names nobody')
    const token: AccessToken = { outcome: 'token', identity, bindings: bindingsOf(claims), name }
    const until = Math.min(exp * 1000 + clockTolerance, now() + rememberedForMs)
    good.set(name, { token, until }, { size })
    return token
  }

  function refuseFor(error: unknown, scheme: string): TokenVerification {
    if (error instanceof KeysUnavailable) {
      return { outcome: 'unavailable', reason: "the keys of the token's issuer cannot be had now", cause: error }
    }
    if (isNoSuchKey(error)) return refuse(scheme, 'the token is signed with a key that its issuer does not have')
    const { code, claim } = error as { code?: unknown; claim?: unknown }
    // Its signature was good: whoever shows it has had it rightly.
    if (code === 'ERR_JWT_EXPIRED') return refuse(scheme, 'the token has expired', { counts: false })
    if (code === 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED') return refuse(scheme, "the token's signature is wrong")
    if (code === 'ERR_JWT_CLAIM_VALIDATION_FAILED') {
      // What is early is not wrong.
      return refuse(scheme, claimReasons[String(claim)] ?? 'a claim of the token is wrong', {
        ...(claim === 'nbf' && { counts: false }),
      })
    }
    // Whatever else a token made by a stranger leads to.
    return refuse(scheme, 'the token cannot be read')
  }

  return {
    isOurs: (token) => peek(token) !== undefined,
    unproven: (token) => peek(token)?.claims,

    async read(token, scheme, attempts) {
      const name = hash('sha256', token, 'base64url')
      const remembered = good.get(name)
      if (remembered !== undefined) {
        if (now() < remembered.until) return remembered.token
        good.delete(name)
      }
      return await attempts.check(`token ${reader} ${scheme} ${token}`, () => verify(token, name, scheme))
    },

    refuseScopes(identity, scheme) {
      const missing = missingScopes(scopes, identity.scopes)
      return missing.length === 0 ? undefined : insufficientScope(scheme, scopes, resourceMetadata)
    },

    refuse,
  }
}

/**
 * What answers a token that may not do what it is used for (RFC 6750 section 3.1, RFC 9449 section 7.1).
 *
 * @param scopes all that are needed
 */
export function insufficientScope(
  scheme: string,
  scopes: readonly string[],
  resourceMetadata: string | undefined,
): TokenRefusal {
  return {
    outcome: 'invalid',
    status: 403,
    counts: false,
    reason: 'the token lacks a scope',
    challenge: challenge(scheme, {
      error: 'insufficient_scope',
      error_description: 'the token lacks a scope',
      scope: scopes.join(' '),
      resource_metadata: resourceMetadata,
    }),
  }
}

const claimReasons: Readonly<Record<string, string>> = {
  aud: 'the token is for somebody else',
  exp: 'the token does not say when it expires',
  nbf: 'the token is not valid yet',
  iat: 'the token says wrongly when it was issued',
}

/** A part of a JWT as an object, unproven. */
export function decodePart(part: string): Record<string, unknown> | undefined {
  if (!/^[\w-]+$/.test(part)) return undefined
  try {
    const value: unknown = JSON.parse(Buffer.from(part, 'base64url').toString())
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/**
 * Whether a token lives no longer than that, in ms. One that claims to be issued later than now would be shorter-lived on paper than
 * it is; one that does not say when it was issued cannot be judged.
 *
 * @param latest the latest time, in ms, that may be now for its issuer
 */
export function livesAtMost(maxLifetime: number, exp: unknown, iat: unknown, latest: number): boolean {
  if (typeof exp !== 'number' || typeof iat !== 'number') return false
  return (exp - iat) * 1000 <= maxLifetime && iat * 1000 <= latest
}

/** The media type of a token (RFC 7515 section 4.1.9), in lower case and without `application/`; empty where what it says is none. */
function typeOf({ typ }: Readonly<Record<string, unknown>>): string | undefined {
  if (typ === undefined) return undefined
  return typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : ''
}
