import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, it, onTestFinished } from 'vitest'
import { HealthMeter } from '../../src/adaptive/health.ts'
import { Sampler, type Sample } from '../../src/adaptive/sample.ts'

function metered(): HealthMeter {
  const meter = new HealthMeter()
  onTestFinished(() => meter.stop())
  return meter
}

const several = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value)

describe('what is measured', () => {
  it('of an app that hangs is how long it has been at it', () => {
    const meter = metered()
    for (const ms of several(100, 20)) meter.count(ms, 200)
    expect(meter.take().health.p99Ms).toBeLessThan(25)
    const { health, hint } = meter.take(several(100, 3000))
    expect(health.p99Ms).toBeGreaterThan(2900)
    expect(hint).toBeUndefined()
    // What has just come says nothing yet.
    expect(meter.take(several(100, 1)).health.p99Ms).toBeLessThan(25)
  })

  it('of few answers is a hint: how slow, and whether they failed', () => {
    const meter = metered()
    expect(meter.take().hint).toBeUndefined()
    for (const ms of several(5, 20)) meter.count(ms, 500)
    const { health, hint } = meter.take([4000])
    expect(health).toMatchObject({ p99Ms: null, errorRate: null })
    expect(hint!.errorRate).toBe(1)
    expect(hint!.slowestMs).toBeGreaterThan(3900)
  })

  it('is no time where the client was waited for, and its status all the same', () => {
    const meter = metered()
    for (const status of several(30, 500)) meter.count(undefined, status)
    expect(meter.take().health).toMatchObject({ p99Ms: null, errorRate: 1 })
  })

  it('is a late event loop only where it is late for longer than one pause', async () => {
    const meter = metered()
    const block = async (ms: number): Promise<void> => {
      await sleep(50)
      const until = performance.now() + ms
      while (performance.now() < until);
      await sleep(50)
    }
    await block(0)
    meter.take()
    await block(2000)
    // One period alone decides nothing.
    const [one, after] = [meter.take().health.eventLoopMs, await sleep(200).then(() => meter.take().health.eventLoopMs)]
    expect(one).toBeLessThan(1000)
    expect(after).toBeLessThan(1000)
    await block(400)
    meter.take()
    await block(400)
    expect(meter.take().health.eventLoopMs).toBeGreaterThan(200)
    // So late that nobody looked.
    const lates = [600, 600].map((ms) => {
      const until = performance.now() + ms
      while (performance.now() < until);
      return meter.take().health.eventLoopMs
    })
    expect(lates[1]).toBeGreaterThan(200)
  })
})

describe('a sample', () => {
  it('that fails holds what it said last for five periods, then what was measured counts', async () => {
    let answer: () => unknown = () => ({ p99Ms: 5000, cpu: 0.5 })
    const sampler = new Sampler(
      () => answer() as Sample,
      1000,
      () => {},
    )
    expect(await sampler.take()).toEqual({ p99Ms: 5000, cpu: 0.5 })
    answer = () => {
      throw new Error('away')
    }
    for (let period = 0; period < 5; period += 1) expect(await sampler.take()).toEqual({ p99Ms: 5000, cpu: 0.5 })
    expect(await sampler.take()).toEqual({})
    answer = () => ({ p99Ms: 100, cpu: 0.2 })
    await sampler.take()
    // Only what is nonsense is held; what it says nothing of is unknown to it.
    answer = () => ({ p99Ms: Number.NaN })
    expect(await sampler.take()).toEqual({ p99Ms: 100 })
    answer = () => ({ p99Ms: null })
    expect(await sampler.take()).toEqual({})
  })
})
