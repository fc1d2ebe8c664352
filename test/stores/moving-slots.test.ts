// While a slot moves, its keys are on two masters, and neither answers a call of several keys that it has not all of. Decisions
// are made all the same, and come out as if nothing moved.

import { createHash, randomUUID } from 'node:crypto'
import fc from 'fast-check'
import type { Cluster } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { numbersOf, presetLadder } from '../../src/abuse/ladder.ts'
import { abuseOption } from '../../src/abuse/options.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { chargedBy } from '../../src/stores/guard.ts'
import { hashSlot } from '../../src/stores/redis/hash-slot.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Charge, Charged, DecisionRequest, OpenStore } from '../../src/stores/store.ts'
import type { ConductEvent } from '../../src/standing.ts'
import { startClusterWithClock, type TestCluster } from '../cluster.ts'
import { memoryStage, minuteUs, secondUs, someTimeUs } from '../promises/histories.ts'

let cluster: TestCluster
let client: Cluster
beforeAll(async () => {
  cluster = await startClusterWithClock(someTimeUs)
  client = cluster.connect()
})
afterAll(async () => {
  await client.quit()
  await cluster.stop()
})

/** A slot of the first master's that has no keys, begun to be moved to the third: all keys with that hash tag are in it. */
async function beginMove(): Promise<{
  tag: string
  moveKey: (nth: number) => Promise<void>
  end: () => Promise<void>
}> {
  for (;;) {
    const tag = randomUUID()
    const slot = hashSlot(`{${tag}}`)
    const [source, target] = [cluster.masters[0]!, cluster.masters[2]!]
    if (slot > 5460 || (await source.cluster('COUNTKEYSINSLOT', slot)) > 0) continue
    await cluster.beginMove(slot, 0, 2)
    return {
      tag,
      async moveKey(nth) {
        const keys = (await source.call('CLUSTER', 'GETKEYSINSLOT', slot, 100)) as string[]
        if (keys.length === 0) return
        await source.migrate('127.0.0.1', target.options.port!, keys.sort()[nth % keys.length]!, 0, 5000)
      },
      async end() {
        await cluster.moveSlot(slot, 2)
        for (const key of (await target.call('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as string[]) await target.del(key)
        await cluster.moveSlot(slot, 0)
      },
    }
  }
}

const { rules } = abuseOption.parse({})
/** By which most histories are throttled sooner or later, and some denied. */
const numbers = numbersOf(presetLadder({ throttle: { above: 1, below: 0.5 }, challenge: { above: 70, below: 60 } }))
const mine = 'key:one'

const limits: Charge[] = (['token-bucket', 'sliding-window', 'fixed-window'] as const).map((kind, stateId) => {
  const quota = 12 + stateId
  const limit = { windowUs: minuteUs, quota, capacity: quota, cost: 1, liftable: false, shadow: false }
  return { kind, stateId, partition: mine, ...limit }
})

function standingCharge(enforce: boolean): Charge {
  const { ladder, share, idle } = numbers
  const standing = { enforce, answered: false, scope: 0, halfLifeUs: rules.halfLifeUs, share, ladder, idle }
  return { ...limits[0]!, kind: 'standing', stateId: 8, quota: 1, capacity: 1, cost: 0, after: true, standing }
}

function proofCharge(nth: number): Charge {
  return {
    ...limits[0]!,
    kind: 'single-use',
    stateId: 9,
    quota: 1,
    capacity: 1,
    members: [`proof${nth}`, randomUUID()],
  }
}

function misdeed(adds: number[]): ConductEvent {
  const nobody = { tag: 0, target: -1, sequence: -1, endpoint: 0, place: 0, software: 0 }
  return { ...nobody, atUs: 0, outcome: 0, toldUs: 0, placeIsKnown: 0, result: 0, adds }
}

const someEvent = fc.record({
  does: fc.constantFrom('decide', 'decide', 'decide', 'decide', 'look', 'observe', 'move', 'suspend', 'lift', 'settle'),
  pauseUs: fc.oneof(fc.constant(0), fc.nat(20 * secondUs)),
  cost: fc.integer({ min: 1, max: 5 }),
  proof: fc.option(fc.nat(1), { nil: undefined }),
  enforce: fc.boolean(),
  adds: fc.tuple(fc.nat(5), fc.integer({ min: 1_000_000, max: 200_000_000 })),
  nth: fc.nat(20),
  undoes: fc.nat(9),
})

describe('a slot on the move', () => {
  it('is decided in as memory does, whatever of a client has moved, and nothing of it is counted twice', async () => {
    const memory = memoryStage()
    const reached = { refused: 0, throttled: 0, moved: 0, spent: 0 }
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(true, true, false),
        fc.array(someEvent, { minLength: 20, maxLength: 40, size: 'max' }),
        async (isCut, events) => {
          cluster.setTimeUs(someTimeUs)
          const inMemory = memory.fresh()
          const { tag, moveKey, end } = await beginMove()
          const nameOf = (partition: string): string => createHash('sha256').update(partition).digest('base64url')
          const store = redisStore(client, { prefix: `{${tag}}:` }).open({ nameOf })
          await store.ready()
          const both: [OpenStore, OpenStore] = [store, inMemory.store]
          const made: Charged[] = []
          // Where its quota changes, a bucket fills by the smaller one since it was last touched, and here that is more often.
          const own = isCut ? limits.slice(1) : limits
          // While others wait, places in the schedules are taken in two calls, and differ.
          let waitedUntilUs = 0
          for (const { does, pauseUs, cost, proof, enforce, adds, nth, undoes } of events) {
            cluster.advanceUs(pauseUs)
            inMemory.advanceUs(pauseUs)
            if (does === 'move') {
              await moveKey(nth)
              reached.moved += 1
            } else if (does === 'observe') {
              const observation = { partition: mine, ladder: numbers.ladder, events: [misdeed(adds)] }
              const [answer, expected] = await Promise.all(
                both.map((one) => one.standings!.observe([observation], rules)),
              )
              expect(answer).toEqual(expected)
            } else if (does === 'suspend' || does === 'lift') {
              // Of both stores in the same way: what people decide is a call of three keys.
              const change = does === 'suspend' ? { set: { s: '-1' }, take: [] } : { set: {}, take: ['s'] }
              await inMemory.store.standings!.rule(mine, { ...change, audit: '' })
              const key = `{${tag}}:standing:{${nameOf(mine)}}`
              if (does === 'suspend') await client.hset(key, 's', '-1')
              else await client.hdel(key, 's')
            } else if (does === 'settle') {
              const charged = made.pop()
              if (charged === undefined) continue
              for (const one of both)
                await one.settle([{ charged, by: 1 }, ...made.slice(0, 1).map((each) => ({ charged: each, by: 0 }))])
            } else {
              const charges = [
                ...own.map((limit) => ({ ...limit, cost })),
                ...(proof === undefined || !isCut ? [] : [proofCharge(proof)]),
                standingCharge(enforce && isCut),
              ]
              const request: DecisionRequest = { charges, undo: made.splice(undoes, 2), commit: does === 'decide' }
              const [answer, expected] = [await store.decide(request), await inMemory.store.decide(request)]
              const isExact = !isCut && waitedUntilUs <= answer.nowUs
              expect(isExact ? answer : { ...answer, retryAfterUs: expected.retryAfterUs }).toEqual(expected)
              expect(answer.retryAfterUs === null).toBe(expected.retryAfterUs === null)
              for (const { retryAfterUs } of answer.admitted ? [] : [answer, expected])
                waitedUntilUs = Math.max(waitedUntilUs, answer.nowUs + (retryAfterUs ?? 0) + secondUs)
              made.push(...chargedBy(request, answer).filter(({ charge: { kind } }) => kind !== 'standing'))
              if (!answer.admitted) reached.refused += 1
              if (enforce && isCut && answer.outcomes.at(-1)!.remaining % 8 === 1) reached.throttled += 1
              if (isCut && proof !== undefined && answer.outcomes[2]!.verdict === 'refused') reached.spent += 1
            }
          }
          await store.close()
          await end()
        },
      ),
      memory.runs(60),
    )
    expect(Object.entries(reached).filter(([, count]) => count === 0)).toEqual([])
  })

  it('a limiter that watches its clients decides there in Redis, all the while, and no master is given up', async () => {
    const { tag, moveKey, end } = await beginMove()
    onTestFinished(end)
    const limiter = rampmeter({
      store: redisStore(client, { prefix: `{${tag}}:` }),
      abuse: {},
      deadline: '10s',
      processes: 1,
    })
    onTestFinished(() => limiter.close())
    await limiter.ready()
    const ids = Array.from({ length: 5 }, (_, nth) => `key:${nth}`)
    for (let round = 0; round < 8; round += 1) {
      const decisions = await Promise.all(ids.map((id) => limiter.decide({ client: { id, tier: 'agent' } })))
      expect(decisions.map(({ degraded, admitted }) => [degraded, admitted])).toEqual(ids.map(() => [false, true]))
      expect(decisions[0]!.limits[1]!.remaining).toBe(decisions[0]!.limits[1]!.quota - round - 1)
      if (round === 0)
        await Promise.all(Array.from({ length: 9 }, () => limiter.abuse.report(ids[0]!, 'failed-charge')))
      await moveKey(round)
    }
    expect((await limiter.decide({ client: { id: ids[0]!, tier: 'agent' } })).abuse?.score).toBeGreaterThan(0)
    expect(limiter.health().store).toBe('up')
  })
})
