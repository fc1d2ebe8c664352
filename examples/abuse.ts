// An app that watches what its clients do: who guesses at accounts is throttled, then denied, and people can end that.
//
//   node --import tsx examples/abuse.ts
//   for i in $(seq 1001 1060); do curl -s -o /dev/null -w '%{http_code} ' -H 'x-api-key: guesser' localhost:3000/accounts/$i; done
//   curl -s -H 'x-api-key: guesser' localhost:3000/me          denied, and told why and until when
//   curl -s localhost:3000/incidents                           what it was taken for
//   curl -s -X POST localhost:3000/lift/key:guesser            somebody looked at it, and lets it in again

import type { AddressInfo } from 'node:net'
import express from 'express'
import { apiKey, rampmeter } from 'rampmeter'

const limiter = rampmeter({
  identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
  abuse: {
    onIncident: ({ label, client }) => console.log(`${label}: ${client.id}`),
  },
})

const app = express()

// The operators' own pages. In an app of yours they stand behind a login.
app.get('/incidents', async (_req, res) => void res.json(await limiter.incidents.list()))
app.post('/lift/:id', async (req, res) => {
  await limiter.review.lift(req.params.id, { by: 'kim', reason: 'it was a bug of theirs' })
  res.json(await limiter.review.audit(req.params.id))
})

app.use(limiter)
app.get('/me', (req, res) => void res.json(req.rateLimit?.abuse))
app.get('/accounts/:id', (req, res) => void res.status(req.params.id === '1' ? 200 : 404).end())

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})
