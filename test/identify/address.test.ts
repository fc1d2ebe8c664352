import { BlockList, isIPv4, SocketAddress } from 'node:net'
import { createServer, request as httpRequest, type Server } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AddressInfo } from 'node:net'
import type { Request } from 'express'
import express from 'express'
import express4 from 'express4'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createAddressReader } from '../../src/identify/address.ts'

interface Warned {
  code: string
  text: string
}

let warnings: Warned[] = []
function collect(warning: Error & { code?: string; detail?: string }): void {
  if (warning.code?.startsWith('RAMPMETER_')) {
    warnings.push({ code: warning.code, text: `${warning.message} ${warning.detail}` })
  }
}

beforeEach(async () => {
  // What the test before did not wait for.
  await new Promise(setImmediate)
  warnings = []
  process.on('warning', collect)
})
afterEach(() => {
  process.off('warning', collect)
})

/** Node emits warnings on the next tick. */
async function warned(): Promise<string[]> {
  await new Promise(setImmediate)
  return warnings.map(({ code }) => code)
}

/** One for each subnet, so that each warns once. */
const readers = new Map<number, ReturnType<typeof createAddressReader>>()

function partitionOf(text: unknown, ipv6Subnet = 64): string {
  let read = readers.get(ipv6Subnet)
  if (read === undefined) {
    read = createAddressReader({ trustedAddress: (req) => (req as unknown as { text: string }).text, ipv6Subnet })
    readers.set(ipv6Subnet, read)
  }
  return read({ text } as unknown as Request)
}

describe('the partition of an address', () => {
  it.each([
    ['203.0.113.7', 64, 'ip:203.0.113.7'],
    ['::ffff:203.0.113.7', 64, 'ip:203.0.113.7'],
    ['::FFFF:203.0.113.7', 64, 'ip:203.0.113.7'],
    ['::ffff:cb00:7107', 64, 'ip:203.0.113.7'],
    ['0:0:0:0:0:ffff:cb00:7107', 64, 'ip:203.0.113.7'],
    ['::ffff:203.0.113.7%eth0', 64, 'ip:203.0.113.7'],
    ['2001:db8:1:2:3:4:5:6', 64, 'ip:2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002::9', 64, 'ip:2001:db8:1:2::/64'],
    ['2001:db8:1:2:3:4:5:6', 128, 'ip:2001:db8:1:2:3:4:5:6/128'],
    ['2001:db8:1:2ff:3:4:5:6', 56, 'ip:2001:db8:1:200::/56'],
    ['2001:db8:1:2:3:4:5:6', 48, 'ip:2001:db8:1::/48'],
    ['2001:db8:1:2:3:4:5:6', 0, 'ip:::/0'],
    ['::1', 64, 'ip:::/64'],
    ['fe80::1%eth0', 64, 'ip:fe80::/64'],
    ['fe80::1%eth0.100', 64, 'ip:fe80::/64'],
    ['::203.0.113.7', 128, 'ip:::cb00:7107/128'],
    ['::cb00:7107', 128, 'ip:::cb00:7107/128'],
    ['64:ff9b::203.0.113.7', 128, 'ip:64:ff9b::cb00:7107/128'],
  ])('of %s at /%i is %s', (text, subnet, partition) => {
    expect(partitionOf(text, subnet)).toBe(partition)
  })

  it.each([
    undefined,
    null,
    '',
    7,
    'unknown',
    '203.0.113.7:8080',
    '[2001:db8::1]',
    '203.0.113.7, 198.51.100.2',
    ' 203.0.113.7',
    '1',
    '0x7f.1',
    '010.0.0.1',
    '203.0.113.256',
    '2001:db8::1::2',
    '2001:db8::/64',
    `fe80::1%${'z'.repeat(5000)}`,
  ])('of %j is the shared one', (text) => {
    expect(partitionOf(text)).toBe('ip:none')
  })

  const v4 = fc.ipV4()
  const v6 = fc.tuple(...Array.from({ length: 8 }, () => fc.integer({ min: 0, max: 0xffff })))
  const sparse = fc
    .tuple(v6, fc.array(fc.integer({ min: 0, max: 7 }), { maxLength: 7 }))
    .map(([groups, zeros]) => groups.map((group, index) => (zeros.includes(index) ? 0 : group)))
    .filter((groups) => !(groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff))

  function hex(groups: readonly number[]): string[] {
    return groups.map((group) => group.toString(16))
  }

  /** Ways to write one IPv6 address, each by its own route. */
  function writings(groups: readonly number[]): string[] {
    const plain = hex(groups).join(':')
    const last = groups.slice(6)
    const dotted = [...hex(groups.slice(0, 6)), last.flatMap((group) => [group >> 8, group & 255]).join('.')].join(':')
    const start = groups.indexOf(0)
    const zeros = start === -1 ? 0 : groups.slice(start).findIndex((group) => group !== 0)
    const end = zeros === -1 ? 8 : start + zeros
    const squeezed =
      start === -1 ? plain : `${hex(groups.slice(0, start)).join(':')}::${hex(groups.slice(end)).join(':')}`
    return [
      plain,
      plain.toUpperCase(),
      hex(groups)
        .map((group) => group.padStart(4, '0'))
        .join(':'),
      dotted,
      squeezed,
      `${plain}%eth0`,
      new SocketAddress({ address: plain, family: 'ipv6' }).address,
    ]
  }

  it('does not depend on how an IPv6 address is written', () => {
    fc.assert(
      fc.property(sparse, (groups) => {
        const partitions = new Set(writings(groups).map((text) => partitionOf(text)))
        expect(partitions.size).toBe(1)
      }),
      { numRuns: 500 },
    )
  })

  it('is shared by two IPv6 addresses exactly if they are in one subnet', () => {
    fc.assert(
      fc.property(
        sparse,
        fc.integer({ min: 0, max: 127 }),
        fc.integer({ min: 1, max: 128 }),
        fc.boolean(),
        (groups, bit, subnet, again) => {
          const other = again
            ? groups
            : groups.map((group, index) => (index === bit >> 4 ? group ^ (0x8000 >> (bit & 15)) : group))
          fc.pre(!(other.slice(0, 5).every((group) => group === 0) && other[5] === 0xffff))
          const one = hex(groups).join(':')
          const two = hex(other).join(':')
          const list = new BlockList()
          list.addSubnet(one, subnet, 'ipv6')
          expect(partitionOf(one, subnet) === partitionOf(two, subnet)).toBe(list.check(two, 'ipv6'))
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('is the IPv4 address itself, mapped or not, and nobody else has it', () => {
    fc.assert(
      fc.property(v4, v4, (one, two) => {
        const [a, b, c, d] = one.split('.').map(Number) as [number, number, number, number]
        const mapped = `::ffff:${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`
        expect(partitionOf(one)).toBe(`ip:${one}`)
        expect(partitionOf(`::ffff:${one}`)).toBe(`ip:${one}`)
        expect(partitionOf(mapped)).toBe(`ip:${one}`)
        expect(partitionOf(one) === partitionOf(two)).toBe(one === two)
      }),
    )
  })

  it('is one of the three forms for any text whatever', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), fc.ipV4(), fc.ipV6(), fc.ipV4Extended()), (text) => {
        const partition = partitionOf(text)
        expect(partition).toMatch(/^ip:(none|[0-9.]+|[0-9a-f:]+\/64)$/)
        if (isIPv4(text)) expect(partition).toBe(`ip:${text}`)
      }),
      { numRuns: 1000 },
    )
  })
})

describe('a request without a usable address', () => {
  it('shares one partition with its like, and is reported once, without the address', async () => {
    const texts = [undefined, '198.51.100.99:4711', 'garbage', '']
    let index = 0
    const read = createAddressReader({ trustedAddress: () => texts[index++ % texts.length], ipv6Subnet: 64 })
    for (let turn = 0; turn < 8; turn += 1) expect(read({} as Request)).toBe('ip:none')
    expect(await warned()).toEqual(['RAMPMETER_NO_ADDRESS'])

    const other = createAddressReader({ trustedAddress: () => '198.51.100.99:4711', ipv6Subnet: 64 })
    other({} as Request)
    expect(await warned()).toEqual(['RAMPMETER_NO_ADDRESS', 'RAMPMETER_NO_ADDRESS'])
    for (const { text } of warnings) expect(text).not.toContain('198.51.100.99')
    expect(warnings[0]?.text).toContain('trustedAddress')
  })

  it('is served when reading the address throws, and told what was thrown but not its words', async () => {
    const read = createAddressReader({
      trustedAddress: () => {
        throw new TypeError('cannot read 198.51.100.99')
      },
      ipv6Subnet: 64,
    })
    expect(read({} as Request)).toBe('ip:none')
    expect(await warned()).toEqual(['RAMPMETER_NO_ADDRESS'])
    expect(warnings[0]?.text).toContain('TypeError')
    expect(warnings[0]?.text).not.toContain('198.51.100.99')
  })

  it.each([
    ['no app and no headers', {}],
    [
      'an ip that throws',
      {
        headers: {},
        get ip(): string {
          throw new TypeError('no socket')
        },
      },
    ],
    ['an app without get', { headers: {}, app: {} }],
    [
      'an app whose get throws',
      {
        headers: { 'x-forwarded-for': '1.1.1.1' },
        app: {
          get() {
            throw new Error('no')
          },
        },
      },
    ],
  ])('outside Express: %s', (_what, req) => {
    expect(createAddressReader({ ipv6Subnet: 64 })(req as unknown as Request)).toBe('ip:none')
  })

  it('comes over a Unix socket', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'rampmeter-'))
    const socketPath = join(folder, 'http.sock')
    const app = express()
    const read = createAddressReader({ ipv6Subnet: 64 })
    app.use((req, res) => void res.end(read(req)))
    const server = createServer(app)
    await new Promise<void>((resolve) => server.listen(socketPath, resolve))
    try {
      const answer = await new Promise<string>((resolve, reject) => {
        httpRequest({ socketPath, path: '/' }, (res) => {
          res.setEncoding('utf8').on('data', resolve)
        })
          .on('error', reject)
          .end()
      })
      expect(answer).toBe('ip:none')
      expect(await warned()).toEqual(['RAMPMETER_NO_ADDRESS'])
    } finally {
      await new Promise((resolve) => server.close(resolve))
      rmSync(folder, { recursive: true })
    }
  })
})

describe.each([
  ['Express 5', express],
  ['Express 4', express4 as unknown as typeof express],
])('trust proxy in %s', (_name, makeApp) => {
  let server: Server | undefined
  afterEach(async () => {
    await new Promise((resolve) => (server === undefined ? resolve(undefined) : server.close(resolve)))
    server = undefined
  })

  async function ask(
    setting: unknown,
    headers: Record<string, string>[],
    trustedAddress?: (req: Request) => string,
  ): Promise<string[]> {
    const app = makeApp()
    if (setting !== undefined) app.set('trust proxy', setting)
    const read = createAddressReader({ trustedAddress, ipv6Subnet: 64 })
    app.use((req: Request, res) => void res.end(read(req)))
    server = createServer(app)
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const answers: string[] = []
    for (const fields of headers) {
      const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close', ...fields } })
      answers.push(await response.text())
    }
    return answers
  }

  const forwardedFor = { 'x-forwarded-for': '198.51.100.23' }
  const forwarded = { forwarded: 'for=198.51.100.23' }

  it.each([
    ['unset, nothing forwarded', undefined, {}, []],
    ['unset, X-Forwarded-For', undefined, forwardedFor, ['RAMPMETER_TRUST_PROXY_UNSET']],
    ['unset, Forwarded', undefined, forwarded, ['RAMPMETER_TRUST_PROXY_UNSET']],
    ['unset, both', undefined, { ...forwardedFor, ...forwarded }, ['RAMPMETER_TRUST_PROXY_UNSET']],
    ['0: somebody decided, X-Forwarded-For', 0, forwardedFor, []],
    ['0: somebody decided, Forwarded', 0, forwarded, []],
    ['1, X-Forwarded-For', 1, forwardedFor, []],
    ['1, both', 1, { ...forwardedFor, ...forwarded }, []],
    ['1, only Forwarded, which Express ignores', 1, forwarded, ['RAMPMETER_TRUST_PROXY_UNSET']],
    ['a subnet, X-Forwarded-For', 'loopback', forwardedFor, []],
    ['true', true, {}, ['RAMPMETER_TRUST_PROXY_PERMISSIVE']],
    ['true, X-Forwarded-For', true, forwardedFor, ['RAMPMETER_TRUST_PROXY_PERMISSIVE']],
  ])('%s', async (_what, setting, headers, codes) => {
    const answers = await ask(setting, [headers, headers, headers])
    const trusts = setting === 1 || setting === true || setting === 'loopback'
    const seen = trusts && 'x-forwarded-for' in headers ? 'ip:198.51.100.23' : 'ip:127.0.0.1'
    expect(answers).toEqual([seen, seen, seen])
    expect(await warned()).toEqual(codes)
    for (const { text } of warnings) {
      expect(text).not.toContain('198.51.100.23')
      expect(text).toContain("app.set('trust proxy', 1)")
    }
  })

  it('is not looked at where the app tells the address itself', async () => {
    const answers = await ask(true, [forwardedFor], (req) => req.headers['x-forwarded-for'] as string)
    expect(answers).toEqual(['ip:198.51.100.23'])
    expect(await warned()).toEqual([])
  })

  it('is that of the parent app for one mounted in it', async () => {
    const outer = makeApp()
    outer.set('trust proxy', 1)
    const inner = makeApp()
    const read = createAddressReader({ ipv6Subnet: 64 })
    inner.use((req: Request, res) => void res.end(read(req)))
    outer.use('/inner', inner)
    server = createServer(outer)
    await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    const response = await fetch(`http://127.0.0.1:${port}/inner`, {
      headers: { connection: 'close', ...forwardedFor },
    })
    expect(await response.text()).toBe('ip:198.51.100.23')
    expect(await warned()).toEqual([])
  })
})
