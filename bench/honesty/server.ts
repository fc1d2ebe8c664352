// An Express app behind one limiter, in a process of its own. It keeps a log of what it answered, by client, and hands that out
// when it is asked. `bench/honesty/app.ts` starts it.

import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { limiters, withTickets } from './limiters.ts'
import { callField, clock, type Seen } from './log.ts'
import { herdLimits } from './settings.ts'

const [limiterName, redisUrl] = process.argv.slice(2)
const limiter = [...limiters, withTickets].find(({ name }) => name === limiterName)!
const log = new Map<string, Seen[]>()

const app = express()
// Each request says through a proxy, so to speak, whose it is.
app.set('trust proxy', 'loopback')
app.use((req, res, next) => {
  const at = clock()
  const client = req.ip!
  const call = req.get(callField) ?? ''
  res.on('finish', () => {
    const seen = log.get(client) ?? []
    const ticket = res.hasHeader('RateLimit-Ticket')
    seen.push({ call, status: res.statusCode, ticket, at, answeredAt: clock() })
    log.set(client, seen)
  })
  next()
})
for (const limit of herdLimits) app.use(`/${limit.name}`, await limiter.middleware(limit, redisUrl!))
app.use((_req, res) => void res.json({ name: 'ramp', inStock: true }))

// A herd of a thousand opens a thousand connections at once.
const server = createServer(app).listen({ port: 0, host: '127.0.0.1', backlog: 4096 })
await once(server, 'listening')
process.on('message', (client: string) => {
  process.send!({ client, seen: log.get(client) ?? [] })
  log.delete(client)
})
process.on('disconnect', () => process.exit())
process.send!((server.address() as AddressInfo).port)
