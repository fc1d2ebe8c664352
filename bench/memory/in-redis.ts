import { rateLimitRedisOnNodeRedis } from '../libraries/express-rate-limit.ts'
import { rampmeterLibrary } from '../libraries/rampmeter.ts'
import type { Decider, Library } from '../libraries/library.ts'
import type { RedisMeter } from '../redis-meter.ts'
import { addressOf, counts, lastingLimits, oneRequestEach, smallQuota } from './clients.ts'

/** What the keys of one client take in Redis by MEMORY USAGE, in bytes: names and values, but not what an expiry takes beside. */
export interface ClientBytes {
  readonly name: string
  readonly limits: number
  readonly afterOne: number
  readonly afterThousand: number
}

/** What many clients that asked once take: by how much the memory in use grew, so that nothing is left out. */
export interface CrowdBytes {
  readonly name: string
  readonly limits: number
  readonly clients: number
  readonly bytesEach: number
  readonly keysEach: number
}

/** Its keys are the same whichever client sends the commands, and this one is quicker. */
const peer: Library = { ...rateLimitRedisOnNodeRedis, name: 'rate-limit-redis' }

const contenders: readonly Library[] = [rampmeterLibrary, peer]

export async function clientBytes(redisUrl: string, meter: RedisMeter): Promise<ClientBytes[]> {
  const found: ClientBytes[] = []
  for (const limits of counts) {
    for (const { name, onRedis } of contenders) {
      await meter.flush()
      const decider = await onRedis!(lastingLimits(limits, 20_000), redisUrl)
      // What a process keeps, whatever the number of clients, is there then.
      await decider.decide(addressOf(1))
      const others = await meter.bytesOf('')
      await decider.decide(addressOf(0))
      const afterOne = (await meter.bytesOf('')) - others
      for (let sent = 1; sent < 1000; sent += 1) await decider.decide(addressOf(0))
      found.push({ name, limits, afterOne, afterThousand: (await meter.bytesOf('')) - others })
      await decider.close()
    }
  }
  return found
}

/**
 * After one request each of many clients. How many depends on how fast the slowest is here: all of it is to take about a minute.
 */
export async function crowdBytes(
  redisUrl: string,
  meter: RedisMeter,
  { most, least }: { most: number; least: number },
): Promise<CrowdBytes[]> {
  const clients = (await fits(redisUrl, meter, most)) ? most : least
  const found: CrowdBytes[] = []
  for (const limits of counts) {
    for (const { name, onRedis } of contenders) {
      const decider = await onRedis!(lastingLimits(limits, smallQuota), redisUrl)
      const { bytes, keys } = await growth(decider, clients, meter)
      found.push({ name, limits, clients, bytesEach: bytes / clients, keysEach: keys / clients })
      await decider.close()
    }
  }
  return found
}

/** How many keys are left three seconds after clients asked once, where a bucket is full again after one. */
export async function keysLeft(redisUrl: string, meter: RedisMeter, clients: number): Promise<Map<string, number>> {
  const left = new Map<string, number>()
  for (const { name, onRedis } of contenders) {
    await meter.flush()
    const decider = await onRedis!([{ name: 'minute', quota: 60, windowMs: 60_000 }], redisUrl)
    await oneRequestEach(decider, clients)
    await new Promise((resolve) => setTimeout(resolve, 3000))
    left.set(name, (await meter.holds()).keys)
    await decider.close()
  }
  return left
}

const trial = 5000
const patienceMs = 45_000

/** Whether so many clients can be had in the time there is, to go by the one that takes longest. */
async function fits(redisUrl: string, meter: RedisMeter, clients: number): Promise<boolean> {
  await meter.flush()
  const decider = await peer.onRedis!(lastingLimits(3, smallQuota), redisUrl)
  const begun = performance.now()
  await oneRequestEach(decider, trial)
  const tookMs = performance.now() - begun
  await decider.close()
  // That one, a third of it again, and ours.
  return (tookMs / trial) * clients * 2 < patienceMs
}

async function growth(decider: Decider, clients: number, meter: RedisMeter): Promise<{ bytes: number; keys: number }> {
  await meter.flush()
  const before = await meter.holds()
  await oneRequestEach(decider, clients)
  const after = await meter.holds()
  return { bytes: after.bytes - before.bytes, keys: after.keys - before.keys }
}
