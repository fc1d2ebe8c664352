/** How long things are measured. */
export interface Pace {
  readonly rounds: number
  /** Rounds before those that count, until code has been compiled for good: some seconds, on a machine with two cores. Counters exist then, too. */
  readonly warmUps: number
  /** The length of a slice, in ms. */
  readonly redisMs: number
  readonly aloneMs: number
  readonly memoryMs: number
  readonly stormMs: number
  readonly layoutMs: number
  /** Over HTTP a limiter is a small part of a request: what it adds is the middle of many short slices. */
  readonly http: { readonly rounds: number; readonly warmUps: number; readonly requests: number }
  /** How many clients with one request each: so many where that is fast enough, else the other. */
  readonly clients: { readonly most: number; readonly least: number }
}

export const full: Pace = {
  rounds: 9,
  warmUps: 8,
  redisMs: 250,
  aloneMs: 120,
  memoryMs: 120,
  stormMs: 150,
  layoutMs: 100,
  http: { rounds: 36, warmUps: 20, requests: 1000 },
  clients: { most: 1_000_000, least: 200_000 },
}

/** Shows that it runs. The numbers say little. */
export const quick: Pace = {
  rounds: 2,
  warmUps: 1,
  redisMs: 20,
  aloneMs: 20,
  memoryMs: 10,
  stormMs: 20,
  layoutMs: 10,
  http: { rounds: 2, warmUps: 1, requests: 160 },
  clients: { most: 2000, least: 2000 },
}

/**
 * Measures contenders in short slices that take turns, so that all of them meet what else the machine does. Each round
 * begins with another one.
 *
 * @returns for each contender what its slices gave, by round
 */
export async function inTurns<T, Sample>(
  contenders: readonly T[],
  { rounds, warmUps }: Pick<Pace, 'rounds' | 'warmUps'>,
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
