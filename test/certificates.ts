// Certificates for tests over real TLS: an authority that lives as long as the test, and what it signs.

import { X509Certificate } from 'node:crypto'
import { generate } from 'selfsigned'

/** A certificate with its key, as `node:https` and `node:tls` take them (PEM). */
export interface Certificate {
  readonly key: string
  readonly cert: string
  /** The certificate as it goes over the wire. */
  readonly der: Buffer
}

/** Whose certificate it is. */
export interface Holder {
  /** The name, also where a client has no address. Default `localhost`. */
  readonly name?: string
  /** The DNS names and IP addresses of a server. Default: localhost, 127.0.0.1, ::1. */
  readonly hosts?: readonly string[]
}

/** Signs certificates; `cert` is what its peers trust (`ca` of node:tls). */
export interface Authority extends Certificate {
  issue(holder?: Holder): Promise<Certificate>
}

/** Makes an authority that nobody trusts but who is given its certificate. */
export async function createAuthority(): Promise<Authority> {
  const { private: key, cert } = await generate([{ name: 'commonName', value: 'a test authority' }], {
    ...elliptic,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
  return { ...pair(key, cert), issue: (holder = {}) => make(holder, { key, cert }) }
}

/** Makes a certificate that is its own authority (RFC 8705 section 2.2). */
export function selfSigned(holder: Holder = {}): Promise<Certificate> {
  return make(holder)
}

const elliptic = { keyType: 'ec', algorithm: 'sha256' } as const

async function make({ name = 'localhost', hosts = local }: Holder, ca?: { key: string; cert: string }) {
  const { private: key, cert } = await generate([{ name: 'commonName', value: name }], {
    ...elliptic,
    extensions: [
      { name: 'basicConstraints', cA: false, critical: true },
      { name: 'keyUsage', digitalSignature: true, critical: true },
      { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
      { name: 'subjectAltName', altNames: hosts.map(alternativeName) },
    ],
    ...(ca !== undefined && { ca }),
  })
  return pair(key, cert)
}

const local = ['localhost', '127.0.0.1', '::1']

function alternativeName(host: string) {
  return /^[\d.]+$|:/.test(host) ? ({ type: 7, ip: host } as const) : ({ type: 2, value: host } as const)
}

function pair(key: string, cert: string): Certificate {
  return { key, cert, der: new X509Certificate(cert).raw }
}
