// The least there is: one line of rampmeter, counters in memory, preset tiers by address.
//
//   node --import tsx examples/minimal.ts
//   for i in $(seq 12); do curl -si -A Mozilla/5.0 localhost:3000/ | grep -iE '^(HTTP|RateLimit:|Retry-After)'; done

import type { AddressInfo } from 'node:net'
import express from 'express'
import { rampmeter } from 'rampmeter'

const app = express()
app.use(rampmeter())

app.get('/', (req, res) => {
  const { client, limits } = req.rateLimit!
  res.json({ tier: client.tier, left: limits.map(({ name, remaining }) => `${name}: ${remaining}`) })
})

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})
