// Money on a real Redis Cluster: the account is in another slot than the limits, and comes last.

import type { Cluster } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import { internalsOf, type CreditLedger } from '../../src/payments/ledger.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { hashSlot } from '../../src/stores/redis/hash-slot.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { startClusterWithClock, type TestCluster } from '../cluster.ts'
import { expressVersions, opened, serve, tellDecision, type Served } from '../http/serve.ts'

let cluster: TestCluster
let client: Cluster
let runs = 0

beforeAll(async () => {
  cluster = await startClusterWithClock(Date.UTC(2026, 0, 1) * 1000)
  client = cluster.connect()
}, 60_000)

afterAll(async () => {
  await client.quit()
  await cluster.stop()
})

/** A priced route whose client, tier and account are on the masters given, by their numbers. */
async function shop(
  quota: number,
  ofAccount: number,
): Promise<{ ledger: CreditLedger; account: string; served: Served }> {
  runs += 1
  const prefix = `money-${runs}:`
  const store = redisStore(client, { prefix })
  const ledger = creditLedger({ store, acceptLoss: true })
  const { nameOf } = internalsOf(ledger)
  const masterOf = (name: string): number =>
    [5461, 10_922, 16_384].findIndex((end) => hashSlot(`${prefix}ledger1:{${nameOf(name)}}`) <= end)
  // An account of this run's own: a slot that moves holds no keys of another run.
  let account = ''
  for (let nth = 0; account === '' || masterOf(account) !== ofAccount; nth += 1) account = `account:${runs}-${nth}`
  const limiter = opened(
    rampmeter({
      store,
      policies: [
        tokenBucket({ name: 'client', quota: 1000, window: '1h' }),
        tokenBucket({ name: 'everybody', quota, window: '1h', partition: 'global' }),
      ],
      payments: { ledger, account: () => account, challenges: { quota: 1000, window: '1m' } },
      deadline: '10s',
    }),
  )
  await limiter.ready()
  const app = expressVersions[0]!.express()
  app.get('/render', limiter.route({ price: { credits: 10 } }), tellDecision)
  app.get('/left', limiter.route({ cost: 0 }), tellDecision)
  return { ledger, account, served: await serve(app) }
}

describe.each([0, 1, 2])('an account on master %i', (ofAccount) => {
  it('is charged once all limits have admitted', async () => {
    const { ledger, account, served } = await shop(3, ofAccount)
    await ledger.grant(account, 1000)
    const replies = await Promise.all(Array.from({ length: 8 }, () => served.ask('/render')))
    expect(replies.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([
      200, 200, 200, 429, 429, 429, 429, 429,
    ])
    expect(await ledger.audit(account)).toMatchObject({
      granted: 1000,
      available: 970,
      held: 0,
      spent: 30,
      refunded: 0,
    })
  })

  it('uses no quota where it is empty', async () => {
    const { ledger, account, served } = await shop(100, ofAccount)
    await ledger.grant(account, 25)
    const replies = await Promise.all(Array.from({ length: 8 }, () => served.ask('/render')))
    expect(replies.map(({ status }) => status).toSorted((one, other) => one - other)).toEqual([
      200, 200, 402, 402, 402, 402, 402, 402,
    ])
    const { json } = await served.ask('/left')
    expect(json.limits.map(({ remaining }: { remaining: number }) => remaining)).toEqual([998, 98])
    expect(await ledger.audit(account)).toMatchObject({ granted: 25, available: 5, spent: 20, refunded: 0 })
  })
})

describe('an account whose slot moves to another master', () => {
  it('is touched by nobody until all of it has moved, and loses and doubles nothing', async () => {
    const { ledger, account, served } = await shop(1000, 0)
    await ledger.grant(account, 1000, { idempotencyKey: 'order-1' })
    const { id } = await ledger.hold(account, 100, { ttl: '1h' })
    expect((await served.ask('/render')).status).toBe(200)
    const before = await ledger.audit(account)

    const [source, target] = [cluster.masters[0]!, cluster.masters[1]!]
    const keys = (await source.keys(`money-${runs}:ledger*`)).toSorted()
    const slot = hashSlot(keys[0]!)
    expect((await source.cluster('GETKEYSINSLOT', slot, 1000)).toSorted()).toEqual(keys)
    await cluster.beginMove(slot, 0, 1)
    for (const [nth, key] of keys.entries()) {
      // Whatever has moved already: a repeated purchase, a charge, a hold and a request come to nothing.
      const refused = { code: 'RAMPMETER_STORE_UNAVAILABLE' }
      if (nth % 2 === 1) {
        await expect(ledger.grant(account, 1000, { idempotencyKey: 'order-1' })).rejects.toMatchObject(refused)
        await expect(ledger.capture(id, 60)).rejects.toMatchObject(refused)
      }
      expect((await served.ask('/render')).status).toBe(503)
      await source.migrate('127.0.0.1', target.options.port!, key, 0, 5000)
    }
    await cluster.moveSlot(slot, 1)

    await ledger.grant(account, 1000, { idempotencyKey: 'order-1' })
    expect(await ledger.audit(account)).toEqual(before)
    await ledger.capture(id, 60)
    expect((await served.ask('/render')).status).toBe(200)
    expect(await ledger.audit(account)).toMatchObject({
      granted: 1000,
      available: 920,
      held: 0,
      spent: 80,
      consistent: true,
    })
  }, 60_000)
})
