// An API and its clients in virtual time: requests go through Express and the limiter as they would from a socket, one after the
// other, on a clock that the bench turns.

import { IncomingMessage, ServerResponse } from 'node:http'
import { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import express, { type Express } from 'express'
import { apiKey, memoryStore, rampmeter, slidingWindow, tokenBucket, type Incident, type Limiter } from 'rampmeter'
import { manualClock, type ManualClock } from 'rampmeter/testing'
import { EventQueue } from '../honesty/event-queue.ts'
import { seeded } from '../honesty/random.ts'

export interface Reply {
  readonly status: number
  /** What a refusal told, in ms; null for none. */
  readonly waitMs: number | null
}

/** Who sends, from where, by what. */
export interface Sender {
  readonly key?: string | undefined
  readonly address: string
  readonly userAgent: string
  readonly country: string
  readonly asn: string
  readonly ja4: string
}

/** What a client does: it yields how long it waits, in ms. */
export type Habit = (me: Actor, random: () => number) => AsyncGenerator<number, void>

/** A client as the bench sees it. */
interface Actor {
  /** The id that the limiter gives it. */
  readonly id: string
  /** What it is; null for an honest one. */
  readonly label: string | null
  /** Its habit, by name. */
  readonly habit: string
  readonly startsMs: number
  readonly from: Sender
  ask(path: string, options?: { method?: string; from?: Sender; card?: 'good' | 'bad' }): Promise<Reply>
}

/** What became of an actor's requests. */
export interface Tally {
  readonly actor: Actor
  requests: number
  throttled: number
  challenged: number
  denied: number
}

export interface Outcome {
  readonly tallies: readonly Tally[]
  readonly incidents: readonly Incident[]
  readonly startMs: number
}

export interface Casting {
  readonly key?: string
  readonly label: string | null
  readonly habit: string
  readonly from: Omit<Sender, 'key'>
  readonly startsMs: number
  /** Several for a client with many workers. */
  readonly plays: readonly Habit[]
}

export async function play(cast: readonly Casting[], seed: number, lastsMs: number): Promise<Outcome> {
  const clock = manualClock()
  const startMs = clock()
  const incidents: Incident[] = []
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
    policies: [
      tokenBucket({ name: 'per-minute', quota: 60, window: '1m', burst: 30 }),
      slidingWindow({ name: 'per-hour', quota: 2000, window: '1h' }),
    ],
    abuse: {
      environment: ({ headers }) => ({
        country: String(headers['x-country']),
        asn: String(headers['x-asn']),
        ja4: String(headers['x-ja4']),
      }),
      onIncident: (incident) => incidents.push(incident),
    },
  })
  const app = api(limiter, clock, startMs)
  const tallies: Tally[] = []
  const queue = new EventQueue()
  const lives: AsyncGenerator<number, void>[] = []
  cast.forEach(({ key, label, habit, from, startsMs, plays }, place) => {
    const sender: Sender = { ...from, key }
    const tally: Tally = { actor: undefined as never, requests: 0, throttled: 0, challenged: 0, denied: 0 }
    const actor: Actor = {
      id: key === undefined ? `ip:${from.address}` : `key:${key}`,
      label,
      habit,
      startsMs,
      from: sender,
      async ask(path, { method = 'GET', from = sender, card } = {}) {
        const reply = await send(app, from, method, path, card)
        await limiter.flush()
        count(tally, reply)
        return { status: reply.status, waitMs: reply.waitMs }
      },
    }
    tallies.push(Object.assign(tally, { actor }))
    plays.forEach((play, worker) => {
      queue.add(startMs + startsMs, lives.push(play(actor, seeded(seed * 1000 + place * 31 + worker))) - 1)
    })
  })
  for (let next = queue.take(); next !== undefined && next.at < startMs + lastsMs; next = queue.take()) {
    clock.set(next.at)
    const { done, value } = await lives[next.item]!.next()
    if (done !== true) queue.add(next.at + Math.max(1, Math.ceil(value)), next.item)
  }
  await limiter.close()
  return { tallies, incidents, startMs }
}

function api(limiter: Limiter, clock: ManualClock, startMs: number): Express {
  const app = express()
  app.set('trust proxy', 0)
  app.use(limiter)
  app.use((_req, res, next) => {
    // Two minutes in which all is broken, which nobody is to be blamed for.
    const minute = (clock() - startMs) / 60_000
    if (minute >= 20 && minute < 22) res.status(500).end()
    else next()
  })
  // Every tenth has been deleted, and there are 6000.
  app.get('/items/:id', (req, res) => {
    const id = Number(req.params.id)
    res.status(id % 10 === 7 || id > 6000 ? 404 : 200).end()
  })
  const written = new Set<string>()
  app.get('/docs/:id', (req, res) => void res.status(written.has(req.params.id) ? 200 : 404).end())
  app.put('/docs/:id', (req, res) => {
    written.add(req.params.id)
    res.status(201).end()
  })
  // Everybody may see one account: the own.
  app.get('/accounts/:id', (req, res) => void res.status(req.params.id === 'own' ? 200 : 403).end())
  const card = limiter.route({
    name: 'charge',
    highRisk: true,
    policies: [tokenBucket({ name: 'charges', quota: 30, window: '1m' })],
  })
  app.post('/charge', card, (req, res) => void res.status(req.headers['x-card'] === 'bad' ? 402 : 200).end())
  app.get(['/feed', '/reports', '/search', '/status', '/news'], (_req, res) => void res.end())
  return app
}

interface Seen extends Reply {
  readonly isAbuse: boolean
}

function count(tally: Tally, { status, isAbuse }: Seen): void {
  tally.requests += 1
  if (!isAbuse) return
  if (status === 429) tally.throttled += 1
  else if (status === 401) tally.challenged += 1
  else tally.denied += 1
}

/** A socket that leads nowhere. */
class Nowhere extends Duplex {
  readonly remoteAddress: string
  constructor(address: string) {
    super()
    this.remoteAddress = address
  }
  override _read(): void {}
  override _write(_chunk: unknown, _encoding: string, done: () => void): void {
    done()
  }
}

function send(app: Express, from: Sender, method: string, path: string, card: string | undefined): Promise<Seen> {
  const socket = new Nowhere(from.address) as unknown as Socket
  const req = new IncomingMessage(socket)
  req.method = method
  req.url = path
  req.headers = {
    host: 'api.example.com',
    'user-agent': from.userAgent,
    'x-country': from.country,
    'x-asn': from.asn,
    'x-ja4': from.ja4,
    ...(from.key !== undefined && { 'x-api-key': from.key }),
    ...(card !== undefined && { 'x-card': card }),
  }
  req.rawHeaders.push(...Object.entries(req.headers).flatMap(([name, value]) => [name, String(value)]))
  const res = new ServerResponse(req)
  res.assignSocket(socket)
  return new Promise((resolve) => {
    res.once('finish', () => {
      const isAbuse = String(res.getHeader('content-type')).includes('problem') && isForAbuse(req)
      const after = res.getHeader('retry-after')
      res.emit('close')
      socket.destroy()
      resolve({ status: res.statusCode, waitMs: after === undefined ? null : Number(after) * 1000, isAbuse })
    })
    app(req as never, res as never)
  })
}

function isForAbuse(req: unknown): boolean {
  return (req as { rateLimit?: { reason?: string } }).rateLimit?.reason === 'abuse'
}
