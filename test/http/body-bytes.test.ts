// Content bytes are those of the body that were really sent.

import { once } from 'node:events'
import { createServer } from 'node:https'
import { connect, type AddressInfo } from 'node:net'
import { Readable } from 'node:stream'
import { connect as tlsConnect } from 'node:tls'
import { createGzip } from 'node:zlib'
import express, { type RequestHandler, type Response } from 'express'
import { describe, expect, it, onTestFinished } from 'vitest'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { expressVersions, leftOf, opened, serve, type Served } from './serve.ts'

const who = { id: 'ip:127.0.0.1' }
const quota = 1_000_000_000

/** Encodes as the package `compression` does: `write` and `end` go into a gzip, and what comes out to those it found. */
const compressing: RequestHandler = (req, res, next) => {
  if (req.get('accept-encoding') !== 'gzip') {
    next()
    return
  }
  const write = res.write.bind(res)
  const end = res.end.bind(res)
  const gzip = createGzip()
  const begin = (): void => {
    if (res.headersSent) return
    res.removeHeader('content-length')
    res.setHeader('content-encoding', 'gzip')
  }
  res.write = ((chunk: Buffer | string) => {
    begin()
    gzip.write(chunk)
    return true
  }) as Response['write']
  res.end = ((chunk?: Buffer | string) => {
    begin()
    gzip.end(chunk)
    return res
  }) as Response['end']
  gzip.on('data', (chunk: Buffer) => void write(chunk))
  gzip.on('end', () => void end())
  next()
}

for (const { name, express: make } of expressVersions) {
  describe(`content-bytes, ${name}`, () => {
    const bytes = [slidingLog({ name: 'bytes', quota, window: '1d', unit: 'content-bytes' })]

    async function api(before: RequestHandler[] = [], after: RequestHandler[] = []) {
      const limiter = opened(rampmeter({ policies: bytes }))
      const seen: Response[] = []
      const app = make()
        .use((_req, res, next) => {
          seen.push(res)
          next()
        })
        .use(...before, limiter, ...after)
        .get('/json', (_req, res) => void res.json({ text: 'täglich 💧' }))
        .get('/stream', (_req, res) => {
          Readable.from(Array.from({ length: 50 }, () => 'x'.repeat(777))).pipe(res)
        })
        .get('/nothing', (_req, res) => void res.status(204).end('ignored'))
        .get('/written', (_req, res) => {
          res.write(Buffer.alloc(1000, 'a'))
          res.write('c3a4', 'hex')
          res.end('end')
        })
        .get('/whole', (_req, res) => void res.send(Buffer.alloc(100_000_000, 'a')))
        .get('/hasty', (_req, res) => {
          for (let count = 0; count < 1000; count += 1) res.write(Buffer.alloc(100_000, 'a'))
          res.end()
        })
        .get('/never', () => {})
        .get('/large', (_req, res) => {
          Readable.from(Array.from({ length: 500 }, () => Buffer.alloc(100_000, 'a'))).pipe(res)
        })
      const served = await serve(app)
      /** What a request cost, once it has ended. */
      const cost = async (act: (served: Served) => Promise<unknown>): Promise<number> => {
        const before = quota - leftOf(await limiter.peek(who))['bytes']!
        const from = seen.length
        await act(served)
        // One whose turn never came is not told that its connection closed.
        while (seen.length === from || seen.some((res) => !res.closed && !res.req.socket.closed))
          await new Promise((resolve) => setTimeout(resolve, 3))
        await limiter.flush()
        return quota - leftOf(await limiter.peek(who))['bytes']! - before
      }
      return { cost, served }
    }

    it('are those of the body, whatever wrote it', async () => {
      const { cost } = await api()
      let body = ''
      expect(await cost(async (served) => (body = (await served.ask('/json')).body))).toBe(Buffer.byteLength(body))
      expect(body).toContain('💧')
      expect(await cost((served) => served.ask('/stream'))).toBe(50 * 777)
      expect(await cost((served) => served.ask('/written'))).toBe(1005)
    })

    it('are none where there is no body: HEAD, 204, 304', async () => {
      const { cost } = await api()
      expect(await cost((served) => served.ask('/stream', { method: 'HEAD' }))).toBe(0)
      expect(await cost((served) => served.ask('/nothing'))).toBe(0)
      let etag = ''
      await cost(async (served) => (etag = (await served.ask('/json')).headers['etag'] as string))
      expect(await cost((served) => served.ask('/json', { headers: { 'if-none-match': etag } }))).toBe(0)
    })

    it('are the encoded ones where middleware further in encodes', async () => {
      const { cost } = await api([], [compressing])
      let sent = 0
      const charged = await cost(async (served) => {
        sent = await wireBytes(served, '/stream')
      })
      expect(charged).toBe(sent)
      expect(charged).toBeLessThan(1000)
    })

    it('are the encoded ones, and the few that frame them, where middleware further out encodes', async () => {
      const { cost } = await api([compressing])
      let sent = 0
      const charged = await cost(async (served) => {
        sent = await wireBytes(served, '/stream')
      })
      expect(charged).toBeGreaterThanOrEqual(sent)
      expect(charged).toBeLessThan(sent + 60)
    })

    it('of a download that was broken off are those that left', async () => {
      const { cost } = await api()
      const charged = await cost(
        (served) =>
          new Promise<void>((resolve) => {
            const socket = connect(served.port, '127.0.0.1', () =>
              socket.write('GET /large HTTP/1.1\r\nHost: x\r\n\r\n'),
            )
            socket.once('data', () => {
              socket.destroy()
              resolve()
            })
          }),
      )
      expect(charged).toBeGreaterThan(1000)
      // What the sockets of both ends hold, and not what the handler wrote.
      expect(charged).toBeLessThan(40_000_000)
    })

    it.each([
      ['/whole', 'resets'],
      ['/whole', 'reads what came, and ends'],
      ['/hasty', 'resets'],
      ['/hasty', 'reads what came, and ends'],
    ] as const)('of %s, written whatever the client takes, are those that left when it %s', async (path, leaves) => {
      const { cost } = await api()
      let received = 0
      const charged = await cost(async (served) => {
        const socket = connect(served.port, '127.0.0.1')
        socket.on('error', () => {})
        socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`)
        socket.on('data', (chunk: Buffer) => {
          received += chunk.length
          if (leaves === 'resets') socket.pause()
        })
        await once(socket, 'data')
        if (leaves === 'resets') socket.resetAndDestroy()
        else socket.destroy()
        await once(socket, 'close')
      })
      expect(charged).toBeGreaterThan(received / 2)
      // What the sockets of both ends hold.
      expect(charged).toBeLessThan(40_000_000)
    })

    it('of one that was read to its end are all, and those of one that breaks off late are many', async () => {
      const { cost } = await api()
      expect(await cost((served) => served.ask('/whole'))).toBe(100_000_000)
      let received = 0
      const charged = await cost(async (served) => {
        const socket = connect({ port: served.port, host: '127.0.0.1' })
        socket.on('error', () => {})
        // It has nothing more to say from here on, and reads on all the same.
        socket.end('GET /whole HTTP/1.1\r\nHost: x\r\n\r\n')
        socket.on('data', (chunk: Buffer) => {
          received += chunk.length
          if (received < 60_000_000 || socket.isPaused()) return
          socket.pause()
          setTimeout(() => socket.resetAndDestroy(), 600)
        })
        await once(socket, 'close')
      })
      expect(charged).toBeGreaterThan(50_000_000)
      expect(charged).toBeLessThan(100_000_000)
    })

    it('of a response whose turn on its connection never came are none', async () => {
      const { cost } = await api()
      const charged = await cost(async (served) => {
        const socket = connect(served.port, '127.0.0.1')
        socket.on('error', () => {})
        socket.write('GET /never HTTP/1.1\r\nHost: x\r\n\r\nGET /written HTTP/1.1\r\nHost: x\r\n\r\n')
        setTimeout(() => socket.destroy(), 100)
        await once(socket, 'close')
      })
      expect(charged).toBe(0)
    })

    it('of one behind another on its connection, broken off, are those that left', async () => {
      const { cost } = await api()
      const charged = await cost(async (served) => {
        const socket = connect(served.port, '127.0.0.1')
        socket.on('error', () => {})
        socket.write('GET /written HTTP/1.1\r\nHost: x\r\n\r\nGET /whole HTTP/1.1\r\nHost: x\r\n\r\n')
        let received = 0
        socket.on('data', (chunk: Buffer) => {
          received += chunk.length
          if (received < 100_000 || socket.isPaused()) return
          socket.pause()
          setTimeout(() => socket.resetAndDestroy(), 50)
        })
        await once(socket, 'close')
      })
      expect(charged).toBeGreaterThan(100_000)
      expect(charged).toBeLessThan(40_000_000)
    })

    it('of responses on one connection are each their own', async () => {
      const { cost } = await api()
      const two =
        'GET /written HTTP/1.1\r\nHost: x\r\n\r\nGET /written HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
      expect(await cost((served) => served.send(two))).toBe(2010)
    })
  })
}

/** The bytes of a gzipped body as they came, without what frames the chunks. */
async function wireBytes(served: Served, path: string): Promise<number> {
  const socket = connect(served.port, '127.0.0.1')
  socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n`)
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  await once(socket, 'close')
  const all = Buffer.concat(chunks)
  let at = all.indexOf('\r\n\r\n') + 4
  expect(all.subarray(0, at).toString()).toMatch(/content-encoding: gzip/i)
  let sum = 0
  for (;;) {
    const end = all.indexOf('\r\n', at)
    const size = Number.parseInt(all.subarray(at, end).toString(), 16)
    if (!(size > 0)) {
      expect(size).toBe(0)
      return sum
    }
    sum += size
    at = end + 2 + size + 2
  }
}

describe('content-bytes over TLS', () => {
  it('are those of the body, and of one that was broken off those that left', async () => {
    const limiter = opened(
      rampmeter({ policies: [slidingLog({ name: 'bytes', quota, window: '1d', unit: 'content-bytes' })] }),
    )
    const closed: Promise<unknown>[] = []
    const app = express()
      .use((_req, res, next) => {
        closed.push(once(res, 'close'))
        next()
      })
      .use(limiter)
      .get('/', (req, res) => void res.send(Buffer.alloc(Number(req.query['size']), 'a')))
    // A key that both know is enough for a connection.
    const psk = Buffer.from('a key that both ends know')
    const ciphers = 'PSK-AES128-GCM-SHA256'
    const server = createServer({ ciphers, maxVersion: 'TLSv1.2', pskCallback: () => psk }, app)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => {
      server.closeAllConnections()
      server.close()
    })
    const cost = async (size: number, takes: number): Promise<number> => {
      const before = leftOf(await limiter.peek(who))['bytes']!
      const socket = tlsConnect({
        port: (server.address() as AddressInfo).port,
        host: '127.0.0.1',
        ciphers,
        maxVersion: 'TLSv1.2',
        pskCallback: () => ({ psk, identity: 'any' }),
        checkServerIdentity: () => undefined,
      })
      socket.on('error', () => {})
      socket.write(`GET /?size=${size} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
      let received = 0
      socket.on('data', (chunk: Buffer) => {
        received += chunk.length
        if (received > takes) socket.destroy()
      })
      await once(socket, 'close')
      await Promise.all(closed)
      await limiter.flush()
      return before - leftOf(await limiter.peek(who))['bytes']!
    }
    expect(await cost(1000, Infinity)).toBe(1000)
    expect(await cost(20_000_000, Infinity)).toBe(20_000_000)
    const broken = await cost(100_000_000, 65_000)
    expect(broken).toBeGreaterThan(65_000)
    expect(broken).toBeLessThan(40_000_000)
  })
})

it('content-bytes charged before need a cost', () => {
  expect(() => slidingLog({ quota: 5, window: '1h', unit: 'content-bytes', charge: 'before' })).toThrow(
    expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }),
  )
  expect(slidingLog({ quota: 5, window: '1h', unit: 'content-bytes', charge: 'before', cost: 2 }).charge).toBe('before')
})
