// The limit of what is in flight, against an app in virtual time: so many workers, a queue, and open-loop load.

import { describe, expect, it } from 'vitest'
import { ConcurrencyLimit, shareOfRank } from '../../src/adaptive/gradient.ts'
import { gradient } from '../../src/index.ts'

interface Run {
  /** Mean over the last tenth. */
  limit: number
  latencyMs: number
  /** The share of what the app could do that it did. */
  used: number
}

/** Plays an app of `workers` that each take `serviceMs`, asked `load` times as often as they can answer. */
function play(
  limit: ConcurrencyLimit,
  { workers = 10, serviceMs = 20, load = 3, fromMs = 0, forMs = 60_000 }: Record<string, number> = {},
): Run {
  const free = Array.from({ length: workers }, () => fromMs)
  const under: { endsAt: number; beganAt: number }[] = []
  const gap = serviceMs / workers / load
  let [count, sum, done, limits, looks] = [0, 0, 0, 0, 0]
  const until = fromMs + forMs
  const lastFrom = fromMs + forMs * 0.9
  for (let now = fromMs; now < until; now += gap) {
    for (;;) {
      let first = -1
      for (let at = 0; at < under.length; at += 1) if (first < 0 || under[at]!.endsAt < under[first]!.endsAt) first = at
      if (first < 0 || under[first]!.endsAt > now) break
      const [{ endsAt, beganAt }] = under.splice(first, 1) as [{ endsAt: number; beganAt: number }]
      limit.leave(endsAt)
      limit.sample(endsAt - beganAt, endsAt)
      if (endsAt >= lastFrom) {
        sum += endsAt - beganAt
        done += 1
      }
    }
    if (now >= lastFrom) {
      limits += limit.limit
      looks += 1
    }
    if (!limit.enter(1, now)) continue
    count += 1
    const worker = free.indexOf(Math.min(...free))
    // Neither quite the same nor by chance.
    const took = serviceMs * (0.9 + 0.2 * ((count * 0.618) % 1))
    const endsAt = Math.max(now, free[worker]!) + took
    free[worker] = endsAt
    under.push({ endsAt, beganAt: now })
  }
  for (const _ of under) limit.leave(until)
  return { limit: limits / looks, latencyMs: sum / done, used: (done * serviceMs) / workers / (until - lastFrom) }
}

interface CallingOut {
  perSecond: number
  tookMs: number
  fromMs: number
  forMs: number
  /** Two of three clients wait no longer, or all. */
  goneAfterMs?: number
  allGo?: boolean
}

/** Plays an app that calls out: each answer takes as long, however many there are. */
function callOut(
  limit: ConcurrencyLimit,
  { perSecond, tookMs, fromMs, forMs, goneAfterMs = Infinity, allGo = false }: CallingOut,
): { refused: number; refusedFor: number; refusedLate: number } {
  const under: { endsAt: number; beganAt: number }[] = []
  let [refused, refusedLate, first, last, count] = [0, 0, 0, 0, 0]
  for (let now = fromMs; now < fromMs + forMs; now += 1000 / perSecond) {
    while (under.length > 0 && under[0]!.endsAt <= now) {
      const { endsAt, beganAt } = under.shift()!
      limit.leave(endsAt)
      limit.sample(endsAt - beganAt, endsAt, endsAt - beganAt === tookMs)
    }
    if (limit.enter(1, now)) {
      count += 1
      const forMs = count % 3 === 0 && !allGo ? tookMs : Math.min(tookMs, goneAfterMs)
      under.push({ beganAt: now, endsAt: now + forMs })
      under.sort((one, other) => one.endsAt - other.endsAt)
      continue
    }
    if (refused === 0) first = now
    last = now
    refused += 1
    if (now > fromMs + forMs / 2) refusedLate += 1
  }
  for (const _ of under) limit.leave(fromMs + forMs)
  return { refused, refusedFor: last - first, refusedLate }
}

describe('the limit of what is in flight', () => {
  it('comes near to what the app can do, keeps it busy and its answers quick, whatever it begins with', () => {
    for (const initial of [4, 20, 200]) {
      const { used, latencyMs, limit } = play(new ConcurrencyLimit(gradient({ initial }), 0))
      expect(used).toBeGreaterThan(0.9)
      expect(latencyMs).toBeLessThan(100)
      expect(limit).toBeGreaterThanOrEqual(9)
      expect(limit).toBeLessThan(60)
    }
  })

  it('does not take for its best how slow it is under a load that lasts for an hour', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    play(limit, { load: 0.3, forMs: 30_000 })
    const { latencyMs, limit: after } = play(limit, { fromMs: 30_000, forMs: 3_600_000, load: 2 })
    expect(latencyMs).toBeLessThan(70)
    expect(after).toBeLessThan(40)
  })

  it('follows an app that has become slower for good, without staying at its least', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    play(limit, { forMs: 60_000 })
    const { used, latencyMs } = play(limit, { fromMs: 60_000, forMs: 300_000, serviceMs: 100 })
    expect(used).toBeGreaterThan(0.85)
    expect(latencyMs).toBeLessThan(250)
    const back = play(limit, { fromMs: 360_000, forMs: 60_000, serviceMs: 20 })
    expect(back.used).toBeGreaterThan(0.9)
    expect(back.latencyMs).toBeLessThan(100)
  })

  it.each([500, 2000, 5000])(
    'takes an app that answers in %i ms, however few it has, for what it is: not for a queue',
    (slowMs) => {
      const limit = new ConcurrencyLimit(gradient(), 0)
      const perSecond = 24
      const served = callOut(limit, { perSecond, tookMs: 20, fromMs: 0, forMs: 10_000 })
      expect(served.refused).toBe(0)
      const { refusedFor, refusedLate } = callOut(limit, {
        perSecond: Math.round(120_000 / slowMs) + perSecond,
        tookMs: slowMs,
        fromMs: 10_000,
        forMs: 120_000,
      })
      // Until what was there is answered, then what the cut limit let in, and a little more.
      expect(refusedFor).toBeLessThanOrEqual(6 * slowMs + 4000)
      expect(refusedLate).toBe(0)
    },
  )

  it('does not take a queue for that, of an app that loses nine tenths of what it can do', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    play(limit, { load: 0.5, forMs: 20_000 })
    // From 500 a second to 50.
    const { latencyMs, used } = play(limit, { workers: 1, load: 8, fromMs: 20_000, forMs: 120_000 })
    expect(used).toBeGreaterThan(0.9)
    expect(latencyMs).toBeLessThan(250)
    for (const [workers, serviceMs] of [
      [4, 400],
      [2, 100],
      [10, 500],
    ] as const) {
      const other = new ConcurrencyLimit(gradient(), 0)
      play(other, { load: 0.5, forMs: 20_000 })
      play(other, { workers, serviceMs, load: 6, fromMs: 20_000, forMs: 30_000 })
      const run = play(other, { workers, serviceMs, load: 6, fromMs: 50_000, forMs: 60_000 })
      expect(run.used).toBeGreaterThan(0.85)
      expect(run.latencyMs).toBeLessThan(4 * serviceMs)
    }
  })

  it.each([
    [10, 20, 1, 20],
    [20, 40, 2, 40],
    [10, 20, 10, 100],
  ])(
    'nor of one that loses most of it under a load that was too much before: %i × %i ms, then %i × %i ms',
    (workers, serviceMs, left, slowMs) => {
      const limit = new ConcurrencyLimit(gradient(), 0)
      play(limit, { workers, serviceMs, load: 3, forMs: 20_000 })
      const load = (3 * workers * slowMs) / (serviceMs * left)
      play(limit, { workers: left, serviceMs: slowMs, load, fromMs: 20_000, forMs: 10_000 })
      const run = play(limit, { workers: left, serviceMs: slowMs, load, fromMs: 30_000, forMs: 30_000 })
      expect(run.used).toBeGreaterThan(0.9)
      expect(run.latencyMs).toBeLessThan(200)
    },
  )

  it('does not take for its best how soon clients go that do not wait for their answers', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    callOut(limit, { perSecond: 300, tookMs: 100, fromMs: 0, forMs: 30_000, goneAfterMs: 8 })
    // More than half of it is in flight now, and nothing waits in the app.
    expect(callOut(limit, { perSecond: 1300, tookMs: 100, fromMs: 30_000, forMs: 30_000 }).refused).toBe(0)
  })

  it('learns that an app is slow from clients that give up', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    play(limit, { workers: 100, serviceMs: 100, load: 0.5 })
    expect(limit.limit).toBe(200)
    for (let now = 60_000; now < 63_000; now += 10) {
      while (limit.inFlight < 150) limit.add()
      limit.leave(now)
      limit.sample(1000, now, false)
    }
    expect(limit.limit).toBeLessThan(50)
  })

  it('comes back up although an app has become slower than any client waits', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    callOut(limit, { perSecond: 300, tookMs: 20, fromMs: 0, forMs: 20_000 })
    const slow = { perSecond: 300, tookMs: 3000, fromMs: 20_000, forMs: 60_000, goneAfterMs: 2000, allGo: true }
    expect(callOut(limit, slow).refusedLate).toBe(0)
  })

  it('keeps critical requests of the lowest tier from taking what the highest may have', () => {
    const limit = new ConcurrencyLimit(gradient({ initial: 100 }), 0)
    const strangers = Array.from({ length: 200 }, () => limit.enter(shareOfRank(0), 0) || limit.enterBeyond())
    expect(strangers.filter(Boolean)).toHaveLength(80)
    const highest = Array.from({ length: 50 }, () => limit.enter(shareOfRank(1), 0))
    expect(highest.filter(Boolean)).toHaveLength(15)
    // Nor does the highest keep critical ones out.
    limit.leave(0, true)
    expect(limit.enterBeyond()).toBe(true)
  })

  it('neither grows nor shrinks while less than half of it is in use', () => {
    const limit = new ConcurrencyLimit(gradient({ initial: 40 }), 0)
    play(limit, { load: 0.5 })
    expect(limit.limit).toBe(40)
    play(limit, { load: 0.3, serviceMs: 60, fromMs: 60_000 })
    expect(limit.limit).toBe(40)
  })

  it('stays between its least and its most', () => {
    expect(play(new ConcurrencyLimit(gradient({ least: 2, most: 6 }), 0), {}).limit).toBe(6)
    const slow = new ConcurrencyLimit(gradient({ least: 7 }), 0)
    play(slow, { forMs: 2000 })
    expect(play(slow, { workers: 1, fromMs: 2000, forMs: 20_000 }).limit).toBeGreaterThanOrEqual(7)
  })

  it('gives an idle app’s bursts to the lowest priority too, however often they come, and after an overload', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    const lowest = shareOfRank(0)
    /** So many at once to an app of so many workers, in ms; how many of them were admitted. */
    const burst = (
      size: number,
      now: number,
      { workers, serviceMs }: { workers: number; serviceMs: number },
    ): number => {
      let admitted = 0
      for (let one = 0; one < size; one += 1) if (limit.enter(lowest, now)) admitted += 1
      for (let one = 0; one < admitted; one += 1) {
        const tookMs = serviceMs * (1 + Math.floor(one / workers))
        limit.leave(now + tookMs)
        limit.sample(tookMs, now + tookMs)
      }
      return admitted
    }
    let now = 0
    for (const app of [
      { workers: 1, serviceMs: 0.3 },
      { workers: 4, serviceMs: 40 },
      { workers: 10, serviceMs: 20 },
    ]) {
      for (const size of [20, 50, 100, 100, 100]) {
        for (let time = 0; time < 5; time += 1) {
          now += 10_000
          expect(burst(size, now, app)).toBe(size)
        }
      }
      // Quick enough that nothing queues from one burst to the next.
      if (app.serviceMs > 1) continue
      for (let time = 0; time < 600; time += 1) {
        now += 100
        expect(burst(100, now, app)).toBe(100)
      }
    }
    now += 10_000
    const { limit: overloaded } = play(limit, { fromMs: now, forMs: 30_000 })
    expect(overloaded).toBeLessThan(60)
    now += 40_000
    expect(burst(100, now, { workers: 10, serviceMs: 20 })).toBe(100)
  })

  it('cuts an overload within seconds although it begins high, also one that comes slowly', () => {
    for (const load of [1.1, 1.3, 3]) {
      const limit = new ConcurrencyLimit(gradient(), 0)
      play(limit, { load: 0.5, forMs: 10_000 })
      // At 1.1 times what it can do, a queue takes two seconds to fill half of the limit.
      play(limit, { load, fromMs: 10_000, forMs: 6000 })
      const { latencyMs, used } = play(limit, { load, fromMs: 16_000, forMs: 10_000 })
      expect(latencyMs).toBeLessThan(80)
      expect(used).toBeGreaterThan(0.9)
    }
  })

  it('goes back to where it began when an app has little to do, without having been empty', () => {
    const limit = new ConcurrencyLimit(gradient(), 0)
    play(limit, { load: 3 })
    expect(limit.limit).toBeLessThan(60)
    play(limit, { load: 0.3, fromMs: 60_000, forMs: 15_000 })
    expect(limit.limit).toBeGreaterThan(190)
  })

  it('begins where it is told to, or says why not', () => {
    expect(gradient()).toEqual({ least: 4, most: 1000, initial: 200, tolerance: 0.25 })
    expect(gradient({ most: 50 }).initial).toBe(50)
    expect(() => gradient({ most: 3 })).toThrow(/`least`.*they are 4 and 1000 unless you say otherwise/)
    expect(gradient({ least: 300 }).initial).toBe(300)
    for (const options of [{ initial: 50, most: 6 }, { initial: 2 }, { initial: 2000 }]) {
      expect(() => gradient(options)).toThrow(/`initial`: saw \d+, expected from `least` to `most`/)
    }
  })
})
