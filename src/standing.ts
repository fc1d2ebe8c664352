import type { Duration } from './duration.ts'

/** What is done with a client, from nothing to everything. */
export type Step = 'allow' | 'throttle' | 'challenge' | 'deny' | 'suspend'

/** In their order; stores count them from 0. */
export const steps: readonly Step[] = ['allow', 'throttle', 'challenge', 'deny', 'suspend']

/** What a client's conduct amounts to. */
export type IncidentLabel =
  | 'retry-storm'
  | 'credential-leakage'
  | 'scraping'
  | 'enumeration'
  | 'quota-exhaustion'
  | 'transactional-abuse'

export const incidentLabels: readonly IncidentLabel[] = [
  'retry-storm',
  'credential-leakage',
  'scraping',
  'enumeration',
  'quota-exhaustion',
  'transactional-abuse',
]

/** What is watched. Stores know them by their places here, so new ones go to the end. */
export const signalNames = [
  'early-retries',
  'exhausted-waits',
  'greedy-targets',
  'new-targets',
  'missing-targets',
  'forbidden-targets',
  'sequential-targets',
  'slow-enumeration',
  'client-errors',
  'server-errors',
  'bursts',
  'environments',
  'failed-proofs',
  'failed-tickets',
  'failed-charges',
  'disputes',
  'unusual-sequences',
  'ignored-challenges',
] as const

export type SignalName = (typeof signalNames)[number]

/** One thing that is watched, and how much it weighs. Plain data: copy it and change what you want to change. */
export interface Signal {
  readonly name: SignalName
  /** What it adds to the score when its count is at the threshold, in points; as many times that as the count is thresholds, at most 5. */
  readonly weight: number
  /** From which count on it says anything, from 1 to 1000. */
  readonly threshold: number
  /** After how long half of the count is forgotten. Default: that of `abuse`. */
  readonly halfLife?: Duration
  /** Says something only where this other signal has reached its threshold too. */
  readonly needs?: SignalName
  /** The incident that it is evidence of; without one it only adds to the score. */
  readonly label?: IncidentLabel
  /** What is counted, in words. */
  readonly watches: string
}

/** One rung of a ladder: taken at one score, left at a lower one. */
export interface LadderStep {
  readonly step: Exclude<Step, 'allow'>
  /** The score from which on it is taken, in points. */
  readonly above: number
  /** The score below which it is left. */
  readonly below: number
  /** Of `throttle`, or of `challenge` in a ladder without it: which part of each quota is left. Default 0.5. */
  readonly share?: number
  /**
   * Of `challenge`: what a payment costs that answers it, in whole credits, on routes without a price of their own. Needs `payments` with
   * a provider. Default: only routes with a price take one.
   */
  readonly price?: { readonly credits: number }
  /** `shadow` tells and counts the step, and takes the one below it. Default `enforce`. */
  readonly mode?: 'enforce' | 'shadow'
}

/** From the first rung to the last. A step that is left out is not taken. */
export type Ladder = readonly LadderStep[]

/** What a decision asks of a client's standing. All integers: scores in thousandths of a point, times in microseconds. */
export interface StandingQuery {
  /** False where the steps that a score makes are only told. What people decided holds all the same. */
  readonly enforce: boolean
  /** It has what a challenge would ask for. */
  readonly answered: boolean
  /** A hash of the scope that people have to approve; 0 for none. */
  readonly scope: number
  /** 0 where no scores are kept. */
  readonly halfLifeUs: number
  /** What throttling leaves of quotas, in thousandths. */
  readonly share: number
  /** `above` and `below` of the four steps after `allow`; `never` for those that the ladder has not. */
  readonly ladder: readonly number[]
  /** Steps that are not taken when a score reaches them, as bits, `throttle` first: those in shadow, and those that the ladder has not. */
  readonly idle: number
}

/** A score that nobody has. */
export const never: number = 2 ** 31

/** Of a step that a score reaches, the one that is taken: it, or the highest below it that is not idle. */
export function taken(reached: number, idle: number): number {
  let step = reached
  while (step > 0 && Math.floor(idle / 2 ** (step - 1)) % 2 === 1) step -= 1
  return step
}

/** What a decision learned of a client's standing. */
export interface KnownStanding {
  /** In points. */
  readonly score: number
  /** The step that is taken. */
  readonly step: Step
  /** The step that the score reaches, where that is higher: it is in shadow. */
  readonly shadow?: Step
  /** Places of the signals that say something, as bits. */
  readonly signals: number
  /** A hash of the tier that people put it in; 0 for none, and while it is suspended. */
  readonly tier: number
  /** People suspended it. */
  readonly suspended: boolean
  /** For how long still, in ms; absent where it is for good. */
  readonly suspendedForMs?: number
  /** The scope that was asked for is not approved. */
  readonly unapproved: boolean
}

/** The arithmetic of signals, the same for all clients. Counts are in millionths. */
export interface ConductRules {
  readonly halfLifeUs: number
  /** In the order of `signalNames`. A weight in thousandths of a point; `needs` and `label` count from 1, 0 for none. */
  readonly signals: readonly {
    readonly weight: number
    readonly threshold: number
    readonly halfLifeUs: number
    readonly needs: number
    readonly label: number
  }[]
}

/** What an answered request tells of its client. Hashes have 32 bits; 0 where there is nothing to tell. */
export interface ConductEvent {
  /** When it was decided, in µs of the store's clock; 0 for now. */
  readonly atUs: number
  /** What came of it: 0 no request, 1 admitted, 2 refused and told a time, 3 refused, 4 admitted and charged nothing, by its route. */
  readonly outcome: 0 | 1 | 2 | 3 | 4
  /** The time it was told. */
  readonly toldUs: number
  /** Tells apart who shares an address. */
  readonly tag: number
  /** A hash of what it touched, from 0 to 2047; -1 for none. */
  readonly target: number
  /** The number in what it touched; -1 for none. */
  readonly sequence: number
  readonly endpoint: number
  /** Where it came from, by what, and both together. */
  readonly place: number
  readonly software: number
  /** 0: nothing is known of the place but the address, which says little. */
  readonly placeIsKnown: 0 | 1
  /** 0 not known, 1 served, 2 not found, 3 forbidden, 4 its client left before it was answered. */
  readonly result: 0 | 1 | 2 | 3 | 4
  /** Place of a signal and millionths to add, by turns. */
  readonly adds: readonly number[]
}

/** What several requests of a client, or of an address, tell. */
export interface Observation {
  readonly partition: string
  readonly ladder: readonly number[]
  readonly events: readonly ConductEvent[]
  /**
   * What the events are known by, in letters of base64url: of those that are known by the same, only the first count. Remembered for 30
   * days, of a client the latest 1000.
   */
  readonly once?: string
}

/** What a client's conduct comes to after an observation. */
export interface Observed {
  /** In thousandths of a point. */
  readonly score: number
  readonly before: number
  /** Counted from 0. */
  readonly step: number
  /** Bits, by place: signals that say something, labels whose incident has begun, labels that have something new to tell. */
  readonly signals: number
  readonly began: number
  readonly changed: number
  /** Of each signal the count, in thousandths, and since when, in µs. Empty unless something has changed. */
  readonly counts: readonly number[]
  /** Of each label when its incident began and was last seen, in µs. Empty unless something has changed. */
  readonly labels: readonly number[]
}

/** What a change of the rulings about a client writes and takes away, by field. */
export interface RulingChange {
  readonly set: Readonly<Record<string, string>>
  readonly take: readonly string[]
  /** A line for the audit trail. */
  readonly audit: string
}

/** The part of a store that remembers clients and not counters. Nothing here is forgotten by `reset`. */
export interface Standings {
  /** Takes in what requests tell. One answer for each observation, in their order. */
  observe(observations: readonly Observation[], rules: ConductRules): Promise<Observed[]>
  /**
   * Changes what people decided, in one step, and tells all fields that are known then: `s` until when it is suspended, in µs (-1
   * for good), `t` and `u` its tier (a hash) and until when (0 for good), `a:<scope>` what is approved; with `d` before, the same in words.
   */
  rule(partition: string, change: RulingChange): Promise<Readonly<Record<string, string>>>
  /** The audit trail of a client, oldest first. */
  trail(partition: string): Promise<string[]>
  /** Adds to the incidents. At most 10 000 are kept, for 30 days. */
  addIncident(text: string): Promise<void>
  /** Incidents since a time in ms, the newest first. */
  incidents(sinceMs: number, most: number): Promise<string[]>
  /**
   * Notes a case under a name, for so long, or for good (0); false where there are `most` of its kind already. Each kind has a room of
   * its own.
   */
  putCase(kind: CaseKind, name: string, text: string, most: number, lastsMs: number): Promise<boolean>
  takeCase(kind: CaseKind, name: string): Promise<void>
  cases(kind: CaseKind): Promise<string[]>
  /** Notes that somebody uses something well, for so long; and tells who does. Of each at least the latest 32 are known. */
  vouch(name: string, who: string, lastsMs: number): Promise<void>
  vouchers(name: string): Promise<string[]>
  /** The time of the store, in ms since 1970. */
  now(): Promise<number>
}

/**
 * What is noted of clients besides their standing: who is suspended by people, who waits for a review or an approval, who is denied by
 * its score, and by which addresses and fingerprints those who are refused come.
 */
export type CaseKind = 'suspended' | 'review' | 'approval' | 'denied' | 'marks'
