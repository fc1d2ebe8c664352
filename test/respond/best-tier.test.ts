import { describe, expect, it } from 'vitest'
import { presetTiers } from '../../src/classify/presets.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { isBestTier, type TierLimits } from '../../src/respond/best-tier.ts'

const hourly = (quota: number): TierLimits => ({ policies: [slidingWindow({ quota, window: '1h' })] })

function bestOf(tiers: Record<string, TierLimits>): string[] {
  return Object.keys(tiers).filter((name) => isBestTier(name, tiers))
}

describe('isBestTier', () => {
  it('is premium of the presets', () => {
    expect(bestOf(presetTiers())).toEqual(['premium'])
  })

  it.each<[string, Record<string, TierLimits>, string[]]>([
    ['the one with the larger quota', { free: hourly(10), paid: hourly(100) }, ['paid']],
    ['the one without limits', { free: hourly(10), staff: { policies: [] } }, ['staff']],
    ['each of those that are alike', { one: hourly(10), other: hourly(10), free: hourly(1) }, ['one', 'other']],
    ['the one that goes first', { free: hourly(10), paid: { ...hourly(10), priority: 1 } }, ['paid']],
    ['the one that waits for no pool', { free: { ...hourly(10), pool: 'shared' }, paid: hourly(10) }, ['paid']],
    [
      'the one with the larger burst',
      {
        free: { policies: [tokenBucket({ quota: 10, window: '1m' })] },
        paid: { policies: [tokenBucket({ quota: 10, window: '1m', burst: 50 })] },
      },
      ['paid'],
    ],
    [
      'the one with fewer limits',
      {
        free: { policies: [...hourly(10).policies!, slidingWindow({ name: 'daily', quota: 50, window: '1d' })] },
        paid: hourly(10),
      },
      ['paid'],
    ],
    ['none that stands alone', { default: hourly(10) }, []],
    [
      'none of those with windows that differ',
      { hourly: hourly(10), daily: { policies: [slidingWindow({ quota: 100, window: '1d' })] } },
      [],
    ],
    [
      'none of those with quotas of each client’s own',
      {
        free: { policies: [slidingWindow({ quota: (client) => client.claims['quota'], window: '1h' })] },
        paid: hourly(9),
      },
      [],
    ],
  ])('is %s', (_what, tiers, best) => {
    expect(bestOf(tiers)).toEqual(best)
  })
})
