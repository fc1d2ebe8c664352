// What people decide, and what those are told whom it concerns.

import { describe, expect, it } from 'vitest'
import {
  apiKey,
  presetLadder,
  presetSignals,
  presetTiers,
  session,
  tokenBucket,
  type Limiter,
} from '../../src/index.ts'
import { guess, watched } from './watched.ts'

const kim = { by: 'kim', reason: 'fraud' }

describe('a suspension', () => {
  it('tells until when, in the answer and in `decide`, and is listed until then, by the clock of the store', async () => {
    const all = await watched(null)
    const until = all.clock() + 3 * 3_600_000
    await all.limiter.review.suspend('key:acme', { ...kim, until })
    const reply = await all.ask('/', 'acme')
    expect(reply.status).toBe(403)
    expect(reply.headers['retry-after']).toBe(String(3 * 3600))
    expect(reply.problem.error.retry_after_ms).toBe(3 * 3_600_000)
    expect(reply.problem.detail).toBe('This client is suspended; try again in 3 h.')
    expect(await all.limiter.decide({ client: { id: 'key:acme', tier: 'agent' } })).toMatchObject({
      retryAfterMs: 3 * 3_600_000,
      retryEstimated: false,
    })
    const since = all.clock()
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:acme', since, until }])
    expect(await all.limiter.review.audit('key:acme')).toMatchObject([{ at: since, until }])
    expect(await all.limiter.edge.export({ format: 'json' })).toMatchObject([{ expires: until }])
    all.clock.advance('3h')
    expect(await all.limiter.review.list()).toEqual([])
    expect(await all.limiter.edge.export({ format: 'json' })).toEqual([])
    expect((await all.ask('/', 'acme')).status).toBe(200)
  })

  it('is what is told of a client that is out of its quota too, and so is a denial and a missing approval', async () => {
    const policies = [tokenBucket({ quota: 80, window: '1d', burst: 80 })]
    const all = await watched({}, { policies }, (app, limiter) => {
      app.get('/wire', limiter.route({ name: 'wire', requireApproval: true }), (_req, res) => void res.end())
    })
    await guess(all, 90, 'guesser')
    await all.limiter.decide({ client: { id: 'key:guesser' }, cost: 1 })
    for (const name of ['acme', 'other']) {
      for (let spent = 0; spent < 80; spent += 1) await all.ask('/', name)
      expect((await all.ask('/', name)).status).toBe(429)
    }
    await all.limiter.review.suspend('key:acme', kim)
    const suspended = await all.ask('/', 'acme')
    expect(suspended.status).toBe(403)
    expect(suspended.problem).toMatchObject({ detail: 'This client is suspended.', error: { type: 'abnormal_usage' } })
    expect(suspended.problem).not.toHaveProperty('violated-policies')
    expect(suspended.problem.error).not.toHaveProperty('limit')
  })

  it('is what is told of a client that its score denies, out of its quota too', async () => {
    const all = await watched({}, { policies: [tokenBucket({ quota: 10_000, window: '1d', burst: 60 })] })
    const ladder = presetLadder()
    expect(ladder.find(({ step }) => step === 'deny')!.above).toBeLessThan(100)
    await guess(all, 60, 'guesser')
    for (let spent = 0; spent < 6; spent += 1) await all.limiter.abuse.report('key:guesser', 'dispute')
    for (let spent = 0; spent < 60; spent += 1) await all.limiter.decide({ client: { id: 'key:guesser' } })
    const reply = await all.ask('/', 'guesser')
    expect(reply.status).toBe(403)
    expect(reply.problem.error).not.toHaveProperty('limit')
  })
})

describe('approvals', () => {
  const wire = async () =>
    await watched(null, {}, (app, limiter) => {
      app.get('/wire', limiter.route({ name: 'wire', requireApproval: true }), (_req, res) => void res.end())
    })

  it('are not asked for by strangers, who are asked for a credential, and end unless somebody looks', async () => {
    const all = await wire()
    for (let host = 1; host < 20; host += 1) {
      const reply = await all.ask('/wire', undefined, `203.0.113.${host}`)
      expect(reply.status).toBe(401)
      expect(reply.headers['www-authenticate']).toBe('ApiKey realm="api", in="header", name="x-api-key"')
      expect(reply.problem.error.type).toBe('invalid_credential')
    }
    expect(await all.limiter.review.list()).toEqual([])
    await all.ask('/wire', 'acme')
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:acme', since: all.clock() }])
    all.clock.advance('30d')
    expect(await all.limiter.review.list()).toEqual([])
  })

  it.each(['enforce', 'shadow'] as const)('are of somebody with a name, out of quota too: %s', async (mode) => {
    const policies = [tokenBucket({ quota: 1, window: '1d' })]
    const routes = { 'GET /wire': { name: 'wire', requireApproval: true } }
    const all = await watched(null, { policies, mode, routes }, (app) => {
      app.get('/wire', (_req, res) => void res.end())
    })
    await all.ask('/')
    const reply = await all.ask('/wire')
    expect(reply.status).toBe(401)
    expect(reply.headers['www-authenticate']).toMatch(/^ApiKey/)
    expect(reply.headers).not.toHaveProperty('retry-after')
    expect((await all.ask('/wire', 'acme')).status).toBe(403)
  })

  it('are of an address where no verifier could tell a name', async () => {
    const all = await watched(null, { identify: [] }, (app, limiter) => {
      app.get('/wire', limiter.route({ name: 'wire', requireApproval: true }), (_req, res) => void res.end())
    })
    expect((await all.ask('/wire')).status).toBe(403)
    await all.limiter.review.approve('ip:127.0.0.1', { scope: 'wire', by: 'kim' })
    expect((await all.ask('/wire')).status).toBe(200)
  })

  it('can be taken back', async () => {
    const all = await wire()
    await all.limiter.review.approve('key:acme', { scope: 'wire', by: 'kim' })
    expect((await all.ask('/wire', 'acme')).status).toBe(200)
    await all.limiter.review.revoke('key:acme', { scope: 'wire', by: 'kim', reason: 'left' })
    expect((await all.ask('/wire', 'acme')).status).toBe(403)
    expect((await all.limiter.review.get('key:acme')).approvals).toEqual([])
    expect(await all.limiter.review.audit('key:acme')).toMatchObject([
      { action: 'approve' },
      { action: 'revoke', scope: 'wire', reason: 'left', at: all.clock() },
    ])
  })

  it('are for routes that there are, as far as the process knows', async () => {
    const all = await wire()
    await expect(all.limiter.review.approve('key:acme', { scope: 'wrie', by: 'kim' })).rejects.toThrow(
      /there are "wire"/,
    )
    const desk = await watched(null)
    await desk.limiter.review.approve('key:acme', { scope: 'wire', by: 'kim' })
  })
})

it('an assignment can be undone', async () => {
  const all = await watched(null)
  await all.limiter.assign('key:acme', { tier: 'premium', by: 'kim' })
  expect((await all.ask('/', 'acme')).headers['x-ratelimit-tier']).toBe('premium')
  await all.limiter.unassign('key:acme', { by: 'lee' })
  expect((await all.ask('/', 'acme')).headers['x-ratelimit-tier']).toBe('agent')
  expect((await all.limiter.review.get('key:acme')).assignment).toBeNull()
  expect((await all.limiter.review.audit('key:acme')).map(({ action }) => action)).toEqual(['assign', 'unassign'])
})

it('the step that people see is by the ladder of the tier', async () => {
  const tiers = presetTiers()
  const ladder = [{ step: 'deny', above: 30, below: 20 }] as const
  const all = await watched({}, { tiers: { ...tiers, premium: { ...tiers.premium, ladder } } })
  await all.limiter.assign('key:assigned', { tier: 'premium', by: 'kim' })
  await guess(all, 34, 'assigned', '203.0.113.9')
  expect((await all.ask('/', 'assigned')).status).toBe(403)
  expect((await all.limiter.review.get('key:assigned')).step).toBe('deny')
  await guess(all, 34, 'common', '203.0.113.8')
  expect((await all.limiter.review.get('key:common')).step).toBe('throttle')
})

it('a process that keeps no scores does not say that they are 0', async () => {
  const all = await watched(null)
  expect(await all.limiter.review.get('key:acme')).toMatchObject({ score: null, step: null })
  await all.limiter.review.suspend('key:acme', kim)
  expect(await all.limiter.review.get('key:acme')).toMatchObject({ score: null, step: 'suspend' })
})

describe('a challenge', () => {
  const abuse = {
    ladder: presetLadder({ deny: { above: 150, below: 140 }, suspend: { above: 160, below: 150 } }),
    signals: presetSignals({ 'missing-targets': { weight: 40 } }),
  }

  it.each([
    [
      apiKey({ lookup: (key) => ({ id: key }) }),
      'ApiKey realm="api", in="header", name="x-api-key"',
      /an API key in the field X-API-Key/,
    ],
    [
      apiKey({ header: 'authorization', lookup: (key) => ({ id: key }) }),
      'Bearer realm="api"',
      /Bearer token of the field Authorization/,
    ],
    [session(() => null), 'Session realm="api"', /a login session of this app/],
  ])('says what is asked for, where it goes, and that waiting helps too (%#)', async (verifier, field, words) => {
    const all = await watched(abuse, { identify: [verifier] })
    await guess(all, 25)
    const reply = await all.ask('/')
    expect(reply.status).toBe(401)
    expect(reply.headers['www-authenticate']).toBe(field)
    expect(reply.problem.detail).toMatch(words)
    expect(reply.problem.detail).toMatch(/try again in \d+ min\.$/)
    all.clock.advance(reply.problem.error.retry_after_ms!)
    expect((await all.ask('/')).status).toBe(200)
  })
})

describe('is told what was written wrong:', () => {
  it.each<[string, RegExp, (limiter: Limiter) => Promise<unknown>]>([
    [
      'an address without its scheme',
      /called "ip:203\.0\.113\.7"/,
      (limiter) => limiter.review.suspend('203.0.113.7', kim),
    ],
    ['no scheme', /no scheme.*"key:acme" of an API key/, (limiter) => limiter.review.suspend('acme', kim)],
    ...['banana', '999.1.1.1', '203.0.113.007', ' 1.2.3.4', '1.2.3.4 ', '1.2.3.0/24', '2001:db8::/48'].map(
      (address): [string, RegExp, (limiter: Limiter) => Promise<unknown>] => [
        `the address "${address}"`,
        /which is no address.*"ip:203\.0\.113\.7".*"ip:2001:db8::\/64"/,
        (limiter) => limiter.review.suspend(`ip:${address}`, kim),
      ],
    ),
    ['a report of no address', /which is no address/, (limiter) => limiter.abuse.report('ip:banana', 'dispute')],
    [
      'an assignment of no address',
      /which is no address/,
      (limiter) => limiter.assign('ip:1.2.3.0/24', { tier: 'human', by: 'kim' }),
    ],
    [
      'a line end',
      /"key:acme\\n", which has a control character/,
      (limiter) => limiter.review.suspend('key:acme\n', kim),
    ],
    ['a list of nobody', /incidents\.list: .*no scheme/, (limiter) => limiter.incidents.list({ clientId: 'acme' })],
    ['a scheme alone', /no scheme/, (limiter) => limiter.review.get('key:')],
    ['a report of nobody', /no scheme.*"key:acme"/, (limiter) => limiter.abuse.report('acme', 'dispute')],
    ['an empty id of a report', /`id`/, (limiter) => limiter.abuse.report('key:a', 'dispute', { id: '' })],
    [
      'an id of a report that is too long',
      /`id`/,
      (limiter) => limiter.abuse.report('key:a', 'dispute', { id: 'x'.repeat(257) }),
    ],
    [
      'a misspelt part of a report',
      /`idd`/,
      (limiter) => limiter.abuse.report('key:a', 'dispute', { idd: 'evt_1' } as never),
    ],
    ['a report of null', /abuse\.report/, (limiter) => limiter.abuse.report('key:a', 'dispute', null as never)],
    [
      'a report of an unknown kind',
      /write one of .*disputes/,
      (limiter) => limiter.abuse.report('key:a', 'toString' as never),
    ],
    ['an assignment of nobody', /no scheme/, (limiter) => limiter.assign('acme', { tier: 'human', by: 'kim' })],
    ['a single IPv6 address', /called "ip:2001:db8::\/64"/, (limiter) => limiter.review.suspend('ip:2001:db8::1', kim)],
    ['an until that is over', /is over/, (limiter) => limiter.review.suspend('key:a', { ...kim, until: 1000 })],
    [
      'an until in seconds',
      /is 1970-.*not seconds/,
      (limiter) => limiter.review.suspend('key:a', { ...kim, until: 1_900_000_000 }),
    ],
    [
      'an until that is no time',
      /year 2255/,
      (limiter) => limiter.assign('key:a', { tier: 'human', by: 'kim', until: -1e300 }),
    ],
    [
      'a misspelt option',
      /unknown option `untl`; there are by, reason, until/,
      (limiter) => limiter.review.suspend('key:a', { ...kim, untl: 1 } as never),
    ],
    [
      'a misspelt filter',
      /unknown filter `clientID`; there are since, label, clientId, limit/,
      (limiter) => limiter.incidents.list({ clientID: 'key:a' } as never),
    ],
    ['no format', /'cloudflare', 'fastly' or 'json'/, (limiter) => (limiter.edge.export as () => Promise<unknown>)()],
  ])('%s', async (_name, message, call) => {
    const { limiter } = await watched()
    const error = (await call(limiter).catch((thrown: unknown) => thrown)) as Error
    expect(error).toMatchObject({ name: 'RampmeterError', message: expect.stringMatching(message) })
  })

  it.each(['ip:203.0.113.7', 'ip:2001:db8::/64', 'job:acme', 'key:203.0.113.7'])('%s is a client', async (id) => {
    const { limiter } = await watched(null)
    await limiter.review.suspend(id, kim)
    expect((await limiter.decide({ client: { id, tier: 'agent' } })).admitted).toBe(false)
  })
})
