// What one client that asks very often at once costs another.

import { Redis } from 'ioredis'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { running } from './server.ts'

export interface Flood {
  /** How long the other's decision took, in ms, and the last of the thousand. */
  readonly otherMs: number
  readonly lastMs: number
  /** How many of the thousand were decided before it. */
  readonly before: number
}

/** A thousand decisions about one client in one turn of the event loop, then one about another. */
export async function floodOne(): Promise<Flood> {
  const one = await running(async () => [])
  const given = new Redis(one.port, { lazyConnect: true })
  const limiter = rampmeter({
    // Each decision is made in Redis.
    store: redisStore(given, { rememberRefusals: false }),
    policies: [
      tokenBucket({ name: 'minute', quota: 100, window: '1m' }),
      slidingWindow({ name: 'hour', quota: 1000, window: '1h' }),
    ],
    processes: 1,
    deadline: '10s',
  })
  try {
    await limiter.ready()
    const decide = (id: string) => limiter.decide({ client: { id } })
    // The scripts are loaded and compiled, and so is our own code.
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(Array.from({ length: 100 }, (_, nth) => decide(`key:warm-${nth}`)))
    }
    let answered = 0
    const started = performance.now()
    const flood = Array.from({ length: 1000 }, () => decide('key:flood').finally(() => (answered += 1)))
    const { degraded } = await decide('key:other')
    const otherMs = performance.now() - started
    const before = answered
    if (degraded) throw new Error('the other was decided without Redis')
    await Promise.all(flood)
    return { otherMs, lastMs: performance.now() - started, before }
  } finally {
    await limiter.close()
    given.disconnect()
    await one.stop()
  }
}
