// A deposit on a risky workflow: held while an import runs, returned when its data was good, kept when it was not.
//
//   node --import tsx examples/payments-deposit.ts

import type { AddressInfo } from 'node:net'
import express from 'express'
import { creditLedger, memoryStore, rampmeter, tokenBucket } from 'rampmeter'

const store = memoryStore()
const ledger = creditLedger({ store })
const limiter = rampmeter({
  store,
  policies: [tokenBucket({ quota: 100, window: '1m' })],
  payments: { ledger, account: () => 'customer:7' },
})

const app = express()
app.post('/imports/:file', limiter.route({ price: { credits: 50, hold: '1h' } }), (req, res) => {
  // The work goes on after the answer; whoever does it is told which deposit is at stake.
  res.status(202).json({ deposit: req.rateLimit?.payment?.chargeId })
})
await ledger.grant('customer:7', 60)

await limiter.ready()
const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/imports`
for (const file of ['good', 'spam']) {
  const response = await fetch(`${url}/${file}`, { method: 'POST' })
  const { deposit } = (await response.json()) as { deposit: string }
  console.log('while it runs:', await ledger.balance('customer:7'))
  if (file === 'good') await ledger.release(deposit)
  else await ledger.capture(deposit, 20)
  console.log(`${file}:`, await ledger.balance('customer:7'))
}
server.close()
await limiter.close()
