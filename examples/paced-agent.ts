// An agent that keeps to what an API tells: it starts thirty searches at once, and has each of them answered.
//
//   node --import tsx examples/minimal.ts                               an API to try it on
//   API=http://localhost:3000/ node --import tsx examples/paced-agent.ts
//
// Without API it asks one of its own, which admits ten at once and five a second.

import type { AddressInfo } from 'node:net'
import express from 'express'
import { rampmeter, tokenBucket } from 'rampmeter'
import { pacedFetch } from 'rampmeter/client'

const api = process.env.API ?? (await startApi())
const started = performance.now()
const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`

// One for the whole program: what one call is told, all of them know.
const fetch = pacedFetch({
  maxWait: '30s',
  onWait: ({ ms, reason }) => console.log(`${seconds()}  waits ${Math.round(ms)} ms (${reason})`),
})

// Give up on all that is still waiting after a minute.
const signal = AbortSignal.timeout(60_000)
const searches = Array.from({ length: 30 }, async (_, n) => {
  const response = await fetch(`${api}?q=${n}`, { signal })
  await response.text()
  return response.ok
})
const found = (await Promise.all(searches)).filter(Boolean).length
console.log(`${seconds()}  ${found} of ${searches.length} searches were answered`)
process.exit(found === searches.length ? 0 : 1)

async function startApi(): Promise<string> {
  const app = express()
  app.use(rampmeter({ policies: [tokenBucket({ name: 'searches', quota: 300, window: '1m', burst: 10 })] }))
  app.get('/search', (_req, res) => res.json({ found: [] }))
  const server = app.listen(0)
  await new Promise((resolve) => server.once('listening', resolve))
  return `http://localhost:${(server.address() as AddressInfo).port}/search`
}
