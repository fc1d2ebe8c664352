// A scarce resource, reserved with a deadline: whoever uses it pays, whoever lets it go in time gets the deposit back at once, and
// of whoever forgets it the hold ends by itself.
//
//   node --import tsx examples/payments-reservation.ts

import { setTimeout } from 'node:timers/promises'
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
app.post('/slots', limiter.route({ price: { credits: 30, hold: '3s' } }), (req, res) => {
  res.status(201).json({ reservation: req.rateLimit?.payment?.chargeId })
})
app.post('/slots/:reservation/use', limiter, async (req, res) => {
  try {
    await ledger.capture(req.params.reservation)
    res.json({ used: true })
  } catch (error) {
    res.status(409).json({ used: false, code: (error as { code: string }).code })
  }
})
app.delete('/slots/:reservation', limiter, async (req, res) => {
  try {
    await ledger.release(req.params.reservation)
    res.json({ released: true })
  } catch (error) {
    res.status(409).json({ released: false, code: (error as { code: string }).code })
  }
})
await ledger.grant('customer:7', 100)

await limiter.ready()
const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/slots`

async function reserve(): Promise<string> {
  const { reservation } = (await (await fetch(url, { method: 'POST' })).json()) as { reservation: string }
  return reservation
}
async function tell(what: string, method: string, path: string): Promise<void> {
  const answer = await fetch(`${url}/${path}`, { method })
  console.log(`${what}:`, answer.status, await answer.json(), await ledger.balance('customer:7'))
}
const used = await reserve()
await tell('used', 'POST', `${used}/use`)
await tell('let go after that', 'DELETE', used)
await tell('let go in time', 'DELETE', await reserve())
const forgotten = await reserve()
console.log('while it is reserved:', await ledger.balance('customer:7'))
await setTimeout(4000)
await tell('used too late', 'POST', `${forgotten}/use`)
server.close()
await limiter.close()
