import * as z from 'zod'
import { parseDuration, type Duration } from './duration.ts'
import { RampmeterError } from './errors.ts'
import { readOptions } from './read-options.ts'

/** How long to wait for a store that may never come. */
export interface ReadyOptions {
  /** After so long it rejects. Default: it waits without end. */
  within?: Duration
}

const optionsSchema = z.strictObject({
  within: z
    .unknown()
    .optional()
    .transform((value) => (value === undefined ? undefined : parseDuration(value, 'ready: `within`'))),
})

/**
 * Waits for a store, for a time.
 *
 * @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_UNKNOWN_OPTION`,
 * `RAMPMETER_INVALID_OPTION`
 */
export async function readyWithin(becomeReady: () => Promise<void>, options: ReadyOptions = {}): Promise<void> {
  const { within: ms } = readOptions(optionsSchema, options, 'limiter.ready')
  const ready = becomeReady()
  if (ms === undefined) return await ready
  let timer: NodeJS.Timeout | undefined
  const giveUp = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(
          new RampmeterError(
            'RAMPMETER_STORE_UNAVAILABLE',
            `the store has not answered within ${ms} ms; listen all the same, since requests are decided without it until it does`,
          ),
        ),
      ms,
    )
  })
  await Promise.race([ready, giveUp]).finally(() => clearTimeout(timer))
}
