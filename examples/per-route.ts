// What single routes do differently: cost more, cost what they turn out to cost, have limits of their own, or cost nothing.
//
//   node --import tsx examples/per-route.ts
//   curl -i localhost:3000/health                                                        free, and still told
//   curl -i 'localhost:3000/search?q=lamp'                                               costs 5
//   curl -i -H 'content-type: application/json' -d '{"ids":[1,2,3]}' localhost:3000/batch   costs 1 for each id
//   curl -i -H 'content-type: application/json' -d '{"text":"Hello"}' localhost:3000/ask    reserves, then settles, tokens
//   curl -i -X POST localhost:3000/exports/orders                                        3 an hour

import type { AddressInfo } from 'node:net'
import express from 'express'
import { rampmeter, slidingLog, tokenBucket } from 'rampmeter'

const limiter = rampmeter({
  policies: [tokenBucket({ name: 'points', quota: 100, window: '1m', unit: 'points' })],

  // In one place, before anything of the request but its path is known.
  routes: {
    'GET /health': { cost: 0 },
    'GET /search': { name: 'search', cost: 5 },
    'GET /reports/:size': { name: 'reports', cost: (_req, _client, { size }) => (size === 'large' ? 20 : 2) },
  },
})

const app = express()
app.use(limiter)
app.use(express.json())

app.get('/health', (_req, res) => {
  res.json({ ok: true })
})

app.get('/search', (req, res) => {
  res.json({ found: [], left: left(req) })
})

app.get('/reports/:size', (req, res) => {
  res.json({ size: req.params.size, left: left(req) })
})

// Or at the route, where the body has been read. The request is charged once, at this price.
const idsOf = (body: unknown): unknown[] => {
  const ids = (body as { ids?: unknown } | undefined)?.ids
  return Array.isArray(ids) ? ids : []
}
const perId = limiter.route({ name: 'batch', cost: (req) => Math.max(1, idsOf(req.body).length) })
app.post('/batch', perId, (req, res) => {
  res.json({ done: idsOf(req.body).length, left: left(req) })
})

// The cost is known when the work is done: the most it may be is charged first, what it was not is given back.
const tokens = tokenBucket({ name: 'tokens', quota: 10_000, window: '1m', unit: 'tokens', cost: 1000 })
app.post('/ask', limiter.route({ name: 'ask', policies: [tokens] }), (req, res) => {
  const answer = `You said: ${req.body?.text ?? 'nothing'}`
  const used = answer.split(' ').length
  req.rateLimit!.settle({ tokens: used })
  res.json({ answer, used })
})

// Limits of its own, on top of those for all.
const exports = slidingLog({ name: 'exports', quota: 3, window: '1h' })
app.post('/exports/:what', limiter.route({ name: 'exports', policies: [exports] }), (req, res) => {
  res.status(202).json({ exporting: req.params.what, left: left(req) })
})

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})

function left(req: { rateLimit?: { limits: readonly { name: string; remaining: number }[] } }): Record<string, number> {
  return Object.fromEntries((req.rateLimit?.limits ?? []).map(({ name, remaining }) => [name, remaining]))
}
