import type { Request } from 'express'
import type { AgentHint, ClientKind } from '../client.ts'

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
  /** Of the key that it proved to hold (RFC 7638, or RFC 8705 section 3.1): what is issued to it is good with that key alone. */
  readonly thumbprint?: string
  /** The tier that the credential itself names; otherwise the classifier chooses. */
  readonly tier?: string
  /** What the credential may be used for (RFC 6749 section 3.3), for a route that asks for some. Undefined: nothing is said. */
  readonly scopes?: readonly string[]
  /** What else is known, for `classify` and for amounts that depend on the client. */
  readonly claims?: Record<string, unknown>
}

/** A proof that admits one request: whoever shows it again is refused, in whatever process. */
export interface SingleUse {
  /** Names it alone, at most 64 characters of `A-Z a-z 0-9 _ -`: a hash, never the proof itself. */
  readonly name: string
  /** For how long it could still be used, in ms; remembered so long. */
  readonly lastsMs: number
  /** The `WWW-Authenticate` value that answers its second use. */
  readonly challenge: string
}

/**
 * What a verifier made of a request.
 *
 * - `absent`: no credential of its kind; the next verifier is asked.
 * - `verified`: this is who it is.
 * - `invalid`: a credential of its kind that is wrong; the request is charged to its address and refused with `challenge`.
 * - `unavailable`: what is needed to tell cannot be had now; the request is answered 503, never 401.
 * - `limited`: its address has shown too many wrong ones lately, and this one was not looked at; answered 429.
 */
export type Verification = (
  | {
      readonly outcome: 'absent'
      /** A hint for `reasons`, such as that a key was shown and not known. */
      readonly note?: string
      /** A credential was shown that is nobody's: it counts as a failed proof. Default false. */
      readonly failed?: boolean
      /**
       * A credential was shown and passed over: the `WWW-Authenticate` value that answers it where a name is needed, as on a route
       * with a price. Default: the request is one without a credential there too.
       */
      readonly challenge?: string
      /** What the request says it comes from, where that earns no identity: it stays unproven. */
      readonly hint?: AgentHint
    }
  | {
      readonly outcome: 'verified'
      readonly identity: Identity
      /**
       * It says something about whoever another verifier names, such as what runtime they use, and names somebody only where no
       * other does. Default false.
       */
      readonly secondary?: boolean
      /** What may not be shown a second time. */
      readonly singleUses?: readonly SingleUse[]
    }
  | {
      readonly outcome: 'invalid'
      readonly reason: string
      /** The `WWW-Authenticate` value. */
      readonly challenge: string
      /** 400 for what cannot be read, 401 (default) for what is wrong, 403 for what is right and does not allow this. */
      readonly status?: 400 | 401 | 403
      /** False where the credential is not wrong but late or incomplete: it is no failed proof. Default true. */
      readonly counts?: boolean
    }
  | { readonly outcome: 'unavailable'; readonly reason: string; readonly cause: unknown }
  | { readonly outcome: 'limited'; readonly retryAfterMs: number }
) & {
  /** Fields for the response, admitted or not, such as `DPoP-Nonce`. */
  readonly fields?: Readonly<Record<string, string>>
}

/** What answers a credential that was not looked at, since its address has shown too many wrong ones. */
export type LimitedVerification = Verification & { readonly outcome: 'limited' }

/** What a check of a credential says for its attempt to be counted: a {@link Verification}, or a step on the way to one. */
export interface Checked {
  readonly outcome: string
  readonly counts?: boolean
  readonly failed?: boolean
}

/** What checking credentials may cost an address. */
export interface Attempts {
  /** Whose attempts these are: the address as a partition, `ip:…`. */
  readonly address: string
  /**
   * Checks a credential, unless its address has shown too many wrong ones. The same credential at the same time is checked
   * once, and one that was found wrong a moment ago is refused from memory.
   *
   * What answers `invalid` (unless `counts` is false), or `absent` with `failed`, is a failed proof.
   *
   * @param credential all of what is checked, and whose check it is: kept as a hash, for a minute
   * @param holder names what was seen good before, such as a token with its key. Once a credential of it was verified, it is
   *   checked even where its address has failed too often. Default: the credential itself
   */
  check<Answer extends Checked>(
    credential: string,
    work: () => Answer | Promise<Answer>,
    holder?: string,
  ): Promise<Answer | LimitedVerification> | Answer | LimitedVerification
  /**
   * Whether a proof that admits one request was shown again a moment ago: then it need not be checked to be refused. What it costs to
   * find out by the store is paid once in ten seconds.
   *
   * @param name of a {@link SingleUse}
   */
  wasUsed?(name: string): boolean
}

/** Proves who is asking, or passes. Built by `apiKey`, `session`, …, or by you. */
export interface Verifier {
  /** Found on `client.provedBy`. */
  readonly name: string
  /**
   * True where the answer may change while a request is served, as when it logs in. Then a `limiter.route()` further in asks
   * again; all others are asked once a request.
   */
  readonly mayChange?: boolean
  /** The fields it may give a response, so that scripts of other origins can be let read them. */
  readonly fieldNames?: readonly string[]
  /** The field, in lower case, that is the whole of its credential: what the edge may be told the hash of. Default: there is none such. */
  readonly shownIn?: string
  /** False where it never proves a key: with such verifiers alone, `requirePoP` is a mistake. Default true. */
  readonly mayProveKey?: boolean
  /**
   * How a client that showed no credential, or none that proves a key, can show one: the `WWW-Authenticate` value of an answer
   * that asks for it, and other fields. Only of verifiers that prove a key. Undefined: nothing can be said in a field.
   */
  readonly stepUp?: { readonly challenge?: string; readonly fields?: Readonly<Record<string, string>> }
  /**
   * How a stranger is asked for a credential of its kind: the `WWW-Authenticate` value, and in words what and where, such as `an API
   * key in the field X-API-Key`. Default: what `challengeFor` says, and `a token in the field Authorization`.
   */
  readonly asks?: { readonly challenge: string; readonly words: string }
  /**
   * Of verifiers that read tokens: the `WWW-Authenticate` value that asks for one.
   *
   * @param scopes what it has to allow; empty where nothing is asked
   * @param error says what was wrong with the one that came (RFC 6750 section 3.1); undefined where none came
   */
  challengeFor?(scopes: readonly string[], error?: string): string
  /**
   * Of verifiers that sign what clients bring back, such as nonces: called once by each limiter, which then asks what it returns.
   *
   * @param secrets the limiter's `keySecret`, the newest first, or one made up for this process
   */
  withSecrets?(secrets: readonly string[]): Verifier
  /**
   * Never throws for what a client sent; what it throws fails the request through `next(error)`.
   *
   * @param attempts to be asked before anything costly is done: a signature, a look-up, a fetch
   */
  verify(req: Request, attempts: Attempts): Verification | Promise<Verification>
}
