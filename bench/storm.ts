import { one } from './keys.ts'
import { libraries } from './libraries/libraries.ts'
import type { Limit } from './libraries/library.ts'
import { rateLimiterFlexibleRemembering } from './libraries/rate-limiter-flexible.ts'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter } from './redis-meter.ts'
import { slice, type DecisionSample, type Measured } from './slice.ts'

/** Used up at once, and for longer than it is measured. */
export const usedUp: Limit = { name: 'per-hour', quota: 10, windowMs: 3_600_000 }

/** A client that has used up its quota and keeps asking, 64 at a time. The round that does not count is the one in which it is told when to come back. */
export async function retryStorm(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<Measured<DecisionSample>[]> {
  await meter.flush()
  const contenders = []
  for (const { name, onRedis } of [...libraries, rateLimiterFlexibleRemembering]) {
    if (!onRedis) continue
    const decider = await onRedis([usedUp], redisUrl)
    while (await decider.decide(one()));
    contenders.push({ name, decider })
  }
  const samples = await inTurns(contenders, pace, async ({ decider }) => {
    // What was remembered is forgotten between slices.
    await decider.decide(one())
    return await slice(decider, { inFlight: 64, ms: pace.stormMs, keys: one, outcome: 'refused' }, meter)
  })
  for (const { decider } of contenders) await decider.close()
  return contenders.map(({ name }, index) => ({ limits: 1, name, samples: samples[index]! }))
}
