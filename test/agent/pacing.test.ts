import { describe, expect, it } from 'vitest'
import { createWorld, ok, refusal, watch, type Handler, type WorldOptions } from './world.ts'

const api = 'https://api.example.com'

/** A token bucket that tells what it does, as the middleware does, and nothing of a schedule: each is told the next place. */
function bucket(
  { quota, windowMs, burst = quota }: { quota: number; windowMs: number; burst?: number },
  tell: (left: number, waitMs: number) => Record<string, string>,
): { handler: Handler; refused: () => number } {
  let level = burst
  let last = 0
  let refused = 0
  return {
    refused: () => refused,
    handler({ at }) {
      level = Math.min(burst, level + ((at - last) * quota) / windowMs)
      last = at
      const waitMs = (fits: number): number => Math.max(1, Math.ceil(((1 - fits) * windowMs) / quota - 1e-6))
      if (level + 1e-9 < 1) {
        refused += 1
        return refusal({ ...tell(0, waitMs(level)), 'retry-after-ms': String(waitMs(level)) })
      }
      level -= 1
      return ok(tell(Math.floor(level + 1e-9), level < 1 ? waitMs(level) : 0))
    },
  }
}

const draft11 =
  ({ quota, windowMs }: { quota: number; windowMs: number }) =>
  (left: number, waitMs: number): Record<string, string> => ({
    'RateLimit-Policy': `"b";q=${quota};w=${windowMs / 1000}`,
    RateLimit: `"b";r=${left};t=${Math.max(1, Math.ceil((left === 0 ? waitMs : (left * windowMs) / quota) / 1000))}`,
  })

async function herd(handler: Handler, size: number, options: WorldOptions = {}) {
  const world = createWorld(handler, { latency: 10, ...options })
  const calls = Array.from({ length: size }, (_, n) => watch(world.fetch(`${api}/items/${n}`)))
  let tookMs = 0
  while (calls.some(({ done }) => !done) && tookMs < 600_000) {
    await world.advance(100)
    tookMs += 100
  }
  return { world, tookMs, statuses: calls.map(({ value }) => value?.status) }
}

describe('before it is refused', () => {
  it('does not slow a client that has plenty', async () => {
    const { world, statuses, tookMs } = await herd(
      bucket({ quota: 1000, windowMs: 60_000 }, draft11({ quota: 1000, windowMs: 60_000 })).handler,
      300,
    )
    expect(statuses.every((status) => status === 200)).toBe(true)
    expect(tookMs).toBeLessThanOrEqual(100)
    expect(world.asked).toHaveLength(300)
    expect(world.waits.every(({ reason }) => reason === 'first-answer')).toBe(true)
  })

  it('takes r=0;t=3 for a wait of 3 s', async () => {
    const world = createWorld(() => ok({ RateLimit: '"b";r=0;t=3' }))
    await world.fetch(`${api}/a`)
    const second = watch(world.fetch(`${api}/a`))
    await world.advance(2999)
    expect(second.done).toBe(false)
    await world.advance(1)
    expect(second.value?.status).toBe(200)
    expect(world.waits).toEqual([{ url: `${api}/a`, method: 'GET', ms: 3000, reason: 'quota' }])
    expect(world.timers()).toBe(0)
  })

  it('takes the milliseconds of a refusal for the end of what is used up, which `t` rounds to seconds', async () => {
    const world = createWorld((_, nth) =>
      nth === 1 ? refusal({ 'retry-after-ms': '120', RateLimit: '"b";r=0;t=1' }) : ok(),
    )
    expect((await world.fetch(`${api}/a`, { method: 'POST' })).status).toBe(429)
    watch(world.fetch(`${api}/a`, { method: 'POST' }))
    expect(world.waits).toMatchObject([{ ms: 120, reason: 'quota' }])
    await world.advance(120)
    expect(world.asked).toHaveLength(2)
  })

  it('spreads what is left only near the end, and never slower than the policy itself', async () => {
    let left = 100
    const starts: number[] = []
    const world = createWorld(({ at }) => {
      starts.push(at)
      left -= 1
      return ok({ 'RateLimit-Policy': '"b";q=100;w=60', RateLimit: `"b";r=${left};t=30` })
    })
    for (let n = 0; n < 95; n += 1) {
      const call = watch(world.fetch(`${api}/a`))
      await world.advance(0)
      while (!call.done) await world.advance(10)
    }
    expect(starts.slice(0, 90).every((at) => at === 0)).toBe(true)
    const gaps = starts.slice(91).map((at, index) => at - starts[90 + index]!)
    for (const gap of gaps) expect(gap).toBeGreaterThan(500)
    for (const gap of gaps) expect(gap).toBeLessThanOrEqual(610)
  })

  it('stops spreading where requests take nothing: a limit of failures, of what was seen before', async () => {
    const world = createWorld((_, nth) =>
      ok({ 'RateLimit-Policy': '"failed";q=30;w=900', RateLimit: `"failed";r=${nth === 1 ? 30 : 2};t=900` }),
    )
    for (let n = 0; n < 12; n += 1) {
      const call = watch(world.fetch(`${api}/a`))
      while (!call.done) await world.advance(100)
    }
    expect(world.waits.length).toBeGreaterThan(0)
    const before = world.waits.length
    await world.fetch(`${api}/a`)
    expect(world.waits).toHaveLength(before)
  })

  it('takes a limit for restored when the time that was told is over', async () => {
    const world = createWorld((_, nth) => ok({ RateLimit: `"b";r=${nth === 1 ? 30 : 3};t=2` }), { latency: 10 })
    for (let n = 0; n < 2; n += 1) {
      watch(world.fetch(`${api}/a`))
      await world.advance(2100)
    }
    const before = world.waits.length
    for (let n = 0; n < 20; n += 1) watch(world.fetch(`${api}/a`))
    expect(world.waits).toHaveLength(before)
    await world.advance(60_000)
  })

  it('does not wait for other units, nor for limits without a time, unless they are used up', async () => {
    const fields = (left: number): Record<string, string> => ({
      'RateLimit-Policy': '"tokens";q=9000;qu="tokens";w=60, "slots";q=3;qu="concurrent-requests"',
      RateLimit: `"tokens";r=${left};t=4, "slots";r=0`,
    })
    const told = [30, 3, 2, 2, 0]
    const world = createWorld((_, nth) => ok(fields(told[nth - 1] ?? 30)))
    for (let n = 0; n < 5; n += 1) await world.fetch(`${api}/a`)
    expect(world.waits).toEqual([])
    const last = watch(world.fetch(`${api}/a`))
    expect(world.waits).toMatchObject([{ ms: 4000, reason: 'quota' }])
    await world.advance(4000)
    expect(last.done).toBe(true)
  })

  it("lets the first minutes' extra stand in for what is used up", async () => {
    let extra = 3
    const world = createWorld(() => {
      extra -= 1
      return ok({ RateLimit: `"per-minute";r=0;t=5${extra > 0 ? `, "first-minutes";r=${extra};t=200` : ''}` })
    })
    for (let n = 0; n < 3; n += 1) await world.fetch(`${api}/a`)
    expect(world.waits).toEqual([])
    watch(world.fetch(`${api}/a`))
    expect(world.waits).toMatchObject([{ ms: 5000, reason: 'quota' }])
    await world.advance(5000)
  })

  it('sends more than fit only as answers come back', async () => {
    const world = createWorld(
      ({ url }, nth) => ok({ RateLimit: `"b";r=${url.endsWith('first') ? 3 : Math.max(0, 4 - nth)};t=20` }),
      { latency: 50 },
    )
    const first = world.fetch(`${api}/first`)
    await world.advance(50)
    await first
    for (let n = 0; n < 10; n += 1) watch(world.fetch(`${api}/first`))
    await world.advance(0)
    expect(world.asked.length).toBeLessThanOrEqual(1 + 3)
    await world.advance(300_000)
  })

  it('holds a crowd until the first answer of an unknown server, and not for long', async () => {
    const world = createWorld(() => ok(), { latency: 5000 })
    const calls = Array.from({ length: 50 }, () => watch(world.fetch(`${api}/a`)))
    await world.advance(0)
    expect(world.asked).toHaveLength(10)
    await world.advance(250)
    expect(world.asked).toHaveLength(50)
    await world.advance(5000)
    expect(calls.every(({ done }) => done)).toBe(true)
  })

  it('sends at once what it would have to hold for longer than it may', async () => {
    const world = createWorld((_, nth) =>
      nth === 1 ? ok({ RateLimit: '"b";r=0;t=3600' }) : refusal({ 'Retry-After': '3600' }),
    )
    await world.fetch(`${api}/a`)
    const response = await world.fetch(`${api}/a`)
    expect(response.status).toBe(429)
    expect(world.waits).toEqual([])
  })

  it('believes no fields of a response that came from a cache', async () => {
    const world = createWorld(() => ok({ RateLimit: '"b";r=0;t=30', Age: '0' }))
    await world.fetch(`${api}/a`)
    await world.fetch(`${api}/a`)
    expect(world.waits).toEqual([])
    expect(world.asked).toHaveLength(2)
  })
})

describe('slots', () => {
  const policy = '"slots";q=2;qu="concurrent-requests", "per-minute";q=600;w=60'

  it('are held by those under way: once one was missing, no more are sent than there are', async () => {
    // Two requests at once, of 50 ms each; who finds no slot is told about as much.
    const running: { until: number; end: () => void }[] = []
    const world = createWorld(({ at }) => {
      const isFull = running.length === 2
      const fields = (left: number): Record<string, string> => ({
        'RateLimit-Policy': policy,
        RateLimit: `"slots";r=${left}, "per-minute";r=500;t=${isFull ? 1 : 10}`,
      })
      if (isFull) return refusal({ ...fields(0), 'retry-after-ms': '60' })
      return new Promise((resolve) => {
        const left = 1 - running.length
        running.push({ until: at + 50, end: () => resolve(ok(fields(left))) })
      })
    })
    const calls = Array.from({ length: 40 }, (_, n) => watch(world.fetch(`${api}/items/${n}`)))
    while (calls.some(({ done }) => !done) && world.now() < 60_000) {
      await world.advance(10)
      while (running.length > 0 && running[0]!.until <= world.now()) running.shift()!.end()
    }
    expect(calls.filter(({ value }) => value?.status === 200)).toHaveLength(40)
    // Ten find out about the server, and two of them are served. Those two were not known to hold a slot.
    expect(world.asked.length).toBeLessThanOrEqual(40 + 8 + 4)
    expect(world.now()).toBeLessThanOrEqual(50 * 20 + 300)
  })

  it('of sessions hold nobody back that was not refused', async () => {
    const world = createWorld(
      () => ok({ 'RateLimit-Policy': policy, RateLimit: '"slots";r=0, "per-minute";r=500;t=9' }),
      {
        latency: 50,
      },
    )
    const first = world.fetch(`${api}/a`)
    await world.advance(50)
    await first
    for (let n = 0; n < 30; n += 1) watch(world.fetch(`${api}/a`))
    await world.advance(0)
    expect(world.asked).toHaveLength(1 + 30)
  })

  it('that are used up are not why a limit refuses that has a time of its own', async () => {
    const world = createWorld(
      (_, nth) => {
        const fields = {
          'RateLimit-Policy': policy,
          RateLimit: `"slots";r=0, "per-minute";r=${nth === 1 ? 0 : 500};t=1`,
        }
        return nth === 1 ? refusal({ ...fields, 'retry-after-ms': '700' }) : ok(fields)
      },
      { latency: 50 },
    )
    const first = watch(world.fetch(`${api}/a`))
    await world.advance(900)
    expect(first.value?.status).toBe(200)
    for (let n = 0; n < 30; n += 1) watch(world.fetch(`${api}/a`))
    await world.advance(0)
    expect(world.asked).toHaveLength(2 + 30)
  })

  it('that nobody gives back keep nobody for longer than maxWait', async () => {
    let asked = 0
    const world = createWorld(
      () => {
        asked += 1
        const fields = { 'RateLimit-Policy': policy, RateLimit: '"slots";r=0' }
        return asked === 3 ? refusal({ ...fields, 'retry-after-ms': '10' }) : new Promise<Response>(() => {})
      },
      { maxWait: '5s' },
    )
    for (let n = 0; n < 3; n += 1) watch(world.fetch(`${api}/a`))
    await world.advance(100)
    watch(world.fetch(`${api}/a`))
    await world.advance(0)
    // The first two were not known to hold a slot.
    expect(world.asked).toHaveLength(5)
    watch(world.fetch(`${api}/a`))
    await world.advance(4000)
    expect(world.asked).toHaveLength(5)
    await world.advance(1500)
    expect(world.asked).toHaveLength(6)
  })
})

describe('one schedule', () => {
  it('is kept for each route: a limit that only one route has holds back no other', async () => {
    const world = createWorld(({ url }) =>
      ok({ RateLimit: url.endsWith('/wire') ? '"all";r=50;t=60, "wire";r=0;t=30' : '"all";r=50;t=60' }),
    )
    await world.fetch(`${api}/search`)
    await world.fetch(`${api}/wire`, { method: 'POST' })
    // Never asked before, it has what all routes have in common; and what is known of another stays.
    await world.fetch(`${api}/accounts`)
    await world.fetch(`${api}/search`)
    expect(world.waits).toEqual([])
    watch(world.fetch(`${api}/wire`, { method: 'POST' }))
    expect(world.waits).toMatchObject([{ reason: 'quota', ms: 30_000 }])
    await world.advance(30_000)
  })

  it('takes ids for ids: one item is like the next', async () => {
    const world = createWorld(({ url }) =>
      ok({ RateLimit: url.includes('item') ? '"items";r=0;t=30' : '"all";r=9;t=9' }),
    )
    await world.fetch(`${api}/other`)
    await world.fetch(`${api}/items/1`)
    for (const id of ['2', '9b2f0a3c-1d7e-4c11-8a54-3f1e2d4c5b6a', 'AbCdEfGh12'])
      watch(world.fetch(`${api}/items/${id}`))
    expect(world.waits).toHaveLength(3)
    await world.advance(60_000)
  })

  it('is kept for each credential, and for each origin', async () => {
    const headers = { authorization: 'Bearer one' }
    const world = createWorld(({ url, headers: sent }) => {
      const isOurs = url.startsWith(api) && sent.get('authorization') === headers.authorization
      return ok({ RateLimit: `"b";r=${isOurs ? 0 : 9};t=30` })
    })
    await world.fetch(`${api}/a`, { headers })
    for (const others of [{ authorization: 'Bearer two' }, { 'x-api-key': 'one' }, {}]) {
      await world.fetch(`${api}/a`, { headers: others })
      await world.fetch(`${api}/a`, { headers: others })
    }
    await world.fetch('https://other.example.com/a', { headers })
    await world.fetch('https://other.example.com/a', { headers })
    expect(world.waits).toEqual([])
    watch(world.fetch(`${api}/a`, { headers }))
    expect(world.waits).toHaveLength(1)
    await world.advance(30_000)
  })

  it('is shared by credentials of one partition', async () => {
    let nth = 0
    const world = createWorld(() => ok({ RateLimit: `"b";r=${++nth < 2 ? 5 : 0};t=30;pk=:YWNtZQ==:` }))
    await world.fetch(`${api}/a`, { headers: { 'x-api-key': 'old' } })
    await world.fetch(`${api}/a`, { headers: { 'x-api-key': 'new' } })
    watch(world.fetch(`${api}/a`, { headers: { 'x-api-key': 'old' } }))
    expect(world.waits).toMatchObject([{ reason: 'quota' }])
    await world.advance(30_000)
  })

  it('takes the least of answers that come out of order', async () => {
    const later = '"b";r=0;t=20'
    const world = createWorld((_, nth) => ok({ RateLimit: nth === 2 ? later : '"b";r=1;t=20' }), {
      latency: 10,
    })
    for (let n = 0; n < 3; n += 1) watch(world.fetch(`${api}/a`))
    await world.advance(10)
    watch(world.fetch(`${api}/a`))
    expect(world.waits).toMatchObject([{ reason: 'quota', ms: 20_000 }])
    await world.advance(20_000)
  })

  it('serves routes in turn', async () => {
    const order: string[] = []
    const world = createWorld(({ url }) => {
      order.push(new URL(url).pathname)
      return ok({ 'RateLimit-Policy': '"b";q=1;w=1', RateLimit: '"b";r=0;t=1' })
    })
    for (const path of ['/a', '/b']) watch(world.fetch(api + path))
    await world.advance(2000)
    order.length = 0
    for (let n = 0; n < 4; n += 1) watch(world.fetch(`${api}/a`))
    for (let n = 0; n < 2; n += 1) watch(world.fetch(`${api}/b`))
    await world.advance(10_000)
    expect(order).toHaveLength(6)
    expect(order.slice(1, 5).toSorted()).toEqual(['/a', '/a', '/b', '/b'])
  })
})

describe('a herd', () => {
  const limit = { quota: 20, windowMs: 1000 }
  const idealMs = (size: number): number => ((size - limit.quota) / limit.quota) * 1000

  it.each([20, 100, 1000])('of %i is served as fast as a bucket refills, and is hardly refused', async (size) => {
    const server = bucket(limit, draft11(limit))
    const { statuses, tookMs, world } = await herd(server.handler, size, { maxWait: '2m' })
    expect(statuses.every((status) => status === 200)).toBe(true)
    expect(tookMs).toBeLessThanOrEqual(idealMs(size) * 1.05 + 1000)
    expect(server.refused()).toBeLessThanOrEqual(10 + size / 20)
    expect(world.timers()).toBe(0)
  })

  it('that was let go unknowing is told one time, and comes back one after the other', async () => {
    const one = { quota: 60, windowMs: 120_000, burst: 1 }
    const server = bucket(one, draft11(one))
    const world = createWorld(server.handler, { latency: 20 })
    const calls = Array.from({ length: 10 }, () => watch(world.fetch(`${api}/a`)))
    await world.advance(20_000)
    expect(calls.every(({ value }) => value?.status === 200)).toBe(true)
    expect(server.refused()).toBe(9)
  })

  it.each([
    ['a bucket', 250],
    ['a slow bucket', 4000],
  ])('is served, and not refused for ever, by a server that tells nothing but the wait: %s', async (_, windowMs) => {
    const server = bucket({ quota: 5, windowMs }, () => ({}))
    const { statuses } = await herd(server.handler, 40, { maxWait: '2m' })
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(38)
    expect(server.refused()).toBeLessThan(40 + 30)
  })

  it('finds out that a window of such a server comes back whole', async () => {
    let used = 0
    let window = 0
    const { tookMs, statuses } = await herd(({ at }) => {
      if (Math.floor(at / 2000) !== window) [window, used] = [Math.floor(at / 2000), 0]
      used += 1
      return used <= 20 ? ok() : refusal({ 'retry-after-ms': String(2000 - (at % 2000)) })
    }, 60)
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(58)
    expect(tookMs).toBeLessThan(8000)
  })

  it.each([true, false])('that is told different times comes at those times (with fields: %s)', async (withFields) => {
    // A server that spreads: places 120 ms apart, the first of them in 120 ms.
    let told = 0
    const fields: Record<string, string> = withFields
      ? { 'RateLimit-Policy': '"b";q=500;w=60', RateLimit: '"b";r=0;t=1' }
      : {}
    const world = createWorld(
      (_, nth) => (nth <= 10 ? refusal({ ...fields, 'retry-after-ms': String(120 * ++told) }) : ok(fields)),
      { latency: 20 },
    )
    const calls = Array.from({ length: 10 }, () => watch(world.fetch(`${api}/a`)))
    await world.advance(20 + 1200 + 20)
    expect(calls.every(({ value }) => value?.status === 200)).toBe(true)
    expect(world.asked.slice(10).map(({ at }) => at - 20)).toEqual(Array.from({ length: 10 }, (_, n) => 120 * (n + 1)))
  })

  it('that is told two windows without fields does not wait for the second', async () => {
    const world = createWorld(
      (_, nth) => (nth <= 8 ? refusal({ 'retry-after-ms': nth <= 4 ? '2000' : '4000' }) : ok()),
      { latency: 20 },
    )
    for (let n = 0; n < 8; n += 1) watch(world.fetch(`${api}/a`))
    await world.advance(10_000)
    const starts = world.asked.slice(8).map(({ at }) => at - 20)
    expect(starts.slice(0, 4).every((at) => at >= 2000 && at < 3000)).toBe(true)
    expect(starts.slice(4).every((at) => at >= 4000 && at < 5000)).toBe(true)
  })

  it('that was told times of its own keeps them when one of them comes in vain', async () => {
    let told = 0
    const world = createWorld(
      (_, nth) =>
        nth <= 10
          ? refusal({ 'retry-after-ms': String(120 * ++told) })
          : nth === 12
            ? refusal({ 'retry-after-ms': '1500' })
            : ok(),
      { latency: 20 },
    )
    const calls = Array.from({ length: 10 }, () => watch(world.fetch(`${api}/a`)))
    await world.advance(5000)
    expect(calls.every(({ value }) => value?.status === 200)).toBe(true)
    const own = Array.from({ length: 10 }, (_, n) => 20 + 120 * (n + 1))
    expect(world.asked.slice(10).map(({ at }) => at)).toEqual([...own, 20 + 240 + 20 + 1500])
  })

  it('that was refused comes before those who ask later', async () => {
    const world = createWorld(
      ({ url }, nth) =>
        nth <= 3
          ? refusal({ 'retry-after-ms': String(nth * 1000), RateLimit: '"b";r=0;t=1' })
          : ok({ RateLimit: url.endsWith('new') ? '"b";r=5;t=1' : '"b";r=0;t=1' }),
      {},
    )
    for (let n = 0; n < 3; n += 1) watch(world.fetch(`${api}/old`))
    await world.advance(0)
    watch(world.fetch(`${api}/new`))
    await world.advance(10_000)
    expect(world.asked.slice(3).map(({ url }) => new URL(url).pathname)).toEqual(['/old', '/old', '/old', '/new'])
  })

  it('that is refused for ever keeps nobody waiting for longer than maxWait', async () => {
    const world = createWorld(
      ({ url }) => (url.endsWith('new') ? ok() : refusal({ 'retry-after-ms': '8000', RateLimit: '"b";r=0;t=8' })),
      { maxWait: '10s' },
    )
    watch(world.fetch(`${api}/old`))
    await world.advance(1000)
    const late = watch(world.fetch(`${api}/new`))
    await world.advance(9999)
    expect(late.done).toBe(false)
    await world.advance(1)
    expect(late.value?.status).toBe(200)
    await world.advance(200_000)
    expect(world.timers()).toBe(0)
  })

  it('that was told seconds is not overtaken in the second that it adds', async () => {
    const world = createWorld(
      (_, nth) =>
        nth === 1 ? refusal({ 'Retry-After': '4', RateLimit: '"b";r=0;t=4' }) : ok({ RateLimit: '"b";r=0;t=4' }),
      { random: () => 0.9 },
    )
    watch(world.fetch(`${api}/old`))
    await world.advance(0)
    watch(world.fetch(`${api}/new`))
    await world.advance(20_000)
    expect(world.asked.map(({ url }) => new URL(url).pathname)).toEqual(['/old', '/old', '/new'])
  })

  it('is spread over a second where all the world was told the same one', async () => {
    const starts = new Set<number>()
    for (const random of [0, 0.25, 0.5, 0.99]) {
      const world = createWorld(
        ({ at }, nth) => {
          if (nth === 1) return refusal({ 'Retry-After': '4' })
          starts.add(at)
          return ok()
        },
        { random: () => random },
      )
      const call = watch(world.fetch(`${api}/a`))
      await world.advance(5000)
      expect(call.value?.status).toBe(200)
    }
    expect(starts.size).toBe(4)
    for (const at of starts) expect(at >= 4000 && at < 5000).toBe(true)
  })
})

it.each([
  ['one server', 1],
  ['many servers', 8000],
])('remembers a bounded number of anything that %s and its callers can make up', async (_, servers) => {
  let nth = 0
  const world = createWorld(() => {
    nth += 1
    const name = `${nth}${'x'.repeat(250)}`
    return ok({ RateLimit: `"${name}";r=5;t=5`, 'DPoP-Nonce': name, 'RateLimit-Ticket': name })
  })
  async function ask(times: number): Promise<void> {
    for (let n = 0; n < times; n += 1) {
      const url = `https://h${nth % servers}.example.com/${nth}-${'x'.repeat(15)}/${'-'.repeat(200)}`
      await world.fetch(url, { headers: { 'x-api-key': `k${nth}` } })
      world.asked.length = 0
    }
  }
  await ask(1000)
  const before = await heapUsed()
  await ask(7000)
  expect((await heapUsed()) - before).toBeLessThan(3_000_000)
  expect(world.timers()).toBe(0)
})

async function heapUsed(): Promise<number> {
  const { setFlagsFromString } = await import('node:v8')
  const { runInNewContext } = await import('node:vm')
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
  await new Promise((resolve) => setImmediate(resolve))
  collect()
  return process.memoryUsage().heapUsed
}
