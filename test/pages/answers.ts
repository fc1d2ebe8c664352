import { exportJWK, generateKeyPair, SignJWT } from 'jose'
import { connect, type AddressInfo } from 'node:net'
import { once } from 'node:events'
import type { Server } from 'node:http'
import express, { type Express } from 'express'
import { Redis } from 'ioredis'
import {
  adaptive,
  apiKey,
  bearer,
  concurrency,
  creditLedger,
  memoryStore,
  presetLadder,
  presetSignals,
  rampmeter,
  redisStore,
  slidingWindow,
  tokenBucket,
} from '../../src/index.ts'
import type { HeaderFamily, Limiter, LimiterOptions, PaymentProvider } from '../../src/index.ts'
import { manualClock, type ManualClock } from '../../src/testing/manual-clock.ts'

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

  slots: () =>
    withApi(
      {
        policies: [
          tokenBucket({ name: 'per-minute', quota: 500, window: '1m', burst: 200 }),
          concurrency({ name: 'in-flight', quota: 1 }),
        ],
      },
      async (send, begin) => {
        await begin('/events')
        return send('/search', {})
      },
    ),

  never: () => withApi({}, async (send) => send('/export', { 'x-api-key': 'acme-key' })),

  proof: () =>
    withApi({ identify: [apiKey({ lookup: () => null, unknown: 'refuse' })] }, async (send) =>
      send('/search', { 'x-api-key': 'a-key-of-nobody' }),
    ),

  suspended: () =>
    withApi({}, async (send, _begin, limiter) => {
      const until = new Date(Date.UTC(2026, 1, 27, 15))
      await limiter.review.suspend('key:acme', { by: 'kim', reason: 'resells our data', until })
      return send('/search', { 'x-api-key': 'acme-key' })
    }),

  unapproved: () =>
    withApi({ routes: { '/search': { name: 'search', requireApproval: true } } }, async (send) =>
      send('/search', { 'x-api-key': 'acme-key' }),
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

  denied: () => withApi({ abuse: {} }, async (send, _begin, limiter) => guess(send, limiter, 60)),

  throttled: () =>
    withApi(
      { abuse: {}, policies: [tokenBucket({ name: 'per-minute', quota: 60, window: '1m' })] },
      async (send, _begin, limiter) => guess(send, limiter, 31),
    ),

  challenged: () =>
    withApi({ abuse: {} }, async (send, _begin, limiter) => {
      await guess(send, limiter, 60)
      return send('/search', {})
    }),

  'challenged-to-pay': () =>
    withApi(
      {
        abuse: {
          signals: presetSignals({ 'missing-targets': { weight: 40 } }),
          ladder: presetLadder({ challenge: { price: { credits: 5 } } }),
        },
        payments: { providers: [vouchers] },
      },
      async (send, _begin, limiter) => {
        await guess(send, limiter, 24)
        return send('/search', { 'x-api-key': 'acme-key' })
      },
    ),

  async unpaid() {
    const store = memoryStore({ now: noon() })
    const ledger = creditLedger({ store })
    await ledger.grant('key:acme', 3)
    const payments = { ledger, topUpUrl: 'https://example.com/credits' }
    return await withApi({ store, payments, routes: { '/search': { price: { credits: 5 } } } }, async (send) =>
      send('/search', { 'x-api-key': 'acme-key' }),
    )
  },

  async scope() {
    const { publicKey, privateKey } = await generateKeyPair('ES256')
    const issuer = 'https://id.example.com'
    const audience = 'https://api.example.com'
    const token = await new SignJWT({ sub: 'acme', client_id: 'acme', scope: 'read' })
      .setProtectedHeader({ alg: 'ES256', typ: 'at+jwt', kid: 'one' })
      .setIssuer(issuer)
      .setAudience(audience)
      .setIssuedAt()
      .setExpirationTime('5m')
      .sign(privateKey)
    const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: 'one', alg: 'ES256' }] }
    const options = { identify: [bearer({ issuer, audience, jwks })], routes: { '/search': { scopes: ['search'] } } }
    return await withApi(options, async (send) => send('/search', { authorization: `Bearer ${token}` }))
  },

  unreadable: () =>
    withApi(
      { identify: [bearer({ issuer: 'https://id.example.com', audience: 'a', jwks: { keys: [] } })] },
      async (send) => send('/search', { authorization: 'Bearer a\r\nauthorization: Bearer b' }),
    ),

  unverified: () =>
    withApi({ identify: [apiKey({ lookup: () => Promise.reject(new Error('the database is away')) })] }, async (send) =>
      send('/search', { 'x-api-key': 'acme-key' }),
    ),

  guessing: () =>
    withApi({ verification: { failures: { quota: 1, window: '1m' } } }, async (send) => {
      await send('/search', { 'x-api-key': 'a-key-of-nobody' })
      return steady(await send('/search', { 'x-api-key': 'another-key-of-nobody' }))
    }),

  ticket: () =>
    withApi(
      {
        tickets: true,
        keySecret: 'a-secret-of-the-pages',
        policies: [slidingWindow({ name: 'per-minute', quota: 1, window: '1m' })],
      },
      async (send) => {
        await send('/search', {})
        return withSampleTicket(await send('/search', {}))
      },
    ),

  async local() {
    const redis = new Redis(1, { retryStrategy: () => 1000 })
    redis.on('error', () => {})
    try {
      const policies = [slidingWindow({ name: 'per-minute', quota: 1, window: '1m' })]
      return await withApi({ store: redisStore(redis), policies }, async (send) => {
        await send('/search', {})
        return steady(await send('/search', {}))
      })
    } finally {
      redis.disconnect()
    }
  },

  capacity: () => {
    const busy = adaptive({ every: '100ms', sample: () => ({ p99Ms: 60_000 }), controller: false })
    const policies = [tokenBucket({ name: 'per-minute', quota: 60, window: '1m' })]
    return withApi({ adaptive: busy, policies }, async (send, _begin, limiter) => {
      while (limiter.health().level !== 'stressed') await new Promise((resolve) => setTimeout(resolve, 20))
      for (let count = 0; count < 30; count += 1) await send('/search', {})
      return send('/search', {})
    })
  },

  page: () =>
    withApi({ policies: [slidingWindow({ name: 'per-minute', quota: 1, window: '1m' })] }, async (send) => {
      await send('/search', {})
      return send('/search', { accept: 'text/html' })
    }),

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

/** What goes by the process's own clock, a minute, as if none of it had passed. */
function steady(answer: string): string {
  return answer.replace(/\b5\d{4}\b/g, '60000').replace(/\b5\d\b/g, '60')
}

/** A ticket is another one each time. */
function withSampleTicket(answer: string): string {
  return answer.replace(/[\w-]{62}/g, 'AVOnLqHjlgZLzP2T1wBQX13Dn4zBp2xacCuWA-PjIk9QS3mOKmA73N8w-ln2eA')
}

/** Asks for what is not there, with the agent's key; the last answer. */
async function guess(send: Send, limiter: Limiter, times: number): Promise<string> {
  let answer = ''
  for (let id = 1; id <= times; id += 1) {
    answer = await send(`/items/${id * 7}`, { 'x-api-key': 'acme-key' })
    await limiter.flush()
  }
  return answer
}

/** Takes what it asks for, from who has it: a provider of the shortest kind. */
const vouchers: PaymentProvider = {
  name: 'vouchers',
  holds: false,
  detect: () => undefined,
  challenge: ({ credits }) => ({ way: { field: 'Voucher', credits } }),
  verify: async () => ({ paid: true }),
  reserve: async () => {},
  capture: async () => ({ paid: true }),
  release: async () => {},
  refund: async () => {},
}

const noon = (): ManualClock => manualClock(Date.UTC(2026, 1, 27, 12))

/** The fields that Node and Express add by themselves, or that only say how long a body is. */
const others = /^(date|connection|keep-alive|x-powered-by|etag|content-length|transfer-encoding):/i

type Send = (path: string, headers: Record<string, string>) => Promise<string>

/** The API of the pages: preset tiers, one agent with a key, and a clock that stands at noon. */
async function withApi(
  options: Partial<LimiterOptions>,
  run: (send: Send, begin: (path: string) => Promise<void>, limiter: Limiter) => Promise<string>,
): Promise<string> {
  const limiter = rampmeter({
    store: memoryStore({ now: noon() }),
    identify: [apiKey({ lookup: (key) => (key === 'acme-key' ? { id: 'acme', type: 'agent' } : null) })],
    docsUrl: 'https://api.example.com/docs/limits',
    upgradeUrl: 'https://example.com/pricing',
    ...options,
  })
  const app: Express = express()
  app.use(limiter)
  app.get('/search', (_req, res) => void res.json({ hits: [] }))
  app.get('/events', (_req, res) => res.flushHeaders())
  app.get(
    '/export',
    limiter.route({ cost: 500, policies: [tokenBucket({ name: 'exports', quota: 100, window: '1h' })] }),
    (_req, res) => void res.json({}),
  )
  const server = app.listen(0, '127.0.0.1')
  await once(server, 'listening')
  try {
    return await run(
      (path, headers) => exchange(server, path, headers),
      (path) => begin(server, path),
      limiter,
    )
  } finally {
    server.closeAllConnections()
    server.close()
    await limiter.close()
  }
}

/** A request whose answer has begun, and goes on until the server ends. */
async function begin(server: Server, path: string): Promise<void> {
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.write(`GET ${path} HTTP/1.1\r\nhost: api.example.com\r\n\r\n`)
  await once(socket, 'data')
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
