import { setImmediate as nextTurn } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Keys } from './keys.ts'
import type { Decider } from './libraries/library.ts'
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

/** What a slice consists of. */
export interface Load {
  readonly inFlight: number
  readonly ms: number
  readonly keys: Keys
  /** What all of its decisions have to be. */
  readonly outcome?: 'admitted' | 'refused'
}

setFlagsFromString('--expose-gc')

/** All of it, before memory is counted. */
export const collectGarbage = runInNewContext('gc') as (options?: { type: 'minor' }) => void

/**
 * What was left behind is not the next one's to clear away. Only what is young: V8 drops compiled code with the old, and whoever has
 * more of it would be measured while it is compiled anew.
 */
export const collectYoungGarbage = (): void => collectGarbage({ type: 'minor' })

/** Which of the decisions are timed: all of them would cost what a decision in memory does. */
const lookEvery = 32

const atRest = async (): Promise<RedisWork> => ({ cpuUs: 0, calls: 0, inside: 0, commands: new Map() })

/**
 * Keeps `inFlight` decisions under way for a while.
 *
 * @throws {Error} if any of them came out otherwise: then it is not the same work that is compared
 */
export async function slice(decider: Decider, load: Load, meter?: RedisMeter): Promise<DecisionSample> {
  const { inFlight, ms, keys, outcome = 'admitted' } = load
  const wanted = outcome === 'admitted'
  collectYoungGarbage()
  const endRedis = (await meter?.start()) ?? atRest
  const cpu = process.cpuUsage()
  const started = performance.now()
  const tookMs: number[] = []
  let asked = 0
  let others = 0
  let over = false

  async function keepAsking(): Promise<void> {
    while (!over) {
      asked += 1
      if (asked % lookEvery !== 0) {
        if ((await decider.decide(keys())) !== wanted) others += 1
        continue
      }
      // In memory no decision waits for anything: the event loop gets its turn as it would between requests.
      await nextTurn()
      const begun = performance.now()
      if ((await decider.decide(keys())) !== wanted) others += 1
      const ended = performance.now()
      tookMs.push(ended - begun)
      over = ended - started > ms
    }
  }
  await Promise.all(Array.from({ length: inFlight }, keepAsking))

  const elapsedMs = performance.now() - started
  const { user, system } = process.cpuUsage(cpu)
  const redis = await endRedis()
  if (others > 0) throw new Error(`${others} of ${asked} decisions were not ${outcome}`)
  return {
    perSecond: (asked / elapsedMs) * 1000,
    nodeUs: (user + system) / asked,
    p50Us: quantile(tookMs, 0.5) * 1000,
    redisUs: redis.cpuUs / asked,
    calls: redis.calls / asked,
    inside: redis.inside / asked,
  }
}
