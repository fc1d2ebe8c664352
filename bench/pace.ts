/** How long things are measured. */
export interface Pace {
  readonly rounds: number
  /** Rounds before those that count: code is compiled, counters exist. */
  readonly warmUps: number
  /** The length of a slice, in ms. */
  readonly redisMs: number
  readonly aloneMs: number
  readonly memoryMs: number
  /** The length of a slice over HTTP, in requests. */
  readonly httpRequests: number
}

export const full: Pace = { rounds: 9, warmUps: 1, redisMs: 350, aloneMs: 200, memoryMs: 150, httpRequests: 3000 }

/** Shows that it runs. The numbers say little. */
export const quick: Pace = { rounds: 2, warmUps: 1, redisMs: 40, aloneMs: 20, memoryMs: 20, httpRequests: 320 }

/**
 * Measures contenders in short slices that take turns, so that all of them meet what else the machine does. Each round
 * begins with another one.
 *
 * @returns for each contender what its slices gave, by round
 */
export async function inTurns<T, Sample>(
  contenders: readonly T[],
  { rounds, warmUps }: Pace,
  measure: (contender: T) => Promise<Sample>,
): Promise<Sample[][]> {
  const samples: Sample[][] = contenders.map(() => [])
  for (let round = -warmUps; round < rounds; round += 1) {
    for (let turn = 0; turn < contenders.length; turn += 1) {
      const index = (turn + round + warmUps) % contenders.length
      const sample = await measure(contenders[index]!)
      if (round >= 0) samples[index]!.push(sample)
    }
  }
  return samples
}
