// More than a rate: requests in flight, failures, different targets, costs known afterwards, a billing month, shared capacity.
//
//   node --import tsx examples/dimensions.ts
//   for i in 1 2 3 4; do curl -si localhost:3000/accounts/$i | head -1; done                three different accounts an hour
//   curl -sN localhost:3000/events & curl -sN localhost:3000/events & curl -i localhost:3000/events     two streams at once
//   for i in 1 2 3 4; do curl -si -d password=guess localhost:3000/login | head -1; done    three bad logins, then none
//   curl -i -H 'content-type: application/json' -d '{"text":"Hello"}' localhost:3000/ask    costs what it turns out to
//   curl -s localhost:3000/usage                                                           what is left of everything

import type { AddressInfo } from 'node:net'
import express from 'express'
import {
  concurrency,
  failures,
  fixedWindow,
  presetTiers,
  rampmeter,
  slidingWindow,
  tokenBucket,
  uniqueTargets,
} from 'rampmeter'

const presets = presetTiers()

const limiter = rampmeter({
  // What the service can serve in all. Anonymous clients share it with scripts, and people go first; premium has its own.
  pools: {
    everyone: { policies: [slidingWindow({ name: 'capacity', quota: 10_000, window: '1m' })], guarantee: 0.1 },
    premium: { policies: [slidingWindow({ name: 'capacity', quota: 5000, window: '1m' })] },
  },
  tiers: {
    ...presets,
    anonymous: { ...presets.anonymous, pool: 'everyone' },
    'unverified-agent': { ...presets['unverified-agent'], pool: 'everyone' },
    human: { ...presets.human, pool: 'everyone' },
    premium: {
      ...presets.premium,
      pool: 'premium',
      // As the customer is billed: from the 15th, by the calendar.
      policies: [fixedWindow({ name: 'billed', quota: 1_000_000, window: 'month', align: { day: 15 } })],
    },
  },
})

const app = express()
app.use(limiter)
app.use(express.json(), express.urlencoded())

// Looking at the same account again is free. Bytes are those of the body that were sent.
const reading = limiter.route({
  name: 'accounts',
  policies: [
    uniqueTargets({ name: 'accounts', quota: 3, window: '1h', target: (req) => req.params['id'] }),
    tokenBucket({ name: 'bytes', quota: 1_000_000, window: '1h', unit: 'content-bytes' }),
  ],
})
app.get('/accounts/:id', reading, (req, res) => {
  res.json({ id: req.params.id, balance: 1200 })
})

// A stream keeps its slot for as long as it lasts, and gives it back when the client goes.
const streaming = limiter.route({ name: 'events', policies: [concurrency({ name: 'streams', quota: 2 })] })
app.get('/events', streaming, (_req, res) => {
  res.set('content-type', 'text/event-stream')
  res.write('data: hello\n\n')
  const timer = setInterval(() => res.write('data: still here\n\n'), 1000)
  res.on('close', () => clearInterval(timer))
})

// Reserved, since it is high-risk: guesses that are sent at once are no more than may still fail.
const guessing = limiter.route({
  name: 'login',
  highRisk: true,
  policies: [failures({ name: 'bad-logins', quota: 3, window: '15m', counts: (res) => res.statusCode === 401 })],
})
app.post('/login', guessing, (req, res) => {
  res.sendStatus(req.body?.password === 'correct horse' ? 204 : 401)
})

// Nobody knows before what an answer costs: there has to be something left to start, and more may be owed afterwards.
const asking = limiter.route({
  name: 'ask',
  policies: [tokenBucket({ name: 'tokens', quota: 1000, window: '1h', unit: 'tokens', charge: 'after' })],
})
app.post('/ask', asking, (req, res) => {
  const answer = `You said: ${req.body?.text ?? 'nothing'}`
  // By name: requests stay requests.
  req.rateLimit!.settle({ tokens: answer.split(' ').length })
  res.json({ answer })
})

app.get('/usage', (req, res) => {
  res.json(Object.fromEntries((req.rateLimit?.limits ?? []).map(({ name, remaining }) => [name, remaining])))
})

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})
