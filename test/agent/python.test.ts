// examples/agent.py, run by a real Python against real servers.

import { execFile } from 'node:child_process'
import { createServer, type IncomingHttpHeaders, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import express from 'express'
import fc from 'fast-check'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { findPython } from '../../scripts/find-python.mjs'
import { root } from '../../scripts/process.mjs'
import { parseList } from '../../src/agent/structured-fields.ts'
import { memoryStore, rampmeter, tokenBucket } from '../../src/index.ts'

let python: string

beforeAll(async () => {
  python = await findPython()
})

const examples = join(root, 'examples')

/** Runs Python, with `agent` in its hands, and returns the JSON that it prints. */
function run(args: string[], input = ''): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const env = { ...process.env, PYTHONPATH: examples, PYTHONDONTWRITEBYTECODE: '1', no_proxy: '*' }
    const child = execFile(python, args, { env, timeout: 60_000 }, (error, stdout, stderr) => {
      if (error === null && stderr === '') resolve(JSON.parse(stdout))
      else reject(new Error(`${stderr}\n${stdout}`, { cause: error }))
    })
    child.stdin?.end(input)
  })
}

/** What an Agent returns for calls, `[keywords for Agent, arguments of request][]`: status, body, and the waits between. */
async function calls(
  url: string,
  args: string,
  options = '',
): Promise<{ status: number; body: string; waits: number[]; seconds: number }> {
  const program = `
import agent, json, time
waits = []
one = agent.Agent(on_wait=lambda url, seconds: waits.append(seconds)${options === '' ? '' : `, ${options}`})
started = time.monotonic()
status, headers, body = one.request(${JSON.stringify(url)}${args === '' ? '' : `, ${args}`})
print(json.dumps({"status": status, "body": body.decode(), "waits": waits, "seconds": time.monotonic() - started}))
`
  return (await run(['-c', program])) as { status: number; body: string; waits: number[]; seconds: number }
}

interface Asked {
  readonly method: string
  readonly headers: IncomingHttpHeaders
  readonly status: number
}

async function listen(app: RequestListener): Promise<{ url: string; asked: Asked[] }> {
  const asked: Asked[] = []
  const server = createServer((req, res) => {
    res.on('finish', () => asked.push({ method: req.method!, headers: req.headers, status: res.statusCode }))
    app(req, res)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/a`, asked }
}

/** Refuses the first so many with these fields, then serves. */
function refusing(times: number, headers: Record<string, string>, status = 429): RequestListener {
  let nth = 0
  return (_req, res) => {
    nth += 1
    if (nth <= times) res.writeHead(status, headers).end('refused')
    else res.end('served')
  }
}

describe('the agent in Python', () => {
  it('twenty at once are all served by a bucket of ten and five a second', { timeout: 60_000 }, async () => {
    const limiter = rampmeter({
      store: memoryStore(),
      policies: [tokenBucket({ quota: 300, window: '1m', burst: 10 })],
    })
    onTestFinished(() => limiter.close())
    const { url, asked } = await listen(express().use(limiter, (_req, res) => res.end('served')))
    const result = (await run([join(examples, 'agent.py'), url, '20'])) as Record<string, number>
    expect(result).toMatchObject({ served: 20, refused: 0 })
    expect(result['seconds']).toBeGreaterThan(1.5)
    expect(result['seconds']).toBeLessThan(8)
    // Ten cannot have known; of those who come back, hardly one comes in vain.
    expect(asked.filter(({ status }) => status === 429).length).toBeLessThanOrEqual(15)
  })

  it('waits before it is refused', async () => {
    const { url } = await listen((_req, res) => res.setHeader('RateLimit', '"b";r=0;t=1').end('served'))
    const program = `
import agent, json, time
one = agent.Agent()
starts = []
for _ in range(2):
    one.request(${JSON.stringify(url)})
    starts.append(time.monotonic())
print(json.dumps(starts[1] - starts[0]))
`
    const seconds = (await run(['-c', program])) as number
    expect(seconds).toBeGreaterThanOrEqual(0.99)
    expect(seconds).toBeLessThan(2)
  })

  it.each([
    [{ 'Retry-After': '30', 'retry-after-ms': '250' }, 0.25, 0.4],
    [{ 'Retry-After': '1' }, 1, 1.6],
  ])('comes back as told: %j', async (headers, least, most) => {
    const { url } = await listen(refusing(1, headers))
    const { status, body, seconds, waits } = await calls(url, '')
    expect([status, body]).toEqual([200, 'served'])
    expect(waits).toHaveLength(1)
    expect(seconds).toBeGreaterThanOrEqual(least)
    expect(waits[0]).toBeLessThan(most)
  })

  it('understands a date, by the clock of the server', async () => {
    const now = Date.now() + 3_600_000
    const headers = { Date: new Date(now).toUTCString(), 'Retry-After': new Date(now + 1000).toUTCString() }
    const { url, asked } = await listen(refusing(1, headers))
    const { status, waits } = await calls(url, '')
    expect(status).toBe(200)
    expect(waits[0]).toBeLessThan(2)
    expect(asked).toHaveLength(2)
  })

  it.each([{ 'Retry-After': '61' }, { 'retry-after-ms': '999999999999999' }, { 'retry-after-ms': '100', Age: '3' }])(
    'hands back what it will not wait for, or not believe: %j',
    async (headers) => {
      const { url, asked } = await listen(refusing(1, headers))
      expect(await calls(url, '')).toMatchObject({ status: 429, body: 'refused', waits: [] })
      expect(asked).toHaveLength(1)
    },
  )

  it('sends a POST again only with an Idempotency-Key', async () => {
    const soon = { 'retry-after-ms': '50' }
    const without = await listen(refusing(1, soon))
    expect(await calls(without.url, '"POST", {}, b"x"')).toMatchObject({ status: 429 })
    const withKey = await listen(refusing(1, soon))
    expect(await calls(withKey.url, '"POST", {"Idempotency-Key": "1"}, b"x"')).toMatchObject({ status: 200 })
    expect(withKey.asked.map(({ method }) => method)).toEqual(['POST', 'POST'])
  })

  it('keeps to its budget', async () => {
    const { url, asked } = await listen(refusing(99, { 'retry-after-ms': '5' }))
    expect(await calls(url, '', 'retries_reserved=2')).toMatchObject({ status: 429 })
    expect(asked).toHaveLength(1 + 1 + 2)
    const perCall = await listen(refusing(99, { 'retry-after-ms': '5' }))
    await calls(perCall.url, '', 'retries_per_call=3')
    expect(perCall.asked).toHaveLength(4)
  })

  it('shows its ticket once, and to nobody else', async () => {
    const other = await listen((_req, res) => res.end('other'))
    let nth = 0
    const { url, asked } = await listen((_req, res) => {
      nth += 1
      if (nth === 1) res.writeHead(429, { 'retry-after-ms': '20', 'RateLimit-Ticket': 'ticket-1' }).end()
      else res.writeHead(302, { Location: other.url }).end()
    })
    const headers = '"GET", {"Authorization": "Bearer secret", "X-Mine": "1"}'
    expect(await calls(url, headers)).toMatchObject({ status: 200, body: 'other' })
    expect(asked.map(({ headers }) => headers['ratelimit-ticket'])).toEqual([undefined, 'ticket-1'])
    expect(other.asked[0]!.headers).toMatchObject({ 'x-mine': '1' })
    expect(other.asked[0]!.headers).not.toHaveProperty('ratelimit-ticket')
    expect(other.asked[0]!.headers).not.toHaveProperty('authorization')
  })

  it('takes the same fields for malformed as the client does', async () => {
    const parameter = fc.constantFrom(
      ';r=1',
      ';r=0',
      ';t=5',
      ';r="1"',
      ';pk=:YQ==:',
      '; q=2',
      ';x',
      ';x=?1',
      ';x=to/ken',
      ';pk=:YQ:',
    )
    const wrong = fc.constantFrom(
      '"a',
      '"',
      ';R=1',
      ';r=1.',
      ';r=',
      ';',
      ',',
      ' ',
      '\t',
      'a',
      ';x=?2',
      ';pk=:YQ=:',
      ';r=1234567890123456',
    )
    const member = fc
      .tuple(fc.constantFrom('"a"', '"b\\""', '"a,b"'), fc.array(parameter, { maxLength: 3 }))
      .map(([name, parameters]) => name + parameters.join(''))
    const part = fc.oneof(
      { weight: 4, arbitrary: member },
      { weight: 4, arbitrary: fc.constantFrom(', ', ',', ' ,\t') },
      wrong,
    )
    const fields = fc.sample(
      fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('')),
      3000,
    )
    const program = `
import agent, json, sys
print(json.dumps([bool(agent.read_list(field)) for field in json.load(sys.stdin)]))
`
    const read = (await run(['-c', program], JSON.stringify(fields))) as boolean[]
    const expected = fields.map((field) => {
      const list = parseList(field)
      return list !== null && list.every(({ bare }) => bare.type === 'string')
    })
    expect(expected.filter(Boolean).length).toBeGreaterThan(100)
    expect(fields.filter((_, index) => read[index] !== expected[index])).toEqual([])
  })
})
