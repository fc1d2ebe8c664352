import { constants, createPublicKey, hash, verify, type KeyObject } from 'node:crypto'
import { LRUCache } from 'lru-cache'

/** The algorithms of RFC 9421 section 3.3 that a stranger can verify: all but HMAC. */
export type SignatureAlgorithm =
  | 'ed25519'
  | 'ecdsa-p256-sha256'
  | 'ecdsa-p384-sha384'
  | 'rsa-pss-sha512'
  | 'rsa-v1_5-sha256'

/** A public key of a directory. */
export interface DirectoryKey {
  /** RFC 7638: what `keyid` says. */
  readonly thumbprint: string
  /** The members that are hashed for it, and nothing else. */
  readonly jwk: Readonly<Record<string, string>>
  /** What it may be used with. */
  readonly algorithms: readonly SignatureAlgorithm[]
  /** When it may be used, in ms since 1970. */
  readonly notBefore: number
  readonly expires: number
}

/** The keys of a directory by their thumbprint. */
export type KeySet = ReadonlyMap<string, DirectoryKey>

const rsa = ['rsa-pss-sha512', 'rsa-v1_5-sha256'] as const

/** JWK `alg` (RFC 7518, 8037, 9864) that stands for an algorithm of RFC 9421. */
const byJwkAlgorithm: Readonly<Record<string, SignatureAlgorithm>> = {
  EdDSA: 'ed25519',
  Ed25519: 'ed25519',
  ES256: 'ecdsa-p256-sha256',
  ES384: 'ecdsa-p384-sha384',
  PS512: 'rsa-pss-sha512',
  RS256: 'rsa-v1_5-sha256',
}

const privateMembers = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

/**
 * Reads the keys of a JWK Set (RFC 7517 section 5). Entries that are malformed, private, for something else than signatures or of
 * another kind are left out.
 */
export function readKeySet(entries: readonly unknown[]): KeySet {
  const keys = entries.map(readKey).filter((key) => key !== undefined)
  return new Map(keys.map((key) => [key.thumbprint, key]))
}

function readKey(value: unknown): DirectoryKey | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const entry = value as Record<string, unknown>
  if (privateMembers.some((name) => Object.hasOwn(entry, name))) return undefined
  if (entry['use'] !== undefined && entry['use'] !== 'sig') return undefined
  const operations = entry['key_ops']
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes('verify'))) return undefined
  const material = readMaterial(entry)
  if (material === undefined) return undefined
  const algorithms = allowedBy(entry['alg'], material.algorithms)
  if (algorithms.length === 0) return undefined
  return {
    // The members of each kind are written in lexicographic order, as the thumbprint wants them.
    thumbprint: hash('sha256', JSON.stringify(material.jwk), 'base64url'),
    jwk: material.jwk,
    algorithms,
    notBefore: instant(entry['nbf']) ?? -Infinity,
    expires: instant(entry['exp']) ?? Infinity,
  }
}

function allowedBy(alg: unknown, algorithms: readonly SignatureAlgorithm[]): readonly SignatureAlgorithm[] {
  if (alg === undefined) return algorithms
  const only = typeof alg === 'string' && Object.hasOwn(byJwkAlgorithm, alg) ? byJwkAlgorithm[alg]! : undefined
  return algorithms.filter((one) => one === only)
}

function instant(seconds: unknown): number | undefined {
  return typeof seconds === 'number' && Number.isFinite(seconds) ? seconds * 1000 : undefined
}

interface Material {
  readonly jwk: Readonly<Record<string, string>>
  readonly algorithms: readonly SignatureAlgorithm[]
}

function readMaterial({ kty, crv, x, y, n, e }: Record<string, unknown>): Material | undefined {
  if (kty === 'OKP' && crv === 'Ed25519' && octets(x) === 32) {
    return { jwk: { crv, kty, x: x as string }, algorithms: ['ed25519'] }
  }
  if (kty === 'EC' && crv === 'P-256' && octets(x) === 32 && octets(y) === 32) {
    return { jwk: { crv, kty, x: x as string, y: y as string }, algorithms: ['ecdsa-p256-sha256'] }
  }
  if (kty === 'EC' && crv === 'P-384' && octets(x) === 48 && octets(y) === 48) {
    return { jwk: { crv, kty, x: x as string, y: y as string }, algorithms: ['ecdsa-p384-sha384'] }
  }
  // 2048 to 4096 bits. A longer modulus or exponent makes us work, not the signature better.
  if (kty === 'RSA' && within(octets(n), 256, 512) && within(octets(e), 1, 4) && isMinimal(n) && isMinimal(e)) {
    return { jwk: { e: e as string, kty, n: n as string }, algorithms: rsa }
  }
  return undefined
}

/**
 * How many bytes a text is in base64url, 0 for what is none. Only the one spelling that encoding gives counts: of another, the
 * same key would have another thumbprint, and not be known again.
 */
function octets(value: unknown): number {
  if (typeof value !== 'string') return 0
  const bytes = Buffer.from(value, 'base64url')
  return bytes.toString('base64url') === value ? bytes.length : 0
}

/** RFC 7518 section 2: a number is written without leading zeros. */
function isMinimal(value: unknown): boolean {
  return Buffer.from(value as string, 'base64url')[0] !== 0
}

function within(value: number, least: number, most: number): boolean {
  return value >= least && value <= most
}

/** What is verified by a key that was imported before costs no import. */
const imported = new LRUCache<string, KeyObject>({ max: 1000 })

/**
 * Verifies a signature, in about 0.1 ms for Ed25519. False also for a key that turns out to be none, such as a point beside its
 * curve.
 */
export function verifiesWith(
  key: DirectoryKey,
  algorithm: SignatureAlgorithm,
  base: string,
  signature: Uint8Array,
): boolean {
  try {
    let publicKey = imported.get(key.thumbprint)
    if (publicKey === undefined) {
      publicKey = createPublicKey({ key: { ...key.jwk }, format: 'jwk' })
      imported.set(key.thumbprint, publicKey)
    }
    return verifyAs[algorithm](Buffer.from(base, 'latin1'), publicKey, signature)
  } catch {
    return false
  }
}

type Verify = (data: Uint8Array, key: KeyObject, signature: Uint8Array) => boolean

const verifyAs: Readonly<Record<SignatureAlgorithm, Verify>> = {
  ed25519: (data, key, signature) => verify(null, data, key, signature),
  // RFC 9421 section 3.3.4: r and s side by side, not in DER.
  'ecdsa-p256-sha256': (data, key, signature) => verify('sha256', data, { key, dsaEncoding }, signature),
  'ecdsa-p384-sha384': (data, key, signature) => verify('sha384', data, { key, dsaEncoding }, signature),
  'rsa-pss-sha512': (data, key, signature) =>
    verify('sha512', data, { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 64 }, signature),
  'rsa-v1_5-sha256': (data, key, signature) =>
    verify('sha256', data, { key, padding: constants.RSA_PKCS1_PADDING }, signature),
}

const dsaEncoding = 'ieee-p1363'

/**
 * The algorithm of a signature: what `alg` says, where the key may be used with it, else what the key says. An RSA key that says
 * nothing is used with PSS. Undefined where the two do not agree (RFC 9421 section 3.2 step 6).
 */
export function algorithmOf(key: DirectoryKey, alg: string | undefined): SignatureAlgorithm | undefined {
  return alg === undefined ? key.algorithms[0] : key.algorithms.find((one) => one === alg)
}

const known: readonly string[] = [...new Set(Object.values(byJwkAlgorithm))]

/** False for HMAC, whose key would have to be shared, and for what nobody registered. */
export function isKnownAlgorithm(alg: string): boolean {
  return known.includes(alg)
}

/**
 * The public keys whose private halves are printed in RFC 9421 appendix B.1: RSA, RSA-PSS, P-256, Ed25519. The drafts use them
 * too.
 */
const exampleKeys: ReadonlySet<string> = new Set([
  'BHj8s0GPnMEQtkaULIM-PLgEhLBbuGUQ1vMxmBWZzEo',
  'oD0HwocPBSfpNy5W3bpJeyFGY_IQ_YpqxSjQ3Yd-CLA',
  'ydQXMtvbsOsZyFir-Y7A8t7fKEM1gbKPvyFkdpu4fvI',
  'poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U',
])

export function isExampleKey(thumbprint: string): boolean {
  return exampleKeys.has(thumbprint)
}
