/**
 * What is known about who sent a request.
 *
 * - `anonymous`: no credential was shown (a User-Agent may still hint at an agent: {@link Client.hint}).
 * - `human`: a credential that belongs to a person.
 * - `agent`: a credential that belongs to a program.
 * - `unknown`: a credential that does not say which.
 */
export type ClientKind = 'anonymous' | 'human' | 'agent' | 'unknown'

/** What an unproven User-Agent claims to be. It chooses the shape of a limit, never its rate. */
export interface AgentHint {
  /** The agent or HTTP client that the name was matched to, such as `ClaudeBot` or `python-requests`. */
  readonly agent: string
  /** Who runs it, where the name says so. */
  readonly operator?: string
  /** What it says it is for, or `http-client` for a generic library. */
  readonly role: 'assistant' | 'crawler' | 'search' | 'http-client' | 'bot'
}

/**
 * Who sent a request, as far as it was proven. Found on `req.rateLimit.client`.
 *
 * @typeParam Tier the names that `tier` can have
 */
export interface Client<Tier extends string = string> {
  /**
   * Names the client for counting. It begins with its scheme, so that two kinds of identity never collide: `key:acme`,
   * `session:42`, `ip:203.0.113.7`.
   */
  readonly id: string
  readonly kind: ClientKind
  /** The tier whose limits applied. */
  readonly tier: Tier
  /** The verifier that proved the identity (`api-key`, `session`, …), or null when nothing was proven. */
  readonly provedBy: string | null
  /** How sure `kind` is, from 0 (a guess) to 1 (proven). */
  readonly confidence: number
  /** Why the client was put where it is, in words, the most important first. Contains no credential. */
  readonly reasons: readonly string[]
  /** What the verifiers learned, such as a customer's own quota from `apiKey`'s look-up. */
  // oxlint-disable-next-line typescript/no-explicit-any -- claims are the app's own, and read without a cast
  readonly claims: Record<string, any>
  /** The address the request came from, as a partition (`ip:…`, IPv6 as its subnet), or null outside HTTP. */
  readonly address: string | null
  /** What the User-Agent claims, unproven. */
  readonly hint: AgentHint | null
}

/** A client that no tier has been chosen for yet. */
export interface IdentifiedClient extends Omit<Client, 'tier'> {
  readonly address: string
  /** The tier that its credential names. */
  readonly namedTier: string | null
  /** Proved to hold a key, not merely a secret that can be copied. */
  readonly provesKey: boolean
  /** Of that key, where the verifier told it. */
  readonly thumbprint?: string | undefined
  /** What its credential may be used for. */
  readonly scopes: readonly string[]
}
