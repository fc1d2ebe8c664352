// Clients that come back when they were told, at an app that can answer a third of what they want.

import { describe, expect, it } from 'vitest'
import { ConcurrencyLimit, shareOfRank } from '../../src/adaptive/gradient.ts'
import { Waits } from '../../src/adaptive/waits.ts'
import { gradient } from '../../src/index.ts'

interface Comer {
  readonly id: string
  readonly tier: string
  readonly isBack: boolean
}

/** Plays so many clients of each tier, who each ask again a second after an answer; 100 a second can be answered. */
function playClients(sizes: Record<string, number>, thinkMs: number, toldMs?: () => number) {
  let seed = 7
  const random = (): number => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647
  const limit = new ConcurrencyLimit(gradient({ initial: 40 }), 0)
  const waits = new Waits(random)
  const ranks = new Map(Object.keys(sizes).map((tier, index, all) => [tier, index / Math.max(1, all.length - 1)]))
  const free = [0, 0, 0, 0]
  /** Who comes in each ms; those who come back are marked. */
  const comes = new Map<number, Comer[]>()
  const later = (at: number, one: Comer): void => {
    const ms = Math.ceil(at)
    comes.set(ms, [...(comes.get(ms) ?? []), one])
  }
  const ends = new Map<number, { id: string; tier: string; beganAt: number }[]>()
  for (const [tier, size] of Object.entries(sizes)) {
    for (let one = 0; one < size; one += 1) later(random() * thinkMs, { id: `${tier}-${one}`, tier, isBack: false })
  }
  const back = new Map(Object.keys(sizes).map((tier) => [tier, { came: 0, served: 0, toldMs: 0, told: 0 }]))
  let served = 0
  for (let now = 0; now < 120_000; now += 1) {
    for (const { id, tier, beganAt } of ends.get(now) ?? []) {
      limit.leave(now)
      limit.sample(now - beganAt, now)
      served += 1
      later(now + thinkMs, { id, tier, isBack: false })
    }
    ends.delete(now)
    for (const { id, tier, isBack } of comes.get(now) ?? []) {
      const isKnown = toldMs === undefined && waits.isBack(id, now)
      const fits = limit.enter(shareOfRank(ranks.get(tier)!, isKnown), now)
      waits.note(tier, isKnown, fits, now)
      const of = back.get(tier)!
      if (isBack && now > 60_000) {
        of.came += 1
        if (fits) of.served += 1
      }
      if (!fits) {
        const told = toldMs?.() ?? waits.tell(tier, id, now)
        of.told += 1
        of.toldMs += told
        later(now + told, { id, tier, isBack: true })
        continue
      }
      const worker = free.indexOf(Math.min(...free))
      const endsAt = Math.ceil(Math.max(now, free[worker]!) + 40)
      free[worker] = endsAt
      ends.set(endsAt, [...(ends.get(endsAt) ?? []), { id, tier, beganAt: now }])
    }
    comes.delete(now)
  }
  const of = (tier: string) => {
    const { came, served, told, toldMs } = back.get(tier)!
    return { gotIn: served / came, toldMs: toldMs / Math.max(1, told) }
  }
  return { of, perSecond: served / 120 }
}

describe('the time that is told to those for whom there is no place', () => {
  it.each([
    [150, 1000],
    [400, 1000],
    [400, 3000],
    [1000, 1000],
  ])('is one at which most who come then get in, of %i clients that ask every %i ms', (size, thinkMs) => {
    const fixed = playClients({ only: size }, thinkMs, () => 1500)
    const { of, perSecond } = playClients({ only: size }, thinkMs)
    expect(fixed.of('only').gotIn).toBeLessThan(0.3)
    expect(of('only').gotIn).toBeGreaterThan(0.8)
    expect(perSecond).toBeGreaterThan(95)
  })

  it('is longer for lower priorities', () => {
    const { of } = playClients({ low: 300, high: 100 }, 1000)
    expect(of('low').toldMs).toBeGreaterThan(3 * of('high').toldMs)
    expect(of('low').gotIn).toBeGreaterThan(0.6)
    expect(of('high').gotIn).toBeGreaterThan(0.9)
  })

  it('is half a minute at most, and short again when it is another time', () => {
    const waits = new Waits(() => 0.999)
    let now = 0
    for (; now < 120_000; now += 100) waits.note('low', false, false, now)
    expect(waits.tell('low', 'one', now)).toBeGreaterThan(30_000)
    expect(waits.tell('low', 'one', now)).toBeLessThanOrEqual(32_000)
    expect(waits.tell('high', 'one', now)).toBeLessThan(2000)
    for (const until = now + 60_000; now < until; now += 1000) waits.note('low', false, true, now)
    expect(waits.tell('low', 'one', now)).toBeLessThan(20_000)
    now += 60_000
    waits.note('low', false, false, now)
    expect(waits.tell('low', 'one', now)).toBeLessThan(2000)
  })

  it('counts once, neither before nor long after, and is remembered of no more than ten thousand', () => {
    const waits = new Waits(() => 0)
    waits.tell('low', 'early', 0)
    expect(waits.isBack('early', 900)).toBe(false)
    expect([waits.isBack('early', 1000), waits.isBack('early', 1000)]).toEqual([true, false])
    waits.tell('low', 'late', 0)
    expect(waits.isBack('late', 6001)).toBe(false)
    for (let one = 0; one < 10_001; one += 1) waits.tell('low', String(one), 0)
    expect(['0', '1'].map((id) => waits.isBack(id, 1000))).toEqual([false, true])
  })
})
