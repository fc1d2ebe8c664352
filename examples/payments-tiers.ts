// Throughput for who pays: a day pass, bought with credits, puts a client in a tier with higher limits. It lifts quotas, no checks.
//
//   node --import tsx examples/payments-tiers.ts

import type { AddressInfo } from 'node:net'
import express from 'express'
import { apiKey, creditLedger, memoryStore, rampmeter, tokenBucket } from 'rampmeter'

const store = memoryStore()
const ledger = creditLedger({ store })
/** Until when each client has a pass: the app's own database. */
const passes = new Map<string, number>()

const limiter = rampmeter({
  store,
  identify: [apiKey({ lookup: async (key) => ({ id: key, type: 'agent' }) })],
  tiers: {
    free: { policies: [tokenBucket({ quota: 3, window: '1h' })] },
    pass: { policies: [tokenBucket({ quota: 300, window: '1h' })] },
  },
  classify: (_req, { id }) => ((passes.get(id) ?? 0) > Date.now() ? 'pass' : 'free'),
  payments: { ledger },
})

const app = express()
app.get('/data', limiter, (_req, res) => {
  res.json({ data: [] })
})
app.post(
  '/pass',
  limiter.route({
    price: { credits: 40 },
    replace: true,
    policies: [tokenBucket({ name: 'passes', quota: 5, window: '1h' })],
  }),
  (req, res) => {
    passes.set(req.rateLimit!.client.id, Date.now() + 86_400_000)
    res.status(201).end()
  },
)
await ledger.grant('key:acme', 40)

await limiter.ready()
const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const headers = { 'x-api-key': 'acme' }
async function served(): Promise<number> {
  const answers = await Promise.all(Array.from({ length: 20 }, () => fetch(`${url}/data`, { headers })))
  return answers.filter(({ ok }) => ok).length
}
console.log(`without a pass: ${await served()} of 20`)
console.log(`a pass: ${(await fetch(`${url}/pass`, { method: 'POST', headers })).status}`)
console.log(`with it: ${await served()} of 20`)
console.log(`another: ${(await fetch(`${url}/pass`, { method: 'POST', headers })).status}`)
server.close()
await limiter.close()
