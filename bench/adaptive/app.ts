// An Express app with a bottleneck: each answer needs one of a few connections for some time, and waits in a queue until there is
// one, as with any pool. What waits is worked off even when its client has gone. `bench/adaptive.ts` starts it, in a process of
// its own.
//
//   node --import tsx bench/adaptive/app.ts <variant>

import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import express from 'express'
import { adaptive, apiKey, gradient, presetLevels, rampmeter, tokenBucket } from 'rampmeter'
import { connections, everyMs, tiers, workMs, type Variant } from './settings.ts'

const [variant] = process.argv.slice(2) as [Variant]
const levels = presetLevels({
  stressed: { p99Ms: 400, multiplier: 0.4 },
  warm: { p99Ms: 200 },
  idle: { p99Ms: 100 },
})
const moves = variant === 'levels' || variant === 'both'
const limits = variant === 'gradient' || variant === 'both'

const limiter = rampmeter({
  identify: [
    apiKey({
      lookup: (key) => ({ id: key, type: 'agent', tier: key.split('-')[0]! }),
      cache: '1m',
    }),
  ],
  tiers: Object.fromEntries(
    tiers.map(({ name, perSecond, priority, floor }) => [
      name,
      {
        policies: [tokenBucket({ name: 'quota', quota: 10 * perSecond, window: '10s', burst: 2 * perSecond })],
        priority,
        adaptive: { floor, weight: moves ? 1 : 0 },
      },
    ]),
  ),
  classify: (_req, client) => client.tier,
  adaptive: variant !== 'static' && adaptive({ every: everyMs, levels, controller: limits ? gradient() : false }),
})

/** Who waits for a connection, in the order in which they came. */
const queue: (() => void)[] = []
let free = connections

async function work(): Promise<void> {
  if (free > 0) free -= 1
  else await new Promise<void>((resolve) => queue.push(resolve))
  await sleep(workMs)
  const next = queue.shift()
  if (next === undefined) free += 1
  else next()
}

const app = express()
app.use(limiter)
app.get('/', (_req, res, next) => {
  work().then(() => res.json({ done: true }), next)
})
const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')

const watch = setInterval(() => process.send!({ health: limiter.health() }), 250)
process.on('disconnect', () => {
  clearInterval(watch)
  process.exit()
})
process.send!({ port: (server.address() as AddressInfo).port })
