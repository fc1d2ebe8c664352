// Directories over real TLS, from servers that do their worst.

import { once } from 'node:events'
import { createServer, type Server, type ServerOptions } from 'node:https'
import type { RequestListener } from 'node:http'
import { createServer as createSilentServer, type AddressInfo, type Socket } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { createFetcher, DirectoryFailure, type Network } from '../../../src/identify/web-bot-auth/fetch-directory.ts'
import { isPublicAddress } from '../../../src/identify/web-bot-auth/public-address.ts'
import { createWebBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import { createAuthority, selfSigned, type Authority, type Certificate } from '../../certificates.ts'
import { key, noon, requestOf, signFields, unlimited, wholeRequest } from './signing.ts'

let authority: Authority
let certificate: Certificate
let server: Server
let port = 0
let respond: RequestListener
let requests = 0
const open = new Set<Socket>()

beforeAll(async () => {
  authority = await createAuthority()
  certificate = await authority.issue({ name: 'bot.example', hosts: ['bot.example'] })
  server = await listen(certificate)
  port = (server.address() as AddressInfo).port
})

afterEach(() => {
  requests = 0
  for (const socket of open) socket.destroy()
})

afterAll(() => {
  server.close()
})

async function listen({ key, cert }: Certificate, options: ServerOptions = {}): Promise<Server> {
  const listening = createServer({ key, cert, ...options }, (req, res) => {
    requests += 1
    respond(req, res)
  })
  listening.on('connection', (socket: Socket) => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
    socket.on('error', () => {})
  })
  listening.on('tlsClientError', () => {})
  listening.listen(0, '127.0.0.1')
  await once(listening, 'listening')
  return listening
}

/** The Internet of the tests: every name is this machine, which is allowed here and nowhere else. */
function network(changes: Partial<Network> = {}): Network {
  return {
    resolve: async () => ['127.0.0.1'],
    allows: (address) => address === '127.0.0.1',
    ca: authority.cert,
    ...changes,
  }
}

const urlOf = (path = '/keys', host = 'bot.example'): string => `https://${host}:${port}${path}`

/** Why a fetch failed. */
async function failureOf(fetching: Promise<unknown>): Promise<string> {
  const error: unknown = await fetching.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(DirectoryFailure)
  return (error as DirectoryFailure).message
}

describe('a directory over TLS', () => {
  it('is fetched, and proves who signed', async () => {
    const seen = vi.fn()
    respond = (req, res) => {
      seen(req.method, req.url, req.headers.host, req.headers['accept-encoding'])
      res.setHeader('content-type', 'application/http-message-signatures-directory+json')
      res.end(JSON.stringify({ keys: [key.jwk] }))
    }
    const url = `https://bot.example:${port}`
    const id = `${url}/.well-known/http-message-signatures-directory`
    const verifier = createWebBotAuth(
      {
        origin: ['https://api.example.com'],
        directories: new Map([[id, { url: id, keys: undefined }]]),
        trust: undefined,
        fetch: undefined,
        maxLifetime: 86_400_000,
        clockTolerance: 5000,
        legacy: false,
        testKeys: false,
        now: () => noon,
      },
      network(),
    )
    const covered = [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${url}"`]] as [string, string][]
    const show = () => verifier.verify(requestOf({ ...signFields({ covered, url }) }), unlimited)
    expect(await show()).toMatchObject({ outcome: 'verified', identity: { id: `agent:${id}`, provesKey: true } })
    expect(await show()).toMatchObject({ outcome: 'verified' })
    expect(seen.mock.calls).toEqual([
      ['GET', '/.well-known/http-message-signatures-directory', `bot.example:${port}`, 'identity'],
    ])
    await vi.waitFor(() => expect(open.size).toBe(0))
  })

  it('whose certificate is for another name is none', async () => {
    const failure = await failureOf(createFetcher(undefined, network())(urlOf('/keys', 'other.example')))
    expect(failure).toBe('it cannot be reached (Error ERR_TLS_CERT_ALTNAME_INVALID)')
    expect(requests).toBe(0)
  })

  it('whose certificate nobody vouches for is none, also where the environment says not to look', async () => {
    const untrusted = await listen(await selfSigned({ name: 'bot.example', hosts: ['bot.example'] }))
    vi.stubEnv('NODE_TLS_REJECT_UNAUTHORIZED', '0')
    try {
      const url = `https://bot.example:${(untrusted.address() as AddressInfo).port}/keys`
      expect(await failureOf(createFetcher(undefined, network())(url))).toContain('DEPTH_ZERO_SELF_SIGNED_CERT')
      expect(requests).toBe(0)
    } finally {
      vi.unstubAllEnvs()
      untrusted.close()
    }
  })
})

describe('an address', () => {
  it.each([
    ['a name that leads to this machine', ['127.0.0.1']],
    ['a name that leads to a private network', ['10.0.0.1']],
    ['a name that leads to where clouds keep their secrets', ['169.254.169.254']],
    ['a name that leads to a public address and to a private one', ['8.8.8.8', '192.168.0.1']],
    ['a name that leads to a private address in IPv6', ['2606:4700::1', '::ffff:127.0.0.1']],
  ])('%s is not connected to', async (_what, addresses) => {
    const connections = vi.fn()
    server.on('connection', connections)
    const fetchDirectory = createFetcher(
      undefined,
      network({ resolve: async () => addresses, allows: isPublicAddress }),
    )
    expect(await failureOf(fetchDirectory(urlOf()))).toBe('its address is not a public one')
    expect(connections).not.toHaveBeenCalled()
    server.off('connection', connections)
  })

  it.each(['127.0.0.1', '[::1]', '2130706433', '0x7f.1', '017700000001', '[::ffff:7f00:1]', '10.1.2.3'])(
    'that is written as %s is not connected to, and no name is looked up',
    async (host) => {
      const resolve = vi.fn(async () => ['8.8.8.8'])
      const fetchDirectory = createFetcher(undefined, network({ resolve, allows: isPublicAddress }))
      expect(await failureOf(fetchDirectory(urlOf('/keys', host)))).toBe('its address is not a public one')
      expect(resolve).not.toHaveBeenCalled()
    },
  )

  it('is the one that was checked: a name that leads elsewhere a moment later changes nothing', async () => {
    respond = (_req, res) => res.end('{"keys":[]}')
    const answers = [['127.0.0.1'], ['127.0.0.2'], ['127.0.0.2']]
    const resolve = vi.fn(async () => answers.shift()!)
    const { json } = await createFetcher(undefined, network({ resolve }))(urlOf())
    expect(json).toEqual({ keys: [] })
    expect(resolve).toHaveBeenCalledTimes(1)
  })

  it('is looked for by DNS, not in the names that only this machine has', async () => {
    const fetchDirectory = createFetcher(undefined)
    expect(await failureOf(fetchDirectory('https://localhost/keys'))).toMatch(
      /^its address is not a public one$|^it cannot be reached \(Error E|^it did not answer/,
    )
  })
})

describe('a server that does its worst', () => {
  it.each<[string, RequestListener, RegExp]>([
    [
      'redirects',
      (_req, res) => res.writeHead(302, { location: 'https://bot.example/elsewhere' }).end('{"keys":[]}'),
      /^it answered 302/,
    ],
    ['says that it has nothing new', (_req, res) => res.writeHead(304).end(), /^it answered 304/],
    ['is too long', (_req, res) => res.end(`{"keys":[]}${' '.repeat(70_000)}`), /^it is longer than 65536 bytes$/],
    [
      'says that it is short, and is compressed without end',
      (_req, res) => res.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(50_000_000))),
      /^it is compressed/,
    ],
    ['is empty', (_req, res) => res.end(), /^it is not JSON$/],
    ['is nested without end', (_req, res) => res.end('['.repeat(60_000)), /^it is not JSON$/],
    ['hangs up', (req) => req.socket.destroy(), /^it cannot be reached \(Error ECONNRESET\)$/],
    [
      'hangs up in the middle',
      (req, res) => {
        res.writeHead(200, { 'content-length': '1000' }).write('{"keys":')
        setTimeout(() => req.socket.destroy(), 20)
      },
      /^it cannot be reached \(Error ECONNRESET\)$/,
    ],
    [
      'has more fields than there is room for',
      (_req, res) => res.writeHead(200, { 'x-long': 'x'.repeat(20_000) }).end('{"keys":[]}'),
      /HPE_HEADER_OVERFLOW/,
    ],
    ['speaks something else', (req) => req.socket.end('hello\r\n\r\n'), /HPE_/],
  ])('and %s is none', async (_what, listener, why) => {
    respond = listener
    expect(await failureOf(createFetcher(undefined, network())(urlOf()))).toMatch(why)
    expect(requests).toBe(1)
    await vi.waitFor(() => expect(open.size).toBe(0))
  })

  it('and has no end is left after 64 KiB', async () => {
    let sent = 0
    respond = (_req, res) => {
      const more = (): void => {
        while (!res.destroyed && res.write(' '.repeat(16_384))) sent += 16_384
        if (!res.destroyed) res.once('drain', more)
      }
      more()
    }
    expect(await failureOf(createFetcher(undefined, network())(urlOf()))).toBe('it is longer than 65536 bytes')
    await vi.waitFor(() => expect(open.size).toBe(0))
    // What lies in the buffers of two sockets comes on top.
    expect(sent).toBeLessThan(20_000_000)
  })

  it.each<[string, RequestListener]>([
    ['never answers', () => {}],
    [
      'answers a byte at a time',
      (_req, res) => {
        const drip = setInterval(() => res.write(' '), 100)
        res.on('close', () => clearInterval(drip))
      },
    ],
    [
      'sends its fields a byte at a time',
      (req, res) => {
        const drip = setInterval(() => req.socket.write('H'), 100)
        res.on('close', () => clearInterval(drip))
      },
    ],
  ])('and %s is left after three seconds', async (_what, listener) => {
    respond = listener
    const startedAt = performance.now()
    expect(await failureOf(createFetcher(undefined, network())(urlOf()))).toMatch(/^it did not answer within 3 s$|HPE_/)
    expect(performance.now() - startedAt).toBeLessThan(20_000)
    await vi.waitFor(() => expect(open.size).toBe(0))
  })

  it('and takes the connection without a word is left as well', async () => {
    const silent = createSilentServer((socket) => {
      open.add(socket)
      socket.on('close', () => open.delete(socket))
      socket.on('error', () => {})
      socket.resume()
    }).listen(0, '127.0.0.1')
    await once(silent, 'listening')
    try {
      const url = `https://bot.example:${(silent.address() as AddressInfo).port}/keys`
      expect(await failureOf(createFetcher(undefined, network())(url))).toBe('it did not answer within 3 s')
      await vi.waitFor(() => expect(open.size).toBe(0))
    } finally {
      silent.close()
    }
  })

  it('or whose name is never resolved is left as well', async () => {
    const aborted = vi.fn()
    const resolve: Network['resolve'] = (_name, signal) => {
      signal.addEventListener('abort', aborted)
      return new Promise(() => {})
    }
    expect(await failureOf(createFetcher(undefined, network({ resolve }))(urlOf()))).toBe(
      'it did not answer within 3 s',
    )
    expect(aborted).toHaveBeenCalled()
  })
})

describe("a fetch of the operator's own", () => {
  it('is bounded as well: what it unpacks is counted, and the rest is not read', async () => {
    const bomb = gzipSync(Buffer.alloc(50_000_000, ' '))
    let read = 0
    const own = async (): Promise<Response> => {
      const unpacked = new Blob([bomb]).stream().pipeThrough(new DecompressionStream('gzip'))
      const counted = unpacked.pipeThrough(
        new TransformStream<Uint8Array, Uint8Array>({
          transform(chunk, controller) {
            read += chunk.length
            controller.enqueue(chunk)
          },
        }),
      )
      return new Response(counted)
    }
    expect(await failureOf(createFetcher(own as typeof globalThis.fetch)('https://bot.example/keys'))).toBe(
      'it is longer than 65536 bytes',
    )
    expect(read).toBeLessThan(1_000_000)
  })
})
