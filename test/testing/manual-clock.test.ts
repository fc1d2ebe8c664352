import { describe, expect, it } from 'vitest'
import { manualClock } from '../../src/testing/index.ts'

describe('manualClock', () => {
  it('stands still at 2026-01-01 until it is turned', () => {
    const clock = manualClock()
    expect(clock()).toBe(Date.parse('2026-01-01T00:00:00Z'))
    expect(clock()).toBe(clock())
  })

  it('advances by milliseconds, by texts, and back', () => {
    const clock = manualClock(1000)
    expect(clock.advance(500)).toBe(1500)
    expect(clock.advance('1m')).toBe(61_500)
    expect(clock.advance(0.25)).toBe(61_500.25)
    expect(clock.advance(-1500)).toBe(60_000.25)
    expect(clock()).toBe(60_000.25)
  })

  it('is set to a time', () => {
    const clock = manualClock()
    expect(clock.set(42)).toBe(42)
    expect(clock()).toBe(42)
  })

  it('counts whole microseconds, so that small steps add up', () => {
    const clock = manualClock()
    const start = clock()
    for (let step = 0; step < 1000; step += 1) clock.advance(0.001)
    expect(clock()).toBe(start + 1)
  })

  it.each([NaN, Infinity, -1, '5m'])('cannot be set to %s', (time) => {
    expect(() => manualClock(time as number)).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }))
    expect(() => manualClock().set(time as number)).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
    )
  })

  it.each([NaN, Infinity, 'soon', '-1m', undefined])('cannot be advanced by %s', (by) => {
    const clock = manualClock(5)
    expect(() => clock.advance(by as number)).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_DURATION' }))
    expect(clock()).toBe(5)
  })

  it('cannot be turned back past 1970', () => {
    expect(() => manualClock(5).advance(-6)).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }))
  })
})
