import { seeded } from './honesty/random.ts'

/** The middle of what was seen, and the half of it that lies around. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

/** The value below which a share of the others lie, between two of them where it falls there. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((one, other) => one - other)
  const position = (sorted.length - 1) * share
  const below = Math.floor(position)
  const lower = sorted[below]!
  return lower + ((sorted[below + 1] ?? lower) - lower) * (position - below)
}

export function spread(values: readonly number[]): Spread {
  return { median: quantile(values, 0.5), low: quantile(values, 0.25), high: quantile(values, 0.75) }
}

/** How one compares with another, round by round, so that what slows the machine down for a while slows both. */
export function ratio(one: readonly number[], other: readonly number[]): Spread {
  return spread(one.map((value, round) => value / other[round]!))
}

const resamples = 1000

/**
 * How what is in the middle of one compares with that of another, where single rounds say little: of a difference between two servers
 * some are next to nothing. The spread is that of rounds drawn again and again from those that were measured (Efron 1979, the bootstrap).
 */
export function ratioOfMedians(one: readonly number[], other: readonly number[]): Spread {
  const random = seeded(1)
  const drawn = Array.from({ length: resamples }, () => {
    const rounds = one.map(() => Math.floor(random() * one.length))
    return medianOf(rounds.map((round) => one[round]!)) / medianOf(rounds.map((round) => other[round]!))
  })
  return { ...spread(drawn), median: medianOf(one) / medianOf(other) }
}

function medianOf(values: readonly number[]): number {
  return quantile(values, 0.5)
}
