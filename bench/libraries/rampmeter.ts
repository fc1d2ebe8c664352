import { Redis } from 'ioredis'
import { fixedWindow, rampmeter, redisStore, slidingWindow, tokenBucket, type Policy, type Store } from 'rampmeter'
import type { Decider, Library, Limit } from './library.ts'

/** One of each kind that agents are limited with, in turn: a bucket a minute, a sliding window an hour, a fixed window a day. */
export function policiesOf(limits: readonly Limit[]): Policy[] {
  const kinds = [tokenBucket, slidingWindow, fixedWindow]
  return limits.map(({ name, quota, windowMs }, index) =>
    kinds[index % kinds.length]!({ name, quota, window: windowMs }),
  )
}

/** Costs what the default of 50 ms does, and lets nothing be decided without Redis where the machine stalls. */
const deadline = '5s'

/** `limiter.decide`, as for a queue or an MCP tool. */
export function deciding(limits: readonly Limit[], store?: Store): Decider & { ready(): Promise<void> } {
  const limiter = rampmeter({ policies: policiesOf(limits), deadline, ...(store && { store }) })
  return {
    async decide(client) {
      const { admitted, degraded } = await limiter.decide({ client: { id: client } })
      if (degraded) throw new Error('rampmeter decided without its store')
      return admitted
    },
    ready: () => limiter.ready(),
    close: () => limiter.close(),
  }
}

export const rampmeterLibrary: Library = {
  name: 'rampmeter',
  asShipped: true,

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    const decider = deciding(limits, redisStore(redis))
    await decider.ready()
    return {
      decide: (client) => decider.decide(client),
      async close() {
        await decider.close()
        await redis.quit()
      },
    }
  },

  inMemory: async (limits) => deciding(limits),

  /** With all header families that go together. */
  async middleware(limits, redisUrl) {
    const store = redisStore(new Redis(redisUrl), { prefix: `rampmeter-http-${limits.length}:` })
    const limiter = rampmeter({
      policies: policiesOf(limits),
      deadline,
      store,
      headers: ['draft-11', 'draft-6', 'legacy'],
    })
    await limiter.ready()
    return [limiter]
  },
}
