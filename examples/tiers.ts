// Tiers of your own: who is who by API key, what each may do, a customer's own quota, and a start that fits an agent.
//
//   node --import tsx examples/tiers.ts
//   curl -i localhost:3000/models                            free
//   curl -i -H 'x-api-key: pro-key' localhost:3000/models    pro, with 300 more in its first ten minutes
//   curl -i -H 'x-api-key: big-key' localhost:3000/models    enterprise, 5000 a minute as its contract says

import { createHash } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { apiKey, fixedWindow, rampmeter, slidingWindow, tokenBucket } from 'rampmeter'

/** What a database would hold: accounts, by the hash of their key. */
const accounts = new Map([
  [sha256('pro-key'), { id: 'initech', plan: 'pro', perMinute: undefined }],
  [sha256('big-key'), { id: 'globex', plan: 'enterprise', perMinute: 5000 }],
])

const limiter = rampmeter({
  identify: [
    apiKey({
      async lookup(key) {
        const account = accounts.get(sha256(key))
        if (account === undefined) return null
        return { id: account.id, type: 'service', claims: { plan: account.plan, perMinute: account.perMinute } }
      },
      // A key that is withdrawn works for half a minute more.
      cache: '30s',
    }),
  ],

  tiers: {
    free: {
      policies: [
        tokenBucket({ name: 'per-minute', quota: 20, window: '1m' }),
        fixedWindow({ name: 'per-day', quota: 500, window: '1d' }),
      ],
      upgradeUrl: 'https://api.example.com/pricing',
    },
    pro: {
      policies: [tokenBucket({ name: 'per-minute', quota: 200, window: '1m', burst: 50 })],
      initialBurst: { quota: 300, window: '10m' },
      upgradeUrl: 'https://api.example.com/contact',
    },
    enterprise: {
      policies: [
        tokenBucket({ name: 'per-minute', quota: (client) => client.claims.perMinute ?? 2000, window: '1m' }),
        slidingWindow({ name: 'per-hour', quota: 100_000, window: '1h' }),
      ],
    },
  },
  classify(_req, client) {
    if (client.provedBy === null) return 'free'
    return client.claims.plan === 'enterprise' ? 'enterprise' : 'pro'
  },
  docsUrl: 'https://api.example.com/docs/limits',
})

const app = express()
app.use(limiter)
app.get('/models', (req, res) => {
  const { client, limits } = req.rateLimit!
  res.json({ you: client.id, tier: client.tier, limits })
})

const server = app.listen(Number(process.env.PORT ?? 3000), () => {
  console.log(`listening on http://localhost:${(server.address() as AddressInfo).port}`)
})

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('base64')
}
