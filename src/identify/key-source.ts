import * as z from 'zod'

/** A JSON Web Key Set (RFC 7517 section 5). */
export interface JsonWebKeySet {
  readonly keys: readonly object[]
}

/** Finds the public key for a token's header: jose's `createRemoteJWKSet(…)`, `createLocalJWKSet(…)`, or your own. */
// oxlint-disable-next-line typescript/no-explicit-any -- the key, and the rest of the token, are jose's types, which the declarations must not need
export type KeyFunction = (header: any, token: any) => any

/** Where the keys come from: a URL of a JSON Web Key Set, the set itself, or a function. */
export type KeySource = string | URL | JsonWebKeySet | KeyFunction

const loopback = /^(localhost|127(\.\d+){3}|\[::1\])$/

/** Whether a URL may be asked for what is trusted: by https, or on this machine; `fetch` takes none with a password in it. */
export function isTrustworthyUrl(value: string | URL): boolean {
  if (!URL.canParse(String(value))) return false
  const { protocol, hostname, username, password } = new URL(value)
  if (username !== '' || password !== '') return false
  return protocol === 'https:' || (protocol === 'http:' && loopback.test(hostname))
}

/** The private members of keys (RFC 7518 section 6, RFC 8037): whoever shows one gives the key away. */
const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv'] as const

function hasPrivateMember(key: object): boolean {
  return privateMembers.some((member) => member in key)
}

/** A public JSON Web Key (RFC 7517), as far as its members tell. */
export interface PublicJwk {
  readonly kty: string
  readonly [member: string]: unknown
}

/** Whether a value is a public key, as far as its members tell. */
export function isPublicJwk(value: unknown): value is PublicJwk {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return typeof (value as { kty?: unknown }).kty === 'string' && !hasPrivateMember(value)
}

/** RSA keys beyond 8192 bits, or with an exponent that nobody uses, take long to compute with: that is what they would be for. */
export function isHuge({ n, e }: PublicJwk): boolean {
  return (typeof n === 'string' && n.length > 1366) || (typeof e === 'string' && e.length > 8)
}

function isSetOfPublicKeys(value: unknown): boolean {
  const { keys } = (value ?? {}) as { keys?: unknown }
  return (
    Array.isArray(keys) &&
    keys.every((key: unknown) => typeof key === 'object' && key !== null && !hasPrivateMember(key))
  )
}

/** Reads where keys come from. */
export const keySource: z.ZodType<KeySource> = z.custom<KeySource>(
  (value) =>
    typeof value === 'function' ||
    ((typeof value === 'string' || value instanceof URL) && isTrustworthyUrl(value)) ||
    isSetOfPublicKeys(value),
  'an https URL of a JSON Web Key Set (http only on loopback), a set `{ keys: […] }` of public keys, or a function that finds a key',
)
