// Whatever a client sends, the limiter fails no request over it, and nothing that was shown to it is told to anybody.

import { randomBytes } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import * as fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { presetClassifier, presetTiers } from '../../src/classify/presets.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import { session } from '../../src/identify/session.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { startRedis, type TestRedis } from '../../src/testing/start-redis.ts'
import { expressVersions, keepErrors, opened, serve, tellDecision } from './serve.ts'

/** Characters of these codes, as a request's bytes. */
const codes = (min: number, max: number): fc.Arbitrary<string> =>
  fc.integer({ min, max }).map((code) => String.fromCharCode(code))

/** Node's parser turns most control characters away itself. */
const character = fc.oneof(
  { weight: 40, arbitrary: codes(0x20, 0x7e) },
  { weight: 10, arbitrary: codes(0x80, 0xff) },
  { weight: 2, arbitrary: fc.constant('\t') },
  { weight: 1, arbitrary: codes(0x01, 0x09) },
)
const pieces = fc.constantFrom(
  'text/html',
  '*/*;q=0',
  'application/json;q=a',
  ';;,',
  ',',
  '=',
  '"',
  '\\"',
  '127.0.0.1',
  '::ffff:1.2.3.4',
  '::1%eth0',
  'unknown',
  '_hidden',
  '[::1]:80',
  'for=1.2.3.4',
  'Bearer ',
  'Basic YTpi',
  'ClaudeBot/1.0',
  'curl/8',
  'bot',
  '%00',
  '%zz',
  '../..',
  'x'.repeat(300),
  '\u00e9',
  '{}',
  '__proto__',
  'constructor',
  '-1',
  '1e999',
  'NaN',
  'default',
)
const value = fc.oneof(
  fc.string({ unit: character, maxLength: 60 }),
  fc.array(pieces, { maxLength: 6 }).map((list) => list.join('')),
)
const field = fc.constantFrom(
  'accept',
  'x-api-key',
  'user-agent',
  'x-forwarded-for',
  'forwarded',
  'authorization',
  'cookie',
  'ratelimit',
  'ratelimit-policy',
  'ratelimit-ticket',
  'x-forwarded-proto',
  'x-forwarded-host',
  'expect',
  'signature-input',
  'signature-agent',
  'dpop',
  'client-cert',
  'origin',
  'x-user',
  '__proto__',
  'constructor',
)
const method = fc.constantFrom(
  'GET',
  'HEAD',
  'POST',
  'PUT',
  'DELETE',
  'OPTIONS',
  'PATCH',
  'TRACE',
  'PROPFIND',
  'M-SEARCH',
)
const target = fc.oneof(
  fc.constantFrom('/', '//', '/search/%zz', '/search/%C3%28', '/search/a%2Fb', '*', 'http://x/search/1', 'http://[/'),
  fc.constantFrom('/?%', '/#', '/\\', '/a;b=c', '/%2e%2e/', '/search//', '//x/search/1', 'http://x', 'x:80'),
  fc.string({ unit: codes(0x21, 0x7e), maxLength: 30 }).map((text) => `/${text}`),
)
const request = fc
  .tuple(method, target, fc.array(fc.tuple(field, value), { maxLength: 8 }))
  .map(([method, target, fields]) => {
    const lines = fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')
    return Buffer.from(`${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${lines}\r\n`, 'latin1')
  })

let server: TestRedis
let redis: Redis
beforeAll(async () => {
  server = await startRedis()
  redis = new Redis(server.url)
})
afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

describe.each(expressVersions)('garbage on $name', ({ express }) => {
  it('fails no request, and ends no process', async () => {
    const accidents: unknown[] = []
    const note = (error: unknown): void => void accidents.push(error)
    process.on('unhandledRejection', note)
    onTestFinished(() => void process.off('unhandledRejection', note))
    const { errors, handler } = keepErrors()
    const limiter = opened(
      rampmeter({
        keySecret: 'a secret for this test alone',
        exposeHeaders: true,
        headers: ['draft-11', 'draft-6', 'legacy'],
        identify: [
          apiKey({
            header: 'authorization',
            lookup: (key) => (key.length % 2 === 0 ? { id: key.slice(0, 9) || 'none' } : null),
          }),
          apiKey({ lookup: async () => null, unknown: 'refuse', cache: '1s' }),
          session((req) => (req.get('x-user') ? { id: 'somebody' } : null)),
        ],
        tiers: {
          ...presetTiers({ perAddress: 30 }),
          anonymous: { policies: [slidingLog({ quota: 100, window: '1s' })] },
        },
        classify: presetClassifier({ agentAbove: 5 }),
        routes: {
          'GET /search/:id': { cost: (_req, _client, { id }) => String(id).length },
          '/*all': {
            policies: [
              slidingWindow({
                name: 'all',
                quota: 1000,
                window: '1m',
                partition: (req) => `by ${req.path}`.slice(0, 4096),
              }),
            ],
          },
        },
      }),
    )
    const app = express().set('trust proxy', 1).use(limiter)
    app.use(limiter.route({ cost: 1 }), (_req, res) => void res.end('ok')).use(handler)
    const served = await serve(app)

    const statuses = new Map<number, number>()
    await fc.assert(
      fc.asyncProperty(request, async (bytes) => {
        const reply = await served.send(bytes)
        const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(reply)?.[1])
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        // 400, 417 and 431 are Node's own, before any app.
        expect([200, 400, 401, 403, 404, 417, 429, 431]).toContain(status)
      }),
      { numRuns: 500 },
    )
    expect(errors.filter((error) => (error as { status?: number }).status !== 400)).toEqual([])
    expect(accidents).toEqual([])
    // The garbage was not all turned away before it met the limiter.
    expect(statuses.get(200) ?? 0).toBeGreaterThan(40)
    expect(statuses.get(401) ?? 0).toBeGreaterThan(5)
  })

  it('whatever was shown is told to nobody', async () => {
    const told: string[] = []
    const listen = (message: unknown): void => void told.push(JSON.stringify(message))
    const warn = (warning: Error & { detail?: string }): void => {
      if (warning.name === 'RampmeterWarning') told.push(`${warning.message} ${warning.detail} ${warning.stack}`)
    }
    for (const channel of ['rampmeter:decision', 'rampmeter:degraded']) {
      subscribe(channel, listen)
      onTestFinished(() => void unsubscribe(channel, listen))
    }
    process.on('warning', warn)
    onTestFinished(() => void process.off('warning', warn))
    const { errors, handler } = keepErrors()
    const secrets = Array.from({ length: 40 }, (_, index) => `sk-${index}-${randomBytes(12).toString('base64url')}`)
    const prefix = `told-${Math.random()}:`
    const limiter = opened(
      rampmeter({
        store: redisStore(redis, { prefix }),
        deadline: '10s',
        identify: [
          apiKey({
            cache: '1m',
            lookup: async (key) => {
              const kind = secrets.indexOf(key) % 5
              if (kind === 0) return { id: `c${secrets.indexOf(key)}`, type: 'agent' }
              if (kind === 1) return { id: key.slice(0, 5), tier: 'not there' }
              if (kind === 2) throw Object.assign(new Error(`no row for ${key}`), { code: 'ENOROW' })
              if (kind === 3) return { id: Number.NaN, claims: { key } }
              return null
            },
          }),
          apiKey({ header: 'authorization', lookup: () => null, unknown: 'refuse' }),
        ],
      }),
    )
    const app = express().use(limiter)
    // An app that makes a cost, or a partition, of what it should not.
    app.get('/cost', limiter.route({ cost: (req) => req.get('x-api-key') as never }), tellDecision)
    app.get(
      '/partition',
      limiter.route({
        policies: [slidingWindow({ name: 'k', quota: 1, window: '1m', partition: (req) => req.get('x-api-key')! })],
      }),
      tellDecision,
    )
    app.use(tellDecision).use(handler)
    const served = await serve(app)
    await limiter.ready()
    for (const [index, secret] of secrets.entries()) {
      for (const path of ['/', '/cost', '/partition']) {
        const accept = ['*/*', 'text/html', 'text/plain'][index % 3]!
        const reply = await served.ask(path, { headers: { 'x-api-key': secret, accept } })
        told.push(`${reply.body} ${JSON.stringify(reply.headers)}`)
      }
      const bearer = await served.ask('/', { headers: { authorization: `Bearer ${secret}` } })
      told.push(`${bearer.body} ${JSON.stringify(bearer.headers)}`)
    }
    for (const error of errors) told.push(error instanceof Error ? `${error.stack}` : String(error))
    const keys = await redis.keys(`${prefix}*`)
    expect(keys.length).toBeGreaterThan(3)
    told.push(...keys)
    for (const key of keys) told.push((await redis.dumpBuffer(key)).toString('latin1'))

    expect(told.length).toBeGreaterThan(300)
    for (const secret of secrets) {
      const leak = told.find((text) => text.includes(secret))
      expect(leak).toBeUndefined()
    }
    // Nor do addresses stand in Redis.
    expect(keys.join()).not.toContain('127.0.0.1')
  })
})
