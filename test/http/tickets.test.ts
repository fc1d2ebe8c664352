// Tickets over HTTP: who gets one, who may use it, and what of all that clients may send instead.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import express from 'express'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import {
  apiKey,
  concurrency,
  memoryStore,
  rampmeter,
  redisStore,
  slidingWindow,
  tokenBucket,
  type LimiterOptions,
  type TicketMessage,
  type Verifier,
} from '../../src/index.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { startRedisWithClock } from '../redis.ts'
import { opened, serve, type Reply, type Served } from './serve.ts'

const keySecret = 'a secret of the test'

/** Whoever is named by the `x-client` field; the key that it proves to hold by `x-key`. */
const named: Verifier = {
  name: 'named',
  verify(req) {
    const id = req.headers['x-client']
    const key = req.headers['x-key']
    if (typeof id !== 'string') return { outcome: 'absent' }
    const proof = typeof key === 'string' ? { provesKey: true, thumbprint: key } : {}
    return {
      outcome: 'verified',
      identity: { id: `key:${id}`, kind: 'agent', confidence: 1, reason: 'a test', ...proof },
    }
  },
}

/** One a second, and one at once. */
const slow = tokenBucket({ name: 'slow', quota: 60, window: '1m', burst: 1 })

interface World {
  readonly served: Served
  readonly advance: (ms: number) => void
}

/** An app on a clock of ours, in memory. */
async function inMemory(options: LimiterOptions = {}): Promise<World> {
  const clock = manualClock()
  const store = memoryStore({ now: clock })
  const served = await serveWith({ store, policies: [slow], ...options })
  return { served, advance: (ms) => clock.advance(ms) }
}

async function serveWith(options: LimiterOptions): Promise<Served> {
  const limiter = opened(rampmeter({ identify: [named], tickets: true, keySecret, ...options }))
  const app = express()
  app.use(limiter)
  app.get('/{*path}', (_req, res) => void res.send('here'))
  return serve(app)
}

function askAs(served: Served, client: string, ticket?: string, more: Record<string, string> = {}): Promise<Reply> {
  const shown = ticket === undefined ? {} : { 'RateLimit-Ticket': ticket }
  return served.ask('/', { headers: { 'x-client': client, ...shown, ...more } })
}

function ticketOf({ headers }: Reply): string {
  return headers['ratelimit-ticket'] as string
}

function waitOf({ headers }: Reply): number {
  return Number(headers['retry-after-ms'])
}

/** What is told of tickets that came to nothing, until the test is over. */
function failures(): TicketMessage[] {
  const told: TicketMessage[] = []
  const listen = (message: unknown): void => void told.push(message as TicketMessage)
  subscribe('rampmeter:ticket', listen)
  onTestFinished(() => void unsubscribe('rampmeter:ticket', listen))
  return told
}

describe('a refusal with a ticket', () => {
  it('tells it in the field, in the body and in the decision, and whoever returns it is admitted in spite of others', async () => {
    const { served, advance } = await inMemory()
    await askAs(served, 'a')
    const refused = await askAs(served, 'a')
    expect(refused.status).toBe(429)
    expect(ticketOf(refused)).toMatch(/^[\w-]{62}$/)
    expect(refused.problem.error.ticket).toBe(ticketOf(refused))

    advance(waitOf(refused))
    // A newcomer would take it; whoever was told a time without a ticket would too.
    expect((await askAs(served, 'a')).status).toBe(429)
    expect((await askAs(served, 'a', ticketOf(refused))).status).toBe(200)
  })

  it('early, it is told the rest of its time, and the same ticket', async () => {
    const { served, advance } = await inMemory()
    await askAs(served, 'a')
    const refused = await askAs(served, 'a')
    advance(400)
    const early = await askAs(served, 'a', ticketOf(refused))
    expect(early.status).toBe(429)
    expect(waitOf(early)).toBe(waitOf(refused) - 400)
    expect(ticketOf(early)).toBe(ticketOf(refused))
    expect(early.problem['violated-policies']).toEqual(['slow'])
    advance(waitOf(early))
    expect((await askAs(served, 'a', ticketOf(early))).status).toBe(200)
  })

  it('is not given where somebody else would have to keep it: for requests in flight, and where it costs too much', async () => {
    const policies = [slow, concurrency({ name: 'in-flight', quota: 10 })]
    const { served } = await inMemory({ policies })
    await askAs(served, 'a')
    expect(ticketOf(await askAs(served, 'a'))).toBeUndefined()

    const dear = await inMemory({ policies: [slow], routes: { '/dear': { cost: 2 } } })
    const never = await dear.served.ask('/dear')
    expect(never.status).toBe(403)
    expect(ticketOf(never)).toBeUndefined()
  })

  it('is not given in shadow mode, nor without the option', async () => {
    for (const options of [{ mode: 'shadow' as const }, { tickets: false }]) {
      const { served } = await inMemory(options)
      await askAs(served, 'a')
      expect(ticketOf(await askAs(served, 'a'))).toBeUndefined()
    }
  })

  it('is let be read by scripts of other origins', async () => {
    const { served } = await inMemory({ exposeHeaders: true })
    expect((await askAs(served, 'a')).headers['access-control-expose-headers']).toContain('RateLimit-Ticket')
  })

  it('works outside HTTP', async () => {
    const clock = manualClock()
    const limiter = opened(rampmeter({ store: memoryStore({ now: clock }), policies: [slow], tickets: true }))
    const client = { id: 'key:a' }
    await limiter.decide({ client })
    const refused = await limiter.decide({ client })
    clock.advance(refused.retryAfterMs!)
    expect((await limiter.peek(client)).admitted).toBe(false)
    expect((await limiter.decide({ client, ticket: refused.ticket! })).admitted).toBe(true)
    expect((await limiter.decide({ client, ticket: 7 as unknown as string })).admitted).toBe(false)
  })

  it('needs a secret where processes share a store', async () => {
    const redis = new Redis({ lazyConnect: true })
    const make = (): unknown => rampmeter({ store: redisStore(redis), tickets: true })
    expect(make).toThrow(expect.objectContaining({ code: 'RAMPMETER_KEY_SECRET_NEEDED' }))
    redis.disconnect()
  })

  it.each([1, 'yes', { share: 0 }, { share: 2 }, { horizon: '2h' }, { horizon: 10 }, { shares: 1 }])(
    'is not to be had for %j',
    (tickets) => {
      expect(() => rampmeter({ tickets: tickets as never })).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/^RAMPMETER_(INVALID|UNKNOWN)_/) as string }),
      )
    },
  )
})

describe('a ticket counts for nothing', () => {
  it('in the hands of another client, with another key, on another route, and is still good in the right ones', async () => {
    const told = failures()
    const global = tokenBucket({ name: 'slow', quota: 60, window: '1m', burst: 2, partition: 'global' })
    const { served, advance } = await inMemory({ policies: [global], routes: { '/dear': { cost: 2 } } })
    const key = { 'x-key': 'one' }
    await askAs(served, 'a', undefined, key)
    await askAs(served, 'a', undefined, key)
    const refused = await askAs(served, 'a', undefined, key)
    advance(waitOf(refused))
    expect((await askAs(served, 'b', ticketOf(refused), key)).status).toBe(429)
    expect((await askAs(served, 'a', ticketOf(refused), { 'x-key': 'two' })).status).toBe(429)
    expect((await askAs(served, 'a', ticketOf(refused))).status).toBe(429)
    const headers = { 'x-client': 'a', ...key, 'RateLimit-Ticket': ticketOf(refused) }
    expect((await served.ask('/dear', { headers })).status).toBe(429)
    expect(told.map(({ why, client }) => [why, client.id])).toEqual([
      ['foreign', 'key:b'],
      ['foreign', 'key:a'],
      ['foreign', 'key:a'],
      ['foreign', 'key:a'],
    ])
    expect((await askAs(served, 'a', ticketOf(refused), key)).status).toBe(200)
    expect(told).toHaveLength(4)
  })

  it('a second time, and too late; whoever lets one lapse gets none for a window', async () => {
    const told = failures()
    const { served, advance } = await inMemory()
    await askAs(served, 'a')
    const first = await askAs(served, 'a')
    const second = await askAs(served, 'a')
    advance(waitOf(first))
    expect((await askAs(served, 'a', ticketOf(first))).status).toBe(200)
    expect((await askAs(served, 'a', ticketOf(first))).status).toBe(429)
    expect(told.map(({ why }) => why)).toEqual(['used'])
    // The one that was told meanwhile is over by then, too.
    advance(waitOf(second) - waitOf(first) + 10_001)
    expect((await askAs(served, 'a', ticketOf(second))).status).toBe(200)
    expect(told.map(({ why }) => why)).toEqual(['used', 'lapsed'])
    const none = await askAs(served, 'a')
    expect(none.status).toBe(429)
    expect(ticketOf(none)).toBeUndefined()
    advance(60_000)
    await askAs(served, 'a')
    expect(ticketOf(await askAs(served, 'a'))).toBeDefined()
  })

  it('where it was made up, and whatever else the field holds', async () => {
    const told = failures()
    const { served, advance } = await inMemory()
    await askAs(served, 'a')
    const refused = await askAs(served, 'a')
    const real = ticketOf(refused)
    const forged = [
      `${real.slice(0, -1)}${real.endsWith('A') ? 'B' : 'A'}`,
      `B${real.slice(1)}`,
      real.slice(0, -1),
      `${real}A`,
      `${real}=`,
      `"${real}"`,
      `${real}, ${real}`,
      'x'.repeat(62),
      'x'.repeat(10_000),
      '',
      ' ',
      '?1',
      '{"id":1}',
    ]
    advance(waitOf(refused))
    for (const ticket of forged) expect((await askAs(served, 'a', ticket)).status).toBe(429)
    expect(told.map(({ why }) => why)).toEqual(forged.map(() => 'forged'))
    expect(JSON.stringify(told)).not.toContain(real.slice(0, 20))
    for (const bytes of [`RateLimit-Ticket: ${real}\r\nRateLimit-Ticket: ${real}`, 'RateLimit-Ticket: \xff\x80\xe9']) {
      const raw = `GET / HTTP/1.1\r\nHost: x\r\nx-client: a\r\nConnection: close\r\n${bytes}\r\n\r\n`
      expect(await served.send(Buffer.from(raw, 'latin1'))).toMatch(/^HTTP\/1.1 429 /)
    }
    expect(told).toHaveLength(forged.length + 2)
    expect((await askAs(served, 'a', real)).status).toBe(200)
  })

  it('signed with a secret that nobody knows any more; the older of two is still known', async () => {
    const clock = manualClock()
    const store = memoryStore({ now: clock })
    const make = (secret: string | readonly [string, ...string[]]): Promise<Served> =>
      serveWith({ store, policies: [slow], keySecret: secret })
    const [old, newer, other] = [
      await make(keySecret),
      await make(['a newer secret, in front', keySecret]),
      await make('quite another secret'),
    ]
    await askAs(old, 'a')
    const refused = await askAs(old, 'a')
    clock.advance(waitOf(refused))
    const told = failures()
    await askAs(other, 'a', ticketOf(refused))
    expect(told.map(({ why }) => why)).toEqual(['forged'])
    expect((await askAs(newer, 'a', ticketOf(refused))).status).toBe(200)
  })
})

describe('on Redis', () => {
  async function start(): Promise<{
    make: (options?: LimiterOptions) => Promise<Served>
    advance: (ms: number) => void
  }> {
    const server = await startRedisWithClock(Date.UTC(2026, 0, 1) * 1000)
    const redis = new Redis(server.url)
    onTestFinished(async () => {
      redis.disconnect()
      await server.stop()
    })
    return {
      make: (options) => serveWith({ store: redisStore(redis), policies: [slow], deadline: '5s', ...options }),
      advance: (ms) => server.advanceUs(ms * 1000),
    }
  }

  it('of twenty who show one ticket at once, in two processes, one is admitted', async () => {
    const { make, advance } = await start()
    const both = [await make(), await make()]
    await askAs(both[0]!, 'a')
    const refused = await askAs(both[0]!, 'a')
    advance(waitOf(refused))
    const told = failures()
    const replies = await Promise.all(
      Array.from({ length: 20 }, (_, index) => askAs(both[index % 2]!, 'a', ticketOf(refused))),
    )
    expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(told.map(({ why }) => why)).toEqual(Array.from({ length: 19 }, () => 'used'))
  })

  it('it outlives the process that issued it, and a cut of the quota', async () => {
    const { make, advance } = await start()
    const first = await make()
    await askAs(first, 'a')
    const refused = await askAs(first, 'a')
    await first.close()
    const second = await make({ policies: [tokenBucket({ name: 'slow', quota: 1, window: '1m', burst: 1 })] })
    advance(waitOf(refused))
    expect((await askAs(second, 'a')).status).toBe(429)
    expect((await askAs(second, 'a', ticketOf(refused))).status).toBe(200)
  })

  it('a herd of many limits is served at its times, whoever else comes', async () => {
    const { make, advance } = await start()
    const policies = [
      tokenBucket({ name: 'bucket', quota: 240, window: '1m', burst: 4 }),
      slidingWindow({ name: 'window', quota: 200, window: '1m' }),
    ]
    const served = await make({ policies })
    const herd = await Promise.all(Array.from({ length: 24 }, () => askAs(served, 'a')))
    const waiting = herd.filter(({ status }) => status === 429).sort((one, other) => waitOf(one) - waitOf(other))
    expect(waiting).toHaveLength(20)
    let elapsed = 0
    for (const refused of waiting) {
      advance(waitOf(refused) - elapsed)
      elapsed = waitOf(refused)
      await Promise.all(Array.from({ length: 3 }, () => askAs(served, 'a')))
      expect((await askAs(served, 'a', ticketOf(refused))).status).toBe(200)
    }
  })

  it('is ignored while the store is away, and nobody is told any', async () => {
    const { make } = await start()
    const redis = new Redis(1, { lazyConnect: true, retryStrategy: null })
    redis.on('error', () => {})
    onTestFinished(() => redis.disconnect())
    const [near, away] = [await make(), await make({ store: redisStore(redis), deadline: '50ms' })]
    await askAs(near, 'a')
    const ticket = ticketOf(await askAs(near, 'a'))
    expect((await askAs(away, 'a', ticket)).status).toBe(200)
    const refused = await askAs(away, 'a', ticket)
    expect(refused.status).toBe(503)
    expect(ticketOf(refused)).toBeUndefined()
  })
})

it('an API key earns tickets like any other client', async () => {
  const verifier = apiKey({ lookup: (key) => (key === 'good' ? { id: 'acme', type: 'agent' as const } : null) })
  const { served, advance } = await inMemory({ identify: [verifier] })
  const headers = { authorization: 'Bearer good' }
  await served.ask('/', { headers })
  const refused = await served.ask('/', { headers })
  advance(waitOf(refused))
  expect((await served.ask('/', { headers: { ...headers, 'RateLimit-Ticket': ticketOf(refused) } })).status).toBe(200)
})
