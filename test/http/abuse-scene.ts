// What tests of the layer share: signals go in by HTTP, and steps come out.

import express, { type Express } from 'express'
import { onTestFinished } from 'vitest'
import type { AbuseOptions } from '../../src/abuse/options.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import type { Limiter } from '../../src/limiter.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { rampmeter, type Incident } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { manualClock, type ManualClock } from '../../src/testing/manual-clock.ts'
import { serve, type Reply, type Served } from './serve.ts'

export interface AbuseScene {
  readonly served: Served
  readonly limiter: Limiter
  readonly clock: ManualClock
  readonly incidents: Incident[]
  ask(path: string, key?: string, more?: Record<string, string>): Promise<Reply>
}

/** An app with `abuse`, one client a key, and a clock to turn. What is asked for has been told to the store when the answer is here. */
export async function abuseScene(
  abuse: AbuseOptions | null = {},
  options: LimiterOptions = {},
  more: (app: Express, limiter: Limiter) => void = () => {},
): Promise<AbuseScene> {
  const clock = manualClock()
  const incidents: Incident[] = []
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
    ...options,
    ...(abuse !== null && { abuse: { onIncident: (incident: Incident) => incidents.push(incident), ...abuse } }),
  }) as Limiter
  const app = express().set('trust proxy', 0)
  app.use(limiter)
  more(app, limiter)
  app.get('/items/:id', (req, res) => void res.status(Number(req.params['id']) < 100 ? 200 : 404).json(req.rateLimit))
  app.get('/', (req, res) => void res.json(req.rateLimit))
  const served = await serve(app)
  onTestFinished(() => limiter.close())
  return {
    served,
    limiter,
    clock,
    incidents,
    async ask(path, key, headers = {}) {
      const reply = await served.ask(path, { headers: { ...(key !== undefined && { 'x-api-key': key }), ...headers } })
      await limiter.flush()
      return reply
    },
  }
}

/** Asks for what is not there, again and again. */
export async function enumerate(all: AbuseScene, count: number, key?: string, from = 1000): Promise<Reply[]> {
  const replies: Reply[] = []
  for (let id = from; id < from + count; id += 1) {
    replies.push(await all.ask(`/items/${id * 7}`, key))
    if (key === undefined) all.clock.advance(2500)
  }
  return replies
}
