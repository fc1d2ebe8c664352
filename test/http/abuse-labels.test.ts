// What a client does gets the label that it has, and a client with a bug that keeps to what it is told gets none.

import express from 'express'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { failures, presetSignals, rampmeter, redisStore, tokenBucket, type LimiterOptions } from '../../src/index.ts'
import { startRedis } from '../../src/testing/start-redis.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'
import { serve } from './serve.ts'
import { openRedis } from './stores.ts'

const policies = [tokenBucket({ name: 'per-minute', quota: 12, window: '1m', burst: 4 })]

function scene(): Promise<AbuseScene> {
  return abuseScene({}, { policies }, (app) => {
    for (const name of ['alpha', 'beta', 'gamma']) app.get(`/${name}`, (_req, res) => void res.json({}))
    app.get('/docs/:id', (_req, res) => void res.json({}))
  })
}

const labelsOf = ({ incidents }: AbuseScene): string[] => [...new Set(incidents.map(({ label }) => label))]

describe('waits that are ignored', () => {
  it('for one endpoint are a retry storm, and the answers say what to do', async () => {
    const all = await scene()
    let advice: string | undefined
    for (let nth = 0; nth < 200; nth += 1) {
      const { problem } = await all.ask('/alpha', 'stormer')
      advice ??= problem.error?.advice
      all.clock.advance(400)
    }
    expect(labelsOf(all)).toEqual(['retry-storm'])
    expect(advice).toMatch(/Wait that long before the next attempt/)
  })

  it('over several endpoints are quota exhaustion', async () => {
    const all = await scene()
    for (let nth = 0; nth < 200; nth += 1) {
      await all.ask(`/${['alpha', 'beta', 'gamma'][nth % 3]}`, 'exhauster')
      all.clock.advance(400)
    }
    expect(labelsOf(all)[0]).toBe('quota-exhaustion')
  })

  it('for ever new targets are scraping', async () => {
    const all = await scene()
    for (let nth = 0; nth < 200; nth += 1) {
      await all.ask(`/docs/${nth * 31}`, 'scraper')
      all.clock.advance(400)
    }
    expect(labelsOf(all)[0]).toBe('scraping')
  })

  it('by a client with a bug, twice for each refusal, and then kept, are nothing', async () => {
    const all = await scene()
    for (let nth = 0; nth < 200; nth += 1) {
      const { status, problem } = await all.ask('/alpha', 'buggy')
      if (status !== 429) continue
      const waitMs = problem.error.retry_after_ms!
      for (let early = 0; early < 2; early += 1) {
        all.clock.advance(Math.min(1200, waitMs / 3))
        await all.ask('/alpha', 'buggy')
      }
      all.clock.advance(waitMs)
    }
    expect(all.incidents).toEqual([])
    expect((await all.limiter.review.get('key:buggy')).step).toBe('allow')
  })
})

describe('logins of the app', () => {
  it('that fail are an incident of their address before the limit of the route holds them, as the page shows it', async () => {
    const signals = presetSignals({ 'failed-proofs': { threshold: 8 } })
    const counts = (res: { statusCode: number }): boolean => res.statusCode === 401
    const routes = {
      'POST /login': { highRisk: true, policies: [failures({ name: 'logins', quota: 10, window: '15m', counts })] },
    } as const
    const all = await abuseScene({ signals }, { routes }, (app, limiter) => {
      app.post('/login', (req, res, next) => {
        limiter.abuse.report(req.rateLimit!.client.id, 'failed-login').then(() => res.status(401).end(), next)
      })
    })
    const statuses: number[] = []
    for (let nth = 0; nth < 12; nth += 1) {
      statuses.push((await all.served.ask('/login', { method: 'POST' })).status)
      all.clock.advance('2s')
    }
    expect(statuses.filter((status) => status === 401).length).toBeLessThanOrEqual(10)
    expect(all.incidents).toMatchObject([{ label: 'enumeration', client: { id: 'ip:127.0.0.1' } }])
  })
})

describe('on Redis', () => {
  it('a request costs one call before its handler, and one after it that tells what became of it', async () => {
    // A server of its own, since it counts for all that use it.
    const server = await startRedis()
    const redis = new Redis(server.url)
    const seen = new Redis(server.url)
    onTestFinished(async () => {
      redis.disconnect()
      seen.disconnect()
      await server.stop()
    })
    const calls = async (): Promise<number> =>
      [...(await seen.info('commandstats')).matchAll(/cmdstat_(?:evalsha|eval|fcall):calls=(\d+)/g)].reduce(
        (sum, [, count]) => sum + Number(count),
        0,
      )
    async function costOf(options: LimiterOptions): Promise<{ before: number; all: number }> {
      const limiter = rampmeter({ store: redisStore(redis), processes: 1, deadline: '5s', ...options })
      await limiter.ready()
      let inHandler = 0
      const app = express().use(limiter)
      app.get('/', (_req, res, next) => {
        void calls().then((count) => {
          inHandler = count
          res.end()
        }, next)
      })
      const served = await serve(app)
      await served.ask('/')
      await limiter.flush()
      const from = await calls()
      await served.ask('/')
      await limiter.flush()
      const cost = { before: inHandler - from, all: (await calls()) - from }
      await limiter.close()
      return cost
    }
    expect(await costOf({})).toEqual({ before: 1, all: 1 })
    expect(await costOf({ abuse: {} })).toEqual({ before: 1, all: 2 })
  })

  it('incidents are kept in a stream, the last ten thousand', async () => {
    const { redis, prefix } = await openRedis()
    const store = redisStore(redis, { prefix }).open({ nameOf: (name) => name })
    onTestFinished(() => store.close())
    await store.ready()
    for (let from = 0; from < 10_300; from += 500) {
      await Promise.all(Array.from({ length: 500 }, (_, nth) => store.standings!.addIncident(String(from + nth))))
    }
    expect(await redis.type(`${prefix}incidents`)).toBe('stream')
    expect((await store.standings!.incidents(0, 20_000)).length).toBeLessThanOrEqual(10_000)
    expect(await redis.xlen(`${prefix}incidents`)).toBeLessThanOrEqual(10_000)
    expect(await redis.pttl(`${prefix}incidents`)).toBeGreaterThan(0)
  })
})
