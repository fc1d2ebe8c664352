import { hash } from 'node:crypto'
import { classAndCodeOf } from '../errors.ts'

/** What is needed to ask an authorization server about tokens. */
export interface IntrospectionSettings {
  readonly endpoint: string
  readonly clientId: string
  readonly clientSecret: string
  /** The longest that an answer may take, in ms, its body included. */
  readonly timeout: number
  readonly fetch: typeof globalThis.fetch
}

/** The claims of a token that is active; null for one that is not. */
export type Introspected = Readonly<Record<string, unknown>> | null

/** The authorization server could not be asked, or gave no answer that can be read. It carries nothing of the token or the answer. */
export class IntrospectionFailed extends Error {
  override readonly name = 'IntrospectionFailed'
  /** What went wrong: `HTTP_401`, `ECONNREFUSED`, `TIMEOUT`, … */
  readonly code: string

  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

/** Answers have hundreds of bytes; one that has more is not read on. */
const longestAnswer = 65_536

/** One failure may be a connection that was closed at the wrong moment; after so many in a row the server is taken for away. */
const toleratedFailures = 3

/** How long it is then left alone: the first time, and at most. */
const firstPauseMs = 1000
const longestPauseMs = 8000

/**
 * Makes what asks an authorization server about a token (RFC 7662 section 2). Requests about the same token at the same time are one.
 *
 * While the server fails it is asked no more than needed: after three failures in a row it is left alone for a second, then one
 * token is asked about, on whose answer the others wait; each time that fails the pause doubles, up to eight seconds.
 *
 * What the returned function throws is {@link IntrospectionFailed}.
 */
export function createIntrospection(settings: IntrospectionSettings): (token: string) => Promise<Introspected> {
  const { endpoint, timeout, fetch } = settings
  const headers = {
    accept: 'application/json',
    authorization: basicAuthorization(settings.clientId, settings.clientSecret),
    'content-type': 'application/x-www-form-urlencoded',
  }
  const underWay = new Map<string, Promise<Introspected>>()
  let failuresInARow = 0
  let pausedUntil = -Infinity
  let probe: Promise<unknown> | undefined

  async function send(token: string): Promise<Introspected> {
    return await withDeadline(timeout, async (signal) => {
      const body = new URLSearchParams({ token, token_type_hint: 'access_token' }).toString()
      const response = await fetch(endpoint, { method: 'POST', headers, body, redirect: 'manual', signal })
      if (response.status !== 200) {
        response.body?.cancel().catch(() => {})
        throw new IntrospectionFailed(
          `HTTP_${response.status}`,
          `the introspection endpoint answered ${response.status}`,
        )
      }
      return readAnswer(await readText(response))
    })
  }

  async function sendAndNote(token: string): Promise<Introspected> {
    try {
      const answer = await send(token)
      failuresInARow = 0
      return answer
    } catch (error) {
      const failure = failureOf(error)
      // That is about this one token, and a stranger may have made it up: it must not shut the others out.
      if (failure.code !== 'HTTP_400') {
        failuresInARow += 1
        const doublings = failuresInARow - toleratedFailures
        pausedUntil = performance.now() + Math.min(longestPauseMs, firstPauseMs * 2 ** doublings)
      }
      throw failure
    }
  }

  async function ask(token: string): Promise<Introspected> {
    if (failuresInARow < toleratedFailures) return await sendAndNote(token)
    if (performance.now() < pausedUntil) throw leftAlone()
    if (probe !== undefined) {
      await probe
      if (failuresInARow >= toleratedFailures) throw leftAlone()
      return await sendAndNote(token)
    }
    const answer = sendAndNote(token)
    probe = answer.catch(() => {}).finally(() => (probe = undefined))
    return await answer
  }

  return function introspect(token) {
    const name = hash('sha256', token, 'base64url')
    const joined = underWay.get(name)
    if (joined !== undefined) return joined
    const answer = ask(token).finally(() => underWay.delete(name))
    underWay.set(name, answer)
    return answer
  }
}

/** RFC 6749 section 2.3.1: both are form-encoded first, so that a colon in one of them is no colon between them. */
function basicAuthorization(clientId: string, clientSecret: string): string {
  const [id, secret] = [clientId, clientSecret].map((text) => new URLSearchParams({ '': text }).toString().slice(1))
  return `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`
}

/** Ends work after a time, also where what was given as `fetch` overlooks the signal. */
async function withDeadline<T>(ms: number, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const abort = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      reject(new IntrospectionFailed('TIMEOUT', `the introspection endpoint did not answer within ${ms} ms`))
      abort.abort()
    }, ms)
  })
  try {
    return await Promise.race([work(abort.signal), deadline])
  } finally {
    clearTimeout(timer)
  }
}

/** Reads a body, decompressed, as far as it is read at all. */
async function readText(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of response.body ?? []) {
    length += chunk.byteLength
    if (length > longestAnswer) {
      throw new IntrospectionFailed('TOO_LONG', `the introspection endpoint answered more than ${longestAnswer} bytes`)
    }
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString()
}

/** RFC 7662 section 2.2. What is there must be of the type that it says there, so that nothing is taken for something else. */
function readAnswer(text: string): Introspected {
  let answer: unknown
  try {
    answer = JSON.parse(text)
  } catch {
    // The error of JSON.parse shows what it met.
    throw malformed('no JSON')
  }
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) throw malformed('no JSON object')
  const claims = answer as Record<string, unknown>
  if (typeof claims['active'] !== 'boolean') throw malformed('no JSON object that says whether the token is active')
  if (!claims['active']) return null
  const wrong = Object.keys(types).find((name) => claims[name] != null && !types[name]!(claims[name]))
  if (wrong !== undefined) throw malformed(`a value of another type than RFC 7662 says in "${wrong}"`)
  return claims
}

const isText = (value: unknown): boolean => typeof value === 'string'
const isTime = (value: unknown): boolean => typeof value === 'number'

const types: Readonly<Record<string, (value: unknown) => boolean>> = {
  client_id: isText,
  username: isText,
  token_type: isText,
  sub: isText,
  iss: isText,
  aud: (value) => isText(value) || (Array.isArray(value) && value.every(isText)),
  exp: isTime,
  iat: isTime,
  nbf: isTime,
}

function malformed(seen: string): IntrospectionFailed {
  return new IntrospectionFailed('MALFORMED', `the introspection endpoint answered with ${seen}`)
}

function leftAlone(): IntrospectionFailed {
  return new IntrospectionFailed('PAUSED', 'the introspection endpoint failed a moment ago and is left alone')
}

/** What `fetch` throws names hosts, and one of the app's own may name more: only the class and code are kept. */
function failureOf(error: unknown): IntrospectionFailed {
  if (error instanceof IntrospectionFailed) return error
  const cause = (error as { cause?: unknown } | null)?.cause ?? error
  const { code } = (cause ?? {}) as { code?: unknown }
  return new IntrospectionFailed(
    typeof code === 'string' ? code : 'FETCH_FAILED',
    `the introspection endpoint could not be asked: ${classAndCodeOf(cause)}`,
  )
}
