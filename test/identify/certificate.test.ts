import { createHash, type X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import type { TLSSocket } from 'node:tls'
import fc from 'fast-check'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createCertificateReader, isThumbprintOf, type ReadCertificate } from '../../src/identify/certificate.ts'
import { createTrust, trustedProxyList } from '../../src/identify/trusted-proxies.ts'
import { createAuthority, selfSigned, type Authority, type Certificate } from '../certificates.ts'

let authority: Authority
let serverCertificate: Certificate
let agent: Certificate
let other: Certificate
let own: Certificate

beforeAll(async () => {
  authority = await createAuthority()
  ;[serverCertificate, agent, other, own] = await Promise.all([
    authority.issue(),
    authority.issue({ name: 'an agent' }),
    authority.issue({ name: 'another agent' }),
    selfSigned({ name: 'an agent on its own' }),
  ])
})

/** As RFC 8705 section 3.1 says it, by other means than the library's. */
function thumbprint({ der }: Certificate): string {
  return createHash('sha256').update(der).digest('base64url')
}

const closing: (() => unknown)[] = []

afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

/** A TLS server that answers with what the reader makes of each request. */
async function serve(read: ReadCertificate, options: https.ServerOptions = {}): Promise<string> {
  const { key, cert } = serverCertificate
  const server = https.createServer(
    { key, cert, ca: authority.cert, requestCert: true, rejectUnauthorized: false, ...options },
    (req, res) => res.end(JSON.stringify(read(req) ?? null)),
  )
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return `https://localhost:${(server.address() as AddressInfo).port}/`
}

/** What it answers a request over a connection of this agent, or a new one. */
async function ask(url: string, options: https.RequestOptions = {}): Promise<unknown> {
  const [response] = (await once(https.get(url, { ca: authority.cert, agent: false, ...options }), 'response')) as [
    http.IncomingMessage,
  ]
  response.setEncoding('utf8')
  return JSON.parse((await response.toArray()).join(''))
}

const byNobody = { trustedProxies: [] }
const byLoopback = { trustedProxies: ['loopback'] }

const fieldOf = ({ der }: Certificate): string => `:${der.toString('base64')}:`

describe('the certificate of a TLS connection', () => {
  it('is told by its thumbprint, whoever signed it', async () => {
    const url = await serve(createCertificateReader(byNobody))
    expect(await ask(url, agent)).toEqual({ thumbprint: thumbprint(agent) })
    expect(await ask(url, own)).toEqual({ thumbprint: thumbprint(own) })
  })

  it('is absent where none was shown, or none asked for', async () => {
    expect(await ask(await serve(createCertificateReader(byNobody)))).toBeNull()
    const unasked = await serve(createCertificateReader(byNobody), { requestCert: false })
    expect(await ask(unasked, agent)).toBeNull()
  })

  it('is that of each connection, and the same for all requests of one', async () => {
    const url = await serve(createCertificateReader(byNobody))
    const agents = [agent, other].map(({ key, cert }) => new https.Agent({ keepAlive: true, maxSockets: 1, key, cert }))
    closing.push(...agents.map((one) => () => one.destroy()))
    for (let round = 0; round < 3; round += 1) {
      expect(await ask(url, { agent: agents[0] })).toEqual({ thumbprint: thumbprint(agent) })
      expect(await ask(url, { agent: agents[1] })).toEqual({ thumbprint: thumbprint(other) })
    }
  })

  it('is told where a session is resumed', async () => {
    const read = createCertificateReader(byNobody)
    const url = await serve((req) => [read(req), (req.socket as TLSSocket).isSessionReused()] as never)
    const connections = new https.Agent({ keepAlive: false, maxCachedSessions: 1, key: agent.key, cert: agent.cert })
    expect(await ask(url, { agent: connections })).toEqual([{ thumbprint: thumbprint(agent) }, false])
    expect(await ask(url, { agent: connections })).toEqual([{ thumbprint: thumbprint(agent) }, true])
  })

  it('is read anew after a second handshake', async () => {
    const read = createCertificateReader(byNobody)
    const url = await serve((req) => {
      // TLS 1.2 lets a server ask for a certificate, and a client show another, on a connection in use. Node's client does neither.
      const socket = req.socket as TLSSocket
      const answers = [read(req)]
      for (const { der } of [agent, other]) {
        socket.getPeerX509Certificate = () => ({ raw: der }) as X509Certificate
        socket.emit('secure')
        answers.push(read(req))
      }
      return answers as never
    })
    expect(await ask(url)).toEqual([null, { thumbprint: thumbprint(agent) }, { thumbprint: thumbprint(other) }])
  })

  it('is told on HTTP/2, for each of the requests at once', async () => {
    const read = createCertificateReader(byNobody)
    const { key, cert } = serverCertificate
    const server = http2.createSecureServer(
      { key, cert, ca: authority.cert, requestCert: true, rejectUnauthorized: false },
      (req, res) => {
        res.end(JSON.stringify(read(req as unknown as http.IncomingMessage) ?? null))
      },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    closing.push(() => server.close())
    const url = `https://localhost:${(server.address() as AddressInfo).port}`
    for (const shown of [agent, other, undefined]) {
      const session = http2.connect(url, { ca: authority.cert, ...(shown && { key: shown.key, cert: shown.cert }) })
      const answers = Array.from({ length: 3 }, async () => {
        const stream = session.request({ ':path': '/' }).setEncoding('utf8')
        return JSON.parse((await stream.toArray()).join('')) as unknown
      })
      const expected = shown === undefined ? null : { thumbprint: thumbprint(shown) }
      expect(await Promise.all(answers)).toEqual([expected, expected, expected])
      session.close()
    }
  })

  it('is absent without TLS, and without a connection', async () => {
    const read = createCertificateReader(byNobody)
    const server = http.createServer((req, res) => res.end(JSON.stringify(read(req) ?? null)))
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    closing.push(() => server.close())
    const answer = await fetch(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`, {
      headers: { 'client-cert': fieldOf(agent) },
    })
    expect(await answer.json()).toBeNull()
    expect(read({ headers: {}, rawHeaders: [] } as never)).toBeUndefined()
  })

  it('is read once a connection', async () => {
    const read = createCertificateReader(byNobody)
    let reads = 0
    const url = await serve((req) => {
      const socket = req.socket as TLSSocket
      const real = socket.getPeerX509Certificate.bind(socket)
      socket.getPeerX509Certificate = () => {
        reads += 1
        return real()
      }
      for (let round = 0; round < 100; round += 1) read(req)
      return read(req)
    })
    expect(await ask(url, agent)).toEqual({ thumbprint: thumbprint(agent) })
    expect(reads).toBe(1)
  })
})

/** A request as Node makes it, of a peer. */
function requestFrom(remoteAddress: string | undefined, ...values: string[]): http.IncomingMessage {
  return {
    socket: { remoteAddress },
    headers: values.length === 0 ? {} : { 'client-cert': values.join(', ') },
    rawHeaders: values.flatMap((value) => ['Client-Cert', value]),
  } as unknown as http.IncomingMessage
}

describe('Client-Cert', () => {
  const read = createCertificateReader(byLoopback)

  it('of a trusted proxy is the certificate', () => {
    expect(read(requestFrom('127.0.0.1', fieldOf(agent)))).toEqual({ thumbprint: thumbprint(agent) })
  })

  it('of anybody else is not looked at', () => {
    expect(read(requestFrom('203.0.113.7', fieldOf(agent)))).toBeUndefined()
    expect(read(requestFrom('203.0.113.7', 'garbage'))).toBeUndefined()
    expect(read(requestFrom(undefined, fieldOf(agent)))).toBeUndefined()
    expect(createCertificateReader(byNobody)(requestFrom('127.0.0.1', fieldOf(agent)))).toBeUndefined()
  })

  it('over a real connection counts for a trusted proxy, whose own certificate does not', async () => {
    const trusting = await serve(createCertificateReader(byLoopback))
    const headers = { 'client-cert': fieldOf(agent) }
    expect(await ask(trusting, { ...other, headers })).toEqual({ thumbprint: thumbprint(agent) })
    expect(await ask(trusting, other)).toBeNull()
    const distrusting = await serve(createCertificateReader({ trustedProxies: ['192.0.2.0/24'] }))
    expect(await ask(distrusting, { ...other, headers })).toEqual({ thumbprint: thumbprint(other) })
  })

  it.each<[string, (field: string) => string[]]>([
    ['comes twice', (field) => [field, field]],
    ['is a list', (field) => [`${field}, ${field}`]],
    ['is empty', () => ['']],
    ['is no Byte Sequence', (field) => [field.slice(1, -1)]],
    ['is a String', (field) => [`"${field.slice(1, -1)}"`]],
    ['is cut short', (field) => [`:${field.slice(1, 101)}:`]],
    [
      'has something after the certificate',
      (field) => [`:${Buffer.concat([decode(field), Buffer.of(0)]).toString('base64')}:`],
    ],
    ['holds two certificates', (field) => [`:${Buffer.concat([decode(field), decode(field)]).toString('base64')}:`]],
    ['holds a PEM certificate', () => [`:${Buffer.from(agent.cert).toString('base64')}:`]],
    ['holds something else', () => [':AAAA:']],
    ['is URL-encoded PEM, as nginx writes it', () => [encodeURIComponent(agent.cert)]],
  ])('that %s is malformed', (_what, values) => {
    expect(read(requestFrom('127.0.0.1', ...values(fieldOf(agent))))).toBe('malformed')
  })

  it('that is joined by an adapter is malformed', () => {
    const req = requestFrom('::1')
    req.headers = { 'client-cert': `${fieldOf(agent)}, ${fieldOf(other)}` }
    expect(read(req)).toBe('malformed')
  })

  it('of any content is a certificate or malformed, never an exception', () => {
    const mutated = fc.tuple(fc.nat(1000), fc.integer({ min: 0, max: 255 })).map(([at, octet]) => {
      const der = Buffer.from(agent.der)
      der[at % der.length] = octet
      return `:${der.toString('base64')}:`
    })
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary-ascii' }), mutated), (value) => {
        const answer = read(requestFrom('127.0.0.1', value))
        if (answer !== 'malformed')
          expect(answer).toEqual({ thumbprint: createHash('sha256').update(decode(value)).digest('base64url') })
      }),
      { numRuns: 2000 },
    )
  })
})

function decode(field: string): Buffer {
  return Buffer.from(field.slice(1, -1), 'base64')
}

describe('a thumbprint', () => {
  it('is that of a certificate only where it is the same text', () => {
    const certificate = { thumbprint: thumbprint(agent) }
    expect(isThumbprintOf(certificate, thumbprint(agent))).toBe(true)
    for (const wrong of [thumbprint(other), '', thumbprint(agent).slice(1), `${thumbprint(agent)}=`, 'é'.repeat(43)]) {
      expect(isThumbprintOf(certificate, wrong)).toBe(false)
    }
  })
})

describe('trusted proxies', () => {
  it.each<[entry: string, trusted: (string | undefined)[], strangers: (string | undefined)[]]>([
    ['10.1.2.3', ['10.1.2.3', '::ffff:10.1.2.3'], ['10.1.2.4', '::10.1.2.3', undefined, '']],
    ['10.0.0.0/8', ['10.255.255.255', '::ffff:10.0.0.1'], ['11.0.0.0', '1', '0x0a.1', '010.0.0.1']],
    ['10.0.0.0/255.0.0.0', ['10.9.9.9'], ['11.0.0.0']],
    ['::ffff:10.0.0.0/104', ['10.9.9.9'], ['11.0.0.0', '::1']],
    ['2001:db8::/32', ['2001:db8:1::1'], ['2001:db9::1', '32.1.13.184']],
    ['fe80::1', ['fe80::1%eth0'], ['fe80::2']],
    ['loopback', ['127.0.0.1', '127.9.9.9', '::1', '::ffff:127.0.0.1'], ['128.0.0.1', '::2']],
    ['linklocal', ['169.254.1.1', 'fe80::1'], ['169.255.1.1', 'fec0::1']],
    ['uniquelocal', ['10.0.0.1', '172.31.0.1', '192.168.1.1', 'fd00::1'], ['172.32.0.1', '192.169.0.1', 'fe00::1']],
    ['0.0.0.0/0', ['203.0.113.7'], ['2001:db8::1']],
  ])('%s', (entry, trusted, strangers) => {
    const isTrusted = createTrust(trustedProxyList.parse(entry))
    expect(trusted.filter((address) => !isTrusted(address))).toEqual([])
    expect(strangers.filter((address) => isTrusted(address))).toEqual([])
  })

  it('are a list, or a text with commas, and nobody by default', () => {
    expect(trustedProxyList.parse(undefined)).toEqual([])
    expect(trustedProxyList.parse('loopback, 10.0.0.0/8')).toEqual(['loopback', '10.0.0.0/8'])
    expect(trustedProxyList.parse(['loopback', '10.0.0.1,10.0.0.2'])).toEqual(['loopback', '10.0.0.1', '10.0.0.2'])
  })

  it.each([
    true,
    1,
    '',
    'proxy.internal',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '10.0.0.0/255.0.255.0',
    '::/129',
    '::/255.0.0.0',
    '::ffff:10.0.0.0/8',
    'toString',
    'fe80::1%eth0',
    '1',
    null,
    [1],
  ])('%j is a mistake', (entry) => {
    expect(trustedProxyList.safeParse(entry).success).toBe(false)
  })
})
