import { LRUCache } from 'lru-cache'
import { DirectoryFailure, type Answer } from './fetch-directory.ts'
import { freshnessOf, retryAfterOf } from './freshness.ts'
import { readKeySet, type DirectoryKey, type KeySet } from './keys.ts'

/**
 * What a directory says of a key.
 *
 * - `found`: this is it.
 * - `missing`: the directory was asked lately, and does not have it.
 * - `unavailable`: it cannot be told.
 */
export type Finding =
  | { readonly outcome: 'found'; readonly key: DirectoryKey }
  | { readonly outcome: 'missing' }
  | { readonly outcome: 'unavailable'; readonly reason: string }

/** Finds a key of a directory by its thumbprint. `payer` is the address whose request causes a fetch, if one is needed. */
export type FindKey = (url: string, thumbprint: string, payer: string) => Promise<Finding>

interface Copy {
  readonly keys: KeySet
  readonly fetchedAt: number
  readonly freshUntil: number
}

interface Failure {
  readonly reason: string
  readonly until: number
  readonly times: number
}

export interface DirectoriesOptions {
  /** Throws {@link DirectoryFailure}. */
  readonly fetchDirectory: (url: string) => Promise<Answer>
  readonly mayFetch: (payer: string) => boolean
  readonly now: () => number
}

const mostKeys = 100
const mostDirectories = 1000
/** All copies of one kind together, as counted by their keys: about 4 MB. */
const mostKeptKeys = 5000
const fetchesAtOnce = 16

/** A key that is not in a copy is asked for again after that, whoever makes keys up. */
const cooldownMs = 30_000
/** A copy whose directory fails serves on for that long after it went stale. */
const staleMs = 24 * 3_600_000
const firstFailureMs = 10_000
const longestFailureMs = 5 * 60_000

/**
 * Makes what keeps directories: each is fetched by one request at a time, kept for as long as it says within bounds, and after a
 * failure left alone for ten seconds, and twice as long after each further one, up to five minutes.
 *
 * An answer replaces what was kept, also where a key is gone from it. A failure replaces nothing.
 */
export function createDirectories({ fetchDirectory, mayFetch, now }: DirectoriesOptions): FindKey {
  const copies = new LRUCache<string, Copy>({
    max: mostDirectories,
    maxSize: mostKeptKeys,
    sizeCalculation: ({ keys }) => keys.size + 1,
  })
  // Apart, so that directories that fail drive out none that answered.
  const failures = new LRUCache<string, Failure>({ max: mostDirectories })
  const underWay = new Map<string, Promise<KeySet | Failure>>()

  function fetchOnce(url: string): Promise<KeySet | Failure> {
    const fetching = refresh(url).finally(() => underWay.delete(url))
    underWay.set(url, fetching)
    return fetching
  }

  async function refresh(url: string): Promise<KeySet | Failure> {
    try {
      const { json, field } = await fetchDirectory(url)
      const keys = keysOf(json)
      const fetchedAt = now()
      copies.set(url, { keys, fetchedAt, freshUntil: fetchedAt + freshnessOf(field, fetchedAt) })
      failures.delete(url)
      return keys
    } catch (error) {
      const { message: reason, field } =
        error instanceof DirectoryFailure ? error : new DirectoryFailure('it cannot be read')
      const times = (failures.get(url)?.times ?? 0) + 1
      const asked = field === undefined ? 0 : retryAfterOf(field, now())
      const pause = Math.min(longestFailureMs, Math.max(asked, firstFailureMs * 2 ** Math.min(times - 1, 10)))
      const failure = { reason, until: now() + pause, times }
      failures.set(url, failure)
      return failure
    }
  }

  /** What can be said without an answer: what is kept still holds for a time. */
  function withoutAnswer(url: string, thumbprint: string, reason: string): Finding {
    const copy = copies.get(url)
    const isUsable = copy !== undefined && now() < copy.freshUntil + staleMs
    const finding = isUsable ? findIn(copy.keys, thumbprint, now()) : missing
    return finding.outcome === 'found' ? finding : { outcome: 'unavailable', reason }
  }

  return async function findKey(url, thumbprint, payer) {
    const copy = copies.get(url)
    if (copy !== undefined && now() < copy.freshUntil) {
      const finding = findIn(copy.keys, thumbprint, now())
      if (finding.outcome === 'found' || now() - copy.fetchedAt < cooldownMs) return finding
    }
    const failed = failures.get(url)
    if (failed !== undefined && now() < failed.until) return withoutAnswer(url, thumbprint, failed.reason)

    let fetching = underWay.get(url)
    if (fetching === undefined) {
      if (underWay.size >= fetchesAtOnce)
        return withoutAnswer(url, thumbprint, 'too many directories are being fetched')
      if (!mayFetch(payer)) return withoutAnswer(url, thumbprint, 'its sender has caused too many fetches lately')
      fetching = fetchOnce(url)
    }
    const answer = await fetching
    return 'reason' in answer ? withoutAnswer(url, thumbprint, answer.reason) : findIn(answer, thumbprint, now())
  }
}

function keysOf(json: unknown): KeySet {
  const entries: unknown = (json as { keys?: unknown } | null)?.keys
  if (!Array.isArray(entries)) throw new DirectoryFailure('it is not a JSON Web Key Set')
  if (entries.length > mostKeys) throw new DirectoryFailure(`it has more than ${mostKeys} keys`)
  return readKeySet(entries)
}

const missing: Finding = { outcome: 'missing' }

/** What a set of keys says of one. */
export function findIn(keys: KeySet, thumbprint: string, now: number): Finding {
  const key = keys.get(thumbprint)
  const isInUse = key !== undefined && key.notBefore <= now && now < key.expires
  return isInUse ? { outcome: 'found', key } : missing
}

const minuteMs = 60_000
const rememberedAddresses = 10_000

/** Makes what allows each address so many of something in any minute. */
export function createBudget(aMinute: number, now: () => number): (address: string) => boolean {
  const spent = new LRUCache<string, readonly number[]>({ max: rememberedAddresses })

  return function spend(address) {
    const since = now() - minuteMs
    const lately = (spent.get(address) ?? []).filter((at) => at > since)
    if (lately.length >= aMinute) return false
    spent.set(address, [...lately, now()])
    return true
  }
}
