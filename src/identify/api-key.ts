import { hash } from 'node:crypto'
import type { Request } from 'express'
import { LRUCache } from 'lru-cache'
import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { onlyField } from './fields.ts'
import { isProven, noteProven } from './proven.ts'
import { identityOf, type Presumption, type Subject } from './subject.ts'
import { isThenable } from './thenable.ts'
import type { Attempts, Verification, Verifier } from './verifier.ts'

export interface ApiKeyOptions {
  /**
   * The header field that carries the key. Default `x-api-key`. With `authorization` it is `Authorization: Bearer <key>`, and
   * other schemes are passed over.
   */
  header?: string
  /**
   * Whose key it is, or null where there is no such key. Keep keys as hashes and look them up by hash, so that neither a leak
   * nor the time of a comparison gives one away.
   *
   * Requests that show the same key at once share one call, and with `cache` later ones share its answer: it must depend on the
   * key alone, and `req` (the first of these requests) is for tracing.
   *
   * One that throws, rejects or answers with something else is answered 503.
   */
  lookup: (key: string, req: Request) => Subject | null | undefined | Promise<Subject | null | undefined>
  /**
   * For how long an answer is remembered, in this process: the longest that a withdrawn key still works and a new one that was
   * tried too early does not. Default: not at all.
   */
  cache?: Duration
  /**
   * What becomes of a key that `lookup` does not know: `anonymous` (default) leaves the request to the app's own
   * authentication, charged to its address, but for routes with a price, where it is 401; `refuse` answers 401.
   */
  unknown?: 'anonymous' | 'refuse'
}

/** RFC 9110 section 5.1: a field name is a token. */
const fieldName = /^[!#$%&'*+.^_`|~0-9a-z-]+$/

const schema = z.strictObject({
  header: z.string().toLowerCase().regex(fieldName, { error: 'the name of a header field' }).default('x-api-key'),
  lookup: z.custom<ApiKeyOptions['lookup']>((value) => typeof value === 'function', 'a function of the key'),
  cache: z
    .unknown()
    .transform((value) => parseDuration(value, "apiKey's cache"))
    .optional(),
  unknown: z.enum(['anonymous', 'refuse']).default('anonymous'),
})

/** Longer ones are not worth a look-up; keys in use have tens of characters. */
const longestKey = 4096

/** Of each: keys that were found, keys that were not, and look-ups under way. */
const remembered = 10_000

/** A look-up that hangs is joined no longer than that, so that it costs the requests that met it and not the key. */
const joinedForMs = 10_000

/** Read through the global each time, so that the fake timers of a test turn it; lru-cache keeps the real one. */
const perf = { now: (): number => performance.now() }

const presumed: Presumption = {
  kind: 'unknown',
  confidence: 0,
  reason: 'the API key is known, and its type is not',
}

const absent: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Proves a client by an API key that the app looks up. The client's id is `key:<id>`; its kind is `agent` for the types `agent`
 * and `service`, `human` for `user`, else `unknown`.
 *
 * A field that comes twice is a key that nobody knows: which of the two counts is a question on which a proxy and this
 * server might differ.
 *
 * @example apiKey({ lookup: async (key) => db.keys.findByHash(sha256(key)), cache: '30s' })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function apiKey(options: ApiKeyOptions): Verifier {
  const { header, lookup, cache, unknown } = readOptions(schema, options, 'apiKey')
  const refused = refusal(header)
  const notKnown = unknown === 'refuse' ? refused : passing(refused.challenge)
  // Nothing has to be done to see it, so it counts for nothing.
  const notUsable: Verification =
    notKnown.outcome === 'invalid'
      ? { ...notKnown, counts: false }
      : { outcome: 'absent', note: unknownNote, challenge: refused.challenge }
  const find = createFinder(lookup, notKnown, cache)

  return {
    name: 'api-key',
    shownIn: header,
    mayProveKey: false,
    asks: askingFor(header),
    verify(req, attempts) {
      const shown = onlyField(req, header)
      if (shown === undefined) return absent
      if (shown === null) return notUsable
      const key = header === 'authorization' ? bearerOf(shown) : shown
      if (key === undefined || (header === 'authorization' && isProven(req, attempts))) return absent
      if (key === '' || key.length > longestKey) return notUsable
      const found = find(key, req, attempts)
      if (header !== 'authorization') return found
      return isThenable(found)
        ? found.then((answer) => noteGood(answer, req, attempts))
        : noteGood(found, req, attempts)
    },
  }
}

function noteGood(answer: Verification, req: Request, attempts: Attempts): Verification {
  if (answer.outcome === 'verified') noteProven(req, attempts)
  return answer
}

const unknownNote = 'an API key was shown that is not known'

function passing(challenge: string): Verification {
  return Object.freeze({ outcome: 'absent', note: unknownNote, failed: true, challenge })
}

/**
 * A 401 must carry a challenge (RFC 9110 section 15.5.2), and no registered scheme describes a key in a field of its own. So
 * the scheme is the unregistered `ApiKey`, which tells a program where the key goes in the words of OpenAPI; not `Bearer`,
 * which would send it to the wrong field.
 */
function refusal(header: string): Verification & { readonly outcome: 'invalid' } {
  const challenge =
    header === 'authorization'
      ? 'Bearer realm="api", error="invalid_token"'
      : `ApiKey realm="api", in="header", name="${header}"`
  return Object.freeze({ outcome: 'invalid', reason: 'the API key is not known', challenge })
}

/** What asks whoever showed none for one. */
function askingFor(header: string): NonNullable<Verifier['asks']> {
  if (header === 'authorization') {
    return { challenge: 'Bearer realm="api"', words: 'an API key as the Bearer token of the field Authorization' }
  }
  const field = header.replace(/(?<=^|-)[a-z]/g, (letter) => letter.toUpperCase()).replace(/\bApi\b/g, 'API')
  return { challenge: `ApiKey realm="api", in="header", name="${header}"`, words: `an API key in the field ${field}` }
}

/** RFC 6750 section 2.1, where what follows need not be the token68 that the RFC asks for. Undefined for another scheme. */
function bearerOf(value: string): string | undefined {
  return /^bearer(?: +|$)/i.test(value) ? value.slice(6).trimStart() : undefined
}

/**
 * Looks keys up, each once at a time. Whatever outlives a request holds the SHA-256 of a key, never the key: a heap dump gives none away.
 */
function createFinder(
  lookup: ApiKeyOptions['lookup'],
  notKnown: Verification,
  cacheMs: number | undefined,
): (key: string, req: Request, attempts: Attempts) => Verification | Promise<Verification> {
  const underWay = new LRUCache<string, Promise<Verification>>({ max: remembered, ttl: joinedForMs, perf })
  // Two caches, so that trying made-up keys drives out other made-up keys only.
  const found =
    cacheMs === undefined ? undefined : new LRUCache<string, Verification>({ max: remembered, ttl: cacheMs, perf })
  const missing =
    cacheMs === undefined ? undefined : new LRUCache<string, true>({ max: remembered, ttl: cacheMs, perf })

  function conclude(answer: unknown): Verification {
    if (answer == null) return notKnown
    const identity = identityOf('key', answer, presumed, "apiKey's `lookup`")
    return Object.freeze({ outcome: 'verified', identity: Object.freeze(identity) })
  }

  function remember(name: string, verification: Verification): Verification {
    if (verification === notKnown) missing?.set(name, true)
    else found?.set(name, verification)
    return verification
  }

  return function find(key, req, attempts) {
    const name = hash('sha256', key, 'base64')
    return found?.get(name) ?? attempts.check(`api-key ${name}`, () => look(key, name, req))
  }

  function look(key: string, name: string, req: Request): Verification | Promise<Verification> {
    const joined = underWay.get(name)
    if (joined !== undefined) return joined
    if (missing?.has(name)) return notKnown

    let answer: ReturnType<typeof lookup>
    try {
      answer = lookup(key, req)
      if (!isThenable(answer)) return remember(name, conclude(answer))
    } catch (error) {
      return unavailable(error)
    }
    const verification: Promise<Verification> = Promise.resolve(answer)
      .then((subject) => {
        const current = underWay.peek(name) === verification
        if (current) underWay.delete(name)
        const concluded = conclude(subject)
        // An answer that took so long that the key was asked for again must not replace the newer one.
        return current ? remember(name, concluded) : concluded
      })
      .catch((error: unknown) => {
        if (underWay.peek(name) === verification) underWay.delete(name)
        return unavailable(error)
      })
    underWay.set(name, verification)
    return verification
  }
}

function unavailable(error: unknown): Verification {
  const cause =
    error instanceof RampmeterError
      ? error
      : new RampmeterError(
          'RAMPMETER_LOOKUP_FAILED',
          "apiKey's `lookup` threw; whoever showed a key was answered 503. Return null for a key that does not exist",
          { cause: error },
        )
  return { outcome: 'unavailable', reason: 'API keys cannot be looked up now', cause }
}
