// A single step of a ladder in shadow: told and counted, not taken; and that waits told at any step are enough.

import { describe, expect, it } from 'vitest'
import { presetLadder, presetSignals } from '../../src/index.ts'
import { abuseScene, enumerate } from './abuse-scene.ts'

describe('a step in shadow', () => {
  it('is told and counted, and the one below it is taken', async () => {
    const all = await abuseScene({ ladder: presetLadder({ deny: { mode: 'shadow' }, suspend: { mode: 'shadow' } }) })
    const replies = await enumerate(all, 60, 'guesser')
    expect(replies.filter(({ status }) => status === 403)).toEqual([])
    const { json } = await all.ask('/', 'guesser')
    expect(json.abuse).toMatchObject({ step: 'challenge', shadow: 'deny' })
    // What is live is live: half of the quota.
    const told = (await all.ask('/', 'guesser')).headers['ratelimit-policy']
    expect(told).toContain('"per-minute";q=250;w=60')
    expect(told).not.toContain('first-minutes')
    const { abuse } = all.limiter.health()
    expect(abuse!.taken).toMatchObject({ deny: 0, suspend: 0 })
    expect(abuse!.taken.throttle + abuse!.taken.challenge).toBeGreaterThan(10)
    expect(abuse!.shadow.deny).toBeGreaterThan(2)
    expect(abuse!.shadow.throttle).toBe(0)

    const [incident] = await all.limiter.incidents.list({ clientId: 'key:guesser' })
    expect(incident).toMatchObject({ step: 'challenge', shadow: 'deny' })
    expect(await all.limiter.edge.export({ format: 'json' })).toEqual([])
  })

  it('of a route leaves the others live', async () => {
    const ladder = [
      { step: 'throttle', above: 20, below: 10, share: 0.25 },
      { step: 'deny', above: 30, below: 15, mode: 'shadow' },
    ] as const
    const all = await abuseScene({}, { routes: { '/soft': { ladder } } }, (app) => {
      app.get('/soft', (req, res) => void res.json(req.rateLimit))
    })
    await enumerate(all, 60, 'guesser')
    expect((await all.ask('/', 'guesser')).status).toBe(403)
    const soft = await all.ask('/soft', 'guesser')
    expect(soft.json.abuse).toMatchObject({ step: 'throttle', shadow: 'deny' })
    expect(soft.headers['ratelimit-policy']).toContain('"per-minute";q=125;w=60')
  })

  it('of all of the layer counts as one', async () => {
    const all = await abuseScene({ mode: 'shadow' })
    await enumerate(all, 60, 'guesser')
    const { abuse } = all.limiter.health()
    expect(abuse!.taken).toEqual({ throttle: 0, challenge: 0, deny: 0, suspend: 0 })
    expect(abuse!.shadow.throttle).toBeGreaterThan(0)
    expect(abuse!.shadow.deny).toBeGreaterThan(0)
  })
})

it('a step on the strict ladder of one route is taken there alone', async () => {
  const ladder = [{ step: 'deny', above: 20, below: 10 }] as const
  const all = await abuseScene({}, { routes: { '/strict': { ladder } } })
  await enumerate(all, 31, 'guesser')
  expect((await all.ask('/', 'guesser')).json.abuse).toMatchObject({ step: 'throttle' })
  expect((await all.ask('/strict', 'guesser')).status).toBe(403)
  expect((await all.ask('/', 'guesser')).json.abuse).toMatchObject({ step: 'throttle' })
  // And asking there gets nobody let in on the strict one before it is told.
  await all.ask('/', 'guesser')
  all.clock.advance(8 * 60_000)
  expect((await all.ask('/strict', 'guesser')).status).toBe(403)
})

describe('the time that is told', () => {
  it.each(['deny', 'suspend'] as const)('to who is at %s is when it is let in', async (step) => {
    const signals = presetSignals({ 'missing-targets': { weight: step === 'deny' ? 60 : 100 } })
    const all = await abuseScene({ signals })
    await enumerate(all, 40, 'guesser')
    expect((await all.limiter.review.get('key:guesser')).step).toBe(step)
    const { problem } = await all.ask('/', 'guesser')
    all.clock.advance(problem.error.retry_after_ms! / 2)
    expect((await all.ask('/', 'guesser')).status).toBe(403)
    all.clock.advance(problem.error.retry_after_ms! / 2)
    expect((await all.ask('/', 'guesser')).status).toBe(200)
  })
})

describe('outside HTTP', () => {
  const clientOf = (id: string) => ({ client: { id, tier: 'anonymous' } }) as const

  it('a stranger meets the step that it meets by HTTP', async () => {
    const all = await abuseScene()
    await enumerate(all, 90)
    expect((await all.ask('/')).status).toBe(401)
    const decision = await all.limiter.decide(clientOf('ip:127.0.0.1'))
    expect(decision).toMatchObject({ admitted: false, reason: 'abuse', abuse: { step: 'challenge' } })
    all.clock.advance(decision.retryAfterMs!)
    expect((await all.limiter.decide(clientOf('ip:127.0.0.1'))).admitted).toBe(true)
  })

  it('whom the app names is not challenged, since the app vouches for it; denied it is', async () => {
    const all = await abuseScene({ signals: presetSignals({ 'missing-targets': { weight: 45 } }) })
    await enumerate(all, 24, 'guesser')
    const named = { client: { id: 'key:guesser', tier: 'agent' } } as const
    expect(await all.limiter.decide(named)).toMatchObject({ admitted: true, abuse: { step: 'challenge' } })
    await enumerate(all, 60, 'guesser')
    const before = all.limiter.health().abuse!.taken.deny
    expect(await all.limiter.decide(named)).toMatchObject({ admitted: false, abuse: { step: 'deny' } })
    await all.limiter.peek(named.client)
    expect(all.limiter.health().abuse!.taken.deny).toBe(before + 1)
  })
})
