// What a call to fetch asks for, read without changing it: what is sent is what was given, unless something has to be added.

/** A call, as it will be sent and perhaps sent again. */
export interface Call {
  readonly input: string | URL | Request
  readonly init: RequestInit | undefined
  readonly url: URL
  readonly method: string
  readonly headers: Headers
  readonly signal: AbortSignal | undefined
  readonly redirect: RequestInit['redirect']
  /** Whether its body is still there after it was sent. */
  readonly replayable: boolean
}

/** Reads a call; null where it is not one for an HTTP server, or not a valid one: fetch itself then says so. */
export function readCall(input: string | URL | Request, init: RequestInit | undefined): Call | null {
  const request = isRequest(input) ? input : undefined
  const url = urlOf(isRequest(input) ? input.url : input)
  if (url === null || !/^https?:$/.test(url.protocol)) return null
  let headers: Headers
  try {
    headers = new Headers(init?.headers ?? request?.headers)
  } catch {
    return null
  }
  return {
    input,
    init,
    url,
    method: upperCase(init?.method ?? request?.method ?? 'GET'),
    headers,
    signal: init?.signal === null ? undefined : (init?.signal ?? request?.signal),
    redirect: init?.redirect ?? request?.redirect ?? 'follow',
    replayable: !isStream(init?.body),
  }
}

/** By its shape: a `fetch` of another library has a `Request` of its own. */
function isRequest(input: unknown): input is Request {
  return typeof input === 'object' && input !== null && 'url' in input && 'clone' in input
}

/** The caller's Request where its own body is what is sent, which can be read once only; else null. */
export function bodyHolder({ input, init }: Call): Request | null {
  return isRequest(input) && input.body !== null && (init?.body === undefined || init.body === null) ? input : null
}

/**
 * Where a request counts, for guessing which limits apply to the next: the path with what looks like an id left out. HEAD
 * counts as GET.
 */
export function routeOf({ url, method }: Call): string {
  const path = url.pathname
    .split('/')
    .slice(0, 12)
    .map((segment) => (isId(segment) ? '*' : segment))
    .join('/')
  return `${method === 'HEAD' ? 'GET' : method} ${path.slice(0, 256)}`
}

function isId(segment: string): boolean {
  return /^\d+$/.test(segment) || segment.length >= 24 || (segment.length >= 8 && /\d/.test(segment))
}

/** The fields that say who is asking, in the order of the web's habits. */
const credentialFields = ['authorization', 'x-api-key', 'api-key', 'x-goog-api-key', 'cookie']
const seed = Math.trunc(Math.random() * 2 ** 32)

/**
 * Tells callers with different credentials apart, without keeping any: two that share a fingerprint by chance only share a
 * schedule.
 */
export function callerOf({ headers }: Call): string {
  let first = seed
  let second = seed ^ 0x9e3779b9
  for (const name of credentialFields) {
    const value = headers.get(name)
    if (value === null) continue
    for (const character of `${name}:${value}\n`) {
      const code = character.codePointAt(0)!
      first = Math.imul(first ^ code, 0x01000193)
      second = Math.imul(second ^ code, 0x85ebca6b)
      second ^= second >>> 13
    }
  }
  return `${(first >>> 0).toString(36)}.${(second >>> 0).toString(36)}`
}

function urlOf(address: string | URL): URL | null {
  // A page's relative addresses; elsewhere there is nothing to be relative to.
  const { location } = globalThis as { location?: { href: string } }
  try {
    return new URL(address, location?.href)
  } catch {
    return null
  }
}

/** As fetch does, which leaves `patch` as it is. */
function upperCase(method: string): string {
  return /^(delete|get|head|options|post|put)$/i.test(method) ? method.toUpperCase() : method
}

/** A body that is gone once it was sent. */
function isStream(body: unknown): boolean {
  return typeof body === 'object' && body !== null && ('getReader' in body || Symbol.asyncIterator in body)
}
