// What a ledger asks of its Redis, and what becomes of priced routes when it is away.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { runServer } from '../../src/testing/redis-server.ts'
import { expressVersions, keepErrors, opened, serve, tellDecision } from '../http/serve.ts'
import { clientOf, redisProcess } from '../http/redis-process.ts'
import { warningsOf } from '../http/warnings.ts'

async function redisWith(settings: Record<string, string>, denied?: string): Promise<Redis> {
  const server = await runServer(process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server', { settings })
  const at = { port: server.port, host: '127.0.0.1' }
  if (denied !== undefined) {
    const admin = new Redis(at)
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', `-${denied}`)
    admin.disconnect()
  }
  const redis = new Redis({
    ...at,
    ...(denied !== undefined && { username: 'app', password: 'secret', enableReadyCheck: false }),
  })
  onTestFinished(async () => {
    redis.disconnect()
    await server.stop()
  })
  return redis
}

describe('a Redis that could lose money', () => {
  it.each([
    ['keeps no append-only file', { appendonly: 'no' }, undefined, /no append-only file/],
    [
      'evicts',
      { appendonly: 'yes', 'maxmemory-policy': 'allkeys-lru' },
      undefined,
      /evicted \(maxmemory_policy is allkeys-lru\)/,
    ],
    ['does not tell', { appendonly: 'yes' }, 'info', /cannot be read/],
  ])('%s: a mistake at start-up, unless it is accepted', async (_, settings, denied, says) => {
    const store = redisStore(await redisWith(settings, denied))
    const ledger = creditLedger({ store })
    const code = 'RAMPMETER_LEDGER_UNSAFE'
    const warnings = warningsOf(code)
    const heard: { code: string; cause: string }[] = []
    const hear = (message: unknown): void => void heard.push(message as (typeof heard)[0])
    subscribe('rampmeter:degraded', hear)
    onTestFinished(() => void unsubscribe('rampmeter:degraded', hear))
    const limiter = opened(rampmeter({ store, policies: [], payments: { ledger }, deadline: '5s' }))
    expect(limiter.health().ledger).toBe('unknown')
    // Who does not wait for it is told too, and not only on the first request.
    await expect.poll(async () => (await warnings()).length).toBe(1)
    expect((await warnings())[0]!.message).toMatch(says)
    expect(heard).toEqual([expect.objectContaining({ code, cause: expect.stringMatching(says) as string })])
    expect(limiter.health()).toEqual({ store: 'degraded', ledger: 'unsafe' })
    await expect(limiter.ready()).rejects.toMatchObject({ code, message: expect.stringMatching(says) as string })
    await expect(ledger.grant('key:acme', 5)).rejects.toMatchObject({ code })

    const { handler, errors } = keepErrors()
    const app = expressVersions[0]!.express()
    app.get('/', limiter.route({ price: { credits: 1 } }), tellDecision)
    app.use(handler)
    const served = await serve(app)
    const { status, headers, json } = await served.ask()
    expect({ status, retry: headers['retry-after'], cached: headers['cache-control'] }).toEqual({
      status: 503,
      retry: '60',
      cached: 'no-store',
    })
    expect(json.detail).toBe(
      'Credits are not charged here at the moment, since they could be lost where they are kept; nothing was taken; try again in about 60 s.',
    )
    expect(errors).toEqual([])
    expect((await warnings()).length).toBe(1)

    const accepting = creditLedger({ store, acceptLoss: true })
    onTestFinished(() => accepting.close())
    await accepting.ready()
  })

  it('is taken again once it is set up as it should be', async () => {
    const redis = await redisWith({ appendonly: 'no' })
    const store = redisStore(redis)
    const ledger = creditLedger({ store })
    const limiter = opened(
      rampmeter({ store, policies: [], payments: { ledger, account: () => 'key:acme' }, deadline: '5s' }),
    )
    await expect(limiter.ready()).rejects.toMatchObject({ code: 'RAMPMETER_LEDGER_UNSAFE' })
    await redis.config('SET', 'appendonly', 'yes')
    await expect.poll(() => limiter.health()).toEqual({ store: 'up', ledger: 'safe' })
    await limiter.ready()
    await ledger.grant('key:acme', 1)
  })

  it('is found out where it was set up otherwise later: at once by ready(), else within seconds', async () => {
    const redis = await redisWith({ appendonly: 'yes' })
    const store = redisStore(redis)
    const ledger = creditLedger({ store })
    const limiter = opened(
      rampmeter({ store, policies: [], payments: { ledger, account: () => 'key:acme' }, deadline: '5s' }),
    )
    await limiter.ready()
    await ledger.grant('key:acme', 1)
    await redis.config('SET', 'appendonly', 'no')
    await expect(ledger.ready()).rejects.toMatchObject({ code: 'RAMPMETER_LEDGER_UNSAFE' })
    await redis.config('SET', 'appendonly', 'yes')
    await ledger.ready()
    await redis.config('SET', 'appendonly', 'no')
    expect(limiter.health()).toEqual({ store: 'up', ledger: 'safe' })
    const now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => now + 11_000)
    onTestFinished(() => void vi.restoreAllMocks())
    await expect.poll(() => limiter.health()).toEqual({ store: 'degraded', ledger: 'unsafe' })
    await expect(ledger.grant('key:acme', 1)).rejects.toMatchObject({ code: 'RAMPMETER_LEDGER_UNSAFE' })
  })

  it('keeps an append-only file and evicts nothing: it is safe', async () => {
    const store = redisStore(await redisWith({ appendonly: 'yes' }))
    const ledger = creditLedger({ store })
    onTestFinished(() => ledger.close())
    await ledger.ready()
    expect(await ledger.grant('key:acme', 5)).toMatchObject({ balance: { available: 5, held: 0 } })
  })

  it('in memory no yes is needed', async () => {
    await creditLedger({ store: memoryStore() }).ready()
  })
})

describe.each(['local', 'open', 'closed'] as const)('without its Redis, onStoreError %s', (onStoreError) => {
  it('a priced route is closed, others do as they are told', async () => {
    const server = await redisProcess()
    await server.start()
    const store = redisStore(clientOf(server))
    const ledger = creditLedger({ store, acceptLoss: true })
    const limiter = opened(
      rampmeter({
        store,
        policies: [tokenBucket({ quota: 100, window: '1h' })],
        payments: { ledger, account: () => 'key:acme' },
        onStoreError,
        deadline: '2s',
      }),
    )
    await limiter.ready()
    await ledger.grant('key:acme', 10)
    const app = expressVersions[0]!.express()
    app.get('/paid', limiter.route({ price: { credits: 1 } }), tellDecision)
    app.get('/free', limiter.route({}), tellDecision)
    const served = await serve(app)
    expect((await served.ask('/paid')).status).toBe(200)
    await server.kill()

    const refused = await served.ask('/paid')
    expect(refused.status).toBe(503)
    expect(refused.headers['retry-after']).toBeDefined()
    expect(refused.headers['cache-control']).toBe('no-store')
    expect(refused.json.detail).toMatch(/nothing was taken|taken for this request is given back/)
    // Now it is not asked any more.
    await expect.poll(async () => (await served.ask('/paid')).json.detail as string).toContain('nothing was taken')
    expect((await served.ask('/free')).status).toBe(onStoreError === 'closed' ? 503 : 200)
    await expect(ledger.grant('key:acme', 1)).rejects.toMatchObject({
      code: 'RAMPMETER_STORE_UNAVAILABLE',
      message: expect.stringContaining('nothing was done') as string,
    })
  })
})

describe('a charge whose answer was lost', () => {
  it('is given back once the ledger answers again', async () => {
    const server = await redisProcess()
    await server.start()
    const store = redisStore(clientOf(server))
    const ledger = creditLedger({ store, acceptLoss: true })
    const limiter = opened(
      rampmeter({ store, policies: [], payments: { ledger, account: () => 'key:acme' }, deadline: '200ms' }),
    )
    await limiter.ready()
    await ledger.grant('key:acme', 10)
    const app = expressVersions[0]!.express()
    app.get('/paid', limiter.route({ price: { credits: 4 } }), tellDecision)
    const served = await serve(app)
    expect((await served.ask('/paid')).status).toBe(200)

    server.freeze()
    const { status, json } = await served.ask('/paid')
    expect([status, json.detail]).toEqual([503, expect.stringContaining('Whether credits were taken is not known')])
    server.thaw()
    await limiter.flush()
    await expect.poll(() => ledger.balance('key:acme'), { timeout: 10_000 }).toEqual({ available: 6, held: 0 })
    expect(await ledger.audit('key:acme')).toMatchObject({ granted: 10, available: 6, held: 0, consistent: true })
  })
})

it('a refund by the request whose answer was lost is made once, however often it is said', async () => {
  const server = await redisProcess()
  await server.start()
  const store = redisStore(clientOf(server))
  const ledger = creditLedger({ store, acceptLoss: true, deadline: '300ms' })
  const limiter = opened(
    rampmeter({ store, policies: [], payments: { ledger, account: () => 'key:acme' }, deadline: '2s' }),
  )
  await limiter.ready()
  await ledger.grant('key:acme', 10)
  const app = expressVersions[0]!.express()
  app.get('/', limiter.route({ price: { credits: 6 } }), async (req, res) => {
    const payment = req.rateLimit!.payment!
    server.freeze()
    const lost = await payment.refund(2).catch(({ message }: Error) => message)
    server.thaw()
    for (;;) {
      if (
        await payment.refund(2).then(
          () => true,
          () => false,
        )
      )
        break
    }
    await payment.refund(2)
    res.json({ lost, credits: payment.credits })
  })
  const { json } = await (await serve(app)).ask()
  expect(json).toEqual({ lost: expect.stringContaining('may have been done') as string, credits: 2 })
  await expect.poll(() => ledger.balance('key:acme')).toEqual({ available: 8, held: 0 })
})

describe('a Redis restored from yesterday', () => {
  it('has the account of yesterday, consistent with its history, and takes again what it is told again', async () => {
    const redis = await redisWith({ appendonly: 'yes' })
    const ledger = opened(creditLedger({ store: redisStore(redis) }))
    await ledger.grant('key:acme', 100, { idempotencyKey: 'evt_1' })
    const keys = await redis.keys('*')
    const backup = await Promise.all(
      keys.map(async (key) => [key, await redis.pttl(key), await redis.dumpBuffer(key)] as const),
    )

    await ledger.grant('key:acme', 50, { idempotencyKey: 'evt_2' })
    const { id } = await ledger.hold('key:acme', 30, { ttl: '1h' })
    await redis.flushall()
    for (const [key, ttl, value] of backup) await redis.restore(key, Math.max(0, ttl), value)

    expect(await ledger.balance('key:acme')).toEqual({ available: 100, held: 0 })
    expect(await ledger.audit('key:acme')).toMatchObject({ consistent: true })
    await expect(ledger.capture(id)).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_CHARGE' })
    for (const event of ['evt_1', 'evt_2']) {
      await ledger.grant('key:acme', event === 'evt_1' ? 100 : 50, { idempotencyKey: event })
    }
    expect(await ledger.balance('key:acme')).toEqual({ available: 150, held: 0 })
  })
})
