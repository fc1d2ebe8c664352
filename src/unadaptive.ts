import { warn } from './errors.ts'
import type { TierOptions } from './tier.ts'

/** Tells once of options that are about an adaptive limiter and stand on one that is not. Who says `adaptive: false` knows. */
export function createUnadaptiveWarning(adaptive: unknown): (option: string, where: string) => void {
  let hasWarned = adaptive !== undefined
  return (option, where) => {
    if (hasWarned) return
    hasWarned = true
    warn(
      'RAMPMETER_ADAPTIVE_MISSING',
      `${where} has \`${option}\`, which does nothing on a limiter without \`adaptive\`; give the limiter adaptive: adaptive(), or adaptive: false where that is meant`,
    )
  }
}

/** The first tier that says how its quotas follow the load, and does not only have it from the presets. */
export function adaptiveTierOf(
  tiers: Readonly<Record<string, TierOptions<string>>>,
  presets: Readonly<Record<string, TierOptions<string>>>,
): string | undefined {
  return Object.keys(tiers).find(
    (name) =>
      tiers[name]!.adaptive !== undefined &&
      JSON.stringify(tiers[name]!.adaptive) !== JSON.stringify(presets[name]?.adaptive),
  )
}
