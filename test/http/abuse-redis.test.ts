// What people decide holds in all processes at once, and while Redis is away as it was last known.

import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { rampmeter, redisStore, type Limiter } from '../../src/index.ts'
import { startRedis, type TestRedis } from '../../src/testing/start-redis.ts'

let server: TestRedis
beforeAll(async () => {
  server = await startRedis()
})
afterAll(() => server.stop())

const acme = { id: 'key:acme', tier: 'agent' } as const

async function limiters(count: number): Promise<{ redis: Redis; all: Limiter[] }> {
  const redis = new Redis(server.url)
  const prefix = `${randomUUID()}:`
  const all = Array.from({ length: count }, () =>
    rampmeter({ store: redisStore(redis, { prefix }), deadline: '2s', abuse: {} }),
  )
  await Promise.all(all.map((limiter) => limiter.ready()))
  onTestFinished(async () => {
    await Promise.all(all.map((limiter) => limiter.close()))
    redis.disconnect()
  })
  return { redis, all }
}

it('reaches all processes with their next decision', async () => {
  const [one, other] = (await limiters(2)).all as [Limiter, Limiter]
  expect(await other.decide({ client: acme })).toMatchObject({ admitted: true, abuse: { step: 'allow', score: 0 } })
  await one.review.suspend('key:acme', { by: 'kim', reason: 'fraud' })
  expect(await other.decide({ client: acme })).toMatchObject({ admitted: false, reason: 'abuse', retryAfterMs: null })
  await other.reset('key:acme')
  expect((await other.decide({ client: acme })).admitted).toBe(false)
  await other.review.lift('key:acme', { by: 'kim', reason: 'sorry' })
  expect((await one.decide({ client: acme })).admitted).toBe(true)

  await one.assign('key:acme', { tier: 'premium', by: 'kim' })
  const decision = await other.decide({ client: acme })
  expect(decision.client.tier).toBe('premium')
  expect(decision.limits[0]).toMatchObject({ quota: 2000 })
  expect(await one.review.get('key:acme')).toMatchObject({
    assignment: { tier: 'premium', by: 'kim' },
    suspension: null,
  })
  expect((await one.review.audit('key:acme')).map(({ action }) => action)).toEqual(['suspend', 'lift', 'assign'])
})

it('counts a report with an id once, whichever process hears of it, of each client and signal by itself', async () => {
  const { redis, all } = await limiters(2)
  const [one, other] = all as [Limiter, Limiter]
  const score = async (id: string): Promise<number | null> => (await one.review.get(id)).score
  for (let count = 0; count < 3; count += 1) {
    await one.abuse.report('key:acme', 'dispute', { id: 'evt_1', detail: 'charge ch_1' })
    await other.abuse.report('key:acme', 'disputes', { id: 'evt_1' })
  }
  expect(await score('key:acme')).toBe(0)
  await other.abuse.report('key:acme', 'failed-charge', { id: 'evt_1' })
  await other.abuse.report('key:other', 'dispute', { id: 'evt_1' })
  expect(await score('key:acme')).toBe(0)
  // The second one is at the threshold.
  await Promise.all([one, other].map((limiter) => limiter.abuse.report('key:acme', 'dispute', { id: 'evt_2' })))
  expect(await score('key:acme')).toBe(25)
  await one.review.lift('key:acme', { by: 'kim', reason: 'sorry' })
  await other.abuse.report('key:acme', 'dispute', { id: 'evt_2' })
  expect(await score('key:acme')).toBe(0)
  const keys = await redis.keys('*reports:*')
  expect(keys.length).toBe(2)
  for (const key of keys) {
    const ttl = await redis.pttl(key)
    expect(ttl).toBeGreaterThan(29 * 24 * 3_600_000)
    expect(ttl).toBeLessThanOrEqual(30 * 24 * 3_600_000)
    expect((await redis.zrange(key, '0', '-1')).join()).not.toContain('evt')
  }
})

it('counts what one process reports where the other decides, and lists its incident', async () => {
  const [one, other] = (await limiters(2)).all as [Limiter, Limiter]
  for (let count = 0; count < 6; count += 1) await one.abuse.report('key:acme', 'dispute', `charge ch_${count}`)
  const decision = await other.decide({ client: acme })
  expect(decision).toMatchObject({ admitted: false, reason: 'abuse', abuse: { step: 'deny', signals: ['disputes'] } })
  expect(decision.retryAfterMs).toBeGreaterThan(0)
  await one.flush()
  const [incident] = await other.incidents.list({ label: 'transactional-abuse' })
  expect(incident).toMatchObject({ client: { id: 'key:acme' }, step: 'deny' })
  expect(incident!.evidence['disputes']!.detail).toMatch(/^charge ch_/)
  expect(await other.edge.export({ format: 'json' })).toMatchObject([{ clientId: 'key:acme', state: 'denied' }])
})
