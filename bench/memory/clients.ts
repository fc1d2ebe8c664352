import type { Decider, Limit } from '../libraries/library.ts'

const dayMs = 86_400_000

/** Limits of a day, whose counters are still there when they are measured: a bucket that is full again is deleted. */
export function lastingLimits(count: number, quota: number): Limit[] {
  return ['minute', 'hour', 'day'].slice(0, count).map((name) => ({ name, quota, windowMs: dayMs }))
}

/** So that a bucket takes a quarter of an hour until it is full again. */
export const smallQuota = 100

/** How many limits a client has. */
export const counts = [1, 3] as const

const inFlight = 512

/** One request each of so many clients: addresses, as most are told apart. */
export async function oneRequestEach(decider: Decider, clients: number): Promise<void> {
  let next = 0
  async function keepAsking(): Promise<void> {
    while (next < clients) {
      const admitted = await decider.decide(addressOf(next++))
      if (!admitted) throw new Error('a client with one request was refused')
    }
  }
  await Promise.all(Array.from({ length: inFlight }, keepAsking))
}

export function addressOf(client: number): string {
  return `203.${(client >> 16) & 255}.${(client >> 8) & 255}.${client & 255}`
}
