// How many processes a store has, which its quotas are divided by while it is away.

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Processes, processesOf } from '../src/processes.ts'
import { memoryStore } from '../src/stores/memory.ts'

/** Boards that all processes of a test share, on the clock that it turns. */
function boards() {
  const store = memoryStore({ now: Date.now }).open({ nameOf: (name) => name })
  let isAway = false
  const post: NonNullable<typeof store.post> = async (...posted) => {
    if (isAway) throw new Error('away')
    return await store.post!(...posted)
  }
  return {
    post,
    goAway: () => (isAway = true),
    comeBack: () => (isAway = false),
    /** Of another limiter: a function of its own. */
    another:
      (): typeof post =>
      async (...posted) =>
        await post(...posted),
  }
}

const ready = async (): Promise<void> => {}
const pass = async (seconds: number): Promise<void> => void (await vi.advanceTimersByTimeAsync(seconds * 1000))

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

describe('the processes of a store', () => {
  it('know of each other two seconds after the last of them has started', async () => {
    const { another } = boards()
    const all: Processes[] = []
    for (let nth = 0; nth < 5; nth += 1) {
      const one = new Processes()
      one.use(another(), ready)
      all.push(one)
      await pass(0.2)
    }
    await pass(2)
    expect(all.map(({ count }) => count)).toEqual([5, 5, 5, 5, 5])
  })

  it('are one each, however many limiters they have, until the last is closed', async () => {
    const { another } = boards()
    const [one, other] = [new Processes(), new Processes()]
    const ends = [another(), another(), another()].map((post) => one.use(post, ready))
    other.use(another(), ready)
    await pass(10)
    expect([one.count, other.count]).toEqual([2, 2])
    await ends[0]!()
    await ends[1]!()
    await pass(60)
    expect([one.count, other.count]).toEqual([2, 2])
    await ends[2]!()
    await pass(60)
    expect(other.count).toBe(1)
  })

  it('are not taken for fewer when the store comes back empty, and they come back to it one by one', async () => {
    const { another, goAway, comeBack } = boards()
    const all = [0, 1, 2].map(() => new Processes())
    for (const one of all) {
      one.use(another(), ready)
      await pass(3)
    }
    await pass(10)
    goAway()
    // All that was on the board has run out.
    await pass(120)
    expect(all.map(({ count }) => count)).toEqual([3, 3, 3])
    comeBack()
    for (let second = 0; second < 60; second += 1) {
      expect(all.map(({ count }) => count)).toEqual([3, 3, 3])
      await pass(1)
    }
  })

  it('are fewer some time after one has gone without a word', async () => {
    const { another, post } = boards()
    const one = new Processes()
    one.use(another(), ready)
    await post('processes', 'gone', 1, 30_000)
    await pass(20)
    expect(one.count).toBe(2)
    await pass(70)
    expect(one.count).toBe(1)
  })

  it('are one, and not known, until the store has told', async () => {
    const { another, goAway, comeBack } = boards()
    const one = new Processes()
    goAway()
    one.use(another(), ready)
    await pass(5)
    expect([one.count, one.isKnown]).toEqual([1, false])
    comeBack()
    await pass(10)
    expect([one.count, one.isKnown]).toEqual([1, true])
  })

  it('are counted by the store, whoever asks', () => {
    const store = memoryStore()
    expect(processesOf(store)).toBe(processesOf(store))
    expect(processesOf(memoryStore())).not.toBe(processesOf(store))
  })
})
