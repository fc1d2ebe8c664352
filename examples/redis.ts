// The same limits in all processes, with their counters in Redis; and how such a service starts and ends.
//
//   REDIS_URL=redis://localhost:6379 node --import tsx examples/redis.ts

import type { AddressInfo } from 'node:net'
import { setTimeout } from 'node:timers/promises'
import express from 'express'
import { Redis } from 'ioredis'
import { rampmeter, redisStore } from 'rampmeter'

const redis = new Redis(process.env.REDIS_URL ?? 'redis://localhost:6379')
redis.on('error', (error) => console.error(`Redis: ${error.message}`))

const limiter = rampmeter({
  store: redisStore(redis, { prefix: 'my-api:limits:' }),
  // While Redis is away each process gives out its share of the quotas.
  onStoreError: 'local',
  processes: 4,
})

const app = express()
app.get('/health', (_req, res) => {
  res.json(limiter.health())
})
app.use(limiter)
app.get('/', (req, res) => {
  res.json({ tier: req.rateLimit!.client.tier, degraded: req.rateLimit!.degraded })
})

// With Redis at hand no request is decided without it; but the app starts all the same while Redis is away.
await Promise.race([limiter.ready(), setTimeout(2000)])
const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})

process.once('SIGTERM', () => {
  server.close(() => void disconnect())
  server.closeIdleConnections()
})

/** First the limiter, which has a connection of its own; the client that it was given stays ours to close. */
async function disconnect(): Promise<void> {
  await limiter.close()
  redis.disconnect()
}
