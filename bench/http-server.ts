// A library in front of an Express app, in a process of its own, so that nothing else is on its processor time: an app for
// one limit, one for two, and so on. `bench/http.ts` starts it.

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { expressRateLimit } from './libraries/express-rate-limit.ts'
import { limits, type Library } from './libraries/library.ts'
import { rampmeterLibrary } from './libraries/rampmeter.ts'
import { rateLimiterFlexible } from './libraries/rate-limiter-flexible.ts'

const libraries: readonly Library[] = [rampmeterLibrary, expressRateLimit, rateLimiterFlexible]

const [libraryName, redisUrl] = process.argv.slice(2)
const library = libraries.find(({ name }) => name === libraryName)

async function serve(count: number): Promise<number> {
  const app = express()
  // The load comes through a proxy, so to speak: each request says whose it is.
  app.set('trust proxy', 'loopback')
  if (library) app.use(...(await library.middleware(limits.slice(0, count), redisUrl!)))
  app.get('/items/:id', (req, res) => {
    res.json({ id: req.params.id, name: 'ramp', price: 12.5, tags: ['red', 'large'], inStock: true })
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

process.on('message', () => process.send!(process.cpuUsage()))
process.on('disconnect', () => process.exit())
process.send!(await Promise.all(limits.map((_, index) => serve(index + 1))))
