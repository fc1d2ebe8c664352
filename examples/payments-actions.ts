// Actions of different cost: a price that is a function, settled to what the work really cost. The server knows what an action may
// cost at most; nothing that the client sends makes it cheaper.
//
//   node --import tsx examples/payments-actions.ts

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

/** The most tokens that each action may use. Help is free. */
const mostTokens = new Map([
  ['summarise', 2000],
  ['translate', 500],
  ['help', 0],
])
const creditsFor = (tokens: number): number => Math.ceil(tokens / 100)

const app = express()
app.post(
  '/actions/:action',
  express.json(),
  limiter.route({ price: (req) => ({ credits: creditsFor(mostTokens.get(String(req.params.action)) ?? 0) }) }),
  async (req, res) => {
    const most = mostTokens.get(req.params.action)
    const text: unknown = req.body?.text
    // It was priced before it was read: what is not served costs nothing.
    if (most === undefined || typeof text !== 'string') {
      await req.rateLimit?.payment?.settle(0)
      res.status(most === undefined ? 404 : 400).json({ paid: 0 })
      return
    }
    const tokens = Math.min(most, text.length * 20)
    // Where the price is 0, and in shadow mode, there is no payment.
    await req.rateLimit?.payment?.settle(creditsFor(tokens))
    res.json({ tokens, paid: req.rateLimit?.payment?.credits ?? 0 })
  },
)
await ledger.grant('customer:7', 100)

await limiter.ready()
const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/actions`
for (const [action, text] of [
  ['summarise', 'tell me a long story'],
  ['translate', 'hello'],
  ['help', 'what is there?'],
  ['summarise', 5],
  ['mine', 'gold'],
]) {
  const body = JSON.stringify({ text, price: 0, maxTokens: -1 })
  const response = await fetch(`${url}/${action}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body,
  })
  console.log(action, response.status, await response.json())
}
console.log(await ledger.balance('customer:7'))
server.close()
await limiter.close()
