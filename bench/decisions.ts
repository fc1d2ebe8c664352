import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import { expressRateLimit } from './libraries/express-rate-limit.ts'
import { limits, type Decider, type Library } from './libraries/library.ts'
import { rampmeterLibrary, rampmeterStoreAlone } from './libraries/rampmeter.ts'
import { rateLimiterFlexible } from './libraries/rate-limiter-flexible.ts'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter, RedisWork } from './redis-meter.ts'
import { quantile } from './statistics.ts'

/** What a slice of decisions cost, each. Times in µs. */
export interface DecisionSample {
  readonly perSecond: number
  readonly nodeUs: number
  /** How long half of them took at most. */
  readonly p50Us: number
  readonly redisUs: number
  readonly calls: number
  readonly inside: number
}

/** What was measured about a contender, by round. */
export interface Measured<Sample> {
  readonly limits: number
  readonly name: string
  readonly samples: readonly Sample[]
}

/** A contender of a scenario, ready to decide. */
interface Contender {
  readonly name: string
  readonly decider: Decider
}

/** Clients ask in no order, each as often as any other. */
const clients: readonly string[] = Array.from({ length: 10_000 }, (_, index) => `client:${index}`)

const libraries: readonly Library[] = [rampmeterLibrary, expressRateLimit, rateLimiterFlexible]

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Decisions on Redis, so many at a time: the libraries, our store alone, and the least that a round trip can cost. */
export async function decisionsOnRedis(
  redisUrl: string,
  meter: RedisMeter,
  pace: Pace,
  { inFlight, sliceMs }: { inFlight: number; sliceMs: number },
): Promise<Measured<DecisionSample>[]> {
  return await forEachCount(pace, async (some) => {
    await meter.flush()
    const contenders: Contender[] = []
    for (const library of libraries) {
      contenders.push({ name: library.name, decider: await library.onRedis(some, redisUrl) })
    }
    contenders.push({ name: 'rampmeter, its store alone', decider: await rampmeterStoreAlone(some, redisUrl) })
    if (some.length === 1) contenders.push({ name: 'a bare INCR', decider: bareIncrement(redisUrl) })
    return { contenders, measure: ({ decider }) => slice(decider, inFlight, sliceMs, meter) }
  })
}

/** Decisions in this process, one after the other. */
export async function decisionsInMemory(pace: Pace): Promise<Measured<DecisionSample>[]> {
  return await forEachCount(pace, async (some) => {
    const contenders: Contender[] = []
    for (const library of libraries) contenders.push({ name: library.name, decider: await library.inMemory(some) })
    return { contenders, measure: ({ decider }) => slice(decider, 1, pace.memoryMs) }
  })
}

/** For one limit, then two, and so on: measures the contenders against one another. */
async function forEachCount(
  pace: Pace,
  enter: (some: typeof limits) => Promise<{
    contenders: readonly Contender[]
    measure: (contender: Contender) => Promise<DecisionSample>
  }>,
): Promise<Measured<DecisionSample>[]> {
  const measured: Measured<DecisionSample>[] = []
  for (let count = 1; count <= limits.length; count += 1) {
    const { contenders, measure } = await enter(limits.slice(0, count))
    const samples = await inTurns(contenders, pace, measure)
    for (const { decider } of contenders) await decider.close()
    contenders.forEach(({ name }, index) => measured.push({ limits: count, name, samples: samples[index]! }))
  }
  return measured
}

function bareIncrement(redisUrl: string): Decider {
  const redis = new Redis(redisUrl)
  return {
    decide: async (client) => (await redis.incr(client)) > 0,
    close: async () => void (await redis.quit()),
  }
}

/** Which of the decisions are timed: all of them would cost what a decision in memory does. */
const lookEvery = 32

const atRest = async (): Promise<RedisWork> => ({ cpuUs: 0, calls: 0, inside: 0 })

/**
 * Keeps `inFlight` decisions under way for a while.
 *
 * @throws {Error} if any was refused, or made without the store: then it is not the same work that is compared
 */
export async function slice(
  decider: Decider,
  inFlight: number,
  ms: number,
  meter?: RedisMeter,
): Promise<DecisionSample> {
  // What the slice before left behind is not this one's to clear away.
  collectGarbage()
  const endRedis = (await meter?.start()) ?? atRest
  const cpu = process.cpuUsage()
  const started = performance.now()
  const tookMs: number[] = []
  let asked = 0
  let refused = 0
  let over = false

  async function keepAsking(): Promise<void> {
    while (!over) {
      const client = clients[Math.floor(Math.random() * clients.length)]!
      asked += 1
      if (asked % lookEvery !== 0) {
        if (!(await decider.decide(client))) refused += 1
        continue
      }
      // In memory no decision waits for anything: the event loop gets its turn as it would between requests.
      await nextTurn()
      const begun = performance.now()
      if (!(await decider.decide(client))) refused += 1
      const ended = performance.now()
      tookMs.push(ended - begun)
      over = ended - started > ms
    }
  }
  await Promise.all(Array.from({ length: inFlight }, keepAsking))

  const elapsedMs = performance.now() - started
  const { user, system } = process.cpuUsage(cpu)
  const redis = await endRedis()
  if (refused > 0) throw new Error(`${refused} of ${asked} decisions were refused or made without the store`)
  return {
    perSecond: (asked / elapsedMs) * 1000,
    nodeUs: (user + system) / asked,
    p50Us: quantile(tookMs, 0.5) * 1000,
    redisUs: redis.cpuUs / asked,
    calls: redis.calls / asked,
    inside: redis.inside / asked,
  }
}
