// Tickets that count for nothing are a signal, by what they say about who showed them.

import express from 'express'
import { expect, it, onTestFinished } from 'vitest'
import { apiKey, memoryStore, presetSignals, rampmeter, tokenBucket, type Incident } from '../../src/index.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { serve, type Reply } from './serve.ts'

async function scene(threshold = 20) {
  const clock = manualClock()
  const incidents: Incident[] = []
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
    policies: [tokenBucket({ name: 'slow', quota: 60, window: '1m', burst: 1 })],
    tickets: true,
    abuse: {
      signals: presetSignals({
        'early-retries': { weight: 0 },
        'exhausted-waits': { weight: 0 },
        'failed-tickets': { threshold },
      }),
      onIncident: (incident) => incidents.push(incident),
    },
  })
  onTestFinished(() => limiter.close())
  const app = express().use(limiter)
  app.get('/', (req, res) => void res.json(req.rateLimit))
  const served = await serve(app)
  const ask = async (key: string, ticket?: string): Promise<Reply> => {
    const headers = { 'x-api-key': key, ...(ticket !== undefined && { 'ratelimit-ticket': ticket }) }
    const reply = await served.ask('/', { headers })
    await limiter.flush()
    return reply
  }
  return { clock, limiter, incidents, ask }
}

/** A ticket for a client, which it gets by being refused. */
async function ticketFor({ ask }: Awaited<ReturnType<typeof scene>>, key: string): Promise<[string, number]> {
  for (let tries = 0; tries < 5; tries += 1) {
    const { headers } = await ask(key)
    const ticket = headers['ratelimit-ticket']
    if (typeof ticket === 'string') return [ticket, Number(headers['retry-after-ms'])]
  }
  throw new Error('it got no ticket')
}

it('that are forged are a signal, and make an incident', async () => {
  const all = await scene()
  for (let count = 0; count < 25; count += 1) {
    await all.ask('forger', 'A'.repeat(62))
    all.clock.advance(1500)
  }
  expect((await all.limiter.review.get('key:forger')).step).toBe('throttle')
  expect(all.incidents.map(({ label, client }) => [label, client.id])).toEqual([['enumeration', 'key:forger']])
  expect(all.incidents[0]!.evidence['failed-tickets']!.count).toBeGreaterThanOrEqual(20)
})

it('that belong to others count less, and less still what was used', async () => {
  const all = await scene()
  const [ticket, waitMs] = await ticketFor(all, 'honest')
  for (let count = 0; count < 25; count += 1) await all.ask('thief', ticket)
  expect((await all.limiter.review.get('key:thief')).score).toBe(0)
  for (let count = 0; count < 25; count += 1) await all.ask('thief', ticket)
  expect((await all.limiter.review.get('key:thief')).step).toBe('throttle')

  all.clock.advance(waitMs)
  for (let count = 0; count < 60; count += 1) await all.ask('honest', ticket)
  expect((await all.limiter.review.get('key:honest')).score).toBe(0)
})

it('that are late are nothing', async () => {
  const all = await scene(1)
  for (let count = 0; count < 10; count += 1) {
    const [ticket, waitMs] = await ticketFor(all, 'late')
    all.clock.advance(waitMs + 2500)
    for (let again = 0; again < 3; again += 1) await all.ask('late', ticket)
    // Whoever lets one lapse gets none for a window.
    all.clock.advance('2m')
  }
  expect((await all.limiter.review.get('key:late')).score).toBe(0)
})

it('that are early are nothing, and good ones make up for those that come twice', async () => {
  const all = await scene(1)
  for (let count = 0; count < 15; count += 1) {
    const [ticket, waitMs] = await ticketFor(all, 'honest')
    await all.ask('honest', ticket)
    all.clock.advance(waitMs)
    await all.ask('honest', ticket)
    await all.ask('honest', ticket)
    all.clock.advance('2m')
  }
  expect((await all.limiter.review.get('key:honest')).score).toBe(0)
})
