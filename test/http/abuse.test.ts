// The layer as an app meets it: signals go in by HTTP, and steps come out.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, expect, it, onTestFinished } from 'vitest'
import { apiKey } from '../../src/identify/api-key.ts'
import type { Limiter } from '../../src/limiter.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { abuseScene as scene, enumerate } from './abuse-scene.ts'
import { cloudflare, presetLadder, presetSignals, rampmeter } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Store } from '../../src/stores/store.ts'

describe('a client that guesses', () => {
  it('is throttled, then denied, is told so, and is let in again when it stops', async () => {
    const all = await scene()
    const replies = await enumerate(all, 60, 'guesser')
    expect(replies.at(0)!.status).toBe(404)
    const last = replies.at(-1)!
    expect(last.status).toBe(403)
    expect(last.problem.type).toMatch(/#abnormal-usage-detected$/)
    expect(last.problem.error.advice).toMatch(/guessing/)
    expect(last.headers['cache-control']).toBe('no-store')

    all.clock.advance((last.problem.error.retry_after_ms ?? 0) - 60_000)
    expect((await all.ask('/', 'guesser')).status).toBe(403)
    all.clock.advance(60_000)
    const again = await all.ask('/', 'guesser')
    expect(again.status).toBe(200)
    // Half of what the tier has, and said to be.
    expect(again.headers['ratelimit-policy']).toContain('"per-minute";q=250;w=60')
    expect(again.json.abuse.step).toBe('challenge')
    all.clock.advance('2h')
    expect((await all.ask('/', 'guesser')).json.abuse).toMatchObject({ step: 'allow' })
  })

  it('is one incident, told once, and listed as it is now', async () => {
    const heard: unknown[] = []
    const listener = (message: unknown): void => void heard.push(message)
    subscribe('rampmeter:incident', listener)
    onTestFinished(() => void unsubscribe('rampmeter:incident', listener))
    const all = await scene()
    await enumerate(all, 60, 'guesser')
    const own = all.incidents.filter(({ client }) => client.id === 'key:guesser')
    expect(own).toHaveLength(1)
    expect(heard).toContain(own[0])
    expect(own[0]).toMatchObject({ label: 'enumeration', step: 'throttle' })
    expect(JSON.stringify(heard)).not.toMatch(/claims|x-api-key/)
    const listed = await all.limiter.incidents.list({ clientId: 'key:guesser', label: 'enumeration' })
    expect(listed).toHaveLength(1)
    expect(listed[0]).toMatchObject({ id: own[0]!.id, step: 'deny' })

    // After six half-lives of quiet, what begins again is another incident.
    all.clock.advance('3h')
    await enumerate(all, 60, 'guesser', 5000)
    expect(all.incidents.filter(({ client }) => client.id === 'key:guesser')).toHaveLength(2)
  })

  it('does not take down who shares its address and is authenticated; strangers it does', async () => {
    const all = await scene()
    await enumerate(all, 60, 'guesser')
    expect((await all.ask('/', 'colleague')).status).toBe(200)
    expect((await all.ask('/')).status).not.toBe(200)
    const ofAddress = await all.limiter.incidents.list({ clientId: 'ip:127.0.0.1' })
    expect(ofAddress[0]!.client.accounts).toContain('key:guesser')
  })

  it('is challenged and not denied as long as it shows no credential, since others may share its address', async () => {
    const all = await scene()
    await enumerate(all, 90)
    const reply = await all.ask('/')
    expect(reply.status).toBe(401)
    expect(reply.headers['www-authenticate']).toBeTruthy()
    expect((await all.limiter.review.get('ip:127.0.0.1')).step).not.toBe('challenge')
    expect((await all.ask('/', 'neighbour')).status).toBe(200)
    await all.limiter.review.suspend('ip:127.0.0.1', { by: 'kim', reason: 'floods' })
    expect((await all.ask('/')).status).toBe(403)
  })

  it('is denied where there is no credential to ask for', async () => {
    const all = await scene({}, { identify: [] })
    await enumerate(all, 90)
    expect((await all.ask('/')).status).toBe(403)
  })

  it('is only told of in shadow', async () => {
    const all = await scene({ mode: 'shadow' })
    const replies = await enumerate(all, 60, 'guesser')
    expect(replies.every(({ status }) => status === 404)).toBe(true)
    expect(replies.at(-1)!.json.abuse.step).toBe('deny')
    expect(replies.at(-1)!.headers['ratelimit-policy']).toContain('q=500')
  })

  it('is watched by the ladder of its route', async () => {
    const all = await scene({}, {}, (app, limiter) => {
      app.get(
        '/strict',
        limiter.route({ ladder: [{ step: 'deny', above: 20, below: 10 }] }),
        (_req, res) => void res.end(),
      )
    })
    await enumerate(all, 25, 'guesser')
    expect((await all.ask('/', 'guesser')).status).toBe(200)
    expect((await all.ask('/strict', 'guesser')).status).toBe(403)
  })
})

describe('waits', () => {
  const policies = [tokenBucket({ quota: 6, window: '1m', burst: 2 })]

  it('that are ignored are a retry storm', async () => {
    const all = await scene({}, { policies })
    for (let index = 0; index < 300; index += 1) {
      await all.ask('/', 'stormer')
      all.clock.advance(500)
    }
    expect(all.incidents.map(({ label }) => label)).toContain('retry-storm')
  })

  it.each([
    ['twenty workers that begin at once', 20, 0],
    ['fifty workers that begin one after the other', 50, 2000],
  ])(
    'that are kept are nothing, of %s neither',
    async (_name, workers, apartMs) => {
      const all = await scene({}, { policies })
      const due = Array.from({ length: workers }, (_, worker) => worker * apartMs)
      const start = all.clock()
      let asked = 0
      for (let second = 0; second < 600; second += 1) {
        for (const [worker, at] of due.entries()) {
          if (at > all.clock() - start) continue
          asked += 1
          // Each has targets of its own.
          const { problem, status } = await all.ask(`/items/${asked % 100}`, 'workers')
          due[worker] = all.clock() - start + (status === 429 ? problem.error.retry_after_ms! + 200 : 100)
        }
        all.clock.advance(1000)
      }
      expect(all.incidents).toEqual([])
      expect((await all.limiter.review.get('key:workers')).score).toBe(0)
    },
    60_000,
  )

  it('for one route do not hold for what is admitted at others', async () => {
    const all = await scene({}, {}, (app, limiter) => {
      const reports = limiter.route({ policies: [tokenBucket({ name: 'reports', quota: 1, window: '1h' })] })
      app.get('/reports', reports, (_req, res) => void res.json({}))
    })
    // More than one at a time may be told.
    for (let count = 0; count < 40; count += 1) await all.ask('/reports', 'reader')
    for (let id = 0; id < 90; id += 1) {
      expect((await all.ask(`/items/${id}`, 'reader')).status).toBe(200)
      all.clock.advance(2000)
    }
    expect(all.incidents).toEqual([])
    expect((await all.limiter.review.get('key:reader')).score).toBe(0)
  })
})

describe('a challenge', () => {
  it('asks strangers for a credential, and lets those through who have one where no verifier proves keys', async () => {
    const ladder = presetLadder({ deny: { above: 150, below: 140 }, suspend: { above: 160, below: 150 } })
    const all = await scene({ ladder, signals: presetSignals({ 'missing-targets': { weight: 40 } }) })
    await enumerate(all, 25)
    const reply = await all.ask('/')
    expect(reply.status).toBe(401)
    expect(reply.headers['www-authenticate']).toBeTruthy()
    expect(reply.problem.type).toMatch(/#abnormal-usage-detected$/)
    await enumerate(all, 25, 'known')
    expect((await all.ask('/', 'known')).status).toBe(200)
  })
})

describe('an address that shows wrong credentials', () => {
  it('is an incident; one wrong credential that is repeated is none, and who has a good one is not meant', async () => {
    const lookup = (key: string): { id: string } | null => (key.startsWith('good') ? { id: key } : null)
    // How many are looked at in a minute goes by the real clock.
    const verification = { failures: { quota: 1000, window: '1m' } } as const
    const all = await scene({}, { identify: [apiKey({ lookup })], verification })
    for (let count = 0; count < 60; count += 1) {
      await all.ask('/', 'stale')
      all.clock.advance('10s')
    }
    expect(all.incidents).toEqual([])
    for (let count = 0; count < 60; count += 1) {
      await all.ask('/', `guess-${count}`)
      all.clock.advance('10s')
    }
    expect(all.incidents.map(({ label, client }) => [label, client.id])).toEqual([['enumeration', 'ip:127.0.0.1']])
    expect(Object.keys(all.incidents[0]!.evidence)).toEqual(['failed-proofs'])
    expect((await all.ask('/', 'good-one')).status).toBe(200)
  })
})

describe('a credential in two hands', () => {
  it('is an incident; one program in two countries is none', async () => {
    const all = await scene({ environment: cloudflare({ ja4: 'cf-ja4' }) })
    for (let index = 0; index < 80; index += 1) {
      await all.ask(
        '/',
        'leaked',
        index % 2 === 0 ? { 'cf-ipcountry': 'NL', 'cf-ja4': 'a' } : { 'cf-ipcountry': 'BR', 'cf-ja4': 'b' },
      )
      await all.ask('/', 'service', { 'cf-ja4': 'a', 'cf-ipcountry': index % 2 === 0 ? 'NL' : 'US' })
      all.clock.advance(1000)
    }
    expect(all.incidents.map(({ label, client }) => [label, client.id])).toEqual([['credential-leakage', 'key:leaked']])
  })

  it.each([
    () => {
      throw new Error('no')
    },
    () => 'NL',
    () => ({ country: 'x'.repeat(1e6) }),
    async () => ({ country: 'NL' }),
    () => ({ country: { toString: () => 'NL' } }),
  ])('an environment that lies is ignored (%#)', async (environment) => {
    const all = await scene({ environment: environment as never })
    expect((await all.ask('/', 'acme')).status).toBe(200)
  })
})

describe('people', () => {
  it('suspend and lift, without `abuse` and in shadow too', async () => {
    const all = await scene(null, { mode: 'shadow' })
    await all.limiter.review.suspend('key:acme', { by: 'kim', reason: 'fraud' })
    const reply = await all.ask('/', 'acme')
    expect(reply.status).toBe(403)
    expect(reply.problem.error).toMatchObject({ type: 'abnormal_usage' })
    await all.limiter.reset('key:acme')
    expect((await all.ask('/', 'acme')).status).toBe(403)
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:acme', state: 'suspended', by: 'kim' }])
    await all.limiter.review.lift('key:acme', { by: 'kim', reason: 'a mistake' })
    expect((await all.ask('/', 'acme')).status).toBe(200)
    expect((await all.limiter.review.audit('key:acme')).map(({ action }) => action)).toEqual(['suspend', 'lift'])
  })

  it('suspend until a time', async () => {
    const all = await scene()
    await all.limiter.review.suspend('key:acme', { by: 'kim', reason: 'fraud', until: new Date(all.clock() + 60_000) })
    expect((await all.ask('/', 'acme')).status).toBe(403)
    all.clock.advance(60_001)
    expect((await all.ask('/', 'acme')).status).toBe(200)
  })

  it('put a client in a tier, which its first decision after it knows', async () => {
    const all = await scene()
    expect((await all.ask('/', 'acme')).headers['x-ratelimit-tier']).toBe('agent')
    await all.limiter.assign('key:acme', { tier: 'premium', by: 'kim', until: all.clock() + 60_000 })
    const reply = await all.ask('/', 'acme')
    expect(reply.headers['x-ratelimit-tier']).toBe('premium')
    expect(reply.json.limits[0]).toMatchObject({ quota: 2000, cost: 1 })
    all.clock.advance(60_001)
    expect((await all.ask('/', 'acme')).headers['x-ratelimit-tier']).toBe('agent')
  })

  it('approve clients for a route', async () => {
    const all = await scene(null, {}, (app, limiter) => {
      app.get('/wire', limiter.route({ name: 'wire', requireApproval: true }), (_req, res) => void res.end())
    })
    const reply = await all.ask('/wire', 'acme')
    expect(reply.status).toBe(403)
    expect(reply.problem).toMatchObject({ type: 'about:blank', error: { type: 'approval_required' } })
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:acme', state: 'approval', scope: 'wire' }])
    await all.limiter.review.approve('key:acme', { scope: 'wire', by: 'kim' })
    expect((await all.ask('/wire', 'acme')).status).toBe(200)
    expect(await all.limiter.review.list()).toEqual([])
  })

  it.each([
    (limiter: Limiter) => limiter.review.suspend('key:acme', { reason: 'x' } as never),
    (limiter: Limiter) => limiter.review.suspend('@x', { by: 'kim', reason: 'x' }),
    (limiter: Limiter) => limiter.review.lift('key:acme', { by: 'kim' } as never),
    (limiter: Limiter) => limiter.review.suspend('key:acme', { by: 'kim', reason: 'x', until: Number.NaN }),
    (limiter: Limiter) => limiter.assign('key:acme', { tier: 'gold', by: 'kim' }),
    (limiter: Limiter) => limiter.incidents.list({ limit: 0 }),
    (limiter: Limiter) => limiter.edge.export({ format: 'nginx' as never }),
    (limiter: Limiter) => limiter.abuse.report('key:acme', 'dispute'),
  ])('are told what they wrote wrong (%#)', async (call) => {
    const { limiter } = await scene(null)
    await expect(call(limiter)).rejects.toMatchObject({ code: expect.stringMatching(/^RAMPMETER_/) })
  })
})

it('where people approve, a store that knows no clients is a mistake', () => {
  const memory = memoryStore()
  const store: Store = { open: (settings) => ({ ...memory.open(settings), standings: undefined as never }) }
  expect(() => rampmeter({ store, routes: { '/wire': { name: 'wire', requireApproval: true } } })).toThrow(
    expect.objectContaining({ code: 'RAMPMETER_NO_STANDINGS' }),
  )
})

describe('the edge', () => {
  it('is told of whom to turn away, and not of addresses in good use', async () => {
    const all = await scene()
    await all.limiter.review.suspend('ip:203.0.113.9', { by: 'kim', reason: 'floods' })
    await all.limiter.review.suspend('ip:2001:db8:1:2::/64', { by: 'kim', reason: 'floods' })
    await all.ask('/', 'colleague')
    await all.limiter.review.suspend('ip:127.0.0.1', { by: 'kim', reason: 'floods' })
    const items = await all.limiter.edge.export({ format: 'cloudflare' })
    expect(items.map(({ ip }) => ip)).toEqual(['203.0.113.9', '2001:db8:1:2::/64'])
    const [batch] = await all.limiter.edge.export({ format: 'fastly' })
    expect(batch!.entries).toMatchObject([
      { op: 'create', ip: '203.0.113.9', subnet: 32 },
      { op: 'create', ip: '2001:db8:1:2::', subnet: 64 },
    ])
    const all3 = await all.limiter.edge.export({ format: 'json' })
    expect(all3).toHaveLength(3)
    expect(all3.every(({ expires }) => expires > all.clock())).toBe(true)
  })
})
