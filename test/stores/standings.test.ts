// The memory store and Redis come to the same standing, to the last millionth: random conduct is played to both.

import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { abuseOption } from '../../src/abuse/options.ts'
import { numbersOf, presetLadder } from '../../src/abuse/ladder.ts'
import { decayed, stepOn } from '../../src/policies/standing.ts'
import {
  signalNames,
  type ConductEvent,
  type ConductRules,
  type Observation,
  type SignalName,
  type StandingQuery,
} from '../../src/standing.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, OpenStore } from '../../src/stores/store.ts'
import { hourUs, memoryStage, minuteUs, redisStage, secondUs, type TimedStore } from '../promises/histories.ts'

const { rules } = abuseOption.parse({})
const { ladder, share, idle } = numbersOf(presetLadder())
/** Of a route: it denies early, and late. */
const strict = numbersOf([{ step: 'deny', above: 20, below: 10 }]).ladder
const mild = numbersOf([{ step: 'deny', above: 150, below: 50 }]).ladder
const ladders = [ladder, strict, mild, ladder]
/** As in histories.ts. */
const depth = Math.max(1, Number(process.env['RAMPMETER_RUNS'] || 1))
/** Rules by which every count shows in the score. */
const telling: ConductRules = {
  ...rules,
  signals: rules.signals.map((rule, place) => ({ ...rule, weight: 1001 + 13 * place, threshold: 1_000_000, needs: 0 })),
}

let onRedis: Awaited<ReturnType<typeof redisStage>>
const inMemory = memoryStage()

beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

const query: StandingQuery = {
  enforce: true,
  answered: false,
  scope: 0,
  halfLifeUs: rules.halfLifeUs,
  share,
  ladder,
  idle,
}

/** Whose counters a decision charges: the client's own, one for everybody, or both. */
const counters: readonly (readonly ('own' | 'common')[])[] = [['own'], ['common'], ['common', 'own'], ['own', 'common']]

function decisionOf(
  partition: string,
  standing: StandingQuery = query,
  counted: readonly ('own' | 'common')[] = ['own'],
): Parameters<OpenStore['decide']>[0] {
  const own: Charge = {
    kind: 'token-bucket',
    stateId: 7,
    partition,
    windowUs: minuteUs,
    quota: 60,
    capacity: 20,
    cost: 1,
    liftable: false,
    shadow: false,
  }
  const common: Charge = {
    ...own,
    stateId: 9,
    partition: '@global',
    holder: partition.length + partition.charCodeAt(4),
  }
  const asked: Charge = { ...own, kind: 'standing', stateId: 8, quota: 1, capacity: 1, cost: 0, after: true, standing }
  return { charges: [...counted.map((whose) => (whose === 'own' ? own : common)), asked], undo: [], commit: true }
}

const nothing: ConductEvent = {
  atUs: 0,
  outcome: 0,
  toldUs: 0,
  tag: 0,
  target: -1,
  sequence: -1,
  endpoint: 0,
  place: 0,
  software: 0,
  placeIsKnown: 0,
  result: 0,
  adds: [],
}

/** An event, whose times are told from now. */
interface Act {
  readonly pauseUs: number
  readonly partition: string
  readonly does: 'observe' | 'report' | 'decide' | 'suspend' | 'lift' | 'assign' | 'approve' | 'reset'
  readonly events: readonly (Omit<ConductEvent, 'atUs' | 'toldUs'> & { readonly toldInUs: number })[]
}

const someEvent = fc.record({
  outcome: fc.constantFrom<(0 | 1 | 2 | 3 | 4)[]>(0, 1, 1, 2, 2, 3, 4),
  toldInUs: fc.constantFrom(0, 800_000, 2 * secondUs, 30 * secondUs),
  tag: fc.nat(2),
  target: fc.oneof(fc.constant(-1), fc.nat(40), fc.nat(2047)),
  sequence: fc.oneof(fc.constant(-1), fc.nat(6)),
  endpoint: fc.nat(4),
  place: fc.nat(9),
  software: fc.nat(9),
  placeIsKnown: fc.constantFrom<(0 | 1)[]>(0, 1),
  result: fc.constantFrom<(0 | 1 | 2 | 3 | 4)[]>(0, 1, 2, 3, 4),
  adds: fc
    .array(fc.tuple(fc.nat(signalNames.length - 1), fc.integer({ min: -2_000_000, max: 20_000_000 })), { maxLength: 3 })
    .map((pairs) => pairs.flat()),
})

const someAct: fc.Arbitrary<Act> = fc.record({
  pauseUs: fc.oneof(
    { weight: 6, arbitrary: fc.nat(5 * secondUs) },
    { weight: 2, arbitrary: fc.nat(10 * minuteUs) },
    { weight: 1, arbitrary: fc.nat(3 * hourUs) },
  ),
  partition: fc.constantFrom('key:one', 'key:two', 'ip:192.0.2.1'),
  does: fc.constantFrom(
    'observe',
    'observe',
    'observe',
    'observe',
    'report',
    'decide',
    'decide',
    'suspend',
    'lift',
    'assign',
    'approve',
    'reset',
  ),
  events: fc.array(someEvent, { minLength: 1, maxLength: 12 }),
})

/** A client that asks for few things, and is often told to wait. */
const someImpatience: fc.Arbitrary<Act> = fc.record({
  pauseUs: fc.oneof({ weight: 9, arbitrary: fc.nat(3 * secondUs) }, { weight: 1, arbitrary: fc.nat(2 * minuteUs) }),
  partition: fc.constant('key:one'),
  does: fc.constant('observe'),
  events: fc.array(
    someEvent.map((event) => ({ ...event, tag: 1, target: event.target % 8, adds: [] })),
    { minLength: 1, maxLength: 40 },
  ),
})

async function act(place: TimedStore, { does, partition, events }: Act, by: ConductRules): Promise<unknown> {
  const { store } = place
  const { standings } = store
  const now = place.timeUs()
  const observation: Observation = {
    partition,
    ladder: ladders[events.length % 4]!,
    events: events.map(({ toldInUs, ...event }) => ({ ...event, atUs: now, toldUs: now + toldInUs })),
  }
  switch (does) {
    case 'observe':
      return await standings!.observe([observation], by)
    case 'report':
      // The second has no id, so that each finds its own keys.
      return await standings!.observe([{ ...observation, once: `id-${events.length % 3}` }, observation], by)
    case 'decide':
      return await store.decide(
        decisionOf(
          partition,
          {
            ...query,
            ladder: ladders[(events.length + 1) % 4]!,
            scope: events.length % 2,
            idle: events.length % 16,
          },
          counters[(events[0]!.endpoint + events.length) % 4],
        ),
      )
    case 'suspend':
      return await standings!.rule(partition, { set: { s: String(now + minuteUs), ds: '{}' }, take: [], audit: 'a' })
    case 'lift':
      return await standings!.rule(partition, { set: {}, take: ['s', 'ds', 'b', 'v'], audit: 'b' })
    case 'assign':
      return await standings!.rule(partition, { set: { t: '4000000000', u: '0' }, take: [], audit: '' })
    case 'approve':
      return await standings!.rule(partition, { set: { 'a:1': '1' }, take: [], audit: 'c' })
    case 'reset':
      return await store.reset(partition, [7])
  }
}

describe('standings', () => {
  it.each([
    ['by the presets', rules, someAct, 100],
    ['where each count shows', telling, someAct, 100],
    ['of the impatient, where each count shows', telling, someImpatience, 200],
  ])(
    'are the same in both stores %s',
    async (_, by, some, runs) => {
      await fc.assert(
        fc.asyncProperty(fc.array(some, { minLength: 5, maxLength: 15 }), async (acts) => {
          const [memory, redis] = [inMemory.fresh(), onRedis.fresh()]
          for (const one of acts) {
            memory.advanceUs(one.pauseUs)
            redis.setTimeUs(memory.timeUs())
            expect(await act(redis, one, by)).toEqual(await act(memory, one, by))
          }
          for (const partition of ['key:one', 'key:two']) {
            expect(await redis.store.standings!.trail(partition)).toEqual(
              await memory.store.standings!.trail(partition),
            )
          }
        }),
        // A busy machine plays fewer of them, and a disagreement is told before it is as small as it could be.
        { ...onRedis.runs(runs), interruptAfterTimeLimit: 30_000 * depth },
      )
    },
    60_000 * depth,
  )
})

it('what one client did says nothing of another that shares a counter with it', async () => {
  const remembering = redisStore(onRedis.redis, { prefix: `${randomUUID()}:` }).open({
    nameOf: (partition) => partition,
  })
  await remembering.ready()
  for (const store of [inMemory.fresh().store, remembering]) {
    for (const counted of counters) {
      const ask = async (partition: string): Promise<boolean> =>
        (await store.decide(decisionOf(partition, query, counted))).admitted
      expect(await ask('key:one')).toBe(true)
      await store.standings!.rule('key:one', { set: { s: '-1', ds: '{}' }, take: [], audit: 'a' })
      const asked: boolean[] = []
      for (let times = 0; times < 3; times += 1) asked.push(await ask('key:one'), await ask('key:two'))
      expect(asked).toEqual([false, true, false, true, false, true])
      await store.standings!.rule('key:one', { set: {}, take: ['s', 'ds'], audit: 'b' })
      expect(await ask('key:one')).toBe(true)
    }
  }
  await remembering.close()
})

it('a step on the ladder of one route is none on another, and is not lost there, in both stores', async () => {
  async function playTo(place: TimedStore): Promise<unknown> {
    const { standings } = place.store
    const offend = async (
      by: readonly number[],
      count: number,
      signal: SignalName = 'missing-targets',
    ): Promise<number> => {
      const adds = [signalNames.indexOf(signal), count * 1_000_000]
      const events = [{ ...nothing, outcome: 1 as const, adds }]
      const [observed] = await standings!.observe([{ partition: 'key:one', ladder: by, events }], rules)
      return observed!.step
    }
    const stepBy = async (by: readonly number[]): Promise<number> => {
      const { outcomes } = await place.store.decide(decisionOf('key:one', { ...query, ladder: by }))
      return outcomes.at(-1)!.remaining % 8
    }
    const all = async (): Promise<number[]> => [await stepBy(ladder), await stepBy(strict), await stepBy(mild)]
    const told: unknown[] = []
    // 45 points, seen by the strict ladder first, and then by the common one.
    told.push(await offend(strict, 45), await all())
    told.push(await offend(ladder, 0), await all())
    // 75, and decayed to 53: still denied, as it was, whatever a mild ladder says meanwhile.
    told.push(await offend(ladder, 30), await all())
    place.setTimeUs(place.timeUs() + 5 * minuteUs)
    told.push(await offend(mild, 0), await all())
    // Below 10 and back at 15: it was let in meanwhile.
    place.setTimeUs(place.timeUs() + 45 * minuteUs)
    told.push(await offend(ladder, 150, 'client-errors'), await all())
    return told
  }
  const [memory, redis] = await Promise.all([inMemory.fresh(), onRedis.fresh()].map(playTo))
  expect(redis).toEqual(memory)
  expect(memory).toEqual([3, [2, 3, 0], 2, [2, 3, 0], 3, [3, 3, 0], 0, [3, 3, 0], 0, [0, 0, 0]])
})

it('who was lifted is remembered for as long as what came after it says, in both stores', async () => {
  async function playTo(place: TimedStore): Promise<unknown> {
    const { standings } = place.store
    const observe = async (event: Partial<ConductEvent>): Promise<unknown> =>
      await standings!.observe([{ partition: 'key:one', ladder, events: [{ ...nothing, ...event }] }], telling)
    // Half a day's worth.
    await observe({ adds: [signalNames.indexOf('slow-enumeration'), 5_000_000] })
    await standings!.rule('key:one', { set: {}, take: ['s', 'ds', 'b', 'v'], audit: '' })
    for (const target of [1, 2, 3]) await observe({ outcome: 1, target })
    place.setTimeUs(place.timeUs() + 2 * hourUs)
    // Its first request again, which marks nothing.
    await observe({ outcome: 1, target: 4, result: 1 })
    return await observe({ outcome: 1, target: 4, result: 2 })
  }
  const [memory, redis] = await Promise.all([inMemory.fresh(), onRedis.fresh()].map(playTo))
  expect(memory).toEqual(redis)
})

describe('what is reported by an id', () => {
  const disputes = signalNames.indexOf('disputes')

  async function playTo(place: TimedStore): Promise<number[]> {
    const scores: number[] = []
    const report = async (once: string): Promise<void> => {
      const event: ConductEvent = { ...nothing, adds: [disputes, 1_000_000] }
      const [observed] = await place.store.standings!.observe(
        [{ partition: 'key:one', ladder, events: [event], once }],
        telling,
      )
      scores.push(observed!.score)
    }
    for (const once of ['a', 'a', 'b', 'a']) await report(once)
    // Of the latest thousand, neither is one any more.
    for (let nth = 0; nth < 1000; nth += 1) await report(`n${nth}`)
    await place.store.standings!.rule('key:one', { set: {}, take: ['b', 'v'], audit: '' })
    place.advanceUs(secondUs)
    for (const once of ['n999', 'a', 'a']) await report(once)
    place.advanceUs(30 * 24 * hourUs + secondUs)
    for (const once of ['n999', 'n999']) await report(once)
    return scores
  }

  it('counts once, for 30 days, of a client the latest thousand; the same in both stores', async () => {
    const points = 1001 + 13 * disputes
    const [memory, redis] = await Promise.all([inMemory.fresh(), onRedis.fresh()].map(playTo))
    expect(memory!.slice(0, 4)).toEqual([points, points, 2 * points, 2 * points])
    expect(memory!.slice(-5)).toEqual([0, points, points, points, points])
    expect(redis).toEqual(memory)
  })
})

describe('a burst', () => {
  const request = (endpoint: number): ConductEvent => ({ ...nothing, outcome: 1, endpoint, result: 1 })
  const isBurst = (signals: number): boolean => Math.floor(signals / 2 ** signalNames.indexOf('bursts')) % 2 === 1

  /** Two hours in which four endpoints are busy and one is asked for twice a minute; then another and that one, 40 times each. */
  async function playTo(place: TimedStore): Promise<boolean[]> {
    const seen: boolean[] = []
    const observe = async (events: ConductEvent[]): Promise<void> => {
      place.setTimeUs(place.timeUs() + 30 * secondUs)
      const [observed] = await place.store.standings!.observe([{ partition: 'key:one', ladder, events }], telling)
      seen.push(isBurst(observed!.signals))
    }
    const busy = Array.from({ length: 150 }, (_, index) => request(index % 4))
    for (let turn = 0; turn < 240; turn += 1) await observe([...busy, request(9)])
    await observe([...busy, ...Array.from({ length: 40 }, () => request(7))])
    await observe([...busy, ...Array.from({ length: 40 }, () => request(9))])
    return seen
  }

  it("is one at an endpoint against the client's own past there, not at a new one; the same in both stores", async () => {
    const inBoth = await Promise.all([inMemory.fresh(), onRedis.fresh()].map(playTo))
    for (const seen of inBoth) {
      expect(seen.slice(200, 241)).not.toContain(true)
      expect(seen.at(-1)).toBe(true)
    }
  })
})

describe('a score', () => {
  it('halves every half-life, and decays alike however often it is looked at', () => {
    const halfLife = 10 * minuteUs
    expect(decayed(1_000_000, 0, halfLife, halfLife)).toBe(500_000)
    fc.assert(
      fc.property(fc.nat(5_000_000), fc.nat(5 * hourUs), (value, us) => {
        const exact = value * 2 ** (-us / halfLife)
        const left = decayed(value, 0, us, halfLife)
        // Steps of a 256th of the half-life, rounded down nine times.
        expect(left).toBeLessThanOrEqual(exact * 1.003 + 1)
        expect(left).toBeGreaterThanOrEqual(exact * 0.996 - 10)
      }),
    )
  })

  it('takes a step at one score and leaves it at a lower one', () => {
    const points = (score: number): number => score * 1000
    expect(stepOn(ladder, 0, points(19))).toBe(0)
    expect(stepOn(ladder, 0, points(20))).toBe(1)
    expect(stepOn(ladder, 1, points(11))).toBe(1)
    expect(stepOn(ladder, 1, points(9))).toBe(0)
    expect(stepOn(ladder, 4, points(61))).toBe(4)
    expect(stepOn(ladder, 4, points(59))).toBe(3)
    expect(stepOn(ladder, 4, points(0))).toBe(0)
  })

  it('suspends for two hours at most', async () => {
    const place = inMemory.fresh()
    const { store } = place
    const slow = { ...rules, halfLifeUs: 24 * hourUs }
    const disputes = signalNames.indexOf('disputes')
    const event: ConductEvent = { ...nothing, adds: [disputes, 12_000_000] }
    const [observed] = await store.standings!.observe([{ partition: 'key:one', ladder, events: [event] }], slow)
    expect(observed!.step).toBe(4)
    const decide = async (): Promise<boolean> =>
      (await store.decide(decisionOf('key:one', { ...query, halfLifeUs: slow.halfLifeUs }))).admitted
    expect(await decide()).toBe(false)
    place.advanceUs(2 * hourUs - secondUs)
    expect(await decide()).toBe(false)
    place.advanceUs(2 * secondUs)
    expect(await decide()).toBe(true)
  })
})
