import { createHash } from 'node:crypto'
import type { Request, Response } from 'express'
import * as z from 'zod'
import type { Client } from '../client.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import {
  steps,
  taken,
  type CaseKind,
  type KnownStanding,
  type Ladder,
  type Observed,
  type SignalName,
  type StandingQuery,
  type Standings,
  type Step,
} from '../standing.ts'
import { Challenges } from './challenges.ts'
import type { CheckClientId } from './client-id.ts'
import { goodName } from './edge.ts'
import { createEnvironment, type KnownEnvironment } from './environment.ts'
import {
  eventOf,
  eventOfAddress,
  eventOfReport,
  isMisguided,
  weightOfTicket,
  type ShownTicket,
  type Watched,
} from './facts.ts'
import { adviceOf, Incidents, signalsIn } from './incidents.ts'
import { challengePrice, letInBelow, noLadder, numbersOf, type LadderNumbers } from './ladder.ts'
import { Observer } from './observer.ts'
import type { AbuseSettings } from './options.ts'
import { caseLastsMs, caseName, mostCases, scopeHash } from './review.ts'
import { isOfOneAccount } from './related.ts'
import { Sequences } from './sequences.ts'
import { countStep, noSteps, type StepCounts } from './step-counts.ts'
import { Suspects } from './suspects.ts'
import { Recent } from '../recent.ts'

/** What a decision tells of a client's conduct. */
export interface AbuseStatus {
  /** In points. */
  readonly score: number
  /** The step taken; where all of the layer is in shadow, the one that would have been. */
  readonly step: Step
  /** The step that would have been taken, where that is higher and in shadow by itself. */
  readonly shadow?: Step
  /** The signals that say something. */
  readonly signals: readonly SignalName[]
  /** What the client should do instead, where that is known. */
  readonly advice?: string
}

export interface AbuseDeps {
  /** @throws {RampmeterError} where the store keeps none */
  readonly standings: () => Standings
  readonly hash: (text: string) => number
  /** Which mark a target has: with a secret nobody can tell which of all the ways to write one have the same. */
  readonly markOf: (target: string) => number
  readonly onFailure: (error: unknown) => void
  /** @throws {RampmeterError} `RAMPMETER_INVALID_CLIENT` */
  readonly checkId: CheckClientId
  /** Whether a client that is denied by its score is refused: not in shadow, nor where a credential would do. Default: all are. */
  readonly isTurnedAway?: (clientId: string) => boolean
  /** The fields in which the verifier of that name, or those, are shown credentials. */
  readonly fieldsOf?: (verifier: string) => readonly string[]
  /** The ladder of a tier that has one of its own. */
  readonly ladderOfTier?: (tier: string) => Ladder | undefined
}

/** What may be reported of a client by the app. */
export type ReportedSignal = 'dispute' | 'disputes' | 'failed-charge' | 'failed-charges' | 'failed-login'

const reported: Readonly<Record<ReportedSignal, SignalName>> = {
  dispute: 'disputes',
  disputes: 'disputes',
  'failed-charge': 'failed-charges',
  'failed-charges': 'failed-charges',
  'failed-login': 'failed-proofs',
}

/** What there is to say of a report. */
export interface ReportAbout {
  /**
   * What the report is known by, such as a webhook's event: one that comes again within 30 days is not counted again, in any process.
   * From 1 to 256 characters; of a client the latest 1000 are known.
   */
  readonly id?: string | undefined
  /** What more there is to say, for the incident. */
  readonly detail?: string | undefined
}

const aboutSchema = z.strictObject({ id: z.string().min(1).max(256).optional(), detail: z.string().optional() })

/** What there is to do at a challenge: the longest wait that a step of a score needs, in ms. */
const longestStepMs = 2 * 3_600_000
/** How long an address counts as in good use, and how often that is said, in ms. */
const goodForMs = 24 * 3_600_000
const goodEveryMs = 3_600_000
/** So many who use an address or a fingerprint well are told of within that time. */
const mostGood = 16
/** How a client that is refused comes is noted so often, and known for so long, in ms. */
const marksEveryMs = 600_000
const marksLastMs = 24 * 3_600_000
/** So often it is said that a client is denied still, in ms. */
const deniedEveryMs = 60_000

/** What is asked where nobody is watched: only what people decided. */
const ofPeopleAlone: StandingQuery = {
  enforce: false,
  answered: false,
  scope: 0,
  halfLifeUs: 0,
  share: noLadder.share,
  ladder: noLadder.ladder,
  idle: noLadder.idle,
}

/** Watches what clients do, and says how a decision is to take it. */
export class Abuse {
  readonly incidents: Incidents
  readonly #steps = noSteps()
  readonly #settings: AbuseSettings | undefined
  readonly #deps: AbuseDeps
  readonly #observer: Observer | undefined
  readonly #environment: (req: Request) => KnownEnvironment
  readonly #ladders = new WeakMap<Ladder, LadderNumbers>()
  readonly #suspects = new Suspects()
  readonly #sequences = new Sequences()
  readonly #challenges = new Challenges()
  /** Addresses of accounts that asked for what is not there, lately: of these it also counts what is served. */
  readonly #missing = new Recent<string, true>({ max: 10_000, ttl: 3_600_000 })
  /** Clients that showed tickets that counted for nothing, lately: of these it also counts those that are good. */
  readonly #ticketless = new Recent<string, true>({ max: 10_000, ttl: 3_600_000 })
  /** By address or fingerprint, who uses it well. */
  readonly #good = new Recent<string, Set<string>>({ max: 20_000, ttl: goodEveryMs })
  readonly #marked = new Recent<string, true>({ max: 10_000, ttl: marksEveryMs })
  readonly #denied = new Recent<string, true>({ max: 10_000, ttl: deniedEveryMs })
  readonly #asked = new Recent<string, true>({ max: 10_000, ttl: 3_600_000 })
  readonly #owed = new Set<Promise<void>>()

  constructor(settings: AbuseSettings | undefined, deps: AbuseDeps) {
    this.#settings = settings
    this.#deps = deps
    this.#environment = createEnvironment(settings?.environment)
    this.incidents = new Incidents({
      ...deps,
      quietMs: 6 * (settings?.halfLifeMs ?? 0),
      watched: settings?.watched ?? [],
      onIncident: settings?.onIncident,
    })
    if (settings === undefined) return
    this.#observer = new Observer({
      ...deps,
      rules: settings.rules,
      onObserved: (partition, observed, { idle }) => this.#learn(partition, observed, idle),
    })
  }

  /** Whether anything is watched. */
  get watches(): boolean {
    return this.#settings !== undefined
  }

  /** How many requests met which step; undefined where nothing is watched. */
  get steps(): StepCounts | undefined {
    if (this.#settings === undefined) return undefined
    return { taken: { ...this.#steps.taken }, shadow: { ...this.#steps.shadow } }
  }

  /** What this process has seen of a client, as the edge tells clients apart. */
  marksOf(clientId: string): { addresses: string[]; ja4s: string[]; credentials: string[] } {
    return this.#suspects.marksOf(clientId)
  }

  /** The tier in which this process saw a client last. */
  tierOf(clientId: string): string | undefined {
    return this.#suspects.suspect(clientId).tier ?? undefined
  }

  /** What a decision is to ask of a client's standing. */
  query(ladder: Ladder | undefined, scope: string | undefined, enforce: boolean, answered: boolean): StandingQuery {
    const settings = this.#settings
    if (settings === undefined && scope === undefined) return ofPeopleAlone
    const numbers = settings === undefined ? noLadder : this.#numbersOf(ladder ?? settings.ladder)
    return {
      enforce: enforce && settings?.shadow === false,
      answered,
      scope: scope === undefined ? 0 : scopeHash(scope, this.#deps.hash),
      halfLifeUs: settings?.rules.halfLifeUs ?? 0,
      share: numbers.share,
      ladder: numbers.ladder,
      idle: numbers.idle,
    }
  }

  statusOf(known: KnownStanding | undefined): AbuseStatus | undefined {
    const settings = this.#settings
    if (settings === undefined) return undefined
    if (known === undefined) return { score: 0, step: 'allow', signals: [] }
    const { score, step, shadow, signals, suspended } = known
    const advice = adviceOf(signals, settings.watched)
    return {
      score,
      step: suspended ? 'suspend' : step,
      ...(shadow !== undefined && !suspended && { shadow }),
      signals: signalsIn(signals),
      ...(advice !== undefined && { advice }),
    }
  }

  /**
   * How long, in ms, until a score has decayed so far that its client is let in; rounded up.
   *
   * @param answered it has what a challenge would ask for
   */
  untilLeft(score: number, ladder: Ladder | undefined, answered: boolean): number {
    return this.#untilBelow(score, letInBelow(ladder ?? this.#settings!.ladder, answered))
  }

  /** What a payment costs that answers a challenge, on a route without a price; undefined where none does. */
  answerPrice(ladder: Ladder | undefined): { readonly credits: number } | undefined {
    const used = ladder ?? this.#settings?.ladder
    return used && challengePrice(used)
  }

  /** Counts the step that a decision met. */
  count(abuse: AbuseStatus | undefined, enforced: boolean): void {
    const settings = this.#settings
    if (settings === undefined || abuse === undefined) return
    countStep(this.#steps, abuse, enforced && !settings.shadow)
  }

  #untilBelow(score: number, below: number): number {
    const { halfLifeMs } = this.#settings!
    const halves = below <= 0 ? Infinity : Math.log2(score / below)
    // The decay goes by steps of a 256th of the half-life.
    const ms = Math.ceil(Math.max(0, halves) * halfLifeMs * 1.01) + Math.ceil(halfLifeMs / 64)
    return Math.min(longestStepMs, ms)
  }

  /** Notes what became of a request, when it is answered. */
  note(watched: Omit<Watched, 'environment'>, ladder: Ladder | undefined, known: KnownStanding | undefined): void {
    const settings = this.#settings
    if (settings === undefined || this.#observer === undefined) return
    const { client, req, failedProofs, decision } = watched
    this.count(decision.abuse, decision.enforced)
    const environment = this.#environment(req)
    const stranger = client.provedBy === null
    const event = eventOf(
      { ...watched, environment },
      this.#deps,
      (endpoint) => this.#sequences.isUnusual(client.id, endpoint),
      (tag) => this.#challenges.isIgnored(client.id, tag, watched.nowUs, stranger),
    )
    if (stranger && (isMisguided(event) || failedProofs > 0))
      this.#challenges.offended(client.id, event.tag, watched.nowUs)
    const numbers = this.#numbersOf(ladder ?? settings.ladder)
    const address = client.address ?? undefined
    const isAddress = address === client.id
    const proofs = failedProofs > 0 && isAddress ? eventOfAddress(event, failedProofs).adds : []
    this.#observer.add(client.id, numbers, proofs.length > 0 ? { ...event, adds: [...event.adds, ...proofs] } : event)
    this.#see(req, client, environment)
    if (address !== undefined && (failedProofs > 0 || (isAddress && isMisguided(event))))
      this.#suspects.note(address, { itself: true })
    // A fingerprint is shared by strangers too.
    const isGood = known?.step === 'allow' && !known.suspended
    if (isGood && environment.ja4 !== undefined) this.#markGood(goodName('ja4', environment.ja4), client.id)
    if (address === undefined || isAddress) return
    if (isMisguided(event)) this.#missing.set(address, true)
    if (isMisguided(event) || failedProofs > 0 || this.#missing.has(address)) {
      this.#observer.add(address, this.#numbersOf(settings.ladder), eventOfAddress(event, failedProofs))
      if (isMisguided(event) || failedProofs > 0) this.#suspects.note(address, { account: client.id })
    }
    if (isGood) this.#markGood(goodName('address', address), client.id)
  }

  /** Notes what a charge came to whose client left before it was answered: who does not read the answer may hear of it elsewhere. */
  noteUnread(clientId: string, { statusCode }: Response, ladder: Ladder | undefined): void {
    const settings = this.#settings
    const weight = statusCode === 402 ? 1 : statusCode < 400 ? -0.5 : 0
    if (settings === undefined || weight === 0) return
    this.#observer!.add(clientId, this.#numbersOf(ladder ?? settings.ladder), eventOfReport('failed-charges', weight))
  }

  /** Notes what became of a ticket that a client showed. */
  noteTicket(clientId: string, became: ShownTicket, ladder: Ladder | undefined): void {
    const settings = this.#settings
    const weight = weightOfTicket[became]
    if (settings === undefined || weight === 0) return
    if (weight > 0) this.#ticketless.set(clientId, true)
    else if (!this.#ticketless.has(clientId)) return
    const numbers = this.#numbersOf(ladder ?? settings.ladder)
    this.#observer!.add(clientId, numbers, eventOfReport('failed-tickets', weight))
  }

  /**
   * Notes how a client comes that is refused for what it did or what people decided, for the edge: the process that decided it may never
   * have seen it. Needs no `abuse`.
   */
  noteRefused(req: Request, client: Client): void {
    if (client.provedBy === null || this.#marked.has(client.id)) return
    this.#marked.set(client.id, true)
    this.#see(req, client, this.#environment(req))
    const text = JSON.stringify({ clientId: client.id, ...this.#suspects.marksOf(client.id) })
    this.#owe(this.#deps.standings().putCase('marks', caseName(client.id, 'marks'), text, mostCases, marksLastMs))
  }

  /**
   * Takes a report of the app's. Resolved, it is counted; rejected, it may not be. With an id it counts once, however often it comes.
   *
   * @throws {RampmeterError} `RAMPMETER_ABUSE_NOT_CONFIGURED`, `RAMPMETER_INVALID_CLIENT`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_STORE_UNAVAILABLE`
   */
  async report(clientId: string, what: ReportedSignal, about?: string | ReportAbout): Promise<void> {
    const settings = this.#settings
    if (settings === undefined || this.#observer === undefined) {
      throw new RampmeterError(
        'RAMPMETER_ABUSE_NOT_CONFIGURED',
        'abuse.report: this limiter watches nothing; give it `abuse: {}`',
      )
    }
    this.#deps.checkId(clientId, 'abuse.report')
    if (!Object.hasOwn(reported, what)) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `abuse.report: write one of ${Object.keys(reported).join(', ')}, and a text that says more, or { id, detail }`,
      )
    }
    const { id, detail } = readOptions(
      aboutSchema,
      typeof about === 'object' ? about : { detail: about },
      'abuse.report',
    )
    if (clientId.startsWith('ip:')) this.#suspects.note(clientId, { itself: true })
    if (detail !== undefined) this.#suspects.detail(clientId, reported[what], detail)
    const { ladder, idle } = this.#numbersOf(settings.ladder)
    const events = [eventOfReport(reported[what], 1)]
    const once =
      id === undefined ? {} : { once: createHash('sha256').update(`${reported[what]} ${id}`).digest('base64url') }
    let observed: Observed[]
    try {
      observed = await this.#deps
        .standings()
        .observe([{ partition: clientId, ladder, events, ...once }], settings.rules)
    } catch (cause) {
      if (cause instanceof RampmeterError && cause.code === 'RAMPMETER_CLOSED') throw cause
      throw new RampmeterError(
        'RAMPMETER_STORE_UNAVAILABLE',
        'abuse.report: the store did not take the report, or its answer was lost; report it again when the store is back, with an `id` that keeps it from counting twice',
        { cause },
      )
    }
    this.#learn(clientId, observed[0]!, idle)
    await Promise.all(this.#owed)
  }

  /**
   * Puts a client before people, once an hour and scope, since it asked for what has to be approved. Strangers are not: there are as many
   * of them as anybody likes.
   */
  askApproval(client: Client, scope: string): void {
    if (client.provedBy === null) return
    const name = caseName(client.id, 'approval', scope)
    if (this.#asked.has(name)) return
    this.#asked.set(name, true)
    this.#owe(this.#putCase('approval', name, { clientId: client.id, state: 'approval', scope }, caseLastsMs))
  }

  async flush(): Promise<void> {
    await this.#observer?.flush()
    await Promise.all(this.#owed)
  }

  #learn(partition: string, observed: Observed, idle: number): void {
    const suspended = steps.indexOf('suspend')
    const suspect = this.#suspects.suspect(partition)
    if (observed.changed !== 0) this.#owe(this.incidents.take(suspect, observed, idle))
    if (observed.step === suspended && observed.before !== suspended && !isOfOneAccount(suspect)) {
      const reason = `a score of ${observed.score / 1000}`
      const review = { clientId: partition, state: 'review', reason }
      this.#owe(this.#putCase('review', caseName(partition, 'review'), review, caseLastsMs))
    }
    const forMs = this.#deniedFor(partition, observed, idle)
    // Lifted, it is told of again as soon as it is denied again.
    if (forMs === undefined) this.#denied.delete(partition)
    if (forMs === undefined || this.#denied.has(partition)) return
    this.#denied.set(partition, true)
    const denied = { clientId: partition, state: 'denied', ...this.#suspects.marksOf(partition) }
    this.#owe(this.#putCase('denied', caseName(partition, 'denied'), denied, forMs))
  }

  /**
   * For how long a client is refused whatever it asks for, in ms; undefined where it is not: in shadow, and where only the ladder of a
   * route denies it.
   */
  #deniedFor(partition: string, { score, step }: Observed, idle: number): number | undefined {
    const { shadow, ladder: common } = this.#settings!
    const isDenied = taken(step, idle) >= steps.indexOf('deny')
    if (!isDenied || shadow || this.#deps.isTurnedAway?.(partition) === false) return undefined
    const { tier } = this.#suspects.suspect(partition)
    const ladder = (tier === null ? undefined : this.#deps.ladderOfTier?.(tier)) ?? common
    const rung = ladder.find((one) => (one.step === 'deny' || one.step === 'suspend') && one.mode !== 'shadow')
    if (rung === undefined || score < rung.above * 1000) return undefined
    return this.#untilBelow(score / 1000, letInBelow(ladder, true))
  }

  async #putCase(kind: CaseKind, name: string, about: Record<string, unknown>, lastsMs: number): Promise<void> {
    const standings = this.#deps.standings()
    const since = await standings.now()
    const text = JSON.stringify({ ...about, since, ...(kind === 'denied' && { until: since + lastsMs }) })
    await standings.putCase(kind, name, text, mostCases, lastsMs)
  }

  #see(req: Request, client: Client, { ja4 }: KnownEnvironment): void {
    this.#suspects.note(client.id, {
      tier: client.tier,
      ...(client.address !== null && { address: client.address }),
      ...(ja4 !== undefined && { ja4 }),
      ...(client.provedBy !== null && credentialOf(req, this.#deps.fieldsOf?.(client.provedBy) ?? [])),
    })
  }

  #markGood(name: string, clientId: string): void {
    const who = String(this.#deps.hash(clientId))
    const known = this.#good.get(name)
    if (known !== undefined && (known.has(who) || known.size >= mostGood)) return
    if (known === undefined) this.#good.set(name, new Set([who]))
    else known.add(who)
    this.#owe(this.#deps.standings().vouch(name, who, goodForMs))
  }

  #owe(work: Promise<unknown>): void {
    const done: Promise<void> = work.then(
      () => {},
      (error: unknown) => this.#deps.onFailure(error),
    )
    this.#owed.add(done)
    void done.finally(() => this.#owed.delete(done))
  }

  #numbersOf(ladder: Ladder): LadderNumbers {
    let numbers = this.#ladders.get(ladder)
    if (numbers === undefined) this.#ladders.set(ladder, (numbers = numbersOf(ladder)))
    return numbers
  }
}

/**
 * The credential as it was sent, hashed: for an edge that can compare it so. Nothing where it may have been another field's: what is no
 * credential of this client's, others may send as well.
 */
function credentialOf(req: Request, fields: readonly string[]): { credential?: string } {
  const sent = new Set(fields.map((name) => req.headers[name]).filter((value) => value !== undefined))
  const [value] = sent
  if (sent.size !== 1 || typeof value !== 'string') return {}
  return { credential: createHash('sha256').update(value).digest('hex') }
}
