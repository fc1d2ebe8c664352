// A herd over real HTTP: what each of those who are refused at once reads, and that it is true.

import express from 'express'
import { expect, it } from 'vitest'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { opened, serve } from './serve.ts'

const policies = [
  tokenBucket({ name: 'pace', quota: 7, window: '1s', burst: 12 }),
  slidingWindow({ name: 'hourly', quota: 1000, window: '1h' }),
]

it('tells each of 20 a time of its own, to the millisecond, and no `t` later than its Retry-After', async () => {
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const served = await serve(
    express()
      .use(opened(rampmeter({ store: memoryStore({ now: clock }), policies })))
      .get('/', (_req, res) => void res.send('served')),
  )
  const replies = await Promise.all(Array.from({ length: 32 }, () => served.ask('/')))
  const refused = replies.filter(({ status }) => status === 429)
  expect(refused).toHaveLength(20)
  const told = refused.map(({ headers, problem }) => {
    const ms = Number(headers['retry-after-ms'])
    const seconds = Number(headers['retry-after'])
    expect(problem.error).toMatchObject({ retry_after_ms: ms, retry_after: seconds })
    expect(seconds).toBe(Math.ceil(ms / 1000))
    const windows = [...String(headers['ratelimit']).matchAll(/;t=(\d+)/g)].map(([, t]) => Number(t))
    expect(windows).toHaveLength(2)
    expect(Math.max(...windows)).toBeLessThanOrEqual(seconds)
    return ms
  })
  // One comes back every 142.857 ms.
  const places = Array.from({ length: 20 }, (_, index) => Math.ceil(((index + 1) * 1000) / 7))
  expect(told.sort((one, other) => one - other)).toEqual(places)

  const start = clock()
  for (const ms of told) {
    clock.set(start + ms)
    expect((await served.ask('/')).status).toBe(200)
  }
})

it('in shadow tells every client what it would be told alone', async () => {
  const clock = manualClock(Date.UTC(2026, 0, 1))
  const limiter = opened(rampmeter({ store: memoryStore({ now: clock }), mode: 'shadow', policies }))
  const told: (number | null)[] = []
  const served = await serve(
    express()
      .use(limiter)
      .get('/', (req, res) => {
        told.push(req.rateLimit!.retryAfterMs)
        res.send('served')
      }),
  )
  for (let times = 0; times < 15; times += 1) expect((await served.ask('/')).status).toBe(200)
  expect(told.slice(12)).toEqual([143, 143, 143])
})
