// What a process decided itself holds while Redis is away, and what could not be kept is said.

import { randomUUID } from 'node:crypto'
import express from 'express'
import type { Redis } from 'ioredis'
import { expect, it } from 'vitest'
import { apiKey, memoryStore, rampmeter, redisStore, type Limiter } from '../../src/index.ts'
import { clientOf, redisProcess, type RedisProcess } from './redis-process.ts'
import { opened, serve } from './serve.ts'

const acme = { id: 'key:acme', tier: 'agent' } as const
const kim = { by: 'kim', reason: 'fraud' }

async function scene(): Promise<{ server: RedisProcess; redis: Redis; limiter: Limiter }> {
  const server = await redisProcess()
  await server.start()
  const redis = clientOf(server)
  const limiter: Limiter = opened(rampmeter({ store: redisStore(redis), deadline: '500ms', abuse: {} }))
  await limiter.ready()
  return { server, redis, limiter }
}

it('a suspension holds at once in the process that made it, and no longer than it was made for or until it is lifted', async () => {
  const { server, limiter } = await scene()
  await limiter.review.suspend('key:acme', kim)
  await limiter.review.suspend('key:lifted', kim)
  await limiter.review.lift('key:lifted', kim)
  await limiter.review.suspend('key:timed', { ...kim, until: Date.now() + 3_600_000 })
  server.freeze()
  expect(await limiter.decide({ client: acme })).toMatchObject({
    admitted: false,
    degraded: true,
    reason: 'abuse',
    retryAfterMs: null,
  })
  const lifted = await limiter.decide({ client: { ...acme, id: 'key:lifted' } })
  expect(lifted).toMatchObject({ admitted: true, degraded: true })
  const timed = await limiter.decide({ client: { ...acme, id: 'key:timed' } })
  expect(timed).toMatchObject({ admitted: false, degraded: true, reason: 'abuse' })
  expect(timed.retryAfterMs).toBeGreaterThan(0)
  expect(timed.retryAfterMs).toBeLessThanOrEqual(3_600_000)
  server.thaw()
}, 30_000)

it('an approval holds at once in the process that made it, until it is taken back', async () => {
  const { server, redis } = await scene()
  const limiter: Limiter = opened(
    rampmeter({
      store: redisStore(redis),
      deadline: '500ms',
      identify: [apiKey({ lookup: (key) => ({ id: key }) })],
      routes: { 'GET /wire': { name: 'wire', requireApproval: true } },
    }),
  )
  await limiter.ready()
  const served = await serve(express().use(limiter, (_req, res) => void res.end()))
  for (const id of ['acme', 'lost']) await limiter.review.approve(`key:${id}`, { scope: 'wire', by: 'kim' })
  await limiter.review.revoke('key:lost', { scope: 'wire', by: 'kim' })
  server.freeze()
  const ask = async (key: string): Promise<number> =>
    (await served.ask('/wire', { headers: { 'x-api-key': key } })).status
  expect(await ask('acme')).toBe(200)
  expect(await ask('lost')).toBe(503)
  server.thaw()
}, 30_000)

it('a report that Redis did not take is rejected', async () => {
  const { server, limiter } = await scene()
  await limiter.abuse.report('key:acme', 'dispute', 'ch_1')
  await server.kill()
  await expect(limiter.abuse.report('key:acme', 'dispute', 'ch_2')).rejects.toMatchObject({
    code: 'RAMPMETER_STORE_UNAVAILABLE',
    message: expect.stringMatching(/report it again/),
  })
}, 30_000)

it.each(['Redis', 'memory'])(
  'cases have room for each kind, and end: %s',
  async (where) => {
    const { redis } = await scene()
    const prefix = `${randomUUID()}:`
    const store = (where === 'Redis' ? redisStore(redis, { prefix }) : memoryStore()).open({ nameOf: (name) => name })
    await store.ready()
    const standings = store.standings!
    expect(await standings.putCase('approval', 'a', '1', 2, 60_000)).toBe(true)
    expect(await standings.putCase('approval', 'b', '2', 2, 60_000)).toBe(true)
    expect(await standings.putCase('approval', 'c', '3', 2, 60_000)).toBe(false)
    expect(await standings.putCase('approval', 'a', '4', 2, 60_000)).toBe(true)
    expect(await standings.putCase('denied', 'a', '5', 2, 50)).toBe(true)
    expect((await standings.cases('approval')).sort()).toEqual(['2', '4'])
    await standings.takeCase('approval', 'a')
    expect(await standings.cases('approval')).toEqual(['2'])
    while ((await standings.cases('denied')).length > 0) await new Promise((resolve) => setTimeout(resolve, 20))
    await standings.putCase('suspended', 'a', '6', 10, 60_000)
    await standings.putCase('suspended', 'b', '7', 10, 0)
    await standings.putCase('suspended', 'c', '8', 10, 60_000)
    expect((await standings.cases('suspended')).sort()).toEqual(['6', '7', '8'])

    for (let who = 0; who < 40; who += 1) await standings.vouch('address x', String(who), 60_000 + who)
    const vouchers = await standings.vouchers('address x')
    expect(vouchers).toHaveLength(32)
    expect(vouchers).toContain('39')
    await standings.vouch('address y', 'one', 30)
    while ((await standings.vouchers('address y')).length > 0) await new Promise((resolve) => setTimeout(resolve, 20))
    expect(Math.abs((await standings.now()) - Date.now())).toBeLessThan(60_000)
    if (where === 'Redis') {
      for (const key of ['cases:{approval}', 'cases:{approval}:ends', 'vouchers:{@good:address x}']) {
        expect(await redis.pttl(prefix + key)).toBeGreaterThan(0)
      }
      expect(await redis.pttl(`${prefix}cases:{suspended}`)).toBe(-1)
    }
    await store.close()
  },
  30_000,
)
