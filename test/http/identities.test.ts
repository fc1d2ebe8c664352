// Who is asking, over HTTP: keys, sessions, tiers, and those who try to be many.

import express from 'express'
import { describe, expect, it } from 'vitest'
import { presetClassifier, presetTiers } from '../../src/classify/presets.ts'
import { apiKey, type ApiKeyOptions } from '../../src/identify/api-key.ts'
import { session } from '../../src/identify/session.ts'
import type { Verification } from '../../src/identify/verifier.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { askTimes, keepErrors, leftOf, opened, serve, tellDecision } from './serve.ts'
import { stores } from './stores.ts'
import { warningsOf } from './warnings.ts'

const anonymous = { id: 'ip:127.0.0.1', tier: 'anonymous' } as const
const deadline = '5s'

const registered: Record<string, Awaited<ReturnType<ApiKeyOptions['lookup']>>> = {
  'k-agent': { id: 'acme', type: 'agent' },
  'k-service': { id: 'batch', type: 'service' },
  'k-user': { id: 7, type: 'user' },
  'k-unsaid': { id: 'who' },
  'k-premium': { id: 'rich', type: 'agent', tier: 'premium' },
}
const lookup: ApiKeyOptions['lookup'] = async (key) => (Object.hasOwn(registered, key) ? registered[key] : null)

for (const { name, makeStore } of stores) {
  describe(`clients ${name}`, () => {
    it('get the tier of their key', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), identify: [apiKey({ lookup })], deadline }))
      const served = await serve(express().use(limiter).get('/', tellDecision))
      const clientOf = async (key: string) => {
        const { headers, json } = await served.ask('/', { headers: { 'x-api-key': key } })
        expect(headers['x-ratelimit-tier']).toBe(json.client.tier)
        return json.client
      }
      expect(await clientOf('k-agent')).toMatchObject({
        id: 'key:acme',
        kind: 'agent',
        tier: 'agent',
        provedBy: 'api-key',
      })
      expect(await clientOf('k-service')).toMatchObject({ id: 'key:batch', kind: 'agent', tier: 'agent' })
      expect(await clientOf('k-user')).toMatchObject({ id: 'key:7', kind: 'human', tier: 'human' })
      expect(await clientOf('k-unsaid')).toMatchObject({ id: 'key:who', kind: 'unknown', tier: 'human' })
      expect(await clientOf('k-premium')).toMatchObject({ id: 'key:rich', tier: 'premium' })
      expect(leftOf(await limiter.peek({ id: 'key:acme', tier: 'agent' }))).toMatchObject({ 'per-hour': 19_999 })
    })

    it('do not get quota by making up keys', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          identify: [apiKey({ lookup })],
          tiers: {
            ...presetTiers(),
            anonymous: { policies: [slidingWindow({ name: 'hour', quota: 10, window: '1h' })] },
          },
        }),
      )
      const served = await serve(express().use(limiter).get('/', tellDecision))
      expect((await served.ask('/', { headers: { 'x-api-key': 'k-agent' } })).status).toBe(200)
      const replies = await Promise.all(
        Array.from({ length: 25 }, (_, index) => served.ask('/', { headers: { 'x-api-key': `made-up-${index}` } })),
      )
      expect(replies.filter(({ status }) => status === 200)).toHaveLength(10)
      expect(replies.filter(({ status }) => status === 429)).toHaveLength(15)
      expect((await served.ask('/')).status).toBe(429)
      // Seen good before, it is served on from where others guess.
      expect((await served.ask('/', { headers: { 'x-api-key': 'k-agent' } })).status).toBe(200)
      expect((await served.ask('/', { headers: { 'x-api-key': 'k-user' } })).json.error.message).toMatch(/too many/)
      const told = replies.find(({ status }) => status === 200)!
      expect(told.json.client).toMatchObject({ id: 'ip:127.0.0.1', kind: 'anonymous', provedBy: null })
      expect(told.json.client.reasons.join()).toContain('not known')
    })

    it('of one address share what is counted by address', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          identify: [session((req) => ({ id: req.get('x-user')! }))],
          tiers: presetTiers({ perAddress: 3 }),
        }),
      )
      const served = await serve(express().use(limiter).get('/', tellDecision))
      const statuses: number[] = []
      for (const user of ['ann', 'bob', 'cy', 'dee']) {
        statuses.push((await served.ask('/', { headers: { 'x-user': user } })).status)
      }
      expect(statuses).toEqual([200, 200, 200, 429])
      expect(leftOf(await limiter.peek({ id: 'session:ann', tier: 'human' }))).toMatchObject({ 'per-hour': 2999 })
    })

    it('are refused, and charged to their address, with `unknown: "refuse"`', async () => {
      const limiter = opened(
        rampmeter({ store: await makeStore(), deadline, identify: [apiKey({ lookup, unknown: 'refuse' })] }),
      )
      let handled = 0
      const served = await serve(
        express()
          .use(limiter)
          .get('/', () => void (handled += 1)),
      )
      const replies = await askTimes(served, 11, '/', { headers: { 'x-api-key': 'wrong' } })

      const [first] = replies
      expect(first!.status).toBe(401)
      expect(first!.headers['www-authenticate']).toBe('ApiKey realm="api", in="header", name="x-api-key"')
      expect(first!.headers['ratelimit']).toMatch(/^"per-minute";r=9;/)
      expect(first!.headers['cache-control']).toBe('no-store')
      expect(first!.headers).not.toHaveProperty('retry-after')
      expect(first!.problem).toMatchObject({ type: 'about:blank', status: 401, error: { type: 'invalid_credential' } })
      expect(replies[10]!.status).toBe(429)
      expect(replies[10]!.headers).not.toHaveProperty('www-authenticate')
      expect(handled).toBe(0)
    })

    it('are answered 503 while their key cannot be looked up, and charged nothing', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          identify: [
            apiKey({
              lookup: () => {
                throw new Error('the database is away')
              },
            }),
          ],
        }),
      )
      const warnings = warningsOf('RAMPMETER_LOOKUP_FAILED')
      const served = await serve(express().use(limiter).get('/', tellDecision))
      const [reply] = await askTimes(served, 3, '/', { headers: { 'x-api-key': 'k-agent' } })
      expect(reply!.status).toBe(503)
      expect(Number(reply!.headers['retry-after'])).toBeGreaterThanOrEqual(1)
      expect(Number(reply!.headers['retry-after-ms'])).toBeGreaterThanOrEqual(1)
      expect(reply!.headers).not.toHaveProperty('www-authenticate')
      expect(reply!.problem).toMatchObject({
        type: expect.stringContaining('#temporary-reduced-capacity'),
        retry_estimated: true,
        error: { type: 'temporarily_unavailable' },
      })
      expect(reply!.body).not.toContain('database')
      expect(leftOf(await limiter.peek(anonymous))).toMatchObject({ 'per-hour': 500 })
      // Nobody who showed no key is touched.
      expect((await served.ask('/')).status).toBe(200)
      // Whoever runs the app has to learn of it, once.
      expect(await warnings()).toHaveLength(1)
    })
  })
}

describe('sessions', () => {
  it('count by what the app’s login knows', async () => {
    const limiter = opened(
      rampmeter({
        identify: [
          session(async (req) => {
            const id = req.get('x-user')
            return id === undefined ? null : { id, claims: { plan: 'gold' } }
          }),
        ],
      }),
    )
    const served = await serve(express().use(limiter).get('/', tellDecision))
    const { json } = await served.ask('/', { headers: { 'x-user': 'ann' } })
    expect(json.client).toMatchObject({ id: 'session:ann', kind: 'human', tier: 'human', claims: { plan: 'gold' } })
    expect((await served.ask('/')).json.client.id).toBe('ip:127.0.0.1')
  })

  it('whose function throws fail the request, and admit nobody', async () => {
    for (const who of [
      () => {
        throw new Error('no session store')
      },
      async () => {
        throw new Error('no session store')
      },
      () => ({ id: {} }) as never,
    ]) {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ identify: [session(who)] }))
      const served = await serve(express().use(limiter, tellDecision).use(handler))
      expect((await served.ask('/')).status).toBe(500)
      expect(errors).toHaveLength(1)
    }
  })

  it('that behave like an agent are one while they do, where the classifier watches', async () => {
    const clock = manualClock()
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: clock }),
        identify: [session((req) => ({ id: req.get('x-user')! }))],
        classify: presetClassifier({ agentAbove: 5, now: clock }),
      }),
    )
    const app = express().use(limiter)
    app.get('/', limiter.route({ cost: 1 }), tellDecision)
    const served = await serve(app)
    const tiers = (await askTimes(served, 7, '/', { headers: { 'x-user': 'ann' } })).map(({ json }) => json.client.tier)
    // A request that meets the limiter twice counts once.
    expect(tiers).toEqual(['human', 'human', 'human', 'human', 'human', 'agent', 'agent'])
    clock.advance('61s')
    expect((await served.ask('/', { headers: { 'x-user': 'ann' } })).json.client.tier).toBe('human')
  })
})

describe('hints', () => {
  it('choose the shape of the limit, and no more', async () => {
    const limiter = opened(rampmeter())
    const served = await serve(express().use(limiter).get('/', tellDecision))
    const { headers, json } = await served.ask('/', {
      headers: { 'user-agent': 'Mozilla/5.0 (compatible; ClaudeBot/1.0)' },
    })
    expect(json.client).toMatchObject({
      id: 'ip:127.0.0.1',
      kind: 'anonymous',
      tier: 'unverified-agent',
      provedBy: null,
    })
    expect(json.client.hint).toMatchObject({ agent: 'ClaudeBot' })
    expect(headers['ratelimit-policy']).toBe('"per-minute";q=30;w=60, "per-hour";q=500;w=3600')
    expect(headers['ratelimit']).toMatch(/^"per-minute";r=59;/)
  })

  it('do not make two of one address', async () => {
    const limiter = opened(rampmeter({ store: memoryStore({ now: manualClock() }) }))
    const served = await serve(express().use(limiter).get('/', tellDecision))
    await askTimes(served, 10)
    expect((await served.ask('/')).status).toBe(429)
    const asAgent = await served.ask('/', { headers: { 'user-agent': 'python-requests/2.31' } })
    expect(asAgent.headers['ratelimit']).toMatch(/^"per-minute";r=49;/)
    // Ten as a person and fifty as an agent are sixty of one bucket.
    await askTimes(served, 49, '/', { headers: { 'user-agent': 'python-requests/2.31' } })
    expect((await served.ask('/', { headers: { 'user-agent': 'python-requests/2.31' } })).status).toBe(429)
  })
})

describe('tiers', () => {
  const ownTiers = { free: { policies: [slidingWindow({ quota: 2, window: '1h' })] }, paid: { policies: [] } }

  it.each([
    ['a name', () => 'gold'],
    ['a promise of a name', async () => 'gold'],
    ['nothing', () => undefined],
    ['a method of every object', () => 'constructor'],
    ['the prototype', () => '__proto__'],
    ['the reserved one', () => 'default'],
    ['a number', () => 7],
    ['an object', () => ({})],
  ])('that are not there fail the request, and are never unlimited: %s', async (_, classify) => {
    const { errors, handler } = keepErrors()
    const limiter = opened(rampmeter({ tiers: ownTiers, classify: classify as () => 'free' }))
    let handled = 0
    const served = await serve(
      express()
        .use(limiter)
        .get('/', () => void (handled += 1))
        .use(handler),
    )
    expect((await served.ask('/')).status).toBe(500)
    expect(errors).toMatchObject([{ code: 'RAMPMETER_UNKNOWN_TIER' }])
    expect(handled).toBe(0)
  })

  it('that a key names and that are not there fail the request', async () => {
    const { errors, handler } = keepErrors()
    const limiter = opened(rampmeter({ identify: [apiKey({ lookup: () => ({ id: 'a', tier: 'platinum' }) })] }))
    const served = await serve(express().use(limiter, tellDecision).use(handler))
    expect((await served.ask('/', { headers: { 'x-api-key': 'a' } })).status).toBe(500)
    expect(errors).toMatchObject([{ code: 'RAMPMETER_UNKNOWN_TIER' }])
  })

  it('that a key names are what `classify` is shown, and may overrule', async () => {
    const seen: string[] = []
    const limiter = opened(
      rampmeter({
        tiers: ownTiers,
        identify: [apiKey({ lookup: (key) => ({ id: key, tier: 'premium', claims: { plan: key } }) })],
        classify: async (_req, client) => {
          seen.push(client.tier)
          return client.claims['plan'] === 'paid' ? 'paid' : 'free'
        },
      }),
    )
    const served = await serve(express().use(limiter, tellDecision))
    const paid = await served.ask('/', { headers: { 'x-api-key': 'paid' } })
    expect(paid.json.client.tier).toBe('paid')
    expect(paid.headers).not.toHaveProperty('ratelimit')
    expect(paid.headers['x-ratelimit-tier']).toBe('paid')
    expect((await served.ask('/')).json.client.tier).toBe('free')
    expect(seen).toEqual(['premium', 'anonymous'])
  })

  it('whose `classify` throws fail the request', async () => {
    for (const classify of [
      () => {
        throw new Error('no plan')
      },
      async () => {
        throw new Error('no plan')
      },
    ]) {
      const { errors, handler } = keepErrors()
      const limiter = opened(rampmeter({ classify }))
      const served = await serve(express().use(limiter, tellDecision).use(handler))
      expect((await served.ask('/')).status).toBe(500)
      expect(errors).toMatchObject([{ message: 'no plan' }])
    }
  })

  it('may be called as methods of every object are', async () => {
    const limiter = opened(
      rampmeter({
        tiers: { constructor: { policies: [slidingWindow({ quota: 2, window: '1h' })] }, other: { policies: [] } },
        classify: () => 'constructor',
      }),
    )
    const app = express()
    app.get('/', limiter.route({ policies: { other: [] } as object }), tellDecision)
    const served = await serve(app)
    const replies = await askTimes(served, 3)
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 429])
  })

  it('change the limit and not the counter', async () => {
    let tier: 'small' | 'large' = 'small'
    const window = (quota: number) => [slidingWindow({ name: 'hour', quota, window: '1h' })]
    const limiter = opened(
      rampmeter({ tiers: { small: { policies: window(2) }, large: { policies: window(10) } }, classify: () => tier }),
    )
    const served = await serve(express().use(limiter, tellDecision))
    await askTimes(served, 2)
    expect((await served.ask('/')).status).toBe(429)
    tier = 'large'
    expect((await served.ask('/')).headers['ratelimit-remaining']).toBe('7')
    tier = 'small'
    expect((await served.ask('/')).status).toBe(429)
  })
})

describe('verifiers of the app’s own', () => {
  const verifierOf = (verify: () => unknown) => ({ name: 'own', verify: verify as () => Verification })

  it('prove what they say', async () => {
    const limiter = opened(
      rampmeter({
        identify: [
          verifierOf(async () => ({
            outcome: 'verified',
            identity: { id: 'own:1', kind: 'agent', confidence: 1, reason: 'signed', provesKey: true },
          })),
        ],
      }),
    )
    const served = await serve(express().use(limiter, tellDecision))
    expect((await served.ask('/')).json.client).toMatchObject({ id: 'own:1', tier: 'verified-agent', provedBy: 'own' })
  })

  it.each<[string, () => unknown]>([
    ['nothing', () => undefined],
    [
      'an id without a scheme',
      () => ({ outcome: 'verified', identity: { id: 'x', kind: 'agent', confidence: 1, reason: '' } }),
    ],
    [
      'an address as an id',
      () => ({ outcome: 'verified', identity: { id: 'ip:1.2.3.4', kind: 'agent', confidence: 1, reason: '' } }),
    ],
    [
      'a reserved partition',
      () => ({ outcome: 'verified', identity: { id: '@global', kind: 'agent', confidence: 1, reason: '' } }),
    ],
    [
      'a throw',
      () => {
        throw Object.assign(new Error('own'), { code: 'RAMPMETER_INVALID_IDENTITY' })
      },
    ],
  ])('that answer with %s fail the request', async (_, verify) => {
    const { errors, handler } = keepErrors()
    const limiter = opened(rampmeter({ identify: [verifierOf(verify)] }))
    const served = await serve(express().use(limiter, tellDecision).use(handler))
    expect((await served.ask('/')).status).toBe(500)
    expect(errors).toMatchObject([{ code: 'RAMPMETER_INVALID_IDENTITY' }])
  })

  it('that turn a credential down further in have the last word there', async () => {
    let asked = 0
    const limiter = opened(
      rampmeter({
        identify: [
          {
            name: 'own',
            mayChange: true,
            verify: () => {
              asked += 1
              return asked === 1
                ? { outcome: 'absent' }
                : { outcome: 'invalid', reason: 'no', challenge: 'Own realm="x"' }
            },
          },
        ],
      }),
    )
    let handled = 0
    const app = express().use(limiter)
    app.get('/', limiter.route({ cost: 1 }), () => void (handled += 1))
    const { status, headers } = await (await serve(app)).ask('/')
    expect(status).toBe(401)
    expect(headers['www-authenticate']).toBe('Own realm="x"')
    expect(handled).toBe(0)
  })
})
