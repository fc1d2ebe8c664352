import type { NextFunction, Request, Response } from 'express'
import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { readOptions } from '../read-options.ts'
import { isTrustworthyUrl } from './key-source.ts'
import { scopeList } from './tokens.ts'

export interface ProtectedResourceOptions {
  /**
   * This API's identifier, exactly as clients and tokens (`aud`) write it, such as `https://api.example.com` or `https://api.example.com/mcp`:
   * https without a fragment, or http on loopback. MCP clients expect the URL of the server, without a slash at its end.
   */
  resource: string
  /** The issuers of the tokens that are taken here, as their own metadata names them. At least one. */
  authorizationServers: readonly string[]
  /** The scopes that basic use of the API needs: MCP clients ask for all of them where a challenge names none. */
  scopes?: readonly string[]
  /** The URL of this API's own keys, where it signs or decrypts. Not that of the issuer's. */
  jwksUri?: string
  /** A name that people read. */
  resourceName?: string
  /** A page for developers who use the API. */
  resourceDocumentation?: string
  /** The algorithms of DPoP proofs that are taken here. */
  dpopSigningAlgValuesSupported?: readonly string[]
  /** Every token has to be bound to a DPoP key. */
  dpopBoundAccessTokensRequired?: boolean
  /** Tokens may be bound to the client's certificate (RFC 8705). */
  tlsClientCertificateBoundAccessTokens?: boolean
  /** How long clients may keep the answer. Default 10 minutes. */
  maxAge?: Duration
}

/** What serves the metadata: for `app.use`, or `app.get(handler.path, handler)`. */
export interface ProtectedResourceHandler {
  (req: Request, res: Response, next: NextFunction): void
  /** Where clients find the metadata, for `resourceMetadata` of the verifiers and for challenges of your own. */
  readonly url: string
  /** The path of {@link url}. */
  readonly path: string
}

const trustworthyUrl = z
  .string()
  .refine(isTrustworthyUrl, { error: 'an https URL (http only on loopback) without a user' })

/** RFC 8414 section 2, RFC 9728 section 1.2. */
const identifier = (what: string, isAllowed: (url: URL) => boolean): z.ZodType<string> =>
  z.string().refine((value) => isTrustworthyUrl(value) && isAllowed(new URL(value)) && !value.includes('#'), {
    error: `${what}: an https URL (http only on loopback)`,
  })

const schema = z.strictObject({
  resource: identifier("this API's identifier, without a fragment", () => true),
  authorizationServers: z
    .array(identifier('an issuer, without query and fragment', ({ search }) => search === ''))
    .min(1, { error: 'at least one issuer' }),
  scopes: scopeList.optional(),
  jwksUri: trustworthyUrl.optional(),
  resourceName: z.string().min(1).optional(),
  resourceDocumentation: z.url({ protocol: /^https?$/, error: 'an http(s) URL' }).optional(),
  dpopSigningAlgValuesSupported: z
    .array(z.string().regex(/^(?!none$|HS)[A-Za-z0-9-]+$/, { error: 'an asymmetric algorithm, such as "ES256"' }))
    .min(1)
    .optional(),
  dpopBoundAccessTokensRequired: z.boolean().optional(),
  tlsClientCertificateBoundAccessTokens: z.boolean().optional(),
  maxAge: z
    .unknown()
    .transform((value) => parseDuration(value, "protectedResource's maxAge"))
    .prefault('10m'),
})

const wellKnown = '/.well-known/oauth-protected-resource'

/**
 * Tells clients where they get tokens for this API (RFC 9728), as MCP clients expect: a handler for
 * `/.well-known/oauth-protected-resource`, followed by the resource's own path where it has one. Any other path is passed on.
 *
 * It answers `GET` and `HEAD`, and what browsers ask before (`OPTIONS`), from any origin: what it says is public.
 *
 * @example
 * const metadata = protectedResource({
 *   resource: 'https://api.example.com',
 *   authorizationServers: ['https://id.example.com'],
 *   scopes: ['orders:read'],
 * })
 * app.use(metadata)
 * app.use(rampmeter({ identify: [bearer({ …, resourceMetadata: metadata.url })] }))
 *
 * @see [RFC 9728 section 3](https://www.rfc-editor.org/rfc/rfc9728#section-3)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function protectedResource(options: ProtectedResourceOptions): ProtectedResourceHandler {
  const settings = readOptions(schema, options, 'protectedResource')
  const url = metadataUrlOf(settings.resource)
  const { pathname, search } = url
  const body = Buffer.from(JSON.stringify(metadataOf(settings)))
  const cacheControl = `public, max-age=${Math.floor(settings.maxAge / 1000)}`

  function serveMetadata(req: Request, res: Response, next: NextFunction): void {
    if (!isAskedFor(req.originalUrl, pathname, search)) {
      next()
      return
    }
    res.set('Access-Control-Allow-Origin', '*')
    switch (req.method) {
      case 'GET':
      case 'HEAD':
        res.set('Cache-Control', cacheControl).type('application/json').send(body)
        return
      case 'OPTIONS':
        // MCP clients send their protocol version along, which makes a browser ask first.
        res.set({
          Allow: 'GET, HEAD, OPTIONS',
          'Access-Control-Allow-Methods': 'GET, HEAD',
          'Access-Control-Allow-Headers': '*',
          'Access-Control-Max-Age': '86400',
        })
        res.status(204).end()
        return
      default:
        res.set('Allow', 'GET, HEAD, OPTIONS').status(405).end()
    }
  }

  return Object.freeze(Object.assign(serveMetadata, { url: url.href, path: pathname }))
}

/** The well-known part comes between host and path; a slash that is all of the path goes (RFC 9728 section 3.1). */
function metadataUrlOf(resource: string): URL {
  const url = new URL(resource)
  url.pathname = wellKnown + (url.pathname === '/' ? '' : url.pathname)
  return url
}

/** RFC 9728 section 2. */
function metadataOf(settings: z.output<typeof schema>): Record<string, unknown> {
  return {
    resource: settings.resource,
    authorization_servers: settings.authorizationServers,
    jwks_uri: settings.jwksUri,
    scopes_supported: settings.scopes,
    bearer_methods_supported: ['header'],
    resource_name: settings.resourceName,
    resource_documentation: settings.resourceDocumentation,
    tls_client_certificate_bound_access_tokens: settings.tlsClientCertificateBoundAccessTokens,
    dpop_signing_alg_values_supported: settings.dpopSigningAlgValuesSupported,
    dpop_bound_access_tokens_required: settings.dpopBoundAccessTokensRequired,
  }
}

/** Whether a request target is the metadata's. A query counts only where the resource has one. */
function isAskedFor(target: string, pathname: string, search: string): boolean {
  const at = target.indexOf('?')
  const path = (at === -1 ? target : target.slice(0, at)).replace(/^https?:\/\/[^/]*/i, '')
  return path === pathname && (search === '' || (at !== -1 && target.slice(at) === search))
}
