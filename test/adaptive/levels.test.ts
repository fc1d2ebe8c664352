import { describe, expect, it } from 'vitest'
import type { Health } from '../../src/adaptive/health.ts'
import { LevelControl } from '../../src/adaptive/level-control.ts'
import { presetLevels, type LevelName } from '../../src/adaptive/levels.ts'
import { SharedLevel } from '../../src/adaptive/shared-level.ts'
import { adaptive, memoryStore } from '../../src/index.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'

const well: Health = { p99Ms: 600, errorRate: 0, cpu: 0.5, eventLoopMs: 0 }

/** The level after each period. */
function play(healths: readonly Partial<Health>[], control = new LevelControl(presetLevels())): LevelName[] {
  return healths.map((health) => control.step({ ...well, ...health }))
}

const times = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)

describe('levels', () => {
  it('go down at once, as far as they must, and up one at a time after three healthy periods', () => {
    expect(play([{}, { p99Ms: 2500 }, ...times(6, {})])).toEqual([
      'normal',
      ...times(3, 'stressed'),
      ...times(3, 'warm'),
      'normal',
    ])
    expect(play([{ errorRate: 0.03 }, { errorRate: 0.06 }])).toEqual(['warm', 'stressed'])
  })

  it('are left only a tenth inside their threshold', () => {
    expect(play([{ p99Ms: 1100 }, ...times(20, { p99Ms: 950 })]).at(-1)).toBe('warm')
    expect(play([{ p99Ms: 1100 }, ...times(3, { p99Ms: 890 })]).at(-1)).toBe('normal')
    expect(play(times(20, { cpu: 0.28, p99Ms: 10 })).at(-1)).toBe('normal')
    expect(play(times(3, { cpu: 0.26, p99Ms: 10 })).at(-1)).toBe('idle')
  })

  it('an idle CPU in front of a slow database is not idle, and one of which nothing is known neither', () => {
    expect(play(times(20, { cpu: 0.01, p99Ms: 600 })).at(-1)).toBe('normal')
    expect(play(times(20, { cpu: null, p99Ms: 1 })).at(-1)).toBe('normal')
  })

  it('no traffic counts as healthy', () => {
    const none = { p99Ms: null, errorRate: null }
    expect(play([{ p99Ms: 9000 }, ...times(6, none)]).at(-1)).toBe('normal')
  })

  it('the event loop says something where it is told to', () => {
    expect(play([{ eventLoopMs: 60 }, { eventLoopMs: 80 }, { eventLoopMs: 300 }])).toEqual([
      'normal',
      'warm',
      'stressed',
    ])
    const levels = presetLevels({ warm: { eventLoopMs: 500 }, stressed: { eventLoopMs: 900 } })
    expect(play([{ eventLoopMs: 300 }], new LevelControl(levels))).toEqual(['normal'])
  })

  it('the CPU says something where it is told to', () => {
    const levels = presetLevels({ warm: { cpu: 0.8 }, stressed: { cpu: 0.95 } })
    expect(play([{ cpu: 0.85 }, { cpu: 0.97 }], new LevelControl(levels))).toEqual(['warm', 'stressed'])
    expect(play([{ cpu: 1 }])).toEqual(['normal'])
  })

  it('say why they are what they are, until it is over', () => {
    const control = new LevelControl(presetLevels())
    const causes = [{ p99Ms: 1200 }, { errorRate: 0.2 }, ...times(5, {}), {}].map((health) => {
      control.step({ ...well, ...health })
      return control.cause
    })
    expect(causes).toEqual(['latency', ...times(6, 'errors'), undefined])
    control.step({ ...well, eventLoopMs: 100, p99Ms: 1500 })
    expect(control.cause).toBe('eventLoop')
  })

  it('are never idle while a few hang or fail', () => {
    const none = { ...well, p99Ms: null, errorRate: null, cpu: 0.01 }
    const after = (hint?: { slowestMs: number; errorRate: number }): LevelName => {
      const control = new LevelControl(presetLevels())
      return times(9, none)
        .map((health) => control.step(health, hint))
        .at(-1)!
    }
    expect(after()).toBe('idle')
    expect(after({ slowestMs: 100, errorRate: 0 })).toBe('idle')
    expect(after({ slowestMs: 4000, errorRate: 0 })).toBe('normal')
    expect(after({ slowestMs: 100, errorRate: 1 })).toBe('normal')
  })

  it('a way up that goes wrong again and again is tried more slowly, ten periods at most', () => {
    // The load is too much for normal whenever it is reached.
    const control = new LevelControl(presetLevels())
    const levels: LevelName[] = []
    for (let period = 0; period < 200; period += 1) {
      levels.push(control.step({ ...well, p99Ms: control.level === 'normal' ? 1500 : 800 }))
    }
    const falls = levels.flatMap((level, at) => (level === 'warm' && levels[at - 1] === 'normal' ? [at] : []))
    const between = falls.slice(1).map((at, index) => at - falls[index]!)
    expect(between[0]).toBeLessThan(between.at(-1)!)
    expect(between.at(-1)).toBe(11)
  })

  it.each([
    ['warm above stressed', () => presetLevels({ warm: { p99Ms: 3000 } }), /warm begins at a p99 of 3000 ms/],
    ['errors the wrong way round', () => presetLevels({ warm: { errorRate: 0.5 } }), /errorRate of 0.5/],
    [
      'stressed gives more than warm',
      () => presetLevels({ stressed: { multiplier: 0.9 } }),
      /multipliers are 0.9, 0.75/,
    ],
    ['an idle that lifts nothing', () => presetLevels({ idle: { multiplier: 1 } }), /have to rise/],
    ['idle as slow as warm', () => presetLevels({ idle: { p99Ms: 1000 } }), /idle ends/],
    ['idle beyond warm', () => presetLevels({ warm: { cpu: 0.8 }, idle: { cpu: 0.9 } }), /idle ends at a cpu of 0.9/],
    ['a CPU the wrong way round', () => presetLevels({ warm: { cpu: 0.9 }, stressed: { cpu: 0.8 } }), /cpu of 0.9/],
    ['levels of one’s own', () => adaptive({ levels: { ...presetLevels(), normal: { multiplier: 2 } } }), /which is 1/],
  ])('that make no sense are mistakes: %s', (_, make, says) => {
    expect(make).toThrow(
      expect.objectContaining({ code: 'RAMPMETER_INVALID_LEVELS', message: expect.stringMatching(says) }),
    )
  })

  it.each<[() => unknown, string, RegExp?]>([
    [() => adaptive({ every: '50ms' }), 'RAMPMETER_INVALID_DURATION'],
    [() => adaptive({ levels: {} as never }), 'RAMPMETER_INVALID_OPTION'],
    [() => adaptive({ controller: true as never }), 'RAMPMETER_INVALID_OPTION'],
    [() => adaptive({ sample: 3 as never }), 'RAMPMETER_INVALID_OPTION'],
    [() => adaptive({ evry: '1s' } as never), 'RAMPMETER_UNKNOWN_OPTION'],
    [() => presetLevels({ warm: { p99Ms: -1 } }), 'RAMPMETER_INVALID_OPTION'],
    [() => presetLevels({ warm: { p99: 1 } as never }), 'RAMPMETER_UNKNOWN_OPTION'],
    [
      () => presetLevels({ warm: { p99Ms: 1 }, stressed: { p99Ms: 2 } }),
      'RAMPMETER_INVALID_OPTION',
      /at least 10.*in ms/,
    ],
    [() => presetLevels({ idle: { cpu: 30 } }), 'RAMPMETER_INVALID_OPTION', /saw 30, expected .* 0\.3 for 30 %/],
    [() => presetLevels({ warm: { errorRate: 2 } }), 'RAMPMETER_INVALID_OPTION', /saw 2, expected a fraction/],
  ])('as are other options (%#)', (make, code, says = /./) => {
    expect(make).toThrow(expect.objectContaining({ code, message: expect.stringMatching(says) }))
  })
})

/** So many processes that look at their health in turn, each at its own moment of a period, and share one multiplier. */
function fleet(size: number, everyMs = 10_000) {
  const clock = manualClock(0)
  const store = memoryStore({ now: clock }).open({ nameOf: (name) => name })
  const processes = Array.from(
    { length: size },
    () => new SharedLevel(presetLevels(), everyMs, (...posted) => store.post!('multiplier', ...posted)),
  )
  return {
    processes,
    join: (index: number): Promise<void> => processes[index]!.join(),
    period: async (
      healthOf: (index: number) => Health,
      alive: (index: number) => boolean = () => true,
    ): Promise<void> => {
      for (const [index, one] of processes.entries()) {
        if (alive(index)) await one.step(healthOf(index))
        clock.advance(everyMs / size)
      }
    },
  }
}

describe('many processes', () => {
  it('follow the worst that lives, all the same within a period, and forget one that was killed', async () => {
    const { processes, period } = fleet(20)
    const multipliers = (): number[] => [...new Set(processes.slice(1).map(({ multiplier }) => multiplier))]
    await period(() => well)
    expect(multipliers()).toEqual([1])
    for (let times = 0; times < 3; times += 1) {
      await period((index) => (index === 0 ? { ...well, p99Ms: 3000 } : well))
      expect(multipliers()).toEqual([0.5])
    }
    const killed = (index: number): boolean => index !== 0
    await period(() => well, killed)
    await period(() => well, killed)
    expect(multipliers()).toEqual([0.5])
    // One level at a time: it may come back.
    for (let times = 0; times < 2; times += 1) await period(() => well, killed)
    expect(multipliers()).toEqual([0.75])
    for (let times = 0; times < 2; times += 1) await period(() => well, killed)
    expect(multipliers()).toEqual([1])
  })

  it('go up together with the worst, no later', async () => {
    const { processes, period } = fleet(6)
    await period((index) => (index === 5 ? { ...well, p99Ms: 3000 } : well))
    const seen: string[] = []
    for (let times = 0; times < 8; times += 1) {
      await period(() => well)
      seen.push(processes[5]!.level)
      expect(processes[5]!.level).toBe(processes[5]!.ownLevel)
    }
    expect(seen).toEqual([...times(2, 'stressed'), ...times(3, 'warm'), ...times(3, 'normal')])
    expect(processes.map(({ level }) => level)).toEqual(times(6, 'normal'))
  })

  it('go up together, also with those that remember how often it went wrong, and those that came later', async () => {
    const { processes, period, join } = fleet(4)
    const slow = { ...well, p99Ms: 3000 }
    const first = (index: number): boolean => index < 2
    for (let round = 0; round < 3; round += 1) {
      await period(() => slow, first)
      for (let times = 0; times < 14; times += 1) await period(() => well, first)
    }
    await join(2)
    await join(3)
    await period((index) => (index === 3 ? slow : well))
    const seen: string[] = []
    for (let times = 0; times < 30; times += 1) {
      await period(() => well)
      seen.push(processes.map(({ level }) => level).join(' '))
    }
    // A change goes round within a period, so none is seen twice on its way.
    const apart = seen.filter((levels) => new Set(levels.split(' ')).size > 1)
    expect(apart).toEqual([...new Set(apart)])
    expect(seen.at(-1)).toBe('normal normal normal normal')
  })

  it('one that joins while all are about to go up does not hold them down', async () => {
    const { processes, period, join } = fleet(3)
    const first = (index: number): boolean => index < 2
    await period((index) => (index === 0 ? { ...well, p99Ms: 3000 } : well), first)
    for (let times = 0; times < 2; times += 1) await period(() => well, first)
    await join(2)
    expect(processes[2]!.level).toBe('stressed')
    await period(() => well)
    await period(() => well)
    expect(processes.map(({ level }) => level)).toEqual(['warm', 'warm', 'warm'])
  })

  it('one that joins while all are well and on their way up is where they are, and why', async () => {
    const { processes, period, join } = fleet(3)
    await period(
      (index) => (index === 0 ? { ...well, p99Ms: 3000 } : well),
      (index) => index < 2,
    )
    // It is killed, and its post expires.
    const [, left, joins] = processes as [SharedLevel, SharedLevel, SharedLevel]
    for (let times = 0; left.level === 'stressed' && times < 10; times += 1) {
      await period(
        () => well,
        (index) => index === 1,
      )
    }
    expect(left).toMatchObject({ level: 'warm', multiplier: 0.75, cause: 'latency', ownLevel: 'normal' })
    await join(2)
    expect(joins).toMatchObject({ level: 'warm', multiplier: 0.75, cause: 'latency', ownLevel: 'normal' })
    for (let times = 0; times < 3; times += 1) {
      await period(
        () => well,
        (index) => index > 0,
      )
    }
    expect([left.level, joins.level, left.cause, joins.cause]).toEqual(['normal', 'normal', undefined, undefined])
  })

  it('do not swing while one of them crashes and comes back as bad, again and again', async () => {
    const clock = manualClock(0)
    const store = memoryStore({ now: clock }).open({ nameOf: (name) => name })
    const make = () => new SharedLevel(presetLevels(), 10_000, (...posted) => store.post!('multiplier', ...posted))
    const neighbour = make()
    const seen: LevelName[] = []
    for (let round = 0; round < 20; round += 1) {
      const crashing = make()
      for (let times = 0; times < 9; times += 1) {
        // Dead from the fourth period on: its post expires after three.
        if (times < 4) await crashing.step({ ...well, errorRate: 1 })
        await neighbour.step(well)
        seen.push(neighbour.level)
        clock.advance(10_000)
      }
    }
    // It is never told that all is well, and after a while not even that it is better.
    expect(seen.slice(9)).not.toContain('normal')
    expect(new Set(seen.slice(60))).toEqual(new Set(['stressed']))
  })

  it('of services whose levels differ, the worst level and the least multiplier count', async () => {
    const store = memoryStore().open({ nameOf: (name) => name })
    const make = (options: Parameters<typeof presetLevels>[0]) =>
      new SharedLevel(presetLevels(options), 10_000, (...posted) => store.post!('multiplier', ...posted))
    const own = make({ stressed: { multiplier: 0.2 }, warm: { multiplier: 0.4 } })
    const presets = make({})
    await own.step({ ...well, p99Ms: 1500 })
    await presets.step(well)
    // Less than what `stressed` means here, and warm all the same: no tier is cut deeper.
    expect([presets.level, presets.multiplier, presets.cause, presets.ownLevel]).toEqual([
      'warm',
      0.4,
      'latency',
      'normal',
    ])
    await presets.step({ ...well, errorRate: 0.5 })
    expect([presets.level, presets.multiplier, presets.cause]).toEqual(['stressed', 0.4, 'errors'])
  })

  it.each([0.6, 0.9, 1.2, 1.6, 2.5])(
    'with different health converge, and do not swing, at %f times what they can do',
    async (load) => {
      const { processes, period } = fleet(24)
      // What a process answers in time: some have half of what others have. Beyond that, answers take as long as the queue.
      const capacityOf = (index: number): number => 0.8 + (0.4 * ((index * 7) % 24)) / 24
      let seed = 7
      const noise = (): number => {
        seed = (seed * 16_807) % 2_147_483_647
        return 0.95 + (0.1 * seed) / 2_147_483_647
      }
      const healthOf = (index: number): Health => {
        // Clients use what they are given, as far as they want it.
        const used = (Math.min(load, 1.1 * processes[index]!.multiplier) / capacityOf(index)) * noise()
        const p99Ms = used < 1 ? 100 / (1.05 - used) : 2000 * used
        return { p99Ms, errorRate: used > 1.5 ? 0.1 : 0, cpu: Math.min(1, used), eventLoopMs: 0 }
      }
      const seen: number[] = []
      for (let times = 0; times < 300; times += 1) {
        await period(healthOf)
        const all = new Set(processes.map(({ multiplier }) => multiplier))
        // While a change goes round, those before it in the period still have the last one.
        expect(all.size).toBeLessThanOrEqual(2)
        seen.push(Math.min(...all))
      }
      const changes = seen.filter((one, index) => index > 100 && one !== seen[index - 1]).length
      // At most a try upwards every ten periods, and the way back.
      expect(changes).toBeLessThanOrEqual(40)
      const settled = seen.slice(100)
      const mean = settled.reduce((sum, one) => sum + one, 0) / settled.length
      if (load < 0.7) expect(mean).toBe(1)
      if (load > 1) expect(mean).toBeLessThanOrEqual(0.8)
    },
  )

  it('each goes by itself while the store is away', async () => {
    const away = new SharedLevel(presetLevels(), 100, () => Promise.reject(new Error('away')))
    await away.step({ ...well, p99Ms: 5000 })
    expect(away.level).toBe('stressed')
    const hangs = new SharedLevel(presetLevels(), 20, () => new Promise(() => {}))
    await hangs.step({ ...well, p99Ms: 1500 })
    expect(hangs.level).toBe('warm')
    const alone = new SharedLevel(presetLevels(), 100, undefined)
    await alone.step({ ...well, p99Ms: 1500 })
    expect(alone.level).toBe('warm')
  })
})
