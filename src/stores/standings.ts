import {
  judge,
  newConduct,
  observe,
  rememberedUntil,
  type Conduct,
  type Rulings,
  type Standing,
  type StandingState,
} from '../policies/standing.ts'
import type { CaseKind, ConductRules, Observation, Observed, RulingChange, Standings } from '../standing.ts'

/** Incidents that are kept, and for how long in ms: 30 days. */
export const mostIncidents = 10_000
export const longestIncidentMs: number = 30 * 24 * 3_600_000
/** Of one client. */
export const mostAuditLines = 1000
/** Of one name. */
export const mostVouchers = 32
/** What was reported is known by its id for so long, in ms, and of one client so many. */
export const reportsLastMs: number = 30 * 24 * 3_600_000
export const mostReports = 1000

interface Entry {
  standing: Standing | undefined
  conduct: Conduct | undefined
  marked: Set<number>
  readonly fields: Map<string, string>
  rulings: Rulings | undefined
  until: number
}

/** Standings in this process. What people decided is never forgotten; scores are bounded, and those noted longest ago go first. */
export class MemoryStandings implements Standings {
  readonly #now: () => number
  readonly #max: number
  /** The one noted longest ago first. */
  readonly #entries = new Map<string, Entry>()
  /** Those of whom people decided something: they stand in nobody's way. */
  readonly #decided = new Map<string, Entry>()
  readonly #trails = new Map<string, string[]>()
  #incidents: { readonly atMs: number; readonly text: string }[] = []
  readonly #cases = new Map<CaseKind, Map<string, { readonly text: string; readonly until: number }>>()
  /** By which ids things were reported of a client, and until when that is known, in µs. */
  readonly #reports = new Map<string, Map<string, number>>()
  /** Who uses what well, and until when that counts, in µs. */
  readonly #vouchers = new Map<string, Map<string, number>>()

  /** @param now in µs */
  constructor(now: () => number, max: number) {
    this.#now = now
    this.#max = max
  }

  open(partition: string): StandingState {
    const entry = this.#known(partition)
    if (entry === undefined || entry.until <= this.#now()) return { rulings: undefined, standing: undefined }
    return { rulings: entry.rulings, standing: entry.standing }
  }

  async observe(observations: readonly Observation[], rules: ConductRules): Promise<Observed[]> {
    const now = this.#now()
    return observations.map(({ partition, ladder, events, once }) => {
      const entry = this.#entryOf(partition, now)
      const conduct = (entry.conduct ??= newConduct(rules.signals.length))
      const touched = new Set<number>()
      const marks = {
        mark(target: number): boolean {
          const { size } = entry.marked
          return entry.marked.add(target).size > size
        },
        clear: () => entry.marked.clear(),
      }
      const isNew = once === undefined || this.#isFirst(partition, once, now)
      if (isNew) for (const event of events) observe(conduct, marks, event, rules, now, touched)
      const { standing, observed } = judge(conduct, entry.standing, rules, ladder, now, touched)
      entry.standing = standing
      entry.until = Math.max(entry.until, rememberedUntil(conduct, rules, now))
      return observed
    })
  }

  async rule(partition: string, { set, take, audit }: RulingChange): Promise<Readonly<Record<string, string>>> {
    const now = this.#now()
    const changes = Object.keys(set).length > 0 || take.length > 0
    if (audit !== '') {
      const trail = this.#trails.get(partition) ?? []
      trail.push(audit)
      if (trail.length > mostAuditLines) trail.shift()
      this.#trails.set(partition, trail)
    }
    if (!changes) {
      const found = this.#known(partition)
      return Object.fromEntries(found === undefined || found.until <= now ? [] : found.fields)
    }
    const entry = this.#entryOf(partition, now)
    for (const [field, value] of Object.entries(set)) entry.fields.set(field, value)
    for (const field of take) {
      entry.fields.delete(field)
      if (field === 'b') entry.standing = undefined
      if (field === 'v') {
        entry.conduct = undefined
        entry.marked.clear()
      }
    }
    if (entry.fields.size === 0 && entry.standing === undefined && entry.conduct === undefined) {
      // As a hash in Redis is gone with its last field: what comes of the client later is not remembered for longer.
      this.#forget(partition)
      return {}
    }
    this.#keep(partition, entry)
    entry.rulings = rulingsOf(entry.fields)
    const until = meansSomethingUntil(entry.rulings, now)
    entry.until = until === Infinity || entry.until === Infinity ? until : Math.max(entry.until, until)
    return Object.fromEntries(entry.fields)
  }

  async trail(partition: string): Promise<string[]> {
    return [...(this.#trails.get(partition) ?? [])]
  }

  async addIncident(text: string): Promise<void> {
    const atMs = this.#now() / 1000
    this.#incidents.push({ atMs, text })
    if (this.#incidents.length > mostIncidents) this.#incidents.shift()
  }

  async incidents(sinceMs: number, most: number): Promise<string[]> {
    const oldest = Math.max(sinceMs, this.#now() / 1000 - longestIncidentMs)
    return this.#incidents
      .filter(({ atMs }) => atMs >= oldest)
      .map(({ text }) => text)
      .reverse()
      .slice(0, most)
  }

  async putCase(kind: CaseKind, name: string, text: string, most: number, lastsMs: number): Promise<boolean> {
    const cases = this.#casesOf(kind)
    if (!cases.has(name) && cases.size >= most) return false
    cases.set(name, { text, until: lastsMs === 0 ? Infinity : this.#now() + lastsMs * 1000 })
    return true
  }

  async takeCase(kind: CaseKind, name: string): Promise<void> {
    this.#cases.get(kind)?.delete(name)
  }

  async cases(kind: CaseKind): Promise<string[]> {
    return Array.from(this.#casesOf(kind).values(), ({ text }) => text)
  }

  async vouch(name: string, who: string, lastsMs: number): Promise<void> {
    const vouchers = this.#vouchers.get(name) ?? new Map<string, number>()
    this.#vouchers.delete(name)
    this.#vouchers.set(name, vouchers)
    vouchers.delete(who)
    vouchers.set(who, this.#now() + lastsMs * 1000)
    if (vouchers.size > mostVouchers) vouchers.delete(vouchers.keys().next().value!)
    if (this.#vouchers.size > this.#max) this.#vouchers.delete(this.#vouchers.keys().next().value!)
  }

  async vouchers(name: string): Promise<string[]> {
    const now = this.#now()
    return [...(this.#vouchers.get(name) ?? [])].filter(([, until]) => until > now).map(([who]) => who)
  }

  async now(): Promise<number> {
    return Math.floor(this.#now() / 1000)
  }

  clear(): void {
    this.#entries.clear()
    this.#decided.clear()
    this.#trails.clear()
    this.#incidents = []
    this.#cases.clear()
    this.#reports.clear()
    this.#vouchers.clear()
  }

  #isFirst(partition: string, once: string, now: number): boolean {
    const known = this.#reports.get(partition) ?? new Map<string, number>()
    this.#reports.delete(partition)
    this.#reports.set(partition, known)
    if (this.#reports.size > this.#max) this.#reports.delete(this.#reports.keys().next().value!)
    for (const [id, until] of known) if (until <= now) known.delete(id)
    if (known.has(once)) return false
    known.set(once, now + reportsLastMs * 1000)
    if (known.size > mostReports) known.delete(known.keys().next().value!)
    return true
  }

  /** Those that are not over. */
  #casesOf(kind: CaseKind): Map<string, { readonly text: string; readonly until: number }> {
    const cases = this.#cases.get(kind) ?? new Map<string, { text: string; until: number }>()
    this.#cases.set(kind, cases)
    const now = this.#now()
    for (const [name, { until }] of cases) if (until <= now) cases.delete(name)
    return cases
  }

  #entryOf(partition: string, now: number): Entry {
    const found = this.#known(partition)
    // What Redis would have let expire by now.
    const entry = found !== undefined && found.until > now ? found : newEntry()
    this.#keep(partition, entry)
    this.#makeRoom(now)
    return entry
  }

  #known(partition: string): Entry | undefined {
    return this.#entries.get(partition) ?? this.#decided.get(partition)
  }

  #keep(partition: string, entry: Entry): void {
    this.#forget(partition)
    const entries = entry.fields.size > 0 ? this.#decided : this.#entries
    entries.set(partition, entry)
  }

  #forget(partition: string): void {
    this.#entries.delete(partition)
    this.#decided.delete(partition)
  }

  /** Drops a few that are over, and one more where it is too full. */
  #makeRoom(now: number): void {
    let looked = 0
    for (const [partition, { until }] of this.#entries) {
      looked += 1
      const isOver = until <= now && looked < this.#entries.size
      if (isOver || this.#entries.size > this.#max) this.#entries.delete(partition)
      else if (looked > 4) return
    }
  }
}

function newEntry(): Entry {
  return { standing: undefined, conduct: undefined, marked: new Set(), fields: new Map(), rulings: undefined, until: 0 }
}

const dayUs = 24 * 3_600_000_000

/** Until when a client is remembered for what people decided about it; a day at least. */
function meansSomethingUntil(rulings: Rulings | undefined, now: number): number {
  const { suspendedUntil = 0, tier = 0, tierUntil = 0, approved } = rulings ?? {}
  const forGood = suspendedUntil === -1 || (tier !== 0 && tierUntil === 0) || (approved?.size ?? 0) > 0
  return forGood ? Infinity : Math.max(now + dayUs, suspendedUntil, tierUntil)
}

function rulingsOf(fields: ReadonlyMap<string, string>): Rulings | undefined {
  if (fields.size === 0) return undefined
  const numberOf = (field: string): number => Number(fields.get(field) ?? 0)
  const approved = [...fields.keys()].filter((field) => field.startsWith('a:')).map((field) => Number(field.slice(2)))
  return {
    suspendedUntil: numberOf('s'),
    tier: numberOf('t'),
    tierUntil: numberOf('u'),
    approved: new Set(approved),
  }
}
