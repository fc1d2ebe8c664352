import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { expect, it, onTestFinished, vi } from 'vitest'
import { RampmeterError } from '../../src/errors.ts'
import type { DegradedMessage } from '../../src/observe/channels.ts'
import { endOutage, warnOfOutage } from '../../src/observe/outage.ts'
import { Breakers } from '../../src/stores/breaker.ts'
import { StoreGuard } from '../../src/stores/guard.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { probed, probeOf } from '../../src/stores/probe.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import type { OpenStore } from '../../src/stores/store.ts'
import { warningsOf } from '../http/warnings.ts'

/** Answered at once, whatever becomes of the rest. */
const other = 'key:other'
const outcome = { verdict: 'fits', remaining: 1, waitUs: 0, resetUs: 0, added: 0 } as const

/** A store that answers none but one client, or fails; it sends what it is asked, or has it wait behind others of its client. */
function silent(sends: boolean, isBehindOwn = false, fails = false): OpenStore {
  return {
    ...memoryStore().open({ nameOf: (partition) => partition }),
    local: false,
    decideFor: ({ charges }, caller) => {
      if (charges[0]!.partition === other) {
        caller.sent()
        caller.answered({ admitted: true, nowUs: 0, retryAfterUs: 0, outcomes: [outcome] })
        return
      }
      if (isBehindOwn) caller.behindOwn?.()
      if (sends) caller.sent()
      if (fails) caller.failed(new Error('OOM'))
    },
  }
}

/** Asks a store five times in vain, which may answer another meanwhile, and says what its breaker thinks of it then. */
async function askedInVain(
  sends: boolean,
  fails = false,
  answersAnother = true,
): Promise<{ state: string; told: Set<string> }> {
  const store = silent(sends, false, fails)
  const breakers = new Breakers()
  const guard = new StoreGuard(store, { deadlineMs: 5, breakers, onAway: () => {} })
  const told = new Set<string>()
  for (let times = 0; times < 5; times += 1) {
    const vain = guard.decide(probeOf(probed, true)).catch((error: RampmeterError) => told.add(error.message))
    if (answersAnother) await guard.decide(probeOf(other, true)).catch(() => {})
    await vain
  }
  const { state } = breakers
  guard.close()
  return { state, told }
}

it('a decision that waited for its turn in this process is not the fault of the store', async () => {
  const { state, told } = await askedInVain(false)
  expect(state).toBe('up')
  expect([...told].join()).toMatch(/^the decision was not sent within its deadline of 5 ms: /)
})

it('where nobody is answered meanwhile, the store is what it waited for', async () => {
  const { state, told } = await askedInVain(false, false, false)
  expect(state).toBe('up')
  expect([...told].join()).toMatch(/^the store did not answer within its deadline of 5 ms/)
})

it('one that was sent, and not answered, is', async () => {
  const { state, told } = await askedInVain(true, false, false)
  expect(state).not.toBe('up')
  expect([...told].join()).toContain('the store did not answer within its deadline of 5 ms')
})

it('one that was sent, and failed at once, is', async () => {
  const { state } = await askedInVain(true, true, false)
  expect(state).not.toBe('up')
})

it.each([
  ['behind others of its client gets nothing of the local share, which would come on top of what they get', true, 0],
  ['behind those of other clients is decided by the local share', false, 2],
] as const)('one that waited %s', async (_, isBehindOwn, admitted) => {
  const limiter = rampmeter({
    store: { open: () => silent(false, isBehindOwn) },
    policies: [slidingWindow({ name: 'hour', quota: 4, window: '1h' })],
    deadline: '5ms',
    processes: 2,
  })
  const asked = Array.from({ length: 5 }, () => limiter.decide({ client: { id: 'key:one' } }))
  expect(await limiter.decide({ client: { id: other } })).toMatchObject({ degraded: false })
  const decisions = await Promise.all(asked)
  expect(decisions.filter((decision) => decision.admitted)).toHaveLength(admitted)
  for (const decision of decisions.filter((one) => !one.admitted)) {
    expect(decision).toMatchObject({ degraded: true, violated: ['hour'], reason: 'store' })
    expect(decision.retryAfterMs).toBeGreaterThan(0)
  }
  await limiter.close()
})

it("one client's flood is told as such, and is no outage; one that begins meanwhile is told when its minute is over", async () => {
  const warned = warningsOf('RAMPMETER_STORE_UNAVAILABLE')
  const told: DegradedMessage[] = []
  const listen = (message: unknown): void => void told.push(message as DegradedMessage)
  subscribe('rampmeter:degraded', listen)
  onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
  const before = (await warned()).length
  const limiter = rampmeter({
    store: { open: () => silent(false, true) },
    policies: [slidingWindow({ name: 'hour', quota: 4, window: '1h' })],
    deadline: '5ms',
    processes: 2,
  })
  const asked = Array.from({ length: 3 }, () => limiter.decide({ client: { id: 'key:one' } }))
  await limiter.decide({ client: { id: other } })
  await Promise.all(asked)
  await limiter.decide({ client: { id: other } })
  expect(told.map(({ state, count }) => [state, count])).toEqual([
    ['crowded', 1],
    ['crowded', 2],
    ['crowded', 3],
  ])
  expect(told[0]!.cause).toContain('of the same client were under way')
  expect(await warned()).toHaveLength(before)
  expect(limiter.health().store).toBe('up')
  await limiter.close()
})

it('an outage that began within a minute of another is warned of when that is over', async () => {
  vi.useFakeTimers({ now: 0, toFake: ['performance'] })
  onTestFinished(() => void vi.useRealTimers())
  vi.advanceTimersByTime(600_000)
  const warned = warningsOf('RAMPMETER_STORE_UNAVAILABLE')
  const error = new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', 'it failed')
  const [one, two] = ['one', 'two'].map((address) => ({ kind: 'test', address, prefix: '' }))
  warnOfOutage(error, 1, false, one!)
  warnOfOutage(error, 2, false, one!)
  warnOfOutage(error, 1, false, two!)
  endOutage(one!)
  warnOfOutage(error, 1, false, one!)
  expect(await warned()).toHaveLength(1)
  vi.advanceTimersByTime(60_000)
  warnOfOutage(error, 2, false, two!)
  warnOfOutage(error, 3, false, two!)
  vi.advanceTimersByTime(60_000)
  warnOfOutage(error, 4, false, two!)
  warnOfOutage(error, 2, false, one!)
  const addresses = (await warned()).map(({ message }) => /\(test (\w+)\)/.exec(message)?.[1])
  expect(addresses).toEqual(['one', 'two', 'one'])
})

it('how long an outage lasts is told rightly where the clock is set meanwhile', async () => {
  vi.useFakeTimers({ now: 7_200_000, toFake: ['Date'] })
  onTestFinished(() => void vi.useRealTimers())
  const told: DegradedMessage[] = []
  const listen = (message: unknown): void => void told.push(message as DegradedMessage)
  subscribe('rampmeter:degraded', listen)
  onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
  let isWell = false
  const outcomes = [outcome]
  const limiter = rampmeter({
    store: {
      open: () => ({
        ...silent(false),
        decideFor: (_, caller) => {
          if (isWell) caller.answered({ admitted: true, nowUs: 0, retryAfterUs: 0, outcomes })
          else caller.failed(new Error('OOM'))
        },
      }),
    },
    policies: [slidingWindow({ name: 'hour', quota: 4, window: '1h' })],
    processes: 1,
  })
  const decide = () => limiter.decide({ client: { id: 'key:one' } })
  await decide()
  vi.setSystemTime(3_600_000)
  await decide()
  vi.setSystemTime(10_800_000)
  isWell = true
  await decide()
  expect(told.map(({ state, since }) => [state, since])).toEqual([
    ['away', 7_200_000],
    ['away', 7_200_000],
    ['back', 7_200_000],
  ])
  for (const { forMs } of told) {
    expect(forMs).toBeGreaterThanOrEqual(0)
    expect(forMs).toBeLessThan(3_600_000)
  }
  await limiter.close()
})
