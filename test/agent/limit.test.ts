import { expect, it } from 'vitest'
import { hear, openLimit, turnOf } from '../../src/agent/limit.ts'
import type { ToldLimit } from '../../src/agent/told.ts'

const told: ToldLimit = {
  name: 'window',
  partition: null,
  quota: 50,
  windowMs: 5000,
  unit: 'requests',
  available: 30,
  effectiveMs: 4000,
}

it('what is left belongs first to those who were told a time: whoever was not refused stays behind them', () => {
  const limit = openLimit('window')
  hear(limit, told, 0, 1000, null)
  limit.refused = 29
  expect(turnOf(limit, 1000).at).toBeLessThanOrEqual(1000 + 100)
  limit.refused = 30
  expect(turnOf(limit, 1000).at).toBe(Infinity)
  // Also when what was told is over, and all of it is back.
  limit.refused = 30
  expect(turnOf(limit, 5001).at).toBe(Infinity)
  limit.refused = 0
  expect(turnOf(limit, 1000).at).toBe(1000)
})
