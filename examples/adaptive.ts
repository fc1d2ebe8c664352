// Limits that follow the load: an app with one slow worker, and twice as many requests as it can answer.
//
//   UV_THREADPOOL_SIZE=1 node --import tsx examples/adaptive.ts
//   for i in $(seq 400); do curl -s -o /dev/null -w '%{http_code} ' localhost:3000/report & sleep 0.02; done
//   curl -i localhost:3000/report     while it lasts: 503, and when to come back
//   curl -i localhost:3000/pay        a critical route: the last to be refused
//   curl -s localhost:3000/health     the level, the multiplier, the limit in flight

import { pbkdf2 } from 'node:crypto'
import { subscribe } from 'node:diagnostics_channel'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { adaptive, gradient, presetLevels, presetTiers, rampmeter, tokenBucket, type LevelMessage } from 'rampmeter'

// Whoever shows no credential: a browser, and curl, which says itself that it is a program.
const strangers = {
  policies: [tokenBucket({ name: 'per-minute', quota: 3000, window: '1m', burst: 100 })],
  priority: 0,
}

const limiter = rampmeter({
  adaptive: adaptive({
    // So that there is something to see; 10 s unless you say otherwise.
    every: '500ms',
    // When this app is slow: alone, an answer takes some 50 ms. The presets begin at a second.
    levels: presetLevels({ warm: { p99Ms: 100 }, stressed: { p99Ms: 200 } }),
    // An idle app's burst: what one worker answers within some two seconds. 200 unless you say otherwise.
    controller: gradient({ initial: 40 }),
  }),
  tiers: {
    ...presetTiers(),
    anonymous: strangers,
    'unverified-agent': strangers,
    // What a contract says is never cut below nine tenths, nor lifted.
    premium: { ...presetTiers().premium, adaptive: { floor: 0.9, ceiling: 1 } },
  },
  routes: { '/pay': { critical: true } },
  skip: (req) => req.path === '/health',
})

subscribe('rampmeter:level', (message) => {
  const { from, to, multiplier } = message as LevelMessage
  console.log(`${from} -> ${to}: quotas x ${multiplier}`)
})

const app = express()
app.get('/health', (_req, res) => void res.json(limiter.health()))
app.use(limiter)
app.get(['/report', '/pay'], (_req, res, next) => {
  pbkdf2('the work', 'salt', 150_000, 32, 'sha256', (error, key) => {
    if (error) next(error)
    else res.json({ report: key.toString('hex') })
  })
})

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})
