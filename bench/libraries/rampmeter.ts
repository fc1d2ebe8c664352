import { Redis } from 'ioredis'
import { fixedWindow, rampmeter, redisStore, slidingWindow, tokenBucket, type Policy, type Store } from 'rampmeter'
import type { Decider, Library, Limit } from './library.ts'

/** One of each kind that agents are limited with: a bucket a minute, a sliding window an hour, a fixed window a day. */
function policiesOf(limits: readonly Limit[]): Policy[] {
  const kinds = [tokenBucket, slidingWindow, fixedWindow]
  return limits.map(({ name, quota, windowMs }, index) => kinds[index]!({ name, quota, window: windowMs }))
}

/** Costs what the default of 50 ms does, and lets nothing be decided without Redis where the machine stalls. */
const deadline = '5s'

/** `limiter.decide`, as for a queue or an MCP tool. */
function deciding(limits: readonly Limit[], store?: Store): Decider & { ready(): Promise<void> } {
  const limiter = rampmeter({ policies: policiesOf(limits), deadline, ...(store && { store }) })
  return {
    async decide(client) {
      const { admitted, degraded } = await limiter.decide({ client: { id: client } })
      return admitted && !degraded
    },
    ready: () => limiter.ready(),
    close: () => limiter.close(),
  }
}

export const rampmeterLibrary: Library = {
  name: 'rampmeter',

  async onRedis(limits, redisUrl) {
    const redis = new Redis(redisUrl)
    const decider = deciding(limits, redisStore(redis, { prefix: `rampmeter-${limits.length}:` }))
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

  async middleware(limits, redisUrl) {
    const store = redisStore(new Redis(redisUrl), { prefix: `rampmeter-http-${limits.length}:` })
    const limiter = rampmeter({ policies: policiesOf(limits), deadline, store })
    await limiter.ready()
    return [limiter]
  },
}

/** The Redis store without what the limiter does around it: pricing, names, the deadline, the decision that users see. */
export async function rampmeterStoreAlone(limits: readonly Limit[], redisUrl: string): Promise<Decider> {
  const redis = new Redis(redisUrl)
  const store = redisStore(redis, { prefix: `rampmeter-store-${limits.length}:` }).open({
    nameOf: (partition) => partition,
  })
  await store.ready()
  const charges = policiesOf(limits).map(({ kind, stateId, windowMs }, index) => ({
    kind,
    stateId,
    windowUs: windowMs * 1000,
    quota: limits[index]!.quota,
    capacity: limits[index]!.quota,
    cost: 1,
    liftable: false,
    shadow: false,
  }))
  return {
    async decide(client) {
      const mine = charges.map((charge) => ({ ...charge, partition: client }))
      const { admitted } = await store.decide({ charges: mine, undo: [], commit: true })
      return admitted
    },
    async close() {
      await store.close()
      await redis.quit()
    },
  }
}
