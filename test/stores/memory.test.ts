import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Charge, OpenStore, StoreDecision } from '../../src/stores/store.ts'
import { manualClock, type ManualClock } from '../../src/testing/manual-clock.ts'
import { ask, dayUs, minuteUs, refillingKinds } from '../promises/histories.ts'

function open(maxKeys: number): { store: OpenStore; clock: ManualClock } {
  const clock = manualClock()
  return { store: memoryStore({ now: clock, maxKeys }).open({ nameOf: (partition) => partition }), clock }
}

function charge(partition: string, more: Partial<Charge> = {}): Charge {
  const limit = { windowUs: minuteUs, quota: 3, capacity: 3, cost: 1, liftable: false, shadow: false }
  return { kind: 'fixed-window', stateId: 7, partition, ...limit, ...more }
}

function decide(store: OpenStore, partition: string, more: Partial<Charge> = {}): Promise<StoreDecision> {
  return store.decide(ask([charge(partition, more)]))
}

async function fill(store: OpenStore, count: number, name: (index: number) => string): Promise<void> {
  for (let index = 0; index < count; index += 1) await decide(store, name(index))
}

describe('full of live counters', () => {
  it('keeps those who came first, and lets all who are new share one set of counters', async () => {
    const { store } = open(10)
    await fill(store, 10, (index) => `ip:first-${index}`)
    for (const [index, left] of [2, 1, 0].entries()) {
      const { admitted, outcomes } = await decide(store, `ip:new-${index}`)
      expect(admitted).toBe(true)
      expect(outcomes[0]!.remaining).toBe(left)
    }
    const refused = await decide(store, 'ip:new-3')
    expect(refused.admitted).toBe(false)
    expect(refused.retryAfterUs).toBe(minuteUs)
    for (let index = 0; index < 10; index += 1) {
      expect((await decide(store, `ip:first-${index}`)).outcomes[0]!.remaining).toBe(1)
    }
  })

  it('tells a newcomer who only looks what it would be told', async () => {
    const { store } = open(1)
    await decide(store, 'ip:first')
    await decide(store, 'ip:second', { cost: 3 })
    const { admitted, outcomes } = await store.decide(ask([charge('ip:third')], false))
    expect(admitted).toBe(false)
    expect(outcomes[0]!.remaining).toBe(0)
  })

  it('addresses take no room from those who showed who they are, nor the other way round', async () => {
    const { store } = open(5)
    await fill(store, 50, (index) => `ip:${index}`)
    for (let index = 0; index < 5; index += 1) {
      expect((await decide(store, `key:${index}`)).outcomes[0]!.remaining).toBe(2)
    }
    await fill(store, 50, (index) => `session:${index}`)
    expect((await decide(store, 'ip:0')).outcomes[0]!.remaining).toBe(1)
  })

  it('one that is refused takes no room', async () => {
    const { store } = open(2)
    await fill(store, 50, (index) => `ip:${index}`)
    const empty = open(2)
    for (let index = 0; index < 50; index += 1) await decide(empty.store, `ip:greedy-${index}`, { cost: 4 })
    for (const name of ['ip:a', 'ip:b']) expect((await decide(empty.store, name)).outcomes[0]!.remaining).toBe(2)
    for (const name of ['ip:a', 'ip:b']) expect((await decide(empty.store, name)).outcomes[0]!.remaining).toBe(1)
  })

  it('a decision over two new partitions, with room for one, mints nothing for the other', async () => {
    const { store } = open(1)
    const both = (name: string): Charge[] => [charge(`ip:${name}-one`), charge(`ip:${name}-two`, { stateId: 8 })]
    const admitted: boolean[] = []
    for (let index = 0; index < 6; index += 1) admitted.push((await store.decide(ask(both(`${index}`)))).admitted)
    expect(admitted).toEqual([true, true, true, false, false, false])
  })

  it('has room again when counters expire, and the shared ones expire too', async () => {
    const { store, clock } = open(3)
    await fill(store, 6, (index) => `ip:${index}`)
    expect((await decide(store, 'ip:6')).admitted).toBe(false)
    clock.advance('61s')
    for (const name of ['ip:7', 'ip:8', 'ip:9']) {
      for (const left of [2, 1]) expect((await decide(store, name)).outcomes[0]!.remaining).toBe(left)
    }
    expect((await decide(store, 'ip:10')).outcomes[0]!.remaining).toBe(2)
  })

  it('counters that were used again meanwhile stay', async () => {
    const { store, clock } = open(3)
    const fast = { kind: 'sliding-log' as const }
    await decide(store, 'ip:steady', fast)
    for (let step = 0; step < 20; step += 1) {
      clock.advance('30s')
      await fill(store, 3, (index) => `ip:${step}-${index}`)
      const { outcomes } = await decide(store, 'ip:steady', fast)
      expect(outcomes[0]!.remaining).toBe(1)
    }
  })

  it('a clock that was set back and comes on again still makes room', async () => {
    const { store, clock } = open(2)
    clock.advance('1h')
    await fill(store, 2, (index) => `ip:before-${index}`)
    clock.advance(-3_600_000)
    await fill(store, 2, (index) => `ip:back-${index}`)
    clock.advance('1h')
    clock.advance('2m')
    for (const name of ['ip:after-0', 'ip:after-1']) {
      for (const left of [2, 1]) expect((await decide(store, name)).outcomes[0]!.remaining).toBe(left)
    }
  })
})

describe('memory', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  function heapMb(): number {
    collect()
    return process.memoryUsage().heapUsed / 2 ** 20
  }

  it('stays flat under a million new addresses, and the limit still holds for those who came first', async () => {
    const { store, clock } = open(1000)
    await fill(store, 1000, (index) => `ip:first-${index}`)
    const before = heapMb()
    for (let index = 0; index < 1_000_000; index += 1) {
      if (index % 100 === 0) clock.advance(1)
      await decide(store, `ip:${index}`)
    }
    expect(heapMb() - before).toBeLessThan(8)
    expect(clock() - Date.UTC(2026, 0, 1)).toBeLessThan(60_000)
    for (const left of [1, 0]) expect((await decide(store, 'ip:first-500')).outcomes[0]!.remaining).toBe(left)
    expect((await decide(store, 'ip:first-500')).admitted).toBe(false)
  })

  it('is given back when counters expire, whatever kinds they are', async () => {
    const { store, clock } = open(1_000_000)
    const before = heapMb()
    const charges = (index: number): Charge[] =>
      refillingKinds.map((kind, number) => charge(`key:${index % 5000}`, { kind, stateId: number }))
    for (let index = 0; index < 20_000; index += 1) {
      if (index % 100 === 0) clock.advance('1s')
      await store.decide(ask(charges(index)))
    }
    clock.advance('2m')
    await decide(store, 'key:last')
    expect(heapMb() - before).toBeLessThan(4)
    // The store is still in use.
    expect((await decide(store, 'key:last')).outcomes[0]!.remaining).toBe(1)
  })

  it('is bounded for one client, however often its charge is corrected', async () => {
    const { store, clock } = open(10)
    const mine = charge('key:one', { windowUs: 30 * dayUs })
    const before = heapMb()
    for (let index = 0; index < 100_000; index += 1) {
      clock.advance('1s')
      const { nowUs } = await store.decide(ask([mine]))
      await store.settle([{ charged: { charge: mine, cost: 1, chargedAtUs: nowUs }, by: -1 }])
    }
    expect(heapMb() - before).toBeLessThan(4)
    // The store is still in use.
    expect((await store.decide(ask([mine]))).outcomes[0]!.remaining).toBe(2)
  })
})

it('reads its clock to the microsecond', async () => {
  let us = 0
  const store = memoryStore({ now: () => us / 1000 }).open({ nameOf: (partition) => partition })
  // A test's clock may begin at 0.
  for (const start of [0, Date.UTC(2026, 0, 1) * 1000]) {
    for (let step = 0; step < 5000; step += 1) {
      us = start + step * 17
      expect((await decide(store, `key:${step}`)).nowUs).toBe(us)
    }
  }
})

it('holds no process: one that decided ends by itself', async () => {
  const source = fileURLToPath(new URL('../../src/stores/memory.ts', import.meta.url))
  const script = `
    const { memoryStore } = await import(${JSON.stringify(source)})
    const store = memoryStore().open({ nameOf: (partition) => partition })
    const charge = ${JSON.stringify(charge('key:one'))}
    console.log((await store.decide({ charges: [charge], undo: [], commit: true })).admitted)
  `
  const started = performance.now()
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
    timeout: 20_000,
  })
  let output = ''
  child.stdout.on('data', (bytes) => (output += String(bytes)))
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null]
  expect({ output, code, signal }).toEqual({ output: 'true\n', code: 0, signal: null })
  expect(performance.now() - started).toBeLessThan(20_000)
})
