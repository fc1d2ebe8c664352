import type { Suspect } from './incidents.ts'
import { Recent } from '../recent.ts'

const mostAddresses = 8
const mostAccounts = 16
const mostMarks = 4
/** Who was behind an address counts for so long, in ms: what was done by then is hardly remembered by its counts. */
const behindForMs = 3_600_000
/** Who did so much of what counts against an address did it: of others behind it, a dead link now and then is nothing. */
const nearlyAll = 0.9
/** In characters. */
const longestDetail = 256

const noDetails: ReadonlyMap<string, string> = new Map()

/** What this process has seen of a client, for incidents and for the edge. */
interface Seen {
  tier: string | null
  /** Of an address: when something was last done without a credential, or with a wrong one. */
  itselfAt: number
  readonly addresses: Set<string>
  /** Of an address: of each account when it last did something that counts against the address, and how much of it lately. */
  readonly accounts: Map<string, { readonly at: number; readonly share: number }>
  readonly ja4s: Set<string>
  readonly credentials: Set<string>
  /** What the app said of it last, by signal. */
  readonly details: Map<string, string>
}

/** Whom incidents are about. Bounded, in this process; what is told of an incident is what its process has seen. */
export class Suspects {
  readonly #seen = new Recent<string, Seen>({ max: 20_000 })
  readonly #clock: { now(): number }

  /** @param clock goes on evenly */
  constructor(clock: { now(): number } = performance) {
    this.#clock = clock
  }

  note(
    id: string,
    facts: {
      tier?: string
      address?: string
      account?: string
      ja4?: string
      credential?: string
      itself?: boolean
    },
  ): void {
    let seen = this.#seen.get(id)
    if (seen === undefined) {
      seen = {
        tier: null,
        itselfAt: -Infinity,
        addresses: new Set(),
        accounts: new Map(),
        ja4s: new Set(),
        credentials: new Set(),
        details: new Map(),
      }
      this.#seen.set(id, seen)
    }
    if (facts.tier !== undefined) seen.tier = facts.tier
    if (facts.itself === true) seen.itselfAt = this.#clock.now()
    put(seen.addresses, facts.address, mostAddresses)
    noteAccount(seen.accounts, facts.account, this.#clock.now())
    put(seen.ja4s, facts.ja4, mostMarks)
    put(seen.credentials, facts.credential, mostMarks)
  }

  suspect(id: string): Suspect {
    const seen = this.#seen.get(id)
    const now = this.#clock.now()
    return {
      id,
      tier: seen?.tier ?? null,
      addresses: addressesOf(id, seen),
      accounts: seen === undefined ? [] : accountsOf(seen.accounts, now),
      itself: (seen?.itselfAt ?? -Infinity) > now - behindForMs,
      details: seen?.details ?? noDetails,
    }
  }

  /** Notes what the app said of a client. */
  detail(id: string, signal: string, text: string): void {
    this.note(id, {})
    this.#seen.get(id)?.details.set(signal, text.slice(0, longestDetail))
  }

  marksOf(id: string): { addresses: string[]; ja4s: string[]; credentials: string[] } {
    const seen = this.#seen.get(id)
    return {
      addresses: addressesOf(id, seen),
      ja4s: [...(seen?.ja4s ?? [])],
      credentials: [...(seen?.credentials ?? [])],
    }
  }
}

/** An address is its own. */
function addressesOf(id: string, seen: Seen | undefined): string[] {
  return [...new Set([...(id.startsWith('ip:') ? [id] : []), ...(seen?.addresses ?? [])])]
}

/** The latest few. */
function put(set: Set<string>, value: string | undefined, most: number): void {
  if (value === undefined) return
  set.delete(value)
  set.add(value)
  if (set.size > most) set.delete(set.values().next().value!)
}

function noteAccount(accounts: Seen['accounts'], account: string | undefined, now: number): void {
  if (account === undefined) return
  const before = accounts.get(account)
  const share = before === undefined ? 0 : before.share * 2 ** ((before.at - now) / behindForMs)
  accounts.delete(account)
  accounts.set(account, { at: now, share: share + 1 })
  if (accounts.size > mostAccounts) accounts.delete(accounts.keys().next().value!)
}

/** Of the accounts behind an address, the one that did nearly all that counts against it; else all of them. */
function accountsOf(accounts: Seen['accounts'], now: number): string[] {
  const lately = [...accounts].filter(([, { at }]) => at > now - behindForMs)
  const shares = lately.map(([, { at, share }]) => share * 2 ** ((at - now) / behindForMs))
  const all = shares.reduce((sum, share) => sum + share, 0)
  const main = shares.findIndex((share) => share >= nearlyAll * all)
  return (main === -1 ? lately : [lately[main]!]).map(([account]) => account)
}
