import { constants, generateKeyPairSync, sign, type KeyObject } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import {
  algorithmOf,
  isExampleKey,
  readKeySet,
  verifiesWith,
  type SignatureAlgorithm,
} from '../../../src/identify/web-bot-auth/keys.ts'
import { ed25519Key, p256Key, rsaKey, rsaPssKey } from './rfc9421.ts'

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const rsaJwk = publicKey.export({ format: 'jwk' })
const only = (jwk: object) => [...readKeySet([jwk]).values()][0]

describe('a thumbprint', () => {
  it.each([
    [
      'RFC 7638 section 3.1',
      {
        kty: 'RSA',
        n: '0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw',
        e: 'AQAB',
        kid: '2011-04-29',
      },
      'NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs',
    ],
    [
      'RFC 8037 appendix A.3',
      { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' },
      'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k',
    ],
  ])('of %s', (_source, jwk, thumbprint) => {
    expect(only(jwk)!.thumbprint).toBe(thumbprint)
  })

  it('tells the example keys of RFC 9421', () => {
    for (const jwk of [rsaKey, rsaPssKey, p256Key, ed25519Key]) {
      expect(isExampleKey(only(jwk)!.thumbprint)).toBe(true)
    }
    expect(isExampleKey(only(rsaJwk)!.thumbprint)).toBe(false)
  })
})

describe('a key that is left out', () => {
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export({ format: 'jwk' })
  it.each<[string, unknown]>([
    ['no object', 'key'],
    ['null', null],
    ['symmetric', { kty: 'oct', k: 'AAAA' }],
    ['private', privateKey.export({ format: 'jwk' })],
    ['with a private member that is null', { ...ed25519Key, d: null }],
    ['for encryption', { ...ed25519Key, use: 'enc' }],
    ['for signing only', { ...ed25519Key, key_ops: ['sign'] }],
    ['with operations that are no list', { ...ed25519Key, key_ops: 'verify' }],
    ['for another algorithm', { ...ed25519Key, alg: 'ES256' }],
    ['for an algorithm that RFC 9421 does not have', { ...rsaKey, alg: 'RS512' }],
    ['for an algorithm that is no text', { ...rsaKey, alg: ['PS512'] }],
    ['for an algorithm of every object', { ...rsaKey, alg: 'constructor' }],
    ['X25519', generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' })],
    ['Ed448', generateKeyPairSync('ed448').publicKey.export({ format: 'jwk' })],
    ['secp256k1', generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey.export({ format: 'jwk' })],
    ['of a curve that it is too long for', { ...p384, crv: 'P-256' }],
    ['RSA of 1024 bits', generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })],
    ['RSA of more than 4096 bits', { ...rsaJwk, n: Buffer.alloc(513, 0xff).toString('base64url') }],
    ['RSA with an exponent that costs much', { ...rsaJwk, e: Buffer.alloc(5, 0xff).toString('base64url') }],
    ['RSA with a leading zero', { ...rsaJwk, e: 'AAEAAQ' }],
    ['padded', { ...ed25519Key, x: `${ed25519Key.x}=` }],
    ['in base64', { ...ed25519Key, x: ed25519Key.x.replaceAll('-', '+').replaceAll('_', '/') }],
    ['with bits that decoding drops', { ...ed25519Key, x: `${ed25519Key.x.slice(0, -1)}t` }],
    ['without x', { ...ed25519Key, x: undefined }],
    ['with an x that is no text', { ...ed25519Key, x: 7 }],
  ])('%s', (_what, jwk) => {
    expect(readKeySet([jwk, p256Key]).size).toBe(1)
    expect(only(p256Key)).toBeDefined()
  })
})

describe('algorithms', () => {
  const data = Buffer.from('a signature base')
  const ec256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const ec384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const ed = generateKeyPairSync('ed25519')
  const dsaEncoding = 'ieee-p1363'
  const signed: readonly [SignatureAlgorithm, KeyObject, Buffer][] = [
    ['ed25519', ed.publicKey, sign(null, data, ed.privateKey)],
    ['ecdsa-p256-sha256', ec256.publicKey, sign('sha256', data, { key: ec256.privateKey, dsaEncoding })],
    ['ecdsa-p384-sha384', ec384.publicKey, sign('sha384', data, { key: ec384.privateKey, dsaEncoding })],
    ['rsa-v1_5-sha256', publicKey, sign('sha256', data, privateKey)],
    [
      'rsa-pss-sha512',
      publicKey,
      sign('sha512', data, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 64 }),
    ],
  ]

  it.each(signed)('%s verifies what it signed, and nothing else', (algorithm, key, signature) => {
    const read = only(key.export({ format: 'jwk' }))!
    expect(read.algorithms).toContain(algorithm)
    expect(verifiesWith(read, algorithm, 'a signature base', signature)).toBe(true)
    expect(verifiesWith(read, algorithm, 'a signature bass', signature)).toBe(false)
    expect(verifiesWith(read, algorithm, 'a signature base', signature.subarray(1))).toBe(false)
    expect(verifiesWith(read, algorithm, 'a signature base', new Uint8Array())).toBe(false)
  })

  it('in DER is no signature of ECDSA, and PSS with another salt none of RSA', () => {
    const der = sign('sha256', data, ec256.privateKey)
    expect(verifiesWith(only(ec256.publicKey.export({ format: 'jwk' }))!, 'ecdsa-p256-sha256', String(data), der)).toBe(
      false,
    )
    const short = sign('sha512', data, { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: 32 })
    expect(verifiesWith(only(rsaJwk)!, 'rsa-pss-sha512', String(data), short)).toBe(false)
  })

  it('a point beside its curve verifies nothing', () => {
    const beside = only({ ...p256Key, y: p256Key.x })!
    expect(verifiesWith(beside, 'ecdsa-p256-sha256', 'a', new Uint8Array(64))).toBe(false)
  })

  it.each<[object, string | undefined, SignatureAlgorithm | undefined]>([
    [ed25519Key, undefined, 'ed25519'],
    [ed25519Key, 'ed25519', 'ed25519'],
    [ed25519Key, 'rsa-pss-sha512', undefined],
    [rsaKey, undefined, 'rsa-pss-sha512'],
    [rsaKey, 'rsa-v1_5-sha256', 'rsa-v1_5-sha256'],
    [{ ...rsaKey, alg: 'RS256' }, undefined, 'rsa-v1_5-sha256'],
    [{ ...rsaKey, alg: 'RS256' }, 'rsa-pss-sha512', undefined],
    [{ ...rsaKey, alg: 'PS512' }, 'rsa-v1_5-sha256', undefined],
    [{ ...ed25519Key, alg: 'Ed25519' }, 'ed25519', 'ed25519'],
    [p256Key, 'ecdsa-p384-sha384', undefined],
  ])('of %j with alg %s: %s', (jwk, alg, algorithm) => {
    expect(algorithmOf(only(jwk)!, alg)).toBe(algorithm)
  })
})
