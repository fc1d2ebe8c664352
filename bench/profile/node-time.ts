import { increment, incrementing } from '../decisions.ts'
import { one, uniform } from '../keys.ts'
import { expressRateLimit, rateLimitRedisOnIoredis } from '../libraries/express-rate-limit.ts'
import { limits, type Decider, type Library, type Limit } from '../libraries/library.ts'
import { rampmeterLibrary as ours } from '../libraries/rampmeter.ts'
import { rateLimiterFlexibleRemembering } from '../libraries/rate-limiter-flexible.ts'
import type { Pace } from '../pace.ts'
import type { RedisMeter } from '../redis-meter.ts'
import { slice, type Load } from '../slice.ts'
import { usedUp } from '../storm.ts'
import { profiled, type Parties } from './parties.ts'

/** Where the processor time of one decision, or of one request, went. */
export interface ProfileFinding {
  readonly load: string
  readonly limits: number
  readonly name: string
  /** All of it, in µs. */
  readonly us: number
  readonly parties: Parties
}

interface Profiled {
  readonly load: string
  readonly limits: readonly Limit[]
  readonly name: string
  readonly open: (limits: readonly Limit[]) => Promise<Decider>
  readonly work: Omit<Load, 'ms'>
}

/** Where the time of decisions goes: ours, and what the goals set against it. */
export async function profileDecisions(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<ProfileFinding[]> {
  await meter.flush()
  const found: ProfileFinding[] = []
  for (const { load, limits: some, name, open, work } of profiledOn(redisUrl)) {
    const decider = await open(some)
    if (work.outcome === 'refused') while (await decider.decide(one()));
    // As long as all slices that warm up take elsewhere.
    const ms = pace.redisMs * pace.warmUps
    await slice(decider, { ...work, ms })
    const { result, parties } = await profiled(() => slice(decider, { ...work, ms }))
    found.push({ load, limits: some.length, name, us: result.nodeUs, parties })
    await decider.close()
  }
  return found
}

function* profiledOn(redisUrl: string): Generator<Profiled> {
  const onRedis = ({ name, onRedis: open }: Library): Pick<Profiled, 'name' | 'open'> => ({
    name,
    open: (some) => open!(some, redisUrl),
  })
  for (const count of [1, 3]) {
    const busy = { load: '64 in flight', limits: limits.slice(0, count), work: { inFlight: 64, keys: uniform } }
    yield { ...busy, ...onRedis(ours) }
    yield { ...busy, ...onRedis(rateLimitRedisOnIoredis) }
  }
  const alone = { load: 'one at a time', limits: limits.slice(0, 1), work: { inFlight: 1, keys: uniform } }
  yield { ...alone, ...onRedis(ours) }
  yield { ...alone, name: increment, open: async () => incrementing(redisUrl) }
  const storm = {
    load: 'a retry storm',
    limits: [usedUp],
    work: { inFlight: 64, keys: one, outcome: 'refused' },
  } as const
  yield { ...storm, ...onRedis(ours) }
  yield { ...storm, ...onRedis(rateLimiterFlexibleRemembering) }
  for (const library of [ours, expressRateLimit])
    yield { ...alone, load: 'in memory', name: library.name, open: library.inMemory! }
}
