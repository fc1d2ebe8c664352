import { connect, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import type { Server } from 'node:http'
import express, { type Express } from 'express'
import { Redis } from 'ioredis'
import { apiKey, memoryStore, rampmeter, redisStore, slidingWindow, tokenBucket } from '../../src/index.ts'
import type { HeaderFamily, LimiterOptions } from '../../src/index.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'

/** Real answers, as the pages show them; by the name that a block gives with `example=`. */
export const answers: Record<string, () => Promise<string>> = {
  admitted: () => withApi({}, async (send) => send('/search', { 'x-api-key': 'acme-key' })),

  async refused() {
    return withApi({}, async (send) => {
      // All that the tier holds at once, and the first minutes' extra.
      for (let count = 0; count < 700; count += 1) await send('/search', { 'x-api-key': 'acme-key' })
      return send('/search', { 'x-api-key': 'acme-key' })
    })
  },

  never: () => withApi({}, async (send) => send('/export', { 'x-api-key': 'acme-key' })),

  proof: () =>
    withApi({ identify: [apiKey({ lookup: () => null, unknown: 'refuse' })] }, async (send) =>
      send('/search', { 'x-api-key': 'a-key-of-nobody' }),
    ),

  async away() {
    // Nothing listens on port 1.
    const redis = new Redis(1, { retryStrategy: () => 1000 })
    redis.on('error', () => {})
    try {
      return await withApi({ store: redisStore(redis), onStoreError: 'closed' }, async (send) =>
        send('/search', { 'x-api-key': 'acme-key' }),
      )
    } finally {
      redis.disconnect()
    }
  },

  text: () =>
    withApi({ policies: [slidingWindow({ name: 'per-minute', quota: 1, window: '1m' })] }, async (send) => {
      await send('/search', {})
      return send('/search', { accept: 'text/plain' })
    }),

  ...Object.fromEntries(
    (['draft-11', 'draft-7', 'draft-6', 'legacy'] satisfies HeaderFamily[]).map((family) => [
      family,
      () =>
        withApi({ headers: [family] }, async (send) => {
          const [, ...fields] = (await send('/search', { 'x-api-key': 'acme-key' })).split('\n\n')[0]!.split('\n')
          return fields.filter((field) => /^(X-)?RateLimit(?!-Tier)/.test(field)).join('\n')
        }),
    ]),
  ),
}

/** The fields that Node and Express add by themselves, or that only say how long a body is. */
const others = /^(date|connection|keep-alive|x-powered-by|etag|content-length|transfer-encoding):/i

type Send = (path: string, headers: Record<string, string>) => Promise<string>

/** The API of the pages: preset tiers, one agent with a key, and a clock that stands at noon. */
async function withApi(options: Partial<LimiterOptions>, run: (send: Send) => Promise<string>): Promise<string> {
  const clock = manualClock(Date.UTC(2026, 1, 27, 12))
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    identify: [apiKey({ lookup: (key) => (key === 'acme-key' ? { id: 'acme', type: 'agent' } : null) })],
    docsUrl: 'https://api.example.com/docs/limits',
    upgradeUrl: 'https://example.com/pricing',
    ...options,
  })
  const app: Express = express()
  app.use(limiter)
  app.get('/search', (_req, res) => void res.json({ hits: [] }))
  app.get(
    '/export',
    limiter.route({ cost: 500, policies: [tokenBucket({ name: 'exports', quota: 100, window: '1h' })] }),
    (_req, res) => void res.json({}),
  )
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    return await run((path, headers) => exchange(server, path, headers))
  } finally {
    server.closeAllConnections()
    server.close()
    await limiter.close()
  }
}

/** One request, and its answer as it came over the wire, less what is not ours; JSON is indented. */
async function exchange(server: Server, path: string, headers: Record<string, string>): Promise<string> {
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const fields = Object.entries({ host: 'api.example.com', connection: 'close', ...headers })
  socket.write(`GET ${path} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`)
  let answer = ''
  socket.setEncoding('utf8')
  for await (const text of socket) answer += text
  const [head = '', body = ''] = answer.split('\r\n\r\n')
  const told = head.split('\r\n').filter((line) => !others.test(line))
  return `${told.join('\n')}\n\n${readable(body)}`.trimEnd()
}

function readable(body: string): string {
  return body.startsWith('{') ? JSON.stringify(JSON.parse(body), null, 2) : body
}
