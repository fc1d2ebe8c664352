import { classAndCodeOf } from '../errors.ts'
import type { Health } from './health.ts'
import { within } from './shared-level.ts'

/** What an app measures itself. Null or left out: what was measured here counts. */
export type Sample = { readonly [Key in keyof Health]?: number | null | undefined }

/** Each with the most that it can be. */
const largest: Readonly<Record<keyof Health, number>> = {
  p99Ms: 86_400_000,
  errorRate: 1,
  cpu: 1,
  eventLoopMs: 86_400_000,
}

const names = Object.keys(largest) as (keyof Health)[]

/** For so many periods what the app said last stands in for what it fails to say. */
const holdsFor = 5

type Taken = { -readonly [Key in keyof Health]?: number }

/** Asks the app for what it measures, each period. */
export class Sampler {
  readonly #ask: () => Promise<{ readonly taken: Taken; readonly failed: readonly (keyof Health)[] }>
  /** What was said last of each, and for how many periods it may still stand. */
  readonly #last = new Map<keyof Health, { readonly value: number; left: number }>()

  /** @param onMistake hears in words what was wrong */
  constructor(sample: () => Sample | Promise<Sample>, withinMs: number, onMistake: (what: string) => void) {
    this.#ask = () => ask(sample, withinMs, onMistake)
  }

  /** What it says now; of what it fails to say the last, for a while: an app whose sample breaks is not well for that. */
  async take(): Promise<Taken> {
    const { taken, failed } = await this.#ask()
    for (const key of names) {
      const last = this.#last.get(key)
      if (taken[key] !== undefined) {
        this.#last.set(key, { value: taken[key], left: holdsFor })
      } else if (last !== undefined && failed.includes(key) && last.left > 0) {
        last.left -= 1
        taken[key] = last.value
      } else {
        this.#last.delete(key)
      }
    }
    return taken
  }
}

/** Asks once, and takes of the answer what makes sense. */
async function ask(
  sample: () => Sample | Promise<Sample>,
  withinMs: number,
  onMistake: (what: string) => void,
): Promise<{ taken: Taken; failed: readonly (keyof Health)[] }> {
  let answer: unknown
  try {
    const told = await within(
      withinMs,
      Promise.resolve(sample()).then((value: unknown) => ({ value })),
    )
    if (told === undefined) {
      onMistake(`did not answer within a period, ${withinMs} ms`)
      return { taken: {}, failed: names }
    }
    // Its getters are the app's as well.
    answer = typeof told.value === 'object' && told.value !== null ? { ...told.value } : told.value
  } catch (error) {
    onMistake(`threw (${classAndCodeOf(error)})`)
    return { taken: {}, failed: names }
  }
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
    onMistake(`answered ${kindOf(answer)}; return an object such as { p99Ms: 120, errorRate: 0.01 }`)
    return { taken: {}, failed: names }
  }
  const taken: Taken = {}
  const failed: (keyof Health)[] = []
  for (const [name, value] of Object.entries(answer)) {
    if (!Object.hasOwn(largest, name)) {
      onMistake(`answered ${JSON.stringify(name.slice(0, 40))}, which is none of ${Object.keys(largest).join(', ')}`)
      continue
    }
    if (value === undefined || value === null) continue
    const key = name as keyof Health
    if (typeof value !== 'number' || !(value >= 0 && value <= largest[key])) {
      onMistake(`answered ${typeof value === 'number' ? value : kindOf(value)} as ${key}; ${expected(key, value)}`)
      failed.push(key)
      continue
    }
    taken[key] = value
  }
  return { taken, failed }
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  return Array.isArray(value) ? 'a list' : `${typeof value === 'object' ? 'an' : 'a'} ${typeof value}`
}

/** What to return instead. A share is often given in percent. */
function expected(key: keyof Health, value: unknown): string {
  if (largest[key] !== 1) return `return milliseconds, from 0 to ${largest[key]}`
  const isPercent = typeof value === 'number' && value > 1 && value <= 100
  return isPercent ? `return a fraction: ${value / 100} for ${value} %` : 'return a fraction, from 0 to 1'
}
