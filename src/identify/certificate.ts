import { hash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { parseItem } from 'structured-headers'
import { fieldValues } from './fields.ts'
import { createTrust } from './trusted-proxies.ts'

/** The certificate that a client showed when it connected: it has proven that it holds the key. */
export interface ClientCertificate {
  /** The SHA-256 of the certificate (DER), base64url: what `x5t#S256` holds (RFC 8705 section 3.1). */
  readonly thumbprint: string
}

/** Tells a request's client certificate: undefined where there is none, `malformed` where a trusted proxy sent what is none. */
export type ReadCertificate = (req: IncomingMessage) => ClientCertificate | 'malformed' | undefined

/**
 * Makes what tells with which certificate a client connected.
 *
 * It is that of the TLS connection. Where the connection comes from a trusted proxy it is what `Client-Cert` says (RFC 9440), and nothing
 * else: the proxy's own certificate is not the client's. From anybody else that field is worth nothing, and is not looked at.
 *
 * @param trustedProxies as `trustedProxyList` gives them
 */
export function createCertificateReader(options: { readonly trustedProxies: readonly string[] }): ReadCertificate {
  const isTrusted = options.trustedProxies.length === 0 ? undefined : createTrust(options.trustedProxies)
  const certificates = new WeakMap<object, ClientCertificate>()

  /** Of a connection; it is hashed once, since reading it costs as much as the rest of a request's proof by certificate. */
  function ofConnection(req: IncomingMessage): ClientCertificate | undefined {
    const socket = req.socket as TLSSocket | undefined
    if (socket?.encrypted !== true) return undefined
    // HTTP/2 wraps the socket anew for each request; what lasts there is the session.
    const session = (req as { stream?: { session?: object } }).stream?.session
    const known = certificates.get(session ?? socket)
    if (known !== undefined) return known
    // That there is none is not remembered: TLS 1.2 may ask for one later, on the same connection.
    const shown = socket.getPeerX509Certificate()
    if (shown === undefined) return undefined
    const certificate = certificateOf(shown.raw)
    certificates.set(session ?? socket, certificate)
    // HTTP/2 knows no second handshake (RFC 9113 section 9.2.1).
    if (session === undefined) socket.once('secure', () => certificates.delete(socket))
    return certificate
  }

  return function readCertificate(req) {
    if (isTrusted?.(req.socket?.remoteAddress) !== true) return ofConnection(req)
    const fields = fieldValues(req, 'client-cert')
    if (fields.length === 0) return undefined
    return fields.length === 1 ? (readField(fields[0]!) ?? 'malformed') : 'malformed'
  }
}

/** Reads a Byte Sequence (RFC 9651 section 3.3.5) that holds one certificate as DER, and nothing after it. */
function readField(value: string): ClientCertificate | undefined {
  try {
    const [item] = parseItem(value)
    const der = item instanceof ArrayBuffer ? Buffer.from(item) : undefined
    return der !== undefined && isFramed(der) ? certificateOf(der) : undefined
  } catch {
    return undefined
  }
}

/**
 * Whether octets are one DER structure, as a certificate is: a SEQUENCE of that length that begins with another (RFC 5280 section 4.1).
 * More is not asked: a trusted proxy sent it, only the octets that a token names will do, and to parse them costs more than to hash them.
 */
function isFramed(der: Buffer): boolean {
  // Lengths of 128 to 65535 are written in one or two octets after their number; a certificate is never shorter.
  const lengthOctets = der[1] === 0x81 ? 1 : der[1] === 0x82 ? 2 : 0
  const start = 2 + lengthOctets
  if (lengthOctets === 0 || der.length < start || der[0] !== sequence || der[start] !== sequence) return false
  return der.length === start + der.readUIntBE(2, lengthOctets)
}

const sequence = 0x30

function certificateOf(der: Buffer): ClientCertificate {
  return { thumbprint: hash('sha256', der, 'base64url') }
}

/** Whether a token's `x5t#S256` names a certificate; in a time that does not tell where they differ. */
export function isThumbprintOf({ thumbprint }: ClientCertificate, x5t: string): boolean {
  const [a, b] = [Buffer.from(thumbprint), Buffer.from(x5t)]
  return a.length === b.length && timingSafeEqual(a, b)
}
