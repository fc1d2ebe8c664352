import { Redis } from 'ioredis'
import { uniform } from '../keys.ts'
import { limits } from '../libraries/library.ts'
import { rampmeterLibrary as ours } from '../libraries/rampmeter.ts'
import { inTurns, type Pace } from '../pace.ts'
import type { RedisMeter } from '../redis-meter.ts'
import { slice } from '../slice.ts'

/** What Redis needs for a decision, as far as a step goes, in µs. */
export interface StepFinding {
  readonly limits: number
  readonly name: string
  readonly samples: readonly { readonly redisUs: number }[]
}

/** So many clients in a call, as when 64 decisions are in flight. */
const together = 32

/** Scripts that do less than a decision needs, and no arithmetic: each does what those before it do. */
const steps: readonly { name: string; script: string }[] = [
  { name: 'a call for 32 clients that does nothing', script: 'return #KEYS' },
  { name: 'and reads what each has', script: `return #redis.call('MGET', unpack(KEYS))` },
  {
    name: 'and writes it back, with its expiry',
    script: `
      local values = redis.call('MGET', unpack(KEYS))
      for index = 1, #KEYS do redis.call('SET', KEYS[index], values[index] or ARGV[1], 'PX', 3600000) end
      return #KEYS`,
  },
]

/** What a decision's share of a call costs Redis, step by step, on the keys and values that ours keeps. */
export async function redisSteps(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<StepFinding[]> {
  const redis = new Redis(redisUrl)
  const found: StepFinding[] = []
  for (const count of [1, 3]) {
    await meter.flush()
    const decider = await ours.onRedis!(limits.slice(0, count), redisUrl)
    const load = { inFlight: 64, ms: pace.redisMs, keys: uniform }
    await slice(decider, { ...load, ms: pace.redisMs * pace.warmUps })
    // Those of clients: their names are hashes.
    const keys = await redis.keys(`rampmeter:*{${'?'.repeat(22)}}`)
    const values = await redis.mgetBuffer(...keys)
    // What a bucket needs no more has expired, and is written anew in the same length.
    const value = values.find((one) => one !== null)!
    const scripts = await Promise.all(
      steps.map(async ({ name, script }) => ({ name, hash: (await redis.script('LOAD', script)) as string })),
    )
    const contenders = [
      ...scripts.map(({ name, hash }) => ({
        name,
        take: () => callFor(redis, [hash, keys, value], pace.redisMs, meter),
      })),
      { name: 'and decides: rampmeter', take: () => slice(decider, load, meter) },
    ]
    const samples = await inTurns(contenders, pace, ({ take }) => take())
    found.push(...contenders.map(({ name }, index) => ({ limits: count, name, samples: samples[index]! })))
    await decider.close()
  }
  await redis.quit()
  return found
}

async function callFor(
  redis: Redis,
  [hash, keys, value]: readonly [string, readonly string[], Buffer],
  ms: number,
  meter: RedisMeter,
): Promise<{ redisUs: number }> {
  const end = await meter.start()
  const until = performance.now() + ms
  let clients = 0
  async function keepCalling(): Promise<void> {
    while (performance.now() < until) {
      const some = Array.from({ length: together }, () => keys[Math.floor(Math.random() * keys.length)]!)
      const count = await redis.evalsha(hash, together, ...some, value)
      if (count !== together) throw new Error(`${String(count)} of ${together} clients were found`)
      clients += together
    }
  }
  await Promise.all([keepCalling(), keepCalling()])
  return { redisUs: (await end()).cpuUs / clients }
}
