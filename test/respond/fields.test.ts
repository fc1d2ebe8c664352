import { createHmac } from 'node:crypto'
import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import fc from 'fast-check'
import { parseDictionary, parseList } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import type { Policy } from '../../src/policy.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { firstMinutes } from '../../src/policies/first-minutes.ts'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import type { Answer, AppliedPolicy } from '../../src/respond/answer.ts'
import { clashOf, createFieldWriter, type FieldWriterOptions, type HeaderFamily } from '../../src/respond/fields.ts'
import { answer, applied, noon } from './answers.ts'

const perMinute = tokenBucket({ name: 'per-minute', quota: 500, window: '1m', burst: 200 })
const perHour = slidingWindow({ name: 'per-hour', quota: 20_000, window: '1h' })

function response(): ServerResponse {
  return new ServerResponse(new IncomingMessage(new Socket()))
}

function written(families: HeaderFamily[], told: Answer, more: Partial<FieldWriterOptions> = {}) {
  const res = response()
  createFieldWriter({ families, exposeHeaders: false, ...more }).write(res, told)
  return res.getHeaders() as Record<string, string>
}

/** The members of a List, each as its String and its parameters. */
function members(field: string | undefined) {
  return parseList(field ?? '').map(([value, parameters]) => ({ value, ...Object.fromEntries(parameters) }))
}

describe('draft-11', () => {
  it('tells every policy by name', () => {
    const told = answer([
      applied(perMinute, { remaining: 153, resetMs: 5640 }),
      applied(perHour, { remaining: 19_953, resetMs: 3_600_000 }),
    ])
    expect(written(['draft-11'], told)).toEqual({
      'ratelimit-policy': '"per-minute";q=500;w=60, "per-hour";q=20000;w=3600',
      ratelimit: '"per-minute";r=153;t=19, "per-hour";r=19953;t=3600',
      'x-ratelimit-tier': 'agent',
    })
  })

  it('names a unit other than requests', () => {
    const tokens = fixedWindow({ name: 'tokens', quota: 1e6, window: '1d', unit: 'tokens' })
    expect(members(written(['draft-11'], answer([applied(tokens)]))['ratelimit-policy'])).toEqual([
      { value: 'tokens', q: 1e6, qu: 'tokens', w: 86_400 },
    ])
  })

  it('tells a quota that depends on the client as it is for this client', () => {
    const own = tokenBucket({ name: 'own', quota: (client) => client.claims.quota, window: '1m' })
    const writer = createFieldWriter({ families: ['draft-11'], exposeHeaders: false })
    const told = [10, 20, 10].map((quota) => {
      const res = response()
      writer.write(res, answer([applied(own, { quota, capacity: quota, remaining: 4 })]))
      return res.getHeader('RateLimit-Policy')
    })
    expect(told).toEqual(['"own";q=10;w=60', '"own";q=20;w=60', '"own";q=10;w=60'])
  })

  it('leaves out a window that is no whole number of seconds', () => {
    const fast = tokenBucket({ name: 'fast', quota: 10, window: '1500ms' })
    expect(written(['draft-11'], answer([applied(fast, { remaining: 3 })]))).toMatchObject({
      'ratelimit-policy': '"fast";q=10',
      ratelimit: '"fast";r=3',
    })
  })

  it('keeps names with quotes and backslashes in one piece', () => {
    const name = String.raw`a"b\c";q=1, "d\\`
    const nasty = tokenBucket({ name, quota: 5, window: '1m', unit: String.raw`x"\y` })
    const fields = written(['draft-11'], answer([applied(nasty, { remaining: 2 }), applied(perHour)]))
    expect(members(fields['ratelimit-policy'])).toEqual([
      { value: name, q: 5, qu: String.raw`x"\y`, w: 60 },
      { value: 'per-hour', q: 20_000, w: 3600 },
    ])
    expect(members(fields.ratelimit).map((member) => member.value)).toEqual([name, 'per-hour'])
  })

  it('sends the keyed hash of each partition, and never the partition', () => {
    const pk = (partition: string): Uint8Array =>
      createHmac('sha256', 'secret').update(partition).digest().subarray(0, 12)
    const told = answer([applied(perMinute), applied(perHour, {}, { partition: 'tenant:7' })])
    const fields = written(['draft-11'], told, { pk })
    for (const field of [fields['ratelimit-policy'], fields.ratelimit]) {
      const keys = members(field).map((member) => Buffer.from((member as unknown as { pk: ArrayBuffer }).pk))
      expect(keys).toEqual([Buffer.from(pk('key:acme')), Buffer.from(pk('tenant:7'))])
      expect(field).not.toMatch(/acme|tenant/)
    }
  })

  it('hashes a partition once', () => {
    let hashed = 0
    const pk = (): Uint8Array => Uint8Array.of((hashed += 1))
    const writer = createFieldWriter({ families: ['draft-11'], exposeHeaders: false, pk })
    writer.write(response(), answer([applied(perMinute), applied(perHour)]))
    writer.write(response(), answer([applied(perMinute)]))
    expect(hashed).toBe(1)
  })
})

describe('the effective window', () => {
  const rt = (told: AppliedPolicy, retryAfterMs?: number) =>
    written(
      ['draft-11'],
      retryAfterMs === undefined ? answer([told]) : answer([told], { reason: 'quota', retryAfterMs, violated: ['x'] }),
    ).ratelimit?.replace(/^"[^"]*";/, '')

  it('of a bucket is the time in which what is left refills', () => {
    expect(rt(applied(perMinute, { remaining: 200 }))).toBe('r=200;t=24')
    expect(rt(applied(perMinute, { remaining: 1 }))).toBe('r=1;t=1')
  })

  it('of a window is the time until all of it is free again, or the window while nothing is used', () => {
    expect(rt(applied(perHour, { remaining: 1, resetMs: 1_234_001 }))).toBe('r=1;t=1235')
    expect(rt(applied(perHour))).toBe('r=20000;t=3600')
  })

  it('is the wait when nothing is left', () => {
    expect(rt(applied(perMinute, { remaining: 0, waitMs: 2120, resetMs: 24_000 }))).toBe('r=0;t=3')
    expect(rt(applied(perHour, { remaining: 0, waitMs: 17, resetMs: 3_000_000 }))).toBe('r=0;t=1')
  })

  it('does not promise a second where waiting never helps', () => {
    expect(rt(applied(perMinute, { remaining: 0, waitMs: null, resetMs: 24_000 }))).toBe('r=0;t=24')
  })

  it('never outlasts the Retry-After beside it', () => {
    expect(rt(applied(perHour, { remaining: 12, resetMs: 3_000_000 }), 1180)).toBe('r=12;t=2')
  })

  it('of the first minutes is what is left of them, although they come again only a day later', () => {
    const extra = firstMinutes({ quota: 500, window: '5m' })
    expect(rt(applied(extra, { remaining: 312, resetMs: 86_400_000 - 100_000 }))).toBe('r=312;t=200')
  })

  it('lowers what is told, or takes longer for one unit, where maxRate caps it', () => {
    const daily = fixedWindow({ name: 'daily', quota: 10_000, window: '1d', maxRate: 2 })
    expect(rt(applied(daily, { remaining: 9000, resetMs: 60_000 }))).toBe('r=120;t=60')
    const slow = fixedWindow({ name: 'daily', quota: 10_000, window: '1d', maxRate: 0.3 })
    expect(rt(applied(slow, { remaining: 9000, resetMs: 1000 }))).toBe('r=1;t=4')
  })
})

describe('the families that tell of one policy', () => {
  const minute = fixedWindow({ name: 'per-minute', quota: 500, window: '1m' })

  it('draft-7 combines them in one Dictionary', () => {
    const fields = written(
      ['draft-7'],
      answer([applied(minute, { remaining: 423, resetMs: 12_000 }), applied(perHour)]),
    )
    expect(fields).toMatchObject({
      ratelimit: 'limit=500, remaining=423, reset=12',
      'ratelimit-policy': '500;w=60, 20000;w=3600',
    })
    expect([...parseDictionary(fields.ratelimit ?? '').keys()]).toEqual(['limit', 'remaining', 'reset'])
    expect(members(fields['ratelimit-policy'])).toEqual([
      { value: 500, w: 60 },
      { value: 20_000, w: 3600 },
    ])
  })

  it('draft-6 has a field for each, and its own RateLimit-Policy only when alone', () => {
    const told = answer([applied(minute, { remaining: 423, resetMs: 12_000 })])
    const single = { 'ratelimit-limit': '500', 'ratelimit-remaining': '423', 'ratelimit-reset': '12' }
    expect(written(['draft-6'], told)).toMatchObject({ ...single, 'ratelimit-policy': '500;w=60' })
    expect(written(['draft-6', 'draft-11'], told)).toMatchObject({
      ...single,
      'ratelimit-policy': '"per-minute";q=500;w=60',
    })
  })

  it('never has two policies of one quota, nor one without a window, nor the first minutes', () => {
    const told = answer([
      applied(minute),
      applied(fixedWindow({ name: 'stricter', quota: 500, window: '1h' })),
      applied(fixedWindow({ name: 'fast', quota: 7, window: '100ms' })),
      applied(firstMinutes({ quota: 300, window: '5m' })),
    ])
    expect(written(['draft-7'], told)['ratelimit-policy']).toBe('500;w=3600')
  })

  it('none tells when slots come back, which nobody knows; of a refusal each tells what Retry-After does', () => {
    const slots = concurrency({ name: 'slots', quota: 3 })
    const status = { windowMs: null, remaining: 1, resetMs: 29_000 }
    const admitted = answer([applied(slots, status)])
    expect(written(['draft-7'], admitted)).toEqual({ 'x-ratelimit-tier': 'agent' })
    expect(written(['draft-6'], admitted)).toEqual({
      'x-ratelimit-tier': 'agent',
      'ratelimit-limit': '3',
      'ratelimit-remaining': '1',
    })
    expect(written(['legacy'], admitted)).not.toHaveProperty('x-ratelimit-reset')
    const refused = answer([applied(slots, { ...status, remaining: 0, waitMs: 1200 })], {
      reason: 'quota',
      violated: ['slots'],
      retryAfterMs: 1200,
      retryEstimated: true,
    })
    expect(written(['draft-7'], refused)).toMatchObject({
      'retry-after': '2',
      ratelimit: 'limit=3, remaining=0, reset=2',
    })
    expect(written(['draft-6'], refused)).toMatchObject({ 'ratelimit-reset': '2' })
    expect(written(['legacy'], refused)).toMatchObject({ 'x-ratelimit-reset': String(noon / 1000 + 2) })
  })

  it('legacy is as GitHub sends it', () => {
    const told = answer([applied(minute, { remaining: 423, resetMs: 11_001 })])
    expect(written(['legacy'], told)).toEqual({
      'x-ratelimit-limit': '500',
      'x-ratelimit-remaining': '423',
      'x-ratelimit-reset': String(noon / 1000 + 12),
      'x-ratelimit-used': '77',
      'x-ratelimit-resource': 'per-minute',
      'x-ratelimit-tier': 'agent',
    })
  })

  it('show the policy with the least left for its cost, then the longest wait', () => {
    const shown = (...policies: AppliedPolicy[]) => written(['legacy'], answer(policies))['x-ratelimit-resource']
    expect(shown(applied(minute, { remaining: 30 }), applied(perHour, { remaining: 100, cost: 10 }))).toBe('per-hour')
    expect(shown(applied(minute, { remaining: 0, waitMs: 20 }), applied(perHour, { remaining: 0, waitMs: 900 }))).toBe(
      'per-hour',
    )
    expect(shown(applied(minute, { remaining: 0, waitMs: null }), applied(perHour, { remaining: 0, waitMs: 9 }))).toBe(
      'per-minute',
    )
  })

  it('show, of two that are as close and wait alike, the one that is free again last', () => {
    const bucket = applied(tokenBucket({ quota: 10, window: '1m' }), { remaining: 9, resetMs: 6000 })
    const window = applied(slidingWindow({ quota: 10, window: '1h' }), { remaining: 9, resetMs: 3_600_000 })
    for (const policies of [
      [bucket, window],
      [window, bucket],
    ]) {
      expect(written(['draft-6'], answer(policies))).toMatchObject({ 'ratelimit-reset': '3600' })
    }
  })

  it('show the first minutes where they stand in for another, and not before', () => {
    const extra = applied(firstMinutes({ quota: 500, window: '5m' }), { remaining: 3 })
    const shown = (...policies: AppliedPolicy[]) => written(['legacy'], answer(policies))['x-ratelimit-resource']
    expect(shown(applied(minute, { remaining: 40 }), extra)).toBe('per-minute')
    expect(shown(applied(minute, { remaining: 0, waitMs: 90 }, { lifted: true }), extra)).toBe('first-minutes')
  })
})

describe('the first minutes', () => {
  it('are told no more once they are used up', () => {
    const extra = applied(firstMinutes({ quota: 500, window: '5m' }), { remaining: 0, waitMs: 86_000_000 })
    const lifted = applied(perMinute, { remaining: 0, waitMs: 90 }, { lifted: true })
    expect(written(['draft-11', 'draft-6'], answer([lifted, applied(perHour), extra]))).toMatchObject({
      'ratelimit-policy': '"per-minute";q=500;w=60, "per-hour";q=20000;w=3600',
      ratelimit: '"per-minute";r=0;t=1, "per-hour";r=20000;t=3600',
      'ratelimit-limit': '500',
      'ratelimit-remaining': '0',
    })
  })
})

describe('the wait of a refusal', () => {
  const refused = (retryAfterMs: number | null) =>
    written(['draft-11'], answer([applied(perMinute, { remaining: 0 })], { reason: 'quota', retryAfterMs }))

  it('is whole seconds rounded up, and milliseconds beside them', () => {
    expect(refused(1180)).toMatchObject({ 'retry-after': '2', 'retry-after-ms': '1180' })
    expect(refused(1)).toMatchObject({ 'retry-after': '1', 'retry-after-ms': '1' })
  })

  it('is left out where waiting does not help, and when the request was admitted', () => {
    expect(refused(null)).not.toHaveProperty('retry-after')
    expect(written(['draft-11'], answer([applied(perMinute)]))).not.toHaveProperty('retry-after')
  })

  it('is told without any family', () => {
    expect(
      written([], answer([applied(perMinute)], { reason: 'quota', retryAfterMs: 1180, violated: ['per-minute'] })),
    ).toEqual({ 'retry-after': '2', 'retry-after-ms': '1180', 'x-ratelimit-tier': 'agent' })
  })
})

describe('what cannot be told', () => {
  const all: HeaderFamily[] = ['draft-11', 'draft-6', 'legacy']

  it('is left out: without limits only the tier remains', () => {
    expect(written(all, answer([]))).toEqual({ 'x-ratelimit-tier': 'agent' })
  })

  it('is left out: a tier that cannot stand in a field', () => {
    for (const tier of ['gr\u{fc}n', 'a\r\nSet-Cookie: b', '']) {
      expect(written(all, answer([], { tier }))).toEqual({})
    }
  })

  it('is not written into an answer that was sent already', async () => {
    const res = response()
    res.flushHeaders()
    const writer = createFieldWriter({ families: all, exposeHeaders: true })
    writer.write(res, answer([applied(perMinute)]))
    writer.clear(res)
    expect(res.getHeader('RateLimit')).toBeUndefined()
  })

  it('is taken back by clear, and nothing else is', () => {
    const res = response()
    res.setHeader('X-Other', '1')
    const writer = createFieldWriter({ families: all, exposeHeaders: false })
    writer.write(res, answer([applied(perMinute)]))
    writer.clear(res)
    expect(res.getHeaders()).toEqual({ 'x-other': '1', 'x-ratelimit-tier': 'agent' })
  })
})

describe('exposeHeaders', () => {
  const exposedAfter = (already: string | string[] | undefined, times = 1) => {
    const res = response()
    if (already !== undefined) res.setHeader('Access-Control-Expose-Headers', already)
    const writer = createFieldWriter({ families: ['draft-11'], exposeHeaders: true })
    for (let time = 0; time < times; time += 1) writer.write(res, answer([applied(perMinute)]))
    return res.getHeader('Access-Control-Expose-Headers')
  }
  const ours = 'RateLimit-Policy, RateLimit, X-RateLimit-Tier, Retry-After, retry-after-ms'

  it('adds ours once to what is there', () => {
    expect(exposedAfter(undefined, 2)).toBe(ours)
    expect(exposedAfter('X-Total, ratelimit', 2)).toBe(
      'X-Total, ratelimit, RateLimit-Policy, X-RateLimit-Tier, Retry-After, retry-after-ms',
    )
    expect(exposedAfter(['X-Total', 'Link'])).toBe(`X-Total,Link, ${ours}`)
    expect(exposedAfter('')).toBe(ours)
  })

  it('leaves * as it is', () => {
    expect(exposedAfter('*')).toBe('*')
  })

  it('is off by default', () => {
    expect(written(['draft-11'], answer([]))).not.toHaveProperty('access-control-expose-headers')
  })
})

describe('clashOf', () => {
  it('finds the two families that share field names with different meanings', () => {
    expect(clashOf(['draft-6', 'draft-7', 'legacy', 'draft-11'])).toEqual(['draft-11', 'draft-7'])
    expect(clashOf(['draft-11', 'draft-6', 'legacy'])).toBeNull()
    expect(clashOf(['draft-7', 'draft-6'])).toBeNull()
    expect(clashOf([])).toBeNull()
  })
})

describe('whatever a decision was', () => {
  const printable = fc.string({
    unit: fc.integer({ min: 0x20, max: 0x7e }).map((code) => String.fromCharCode(code)),
    minLength: 1,
    maxLength: 40,
  })
  const whole = fc.integer({ min: 1, max: 10 ** 9 })
  const policies = fc.record({
    build: fc.constantFrom(tokenBucket, slidingWindow, fixedWindow),
    options: fc.record(
      {
        name: printable,
        unit: fc.oneof(
          fc.constant('requests'),
          printable.filter((unit) => unit !== 'concurrent-requests'),
        ),
        quota: fc.oneof(fc.constant(1e12), whole),
        window: fc.oneof(
          fc.integer({ min: 1, max: 366 * 86_400 }).map((s) => s * 1000),
          fc.integer({ min: 1, max: 10_000 }),
        ),
        maxRate: fc.double({ min: Number.MIN_VALUE, max: 1e6, noNaN: true }),
      },
      { requiredKeys: ['name', 'quota', 'window'] },
    ),
    status: fc.record({
      remaining: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 1000 }), fc.integer({ min: 0, max: 1e12 })),
      resetMs: fc.integer({ min: 0, max: 10 ** 13 }),
      waitMs: fc.option(fc.integer({ min: 0, max: 10 ** 13 })),
      cost: fc.integer({ min: 0, max: 1e12 }),
    }),
  })
  const item = policies.map(({ build, options, status }) =>
    applied((build as (options: unknown) => Policy)(options), status),
  )
  const outcome = fc.oneof(
    fc.constant({}),
    fc.record({
      reason: fc.constantFrom('quota' as const, 'store' as const),
      retryAfterMs: fc.option(fc.integer({ min: 1, max: 10 ** 12 })),
    }),
  )
  const toWhole = (value: unknown): number => {
    expect(Number.isInteger(value) && (value as number) >= 0).toBe(true)
    return value as number
  }

  it('both fields are Lists of Strings, with Integers that keep the promises', () => {
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 4 }), outcome, (items, told) => {
        const fields = written(['draft-11', 'draft-6', 'legacy'], answer(items, told))
        const policy = members(fields['ratelimit-policy']) as Record<string, unknown>[]
        const limit = members(fields.ratelimit) as Record<string, unknown>[]
        const names = items.map((one) => one.status.name)
        expect(policy.map(({ value }) => value)).toEqual(names)
        expect(limit.map(({ value }) => value)).toEqual(names)
        const retryAfter = fields['retry-after'] === undefined ? Infinity : Number(fields['retry-after'])
        if (retryAfter !== Infinity) {
          expect(toWhole(retryAfter) * 1000).toBeGreaterThanOrEqual(Number(fields['retry-after-ms']))
          expect((retryAfter - 1) * 1000).toBeLessThan(Number(fields['retry-after-ms']))
        }
        items.forEach(({ policy: { maxRate }, status }, index) => {
          expect(toWhole(policy[index]?.q)).toBe(status.quota)
          expect(policy[index]?.qu).toBe(status.unit === 'requests' ? undefined : status.unit)
          const r = toWhole(limit[index]?.r)
          const wholeSeconds = status.windowMs! % 1000 === 0
          expect(policy[index]?.w).toBe(wholeSeconds ? status.windowMs! / 1000 : undefined)
          if (maxRate === undefined) expect(r).toBe(status.remaining)
          else expect(r).toBeLessThanOrEqual(status.remaining)
          if (!wholeSeconds) {
            expect(limit[index]?.t).toBeUndefined()
            return
          }
          const t = toWhole(limit[index]?.t)
          expect(t).toBeGreaterThan(0)
          expect(t).toBeLessThanOrEqual(retryAfter)
          if (maxRate !== undefined) expect(r).toBeLessThanOrEqual(maxRate * t)
        })
        expect(toWhole(Number(fields['ratelimit-reset']))).toBeLessThanOrEqual(retryAfter)
        expect(fields['x-ratelimit-remaining']).toBe(fields['ratelimit-remaining'])
        expect(names).toContain(fields['x-ratelimit-resource'])
      }),
      { numRuns: 500 },
    )
  })

  it('whoever spreads what a bucket has over its time uses no more than flows back', () => {
    fc.assert(
      fc.property(whole, fc.integer({ min: 1, max: 86_400 }), whole, (quota, seconds, remaining) => {
        const bucket = tokenBucket({ name: 'bucket', quota, window: seconds * 1000, burst: remaining })
        const [told] = members(written(['draft-11'], answer([applied(bucket, { remaining })])).ratelimit)
        const { r, t } = told as unknown as { r: number; t: number }
        expect(r * seconds).toBeLessThanOrEqual(t * quota * (1 + 1e-12))
      }),
    )
  })

  it('integer policies are a List of distinct Integers with windows', () => {
    fc.assert(
      fc.property(fc.array(item, { minLength: 1, maxLength: 5 }), outcome, (items, told) => {
        const fields = written(['draft-7'], answer(items, told))
        const dictionary = parseDictionary(fields.ratelimit ?? '')
        for (const key of ['limit', 'remaining', 'reset']) toWhole(dictionary.get(key)?.[0])
        const policyField = fields['ratelimit-policy']
        if (policyField === undefined) {
          expect(items.every(({ status }) => status.windowMs! % 1000 !== 0)).toBe(true)
          return
        }
        const policy = members(policyField) as Record<string, unknown>[]
        expect(new Set(policy.map(({ value }) => toWhole(value))).size).toBe(policy.length)
        for (const { w } of policy) expect(toWhole(w)).toBeGreaterThan(0)
      }),
    )
  })
})
