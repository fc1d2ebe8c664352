// The client against real servers: the middleware of this project, and small ones that do what it does not.

import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type RequestHandler } from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { pacedFetch, type PacedFetchOptions, type PayBudget, type Wait } from '../../src/agent/index.ts'
import { apiKey, fixedWindow, memoryStore, rampmeter, slidingWindow, tokenBucket } from '../../src/index.ts'
import type { HeaderFamily, LimiterOptions } from '../../src/index.ts'

interface Server {
  readonly url: string
  /** Every request that came, with the status it was answered. */
  readonly log: { path: string; status: number; headers: IncomingMessage['headers']; at: number }[]
}

async function listen(app: RequestListener): Promise<Server> {
  const log: Server['log'] = []
  const server = createServer((req, res) => {
    const at = performance.now()
    res.on('finish', () => log.push({ path: req.url!, status: res.statusCode, headers: req.headers, at }))
    app(req, res)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, log }
}

/** An API behind our own limiter. */
async function limited(
  options: Partial<LimiterOptions>,
  answer: RequestHandler = (_req, res) => res.json({}),
): Promise<Server> {
  const limiter = rampmeter({ store: memoryStore(), ...options })
  onTestFinished(() => limiter.close())
  return await listen(express().use(limiter, answer))
}

function paced(options: PacedFetchOptions = {}): { fetch: typeof fetch; waits: Wait[] } {
  const waits: Wait[] = []
  return { waits, fetch: pacedFetch({ onWait: (wait) => void waits.push(wait), ...options }) }
}

async function statusesOf(responses: Promise<Response>[]): Promise<number[]> {
  const all = await Promise.all(responses)
  await Promise.all(all.map((response) => response.text()))
  return all.map(({ status }) => status)
}

describe('our own server', () => {
  const families: HeaderFamily[][] = [['draft-11', 'draft-6'], ['draft-11'], ['draft-7'], ['draft-6'], ['legacy'], []]

  it.each(families.map((headers) => [headers.join(' and ') || 'no fields', headers] as const))(
    'a herd of 60 at 20 a second: all are served, by %s',
    { timeout: 60_000 },
    async (_, headers) => {
      const server = await limited({ headers, policies: [tokenBucket({ quota: 20, window: '1s' })] })
      const { fetch } = paced({ retryBudget: { reserve: 60 } })
      const statuses = await statusesOf(Array.from({ length: 60 }, (_, n) => fetch(`${server.url}/items/${n}`)))
      expect(statuses).toEqual(Array.from({ length: 60 }, () => 200))
      const refused = server.log.filter(({ status }) => status === 429).length
      // Sent at once, forty would be refused, some of them again and again. Without fields nothing is known before the first refusal.
      if (headers.length > 0) expect(refused).toBeLessThan(40)
      else expect(refused).toBeLessThanOrEqual(100)
    },
  )

  it.each([
    ['sliding window', slidingWindow({ quota: 20, window: '1s' })],
    ['fixed window', fixedWindow({ quota: 20, window: '1s' })],
  ])('a herd of 60 at a %s of 20 a second', { timeout: 60_000 }, async (_, policy) => {
    const server = await limited({ policies: [policy] })
    const { fetch } = paced()
    const statuses = await statusesOf(Array.from({ length: 60 }, () => fetch(`${server.url}/a`)))
    expect(statuses.every((status) => status === 200)).toBe(true)
    expect(server.log.filter(({ status }) => status === 429).length).toBeLessThanOrEqual(25)
  })

  it('a steady agent is never refused, and keeps up with the bucket', { timeout: 60_000 }, async () => {
    const server = await limited({ policies: [tokenBucket({ quota: 600, window: '1m', burst: 20 })] })
    const { fetch } = paced()
    const started = performance.now()
    while (performance.now() - started < 5000) await (await fetch(`${server.url}/a`)).text()
    expect(server.log.every(({ status }) => status === 200)).toBe(true)
    expect(server.log.length).toBeGreaterThan(20 + 50 * 0.75)
  })

  it('an agent has its burst and its first minutes at once: preset tiers', { timeout: 60_000 }, async () => {
    const server = await limited({ identify: [apiKey({ lookup: () => ({ id: 'acme', type: 'agent' }) })] })
    const { fetch, waits } = paced()
    const headers = { 'x-api-key': 'acme-key' }
    for (let round = 0; round < 12; round += 1) {
      const statuses = await statusesOf(Array.from({ length: 50 }, () => fetch(`${server.url}/a`, { headers })))
      expect(statuses.every((status) => status === 200)).toBe(true)
    }
    expect(server.log).toHaveLength(600)
    expect(waits.filter(({ reason }) => reason !== 'first-answer')).toEqual([])
  })

  it('a wait that is told is kept to the millisecond', async () => {
    const server = await limited({ policies: [tokenBucket({ quota: 4, window: '1s', burst: 1 })] })
    const { waits } = paced()
    // Two instances know nothing of each other.
    await (await paced().fetch(`${server.url}/a`)).text()
    const { fetch } = paced({ onWait: (wait) => void waits.push(wait) })
    const response = await fetch(`${server.url}/a`)
    expect(response.status).toBe(200)
    expect(waits).toHaveLength(1)
    const [, refused, served] = server.log
    expect([refused!.status, served!.status]).toEqual([429, 200])
    const lateMs = served!.at - refused!.at - waits[0]!.ms
    expect(lateMs).toBeGreaterThanOrEqual(0)
    expect(lateMs).toBeLessThan(700)
  })

  it('what never fits is returned with its body', async () => {
    const limiter = rampmeter({ policies: [tokenBucket({ quota: 10, window: '1m' })] })
    onTestFinished(() => limiter.close())
    const server = await listen(express().use(limiter.route({ cost: 50 })))
    const { fetch, waits } = paced()
    const response = await fetch(`${server.url}/a`)
    expect(await response.json()).toMatchObject({ status: 403, retryable: false })
    expect(waits).toEqual([])
  })
})

/** Refuses whoever has no ticket whose time has come, and issues one: for answers that the middleware does not give. */
function ticketDesk(
  answer: RequestListener = (_req, res) => res.end('{}'),
  fields: Record<string, string> = {},
): {
  app: RequestListener
  used: string[]
  refusals: string[]
} {
  const due = new Map<string, number>()
  const used: string[] = []
  const refusals: string[] = []
  let next = 0
  let slot = 0
  return {
    used,
    refusals,
    app(req, res) {
      const shown = req.headers['ratelimit-ticket'] as string | undefined
      const now = performance.now()
      const at = shown === undefined ? undefined : due.get(shown)
      if (shown !== undefined && at !== undefined && now >= at && now < at + 2000) {
        due.delete(shown)
        used.push(shown)
        answer(req, res)
        return
      }
      if (shown !== undefined) refusals.push(shown)
      const early = at !== undefined && now < at
      const ticket = early ? shown! : `ticket-${++next}`
      if (!early) slot = Math.max(now, slot) + 25
      const ms = (early ? at : slot) - now
      due.set(ticket, now + ms)
      res.statusCode = 429
      for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
      res.setHeader('retry-after-ms', String(Math.ceil(ms)))
      res.setHeader('RateLimit-Ticket', ticket)
      res.setHeader('Content-Type', 'application/problem+json')
      res.end(JSON.stringify({ error: { ticket, retry_after_ms: Math.ceil(ms) } }))
    },
  }
}

describe('tickets', () => {
  it(
    'are returned when their time has come, each once, and by the call that got them',
    { timeout: 30_000 },
    async () => {
      const fields = { 'RateLimit-Policy': '"b";q=40;w=1', RateLimit: '"b";r=0;t=1' }
      const desk = ticketDesk(undefined, fields)
      const server = await listen(desk.app)
      const { fetch } = paced()
      const statuses = await statusesOf(Array.from({ length: 20 }, () => fetch(`${server.url}/a`)))
      expect(statuses.every((status) => status === 200)).toBe(true)
      expect(new Set(desk.used).size).toBe(20)
      expect(desk.refusals).toEqual([])
      expect(server.log).toHaveLength(40)

      // The next call has none to show.
      await (await fetch(`${server.url}/a`)).text()
      expect(server.log[40]!.headers).not.toHaveProperty('ratelimit-ticket')
    },
  )

  it('of our own server keep the places of a herd, whoever else comes meanwhile', { timeout: 60_000 }, async () => {
    const policies = [tokenBucket({ name: 'b', quota: 20, window: '1s', burst: 10 })]
    // Without fields the client learns of the limit by being refused.
    const server = await limited({ headers: [], policies, tickets: { share: 1 } })
    const over = new AbortController()
    const newcomers = (async (): Promise<void> => {
      while (!over.signal.aborted) {
        await Promise.all(Array.from({ length: 4 }, async () => (await globalThis.fetch(`${server.url}/new`)).text()))
        await new Promise((resolve) => setTimeout(resolve, 25))
      }
    })()
    const { fetch } = paced({ retryBudget: { reserve: 40 } })
    const statuses = await statusesOf(Array.from({ length: 20 }, () => fetch(`${server.url}/herd`)))
    over.abort()
    await newcomers
    const shown = server.log.filter(({ headers }) => headers['ratelimit-ticket'] !== undefined)
    // How many are in time depends on how busy the machine is: that is for the properties, whose clock is turned.
    const redeemed = shown.filter(({ status }) => status === 200).length
    expect(redeemed).toBeGreaterThan(0)
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(redeemed)
  })

  it('stay with the call that was refused where it may not be sent again', async () => {
    const desk = ticketDesk()
    const server = await listen(desk.app)
    const response = await paced().fetch(`${server.url}/a`, { method: 'POST', body: 'x' })
    expect(response.headers.get('ratelimit-ticket')).toBe('ticket-1')
    expect(await response.json()).toMatchObject({ error: { ticket: 'ticket-1' } })
    expect(server.log).toHaveLength(1)
  })

  it.each([301, 302, 303, 307, 308])('do not travel to another origin by a %i, nor do credentials', async (status) => {
    const other = await listen((req, res) => {
      res.setHeader('x-method', req.method!)
      req.pipe(res)
    })
    const desk = ticketDesk((_req, res) => {
      res.statusCode = status
      res.setHeader('Location', `${other.url}/elsewhere`)
      res.end()
    })
    const server = await listen(desk.app)
    const response = await paced().fetch(`${server.url}/a`, {
      method: 'PUT',
      body: 'hello',
      headers: { authorization: 'Bearer secret', 'x-mine': '1', 'content-type': 'text/plain' },
    })
    expect(response.url).toBe(`${other.url}/elsewhere`)
    expect(desk.used).toHaveLength(1)
    const { headers } = other.log[0]!
    expect(headers).toMatchObject({ 'x-mine': '1' })
    expect(headers).not.toHaveProperty('ratelimit-ticket')
    expect(headers).not.toHaveProperty('authorization')
    // As fetch does it: only 303 turns a PUT into a GET.
    expect(response.headers.get('x-method')).toBe(status === 303 ? 'GET' : 'PUT')
    expect(await response.text()).toBe(status === 303 ? '' : 'hello')
    expect('content-type' in headers).toBe(status !== 303)
  })

  it('are spent by a redirect within their origin, which is followed with the credentials', async () => {
    const desk = ticketDesk((_req, res) => {
      res.statusCode = 302
      res.setHeader('Location', '/landed')
      res.end()
    })
    const server = await listen((req, res) => (req.url === '/landed' ? res.end('here') : desk.app(req, res)))
    const request = new Request(`${server.url}/a`, { headers: { authorization: 'Bearer secret' } })
    const response = await paced().fetch(request)
    expect(await response.text()).toBe('here')
    const landed = server.log.find(({ path }) => path === '/landed')!
    expect(landed.headers).toMatchObject({ authorization: 'Bearer secret' })
    expect(landed.headers).not.toHaveProperty('ratelimit-ticket')
  })

  it('leave the redirects to a caller who asked for them', async () => {
    const desk = ticketDesk((_req, res) => {
      res.statusCode = 302
      res.setHeader('Location', '/landed')
      res.end()
    })
    const server = await listen(desk.app)
    const response = await paced().fetch(`${server.url}/a`, { redirect: 'manual' })
    expect(response.status).toBe(302)
    await expect(paced().fetch(`${server.url}/a`, { redirect: 'error' })).rejects.toThrow(TypeError)
  })

  it('of another origin, behind a redirect, are not taken', async () => {
    const desk = ticketDesk()
    const other = await listen(desk.app)
    const server = await listen((_req, res) => {
      res.statusCode = 302
      res.setHeader('Location', `${other.url}/b`)
      res.end()
    })
    const response = await paced().fetch(`${server.url}/a`)
    expect(response.status).toBe(429)
    for (const { headers } of [...server.log, ...other.log]) expect(headers).not.toHaveProperty('ratelimit-ticket')
  })

  it.each(['', 'two words', 'x'.repeat(4097), 'é'])('that could not be sent are not: %j', async (ticket) => {
    let nth = 0
    const server = await listen((_req, res) => {
      nth += 1
      if (nth > 1) return void res.end()
      res.writeHead(429, { 'retry-after-ms': '10', 'RateLimit-Ticket': Buffer.from(ticket).toString('latin1') })
      res.end()
    })
    expect((await paced().fetch(`${server.url}/a`)).status).toBe(200)
    expect(server.log[1]!.headers).not.toHaveProperty('ratelimit-ticket')
  })
})

describe('payments and proofs', () => {
  it('a payment does not travel to another origin, and a proof is made anew within its own', async () => {
    const other = await listen((_req, res) => res.end('other'))
    const server = await listen((req, res) => {
      if (req.headers['x-payment'] === undefined && req.url !== '/landed') return void res.writeHead(402).end('{}')
      const location = req.url === '/out' ? `${other.url}/x` : '/landed'
      if (req.url === '/landed') return void res.end('landed')
      res.writeHead(302, { Location: location }).end()
    })
    const proofs: string[] = []
    const options: PacedFetchOptions = {
      pay: () => ({ 'X-PAYMENT': 'money' }),
      prove: ({ htu }) => (proofs.push(new URL(htu).pathname), `proof-of-${new URL(htu).pathname.slice(1)}`),
    }
    expect(await (await paced(options).fetch(`${server.url}/out`)).text()).toBe('other')
    expect(other.log[0]!.headers).not.toHaveProperty('x-payment')
    expect(other.log[0]!.headers).not.toHaveProperty('dpop')
    expect(await (await paced(options).fetch(`${server.url}/in`)).text()).toBe('landed')
    const landed = server.log.find(({ path }) => path === '/landed')!
    expect(landed.headers).not.toHaveProperty('x-payment')
    expect(landed.headers).toMatchObject({ dpop: 'proof-of-landed' })
    expect(proofs).toEqual(['/out', '/out', '/in', '/in', '/landed'])
  })
})

it('a server that takes payments and asks for more gets no more than the budget', async () => {
  const server = await listen((_req, res) =>
    res.writeHead(402, { 'Content-Type': 'application/problem+json' }).end('{"error":{"price":{"credits":5}}}'),
  )
  let signed = 0
  const { fetch } = paced({
    payBudget: { money: { total: 10 } },
    pay({ reserve }) {
      if (!reserve('money', 5)) return undefined
      signed += 5
      return { 'X-PAYMENT': 'money' }
    },
  })
  for (let times = 0; times < 8; times += 1) expect((await fetch(`${server.url}/a`)).status).toBe(402)
  expect(signed).toBe(10)
})

describe('payBudget', () => {
  const network = 'eip155:8453'
  const asset = '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'
  const unit = `${network}/${asset}`
  const header = (payload: object, accepted: object = {}): string =>
    btoa(JSON.stringify({ x402Version: 2, accepted: { scheme: 'exact', network, asset, ...accepted }, payload }))
  const exact = (value: unknown): object => ({ signature: '0x', authorization: { value } })
  const upto = (amount: string, token = asset): object => ({ permit2Authorization: { permitted: { token, amount } } })

  /** Tells what a payment is answered, where the bill itself says that it costs nothing. */
  async function paid(budget: PayBudget, ...payments: Record<string, string>[]): Promise<number[]> {
    const server = await listen((req, res) => {
      const isPaid = 'payment-signature' in req.headers || 'payment-intent' in req.headers
      if (isPaid) return void res.end('ok')
      res.writeHead(402, { 'Content-Type': 'application/problem+json' }).end('{"error":{"price":{"credits":0}}}')
    })
    const left = [...payments]
    const { fetch } = paced({ payBudget: budget, pay: () => left.shift() })
    const statuses = []
    for (const _ of payments) statuses.push((await fetch(`${server.url}/a`)).status)
    return statuses
  }
  const signed = (...payloads: object[]): Record<string, string>[] =>
    payloads.map((payload) => ({ 'PAYMENT-SIGNATURE': header(payload) }))

  it('counts what is signed, whatever the bill says', async () => {
    const budget = { [unit]: { total: '25000', perCall: 10_000n } }
    expect(await paid(budget, ...signed(exact('10000'), exact('10000'), exact('10000'), exact('5000')))).toEqual([
      200, 200, 402, 200,
    ])
    expect(await paid(budget, ...signed(exact('10001'), exact(String(10n ** 30n)), exact('0x2710')))).toEqual([
      402, 402, 200,
    ])
    expect(await paid(budget, ...signed(upto('10001'), upto('10000')))).toEqual([402, 200])
    expect(await paid({}, ...signed(exact('1')))).toEqual([402])
  })

  it('counts each unit by itself, and an address in either case as one', async () => {
    const budget = { [unit.toLowerCase()]: { total: 10 }, [`eip155:1/${asset}`]: { total: 1 } }
    const onMainnet = { 'PAYMENT-SIGNATURE': header(exact('2'), { network: 'eip155:1' }) }
    const onBase = { 'PAYMENT-SIGNATURE': header(exact('10'), { asset: asset.toUpperCase().replace('X', 'x') }) }
    expect(await paid(budget, onMainnet, onBase, onBase)).toEqual([402, 200, 402])
  })

  it.each<[string, Record<string, string>]>([
    ['another token', { 'PAYMENT-SIGNATURE': header(exact('1'), { asset: '0x1' }) }],
    ['another token than it names', { 'PAYMENT-SIGNATURE': header(upto('1', '0x1')) }],
    ['no amount', { 'PAYMENT-SIGNATURE': header(exact(undefined)) }],
    ['an amount that is none', { 'PAYMENT-SIGNATURE': header(exact('-1')) }],
    ['two at once', { 'PAYMENT-SIGNATURE': header({ ...exact('1'), ...upto('9') }) }],
    ['a transaction, which does not show it', { 'PAYMENT-SIGNATURE': header({ transaction: 'AAAA' }) }],
    ['what cannot be read', { 'PAYMENT-SIGNATURE': '***' }],
    ['a second payment', { 'PAYMENT-SIGNATURE': header(exact('1')), 'X-PAYMENT': 'much' }],
    ['a second payment, with Stripe', { 'PAYMENT-SIGNATURE': header(exact('1')), 'payment-intent': 'pi_1' }],
    ['another way to pay', { 'Payment-Intent': 'pi_1' }],
  ])('sends nothing that it cannot count: %s', async (_, payment) => {
    expect(await paid({ [unit]: { total: 1000 } }, payment)).toEqual([402])
  })

  it('is told by `pay` of what shows no amount', async () => {
    const server = await listen((req, res) => res.writeHead('payment-intent' in req.headers ? 200 : 402).end('{}'))
    const asked: boolean[] = []
    const { fetch } = paced({
      payBudget: { usd: { total: 900, perCall: 500 } },
      pay({ reserve }) {
        asked.push(reserve('eur', 1), reserve('usd', 501), reserve('usd', -1), reserve('usd', 1.5), reserve('usd', 500))
        return asked.at(-1) === true ? { 'Payment-Intent': 'pi_1' } : undefined
      },
    })
    expect((await fetch(`${server.url}/a`)).status).toBe(200)
    expect((await fetch(`${server.url}/a`)).status).toBe(402)
    expect(asked).toEqual([false, false, false, false, true, false, false, false, false, false])
  })
})

it.each([
  ['a text', 'money'],
  ['a number', 5],
  ['no field', {}],
  ['a name that is none', { 'not a name': 'x' }],
  ['a value that is none', { 'X-PAYMENT': 'a\nb' }],
])('what `pay` answers has to be fields that can be sent, and counts as spent only then: %s', async (_, answer) => {
  const server = await listen((req, res) => {
    if (req.headers['x-payment'] !== undefined) return void res.end('ok')
    res.writeHead(402, { 'Content-Type': 'application/problem+json' }).end('{"error":{"price":{"credits":5}}}')
  })
  let answers: unknown = answer
  const { fetch } = paced({
    payBudget: { money: { total: 5 } },
    pay: ({ reserve }) => (reserve('money', 5) ? (answers as Record<string, string>) : undefined),
  })
  await expect(fetch(`${server.url}/a`)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_PAYMENT' })
  answers = { 'X-PAYMENT': 'money' }
  expect((await fetch(`${server.url}/a`)).status).toBe(200)
})

describe('connections', () => {
  it('are kept when a refusal is thrown away', async () => {
    const sockets = new Set<unknown>()
    let refusals = 0
    const server = await listen((req, res) => {
      sockets.add(req.socket)
      if (req.url === '/a' && refusals++ < 3) res.writeHead(429, { 'retry-after-ms': '20' }).end('x'.repeat(2000))
      else res.end('ok')
    })
    const { fetch } = paced()
    expect(await (await fetch(`${server.url}/a`)).text()).toBe('ok')
    expect(sockets.size).toBe(1)
  })

  it('an answer that stops in the middle of a refusal does not hold up the call', async () => {
    let nth = 0
    const server = await listen((_req, res) => {
      nth += 1
      if (nth > 1) return void res.end('ok')
      res.writeHead(429, { 'retry-after-ms': '20', 'Content-Length': '1000' })
      res.write('x')
    })
    expect(await (await paced().fetch(`${server.url}/a`)).text()).toBe('ok')
  })

  it('an abort during the wait leaves nothing behind', async () => {
    const server = await listen((_req, res) => res.writeHead(429, { 'Retry-After': '30' }).end())
    const { fetch, waits } = paced({ onWait: (wait) => (waits.push(wait), setTimeout(() => abort.abort('stop'), 20)) })
    const abort = new AbortController()
    const started = performance.now()
    await expect(fetch(`${server.url}/a`, { signal: abort.signal })).rejects.toBe('stop')
    expect(performance.now() - started).toBeLessThan(10_000)
    expect(waits).toHaveLength(1)
  })
})
