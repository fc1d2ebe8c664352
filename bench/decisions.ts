import { Redis } from 'ioredis'
import type { Keys } from './keys.ts'
import { libraries } from './libraries/libraries.ts'
import { limits, type Decider } from './libraries/library.ts'
import { rampmeterStoreAlone } from './libraries/rampmeter-store.ts'
import { uniform } from './keys.ts'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter } from './redis-meter.ts'
import { slice, type DecisionSample, type Measured } from './slice.ts'

/** A contender, ready to decide. */
interface Contender {
  readonly name: string
  readonly decider: Decider
}

export interface Scenario {
  readonly inFlight: number
  readonly ms: number
  readonly keys: Keys
  /** How many limits a decision has. */
  readonly counts: readonly number[]
}

export const ping = 'a bare PING'
export const increment = 'a bare INCR'

/** Decisions on Redis, so many at a time: the libraries, our store alone, and the least that a round trip can cost. */
export async function decisionsOnRedis(
  redisUrl: string,
  meter: RedisMeter,
  pace: Pace,
  { counts, ...load }: Scenario,
): Promise<Measured<DecisionSample>[]> {
  const measured: Measured<DecisionSample>[] = []
  for (const count of counts) {
    await meter.flush()
    const some = limits.slice(0, count)
    const contenders: Contender[] = []
    for (const { name, onRedis } of libraries) {
      if (onRedis) contenders.push({ name, decider: await onRedis(some, redisUrl) })
    }
    if (count <= 3)
      contenders.push({ name: 'rampmeter, its store alone', decider: await rampmeterStoreAlone(some, redisUrl) })
    if (count === 1) contenders.push(...floors(redisUrl))
    measured.push(...(await measure(count, contenders, pace, (decider) => slice(decider, load, meter))))
  }
  return measured
}

/** Decisions in this process, one after the other. */
export async function decisionsInMemory(pace: Pace, counts: readonly number[]): Promise<Measured<DecisionSample>[]> {
  const measured: Measured<DecisionSample>[] = []
  const load = { inFlight: 1, ms: pace.memoryMs, keys: uniform }
  for (const count of counts) {
    const contenders: Contender[] = []
    for (const { name, inMemory } of libraries) {
      if (inMemory) contenders.push({ name, decider: await inMemory(limits.slice(0, count)) })
    }
    measured.push(...(await measure(count, contenders, pace, (decider) => slice(decider, load))))
  }
  return measured
}

/** Measures contenders against one another, and closes them. */
async function measure(
  count: number,
  contenders: readonly Contender[],
  pace: Pace,
  take: (decider: Decider) => Promise<DecisionSample>,
): Promise<Measured<DecisionSample>[]> {
  const samples = await inTurns(contenders, pace, ({ decider }) => take(decider))
  for (const { decider } of contenders) await decider.close()
  return contenders.map(({ name }, index) => ({ limits: count, name, samples: samples[index]! }))
}

function floors(redisUrl: string): Contender[] {
  return [
    { name: increment, decider: incrementing(redisUrl) },
    { name: ping, decider: bare(redisUrl, (redis) => redis.ping()) },
  ]
}

/** What counts as little as can be: one command for each request. */
export function incrementing(redisUrl: string): Decider {
  return bare(redisUrl, (redis, client) => redis.incr(client))
}

function bare(redisUrl: string, ask: (redis: Redis, client: string) => Promise<unknown>): Decider {
  const redis = new Redis(redisUrl)
  return {
    decide: async (client) => (await ask(redis, client)) !== undefined,
    close: async () => void (await redis.quit()),
  }
}
