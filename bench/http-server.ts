// A library in front of an Express app, in a process of its own, so that nothing else is on its processor time: an app for
// each number of limits. `bench/http.ts` starts it.

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { libraries } from './libraries/libraries.ts'
import { limits } from './libraries/library.ts'
import { beginProfile, type Parties } from './profile/parties.ts'

const [libraryName, redisUrl, ...counts] = process.argv.slice(2)
const middleware = libraries.find(({ name }) => name === libraryName)?.middleware

async function serve(count: number): Promise<number> {
  const app = express()
  // The load comes through a proxy, so to speak: each request says whose it is.
  app.set('trust proxy', 'loopback')
  if (middleware) app.use(...(await middleware(limits.slice(0, count), redisUrl!)))
  app.get('/items/:id', (req, res) => {
    res.json({ id: req.params.id, name: 'ramp', price: 12.5, tags: ['red', 'large'], inStock: true })
  })
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

let endProfile: (() => Promise<Parties>) | undefined

/** What the bench may ask. */
const answers: Readonly<Record<string, () => unknown>> = {
  cpu: () => process.cpuUsage(),
  async 'begin profile'() {
    endProfile = await beginProfile()
    return true
  },
  'end profile': async () => [...(await endProfile!())],
}

process.on('message', (question: string) => {
  void Promise.resolve(answers[question]!()).then((answer) => process.send!(answer))
})
process.on('disconnect', () => process.exit())
process.send!(await Promise.all(counts.map((count) => serve(Number(count)))))
