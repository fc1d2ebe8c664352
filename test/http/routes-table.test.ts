// The `routes` option: what a request costs is known before its route is, without a second round trip.

import { describe, expect, it } from 'vitest'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { expressVersions, keepErrors, leftOf, opened, serve, tellDecision } from './serve.ts'

const hundredAnHour = slidingWindow({ name: 'hour', quota: 100, window: '1h' })

for (const { name, express } of expressVersions) {
  describe(`the routes table on ${name}`, () => {
    /** The cost of each request, as charged. */
    async function priced(routes: NonNullable<Parameters<typeof rampmeter>[0]>['routes'] & {}, mountedAt = '/') {
      const limiter = opened(
        rampmeter({ store: memoryStore({ now: manualClock() }), policies: [hundredAnHour], routes }),
      )
      const app = express()
      app.use(mountedAt, limiter)
      app.use((req, res) => {
        res.json(req.rateLimit?.limits[0]?.cost ?? null)
      })
      const served = await serve(app)
      return async (method: string, path: string): Promise<unknown> => {
        if (method === 'HEAD') {
          const before = leftOf(await limiter.peek({ id: 'ip:127.0.0.1' }))['hour']!
          await served.ask(path, { method })
          return before - leftOf(await limiter.peek({ id: 'ip:127.0.0.1' }))['hour']!
        }
        return (await served.ask(path, { method })).json
      }
    }

    it('prices by method and path', async () => {
      const costOf = await priced({
        'POST /search/:id': { cost: 5 },
        'GET /search/:id': { cost: 3 },
        '/report{.:format}': { cost: 7 },
        '/files/*path': { cost: 11 },
        'DELETE /*all': { cost: 2 },
      })
      expect(await costOf('POST', '/search/1')).toBe(5)
      expect(await costOf('GET', '/search/1')).toBe(3)
      expect(await costOf('HEAD', '/search/1')).toBe(3)
      expect(await costOf('PUT', '/search/1')).toBe(1)
      expect(await costOf('PATCH', '/report.csv')).toBe(7)
      expect(await costOf('GET', '/report')).toBe(7)
      expect(await costOf('DELETE', '/report')).toBe(7)
      expect(await costOf('DELETE', '/other')).toBe(2)
      expect(await costOf('GET', '/files/a/b/c')).toBe(11)
      expect(await costOf('GET', '/files')).toBe(1)
    })

    it('minds neither case, nor a slash at the end, nor a query', async () => {
      const costOf = await priced({ 'GET /Search/:id': { cost: 5 } })
      expect(await costOf('GET', '/sEARCH/1')).toBe(5)
      expect(await costOf('GET', '/search/1/')).toBe(5)
      expect(await costOf('GET', '/search/1?q=/other#x')).toBe(5)
      expect(await costOf('GET', '/search/1//')).toBe(1)
    })

    it('is relative to where the limiter is mounted', async () => {
      const costOf = await priced({ 'GET /search': { cost: 5 }, '/': { cost: 2 } }, '/api')
      expect(await costOf('GET', '/api/search')).toBe(5)
      expect(await costOf('GET', '/API/search')).toBe(5)
      expect(await costOf('GET', '/api')).toBe(2)
      expect(await costOf('GET', '/search')).toBeNull()
    })

    it('reads the path of an absolute-form target', async () => {
      const limiter = opened(
        rampmeter({
          store: memoryStore({ now: manualClock() }),
          policies: [hundredAnHour],
          routes: { 'GET /search': { cost: 5 } },
        }),
      )
      const app = express()
      app.use('/api', limiter).use(limiter, tellDecision)
      const served = await serve(app)
      const ask = (target: string) => served.send(`GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)

      expect(await ask('http://example.com/search')).toContain('"cost":5')
      expect(await ask('http://example.com/search?q=1')).toContain('"cost":5')
      expect(await ask('http://example.com/search/')).toContain('"cost":5')
      expect(await ask('http://example.com/')).toContain('"cost":1')
      expect(await ask('http://example.com')).toContain('"cost":1')
    })

    it('reads the path of an absolute-form target below a mount', async () => {
      const limiter = opened(rampmeter({ policies: [hundredAnHour], routes: { 'GET /search': { cost: 5 } } }))
      const app = express()
      app.use('/api', limiter, tellDecision)
      const served = await serve(app)
      const reply = await served.send(
        'GET http://example.com/api/search HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
      )
      expect(reply).toContain('"cost":5')
    })

    it('hands the parameters to a cost that depends on them', async () => {
      const seen: unknown[] = []
      const costOf = await priced({
        'GET /pages/:count': { cost: (_req, _client, { count }) => Number(count) },
        'GET /async/:count': { cost: async (_req, _client, { count }) => Number(count) * 2 },
        'GET /list/*names': {
          cost: (req, client, { names }) => {
            seen.push(req.method, client.id, names)
            return names!.length
          },
        },
        'GET /opt{/:x}': { cost: (_req, _client, { x }) => (x === undefined ? 4 : 6) },
      })
      expect(await costOf('GET', '/pages/8')).toBe(8)
      expect(await costOf('GET', '/async/8')).toBe(16)
      expect(await costOf('GET', '/list/a%2Fb/c')).toBe(2)
      expect(seen).toEqual(['GET', 'ip:127.0.0.1', ['a/b', 'c']])
      expect(await costOf('GET', '/opt')).toBe(4)
      expect(await costOf('GET', '/opt/1')).toBe(6)
    })

    it('counts a path that is not well encoded, and leaves it to Express', async () => {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ policies: [hundredAnHour], routes: { 'GET /u/:id': { cost: 5 } } }))
      const app = express().use(limiter)
      app.get('/u/:id', tellDecision)
      app.use(handler)
      const served = await serve(app)
      const reply = await served.send('GET /u/%zz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
      expect(reply).toContain('RateLimit-Remaining: 95')
      expect(errors).toMatchObject([{ status: 400 }])
    })

    it('gives a route limits of its own, and a limiter.route() further in has the last word', async () => {
      const limiter = opened(
        rampmeter({
          store: memoryStore({ now: manualClock() }),
          policies: [hundredAnHour],
          routes: {
            'POST /wire': { name: 'wire', policies: [slidingWindow({ name: 'wire', quota: 1, window: '1h' })] },
            'GET /free': { policies: [], replace: true },
            'GET /search': { cost: 50 },
          },
        }),
      )
      const app = express().use(limiter)
      app.get('/search', limiter.route({ cost: 2 }), tellDecision)
      app.use(tellDecision)
      const served = await serve(app)

      expect((await served.ask('/wire', { method: 'POST' })).status).toBe(200)
      expect((await served.ask('/wire', { method: 'POST' })).problem['violated-policies']).toEqual(['wire'])
      expect((await served.ask('/free')).json.limits).toEqual([])
      expect((await served.ask('/search')).headers['ratelimit-remaining']).toBe('97')
    })
  })
}
