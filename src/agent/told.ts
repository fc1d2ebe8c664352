// What a response tells of limits, whatever family of fields it uses. All of it is hearsay: what is malformed is ignored.

import { parseHttpDate } from './http-date.ts'
import { parseDictionary, parseList, type BareItem, type Item } from './structured-fields.ts'

/** One limit, as a response tells it. */
export interface ToldLimit {
  /** Its name. Families without names are told apart by their quota, with a `*` in front that no name of theirs would have. */
  readonly name: string
  /** Whose counter it is, where that is told. */
  readonly partition: string | null
  /** What it counts: `requests`, or something a request costs an unknown amount of. */
  readonly unit: string
  readonly quota: number | null
  readonly windowMs: number | null
  /** What is left of it. */
  readonly available: number
  /** How long that has to last; with nothing left, how long to wait. Null where it is not told. */
  readonly effectiveMs: number | null
}

/** The wait that a refusal asks for. */
export interface ToldWait {
  readonly ms: number
  /** Told to the millisecond; else in whole seconds, which a crowd of clients may share. */
  readonly exact: boolean
}

/** Above this many in one field nobody is told anything useful. */
const mostLimits = 32

/** Names are kept; of longer ones the beginning tells enough apart. */
const longestName = 256

/** However many digits a wait has, it is a number that can be reckoned with: longer than anybody waits. */
const longestMs = Number.MAX_SAFE_INTEGER

/** The server's own idea of now where it tells one, else ours: Unix time in ms. */
function timeOf(headers: Headers, wallMs: number): number {
  const date = headers.get('date')
  return (date === null ? null : parseHttpDate(date, wallMs)) ?? wallMs
}

/**
 * Reads the limits that a response tells: the newest family that is well-formed. Where several are sent, they tell the same.
 *
 * - `RateLimit: "name";r=1;t=2` (drafts 8 to 11), with `RateLimit-Policy`
 * - `RateLimit: limit=1, remaining=2, reset=3` (draft 7)
 * - `RateLimit-Limit`, `-Remaining`, `-Reset` (drafts to 6)
 * - `X-RateLimit-Limit`, `-Remaining`, `-Reset`, and the same spelt `X-Rate-Limit-*`
 *
 * @param wallMs Unix time in ms, for fields that tell a moment
 * @see [draft-ietf-httpapi-ratelimit-headers-11 section 7](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/)
 */
export function readLimits(headers: Headers, wallMs: number): readonly ToldLimit[] {
  const field = headers.get('ratelimit')
  const policies = headers.get('ratelimit-policy')
  if (field !== null) {
    const named = readNamed(field, policies)
    if (named !== null) return named
    const combined = readCombined(field, policies)
    if (combined !== null) return [combined]
  }
  const single = readSingle(headers, policies) ?? readLegacy(headers, wallMs)
  return single === null ? [] : [single]
}

/**
 * Reads the wait that a refusal tells: `retry-after-ms`, else `Retry-After` as seconds or as a date.
 *
 * @see [RFC 9110 section 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)
 */
export function readWait(headers: Headers, wallMs: number): ToldWait | null {
  const milliseconds = headers.get('retry-after-ms')
  if (milliseconds !== null && /^\d+(\.\d+)?$/.test(milliseconds)) {
    return { ms: Math.min(Number(milliseconds), longestMs), exact: true }
  }
  const after = headers.get('retry-after')
  if (after === null) return null
  if (/^\d+$/.test(after)) return { ms: Math.min(Number(after) * 1000, longestMs), exact: false }
  const date = parseHttpDate(after, wallMs)
  return date === null ? null : { ms: Math.max(0, date - timeOf(headers, wallMs)), exact: false }
}

interface Policy {
  readonly quota: number
  readonly unit: string
  readonly windowMs: number | null
}

/** A List of Strings with `r` and perhaps `t`. One member that is no such thing spoils the field (RFC 9651 section 2). */
function readNamed(field: string, policyField: string | null): ToldLimit[] | null {
  const members = parseList(field)
  if (members === null || members.length > mostLimits) return null
  const policies = readPolicies(policyField)
  const limits: ToldLimit[] = []
  for (const { bare, parameters } of members) {
    const available = countOf(parameters.get('r'))
    const seconds = optionalCount(parameters.get('t'))
    const partition = parameters.get('pk')
    if (bare.type !== 'string' || available === null || seconds === null) return null
    if (partition !== undefined && partition.type !== 'bytes') return null
    const name = String(bare.value)
    const policy = policies?.get(name)
    limits.push({
      name: name.slice(0, longestName),
      partition: partition === undefined ? null : String(partition.value).slice(0, longestName),
      unit: policy?.unit ?? 'requests',
      quota: policy?.quota ?? null,
      windowMs: policy?.windowMs ?? null,
      available,
      effectiveMs: seconds === undefined ? null : seconds * 1000,
    })
  }
  return limits
}

function readPolicies(field: string | null): Map<string, Policy> | null {
  const members = field === null ? null : parseList(field)
  if (members === null || members.length > mostLimits) return null
  const policies = new Map<string, Policy>()
  for (const { bare, parameters } of members) {
    const quota = countOf(parameters.get('q'))
    const seconds = optionalCount(parameters.get('w'))
    const unit = parameters.get('qu')
    if (bare.type !== 'string' || quota === null || seconds === null || seconds === 0) return null
    if (unit !== undefined && unit.type !== 'string') return null
    policies.set(String(bare.value), {
      quota,
      unit: unit === undefined ? 'requests' : String(unit.value),
      windowMs: seconds === undefined ? null : seconds * 1000,
    })
  }
  return policies
}

function readCombined(field: string, policyField: string | null): ToldLimit | null {
  const members = parseDictionary(field)
  if (members === null) return null
  const quota = optionalCount(members.get('limit')?.bare)
  const available = countOf(members.get('remaining')?.bare)
  const seconds = optionalCount(members.get('reset')?.bare)
  if (quota === null || available === null || seconds === null) return null
  return nameless(quota ?? null, available, seconds === undefined ? null : seconds * 1000, integerPolicies(policyField))
}

function readSingle(headers: Headers, policyField: string | null): ToldLimit | null {
  const available = integerOf(headers.get('ratelimit-remaining'))
  if (available === null) return null
  const reset = headers.get('ratelimit-reset')
  const seconds = reset === null ? undefined : integerOf(reset)
  // Older drafts put the policies behind the quota: `100, 100;w=60`.
  const limits = parseList(headers.get('ratelimit-limit') ?? '')
  if (seconds === null) return null
  const quota = countOf(limits?.[0]?.bare)
  return nameless(quota, available, seconds === undefined ? null : seconds * 1000, [
    ...integerPolicies(policyField),
    ...(limits ?? []).slice(1),
  ])
}

function nameless(
  quota: number | null,
  available: number,
  effectiveMs: number | null,
  policies: readonly Item[],
): ToldLimit {
  const same = policies.find(({ bare }) => bare.type === 'integer' && bare.value === quota)
  const seconds = countOf(same?.parameters.get('w'))
  return {
    name: `*${quota ?? ''}`,
    partition: null,
    unit: 'requests',
    quota,
    windowMs: seconds === null || seconds === 0 ? null : seconds * 1000,
    available,
    effectiveMs,
  }
}

function integerPolicies(field: string | null): Item[] {
  return field === null ? [] : (parseList(field) ?? [])
}

function readLegacy(headers: Headers, wallMs: number): ToldLimit | null {
  for (const prefix of ['x-ratelimit', 'x-rate-limit']) {
    const available = integerOf(headers.get(`${prefix}-remaining`))
    if (available === null) continue
    const quota = integerOf(headers.get(`${prefix}-limit`))
    const resource = headers.get(`${prefix}-resource`)
    return {
      name: resource === null ? `*${quota ?? ''}` : `*${resource.slice(0, longestName)}`,
      partition: null,
      unit: 'requests',
      quota,
      windowMs: null,
      available,
      effectiveMs: readReset(headers.get(`${prefix}-reset`), timeOf(headers, wallMs)),
    }
  }
  return null
}

/** From here on a number is a moment and no span: Unix time in s (2001), or in ms. Shorter ones are seconds from now. */
const momentInSeconds = 1e9
const momentInMs = 1e12

/** What senders mean by a reset is told by its size, since no two agree. */
function readReset(text: string | null, nowMs: number): number | null {
  if (text === null || !/^\d{1,15}(\.\d{1,6})?$/.test(text)) return null
  const number = Number(text)
  if (number < momentInSeconds) return number * 1000
  return Math.max(0, (number < momentInMs ? number * 1000 : number) - nowMs)
}

/** An Integer that is not negative, or null. */
function countOf(bare: BareItem | undefined): number | null {
  return bare?.type === 'integer' && Number(bare.value) >= 0 ? Number(bare.value) : null
}

/** The same of what may be left out: undefined where it is. */
function optionalCount(bare: BareItem | undefined): number | null | undefined {
  return bare === undefined ? undefined : countOf(bare)
}

function integerOf(text: string | null): number | null {
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null
}
