import { increment } from './decisions.ts'
import { addedUs, bareApp, type HttpSample } from './http.ts'
import { libraries, ours } from './libraries/libraries.ts'
import { rateLimitRedisOnIoredis, rateLimitRedisOnNodeRedis } from './libraries/express-rate-limit.ts'
import { rateLimiterFlexibleRemembering } from './libraries/rate-limiter-flexible.ts'
import type { ClientBytes, CrowdBytes } from './memory/in-redis.ts'
import type { DecisionSample, Measured } from './slice.ts'
import { ratio, ratioOfMedians, spread, type Spread } from './statistics.ts'
import { table } from './table.ts'

/** What a run has found, as far as it looked. */
export interface Findings {
  busy?: readonly Measured<DecisionSample>[]
  alone?: readonly Measured<DecisionSample>[]
  storm?: readonly Measured<DecisionSample>[]
  inMemory?: readonly Measured<DecisionSample>[]
  http?: readonly Measured<HttpSample>[]
  clientBytes?: readonly ClientBytes[]
  crowdBytes?: readonly CrowdBytes[]
}

/** What the library wants to reach, and what it did. */
interface Goal {
  readonly text: string
  readonly measured: string
  readonly met: boolean
}

/** In what a smaller number is better. */
type Time = 'nodeUs' | 'redisUs' | 'p50Us'

/** The peers as their users get them: each goal is set against whichever of these does best in that respect. */
const asShipped = libraries.filter((library) => library.asShipped && library.name !== ours).map(({ name }) => name)

/** Which goals were met, as far as the run has what they speak of. */
export function goalTable(findings: Findings): string | undefined {
  const goals = [...decisionGoals(findings), ...stormGoals(findings), ...otherGoals(findings)]
  if (goals.length === 0) return undefined
  return table(goals, [
    { title: 'goal', words: true, cell: ({ text }) => text },
    { title: 'measured', cell: ({ measured }) => measured },
    { title: 'met', words: true, cell: ({ met }) => (met ? 'yes' : '**no**') },
  ])
}

function* decisionGoals({ busy, alone }: Findings): Generator<Goal> {
  if (busy) {
    yield atLeast('one limit, 64 in flight: decisions, to the best peer', 1.8, leastRate(busy, 1))
    yield atMost('one limit: Node time', 0.3, mostTime(busy, 1, 'nodeUs'))
    const tuned = samplesOf(busy, 1, rateLimitRedisOnNodeRedis.name)!
    const ahead = rateTo(samplesOf(busy, 1, ours)!, tuned)
    yield atLeast('one limit: decisions, to rate-limit-redis on node-redis, tuned', 1, ahead)
    yield atLeast('two limits: decisions', 3.3, leastRate(busy, 2))
    yield atLeast('three limits: decisions', 5, leastRate(busy, 3))
    yield atMost('three limits: Node time', 0.15, mostTime(busy, 3, 'nodeUs'))
    yield atMost('three limits: Redis time', 0.25, mostTime(busy, 3, 'redisUs'))
  }
  if (alone) {
    const waits = timeTo(samplesOf(alone, 1, ours)!, samplesOf(alone, 1, increment)!, 'p50Us')
    yield atMost('one at a time: half of the decisions within, to a bare INCR', 1.1, waits)
  }
}

function* stormGoals({ storm }: Findings): Generator<Goal> {
  if (!storm) return
  const own = samplesOf(storm, 1, ours)!
  const calls = spread(own.map((sample) => sample.calls * 1000))
  yield atMost('a retry storm: calls to Redis per thousand refusals, once it is known', 0, calls)
  const cache = samplesOf(storm, 1, rateLimiterFlexibleRemembering.name)!
  yield atLeast("a retry storm: refusals, to rate-limiter-flexible's own cache", 3, rateTo(own, cache))
}

function* otherGoals({ clientBytes, crowdBytes, http, inMemory }: Findings): Generator<Goal> {
  if (clientBytes && crowdBytes) {
    const text = 'three limits: memory of a client in Redis, to three keys of rate-limit-redis'
    yield fewerBytes(`${text}, as it grows with clients`, 0.66, crowdBytes, ({ bytesEach }) => bytesEach)
    yield fewerBytes(`${text}, by MEMORY USAGE`, 0.66, clientBytes, ({ afterOne }) => afterOne)
  }
  if (http) {
    const bare = http.find(({ name }) => name === bareApp)!.samples
    const added = (limits: number, name: string): number[] => addedUs(samplesOf(http, limits, name)!, bare)
    const compared = ratioOfMedians(added(3, ours), added(1, rateLimitRedisOnIoredis.name))
    yield atMost('HTTP: what three limits of ours add, to what one of express-rate-limit on Redis adds', 0.5, compared)
  }
  if (inMemory)
    yield atLeast(
      'one limit in memory: decisions, to express-rate-limit',
      1,
      leastRate(inMemory, 1, ['express-rate-limit']),
    )
}

function atLeast(text: string, goal: number, measured: Spread): Goal {
  return { text: `${text}, at least ${goal}`, measured: shown(measured), met: measured.median >= goal }
}

function atMost(text: string, goal: number, measured: Spread): Goal {
  return { text: `${text}, at most ${goal}`, measured: shown(measured), met: measured.median <= goal }
}

function fewerBytes<Found extends { readonly name: string; readonly limits: number }>(
  text: string,
  goal: number,
  found: readonly Found[],
  bytesOf: (one: Found) => number,
): Goal {
  const three = found.filter(({ limits }) => limits === 3)
  const bytes = (isOurs: boolean): number => bytesOf(three.find(({ name }) => (name === ours) === isOurs)!)
  const compared = bytes(true) / bytes(false)
  return { text: `${text}, at most ${goal}`, measured: compared.toFixed(2), met: compared <= goal }
}

function shown({ median, low, high }: Spread): string {
  return `${median.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`
}

/** How many times the decisions of whichever peer comes closest. */
function leastRate(
  measured: readonly Measured<DecisionSample>[],
  limits: number,
  peers: readonly string[] = asShipped,
): Spread {
  return against(measured, limits, peers, rateTo).reduce((one, other) => (other.median < one.median ? other : one))
}

/** How much of the time of whichever peer takes least. */
function mostTime(measured: readonly Measured<DecisionSample>[], limits: number, field: Time): Spread {
  return against(measured, limits, asShipped, (own, other) => timeTo(own, other, field)).reduce((one, other) =>
    other.median > one.median ? other : one,
  )
}

function against(
  measured: readonly Measured<DecisionSample>[],
  limits: number,
  peers: readonly string[],
  compare: (own: readonly DecisionSample[], other: readonly DecisionSample[]) => Spread,
): Spread[] {
  const own = samplesOf(measured, limits, ours)!
  return peers.flatMap((peer) => {
    const other = samplesOf(measured, limits, peer)
    return other ? [compare(own, other)] : []
  })
}

function rateTo(own: readonly DecisionSample[], other: readonly DecisionSample[]): Spread {
  return ratio(
    own.map(({ perSecond }) => perSecond),
    other.map(({ perSecond }) => perSecond),
  )
}

function timeTo(own: readonly DecisionSample[], other: readonly DecisionSample[], field: Time): Spread {
  return ratio(
    own.map((sample) => sample[field]),
    other.map((sample) => sample[field]),
  )
}

function samplesOf<Sample>(
  measured: readonly Measured<Sample>[],
  limits: number,
  name: string,
): readonly Sample[] | undefined {
  return measured.find((one) => one.limits === limits && one.name === name)?.samples
}
