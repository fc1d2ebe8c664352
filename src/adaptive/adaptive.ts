import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { gradient, type GradientController } from './gradient.ts'
import { checkLevels, presetLevels, type Levels } from './levels.ts'
import type { Sample } from './sample.ts'

export interface AdaptiveOptions {
  /** How often health is looked at: from 100 ms to an hour. Default `'10s'`. Latency and errors are those of the last five periods. */
  every?: Duration
  /**
   * What you measure better, in place of what was measured here: any of `p99Ms`, `errorRate`, `cpu` (fractions, from 0 to 1) and
   * `eventLoopMs`. One that throws, is late (a period) or answers nonsense is ignored, and told once.
   */
  sample?: () => Sample | Promise<Sample>
  /** What each level means. Default `presetLevels()`. */
  levels?: Levels
  /** Limits what is in flight in this process. Default `gradient()`; `false` limits nothing. */
  controller?: GradientController | false
}

/** What `adaptive()` makes. */
export interface Adaptive {
  readonly everyMs: number
  readonly sample: (() => Sample | Promise<Sample>) | undefined
  readonly levels: Levels
  readonly controller: GradientController | false
}

const made = new WeakSet<object>()

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null

const optionsSchema = z.strictObject({
  every: z
    .unknown()
    .transform((value) => parseDuration(value, 'every'))
    .prefault('10s'),
  sample: z.custom<NonNullable<Adaptive['sample']>>((value) => typeof value === 'function', 'a function').optional(),
  levels: z.custom<Levels>(isLevels, 'what presetLevels({ … }) returns, with its four levels').optional(),
  controller: z
    .union(
      [z.literal(false), z.custom<GradientController>((value) => isObject(value) && 'tolerance' in (value as object))],
      {
        error: 'gradient(), or false',
      },
    )
    .optional(),
})

function isLevels(value: unknown): boolean {
  const levels = value as Partial<Levels> | null
  return isObject(levels) && [levels?.stressed, levels?.warm, levels?.normal, levels?.idle].every(isObject)
}

/**
 * Lets limits breathe: quotas shrink while the app is slow or fails and grow while it is idle, the same in all processes, and
 * each process limits what it has in flight.
 *
 * @example rampmeter({ adaptive: adaptive({ levels: presetLevels({ warm: { p99Ms: 300 }, stressed: { p99Ms: 800 } }) }) })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_INVALID_LEVELS`
 */
export function adaptive(options: AdaptiveOptions = {}): Adaptive {
  const { every, sample, levels, controller } = readOptions(optionsSchema, options, 'adaptive')
  if (every < 100 || every > 3_600_000) {
    throw new RampmeterError('RAMPMETER_INVALID_DURATION', `every is ${every} ms; write from "100ms" to "1h"`)
  }
  const settings = Object.freeze({
    everyMs: every,
    sample,
    levels: levels === undefined ? presetLevels() : checkLevels(levels),
    controller: controller ?? gradient(),
  })
  made.add(settings)
  return settings
}

/** Whether something is what {@link adaptive} returned. */
export function isAdaptive(value: unknown): value is Adaptive {
  return isObject(value) && made.has(value as object)
}
