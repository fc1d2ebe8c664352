// What the edge is told: who is really refused, and nothing that others use well.

import { createHash } from 'node:crypto'
import express from 'express'
import { describe, expect, it } from 'vitest'
import { apiKey, rampmeter, session, type EdgeEntry } from '../../src/index.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { opened, serve } from './serve.ts'
import { guess, watched, type Watched } from './watched.ts'

const environment = (req: { headers: Record<string, unknown> }): { ja4?: string } => ({
  ja4: req.headers['x-ja4'] as string,
})

async function entryOf({ limiter }: Pick<Watched, 'limiter'>, clientId: string): Promise<EdgeEntry | undefined> {
  await limiter.flush()
  return (await limiter.edge.export({ format: 'json' })).find((one) => one.clientId === clientId)
}

describe('a denied client', () => {
  it('does not vouch for itself: its address, fingerprint and credential are told', async () => {
    const all = await watched({ environment: environment as never })
    await all.ask('/', 'guesser', '203.0.113.9', { 'x-ja4': 'bad' })
    const replies = await guess(all, 60, 'guesser', '203.0.113.9', { 'x-ja4': 'bad' })
    expect(replies.at(-1)!.status).toBe(403)
    expect(await entryOf(all, 'key:guesser')).toMatchObject({
      state: 'denied',
      addresses: ['203.0.113.9'],
      ja4s: ['bad'],
      credentials: [expect.stringMatching(/^[0-9a-f]{64}$/)],
    })
  })

  it('is told of without what others use well', async () => {
    const all = await watched({ environment: environment as never })
    await all.ask('/', 'colleague', '203.0.113.9', { 'x-ja4': 'common' })
    await guess(all, 60, 'guesser', '203.0.113.9', { 'x-ja4': 'common' })
    expect(await entryOf(all, 'key:guesser')).toMatchObject({ addresses: [], ja4s: [] })
  })

  it('is told of without a fingerprint that strangers share, where strangers are denied', async () => {
    const all = await watched({ environment: environment as never }, { identify: [] })
    await all.ask('/', undefined, '198.51.100.1', { 'x-ja4': 'browser' })
    await guess(all, 90, undefined, '203.0.113.9', { 'x-ja4': 'browser' })
    await guess(all, 90, undefined, '203.0.113.8', { 'x-ja4': 'script' })
    expect(await entryOf(all, 'ip:203.0.113.9')).toMatchObject({ addresses: ['203.0.113.9'], ja4s: [] })
    expect(await entryOf(all, 'ip:203.0.113.8')).toMatchObject({ ja4s: ['script'] })
  })

  it('is told of as long as it is denied', async () => {
    const all = await watched()
    await guess(all, 60, 'guesser', '203.0.113.9')
    const { expires } = (await entryOf(all, 'key:guesser'))!
    expect(expires).toBeGreaterThan(all.clock())
    all.clock.advance(expires - all.clock() + 1)
    expect(await entryOf(all, 'key:guesser')).toBeUndefined()
  })

  it('is told of again at once, where it was lifted and is denied again', async () => {
    const all = await watched()
    await guess(all, 60, 'guesser', '203.0.113.9')
    await all.limiter.flush()
    await all.limiter.review.lift('key:guesser', { by: 'ann', reason: 'a test of theirs' })
    expect(await entryOf(all, 'key:guesser')).toBeUndefined()
    await guess(all, 60, 'guesser', '203.0.113.9')
    expect(await entryOf(all, 'key:guesser')).toMatchObject({ state: 'denied' })
  })
})

describe('who is not refused is not told of:', () => {
  it.each<[string, Parameters<typeof watched>[0], LimiterOptions]>([
    ['abuse in shadow', { mode: 'shadow' }, {}],
    ['a limiter in shadow', {}, { mode: 'shadow' }],
    ['nobody enforced', {}, { enforcePercent: 0 }],
  ])('%s', async (_name, abuse, options) => {
    const all = await watched(abuse, options)
    const replies = await guess(all, 60, 'guesser', '203.0.113.9')
    expect(replies.at(-1)!.json.abuse.step).toBe('deny')
    expect(await all.limiter.edge.export({ format: 'json' })).toEqual([])
  })

  it('denied by the ladder of one route alone', async () => {
    const all = await watched({}, {}, (app, limiter) => {
      const strict = limiter.route({ name: 'strict', ladder: [{ step: 'deny', above: 20, below: 10 }] })
      app.get('/strict/:id', strict, (_req, res) => void res.status(404).end())
    })
    let status = 0
    for (let id = 0; id < 30; id += 1) ({ status } = await all.ask(`/strict/${id * 7}`, 'guesser', '203.0.113.9'))
    expect(status).toBe(403)
    expect(await all.limiter.edge.export({ format: 'json' })).toEqual([])
  })

  it('strangers that a credential would let in', async () => {
    const all = await watched()
    await guess(all, 90, undefined, '203.0.113.9')
    expect(await all.limiter.edge.export({ format: 'json' })).toEqual([])
  })
})

describe('the hash of a credential', () => {
  const hashOf = (text: string) => createHash('sha256').update(text).digest('hex')
  const lookup = (key: string) => ({ id: key, type: 'agent' as const })

  async function credentialsOf(
    identify: NonNullable<LimiterOptions['identify']>,
    clientId: string,
    sent: Record<string, string>,
  ) {
    const limiter = opened(rampmeter({ store: memoryStore(), identify }))
    const served = await serve(express().use(limiter))
    await limiter.review.suspend(clientId, { by: 'kim', reason: 'fraud' })
    expect((await served.ask('/', { headers: sent })).status).toBe(403)
    return (await entryOf({ limiter }, clientId))!.credentials
  }

  it('is that of the field that its verifier reads', async () => {
    const own = apiKey({ header: 'x-acme-key', lookup })
    const others = { authorization: 'Basic gateway', 'x-api-key': 'of-the-app' }
    expect(await credentialsOf([own], 'key:one', { 'x-acme-key': 'one', ...others })).toEqual([hashOf('one')])
    const bearer = apiKey({ header: 'authorization', lookup })
    expect(
      await credentialsOf([bearer], 'key:one', { 'x-api-key': 'of-the-app', authorization: 'Bearer one' }),
    ).toEqual([hashOf('Bearer one')])
    const usual = apiKey({ lookup })
    expect(await credentialsOf([usual], 'key:one', { 'x-api-key': 'one', authorization: 'Basic gateway' })).toEqual([
      hashOf('one'),
    ])
  })

  it('is not told where it may be that of what others send too', async () => {
    const inCookie = session((req) => ({ id: req.headers['cookie'] ?? '' }))
    const sent = { cookie: 'kim', 'x-api-key': 'of-the-app', authorization: 'Basic gateway' }
    expect(await credentialsOf([inCookie], 'session:kim', sent)).toEqual([])
    const two = [apiKey({ header: 'x-old-key', lookup }), apiKey({ lookup })]
    expect(await credentialsOf(two, 'key:one', { 'x-old-key': 'one', 'x-api-key': 'of-the-app' })).toEqual([])
  })
})

it('tells of no address where a request had none: a list that has one is not taken', async () => {
  const limiter = opened(rampmeter({ store: memoryStore(), abuse: {} }))
  await limiter.review.suspend('ip:none', { by: 'kim', reason: 'hides' })
  expect(await limiter.edge.export({ format: 'cloudflare' })).toEqual([])
  expect(await limiter.edge.export({ format: 'fastly' })).toEqual([])
  expect(await limiter.edge.export({ format: 'json' })).toMatchObject([{ clientId: 'ip:none', addresses: [] }])
})

it('tells of how a client comes that another process suspended, without `abuse` too', async () => {
  const store = memoryStore()
  const identify = [apiKey({ lookup: (key) => ({ id: key }) })]
  const [serving, desk] = [opened(rampmeter({ store, identify })), opened(rampmeter({ store }))]
  const served = await serve(express().use(serving))
  await desk.review.suspend('key:acme', { by: 'kim', reason: 'fraud' })
  expect(await entryOf({ limiter: desk }, 'key:acme')).toMatchObject({ addresses: [], credentials: [] })
  expect((await served.ask('/', { headers: { 'x-api-key': 'acme' } })).status).toBe(403)
  await serving.flush()
  expect(await entryOf({ limiter: desk }, 'key:acme')).toMatchObject({
    addresses: ['127.0.0.1'],
    credentials: [expect.stringMatching(/^[0-9a-f]{64}$/)],
  })
})
