// A place that is kept. Two clients share what an API can take, ten requests a second. One sends ten a second, day in, day out; the other
// is an agent that wants five answers, and waits as it is told. Without tickets the room that it waits for is always taken by the
// next request of the first; with tickets its turn is kept, and the first is refused in its stead.
//
//   node --import tsx examples/tickets.ts
//
// The store's clock is turned by hand, so that ten seconds take none. A real agent need not do any of this: `pacedFetch` of
// rampmeter/client shows its tickets by itself.

import type { AddressInfo } from 'node:net'
import express from 'express'
import { apiKey, memoryStore, rampmeter, tokenBucket } from 'rampmeter'
import { manualClock } from 'rampmeter/testing'

const wanted = 5

for (const tickets of [false, true]) {
  const clock = manualClock()
  const app = express()
  app.use(
    rampmeter({
      store: memoryStore({ now: clock }),
      identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
      // It holds what refills in two seconds and one request more: with less, places that are kept are further apart.
      policies: [tokenBucket({ name: 'capacity', quota: 10, window: '1s', burst: 21, partition: 'global' })],
      tickets,
    }),
  )
  app.get('/', (_req, res) => void res.json({}))
  const server = app.listen(0)
  await new Promise((resolve) => server.once('listening', resolve))
  const url = `http://localhost:${(server.address() as AddressInfo).port}/`

  const began = clock()
  const steady = { served: 0, refused: 0 }
  const agent = { served: 0, refused: 0, comesAt: began + 2000, ticket: '' }
  for (let n = 0; n < 21; n += 1) await ask(url, 'steady')

  while (clock() < began + 10_000) {
    clock.advance('100ms')
    const { ok } = await ask(url, 'steady')
    if (ok) steady.served += 1
    else steady.refused += 1

    if (agent.served === wanted || clock() < agent.comesAt) continue
    const response = await ask(url, 'agent', agent.ticket)
    agent.ticket = response.headers.get('RateLimit-Ticket') ?? ''
    if (response.ok) agent.served += 1
    else agent.refused += 1
    agent.comesAt = clock() + Number(response.headers.get('retry-after-ms'))
  }
  console.log(
    `${tickets ? 'with' : 'without'} tickets: the agent got ${agent.served} of ${wanted} answers and was refused ${agent.refused} times; ` +
      `the steady client got ${steady.served} and was refused ${steady.refused} times`,
  )
  server.closeAllConnections()
  server.close()
}

/** Shows the ticket, if there is one: the same request, when it was told. */
async function ask(url: string, key: string, ticket = ''): Promise<Response> {
  const response = await fetch(url, { headers: { 'x-api-key': key, ...(ticket && { 'RateLimit-Ticket': ticket }) } })
  await response.text()
  return response
}
