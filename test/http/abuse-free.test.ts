// What answers take away, and which of them count.

import { describe, expect, it } from 'vitest'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'

describe('a request that costs nothing', () => {
  const health = { 'GET /health': { cost: 0 } }
  const withHealth = async (): Promise<AbuseScene> =>
    await abuseScene({}, { routes: health }, (app) => {
      app.get('/health', (_req, res) => void res.end())
      app.get('/odd', (_req, res) => void res.status(401).end())
      app.get('/busy', (_req, res) => void res.status(429).end())
    })

  it('takes nothing away when it is served; one that is paid for does', async () => {
    for (const [path, labels] of [
      ['/health', ['enumeration']],
      ['/', []],
    ] as const) {
      const all = await withHealth()
      for (let id = 1000; id < 1040; id += 1) {
        await all.ask(`/items/${id * 7}`, 'guesser')
        for (let nth = 0; nth < 4; nth += 1) await all.ask(path, 'guesser')
        all.clock.advance('5s')
      }
      expect([...new Set(all.incidents.map(({ label }) => label))]).toEqual(labels)
    }
  })

  it.each([
    ['/odd', true],
    ['/busy', false],
  ])('of a handler that answers %s counts as a mistake: %s', async (path, counts) => {
    const all = await withHealth()
    for (let nth = 0; nth < 40; nth += 1) await all.ask(path, 'acme')
    expect((await all.ask('/', 'acme')).json.abuse.signals.includes('client-errors')).toBe(counts)
  })
})
