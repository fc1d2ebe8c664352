import type { Request } from 'express'
import type { ClientKind } from '../client.ts'

/** Who a credential belongs to, as a verifier found. */
export interface Identity {
  /** Begins with its scheme, so that two verifiers never name two clients alike: `key:acme`, `session:42`. */
  readonly id: string
  readonly kind: Exclude<ClientKind, 'anonymous'>
  /** How sure `kind` is, from 0 to 1. */
  readonly confidence: number
  /** Why `kind` was chosen, in words without any credential. */
  readonly reason: string
  /** Proven to hold a key, not merely a secret that can be copied. */
  readonly provesKey?: boolean
  /** The tier that the credential itself names; otherwise the classifier chooses. */
  readonly tier?: string
  /** What else is known, for `classify` and for amounts that depend on the client. */
  readonly claims?: Record<string, unknown>
}

/**
 * What a verifier made of a request.
 *
 * - `absent`: no credential of its kind; the next verifier is asked.
 * - `verified`: this is who it is.
 * - `invalid`: a credential of its kind that is wrong; the request is charged to its address and answered 401 with `challenge`.
 * - `unavailable`: what is needed to tell cannot be had now; the request is answered 503, never 401.
 */
export type Verification =
  | {
      readonly outcome: 'absent'
      /** A hint for `reasons`, such as that a key was shown and not known. */ readonly note?: string
    }
  | { readonly outcome: 'verified'; readonly identity: Identity }
  | {
      readonly outcome: 'invalid'
      readonly reason: string
      /** The `WWW-Authenticate` value. */ readonly challenge: string
    }
  | { readonly outcome: 'unavailable'; readonly reason: string; readonly cause: unknown }

/** Proves who is asking, or passes. Built by `apiKey`, `session`, …, or by you. */
export interface Verifier {
  /** Found on `client.provedBy`. */
  readonly name: string
  /**
   * True where the answer may change while a request is served, as when it logs in. Then a `limiter.route()` further in asks
   * again; all others are asked once a request.
   */
  readonly mayChange?: boolean
  /** Never throws for what a client sent; what it throws fails the request through `next(error)`. */
  verify(req: Request): Verification | Promise<Verification>
}
