import type { Request, Response } from 'express'
import type { Client } from '../client.ts'
import type { Decision } from '../decision.ts'
import { signalNames, type ConductEvent, type SignalName } from '../standing.ts'
import type { KnownEnvironment } from './environment.ts'

/** A request that was decided, as its end is awaited. */
export interface Watched {
  readonly req: Request
  readonly res: Response
  readonly client: Client
  readonly decision: Decision
  readonly nowUs: number
  readonly route: string | undefined
  /** Its route costs nothing: what is served takes nothing away. */
  readonly isFree: boolean
  /** It is a charge: of a high-risk route, or of one with a price. */
  readonly charges: boolean
  /** It was refused with a payment that was not good. */
  readonly failedPayment: boolean
  readonly targets: readonly string[] | undefined
  readonly failedProofs: number
  /** Refused by a challenge. */
  readonly challenged: boolean
  readonly environment: KnownEnvironment
}

/** What stores know things by. */
export interface Hashes {
  readonly hash: (text: string) => number
  /** From 0 to 2047. */
  readonly markOf: (target: string) => number
}

const one = 1_000_000

/** What an answered request tells of its client. */
export function eventOf(
  {
    req,
    res,
    client,
    decision,
    nowUs,
    route,
    isFree,
    charges,
    failedPayment,
    targets,
    challenged,
    environment,
  }: Watched,
  { hash, markOf }: Hashes,
  isUnusual: (endpoint: number) => boolean,
  isIgnored: (tag: number) => boolean,
): ConductEvent {
  const refused = !decision.admitted && decision.enforced
  // Who answers a challenge may come at once.
  const told = refused && !challenged && decision.retryAfterMs !== null
  const tag = tagOf(req, client, decision, hash)
  const path = pathOf(req)
  const endpoint = hash(`${req.method === 'HEAD' ? 'GET' : req.method} ${route ?? shapeOf(path)}`)
  const first: unknown = (targets ?? [path])[0]
  const target = typeof first === 'string' ? first : undefined
  const adds: number[] = []
  const add = (signal: SignalName, amount: number): void => {
    adds.push(signalNames.indexOf(signal), amount)
  }
  // A client that left before it was answered was not answered.
  const left = !refused && !res.headersSent
  const status = refused || left ? 0 : res.statusCode
  const served = status > 0 && status < 400
  if (served && !isFree) add('client-errors', -one / 4)
  if (status >= 500) add('server-errors', one)
  // The limiter's own 401 is a refusal.
  else if (status >= 400 && !ownSignal.has(status)) add('client-errors', one)
  if (failedPayment || (charges && status === 402)) add('failed-charges', one)
  else if (charges && served) add('failed-charges', -one / 2)
  if (challenged && isIgnored(tag)) add('ignored-challenges', one)
  if (!refused && isUnusual(endpoint)) add('unusual-sequences', one)
  return {
    atUs: Math.floor(nowUs),
    outcome: told ? 2 : refused ? 3 : isFree ? 4 : 1,
    toldUs: told ? Math.floor(nowUs + decision.retryAfterMs * 1000) : 0,
    tag,
    target: target === undefined ? -1 : markOf(target),
    sequence: target === undefined ? -1 : sequenceOf(target),
    endpoint,
    ...whereFrom(req, client, environment, hash),
    result: left ? 4 : served ? 1 : status === 404 || status === 410 ? 2 : status === 403 ? 3 : 0,
    adds,
  }
}

/** Answers that have signals of their own, or say nothing about who asked. */
const ownSignal: ReadonlySet<number> = new Set([402, 403, 404, 410, 429])

/** Whether it was asked for what is not there, or not its client's. */
export function isMisguided({ result }: ConductEvent): boolean {
  return result === 2 || result === 3
}

/** What became of a ticket. */
export type ShownTicket = 'redeemed' | 'early' | 'kept' | 'lapsed' | 'used' | 'foreign' | 'forged'

/**
 * How much of a failed ticket it is. A late one is a slow network. One that comes twice may be a repeated request whose answer was
 * lost; one for another route or by another key, a client that mixes its own tickets up. Who makes tickets up makes no mistake.
 */
export const weightOfTicket: Readonly<Record<ShownTicket, number>> = {
  redeemed: -0.5,
  early: 0,
  kept: 0,
  lapsed: 0,
  used: 0.25,
  foreign: 0.5,
  forged: 1,
}

/** What of it an address is told of, besides its accounts. */
export function eventOfAddress(event: ConductEvent, failedProofs: number): ConductEvent {
  return {
    ...event,
    outcome: event.result === 0 || event.result === 4 ? 0 : event.outcome === 4 ? 4 : 1,
    toldUs: 0,
    tag: 0,
    place: 0,
    software: 0,
    adds: failedProofs > 0 ? [signalNames.indexOf('failed-proofs'), failedProofs * one] : [],
  }
}

/** Something that happened without a request. */
export function eventOfReport(signal: SignalName, amount: number): ConductEvent {
  return {
    atUs: 0,
    outcome: 0,
    toldUs: 0,
    tag: 0,
    target: -1,
    sequence: -1,
    endpoint: 0,
    place: 0,
    software: 0,
    placeIsKnown: 0,
    result: 0,
    adds: [signalNames.indexOf(signal), Math.round(amount * one)],
  }
}

/**
 * Tells apart who is told to wait. Workers with one credential are one client, unless it is throttled for being used in many places:
 * then each of those waits by itself.
 */
function tagOf(req: Request, client: Client, { abuse }: Decision, hash: (text: string) => number): number {
  const software = req.headers['user-agent'] ?? ''
  if (client.provedBy === null) return hash(`tag ${software} ${req.headers['accept-language'] ?? ''}`)
  return abuse?.signals.includes('environments') === true ? hash(`tag ${client.address ?? ''} ${software}`) : 1
}

/** All of it: behind what is cut off, whoever pads it could ask for anything. */
function pathOf(req: Request): string {
  return (req.originalUrl ?? req.url ?? '/').split('?', 1)[0]!
}

/** A path with what differs from one target to the next left out. */
function shapeOf(path: string): string {
  const segments = path.split('/', 5).slice(1, 5)
  return segments.map((segment) => (/\d|^.{25,}$/.test(segment) ? ':id' : segment.toLowerCase())).join('/')
}

/** The last number in a target. */
function sequenceOf(target: string): number {
  const digits = /(\d{1,12})\D*$/.exec(target.slice(-64))?.[1]
  return digits === undefined ? -1 : Number(digits)
}

/** Anonymous requests have no credential that could have leaked. */
function whereFrom(
  req: Request,
  client: Client,
  { country, asn, ja4 }: KnownEnvironment,
  hash: (text: string) => number,
): Pick<ConductEvent, 'place' | 'software' | 'placeIsKnown'> {
  if (client.provedBy === null) return { place: 0, software: 0, placeIsKnown: 0 }
  const where = country ?? asn
  return {
    place: hash(`place ${where ?? client.address ?? ''}`),
    software: hash(`software ${ja4 ?? familyOf(req.headers['user-agent'])}`) || 1,
    placeIsKnown: where === undefined ? 0 : 1,
  }
}

/** A User-Agent without its versions. */
function familyOf(userAgent: string | undefined): string {
  return (userAgent ?? '')
    .slice(0, 256)
    .replace(/[\d._]+/g, '')
    .toLowerCase()
}
