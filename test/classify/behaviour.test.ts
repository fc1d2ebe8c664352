import { describe, expect, it } from 'vitest'
import { createActivity } from '../../src/classify/behaviour.ts'

describe('activity', () => {
  it('is that of the last minute, exactly', () => {
    let time = 0
    const activity = createActivity({ threshold: 3, now: () => time })
    const at = (now: number): boolean => {
      time = now
      return activity.exceeds('a', {})
    }
    expect([at(0), at(20_000), at(40_000), at(59_999)]).toEqual([false, false, false, true])
    expect(at(80_000)).toBe(false)
    expect([at(80_001), at(80_002)]).toEqual([true, true])
  })

  it('is asked about without being raised', () => {
    const activity = createActivity({ threshold: 1, now: () => 0 })
    const request = {}
    for (let turn = 0; turn < 5; turn += 1) expect(activity.exceeds('a', request)).toBe(false)
  })

  it('forgets whom it has not seen for longest when too many are watched', () => {
    const activity = createActivity({ threshold: 1, now: () => 0 })
    activity.exceeds('first', {})
    activity.exceeds('second', {})
    for (let index = 0; index < 9_999; index += 1) {
      activity.exceeds(`other-${index}`, {})
      // Seen again and again, so it stays.
      expect(activity.exceeds('second', {})).toBe(true)
    }
    expect(activity.exceeds('first', {})).toBe(false)
  })

  it('watches fewer when each takes more memory', () => {
    const threshold = 9_999
    const activity = createActivity({ threshold, now: () => 0 })
    for (let turn = 0; turn < threshold; turn += 1) activity.exceeds('first', {})
    // 4 million times in all are kept: 400 clients of 10 000.
    for (let index = 0; index < 400; index += 1) activity.exceeds(`other-${index}`, {})
    expect(activity.exceeds('first', {})).toBe(false)

    for (let turn = 0; turn < threshold; turn += 1) activity.exceeds('second', {})
    for (let index = 0; index < 399; index += 1) activity.exceeds(`another-${index}`, {})
    expect(activity.exceeds('second', {})).toBe(true)
  })
})
