import * as z from 'zod'
import { parseDuration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { incidentLabels, signalNames, type Signal, type SignalName } from '../standing.ts'

const whatItIs = z.strictObject({
  weight: z.number().min(0).max(100),
  threshold: z.number().min(1).max(1000),
  halfLife: z.union([z.string(), z.number()]).optional(),
  needs: z.enum(signalNames).optional(),
  label: z.enum(incidentLabels).optional(),
  watches: z.string().default(''),
})

/** The schema of a signal. */
export const signalSchema: z.ZodObject = whatItIs.extend({ name: z.enum(signalNames) })

const changesSchema = whatItIs.partial()

const preset: readonly Signal[] = [
  {
    name: 'early-retries',
    weight: 20,
    threshold: 30,
    label: 'retry-storm',
    watches:
      'requests before the time that a refusal told, for what was refused; each that is admitted takes one and a quarter away',
  },
  {
    name: 'exhausted-waits',
    weight: 20,
    threshold: 30,
    label: 'quota-exhaustion',
    watches: 'the same, over three endpoints or more',
  },
  {
    name: 'greedy-targets',
    weight: 20,
    threshold: 30,
    needs: 'new-targets',
    label: 'scraping',
    watches: 'the same, each for a target not asked for before',
  },
  {
    name: 'new-targets',
    weight: 0,
    threshold: 40,
    watches: 'targets not asked for before that were served, refused for want of quota, or not waited for',
  },
  {
    name: 'missing-targets',
    weight: 20,
    threshold: 20,
    label: 'enumeration',
    watches: 'different targets answered 404; each that is served takes a quarter away',
  },
  {
    name: 'forbidden-targets',
    weight: 20,
    threshold: 15,
    label: 'enumeration',
    watches: 'different targets answered 403; each that is served takes a quarter away',
  },
  {
    name: 'sequential-targets',
    weight: 20,
    threshold: 20,
    needs: 'missing-targets',
    label: 'enumeration',
    watches: 'targets whose number follows that of the one before',
  },
  {
    name: 'slow-enumeration',
    weight: 20,
    threshold: 40,
    halfLife: '12h',
    label: 'enumeration',
    watches: 'missing and forbidden targets, over half a day',
  },
  {
    name: 'client-errors',
    weight: 3,
    threshold: 30,
    watches: 'other answers from 400 to 499; each request that is served takes a quarter away',
  },
  { name: 'server-errors', weight: 1, threshold: 50, watches: 'answers from 500 on' },
  {
    name: 'bursts',
    weight: 3,
    threshold: 50,
    watches: "requests at eight times the client's own past rate, in all or at one endpoint",
  },
  {
    name: 'environments',
    weight: 20,
    threshold: 12,
    halfLife: '2h',
    label: 'credential-leakage',
    watches: 'a credential used by turns from places, and by software, that are not one client’s or one fleet’s',
  },
  {
    name: 'failed-proofs',
    weight: 20,
    threshold: 30,
    label: 'enumeration',
    watches: 'different wrong credentials, of an address',
  },
  {
    name: 'failed-tickets',
    weight: 20,
    threshold: 20,
    label: 'enumeration',
    watches:
      'tickets that were never given; those given for something else count a half, used ones a quarter, and each that is good takes a half away',
  },
  {
    name: 'failed-charges',
    weight: 25,
    threshold: 8,
    halfLife: '2h',
    label: 'transactional-abuse',
    watches:
      'answers 402 of a route that charges, and payments that are not good; each that is served takes a half away',
  },
  {
    name: 'disputes',
    weight: 25,
    threshold: 2,
    halfLife: '1d',
    label: 'transactional-abuse',
    watches: 'payment disputes that the app or a payment provider reports',
  },
  {
    name: 'unusual-sequences',
    weight: 3,
    threshold: 30,
    watches: 'an endpoint after another that hardly anybody asks for after it',
  },
  {
    name: 'ignored-challenges',
    weight: 20,
    threshold: 20,
    watches: 'requests that went on at once without answering a challenge',
  },
]

/**
 * What is watched, and how much each thing weighs: plain data, of which single entries can be changed.
 *
 * @param changes by the names of signals, what is to be different
 *
 * @throws {RampmeterError} `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_INVALID_DURATION`
 * @example
 * presetSignals({ 'missing-targets': { threshold: 50 } })   // an app whose clients often ask for what is gone
 */
export function presetSignals(changes: Partial<Record<SignalName, Partial<Omit<Signal, 'name'>>>> = {}): Signal[] {
  const given = Object.entries(Object(changes) as Record<string, unknown>)
  for (const [name, change] of given) {
    if (!preset.some((signal) => signal.name === name)) {
      throw new RampmeterError(
        'RAMPMETER_UNKNOWN_OPTION',
        `presetSignals: there is no signal "${name}"; there are ${preset.map((signal) => signal.name).join(', ')}`,
      )
    }
    if (change === undefined) continue
    const { halfLife } = readOptions(changesSchema, change, `presetSignals: "${name}"`)
    if (halfLife !== undefined) parseDuration(halfLife, `the half-life of "${name}"`)
  }
  return preset.map((signal) => ({ ...signal, ...changes[signal.name] }))
}
