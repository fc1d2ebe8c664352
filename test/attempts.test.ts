import { afterEach, describe, expect, it, vi } from 'vitest'
import { AttemptLimit } from '../src/attempts.ts'
import type { Verification } from '../src/identify/verifier.ts'

const wrong: Verification = { outcome: 'invalid', reason: 'wrong', challenge: 'X' }
const right: Verification = { outcome: 'verified', identity: { id: 'x:1', kind: 'agent', confidence: 1, reason: 'x' } }
const here = 'ip:192.0.2.1'
const there = 'ip:192.0.2.2'

/** Attempts whose work a test ends when it likes. */
function held(): { work: () => Promise<Verification>; end: (verification: Verification) => void; begun: () => number } {
  const resolvers: ((verification: Verification) => void)[] = []
  let begun = 0
  return {
    work: () => {
      begun += 1
      return new Promise((resolve) => resolvers.push(resolve))
    },
    end: (verification) => resolvers.shift()!(verification),
    begun: () => begun,
  }
}

/** Lets everything that waits for nothing but its turn go on. */
async function turns(): Promise<void> {
  for (let index = 0; index < 20; index += 1) await Promise.resolve()
}

/** lru-cache takes an entry that was made at 0 for one that never expires. */
function turnTheClock(): void {
  vi.useFakeTimers({ toFake: ['performance', 'Date', 'setTimeout', 'clearTimeout'] })
  vi.advanceTimersByTime(1)
}

afterEach(() => {
  vi.useRealTimers()
})

describe('an address', () => {
  it('may show so many wrong credentials in a window, and is told when it may go on', async () => {
    turnTheClock()
    const limit = new AttemptLimit({ quota: 3, windowMs: 60_000 })
    const work = vi.fn(() => wrong)
    for (let index = 0; index < 3; index += 1) {
      expect(await limit.of(here).check(`c${index}`, work)).toBe(wrong)
      vi.advanceTimersByTime(1000)
    }
    expect(await limit.of(here).check('c3', work)).toEqual({ outcome: 'limited', retryAfterMs: 57_000 })
    expect(await limit.of(there).check('c3', work)).toBe(wrong)
    expect(work).toHaveBeenCalledTimes(4)
    vi.advanceTimersByTime(56_999)
    expect(await limit.of(here).check('c4', work)).toEqual({ outcome: 'limited', retryAfterMs: 1 })
    vi.advanceTimersByTime(1)
    expect(await limit.of(here).check('c4', work)).toBe(wrong)
    expect(await limit.of(here).check('c5', work)).toEqual({ outcome: 'limited', retryAfterMs: 1000 })
  })

  it.each<[string, Verification, boolean]>([
    ['is wrong', wrong, true],
    ["is nobody's", { outcome: 'absent', failed: true }, true],
    ['is late', { ...wrong, counts: false }, false],
    ['is right', right, false],
    ['is of another kind', { outcome: 'absent' }, false],
    ['cannot be checked', { outcome: 'unavailable', reason: 'x', cause: null }, false],
  ])('is counted a credential that %s: %s', async (_what, verification, counts) => {
    const limit = new AttemptLimit({ quota: 1, windowMs: 60_000 })
    const attempts = limit.of(here)
    expect(await attempts.check('one', () => verification)).toBe(verification)
    expect(attempts.failures).toBe(counts ? 1 : 0)
    expect(await limit.of(here).check('two', () => right)).toMatchObject({ outcome: counts ? 'limited' : 'verified' })
  })

  it('is not charged for work that throws', async () => {
    const limit = new AttemptLimit({ quota: 1, windowMs: 60_000 })
    const bug = new Error('a bug')
    await expect(
      limit.of(here).check('one', () => {
        throw bug
      }),
    ).rejects.toBe(bug)
    expect(await limit.of(here).check('one', () => right)).toBe(right)
  })

  it('is closed for as long as the store says', async () => {
    turnTheClock()
    const limit = new AttemptLimit({ quota: 20, windowMs: 60_000 })
    limit.learn(here, 5000)
    limit.learn(here, 4000)
    expect(await limit.of(here).check('one', () => right)).toEqual({ outcome: 'limited', retryAfterMs: 5000 })
    vi.advanceTimersByTime(5000)
    expect(await limit.of(here).check('one', () => right)).toBe(right)
  })
})

describe('the same credential', () => {
  it('at the same time is checked once, and is one failure', async () => {
    const limit = new AttemptLimit({ quota: 2, windowMs: 60_000 })
    const { work, end, begun } = held()
    const attempts = Array.from({ length: 20 }, () => limit.of(here))
    const answers = Promise.all(attempts.map((one) => one.check('one', work)))
    await turns()
    expect(begun()).toBe(1)
    end(wrong)
    expect(new Set(await answers)).toEqual(new Set([wrong]))
    expect(attempts.reduce((sum, { failures }) => sum + failures, 0)).toBe(1)
  })

  it('that was wrong is refused from memory, then looked at again, and counts once in a window', async () => {
    turnTheClock()
    const limit = new AttemptLimit({ quota: 2, windowMs: 60_000 })
    const work = vi.fn(() => wrong)
    for (let index = 0; index < 10; index += 1) expect(await limit.of(here).check('one', work)).toBe(wrong)
    expect(work).toHaveBeenCalledTimes(1)
    vi.advanceTimersByTime(10_000)
    expect(await limit.of(here).check('one', work)).toBe(wrong)
    expect(work).toHaveBeenCalledTimes(2)
    // It has become right meanwhile: a key was registered, or fetched anew.
    vi.advanceTimersByTime(10_000)
    expect(await limit.of(here).check('one', () => right)).toBe(right)
    expect(await limit.of(here).check('two', () => wrong)).toBe(wrong)
    expect(await limit.of(here).check('three', () => wrong)).toMatchObject({ outcome: 'limited' })
  })
})

describe('the same credential from two addresses at the same time', () => {
  it('is checked for the one that may, when it may not be looked at for the other', async () => {
    const limit = new AttemptLimit({ quota: 1, windowMs: 60_000 })
    limit.learn(here, 60_000)
    const closed = [limit.of(here).check('one', () => right), limit.of(here).check('one', () => right)]
    const open = limit.of(there).check('one', () => right)
    for (const answer of closed) expect(await answer).toMatchObject({ outcome: 'limited' })
    expect(await open).toBe(right)
  })
})

describe('a proof that was shown again', () => {
  it('is known for ten seconds, and is one failure in a window', async () => {
    turnTheClock()
    const limit = new AttemptLimit({ quota: 2, windowMs: 60_000 })
    expect(limit.of(here).wasUsed('p')).toBe(false)
    expect(await limit.replayed(here, 'p')).toBe(1)
    expect(limit.of(there).wasUsed('p')).toBe(true)
    expect(limit.of(here).wasUsed('q')).toBe(false)
    vi.advanceTimersByTime(10_000)
    expect(limit.of(here).wasUsed('p')).toBe(false)
    expect(await limit.replayed(here, 'p')).toBe(0)
    expect(limit.of(here).wasUsed('p')).toBe(true)
  })
})

describe('a holder that was seen good', () => {
  it('is served on from an address that failed too often, with tries of its own', async () => {
    const limit = new AttemptLimit({ quota: 2, windowMs: 60_000 })
    expect(await limit.of(here).check('proof 1', () => right, 'holder')).toBe(right)
    for (const name of ['a', 'b']) await limit.of(here).check(name, () => wrong)
    expect(await limit.of(here).check('c', () => right)).toMatchObject({ outcome: 'limited' })
    for (let index = 2; index < 9; index += 1) {
      expect(await limit.of(here).check(`proof ${index}`, () => right, 'holder')).toBe(right)
    }
    for (const name of ['forged 1', 'forged 2']) {
      expect(await limit.of(here).check(name, () => wrong, 'holder')).toBe(wrong)
    }
    expect(await limit.of(here).check('forged 3', () => wrong, 'holder')).toMatchObject({ outcome: 'limited' })
    expect(await limit.of(there).check('proof 10', () => right, 'holder')).toBe(right)
  })
})

describe('attempts under way', () => {
  it('are never more than may still fail; the others wait for them, and lose nothing by it', async () => {
    const limit = new AttemptLimit({ quota: 3, windowMs: 60_000 })
    const { work, end, begun } = held()
    const answers = Promise.all(Array.from({ length: 50 }, (_, index) => limit.of(here).check(`c${index}`, work)))
    await turns()
    expect(begun()).toBe(3)
    for (let index = 0; index < 50; index += 1) {
      end(right)
      await turns()
      expect(begun()).toBeLessThanOrEqual(index + 4)
    }
    expect(new Set(await answers)).toEqual(new Set([right]))
  })

  it('that fail turn the waiting ones away, unchecked', async () => {
    const limit = new AttemptLimit({ quota: 3, windowMs: 60_000 })
    const { work, end, begun } = held()
    const answers = Promise.all(Array.from({ length: 50 }, (_, index) => limit.of(here).check(`c${index}`, work)))
    await turns()
    for (let index = 0; index < 3; index += 1) end(wrong)
    const outcomes = (await answers).map(({ outcome }) => outcome)
    expect(outcomes.filter((outcome) => outcome === 'invalid')).toHaveLength(3)
    expect(outcomes.filter((outcome) => outcome === 'limited')).toHaveLength(47)
    expect(begun()).toBe(3)
  })

  it('do not pile up without end', async () => {
    const limit = new AttemptLimit({ quota: 1, windowMs: 60_000 })
    const { work, end } = held()
    const answers = Array.from({ length: 1002 }, (_, index) => limit.of(here).check(`c${index}`, work))
    expect(await answers.at(-1)).toEqual({ outcome: 'limited', retryAfterMs: 1000 })
    end(wrong)
    await Promise.all(answers)
  })
})

describe('a verifier that does not ask first', () => {
  it('is counted when it failed, and one that asked is not counted twice', async () => {
    const limit = new AttemptLimit({ quota: 2, windowMs: 60_000 })
    const attempts = limit.of(here)
    attempts.begin()
    await attempts.check('one', () => wrong)
    attempts.countUnlessAsked()
    expect(attempts.failures).toBe(1)
    attempts.begin()
    attempts.countUnlessAsked()
    expect(attempts.failures).toBe(2)
    expect(await limit.of(here).check('two', () => right)).toMatchObject({ outcome: 'limited' })
  })
})
