import { METHODS } from 'node:http'
import type { Request } from 'express'
import { match, type MatchFunction } from 'path-to-regexp'
import { RampmeterError } from './errors.ts'

/** The parameters of a path that matched, as Express would put them on `req.params`. */
type PathParams = Record<string, string | string[] | undefined>

/** An entry of the `routes` table that a request matched. */
export interface RouteMatch<T> {
  readonly value: T
  readonly params: PathParams
}

interface Entry<T> {
  /** Undefined for a path of every method. */
  readonly method: string | undefined
  readonly matches: MatchFunction<PathParams>
  readonly value: T
}

/**
 * Makes what finds the entry for a request, by the path syntax and the rules that Express 5 has by default: case-insensitive, an
 * optional slash at the end, relative to where the limiter is mounted. `GET` covers `HEAD`, and the first match counts.
 *
 * @param otherwise what counts for a request that matches none
 * @throws {RampmeterError} `RAMPMETER_INVALID_ROUTE`
 */
export function createRouteTable<T>(
  routes: Readonly<Record<string, T>>,
  otherwise: T,
): (req: Request) => RouteMatch<T> {
  const entries = Object.entries(routes).map(([key, value]) => readEntry(key, value))
  const unmatched: RouteMatch<T> = { value: otherwise, params: {} }
  if (entries.length === 0) return () => unmatched

  return function find(req) {
    const { path } = req
    for (const { method, matches, value } of entries) {
      if (method !== undefined && method !== req.method && !(method === 'GET' && req.method === 'HEAD')) continue
      const found = matches(path)
      if (found !== false) return { value, params: found.params }
    }
    return unmatched
  }
}

function readEntry<T>(key: string, value: T): Entry<T> {
  const [, method, path] = /^(?:([A-Za-z-]+) +)?(\/.*)$/s.exec(key) ?? []
  if (path === undefined) throw invalid(key, 'write a method and a path, such as "POST /search/:id", or a path')
  if (method !== undefined && !METHODS.includes(method.toUpperCase())) {
    throw invalid(key, `${method} is not an HTTP method that Node knows`)
  }
  try {
    const matches = match<PathParams>(withoutSlashesAtEnd(path), { decode: decodeOrKeep })
    return { method: method?.toUpperCase(), matches, value }
  } catch (cause) {
    throw invalid(key, `its path does not parse: ${(cause as Error).message}`, cause)
  }
}

/** For Express a slash at the end of a route's own path is optional too, and several are one; left as they are, `/login/` would miss `/login`. */
function withoutSlashesAtEnd(path: string): string {
  return path === '/' ? path : path.replace(/\/+$/, '')
}

/** A path that is not well encoded is Express's to refuse; the limiter counts it. */
function decodeOrKeep(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}

function invalid(key: string, mend: string, cause?: unknown): RampmeterError {
  return new RampmeterError('RAMPMETER_INVALID_ROUTE', `routes[${JSON.stringify(key)}]: ${mend}`, { cause })
}
