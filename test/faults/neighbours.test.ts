// One client's counters may be as full as they get: what Redis does for a decision about it stays bounded, so that nobody else
// waits for it. Commands are counted and not timed: a busy machine does not change them.

import { Redis } from 'ioredis'
import { expect, it, onTestFinished } from 'vitest'
import type { Policy } from '../../src/policy.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { floodOne } from './flood.ts'
import { running } from './server.ts'

/** How many commands a decision runs in Redis: about a new client, and about one whose quota and retry schedule are full. */
async function commandsFor(policies: readonly Policy[], quota: number): Promise<{ fresh: number; full: number }> {
  const one = await running(async () => [])
  onTestFinished(() => one.stop())
  const given = new Redis(one.port, { lazyConnect: true })
  const limiter = rampmeter({
    // Each decision is made in Redis, and nothing else is there.
    store: redisStore(given, { rememberRefusals: false }),
    policies,
    processes: 1,
    deadline: '10s',
  })
  onTestFinished(async () => {
    await limiter.close()
    given.disconnect()
  })
  await limiter.ready()
  const admin = one.admin()

  async function decided(id: string): Promise<number> {
    await admin.config('RESETSTAT')
    expect(await limiter.decide({ client: { id } })).toMatchObject({ degraded: false })
    const calls = (await admin.info('commandstats')).matchAll(/^cmdstat_([\w|]+):calls=(\d+)/gm)
    return Array.from(calls, ([, name, count]) => (/^(config|info|ping)/.test(name!) ? 0 : Number(count))).reduce(
      (sum, count) => sum + count,
      0,
    )
  }

  const fresh = await decided('key:new')
  let refused = 0
  for (let round = 0; round < quota / 100 + 5; round += 1) {
    const decisions = await Promise.all(
      Array.from({ length: 100 }, () => limiter.decide({ client: { id: 'key:full' } })),
    )
    refused += decisions.filter(({ admitted }) => !admitted).length
  }
  expect(refused).toBeGreaterThanOrEqual(400)
  return { fresh, full: await decided('key:full') }
}

it('a client that has used everything up costs Redis as many commands as a new one, give or take a few', async () => {
  const quota = 1000
  const policies = [
    slidingWindow({ name: 'window', quota, window: '1h' }),
    tokenBucket({ name: 'bucket', quota, window: '1h' }),
  ]
  const { fresh, full } = await commandsFor(policies, quota)
  expect(fresh).toBeGreaterThan(1)
  expect(full).toBeLessThanOrEqual(fresh + 3)
})

it.each([1000, 3000])('and so does a log, of which no more than a part is read: %i', async (quota) => {
  const { fresh, full } = await commandsFor([slidingLog({ name: 'log', quota, window: '1h' })], quota)
  // 1024 entries, in parts of 32 to 256.
  expect(full).toBeLessThanOrEqual(fresh + 9)
})

it('a client that asks a thousand times in one turn has another, who asks after it, go before most of them', async () => {
  const { before } = await floodOne()
  // What travelled in the same call, and what was answered in the same turn.
  expect(before).toBeLessThanOrEqual(128)
})
