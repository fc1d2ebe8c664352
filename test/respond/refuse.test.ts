import { createRequire } from 'node:module'
import { createServer, request, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import express, { type RequestHandler } from 'express'
import { afterEach, describe, expect, it } from 'vitest'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import type { Answer } from '../../src/respond/answer.ts'
import { createFieldWriter } from '../../src/respond/fields.ts'
import { createRefuser, type RefuserOptions } from '../../src/respond/refuse.ts'
import { answer, applied, type Outcome } from './answers.ts'

const express4 = createRequire(import.meta.url)('express4') as typeof express

const policy = tokenBucket({ name: '<b>"per & minute"</b>', quota: 500, window: '1m', burst: 200 })
const refusal = (outcome: Outcome = {}): Answer =>
  answer([applied(policy, { remaining: 0, waitMs: 1180, resetMs: 24_000 })], {
    reason: 'quota',
    violated: [policy.name],
    retryAfterMs: 1180,
    ...outcome,
  })

const running: Server[] = []
afterEach(async () => {
  for (const server of running.splice(0)) {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

async function listen(listener: Parameters<typeof createServer>[1]): Promise<number> {
  const server = createServer({}, listener)
  running.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

interface Received {
  status: number
  headers: IncomingHttpHeaders
  body: string
}

/** `fetch` would add an Accept of its own. */
function ask(port: number, headers: Record<string, string> = {}, method = 'GET'): Promise<Received> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, host: '127.0.0.1', path: '/', method, headers }, (res) => {
      let body = ''
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => (body += chunk))
      res.on('end', () => resolve({ status: res.statusCode!, headers: res.headers, body }))
      res.on('error', reject)
    })
    sent.on('error', reject)
    sent.end()
  })
}

describe.each([
  ['Express 5', express],
  ['Express 4', express4],
])('on %s', (_name, framework) => {
  async function refusing(
    told: Answer,
    { challenge, before, ...options }: Partial<RefuserOptions> & { challenge?: string; before?: RequestHandler } = {},
  ): Promise<{ port: number; errors: unknown[] }> {
    const writer = createFieldWriter({ families: ['draft-11', 'draft-6'], exposeHeaders: true })
    const refuse = createRefuser({ writer, ...options })
    const app = framework()
    const errors: unknown[] = []
    if (before !== undefined) app.use(before)
    app.use(async (req, res, next) => {
      try {
        await refuse(
          req,
          res,
          next,
          told,
          challenge === undefined ? undefined : { status: 401, challenges: [challenge] },
        )
      } catch (error) {
        errors.push(error)
      }
    })
    app.use((_req, res) => {
      res.end('passed on')
    })
    app.use(((error, _req, res, _next) => {
      errors.push(error)
      res.status(500).end()
    }) satisfies express.ErrorRequestHandler)
    return { port: await listen(app), errors }
  }

  it('answers application/problem+json unless something else is wanted', async () => {
    const { port } = await refusing(refusal(), { docsUrl: 'https://api.example/limits' })
    for (const accept of [undefined, '*/*', 'application/json', 'image/png', 'text/html;q=0.1, application/*']) {
      const { status, headers, body } = await ask(port, accept === undefined ? {} : { accept })
      expect(status).toBe(429)
      expect(headers).toMatchObject({
        'content-type': 'application/problem+json',
        'cache-control': 'no-store',
        'retry-after': '2',
        'retry-after-ms': '1180',
        'ratelimit-remaining': '0',
        'x-ratelimit-tier': 'agent',
        vary: 'Accept',
      })
      expect(JSON.parse(body)).toMatchObject({
        status: 429,
        'violated-policies': [policy.name],
        error: { retry_after_ms: 1180, docs_url: 'https://api.example/limits' },
      })
    }
  })

  it('answers a browser with a page, in which nothing is markup that is not ours', async () => {
    const { port } = await refusing(refusal({ tier: '<script>' }), {
      upgradeUrl: 'https://api.example/plans?a=1&b="2"',
    })
    const accept = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8'
    const { status, headers, body } = await ask(port, { accept })
    expect(status).toBe(429)
    expect(headers['content-type']).toBe('text/html; charset=utf-8')
    expect(body).toContain('<h1>429 Too Many Requests</h1>')
    expect(body).toContain('<meta name="robots" content="noindex">')
    expect(body).toContain('Tier &quot;&lt;script&gt;&quot; allows 500 requests per minute')
    expect(body).toContain('&lt;b&gt;&quot;per &amp; minute&quot;&lt;/b&gt;')
    expect(body).toContain('href="https://api.example/plans?a=1&amp;b=&quot;2&quot;"')
    expect(body).not.toMatch(/<script|<b>/)
  })

  it('answers in plain text where that is asked for', async () => {
    const { port } = await refusing(refusal())
    const { headers, body } = await ask(port, { accept: 'text/plain, */*;q=0.1' })
    expect(headers['content-type']).toBe('text/plain; charset=utf-8')
    expect(body).toBe(
      `429 Too Many Requests

Tier "agent" allows 500 requests per minute; the next one is admitted in 2 s.

Try again in: 2 s
Tier: agent
Limits reached: <b>"per & minute"</b>
Left: 0 of 500
All of it is free again at: 2026-02-27T12:00:24Z
`,
    )
  })

  it('answers HEAD with the header section that GET would have, and no body', async () => {
    const { port } = await refusing(refusal())
    const get = await ask(port)
    const head = await ask(port, {}, 'HEAD')
    const { date: _got, ...expected } = get.headers
    const { date: _date, ...headers } = head.headers
    expect(headers).toEqual(expected)
    expect(Number(headers['content-length'])).toBe(Buffer.byteLength(get.body))
    expect(head).toMatchObject({ status: 429, body: '' })
  })

  it('adds to the Vary and Access-Control-Expose-Headers that the app has set', async () => {
    const { port } = await refusing(refusal(), {
      before(_req, res, next) {
        res.setHeader('Vary', 'Origin')
        res.setHeader('Access-Control-Expose-Headers', 'X-Total')
        next()
      },
    })
    const { headers } = await ask(port)
    expect(headers.vary).toBe('Origin, Accept')
    expect(headers['access-control-expose-headers']).toMatch(/^X-Total, RateLimit-Policy, .*Retry-After/)
  })

  it('says never as 403 without Retry-After', async () => {
    const { port } = await refusing(refusal({ reason: 'never', retryAfterMs: null }))
    const { status, headers, body } = await ask(port)
    expect(status).toBe(403)
    expect(headers).not.toHaveProperty('retry-after')
    expect(headers).not.toHaveProperty('retry-after-ms')
    expect(JSON.parse(body)).toMatchObject({ retryable: false, error: { type: 'cost_exceeds_limit' } })
  })

  it('challenges on 401, and survives a challenge that cannot stand in a field', async () => {
    const told = answer([], { reason: 'proof' })
    const { port } = await refusing(told, { challenge: 'ApiKey realm="api"\r\nX-Injected: 1' })
    const { status, headers, body } = await ask(port)
    expect(status).toBe(401)
    expect(headers).toMatchObject({
      'www-authenticate': 'ApiKey realm="api"X-Injected: 1',
      'cache-control': 'no-store',
    })
    expect(headers).not.toHaveProperty('x-injected')
    expect(JSON.parse(body)).toMatchObject({ type: 'about:blank', title: 'Unauthorized' })
  })

  it('takes the links of the tier before those of all tiers', async () => {
    const options = {
      docsUrl: 'https://a.example/docs',
      upgradeUrl: 'https://a.example/up',
      tiers: { agent: { upgradeUrl: 'https://a.example/agents' } },
    }
    const own = await refusing(refusal(), options)
    expect(JSON.parse((await ask(own.port)).body).error).toMatchObject({
      docs_url: 'https://a.example/docs',
      upgrade_url: 'https://a.example/agents',
    })
    const other = await refusing(refusal({ tier: 'constructor' }), options)
    expect(JSON.parse((await ask(other.port)).body).error).toMatchObject({ upgrade_url: 'https://a.example/up' })
  })

  describe('with a handler', () => {
    it('lets it write the body; status and fields are set', async () => {
      const told = refusal()
      const { port } = await refusing(told, {
        handler(_req, res, _next, decision) {
          expect(decision).toBe(told.decision)
          res.json({ slow: decision.retryAfterMs })
        },
      })
      const { status, headers, body } = await ask(port)
      expect(status).toBe(429)
      expect(headers).toMatchObject({ 'retry-after': '2', 'cache-control': 'no-store', 'ratelimit-remaining': '0' })
      expect(headers).not.toHaveProperty('vary')
      expect(JSON.parse(body)).toEqual({ slow: 1180 })
    })

    it('lets it pass the request on', async () => {
      const { port } = await refusing(refusal(), { handler: (_req, _res, next) => next() })
      expect((await ask(port)).body).toBe('passed on')
    })

    it.each([
      [
        'throws',
        () => {
          throw new Error('mine')
        },
      ],
      ['rejects', () => Promise.reject(new Error('mine'))],
    ])('gives what it %s to the error handler', async (_how, handler) => {
      const { port, errors } = await refusing(refusal(), { handler })
      expect((await ask(port)).status).toBe(500)
      expect(errors).toEqual([new Error('mine')])
    })
  })

  it('leaves an answer alone that somebody has begun', async () => {
    let handled = false
    const { port, errors } = await refusing(refusal(), {
      handler: () => {
        handled = true
      },
      before(_req, res, next) {
        res.write('mine')
        next()
        setImmediate(() => res.end('.'))
      },
    })
    expect(await ask(port)).toMatchObject({ status: 200, body: 'mine.' })
    expect({ handled, errors }).toEqual({ handled: false, errors: [] })
  })
})

describe("where the request is not Express's", () => {
  it('answers application/problem+json', async () => {
    const writer = createFieldWriter({ families: ['draft-11'], exposeHeaders: false })
    const refuse = createRefuser({ writer })
    const port = await listen((req, res) => {
      void refuse(req as never, res as never, () => {}, refusal())
    })
    const { status, headers, body } = await ask(port, { accept: 'text/html' })
    expect(status).toBe(429)
    expect(headers['content-type']).toBe('application/problem+json')
    expect(JSON.parse(body).status).toBe(429)
  })
})
