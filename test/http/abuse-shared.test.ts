// Many who share one thing: hosts that share a key, and strangers that share an address.

import { describe, expect, it } from 'vitest'
import { slidingWindow } from '../../src/index.ts'
import { cloudflare } from '../../src/abuse/environment.ts'
import { abuseScene, enumerate, type AbuseScene } from './abuse-scene.ts'

interface Host {
  readonly address: string
  readonly software: string
}

function fleet(hosts: number, software: readonly string[]): Host[] {
  return Array.from({ length: hosts }, (_, nth) => ({
    address: `198.51.100.${nth + 1}`,
    software: software[nth % software.length]!,
  }))
}

const cast = (nth: number): string => String.fromCodePoint(97 + nth).repeat(4)
const phones = Array.from({ length: 9 }, (_, nth) => `Dalvik (Linux; Android; ${cast(nth)})`)

/** A request every two seconds by one host after the other, and what was answered. */
async function run(all: AbuseScene, hosts: readonly Host[], requests: number): Promise<number[]> {
  const statuses: number[] = []
  for (let nth = 0; nth < requests; nth += 1) {
    const { address, software } = hosts[(nth * 7) % hosts.length]!
    const reply = await all.ask('/', 'fleet', { 'user-agent': software, 'x-forwarded-for': address })
    statuses.push(reply.status)
    all.clock.advance('2s')
  }
  return statuses
}

async function behindProxy(environment?: ReturnType<typeof cloudflare>, options = {}): Promise<AbuseScene> {
  return await abuseScene(environment === undefined ? {} : { environment }, options, (app) => app.set('trust proxy', 1))
}

describe('one key on many hosts', () => {
  it.each([5, 7, 8, 10, 20])('of %i, half of which run another program, is no leaked key', async (count) => {
    const all = await behindProxy()
    const statuses = await run(all, fleet(count, ['node', 'python-requests/2.31']), 300)
    expect(statuses.every((status) => status === 200)).toBe(true)
    expect(all.incidents).toEqual([])
    expect((await all.limiter.review.get('key:fleet')).score).toBe(0)
  })

  it('in an app on an iPhone and on Android is none', async () => {
    const all = await behindProxy()
    const statuses = await run(all, fleet(60, ['Shop/7 (iPhone; iOS 17.2)', 'okhttp/4.12.0']), 300)
    expect(statuses.every((status) => status === 200)).toBe(true)
    expect(all.incidents).toEqual([])
  })

  it('by many programs is told as leaked, and throttled at most: its own waits are no misconduct', async () => {
    const all = await behindProxy(undefined, {
      policies: [slidingWindow({ name: 'hourly', quota: 300, window: '1h' })],
    })
    const hosts = fleet(108, phones)
    const waits = new Map<Host, number>()
    const statuses = new Set<number>()
    for (let nth = 0; nth < 1800; nth += 1) {
      const host = hosts[(nth * 7) % hosts.length]!
      all.clock.advance('2s')
      if ((waits.get(host) ?? 0) > all.clock()) continue
      const headers = { 'user-agent': host.software, 'x-forwarded-for': host.address }
      const { status, problem } = await all.ask('/', 'fleet', headers)
      statuses.add(status)
      if (status === 429) waits.set(host, all.clock() + problem.error.retry_after_ms!)
    }
    expect(all.incidents.map(({ label, step }) => [label, step])).toEqual([['credential-leakage', 'throttle']])
    expect(statuses).toEqual(new Set([200, 429]))
  })

  it('in several countries by several programs comes to a challenge, and no further while it behaves', async () => {
    const all = await abuseScene({ environment: cloudflare() })
    for (let nth = 0; nth < 400; nth += 1) {
      const place = nth % 3
      const { status } = await all.ask('/', 'fleet', {
        'user-agent': `tool-${cast(place)}`,
        'cf-ipcountry': ['NL', 'BR', 'SG'][place]!,
      })
      expect(status).toBe(200)
      all.clock.advance('2s')
    }
    expect(all.incidents.map(({ label }) => label)).toEqual(['credential-leakage'])
    expect((await all.limiter.review.get('key:fleet')).step).toBe('challenge')
  })
})

describe('an address of which one guessed', () => {
  const visitor = { 'user-agent': 'Visitor/1' }

  it('is let in again in time, though another visits it every ten seconds', async () => {
    const all = await abuseScene()
    await enumerate(all, 70)
    expect((await all.ask('/')).status).toBe(401)
    const statuses: number[] = []
    for (let nth = 0; nth < 360; nth += 1) {
      statuses.push((await all.ask('/', undefined, visitor)).status)
      all.clock.advance('10s')
    }
    expect(statuses[0]).toBe(401)
    expect(statuses.lastIndexOf(401)).toBeLessThan(180) // half an hour: three half-lives
    expect((await all.ask('/')).json.abuse.signals).not.toContain('ignored-challenges')
  })

  it('is let in again in time, though another asks every three seconds', async () => {
    const all = await abuseScene()
    await enumerate(all, 70)
    let challenges = 0
    while (challenges < 600 && (await all.ask('/', undefined, visitor)).status === 401) {
      challenges += 1
      all.clock.advance('3s')
    }
    expect(challenges).toBeGreaterThan(0)
    expect(challenges).toBeLessThan(600) // half an hour
  })

  it('is held longer by the one who guessed, if that one goes on against the challenges', async () => {
    const all = await abuseScene()
    await enumerate(all, 70)
    for (let nth = 0; nth < 1800; nth += 1) {
      await all.ask('/items/5005')
      all.clock.advance('1s')
    }
    expect((await all.ask('/')).status).toBe(401)
  })
})
