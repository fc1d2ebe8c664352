/** What a client may do in one part of the measurement, and how many of its requests come at once when that is used up. */
export interface HerdLimit {
  /** Path and counter. */
  readonly name: string
  readonly herd: number
  readonly quota: number
  readonly windowMs: number
}

/** Herds are whole multiples of the quota, so that the last of one is due at the same time in a bucket and in windows. */
export const herdLimits: readonly HerdLimit[] = [
  { name: 'herd-20', herd: 20, quota: 10, windowMs: 2000 },
  { name: 'herd-100', herd: 100, quota: 50, windowMs: 5000 },
  { name: 'herd-1000', herd: 1000, quota: 500, windowMs: 10_000 },
]

/** Lone clients have the limit of the smallest herd. */
export const loneLimit: HerdLimit = herdLimits[0]!

export function limitOf(herd: number): HerdLimit {
  return herdLimits.find((limit) => limit.herd === herd)!
}

/** Herds of one size: who plays them, and how far apart they begin so that they do not get into each other's way. */
export interface Plan {
  readonly herd: number
  readonly clients: readonly string[]
  /** How many herds each pair of a limiter and a client has, with addresses of their own. */
  readonly repeats: number
  /** Between the starts of two herds, in ms. */
  readonly apartMs: number
}

export interface Pace {
  /** Clients that are refused alone, for each limiter. */
  readonly lone: number
  readonly alone: readonly Plan[]
  /** With new traffic meanwhile. */
  readonly crowded: readonly Plan[]
  /** The same at a limiter with tickets. */
  readonly ticketed: readonly Plan[]
}

const everybody = ['as told', 'got', 'ky', 'RetryAgent', 'pacedFetch']
const some = ['as told', 'got', 'pacedFetch']

export const full: Pace = {
  lone: 50,
  alone: [
    { herd: 20, clients: everybody, repeats: 3, apartMs: 150 },
    { herd: 100, clients: everybody, repeats: 1, apartMs: 500 },
    { herd: 1000, clients: some, repeats: 1, apartMs: 3000 },
  ],
  crowded: [
    { herd: 20, clients: some, repeats: 3, apartMs: 200 },
    { herd: 100, clients: some, repeats: 1, apartMs: 600 },
  ],
  ticketed: [
    { herd: 20, clients: ['as told', 'pacedFetch'], repeats: 5, apartMs: 500 },
    { herd: 100, clients: ['as told', 'pacedFetch'], repeats: 1, apartMs: 1000 },
  ],
}

/** Shows that it runs. The numbers say little. */
export const quick: Pace = {
  lone: 3,
  alone: [{ herd: 20, clients: ['as told', 'got'], repeats: 1, apartMs: 250 }],
  crowded: [{ herd: 20, clients: ['as told'], repeats: 1, apartMs: 250 }],
  ticketed: [{ herd: 20, clients: ['as told'], repeats: 1, apartMs: 250 }],
}
