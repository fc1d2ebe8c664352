// How you test your own API with `rampmeter/testing`: a clock that you turn, a Redis for the run, and the conformance suite for
// a store of your own. Written for node:test, since it needs no installation; with vitest or Jest only the imports differ.
//
//   node --import tsx --test examples/testing-your-api.test.ts
//
// The Redis is a redis-server or valkey-server on the PATH, else Docker, else the one that REDIS_URL names.

// oxlint-disable typescript/no-floating-promises -- node:test itself awaits what is declared here
import assert from 'node:assert/strict'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { memoryStore, redisStore, type Problem, type Store } from 'rampmeter'
import { describeStore, manualClock, startRedis, type TestRedis } from 'rampmeter/testing'
import { createApp } from './testing-your-api.app.ts'
import { timed } from './testing-your-api.store.ts'

const cleanUps: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp()
})

/** Starts the API on a free port, until the test ends, and returns what asks it for a quote. */
async function serve(store: Store): Promise<() => Promise<Response>> {
  const { app, limiter } = createApp(store)
  await limiter.ready()
  const server = app.listen(0)
  await new Promise((resolve) => server.once('listening', resolve))
  cleanUps.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await limiter.close()
  })
  const { port } = server.address() as AddressInfo
  return () => fetch(`http://127.0.0.1:${port}/quote`)
}

describe('the limits, on a clock that the test turns', () => {
  it('serves five at once, then says when to come back, and means it', async () => {
    const clock = manualClock()
    const quote = await serve(memoryStore({ now: clock }))
    for (let nth = 1; nth <= 5; nth++) assert.equal((await quote()).status, 200)

    const refused = await quote()
    assert.equal(refused.status, 429)
    assert.equal(refused.headers.get('retry-after'), '1')
    const toldMs = Number(refused.headers.get('retry-after-ms'))

    clock.advance(toldMs - 1)
    assert.equal((await quote()).status, 429)
    clock.advance(1)
    assert.equal((await quote()).status, 200)
  })

  it('serves twenty a day, in a test that takes no day', async () => {
    const clock = manualClock()
    const quote = await serve(memoryStore({ now: clock }))
    for (let nth = 1; nth <= 20; nth++) {
      assert.equal((await quote()).status, 200)
      clock.advance('1m')
    }

    const refused = await quote()
    assert.equal(refused.status, 429)
    const problem = (await refused.json()) as Problem
    assert.deepEqual(problem['violated-policies'], ['per-day'])

    clock.advance('1d')
    assert.equal((await quote()).status, 200)
  })
})

describe('two processes, on a real Redis', () => {
  let server: TestRedis
  let redis: Redis
  before(async () => {
    server = await startRedis()
    redis = new Redis(server.url)
  })
  after(async () => {
    await redis.quit()
    await server.stop()
  })

  it('give out one quota between them', async () => {
    // A prefix of its own, in case the Redis is one that others use too.
    const prefix = `quotes-test:${process.pid}:`
    const one = await serve(redisStore(redis, { prefix }))
    const other = await serve(redisStore(redis, { prefix }))

    const answers = await Promise.all([one(), other(), one(), other(), one(), other(), one(), other()])
    assert.equal(answers.filter(({ status }) => status === 200).length, 5)
    assert.equal(answers.filter(({ status }) => status === 429).length, 3)
  })
})

describe('a store that tells how long it took', () => {
  it('hears of every decision', async () => {
    const calls: string[] = []
    const quote = await serve(timed(memoryStore(), (call) => calls.push(call)))
    await quote()
    assert.deepEqual(calls, ['decide'])
  })
})

// Keeps the promises of a store: all or none, waits that are true, and the same answers as the stores that come with rampmeter.
describeStore(
  'timed(memoryStore)',
  () => {
    const clock = manualClock()
    return { store: timed(memoryStore({ now: clock }), () => {}), advance: (ms) => void clock.advance(ms) }
  },
  { describe, it },
)
