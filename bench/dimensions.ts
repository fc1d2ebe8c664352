import { Redis } from 'ioredis'
import {
  concurrency,
  failures,
  fixedWindow,
  memoryStore,
  rampmeter,
  redisStore,
  slidingLog,
  slidingWindow,
  tokenBucket,
  uniqueTargets,
  type Policy,
  type Store,
} from 'rampmeter'
import { uniform } from './keys.ts'
import type { Decider } from './libraries/library.ts'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter } from './redis-meter.ts'
import { slice, type DecisionSample, type Measured } from './slice.ts'

/** What a dimension is set against: one token bucket. */
export const baseline = 'token bucket'

const plenty = 1_000_000_000

const hour = { quota: plenty, window: '1h' } as const

/** Limits that are never used up, each of another kind or charged in another way. */
const dimensions: Readonly<Record<string, Policy>> = {
  [baseline]: tokenBucket({ name: 'pace', ...hour }),
  'sliding window': slidingWindow({ name: 'hourly', ...hour }),
  'calendar quota': fixedWindow({ name: 'billed', quota: plenty, window: 'month', align: { day: 15 } }),
  concurrency: concurrency({ name: 'in-flight', quota: plenty }),
  failures: failures({ name: 'bad-logins', ...hour }),
  'unique targets': uniqueTargets({ name: 'accounts', ...hour }),
  'charged after': tokenBucket({ name: 'tokens', ...hour, charge: 'after', unit: 'tokens' }),
}

const scenarios: readonly (readonly [name: string, policies: readonly Policy[]])[] = [
  ...Object.entries(dimensions).map(([name, policy]) => [name, [policy]] as const),
  ['for everybody', [tokenBucket({ name: 'all', ...hour, partition: 'global' })]],
  [
    'for everybody, taken ahead',
    [tokenBucket({ name: 'all', ...hour, partition: 'global', prefetch: { share: 0.001 } })],
  ],
  ['sliding log', [slidingLog({ name: 'log', quota: plenty, window: '1s' })]],
  ['all but the log', Object.values(dimensions)],
]

/**
 * What each dimension costs alone, and seven of them together, of our own alone: decisions one after the other, each of which
 * gives its slot back and is settled, as the end of a response does.
 */
export async function dimensionsOf(
  pace: Pace,
  onRedis?: { url: string; meter: RedisMeter },
): Promise<Measured<DecisionSample>[]> {
  await onRedis?.meter.flush()
  const contenders = await Promise.all(scenarios.map(([name, policies]) => contender(name, policies, onRedis?.url)))
  const load = onRedis ? { inFlight: 16, ms: pace.aloneMs } : { inFlight: 1, ms: pace.memoryMs }
  const samples = await inTurns(contenders, pace, (one) => slice(one, { ...load, keys: uniform }, onRedis?.meter))
  for (const one of contenders) await one.close()
  return contenders.map(({ name, limits }, index) => ({ name, limits, samples: samples[index]! }))
}

interface DimensionContender extends Decider {
  readonly name: string
  readonly limits: number
}

async function contender(name: string, policies: readonly Policy[], url?: string): Promise<DimensionContender> {
  const redis = url === undefined ? undefined : new Redis(url)
  const store: Store =
    redis === undefined ? memoryStore() : redisStore(redis, { prefix: `dimension-${name.replaceAll(' ', '-')}:` })
  const limiter = rampmeter({ store, deadline: '5s', policies })
  await limiter.ready()
  let target = 0
  return {
    name,
    limits: policies.length,
    async decide(client) {
      target = (target + 1) % 20
      const decision = await limiter.decide({ client: { id: client }, target: `account-${target}` })
      decision.release()
      if (name.includes('after') || policies.length > 1) decision.settle({ tokens: 1 })
      return decision.admitted && !decision.degraded
    },
    async close() {
      await limiter.close()
      await redis?.quit()
    },
  }
}
