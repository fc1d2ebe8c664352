// What a limiter says and where: header families, links, the app's own refusal, shadow mode, and what is left out.

import { parseList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import { presetTiers } from '../../src/classify/presets.ts'
import type { Decision } from '../../src/decision.ts'
import { RampmeterError } from '../../src/errors.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import { attestation } from '../../src/identify/attestation.ts'
import { dpop } from '../../src/identify/dpop.ts'
import { webBotAuth } from '../../src/identify/web-bot-auth/web-bot-auth.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import type { HeaderFamily } from '../../src/respond/fields.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { askTimes, expressVersions, keepErrors, leftOf, opened, serve, tellDecision, type Served } from './serve.ts'
import { openRedis } from './stores.ts'

const address = { id: 'ip:127.0.0.1' }
const hundredAnHour = slidingWindow({ name: 'hundred', quota: 100, window: '1h' })
const twoAnHour = slidingWindow({ name: 'hour', quota: 2, window: '1h' })

/** The fields that tell limits, which a limiter in shadow does not send. */
const limitFields = /^(x-)?ratelimit|^retry-after/

function limitFieldsOf({ headers }: { headers: object }): string[] {
  return Object.keys(headers).filter((name) => limitFields.test(name))
}

for (const { name, express } of expressVersions) {
  const serveWith = async (options: LimiterOptions): Promise<Served> => {
    const limiter = opened(rampmeter({ store: memoryStore({ now: manualClock() }), ...options }))
    return await serve(express().use(limiter).get('/', tellDecision))
  }

  describe(`header families on ${name}`, () => {
    const policies = [tokenBucket({ name: 'minute', quota: 60, window: '1m', burst: 3 }), twoAnHour]

    it.each<[HeaderFamily[], Record<string, string>]>([
      [
        ['draft-11'],
        {
          'ratelimit-policy': '"minute";q=60;w=60, "hour";q=2;w=3600',
          ratelimit: '"minute";r=2;t=2, "hour";r=1;t=3600',
        },
      ],
      [['draft-7'], { 'ratelimit-policy': '60;w=60, 2;w=3600', ratelimit: 'limit=2, remaining=1, reset=3600' }],
      [
        ['draft-6'],
        {
          'ratelimit-policy': '60;w=60, 2;w=3600',
          'ratelimit-limit': '2',
          'ratelimit-remaining': '1',
          'ratelimit-reset': '3600',
        },
      ],
      [
        ['legacy'],
        {
          'x-ratelimit-limit': '2',
          'x-ratelimit-remaining': '1',
          'x-ratelimit-used': '1',
          'x-ratelimit-resource': 'hour',
          'x-ratelimit-reset': String(Date.UTC(2026, 0, 1) / 1000 + 3600),
        },
      ],
      [[], {}],
    ])('%j', async (headers, expected) => {
      const served = await serveWith({ headers, policies })
      const reply = await served.ask('/')
      const told = Object.fromEntries(
        limitFieldsOf(reply)
          .filter((field) => field !== 'x-ratelimit-tier')
          .map((field) => [field, reply.headers[field]]),
      )
      expect(told).toEqual(expected)
      expect(reply.headers['x-ratelimit-tier']).toBe('default')
    })

    it('tell the same on a refusal, with the wait', async () => {
      const served = await serveWith({ headers: ['draft-11', 'draft-6', 'legacy'], policies })
      await askTimes(served, 2)
      const { status, headers } = await served.ask('/')
      expect(status).toBe(429)
      expect(headers).toMatchObject({
        ratelimit: expect.stringMatching(/^"minute";r=1;t=1, "hour";r=0;t=\d+$/),
        'ratelimit-limit': '2',
        'ratelimit-remaining': '0',
        'ratelimit-reset': headers['retry-after'],
        'x-ratelimit-remaining': '0',
        'x-ratelimit-used': '2',
      })
    })
  })

  describe(`links and the app’s own refusal on ${name}`, () => {
    it('links the tier’s pages, else the limiter’s', async () => {
      const served = await serveWith({
        docsUrl: 'https://example.com/limits',
        upgradeUrl: 'https://example.com/plans',
        tiers: {
          ...presetTiers(),
          human: { policies: [twoAnHour], docsUrl: 'https://example.com/people' },
          agent: { policies: [twoAnHour], upgradeUrl: 'https://example.com/agents' },
        },
        identify: [apiKey({ lookup: (key) => ({ id: key, type: key as 'user' | 'agent' }) })],
      })
      const refusalOf = async (key: string) =>
        (await askTimes(served, 3, '/', { headers: { 'x-api-key': key } }))[2]!.problem.error
      expect(await refusalOf('user')).toMatchObject({
        tier: 'human',
        docs_url: 'https://example.com/people',
        upgrade_url: 'https://example.com/plans',
      })
      expect(await refusalOf('agent')).toMatchObject({
        tier: 'agent',
        docs_url: 'https://example.com/limits',
        upgrade_url: 'https://example.com/agents',
      })
    })

    it('does not send whoever has the best tier to a better one', async () => {
      const served = await serveWith({
        upgradeUrl: 'https://example.com/plans',
        classify: (req) => req.get('x-tier') as 'human',
      })
      const refusalOf = async (tier: string, cost: number) =>
        (await askTimes(served, cost + 1, '/', { headers: { 'x-tier': tier } }))[cost]!.problem.error
      expect(await refusalOf('human', 30)).toMatchObject({ tier: 'human', upgrade_url: 'https://example.com/plans' })
      const best = await refusalOf('premium', 1000)
      expect(best).toMatchObject({ tier: 'premium', type: 'rate_limit_exceeded' })
      expect(best).not.toHaveProperty('upgrade_url')
    })

    it('answers a browser with a page, and curl with text', async () => {
      const served = await serveWith({ policies: [twoAnHour] })
      await askTimes(served, 2)
      const page = await served.ask('/', { headers: { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' } })
      expect(page.headers['content-type']).toBe('text/html; charset=utf-8')
      expect(page.body).toContain('<!doctype html>')
      const text = await served.ask('/', { headers: { accept: 'text/plain' } })
      expect(text.headers['content-type']).toBe('text/plain; charset=utf-8')
      expect(text.headers['vary']).toMatch(/accept/i)
    })

    it('leaves the body to `handler`, with status and fields set', async () => {
      const seen: Decision[] = []
      const served = await serveWith({
        policies: [twoAnHour],
        handler: (req, res, _next, decision) => {
          seen.push(decision)
          res.json({ sorry: true, same: req.rateLimit === decision })
        },
      })
      await askTimes(served, 2)
      const { status, headers, json } = await served.ask('/')
      expect(status).toBe(429)
      expect(json).toEqual({ sorry: true, same: true })
      expect(Number(headers['retry-after'])).toBeGreaterThan(3000)
      expect(headers['cache-control']).toBe('no-store')
      expect(seen).toMatchObject([{ admitted: false, enforced: true, reason: 'quota', violated: ['hour'] }])
    })

    it('hands what `handler` throws, or rejects with, to the app', async () => {
      for (const fail of [
        () => {
          throw new Error('in the handler')
        },
        async () => {
          throw new Error('in the handler')
        },
      ]) {
        const { errors, handler } = keepErrors()
        const limiter = opened(rampmeter({ policies: [twoAnHour], handler: fail as () => void }))
        const served = await serve(express().use(limiter).get('/', tellDecision).use(handler))
        await askTimes(served, 3)
        expect(errors).toMatchObject([{ message: 'in the handler' }])
      }
    })

    it('puts the decision where `property` says', async () => {
      const limiter = opened(rampmeter({ property: 'limits' }))
      const app = express()
        .use(limiter)
        .get('/', (req, res) => {
          res.json({ there: (req as unknown as { limits: Decision }).limits, usual: 'rateLimit' in req })
        })
      const { json } = await (await serve(app)).ask('/')
      expect(json.usual).toBe(false)
      expect(json.there).toMatchObject({ admitted: true, client: address })
    })
  })

  describe(`\`skip\` on ${name}`, () => {
    it.each([
      ['sync', (req: { path: string }) => req.path === '/health'],
      ['async', async (req: { path: string }) => req.path === '/health'],
    ])('leaves a request unseen: %s', async (_, skip) => {
      const limiter = opened(rampmeter({ policies: [twoAnHour], skip }))
      const app = express().use(limiter)
      app.get('/health', limiter.route({ cost: 2 }), tellDecision)
      app.get('/', tellDecision)
      const served = await serve(app)
      const replies = await askTimes(served, 5, '/health')
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200])
      expect(replies[0]!.json).toBeNull()
      expect(limitFieldsOf(replies[0]!)).toEqual([])
      expect((await served.ask('/')).headers['ratelimit-remaining']).toBe('1')
    })

    it.each([
      [
        'throws',
        () => {
          throw new Error('in skip')
        },
      ],
      [
        'rejects',
        async () => {
          throw new Error('in skip')
        },
      ],
    ])('that %s fails the request, and admits nobody', async (_, skip) => {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ policies: [twoAnHour], skip }))
      let handled = 0
      const app = express().use(limiter)
      app.get('/', () => void (handled += 1)).use(handler)
      expect((await (await serve(app)).ask('/')).status).toBe(500)
      expect(errors).toMatchObject([{ message: 'in skip' }])
      expect(handled).toBe(0)
    })
  })

  describe(`shadow mode on ${name}`, () => {
    it('decides, refuses nothing and sends no RateLimit fields', async () => {
      const limiter = opened(rampmeter({ policies: [twoAnHour], mode: 'shadow', exposeHeaders: true }))
      const app = express().use(limiter).get('/', tellDecision)
      const served = await serve(app)
      const replies = await askTimes(served, 4)
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200])
      expect(replies.flatMap(limitFieldsOf)).toEqual([])
      expect(replies[0]!.headers).not.toHaveProperty('access-control-expose-headers')
      expect(replies.map(({ json }) => [json.admitted, json.enforced])).toEqual([
        [true, false],
        [true, false],
        [false, false],
        [false, false],
      ])
      expect(replies[3]!.json).toMatchObject({ reason: 'quota', violated: ['hour'] })
      expect(replies[3]!.json.retryAfterMs).toBeGreaterThan(0)
    })

    it('of one policy refuses nothing for it, and does not tell it', async () => {
      const watching = slidingWindow({ name: 'watched', quota: 1, window: '1h', mode: 'shadow' })
      const served = await serveWith({ policies: [twoAnHour, watching] })
      const [, second, third] = await askTimes(served, 3)
      expect(second!.status).toBe(200)
      expect(second!.headers['ratelimit-policy']).toBe('"hour";q=2;w=3600')
      expect(second!.json).toMatchObject({ admitted: true, violated: [] })
      expect(leftOf(second!.json)).toEqual({ hour: 0, watched: 0 })
      expect(third!.problem['violated-policies']).toEqual(['hour'])
    })

    it('waives no proof', async () => {
      const limiter = opened(
        rampmeter({
          mode: 'shadow',
          policies: [twoAnHour],
          identify: [apiKey({ lookup: () => null, unknown: 'refuse' })],
        }),
      )
      const served = await serve(express().use(limiter).get('/', tellDecision))
      for (const reply of await askTimes(served, 4, '/', { headers: { 'x-api-key': 'wrong' } })) {
        expect(reply.status).toBe(401)
        expect(reply.headers).not.toHaveProperty('ratelimit')
      }
      expect((await served.ask('/')).status).toBe(200)
    })
  })
}

const [{ express }] = expressVersions as [(typeof expressVersions)[0]]

describe('enforcePercent', () => {
  const served = async (
    enforcePercent: number,
  ): Promise<(from: string) => Promise<{ enforced: boolean; status: number }>> => {
    const limiter = opened(
      rampmeter({
        policies: [slidingWindow({ quota: 1, window: '1h' })],
        enforcePercent,
        trustedAddress: (req) => req.get('x-from'),
      }),
    )
    const server = await serve(
      express()
        .use(limiter)
        .get('/', (req, res) => {
          res.json({ enforced: req.rateLimit!.enforced })
        }),
    )
    return async (from) => {
      const reply = await server.ask('/', { headers: { 'x-from': from } })
      return { enforced: reply.status === 429 || reply.json.enforced, status: reply.status }
    }
  }
  const addresses = Array.from({ length: 400 }, (_, index) => `198.51.${Math.floor(index / 200)}.${index % 200}`)

  it('enforces for about its share of the clients, and always the same', async () => {
    const ask = await served(10)
    const first = await Promise.all(addresses.map(ask))
    const enforced = first.filter((one) => one.enforced).length
    // Of 400 at 10 %: 40, give or take 4 standard deviations of 6.
    expect(enforced).toBeGreaterThan(16)
    expect(enforced).toBeLessThan(64)

    const second = await Promise.all(addresses.map(ask))
    expect(second.map((one) => one.enforced)).toEqual(first.map((one) => one.enforced))
    expect(second.map(({ status }) => status)).toEqual(first.map((one) => (one.enforced ? 429 : 200)))

    // In another process too, and those of a smaller share are among those of a larger one.
    const more = await served(50)
    const third = await Promise.all(addresses.map(more))
    expect(third.every((one, index) => one.enforced || !first[index]!.enforced)).toBe(true)
  })

  it.each([
    [0, 0],
    [100, 40],
  ])('of %d enforces for %d of 40', async (percent, expected) => {
    const ask = await served(percent)
    const answers = await Promise.all(addresses.slice(0, 40).map(ask))
    expect(answers.filter((one) => one.enforced)).toHaveLength(expected)
  })
})

describe('exposeHeaders', () => {
  it('adds the fields that are sent to those that the app exposes', async () => {
    const limiter = opened(rampmeter({ exposeHeaders: true, headers: ['draft-11', 'legacy'] }))
    const app = express()
    app.get('/app', (_req, res, next) => {
      res.set('Access-Control-Expose-Headers', 'X-Request-Id, ratelimit')
      next()
    })
    app.use(limiter, tellDecision)
    const served = await serve(app)
    const names = async (path: string) =>
      String((await served.ask(path)).headers['access-control-expose-headers']).split(/, */)
    const ours = ['RateLimit-Policy', 'X-RateLimit-Limit', 'X-RateLimit-Tier', 'Retry-After', 'retry-after-ms']
    expect(await names('/')).toEqual(expect.arrayContaining([...ours, 'RateLimit']))
    const both = await names('/app')
    expect(both).toEqual(expect.arrayContaining(['X-Request-Id', ...ours]))
    expect(both.filter((name) => name.toLowerCase() === 'ratelimit')).toHaveLength(1)
  })

  it('names what the verifiers tell as well, each field once', async () => {
    const tokens = { issuer: 'https://id.example.com', audience: 'https://api.example.com', jwks: { keys: [] } }
    const origin = 'https://api.example.com'
    const identify = [
      dpop({ ...tokens, origin, nonce: 'offer' }),
      attestation({ resource: origin, jwks: { keys: [] }, challenge: 'offer' }),
      webBotAuth({ origin }),
    ]
    const served = await serve(express().use(opened(rampmeter({ identify, exposeHeaders: true })), tellDecision))
    const { headers } = await served.ask('/', { headers: { 'signature-input': '?' } })
    expect(headers).toHaveProperty('accept-signature')
    const names = String(headers['access-control-expose-headers']).split(', ')
    expect(names).toEqual(expect.arrayContaining(['Accept-Signature', 'DPoP-Nonce', 'WWW-Authenticate']))
    expect(new Set(names).size).toBe(names.length)
  })

  it('is the app’s own by default', async () => {
    const served = await serve(express().use(opened(rampmeter()), tellDecision))
    expect((await served.ask('/')).headers).not.toHaveProperty('access-control-expose-headers')
  })
})

describe('keySecret', () => {
  const older = 'the older secret of this test'
  const newer = 'the newer secret of this test'

  async function partitionKeys(options: Partial<LimiterOptions>): Promise<unknown[]> {
    const limiter = opened(
      rampmeter({
        policies: [twoAnHour, slidingWindow({ name: 'all', quota: 9, window: '1h', partition: 'global' })],
        ...options,
      }),
    )
    const served = await serve(express().use(limiter).get('/', tellDecision))
    const { headers } = await served.ask('/')
    const fields = ['ratelimit', 'ratelimit-policy'].map((field) => parseList(headers[field] as string))
    return fields.flatMap((list) =>
      list.map(([, parameters]) => {
        const pk = parameters.get('pk')
        return pk instanceof ArrayBuffer ? Buffer.from(pk).toString('hex') : pk
      }),
    )
  }

  it('tells partitions apart, by a Byte Sequence that parses', async () => {
    const keys = await partitionKeys({ keySecret: newer })
    for (const key of keys) expect(key).toMatch(/^[0-9a-f]{16,}$/)
    const [own, all, ownPolicy, allPolicy] = keys
    expect(own).not.toBe(all)
    expect([ownPolicy, allPolicy]).toEqual([own, all])
  })

  it('makes them with the last of a list, so that a new one in front changes nothing', async () => {
    const alone = await partitionKeys({ keySecret: older })
    expect(await partitionKeys({ keySecret: [newer, older] })).toEqual(alone)
    expect(await partitionKeys({ keySecret: newer })).not.toEqual(alone)
  })

  it('names counters with the last of a list too, so that a new one in front forgets nothing', async () => {
    const { redis, prefix } = await openRedis()
    const store = redisStore(redis, { prefix })
    const leftWith = async (keySecret?: string | [string, ...string[]]) => {
      const options = keySecret === undefined ? {} : { keySecret }
      const limiter = opened(rampmeter({ store, policies: [hundredAnHour], deadline: '5s', ...options }))
      return leftOf(await limiter.decide({ client: { id: 'key:acme' } }))['hundred']
    }
    expect([await leftWith(older), await leftWith(older)]).toEqual([99, 98])
    expect(await leftWith([newer, older])).toBe(97)
    expect(await leftWith(newer)).toBe(99)
    expect(await leftWith()).toBe(99)
    // Two secrets and none: three names of one client.
    const keys = await redis.keys(`${prefix}*`)
    expect(keys.filter((key) => !key.includes(':b:{'))).toHaveLength(3)
  })

  it('is needed for them', async () => {
    expect(await partitionKeys({})).toEqual([undefined, undefined, undefined, undefined])
  })

  it.each([['short'], [[]], [['a long enough secret', 'short']], [7]])('must be long enough: %j', (keySecret) => {
    let thrown: unknown
    try {
      rampmeter({ keySecret: keySecret as string })
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(RampmeterError)
    expect(thrown).toMatchObject({ code: 'RAMPMETER_INVALID_OPTION' })
    expect(String(thrown)).not.toMatch(/short|long enough secret/)
  })
})
