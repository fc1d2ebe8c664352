// What was missing and is served later was no guess.

import type { Express } from 'express'
import { describe, expect, it } from 'vitest'
import type { Duration } from '../../src/duration.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'

function api(app: Express): void {
  const there = new Set<string>()
  app.get(['/docs/:id', '/jobs/:id'], (req, res) => void res.status(there.has(req.path) ? 200 : 404).end())
  app.get('/rooms/:id', (req, res) => void res.status(there.has(req.path) ? 200 : 403).end())
  app.put('/docs/:id', (req, res) => {
    there.add(req.path)
    res.status(201).end()
  })
  app.post('/start/:kind/:id', (req, res) => {
    there.add(`/${req.params.kind}/${req.params.id}`)
    res.status(202).end()
  })
}

type Asks = readonly (readonly [method: string, path: string])[]

/** Asks for one thing after the other, and says which step and score that came to. */
async function play(times: number, pause: Duration, asks: (nth: number) => Asks): Promise<AbuseScene> {
  const all = await abuseScene({}, {}, api)
  for (let nth = 0; nth < times; nth += 1) {
    for (const [method, path] of asks(nth)) {
      await all.served.ask(path, { method, headers: { 'x-api-key': 'acme' } })
      await all.limiter.flush()
    }
    all.clock.advance(pause)
  }
  return all
}

const scoreOf = async ({ limiter }: AbuseScene, id = 'key:acme'): Promise<number | null> =>
  (await limiter.review.get(id)).score

const lookThenCreate = (nth: number): Asks => [
  ['GET', `/docs/${nth * 7}`],
  ['PUT', `/docs/${nth * 7}`],
]

describe('what was missing and is served later', () => {
  it.each(['5s', '5m', '15m'] as const)('is no enumeration: look, then create, every %s', async (pause) => {
    const all = await play(150, pause, lookThenCreate)
    expect(await scoreOf(all)).toBe(0)
    // What is asked for and missing counts against the address too, and is given back there.
    expect(await scoreOf(all, 'ip:127.0.0.1')).toBe(0)
  })

  it('is none where it was looked for twice, or was forbidden', async () => {
    const polling = (kind: string) => (nth: number) =>
      ['GET', 'GET', 'POST', 'GET'].map(
        (method) => [method, `${method === 'POST' ? '/start' : ''}/${kind}/${nth * 7}`] as const,
      )
    for (const kind of ['jobs', 'rooms']) expect(await scoreOf(await play(100, '20s', polling(kind)))).toBe(0)
  })

  it('is given back once: who looks for fifty and creates one, and asks for it ever again, is found', async () => {
    const all = await play(60, '2s', (nth) => [
      ['GET', `/docs/${nth * 7}`],
      [nth === 0 ? 'PUT' : 'GET', '/docs/0'],
    ])
    // Nine in ten of them stay, but for the quarter that each served request takes away.
    expect(await scoreOf(all)).toBeGreaterThan(20)
  })

  it('gives back no more than is left of it', async () => {
    const all = await abuseScene({}, {}, api)
    const ask = async (method: string, path: string): Promise<void> => {
      await all.served.ask(path, { method, headers: { 'x-api-key': 'acme' } })
      await all.limiter.flush()
    }
    for (let nth = 0; nth < 12; nth += 1) await ask('GET', `/docs/${nth * 7}`)
    all.clock.advance('30m')
    for (let nth = 100; nth < 118; nth += 1) await ask('GET', `/docs/${nth * 7}`)
    expect(await scoreOf(all)).toBe(0)
    // Of twelve that are three half-lives old, one and a half are left: what is given back is not what they were at first.
    for (let nth = 0; nth < 12; nth += 1) await ask('PUT', `/docs/${nth * 7}`)
    for (let nth = 200; nth < 210; nth += 1) await ask('GET', `/docs/${nth * 7}`)
    expect(await scoreOf(all)).toBeGreaterThanOrEqual(20)
  })
})
