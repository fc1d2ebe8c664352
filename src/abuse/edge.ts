import { RampmeterError } from '../errors.ts'
import type { CaseKind, Standings } from '../standing.ts'
import { noAddress } from './client-id.ts'

/**
 * An entry of a list of addresses as Cloudflare's API takes it. Such lists hold no single IPv6 addresses, only ranges of /64 or wider;
 * what is narrower is left out.
 *
 * @see {@link https://developers.cloudflare.com/waf/tools/lists/custom-lists/}
 */
export interface CloudflareItem {
  readonly ip: string
  readonly comment: string
}

/**
 * A batch of changes to an ACL as Fastly's API takes it: `PATCH /service/<id>/acl/<id>/entries`.
 *
 * @see {@link https://www.fastly.com/documentation/reference/api/acls/acl-entry/}
 */
export interface FastlyBatch {
  readonly entries: readonly {
    readonly op: 'create'
    readonly ip: string
    readonly subnet: number
    readonly comment: string
  }[]
}

/** Whom the edge may turn away, and until when (ms since 1970). */
export interface EdgeEntry {
  readonly clientId: string
  readonly state: string
  readonly expires: number
  readonly addresses: readonly string[]
  readonly ja4s: readonly string[]
  /** SHA-256, in hex, of the credential field as it was sent. */
  readonly credentials: readonly string[]
}

/** Exports who is denied or suspended, for the edge to turn away. */
export interface Edge {
  export(options: { format: 'cloudflare' }): Promise<CloudflareItem[]>
  export(options: { format: 'fastly' }): Promise<FastlyBatch[]>
  export(options: { format: 'json' }): Promise<EdgeEntry[]>
}

/** What is kept of a client that the edge may turn away, and of how it comes. */
interface EdgeCase {
  readonly clientId: string
  readonly state: string
  readonly until?: number
  readonly addresses?: readonly string[]
  readonly ja4s?: readonly string[]
  readonly credentials?: readonly string[]
}

/** As many as Fastly takes at once. */
const batchSize = 1000
/** An entry that nobody ends is made anew with each export; it lasts so long, in ms. */
const lastsMs = 24 * 3_600_000
/** So many names are looked up at a time. */
const atOnce = 200

/** @param hash what those who use something well are known by */
export function createEdge(standings: () => Standings, hash: (text: string) => number): Edge {
  async function casesOf(kind: CaseKind): Promise<EdgeCase[]> {
    return (await standings().cases(kind)).map((text) => JSON.parse(text) as EdgeCase)
  }

  async function entries(): Promise<EdgeEntry[]> {
    const now = await standings().now()
    const [suspended, denied, marks] = await Promise.all([casesOf('suspended'), casesOf('denied'), casesOf('marks')])
    const marksOf = new Map(marks.map((one) => [one.clientId, one]))
    const meant = new Map([...denied, ...suspended].map((one) => [one.clientId, one]))
    const found = [...meant.values()].map((one): EdgeEntry => {
      const { clientId, state, until } = one
      const seen = marksOf.get(clientId)
      const both = (what: 'addresses' | 'ja4s' | 'credentials'): string[] => [
        ...new Set([...(one[what] ?? []), ...(seen?.[what] ?? [])]),
      ]
      return {
        clientId,
        state,
        expires: Math.min(until ?? Infinity, now + lastsMs),
        addresses: clientId.startsWith('ip:') ? [...new Set([clientId, ...both('addresses')])] : both('addresses'),
        ja4s: both('ja4s'),
        credentials: both('credentials'),
      }
    })
    // Nobody vouches who is meant.
    const ignored = new Set(Array.from(meant.keys(), (id) => String(hash(id))))
    const used = await usedOf(found, ignored)
    return found.map((entry) => ({
      ...entry,
      addresses: entry.addresses
        .filter((name) => name !== noAddress && !used.has(goodName('address', name)))
        .map((name) => name.replace(/^ip:/, '')),
      ja4s: entry.ja4s.filter((name) => !used.has(goodName('ja4', name))),
    }))
  }

  /** The addresses and fingerprints that somebody else in good standing used lately. */
  async function usedOf(found: readonly EdgeEntry[], ignored: ReadonlySet<string>): Promise<Set<string>> {
    const names = new Set<string>()
    for (const { addresses, ja4s } of found) {
      for (const name of addresses) names.add(goodName('address', name))
      for (const name of ja4s) names.add(goodName('ja4', name))
    }
    const all = [...names]
    const used = new Set<string>()
    for (let from = 0; from < all.length; from += atOnce) {
      const some = all.slice(from, from + atOnce)
      const vouchers = await Promise.all(some.map((name) => standings().vouchers(name)))
      some.forEach((name, index) => {
        if (vouchers[index]!.some((who) => !ignored.has(who))) used.add(name)
      })
    }
    return used
  }

  async function exportAs(options: { format: 'cloudflare' | 'fastly' | 'json' }): Promise<unknown> {
    const format = options?.format
    if (format === 'json') return await entries()
    if (format !== 'cloudflare' && format !== 'fastly') {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        "edge.export: `format` is not known; write 'cloudflare', 'fastly' or 'json'",
      )
    }
    const addresses = new Map<string, EdgeEntry>()
    for (const entry of await entries()) for (const address of entry.addresses) addresses.set(address, entry)
    const comment = ({ state, expires }: EdgeEntry): string =>
      `rampmeter: ${state} until ${new Date(expires).toISOString()}`
    if (format === 'cloudflare') {
      return [...addresses]
        .filter(([address]) => !address.includes(':') || Number(address.split('/')[1] ?? 128) <= 64)
        .map(([address, entry]) => ({ ip: address, comment: comment(entry) }))
    }
    const all = [...addresses].map(([address, entry]) => {
      const [ip, subnet] = address.split('/') as [string, string | undefined]
      return {
        op: 'create',
        ip,
        subnet: subnet === undefined ? (ip.includes(':') ? 128 : 32) : Number(subnet),
        comment: comment(entry),
      }
    })
    return Array.from({ length: Math.ceil(all.length / batchSize) }, (_, index) => ({
      entries: all.slice(index * batchSize, (index + 1) * batchSize),
    }))
  }

  return { export: exportAs } as Edge
}

export function goodName(kind: string, name: string): string {
  return `${kind} ${name}`
}
