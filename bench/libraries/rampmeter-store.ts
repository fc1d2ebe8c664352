import { Redis } from 'ioredis'
import { redisStore } from 'rampmeter'
import type { Decider, Limit } from './library.ts'
import { policiesOf } from './rampmeter.ts'

/** The Redis store without what the limiter does around it: pricing, names, the deadline, the decision that users see. */
export async function rampmeterStoreAlone(limits: readonly Limit[], redisUrl: string): Promise<Decider> {
  const redis = new Redis(redisUrl)
  const store = redisStore(redis, { prefix: 'rampmeter-store:' }).open({
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
