// A process that holds slots, for a test to kill: `slots-process.ts <redis url> <prefix>` listens and says where.

import type { AddressInfo } from 'node:net'
import express from 'express'
import { Redis } from 'ioredis'
import { concurrency } from '../../src/policies/concurrency.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'

const [url, prefix] = process.argv.slice(2) as [string, string]
const limiter = rampmeter({
  store: redisStore(new Redis(url), { prefix }),
  deadline: '5s',
  policies: [concurrency({ name: 'in-flight', quota: 2, lease: '1s' })],
})
await limiter.ready()
const server = express()
  .use(limiter)
  // Never answers.
  .get('/', () => {})
  .listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
