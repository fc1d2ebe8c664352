import type * as jose from 'jose' with { 'resolution-mode': 'import' }
import type { KeyFunction, KeySource } from './key-source.ts'

/** What a token says of the key it was signed with; a stranger may have written it. */
type KeyRequest = Readonly<Record<string, unknown>>

/** The keys cannot be had, so it cannot be told whether a credential is right. */
export class KeysUnavailable extends Error {
  override readonly name = 'KeysUnavailable'
  /** What went wrong, as whoever threw it calls it: `ECONNREFUSED`, `ERR_JWKS_TIMEOUT`, … */
  readonly code: string | undefined

  constructor(cause: unknown) {
    super('the keys could not be fetched', { cause })
    const [outer, inner] = [cause, (cause as { cause?: unknown } | null)?.cause].map(
      (error) => (error as { code?: unknown } | null | undefined)?.code,
    )
    this.code = [inner, outer].find((code): code is string => typeof code === 'string')
  }
}

const freshForMs = 10 * 60_000
const staleForMs = 2 * freshForMs
const usableForMs = 24 * 3_600_000
const cooldownMs = 30_000
const timeoutMs = 5000
/** After a failed fetch none is made for so long, however many tokens ask for one. */
const afterFailureMs = 5000

/** Of keys that all fit a token without `kid`, so many are tried. */
const mostCandidates = 8

/** A token in its parts, base64url. */
export interface SignedParts {
  readonly protected: string
  readonly payload: string
  readonly signature: string
}

/** Finds the key that a token asks for. What it throws is jose's, or {@link KeysUnavailable}. */
export type FindKey = (header: KeyRequest, token: SignedParts) => Promise<jose.CryptoKey>

/** jose is loaded by whoever needs it first, and only then: it is an ES module, which CommonJS loads with `import()`. */
export function loadJose(): Promise<typeof jose> {
  loading ??= import('jose')
  return loading
}

let loading: Promise<typeof jose> | undefined

/** Makes what finds keys in a source. */
export function createKeys(source: KeySource): FindKey {
  if (typeof source === 'function') return fromFunction(source)
  if (typeof source === 'string' || source instanceof URL) return fromUrl(new URL(source))
  let local: Promise<ReturnType<typeof jose.createLocalJWKSet>> | undefined
  return async function findInSet(header, token) {
    local ??= loadJose().then(({ createLocalJWKSet }) => createLocalJWKSet(source as jose.JSONWebKeySet))
    const find = local
    return await keyOr(async () => (await find)(header, token))
  }
}

/** Asks for a key. What goes wrong, other than that there is none, is the key's own fault and not the token's. */
async function keyOr(ask: () => Promise<jose.CryptoKey>): Promise<jose.CryptoKey> {
  try {
    return await ask()
  } catch (error) {
    if (isNoSuchKey(error)) throw error
    throw new KeysUnavailable(error)
  }
}

/** Codes with which jose says that a source was read and has no such key, or cannot have one. */
const noSuchKey: ReadonlySet<unknown> = new Set([
  'ERR_JWKS_NO_MATCHING_KEY',
  'ERR_JWKS_MULTIPLE_MATCHING_KEYS',
  'ERR_JOSE_NOT_SUPPORTED',
])

export function isNoSuchKey(error: unknown): boolean {
  return noSuchKey.has((error as { code?: unknown } | null)?.code)
}

function fromFunction(find: KeyFunction): FindKey {
  return async function findByFunction(header, token) {
    const { errors } = await loadJose()
    return await keyOr(async () => {
      const key: unknown = await find(header, token)
      // As a Map answers for a `kid` that it does not hold.
      if (key === undefined || key === null) throw new errors.JWKSNoMatchingKey()
      if (typeof key !== 'object') throw new TypeError('the function answered with something that is no key')
      return key as jose.CryptoKey
    })
  }
}

/**
 * Keys that are fetched. They are refreshed every ten minutes, beside the requests; while that fails those that are known serve
 * on for a day. A `kid` that is not among them causes a fetch at most every 30 seconds, whoever makes them up.
 */
function fromUrl(url: URL): FindKey {
  let remote: ReturnType<typeof jose.createRemoteJWKSet> | undefined
  let fetchedAt = -Infinity
  let failedAt = -Infinity

  async function refresh(keys: NonNullable<typeof remote>): Promise<void> {
    if (performance.now() - failedAt < afterFailureMs) throw new Error('a fetch failed a moment ago')
    try {
      await keys.reload()
      fetchedAt = performance.now()
    } catch (error) {
      failedAt = performance.now()
      throw error
    }
  }

  return async function findByUrl(header, token) {
    const { createRemoteJWKSet } = await loadJose()
    // Its own refetching is turned off: it would ask anew for each token while fetches fail.
    remote ??= createRemoteJWKSet(url, {
      cacheMaxAge: Infinity,
      cooldownDuration: Infinity,
      timeoutDuration: timeoutMs,
    })
    const keys = remote
    const age = performance.now() - fetchedAt
    if (age > usableForMs) {
      await refresh(keys).catch((error: unknown) => {
        throw new KeysUnavailable(error)
      })
    } else if (age > freshForMs) {
      const refreshed = refresh(keys).catch(() => {})
      // After a quiet time what is known may be long out of date; but nobody waits again for what just failed.
      if (age > staleForMs && failedAt <= fetchedAt) await refreshed
    }
    const ask = (): Promise<jose.CryptoKey> => keyOr(() => keys(header, token))
    try {
      return await ask()
    } catch (error) {
      const isMissing = (error as { code?: unknown }).code === 'ERR_JWKS_NO_MATCHING_KEY'
      if (!isMissing || performance.now() - fetchedAt < cooldownMs) throw error
      await refresh(keys).catch((cause: unknown) => {
        throw new KeysUnavailable(cause)
      })
      return await ask()
    }
  }
}

/**
 * Does something with the key that a token asks for; where several fit a token that names none, with each of a few until one
 * does.
 */
export async function withKey<T>(
  find: FindKey,
  header: KeyRequest,
  token: SignedParts,
  use: (key: jose.CryptoKey) => Promise<T>,
): Promise<T> {
  let key: jose.CryptoKey
  try {
    key = await find(header, token)
  } catch (error) {
    if ((error as { code?: unknown }).code !== 'ERR_JWKS_MULTIPLE_MATCHING_KEYS') throw error
    return await withOneOf(error as jose.errors.JWKSMultipleMatchingKeys, use)
  }
  return await use(key)
}

async function withOneOf<T>(
  candidates: jose.errors.JWKSMultipleMatchingKeys,
  use: (key: jose.CryptoKey) => Promise<T>,
): Promise<T> {
  let tried = 0
  let last: unknown = candidates
  for await (const key of candidates) {
    if ((tried += 1) > mostCandidates) break
    try {
      return await use(key)
    } catch (error) {
      if ((error as { code?: unknown }).code !== 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED') throw error
      last = error
    }
  }
  throw last
}
