import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { incidentLabels, signalNames, type ConductRules, type Ladder, type Signal } from '../standing.ts'
import { readOptions } from '../read-options.ts'
import { cloudflare, fastly, type EnvironmentReader } from './environment.ts'
import type { Incident } from './incidents.ts'
import { mistakeIn, presetLadder, rungSchema } from './ladder.ts'
import { presetSignals, signalSchema } from './signals.ts'

/** What is watched and what is done about it. `{}` means all presets. */
export interface AbuseOptions {
  /** What is watched. Default `presetSignals()`. Those left out are not watched. */
  signals?: readonly Signal[]
  /** What is done at which score. Default `presetLadder()`. */
  ladder?: Ladder
  /** After how long half of what somebody did is forgotten. Default 10 minutes. */
  halfLife?: Duration
  /** `shadow` scores and reports, and takes no step. What people decide holds all the same. Default `enforce`. */
  mode?: 'enforce' | 'shadow'
  /** What your edge knows of a request: `cloudflare()`, `fastly()`, or a function that answers at once. Default nothing. */
  environment?: EnvironmentReader
  /** Hears of each incident once, when it begins. What it throws is reported once. */
  onIncident?: (incident: Incident) => void
}

/** The options as the limiter works with them. */
export interface AbuseSettings {
  readonly rules: ConductRules
  readonly watched: readonly Signal[]
  readonly ladder: Ladder
  readonly halfLifeMs: number
  readonly shadow: boolean
  readonly environment: EnvironmentReader | undefined
  readonly onIncident: ((incident: Incident) => void) | undefined
}

const ladderSchema = z.array(rungSchema).superRefine((ladder, context) => {
  const mistake = mistakeIn(ladder as unknown as Ladder)
  if (mistake !== undefined) context.addIssue({ code: 'custom', message: `a ladder that goes up: ${mistake}` })
})

/** The schema of a ladder, for tiers and routes too. */
export const ladderOption: z.ZodType<Ladder> = ladderSchema as unknown as z.ZodType<Ladder>

const aFunction = <T>(): z.ZodType<T> => z.custom<T>((value) => typeof value === 'function', 'a function')

const abuseSchema = z.strictObject({
  signals: z.array(signalSchema).optional(),
  ladder: ladderOption.optional(),
  halfLife: z.unknown().transform(readHalfLife).prefault('10m'),
  mode: z.enum(['enforce', 'shadow']).default('enforce'),
  environment: aFunction<EnvironmentReader>().optional(),
  onIncident: aFunction<(incident: Incident) => void>().optional(),
})

/** The schema of the option `abuse`: its mistakes are told apart from those of the options around it. */
export const abuseOption: z.ZodType<AbuseSettings> = z.unknown().transform((value): AbuseSettings => {
  const { signals, ladder, halfLife, mode, environment, onIncident } = readOptions(abuseSchema, value, 'abuse')
  const watched = (signals as readonly Signal[] | undefined) ?? presetSignals()
  return {
    rules: rulesOf(watched, halfLife),
    watched,
    ladder: ladder ?? presetLadder(),
    halfLifeMs: halfLife,
    shadow: mode === 'shadow',
    environment: checkCalled(environment),
    onIncident,
  }
})

/** A day: what counts for longer is told by a half-life of its own. */
function readHalfLife(value: unknown): number {
  let ms = 0
  try {
    ms = parseDuration(value, 'halfLife')
  } catch {
    // What is no duration is told with what is out of range.
  }
  if (ms >= 1000 && ms <= 24 * 3_600_000) return ms
  throw new RampmeterError(
    'RAMPMETER_INVALID_DURATION',
    `abuse: \`halfLife\` is ${typeof value === 'string' ? JSON.stringify(value) : String(value)}; write a duration from "1s" to "1d"`,
  )
}

/** One that is not called returns a function in place of an environment. */
function checkCalled(environment: EnvironmentReader | undefined): EnvironmentReader | undefined {
  if ((environment as unknown) !== cloudflare && (environment as unknown) !== fastly) return environment
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `abuse: \`environment\` is the function that makes a reader; call it: environment: ${environment!.name}()`,
  )
}

function rulesOf(watched: readonly Signal[], halfLifeMs: number): ConductRules {
  const names = watched.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined)
    throw new RampmeterError('RAMPMETER_INVALID_OPTION', `abuse: \`signals\` lists "${twice}" twice; write it once`)
  for (const { name, needs } of watched) {
    if (needs === undefined || (needs !== name && names.includes(needs))) continue
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      needs === name
        ? `abuse: the signal "${name}" \`needs\` itself; leave that out, or name another`
        : `abuse: the signal "${name}" \`needs\` "${needs}", which is not among \`signals\` and so never says anything; list it too, with the weight 0 if it is not to add to the score`,
    )
  }
  return {
    halfLifeUs: halfLifeMs * 1000,
    signals: signalNames.map((name) => {
      const { weight = 0, threshold = 1000, halfLife, needs, label } = watched.find((one) => one.name === name) ?? {}
      return {
        weight: Math.round(weight * 1000),
        threshold: Math.round(threshold * 1_000_000),
        halfLifeUs:
          1000 * (halfLife === undefined ? halfLifeMs : parseDuration(halfLife, `the half-life of "${name}"`)),
        needs: needs === undefined ? 0 : signalNames.indexOf(needs) + 1,
        label: label === undefined ? 0 : incidentLabels.indexOf(label) + 1,
      }
    }),
  }
}
