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
