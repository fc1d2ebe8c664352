import type { Request } from 'express'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { presetClassifier, presetTierOf, presetTiers } from '../../src/classify/presets.ts'
import type { Client } from '../../src/client.ts'
import type { PresetTier } from '../../src/tier.ts'

const minute = 60_000
const hour = 3_600_000

afterEach(() => {
  vi.useRealTimers()
})

describe('presetTiers', () => {
  it.each<[PresetTier, number, number, number, boolean]>([
    ['anonymous', 30, 500, 10, false],
    ['unverified-agent', 30, 500, 60, false],
    ['human', 100, 3000, 30, false],
    ['agent', 500, 20_000, 200, true],
    ['verified-agent', 1000, 50_000, 500, true],
    ['premium', 2000, 100_000, 1000, false],
  ])('%s: %i a minute, %i an hour, %i at once', (name, perMinute, perHour, burst, extra) => {
    const tier = presetTiers()[name]
    expect(tier.policies).toMatchObject([
      { kind: 'token-bucket', name: 'per-minute', quota: perMinute, burst, windowMs: minute, partition: 'client' },
      { kind: 'sliding-window', name: 'per-hour', quota: perHour, windowMs: hour, partition: 'client' },
    ])
    expect(tier.initialBurst).toEqual(extra ? { quota: 500, window: '5m' } : undefined)
    expect(tier.adaptive).toEqual(name === 'premium' ? { floor: 0.75 } : undefined)
    const more = [...(name === 'premium' ? ['adaptive'] : []), ...(extra ? ['initialBurst'] : [])]
    expect(Object.keys(tier).sort()).toEqual([...more, 'policies', 'priority'])
  })

  it('are six', () => {
    expect(Object.keys(presetTiers())).toEqual([
      'anonymous',
      'unverified-agent',
      'human',
      'agent',
      'verified-agent',
      'premium',
    ])
  })

  it('share their counters by name, so that a change of tier is a change of limit', () => {
    const ids = Object.values(presetTiers()).map(({ policies }) => policies.map((policy) => policy.stateId))
    for (const one of ids) expect(one).toEqual(ids[0])
  })

  it('cap people per address where asked', () => {
    const capped = presetTiers({ perAddress: 1000 })
    expect(capped.human.policies).toMatchObject([
      { name: 'per-minute' },
      { name: 'per-hour' },
      { name: 'per-address', quota: 1000, windowMs: minute, partition: 'address' },
    ])
    expect({ ...capped, human: undefined }).toEqual({ ...presetTiers(), human: undefined })
  })

  it('are new each time, so that changing one changes nothing else', () => {
    const mine = presetTiers()
    mine.human.policies = []
    mine.agent.initialBurst!.quota = 1
    expect(presetTiers().human.policies).toHaveLength(2)
    expect(presetTiers().agent.initialBurst!.quota).toBe(500)
  })

  it.each([
    [{ perAddress: 0 }, 'RAMPMETER_INVALID_OPTION'],
    [{ perAddress: 1.5 }, 'RAMPMETER_INVALID_OPTION'],
    [{ perAddress: '1000' }, 'RAMPMETER_INVALID_OPTION'],
    [{ perAdress: 1000 }, 'RAMPMETER_UNKNOWN_OPTION'],
    [null, 'RAMPMETER_INVALID_OPTION'],
  ])('%j is a mistake', (options, code) => {
    expect(() => presetTiers(options as never)).toThrow(expect.objectContaining({ code }))
  })
})

const hint = { agent: 'ClaudeBot', operator: 'Anthropic', role: 'crawler' } as const

describe('presetTierOf', () => {
  it.each<[Client['kind'], boolean, boolean, PresetTier]>([
    ['anonymous', false, false, 'anonymous'],
    ['anonymous', true, false, 'unverified-agent'],
    ['human', false, false, 'human'],
    ['human', true, false, 'human'],
    ['human', false, true, 'human'],
    ['unknown', false, false, 'human'],
    ['unknown', true, true, 'human'],
    ['agent', false, false, 'agent'],
    ['agent', true, false, 'agent'],
    ['agent', false, true, 'verified-agent'],
  ])('%s, hint %s, proves a key %s: %s', (kind, hinted, provesKey, tier) => {
    expect(presetTierOf({ kind, hint: hinted ? hint : null, provesKey })).toBe(tier)
  })

  it('never gives a higher rate for a hint', () => {
    const tiers = presetTiers()
    const rates = (tier: PresetTier): unknown[] =>
      tiers[tier].policies.map(({ quota, windowMs, name }) => [name, quota, windowMs])
    fc.assert(
      fc.property(
        fc.constantFrom<Client['kind']>('anonymous', 'human', 'agent', 'unknown'),
        fc.boolean(),
        (kind, provesKey) => {
          const without = presetTierOf({ kind, hint: null, provesKey })
          const withHint = presetTierOf({ kind, hint, provesKey })
          expect(rates(withHint)).toEqual(rates(without))
          expect(tiers[withHint].initialBurst).toEqual(tiers[without].initialBurst)
        },
      ),
    )
  })
})

function clientOf(more: Partial<Client> = {}): Client {
  return {
    id: 'session:1',
    kind: 'human',
    tier: 'human',
    provedBy: 'session',
    confidence: 0.6,
    reasons: [],
    claims: {},
    address: 'ip:203.0.113.7',
    hint: null,
    ...more,
  }
}

const newRequest = (): Request => ({}) as Request

describe('presetClassifier', () => {
  it('says what is said already, when nothing is asked of it', () => {
    const classify = presetClassifier()
    for (const tier of ['anonymous', 'human', 'premium', 'gold'])
      expect(classify(newRequest(), clientOf({ tier }))).toBe(tier)
    for (let turn = 0; turn < 1000; turn += 1) expect(classify(newRequest(), clientOf())).toBe('human')
  })

  it('moves a busy session to agent, while it is busy', () => {
    let time = 5_000_000
    const classify = presetClassifier({ agentAbove: 50, now: () => time })
    for (let turn = 0; turn < 50; turn += 1) {
      time += 100
      expect(classify(newRequest(), clientOf())).toBe('human')
    }
    expect(classify(newRequest(), clientOf())).toBe('agent')
    expect(classify(newRequest(), clientOf({ id: 'session:2' }))).toBe('human')
    time += minute
    expect(classify(newRequest(), clientOf())).toBe('human')
  })

  it('counts a request once, though two limiters ask', () => {
    const classify = presetClassifier({ agentAbove: 2, now: () => 0 })
    for (let turn = 0; turn < 2; turn += 1) {
      const req = newRequest()
      for (let asked = 0; asked < 3; asked += 1) expect(classify(req, clientOf())).toBe('human')
    }
    const third = newRequest()
    expect([classify(third, clientOf()), classify(third, clientOf())]).toEqual(['agent', 'agent'])
  })

  it.each<[string, Partial<Client>]>([
    ['an address', { id: 'ip:203.0.113.7', kind: 'anonymous', tier: 'anonymous', provedBy: null }],
    ['an unproven agent', { id: 'ip:203.0.113.7', kind: 'anonymous', tier: 'unverified-agent', provedBy: null, hint }],
    ["a person's API key", { id: 'key:ann', provedBy: 'api-key' }],
    ['a session that is an agent', { kind: 'agent', tier: 'agent' }],
    ['a session that paid', { tier: 'premium' }],
    ["a session in a tier of the app's own", { tier: 'gold' }],
  ])('does not move %s', (_what, more) => {
    const classify = presetClassifier({ agentAbove: 1, now: () => 0 })
    const client = clientOf(more)
    for (let turn = 0; turn < 20; turn += 1) expect(classify(newRequest(), client)).toBe(client.tier)
  })

  it('says what a list of all requests says', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 20_000 }), fc.constantFrom('session:1', 'session:2')), {
          maxLength: 120,
        }),
        (agentAbove, steps) => {
          let time = 0
          const classify = presetClassifier({ agentAbove, now: () => time })
          const all: { id: string; at: number }[] = []
          for (const [step, id] of steps) {
            time += step
            all.push({ id, at: time })
            const recent = all.filter((one) => one.id === id && one.at > time - minute).length
            expect(classify(newRequest(), clientOf({ id }))).toBe(recent > agentAbove ? 'agent' : 'human')
          }
        },
      ),
    )
  })

  it('has a clock of its own', () => {
    vi.useFakeTimers()
    const classify = presetClassifier({ agentAbove: 1 })
    void classify(newRequest(), clientOf())
    expect(classify(newRequest(), clientOf())).toBe('agent')
    vi.advanceTimersByTime(minute)
    expect(classify(newRequest(), clientOf())).toBe('human')
  })

  it.each([
    [{ agentAbove: 0 }, 'RAMPMETER_INVALID_OPTION'],
    [{ agentAbove: 10_001 }, 'RAMPMETER_INVALID_OPTION'],
    [{ agentAbove: '50' }, 'RAMPMETER_INVALID_OPTION'],
    [{ now: 5 }, 'RAMPMETER_INVALID_OPTION'],
    [{ agentsAbove: 50 }, 'RAMPMETER_UNKNOWN_OPTION'],
  ])('%j is a mistake', (options, code) => {
    expect(() => presetClassifier(options as never)).toThrow(expect.objectContaining({ code }))
  })
})
