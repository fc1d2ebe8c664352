import { channel, type Channel } from 'node:diagnostics_channel'
import { RampmeterError, warn } from '../errors.ts'
import {
  incidentLabels,
  signalNames,
  taken,
  type IncidentLabel,
  type Observed,
  type Signal,
  type Standings,
  type Step,
} from '../standing.ts'
import type { CheckClientId } from './client-id.ts'
import { isOfOneAccount, relatedTo, repeatedBy, type RelatedIncident } from './related.ts'
import { stepsOf } from './step-counts.ts'

/** What a client's conduct amounts to, and what says so. Times are ms since 1970, of the store's clock. */
export interface Incident {
  readonly id: string
  readonly label: IncidentLabel
  /** Who; of an address (`ip:…`) also the accounts that were behind it. */
  readonly client: {
    readonly id: string
    readonly tier: string | null
    readonly addresses: readonly string[]
    readonly accounts?: readonly string[]
  }
  readonly firstSeen: number
  readonly lastSeen: number
  /** The step taken; where all of the layer is in shadow, the one that would have been. */
  readonly step: Step
  /** The step that would have been taken, where that is higher and in shadow by itself. */
  readonly shadow?: Step
  /** In points. */
  readonly score: number
  /** By signal: its count, decayed; since when it is above zero; and what it counts. */
  readonly evidence: Readonly<
    Record<string, { readonly count: number; readonly since: number; readonly detail: string }>
  >
  /** What the client should do instead. */
  readonly advice: string
  /**
   * Incidents at about the same time: of the same client with other labels; and with the same label, of an account those of its
   * addresses, of an address those of its accounts.
   */
  readonly related: readonly RelatedIncident[]
  /** Of an address, the incident of the one account that did all of it. Such an incident is not told, and listed only by its own `clientId`. */
  readonly partOf?: string
}

/** Which incidents are listed. */
export interface IncidentFilter {
  /** A Date, or ms since 1970. Default: 30 days ago. */
  since?: Date | number
  label?: IncidentLabel
  clientId?: string
  /** Default 100, at most 1000. */
  limit?: number
}

const filters: ReadonlySet<string> = new Set(['since', 'label', 'clientId', 'limit'] satisfies (keyof IncidentFilter)[])

const incidents: Channel = channel('rampmeter:incident')

/** What a client that does this should do instead. */
const adviceFor: Readonly<Record<IncidentLabel, string>> = {
  'retry-storm':
    'You repeat requests before the time that Retry-After tells. Wait that long before the next attempt, do not retry in parallel, and stop after a few attempts.',
  'quota-exhaustion':
    'You go on asking while your quota is used up, on several endpoints. Keep one schedule for all of them, read RateLimit, and wait until the time it tells.',
  scraping:
    'You fetch many different targets faster than your quota allows and do not wait as told. Pace yourself by RateLimit, or ask for a bulk export.',
  enumeration:
    'You ask for many targets, or show credentials or tickets, that do not exist or are not yours. Use the links, lists and tickets that the API gives instead of guessing.',
  'credential-leakage': 'This credential is used from several places at once. If you do not know them, replace it.',
  'transactional-abuse':
    'Charges of this account fail or are disputed repeatedly. Stop retrying payments and contact support.',
}

/** What is told of a client whose signals say something; undefined where none has a label. */
export function adviceOf(signals: number, watched: readonly Signal[]): string | undefined {
  for (const { name, label } of watched) {
    if (label !== undefined && isIn(signals, name)) return adviceFor[label]
  }
  return undefined
}

export function signalsIn(signals: number): Signal['name'][] {
  return signalNames.filter((name) => isIn(signals, name))
}

function isIn(signals: number, name: Signal['name']): boolean {
  return Math.floor(signals / 2 ** signalNames.indexOf(name)) % 2 === 1
}

/** What is known of a client besides what the store counts. */
export interface Suspect {
  readonly id: string
  readonly tier: string | null
  readonly addresses: readonly string[]
  readonly accounts: readonly string[]
  /** Of an address: some of it was done without a credential, or with a wrong one. */
  readonly itself: boolean
  /** What the app said of it last, by signal. */
  readonly details: ReadonlyMap<string, string>
}

export interface IncidentsOptions {
  readonly standings: () => Standings
  readonly checkId: CheckClientId
  readonly watched: readonly Signal[]
  readonly onIncident: ((incident: Incident) => void) | undefined
  readonly hash: (text: string) => number
  /** After so long without anything new an incident has ended, in ms. */
  readonly quietMs: number
}

/** So many of the latest entries are looked through for incidents that tell of the same. */
const mostLookedAt = 256

/** An incident as it is kept. */
interface Kept extends Incident {
  /** Of an address behind which one account is alone, before the account's own has begun: not told yet. */
  readonly held?: true
}

/** What a client's conduct has come to, as it waits to be told of. */
interface Due {
  readonly suspect: Suspect
  readonly observed: Observed
  readonly idle: number
}

/** Makes incidents of what the store says of clients, tells of them once, and keeps them. */
export class Incidents {
  readonly #options: IncidentsOptions
  #due: Due[] = []
  #taken: Promise<void> = Promise.resolve()
  #hasWarned = false

  constructor(options: IncidentsOptions) {
    this.#options = options
  }

  /** Takes in what has come of a client. One after the other, so that what tells of the same is known. */
  take(suspect: Suspect, observed: Observed, idle: number): Promise<void> {
    this.#due.push({ suspect, observed, idle })
    this.#taken = this.#due.length > 1 ? this.#taken : this.#taken.catch(() => {}).then(() => this.#takeAll())
    return this.#taken
  }

  async #takeAll(): Promise<void> {
    const due = this.#due
    this.#due = []
    const known = await this.#latest(mostLookedAt).catch(() => new Map<string, Kept>())
    const texts: string[] = []
    for (const { suspect, observed, idle } of due) {
      incidentLabels.forEach((label, place) => {
        if (!hasBit(observed.changed, place)) return
        const alone = this.#incidentOf(label, place, suspect, observed, idle)
        const related = relatedTo(alone, known.values(), this.#options.quietMs)
        const partOf = repeatedBy(suspect, related)?.id
        const incident: Incident = { ...alone, related, ...(partOf !== undefined && { partOf }) }
        const before = known.get(incident.id)
        const began = hasBit(observed.began, place)
        // An account that asked for more than its address did reaches a threshold a little later: its own is the one to tell.
        const isHeld = began && partOf === undefined && isOfOneAccount(suspect)
        const wasUntold = before?.partOf !== undefined || before?.held === true
        if (partOf === undefined && !isHeld && (began || wasUntold)) this.#tell(incident)
        const kept: Kept = isHeld ? { ...incident, held: true } : incident
        known.set(incident.id, kept)
        texts.push(JSON.stringify(kept))
      })
    }
    await Promise.all(texts.map((text) => this.#options.standings().addIncident(text)))
  }

  /** The latest state of each incident that the latest entries tell of, the newest first. */
  async #latest(most: number, sinceMs = 0): Promise<Map<string, Kept>> {
    const found = new Map<string, Kept>()
    for (const text of await this.#options.standings().incidents(sinceMs, most)) {
      const incident = JSON.parse(text) as Kept
      if (!found.has(incident.id)) found.set(incident.id, incident)
    }
    return found
  }

  /** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_CLIENT` */
  async list(filter: IncidentFilter = {}): Promise<Incident[]> {
    const misspelt = Object.keys(filter ?? {}).find((key) => !filters.has(key))
    if (misspelt !== undefined) {
      throw new RampmeterError(
        'RAMPMETER_UNKNOWN_OPTION',
        `incidents.list: unknown filter \`${misspelt}\`; there are ${[...filters].join(', ')}`,
      )
    }
    const { since = 0, label, clientId, limit = 100 } = filter ?? {}
    if (clientId !== undefined) this.#options.checkId(clientId, 'incidents.list')
    const sinceMs = since instanceof Date ? since.getTime() : since
    const isWrong =
      !Number.isFinite(sinceMs) ||
      !Number.isInteger(limit) ||
      limit < 1 ||
      limit > 1000 ||
      (label !== undefined && !incidentLabels.includes(label))
    if (isWrong) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `incidents.list: write since as a Date or ms, limit as a whole number from 1 to 1000, label as one of ${incidentLabels.join(', ')}`,
      )
    }
    const latest = await this.#latest(10_000, sinceMs)
    const meant: Incident[] = []
    for (const { held, ...one } of latest.values()) {
      if (label !== undefined && one.label !== label) continue
      if (clientId !== undefined && one.client.id !== clientId) continue
      const related = relatedTo(one, latest.values(), this.#options.quietMs)
      const ofAccount = held && related.find((other) => other.clientId === one.client.accounts?.[0])
      const partOf = one.partOf ?? ofAccount?.id
      if (clientId === undefined && latest.has(partOf ?? '')) continue
      meant.push({ ...one, related, ...(partOf !== undefined && { partOf }) })
      if (meant.length === limit) break
    }
    return meant
  }

  #incidentOf(label: IncidentLabel, place: number, suspect: Suspect, observed: Observed, idle: number): Incident {
    const evidence: Record<string, Incident['evidence'][string]> = {}
    for (const signal of this.#options.watched) {
      const at = signalNames.indexOf(signal.name)
      const [count, since] = [observed.counts[2 * at]!, observed.counts[2 * at + 1]!]
      if (
        signal.label !== label &&
        !this.#options.watched.some((one) => one.label === label && one.needs === signal.name)
      )
        continue
      if (count > 0)
        evidence[signal.name] = {
          count: count / 1000,
          since: Math.floor(since / 1000),
          detail: suspect.details.get(signal.name) ?? signal.watches,
        }
    }
    const [first, last] = [observed.labels[2 * place]!, observed.labels[2 * place + 1]!]
    const { id, tier, addresses, accounts } = suspect
    return {
      id: `${label}.${this.#options.hash(id).toString(36)}.${Math.floor(first / 1000).toString(36)}`,
      label,
      client: { id, tier, addresses, ...(accounts.length > 0 && { accounts }) },
      firstSeen: Math.floor(first / 1000),
      lastSeen: Math.floor(last / 1000),
      ...stepsOf(observed.step, taken(observed.step, idle)),
      score: observed.score / 1000,
      evidence,
      advice: adviceFor[label],
      related: [],
    }
  }

  #tell(incident: Incident): void {
    incidents.publish(incident)
    const { onIncident } = this.#options
    try {
      const told: unknown = onIncident?.(incident)
      if (told instanceof Promise) told.catch(() => this.#warn('rejected'))
    } catch {
      this.#warn('threw')
    }
  }

  #warn(what: string): void {
    if (this.#hasWarned) return
    this.#hasWarned = true
    warn('RAMPMETER_INCIDENT_HANDLER_FAILED', `abuse: \`onIncident\` ${what}; incidents are kept all the same`)
  }
}

function hasBit(bits: number, place: number): boolean {
  return Math.floor(bits / 2 ** place) % 2 === 1
}
