// The API that testing-your-api.test.ts tests: made by a function that is given its store, so that a test may give another.

import express, { type Express } from 'express'
import { fixedWindow, rampmeter, tokenBucket, type Limiter, type Store } from 'rampmeter'

export function createApp(store: Store): { app: Express; limiter: Limiter } {
  const limiter = rampmeter({
    store,
    policies: [
      tokenBucket({ name: 'per-minute', quota: 60, window: '1m', burst: 5 }),
      fixedWindow({ name: 'per-day', quota: 20, window: '1d' }),
    ],
  })
  const app = express()
  app.use(limiter)
  app.get('/quote', (_req, res) => {
    res.json({ quote: 'Slow and steady wins the race.' })
  })
  return { app, limiter }
}
