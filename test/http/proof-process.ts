// A server that shares its Redis with others: `proof-process.ts <redis url> <prefix> <issuer> <keys>` listens and says where.

import type { AddressInfo } from 'node:net'
import express from 'express'
import { Redis } from 'ioredis'
import { bearer } from '../../src/identify/bearer.ts'
import { dpop } from '../../src/identify/dpop.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'

const [url, prefix, issuer, keys] = process.argv.slice(2) as [string, string, string, string]
const tokens = { issuer, audience: 'https://api.example.com', jwks: JSON.parse(keys) }
const limiter = rampmeter({
  store: redisStore(new Redis(url), { prefix }),
  deadline: '5s',
  keySecret: 'the same in all processes',
  identify: [dpop({ ...tokens, origin: 'https://api.example.com', nonce: 'offer' }), bearer(tokens)],
  verification: { failures: { quota: 4, window: '1m' } },
})
await limiter.ready()
const server = express()
  .use(limiter)
  .get('/', (req, res) => void res.json(req.rateLimit))
  .listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
