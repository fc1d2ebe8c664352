// A small authorization server on this machine: metadata (RFC 8414), keys, client credentials (RFC 6749 section 4.4), introspection
// (RFC 7662). It counts what it is asked, and fails as the test says.

import { createHash, randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { calculateJwkThumbprint, type JWK } from 'jose'
import { onTestFinished } from 'vitest'
import { createSigningKey, type SigningKey } from './issuer.ts'

/** What goes wrong with each request to a path: a status, or a way to answer. */
type Fault = number | ((req: IncomingMessage, res: ServerResponse) => void)

export interface AuthorizationServer {
  /** Its issuer identifier. */
  readonly issuer: string
  readonly key: SigningKey
  /** Its key set; may be changed. */
  readonly jwks: { keys: JWK[] }
  /** The ids and secrets of its clients, as they were registered. */
  readonly clients: Map<string, string>
  /** What it knows of opaque tokens: an answer to introspection. */
  readonly tokens: Map<string, unknown>
  /** How often each path was asked for. */
  asked(path: string): number
  /** The bodies that came to a path. */
  bodies(path: string): readonly URLSearchParams[]
  /** What goes wrong, by path. */
  readonly faults: Map<string, Fault>
  close(): Promise<void>
}

export async function startAuthorizationServer(): Promise<AuthorizationServer> {
  const key = await createSigningKey()
  const jwks = { keys: [key.jwk] }
  const clients = new Map([['agent', 'an agent secret']])
  const tokens = new Map<string, unknown>()
  const received = new Map<string, URLSearchParams[]>()
  const faults = new Map<string, Fault>()
  let issuer = ''

  const server = createServer((req, res) => {
    void answer(req, res).catch(() => res.destroy())
  })

  async function answer(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const path = req.url!
    const form = new URLSearchParams(await text(req))
    received.set(path, [...(received.get(path) ?? []), form])
    const fault = faults.get(path)
    if (typeof fault === 'function') return fault(req, res)
    if (fault !== undefined) return send(res, fault, { error: 'server_error' })
    switch (`${req.method} ${path}`) {
      case 'GET /.well-known/oauth-authorization-server':
        return send(res, 200, {
          issuer,
          token_endpoint: `${issuer}/token`,
          introspection_endpoint: `${issuer}/introspect`,
          jwks_uri: `${issuer}/jwks`,
        })
      case 'GET /jwks':
        return send(res, 200, jwks)
      case 'POST /token':
      case 'POST /introspect': {
        const client = authenticate(req)
        if (client === undefined) return send(res, 401, { error: 'invalid_client' })
        if (path === '/introspect') return send(res, 200, tokens.get(form.get('token')!) ?? { active: false })
        return send(res, 200, await issue(client, form, req.headers['dpop'] as string | undefined))
      }
      default:
        return send(res, 404, {})
    }
  }

  /** RFC 6749 section 2.3.1. */
  function authenticate(req: IncomingMessage): string | undefined {
    const basic = /^Basic (.+)$/.exec(req.headers.authorization ?? '')?.[1] ?? ''
    const [id, secret, ...rest] = Buffer.from(basic, 'base64')
      .toString()
      .split(':')
      .map((part) => new URLSearchParams(`_=${part}`).get('_')!)
    return rest.length === 0 && secret !== undefined && clients.get(id!) === secret ? id : undefined
  }

  /** A JWT, or an opaque token where the client wants one; bound to the key of a proof. */
  async function issue(client: string, form: URLSearchParams, proof: string | undefined): Promise<object> {
    const now = Math.floor(Date.now() / 1000)
    const claims = {
      iss: issuer,
      aud: form.get('resource') ?? 'nobody',
      sub: client,
      client_id: client,
      scope: form.get('scope') ?? '',
      iat: now,
      exp: now + 300,
      jti: randomUUID(),
      ...(proof !== undefined && { cnf: { jkt: await thumbprintOf(proof) } }),
    }
    const token_type = proof === undefined ? 'Bearer' : 'DPoP'
    let access_token: string
    if (form.get('opaque') === 'yes') {
      access_token = createHash('sha256').update(claims.jti).digest('base64url')
      tokens.set(access_token, { active: true, token_type, ...claims })
    } else {
      access_token = await key.sign(claims)
    }
    return { access_token, token_type, expires_in: 300, scope: claims.scope }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  async function close(): Promise<void> {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  onTestFinished(close)

  return {
    issuer,
    key,
    jwks,
    clients,
    tokens,
    faults,
    close,
    asked: (path) => received.get(path)?.length ?? 0,
    bodies: (path) => received.get(path) ?? [],
  }
}

function send(res: ServerResponse, status: number, body: unknown): void {
  res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

async function thumbprintOf(proof: string): Promise<string> {
  const { jwk } = JSON.parse(Buffer.from(proof.split('.')[0]!, 'base64url').toString()) as { jwk: JWK }
  return await calculateJwkThumbprint(jwk)
}
