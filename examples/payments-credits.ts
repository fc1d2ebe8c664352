// Prepaid credits for an expensive endpoint: bought once, charged with the limits of each call.
//
//   node --import tsx examples/payments-credits.ts

import type { AddressInfo } from 'node:net'
import express from 'express'
import { apiKey, creditLedger, memoryStore, rampmeter, tokenBucket } from 'rampmeter'

const store = memoryStore()
const ledger = creditLedger({ store })
const limiter = rampmeter({
  store,
  identify: [apiKey({ lookup: async (key) => (key === 'secret' ? { id: 'acme', type: 'agent' } : null) })],
  policies: [tokenBucket({ quota: 100, window: '1m' })],
  payments: { ledger, topUpUrl: 'https://shop.example/credits' },
})

const app = express()
app.get('/render', limiter.route({ price: { credits: 5 } }), (req, res) => {
  res.json({ image: '…', paid: req.rateLimit?.payment?.credits ?? 0 })
})

// What a payment webhook would do.
await ledger.grant('key:acme', 12, { idempotencyKey: 'order 1' })
await ledger.grant('key:acme', 12, { idempotencyKey: 'order 1' })

await limiter.ready()
const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/render`
for (let call = 1; call <= 3; call += 1) {
  const response = await fetch(url, { headers: { 'x-api-key': 'secret' } })
  const { paid, detail } = (await response.json()) as { paid?: number; detail?: string }
  console.log(`${response.status}: ${detail ?? `paid ${paid}`}`)
}
console.log(await ledger.balance('key:acme'))
server.close()
await limiter.close()
