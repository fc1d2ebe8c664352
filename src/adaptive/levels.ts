import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import type { Health, Hint } from './health.ts'

/** How the app is, the worst first. */
export type LevelName = 'stressed' | 'warm' | 'normal' | 'idle'

/** A level that an app is in because it is slow or fails. Any one threshold that is passed is enough. */
export interface TroubledLevel {
  /** What quotas are multiplied by. */
  readonly multiplier: number
  /** In it above this 99th percentile of the time to response headers, in ms. */
  readonly p99Ms: number
  /** In it above this share of answers that are 5xx, from 0 to 1. */
  readonly errorRate: number
  /** In it while the event loop is later than this in a tenth of all looks, two periods in a row, in ms. */
  readonly eventLoopMs?: number | undefined
  /** In it above this share of a core, from 0 to 1. Default: that says nothing, since an app that is busy may be well. */
  readonly cpu?: number | undefined
}

/** The level of an app with capacity to spare. */
export interface IdleLevel {
  readonly multiplier: number
  /** In it only below this share of a core, from 0 to 1, */
  readonly cpu: number
  /** and below this 99th percentile, in ms. Default: half of that of `warm`. */
  readonly p99Ms: number
}

/** What each level means. Plain data: `presetLevels()` makes it. */
export interface Levels {
  readonly stressed: TroubledLevel
  readonly warm: TroubledLevel
  readonly normal: { readonly multiplier: number }
  readonly idle: IdleLevel
}

/** What of the preset levels is to be different. */
export interface LevelOptions {
  stressed?: Partial<TroubledLevel>
  warm?: Partial<TroubledLevel>
  idle?: Partial<IdleLevel>
}

const asFraction = { error: 'a fraction above 0 and up to 1, such as 0.3 for 30 %' }
const multiplier = z.number().min(0.01).max(10)
const fraction = z.number().positive(asFraction).max(1, asFraction)
/** Below it a 99th percentile is the event loop's own jitter, and most likely meant in seconds. */
const leastP99Ms = 10
const troubled = z.strictObject({
  multiplier: multiplier.optional(),
  p99Ms: z
    .number()
    .min(leastP99Ms, { error: `at least ${leastP99Ms}: it is in ms, and what is shorter is chance` })
    .max(600_000)
    .optional(),
  errorRate: fraction.optional(),
  eventLoopMs: z.number().positive().max(600_000).optional(),
  cpu: fraction.optional(),
})
const levelsSchema = z.strictObject({
  stressed: troubled.default({}),
  warm: troubled.default({}),
  idle: z
    .strictObject({
      multiplier: multiplier.optional(),
      cpu: fraction.optional(),
      p99Ms: z.number().positive().max(600_000).optional(),
    })
    .default({}),
})

/**
 * The levels that `adaptive` goes by, with what you change of them:
 *
 * | level | when | quotas × |
 * | --- | --- | --- |
 * | `stressed` | p99 above 2 s, more than 5 % of answers are 5xx, or the event loop is 200 ms late | 0.5 |
 * | `warm` | p99 above 1 s, more than 2 %, or 70 ms | 0.75 |
 * | `normal` | else | 1 |
 * | `idle` | less than 30 % of a core, and a p99 below half of warm's | 1.5 |
 *
 * 70 ms is where toobusy-js calls a process too busy.
 *
 * @see [toobusy-js](https://www.npmjs.com/package/toobusy-js), `maxLag`
 *
 * @example presetLevels({ warm: { p99Ms: 300 }, stressed: { p99Ms: 600 } }) // for a faster app
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_LEVELS`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 */
export function presetLevels(options: LevelOptions = {}): Levels {
  const read = readOptions(levelsSchema, options, 'presetLevels')
  const warm = { multiplier: 0.75, p99Ms: 1000, errorRate: 0.02, eventLoopMs: 70, ...given(read.warm) }
  return checkLevels({
    stressed: { multiplier: 0.5, p99Ms: 2000, errorRate: 0.05, eventLoopMs: 200, ...given(read.stressed) },
    warm,
    normal: { multiplier: 1 },
    idle: { multiplier: 1.5, cpu: 0.3, p99Ms: warm.p99Ms / 2, ...given(read.idle) },
  })
}

/**
 * Lets levels through that can be told apart.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_LEVELS`
 */
export function checkLevels(levels: Levels): Levels {
  const { stressed, warm, normal, idle } = levels
  const mistakes: string[] = []
  const isRising = [stressed, warm, normal, idle].every(
    ({ multiplier }, index, all) =>
      multiplier > 0 && multiplier <= 10 && (index === 0 || multiplier > all[index - 1]!.multiplier),
  )
  if (!isRising || normal.multiplier !== 1) {
    mistakes.push(
      `the multipliers are ${[stressed, warm, normal, idle].map((one) => one.multiplier).join(', ')}, and have to rise from above 0: stressed < warm < normal, which is 1, < idle, at most 10`,
    )
  }
  if (!(warm.p99Ms > 0 && warm.p99Ms < stressed.p99Ms)) {
    mistakes.push(`warm begins at a p99 of ${warm.p99Ms} ms and stressed at ${stressed.p99Ms} ms; write less for warm`)
  }
  if (!(warm.errorRate > 0 && warm.errorRate < stressed.errorRate && stressed.errorRate <= 1)) {
    mistakes.push(
      `warm begins at an errorRate of ${warm.errorRate} and stressed at ${stressed.errorRate}; write less for warm, both as fractions`,
    )
  }
  if ((warm.eventLoopMs ?? 0) > (stressed.eventLoopMs ?? Infinity)) {
    mistakes.push(`warm begins at an eventLoopMs of ${warm.eventLoopMs}, above that of stressed; write less for warm`)
  }
  if ((warm.cpu ?? 0) > (stressed.cpu ?? Infinity)) {
    mistakes.push(`warm begins at a cpu of ${warm.cpu}, above that of stressed; write less for warm`)
  }
  if (idle.cpu >= (warm.cpu ?? stressed.cpu ?? Infinity)) {
    mistakes.push(`idle ends at a cpu of ${idle.cpu}, where the next level has begun already; write less for idle`)
  }
  if (!(idle.p99Ms > 0 && idle.p99Ms < warm.p99Ms)) {
    mistakes.push(`idle ends at a p99 of ${idle.p99Ms} ms, where warm begins at ${warm.p99Ms} ms; write less for idle`)
  }
  if (!(idle.cpu > 0 && idle.cpu <= 1)) mistakes.push(`idle's cpu is ${idle.cpu}; write a fraction such as 0.3`)
  if (mistakes.length === 0) return levels
  throw new RampmeterError('RAMPMETER_INVALID_LEVELS', mistakes.join('; '))
}

/** The worst first: whoever is further back is better off. */
export const levelNames: readonly LevelName[] = ['stressed', 'warm', 'normal', 'idle']

/** Why an app is in trouble. */
export type Cause = 'latency' | 'errors' | 'eventLoop' | 'cpu'

/** What a period calls for, and why where that is trouble. */
export interface Verdict {
  readonly level: LevelName
  readonly cause: Cause | undefined
}

/**
 * Judges one period.
 *
 * @param hint where too little is known: it keeps an app from being taken for idle
 * @param by thresholds are multiplied by it
 */
export function judge({ stressed, warm, idle }: Levels, health: Health, hint: Hint | undefined, by = 1): Verdict {
  const { p99Ms, errorRate, eventLoopMs, cpu } = health
  for (const [level, { p99Ms: slow, errorRate: failing, eventLoopMs: late, cpu: busy }] of [
    ['stressed', stressed],
    ['warm', warm],
  ] as const) {
    if ((errorRate ?? 0) > failing * by) return { level, cause: 'errors' }
    // A late event loop makes every answer late, not the other way round.
    if ((eventLoopMs ?? 0) > (late ?? Infinity) * by) return { level, cause: 'eventLoop' }
    if ((p99Ms ?? 0) > slow * by) return { level, cause: 'latency' }
    if ((cpu ?? 0) > (busy ?? Infinity) * by) return { level, cause: 'cpu' }
  }
  const hasRoom =
    cpu !== null &&
    cpu < idle.cpu * by &&
    (p99Ms ?? hint?.slowestMs ?? 0) < idle.p99Ms * by &&
    (errorRate ?? hint?.errorRate ?? 0) < warm.errorRate * by
  return { level: hasRoom ? 'idle' : 'normal', cause: undefined }
}

/** What was given of an option's members: one that is undefined was not. */
function given<T extends object>(options: T): { [Key in keyof T]?: NonNullable<T[Key]> } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as {
    [Key in keyof T]?: NonNullable<T[Key]>
  }
}
