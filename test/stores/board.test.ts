// The board on which processes post numbers, on both stores.

import { randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { mostEntries } from '../../src/stores/board.ts'
import { memoryStage, redisStage, someTimeUs, type TimedStore } from '../promises/histories.ts'

let onRedis: Awaited<ReturnType<typeof redisStage>>
beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

const sorted = (values: readonly number[]): number[] => [...values].sort((a, b) => a - b)

describe.each<[string, () => TimedStore]>([
  ['in memory', () => memoryStage().fresh()],
  ['on Redis', () => onRedis.fresh()],
])('%s', (_, fresh) => {
  it('tells the values of all that live, each process’s newest, and drops what has expired', async () => {
    const timed = fresh()
    const { store } = timed
    const board = randomUUID()
    expect(await store.post!(board, 'a', 5, 3000)).toEqual([5])
    expect(sorted(await store.post!(board, 'b', -7, 1000))).toEqual([-7, 5])
    expect(sorted(await store.post!(board, 'a', 6, 3000))).toEqual([-7, 6])
    timed.advanceUs(999_999)
    expect(sorted(await store.post!(board, 'c', 0, 1000))).toEqual([-7, 0, 6])
    timed.advanceUs(1)
    expect(sorted(await store.post!(board, 'c', 0, 1000))).toEqual([0, 6])
    expect(await store.post!(board, 'c', 0, 0)).toEqual([6])
    timed.advanceUs(3_000_000)
    expect(await store.post!(board, 'c', 1, 0)).toEqual([])
  })

  it('a clock that is set back by years keeps no entry alive', async () => {
    const timed = fresh()
    const { store } = timed
    const board = randomUUID()
    timed.advanceUs(400 * 86_400_000_000)
    await store.post!(board, 'a', 5, 3000)
    timed.advanceUs(-400 * 86_400_000_000)
    expect(await store.post!(board, 'b', 6, 3000)).toEqual([6])
  })

  it('holds so many entries, and goes on for those that are on it', async () => {
    const { store } = fresh()
    const board = randomUUID()
    for (let index = 0; index < mostEntries; index += 1) await store.post!(board, `e${index}`, index, 60_000)
    expect(await store.post!(board, 'one-more', 5, 60_000)).toHaveLength(mostEntries)
    expect(await store.post!(board, 'e7', -1, 60_000)).toContain(-1)
    expect(await store.post!(board, 'e8', 0, 0)).toHaveLength(mostEntries - 1)
    expect(await store.post!(board, 'one-more', 12_345, 60_000)).toContain(12_345)
  })

  it.each<[string, [string, string, number, number]]>([
    ['a name with spaces', ['a b', 'e', 1, 1]],
    ['a long entry', ['b', 'e'.repeat(65), 1, 1]],
    ['a fraction', ['b', 'e', 1.5, 1]],
    ['a life of more than a day', ['b', 'e', 1, 86_400_001]],
    ['no life', ['b', 'e', 1, Number.NaN]],
  ])('takes no %s', async (_, posted) => {
    await expect(fresh().store.post!(...posted)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_OPTION' })
  })
})

it('its key in Redis expires with its last entry', async () => {
  const timed = onRedis.fresh()
  const board = randomUUID()
  await timed.store.post!(board, 'a', 5, 3000)
  await timed.store.post!(board, 'b', 5, 1000)
  const redis: Redis = onRedis.redis
  const [key] = await redis.keys(`*b:{${board}}`)
  expect(await redis.pttl(key!)).toBe(3000)
  timed.setTimeUs(someTimeUs + 3_001_000)
  expect(await redis.exists(key!)).toBe(0)
})
