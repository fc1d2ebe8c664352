// Where requests come from: subnets, proxies, and settings under which an address means nothing.

import { createServer, request } from 'node:http'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { LimiterOptions } from '../../src/options.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { askTimes, expressVersions, opened, serve, tellDecision } from './serve.ts'
import { warningsOf } from './warnings.ts'

const policies = [slidingWindow({ quota: 2, window: '1h' })]

for (const { name, express } of expressVersions) {
  const behindProxy = async (options: LimiterOptions = {}) => {
    const app = express()
      .set('trust proxy', 1)
      .use(opened(rampmeter({ policies, ...options })), tellDecision)
    const served = await serve(app)
    return async (from: string) => await served.ask('/', { headers: { 'x-forwarded-for': from } })
  }

  describe(`addresses on ${name}`, () => {
    it.each([
      [['203.0.113.7', '203.0.113.7', '203.0.113.7'], 'ip:203.0.113.7'],
      [['2001:db8:1:2::1', '2001:DB8:1:2:ffff::9', '2001:0db8:0001:0002:0:0:0:1'], 'ip:2001:db8:1:2::/64'],
      [['::ffff:203.0.113.9', '203.0.113.9', '::ffff:cb00:7109'], 'ip:203.0.113.9'],
    ])('%j are one client', async (addresses, id) => {
      const ask = await behindProxy()
      const replies = [await ask(addresses[0]!), await ask(addresses[1]!), await ask(addresses[2]!)]
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 429])
      expect(replies[0]!.json.client.id).toBe(id)
      expect(replies[1]!.json.client.id).toBe(id)
    })

    it('of other networks are other clients', async () => {
      const ask = await behindProxy()
      for (const from of ['203.0.113.1', '203.0.113.2', '2001:db8:1:2::1', '2001:db8:1:3::1']) {
        expect((await ask(from)).headers['ratelimit-remaining']).toBe('1')
      }
    })

    it('count by the prefix that `ipv6Subnet` says', async () => {
      const ask = await behindProxy({ ipv6Subnet: 56 })
      expect((await ask('2001:db8:1:200::1')).json.client.id).toBe('ip:2001:db8:1:200::/56')
      expect((await ask('2001:db8:1:2ff::1')).headers['ratelimit-remaining']).toBe('0')
      expect((await ask('2001:db8:1:300::1')).headers['ratelimit-remaining']).toBe('1')
    })

    it('that a client makes up before the trusted proxy count for nothing', async () => {
      const ask = await behindProxy()
      await ask('1.1.1.1, 203.0.113.7')
      await ask('2.2.2.2, 203.0.113.7')
      expect((await ask('3.3.3.3, 203.0.113.7')).status).toBe(429)
    })

    it('may be told by the app', async () => {
      const limiter = opened(rampmeter({ policies, trustedAddress: (req) => req.get('cf-connecting-ip') }))
      const served = await serve(express().use(limiter, tellDecision))
      const { json } = await served.ask('/', { headers: { 'cf-connecting-ip': '203.0.113.8' } })
      expect(json.client).toMatchObject({ id: 'ip:203.0.113.8', address: 'ip:203.0.113.8' })
    })

    it.each<[string, LimiterOptions['trustedAddress'] & {}]>([
      ['missing', () => undefined],
      ['empty', () => ''],
      ['no address', () => 'localhost'],
      ['with a port', () => '203.0.113.7:443'],
      ['a list', () => ['203.0.113.7'] as never],
      [
        'a throw',
        () => {
          throw new Error('no')
        },
      ],
      ['a rejection', (async () => Promise.reject(new Error('no'))) as never],
    ])('that are none share one counter, reported once: %s', async (_, trustedAddress) => {
      const rejections: unknown[] = []
      const note = (error: unknown): void => void rejections.push(error)
      process.on('unhandledRejection', note)
      onTestFinished(() => void process.off('unhandledRejection', note))
      const warnings = warningsOf('RAMPMETER_NO_ADDRESS')
      const limiter = opened(rampmeter({ policies, trustedAddress }))
      const served = await serve(express().use(limiter, tellDecision))
      const replies = await askTimes(served, 3)
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 429])
      expect(replies[0]!.json.client.id).toBe('ip:none')
      expect(await warnings()).toHaveLength(1)
      expect(rejections).toEqual([])
    })

    it('are missing on a Unix socket, which is served and reported', async () => {
      const warnings = warningsOf('RAMPMETER_NO_ADDRESS')
      const server = createServer(express().use(opened(rampmeter({ policies })), tellDecision))
      const folder = mkdtempSync(join(tmpdir(), 'rampmeter-'))
      const socketPath = join(folder, 'app.sock')
      await new Promise<void>((resolve) => server.listen(socketPath, resolve))
      onTestFinished(() => {
        server.closeAllConnections()
        server.close()
        rmSync(folder, { recursive: true, force: true })
      })
      const status = await new Promise<number>((resolve, reject) => {
        request({ socketPath, path: '/' }, (res) => {
          res.resume()
          resolve(res.statusCode!)
        })
          .on('error', reject)
          .end()
      })
      expect(status).toBe(200)
      expect(await warnings()).toHaveLength(1)
    })
  })

  describe(`trust proxy on ${name}`, () => {
    const served = async (trust: unknown) => {
      const app = express()
      if (trust !== undefined) app.set('trust proxy', trust)
      return await serve(app.use(opened(rampmeter({ policies: [] })), tellDecision))
    }
    const forwarded = { headers: { 'x-forwarded-for': '203.0.113.7' } }

    it('that is not set is reported once, with the mend, when a proxy shows', async () => {
      const warnings = warningsOf('RAMPMETER_TRUST_PROXY_UNSET')
      const server = await served(undefined)
      await server.ask('/')
      expect(await warnings()).toHaveLength(0)
      const replies = await askTimes(server, 3, '/', forwarded)
      expect(replies.map(({ status }) => status)).toEqual([200, 200, 200])
      expect(await warnings()).toMatchObject([
        { name: 'RampmeterWarning', detail: 'See rampmeter/docs/errors.md#rampmeter_trust_proxy_unset' },
      ])
      expect((await warnings())[0]!.message).toContain("app.set('trust proxy', 1)")
      expect((await warnings())[0]!.message).not.toContain('203.0.113.7')
    })

    it('that trusts everybody is reported once, with the mend', async () => {
      const warnings = warningsOf('RAMPMETER_TRUST_PROXY_PERMISSIVE')
      const server = await served(true)
      await askTimes(server, 3, '/', forwarded)
      expect(await warnings()).toHaveLength(1)
      expect((await warnings())[0]!.message).toContain("app.set('trust proxy', 1)")
    })

    it.each([[1], ['loopback'], [['10.0.0.0/8']], [() => true]])('that is right is no news: %s', async (trust) => {
      const unset = warningsOf('RAMPMETER_TRUST_PROXY_UNSET')
      const permissive = warningsOf('RAMPMETER_TRUST_PROXY_PERMISSIVE')
      await askTimes(await served(trust), 2, '/', forwarded)
      expect([await unset(), await permissive()]).toEqual([[], []])
    })
  })
}
