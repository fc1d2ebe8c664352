// Signals at absurd rates, and more clients than anybody has: bounded, reported, and nobody is the worse for it.

import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { Observer } from '../../src/abuse/observer.ts'
import { numbersOf, presetLadder } from '../../src/abuse/ladder.ts'
import { abuseOption } from '../../src/abuse/options.ts'
import { memoryStore, rampmeter, redisStore } from '../../src/index.ts'
import { signalNames, type ConductEvent, type Observation, type Observed, type Standings } from '../../src/standing.ts'
import { MemoryStandings } from '../../src/stores/standings.ts'
import type { TestRedis } from '../../src/testing/start-redis.ts'
import { startTestRedis } from '../redis.ts'
import { warningsOf } from '../http/warnings.ts'

const { rules } = abuseOption.parse({})
const by = numbersOf(presetLadder())
const { ladder } = by
const event: ConductEvent = {
  atUs: 0,
  outcome: 1,
  toldUs: 0,
  tag: 1,
  target: 7,
  sequence: 7,
  endpoint: 1,
  place: 1,
  software: 1,
  placeIsKnown: 0,
  result: 2,
  adds: [],
}

/** Standings that answer when they are let. */
function slowStandings() {
  const calls: (readonly Observation[])[] = []
  const waiting: (() => void)[] = []
  const memory = new MemoryStandings(() => Date.now() * 1000, 100_000)
  const standings = {
    async observe(observations: readonly Observation[]): Promise<Observed[]> {
      calls.push(observations)
      await new Promise<void>((resolve) => waiting.push(resolve))
      return await memory.observe(observations, rules)
    },
  } as unknown as Standings
  return { calls, standings, answer: () => waiting.splice(0).forEach((resolve) => resolve()) }
}

describe('signals at absurd rates', () => {
  it('are sent two calls at a time, 128 of a client and 2000 clients a call, and what is dropped is reported once', async () => {
    const warnings = warningsOf('RAMPMETER_SIGNALS_DROPPED')
    const { calls, standings, answer } = slowStandings()
    const observer = new Observer({ standings: () => standings, rules, onObserved: () => {}, onFailure: () => {} })
    const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
    for (let round = 0; round < 5; round += 1) {
      for (let count = 0; count < 1000; count += 1) observer.add('key:loud', by, event)
      for (let client = 0; client < 5000; client += 1) observer.add(`key:${client}`, by, event)
      await turn()
    }
    // Nothing has been answered yet.
    expect(calls).toHaveLength(2)
    for (const call of calls) {
      expect(call.length).toBeLessThanOrEqual(2000)
      expect(call.find(({ partition }) => partition === 'key:loud')!.events).toHaveLength(128)
    }
    expect(await warnings()).toHaveLength(1)
    const flushed = observer.flush()
    for (let waits = 0; waits < 5; waits += 1) {
      answer()
      await turn()
    }
    await flushed
    expect(calls).toHaveLength(3)
  })

  it('never throw, whatever the store does', async () => {
    const failures: unknown[] = []
    const standings = {
      observe: () => {
        throw new Error('no')
      },
    } as unknown as Standings
    const observer = new Observer({
      standings: () => standings,
      rules,
      onObserved: () => {},
      onFailure: (error) => failures.push(error),
    })
    observer.add('key:one', by, event)
    await observer.flush()
    expect(failures).toHaveLength(1)
  })

  it('hold a count to six thresholds, so that nobody is punished for ever', async () => {
    let nowUs = 1e15
    const standings = new MemoryStandings(() => nowUs, 100)
    const disputes = signalNames.indexOf('disputes')
    const loud: ConductEvent = { ...event, outcome: 0, software: 0, adds: [disputes, 1e15] }
    for (let count = 0; count < 100; count += 1) {
      await standings.observe([{ partition: 'key:one', ladder, events: [loud] }], rules)
    }
    // Six thresholds fall below one in three half-lives of a day.
    nowUs += 3 * 24 * 3_600_000_000
    const quiet = { ...event, outcome: 0, software: 0 } as const
    const [observed] = await standings.observe([{ partition: 'key:one', ladder, events: [quiet] }], rules)
    expect(observed).toMatchObject({ score: 0, step: 0 })
  })
})

describe('very many clients that come once', () => {
  it('push one another out of memory, and nobody out whom people decided about', async () => {
    const limiter = rampmeter({ store: memoryStore({ maxKeys: 500 }), abuse: {} })
    onTestFinished(() => limiter.close())
    await limiter.review.suspend('key:suspended', { by: 'kim', reason: 'fraud' })
    await limiter.abuse.report('key:first', 'dispute')
    await limiter.abuse.report('key:first', 'dispute')
    expect((await limiter.review.get('key:first')).score).toBeGreaterThan(0)
    for (let client = 0; client < 2000; client += 1) await limiter.abuse.report(`key:${client}`, 'failed-charge')
    expect((await limiter.review.get('key:first')).score).toBe(0)
    expect((await limiter.review.get('key:suspended')).step).toBe('suspend')
  })

  it('do so however many people decided about before', async () => {
    const limiter = rampmeter({ store: memoryStore({ maxKeys: 500 }), abuse: {} })
    onTestFinished(() => limiter.close())
    for (let client = 0; client < 600; client += 1) {
      await limiter.assign(`key:customer-${client}`, { tier: 'premium', by: 'kim' })
    }
    const dispute = async (id: string): Promise<void> => {
      await limiter.abuse.report(id, 'dispute')
      await limiter.abuse.report(id, 'dispute')
    }
    const scoreOf = async (id: string): Promise<number> => (await limiter.review.get(id)).score!
    await dispute('key:first')
    await dispute('key:customer-1')
    for (let client = 0; client < 400; client += 1) await limiter.abuse.report(`key:${client}`, 'failed-charge')
    expect(await scoreOf('key:first')).toBeGreaterThan(0)
    for (let client = 400; client < 2000; client += 1) await limiter.abuse.report(`key:${client}`, 'failed-charge')
    expect(await scoreOf('key:first')).toBe(0)
    expect(await scoreOf('key:customer-1')).toBeGreaterThan(0)
    expect((await limiter.review.get('key:customer-599')).assignment?.tier).toBe('premium')
    // What is taken back makes it one of the others.
    await limiter.unassign('key:customer-1', { by: 'kim' })
    for (let client = 0; client < 600; client += 1) await limiter.abuse.report(`key:${client}`, 'failed-charge')
    expect(await scoreOf('key:customer-1')).toBe(0)
  })

  describe('on Redis', () => {
    let server: TestRedis
    beforeAll(async () => {
      server = await startTestRedis()
    })
    afterAll(() => server.stop())

    it('leave a small key each, which expires', async () => {
      const redis = new Redis(server.url)
      const prefix = `${randomUUID()}:`
      const store = redisStore(redis, { prefix }).open({ nameOf: (name) => name })
      onTestFinished(async () => {
        await store.close()
        redis.disconnect()
      })
      await store.ready()
      const observations = Array.from({ length: 200 }, (_, client) => ({
        partition: `key:${client}`,
        ladder,
        events: [event],
      }))
      await store.standings!.observe(observations, rules)
      const keys = await redis.keys(`${prefix}*`)
      expect(keys).toHaveLength(200)
      for (const key of keys.slice(0, 20)) {
        const left = await redis.pttl(key)
        expect(left).toBeGreaterThan(0)
        // What a missing target leaves is forgotten after two half-lives of 12 hours.
        expect(left).toBeLessThanOrEqual(24 * 3_600_000)
        expect((await redis.hgetall(key))['v']!.length).toBeLessThan(300)
      }
    })
  })
})
