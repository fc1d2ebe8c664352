// Who is refused again and again: many workers that wait by themselves are not taken for one client that does not wait.

import { describe, expect, it } from 'vitest'
import { fixedWindow, slidingLog, slidingWindow, tokenBucket, type Policy } from '../../src/index.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'

const limits: Record<string, () => Policy[]> = {
  'a tight bucket': () => [tokenBucket({ name: 'one', quota: 10, window: '1m' })],
  'a bucket': () => [tokenBucket({ name: 'one', quota: 60, window: '1m', burst: 5 })],
  'a sliding window': () => [slidingWindow({ name: 'one', quota: 60, window: '1m' })],
  'a fixed window': () => [fixedWindow({ name: 'one', quota: 60, window: '1m' })],
  'a log': () => [slidingLog({ name: 'one', quota: 60, window: '1m' })],
}

/** Asks as often as that, whatever it is told; tells after how many requests it was first told of. */
async function askEvery(everyMs: number, times: number, of: string): Promise<number | undefined> {
  const all = await abuseScene({}, { policies: limits[of]!() })
  for (let nth = 0; nth < times; nth += 1) {
    await all.ask('/', 'greedy')
    if (all.incidents.length > 0) return nth
    all.clock.advance(everyMs)
  }
  return undefined
}

/** So many workers with one key ask without end for ten minutes, each for what is its own, and wait as they are told. */
async function crowd(workers: number, of: string, unit: 'ms' | 's'): Promise<AbuseScene> {
  const all = await abuseScene({}, { policies: limits[of]!() })
  const startMs = all.clock()
  const due = Array.from({ length: workers }, (_, worker) => startMs + worker * 150)
  for (;;) {
    const worker = due.indexOf(Math.min(...due))
    if (due[worker]! > startMs + 600_000) return all
    if (due[worker]! > all.clock()) all.clock.set(due[worker]!)
    const { status, problem } = await all.ask(`/items/${worker}`, 'crowd')
    const waitMs = status === 200 ? 20 : problem.error.retry_after_ms!
    due[worker] = all.clock() + (unit === 's' ? Math.ceil(waitMs / 1000) * 1000 : waitMs) + 10
  }
}

describe('a client that does not wait', () => {
  it.each(Object.keys(limits))('is found at three times what it may by %s, however long the waits', async (of) => {
    const [perMinute, minutes] = of === 'a tight bucket' ? [30, 45] : [180, 6]
    const asked = await askEvery(60_000 / perMinute, perMinute * minutes, of)
    expect(asked).toBeGreaterThan(60)
  })

  it.each(['a tight bucket', 'a fixed window'])('is not found at twice that by %s', async (of) => {
    expect(await askEvery(of === 'a tight bucket' ? 3000 : 500, 900, of)).toBeUndefined()
  })
})

describe('a crowd with one key, each of which waits', () => {
  it.each(Object.keys(limits).flatMap((of) => [60, 80].map((workers) => [of, workers] as const)))(
    'is left alone by %s: %i workers',
    async (of, workers) => {
      const { incidents, limiter } = await crowd(workers, of, workers === 60 ? 's' : 'ms')
      expect(incidents).toEqual([])
      expect((await limiter.review.get('key:crowd')).step).toBe('allow')
    },
  )
})
