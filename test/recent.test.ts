import { describe, expect, it } from 'vitest'
import { Recent } from '../src/recent.ts'

describe('what was seen lately', () => {
  it('is nothing before there is an entry', () => {
    const recent = new Recent<string, number>({ max: 2 })
    recent.delete('a')
    expect([recent.size, recent.get('a'), recent.peek('a'), recent.has('a')]).toEqual([0, undefined, undefined, false])
  })

  it('forgets what nobody asked for longest; a look does not count as asking', () => {
    const recent = new Recent<string, number>({ max: 2 })
    recent.set('a', 1)
    recent.set('b', 2)
    expect([recent.get('a'), recent.peek('b'), recent.has('b')]).toEqual([1, 2, true])
    recent.set('c', 3)
    expect([recent.size, recent.get('a'), recent.get('b'), recent.get('c')]).toEqual([2, 1, undefined, 3])
    recent.delete('a')
    expect([recent.size, recent.has('a')]).toEqual([1, false])
  })

  it('forgets by age where it is told to', () => {
    let now = 1
    const recent = new Recent<string, number>({ max: 2, ttl: 100, ttlResolution: 0, perf: { now: () => now } })
    recent.set('a', 1)
    now += 99
    expect(recent.get('a')).toBe(1)
    now += 2
    expect(recent.get('a')).toBeUndefined()
  })
})
