// What a score is made of, and how it falls.

import { describe, expect, it } from 'vitest'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { guess, watched } from './watched.ts'

const options = { policies: [tokenBucket({ quota: 100_000, window: '1m' })] }

describe('an outage of the app', () => {
  it('throttles nobody who asks more often because of it', async () => {
    let isUp = true
    const { ask, clock } = await watched({}, options, (app) => {
      app.get('/report', (req, res) => void res.status(isUp ? 200 : 503).json(req.rateLimit))
    })
    for (let nth = 0; nth < 360; nth += 1) {
      await ask('/report', 'acme')
      clock.advance(10_000)
    }
    isUp = false
    let highest = 0
    for (let nth = 0; nth < 400; nth += 1) {
      const { abuse } = (await ask('/report', 'acme')).json
      expect(abuse.step).toBe('allow')
      highest = Math.max(highest, abuse.score)
      clock.advance(500)
    }
    // Both signals were there, and the stronger counted.
    expect(highest).toBeGreaterThan(5)
    expect(highest).toBeLessThan(20)
  })
})

describe('a score', () => {
  it('falls by half in a half-life, whether the client asks meanwhile or not', async () => {
    const quiet = await watched({}, options)
    const busy = await watched({}, options)
    for (const one of [quiet, busy]) await guess(one, 40, 'acme')
    const scoreOf = async ({ limiter }: typeof quiet): Promise<number> =>
      (await limiter.review.get('key:acme')).score ?? 0
    const before = await scoreOf(busy)
    for (let minute = 0; minute < 10; minute += 1) {
      busy.clock.advance(60_000)
      await busy.ask('/items/5', 'acme')
    }
    quiet.clock.advance(600_000)
    expect(Math.abs((await scoreOf(busy)) - before / 2)).toBeLessThan(1)
    expect(Math.abs((await scoreOf(busy)) - (await scoreOf(quiet)))).toBeLessThan(1)
  })
})
