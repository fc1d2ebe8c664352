// Mistakes in options: each is found when the app starts, has its code, and is told so that it can be mended.

import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { presetTiers } from '../src/classify/presets.ts'
import { errorCodes, RampmeterError, type ErrorCode } from '../src/errors.ts'
import { apiKey } from '../src/identify/api-key.ts'
import { bearer } from '../src/identify/bearer.ts'
import { introspect } from '../src/identify/introspect.ts'
import { session } from '../src/identify/session.ts'
import { webBotAuth } from '../src/identify/web-bot-auth/web-bot-auth.ts'
import { readLimiterOptions, readRoute, type LimiterOptions } from '../src/options.ts'
import { failures } from '../src/policies/failures.ts'
import { fixedWindow } from '../src/policies/fixed-window.ts'
import { slidingLog } from '../src/policies/sliding-log.ts'
import { slidingWindow } from '../src/policies/sliding-window.ts'
import { tokenBucket } from '../src/policies/token-bucket.ts'
import { uniqueTargets } from '../src/policies/unique-targets.ts'
import { rampmeter } from '../src/rampmeter.ts'
import { memoryStore } from '../src/stores/memory.ts'
import { redisStore } from '../src/stores/redis/redis-store.ts'

function mistakeOf(make: () => unknown): RampmeterError {
  try {
    make()
  } catch (error) {
    expect(error).toBeInstanceOf(RampmeterError)
    return error as RampmeterError
  }
  throw new Error('no mistake was found')
}

const hour = slidingWindow({ name: 'hour', quota: 1, window: '1h' })
const day = slidingWindow({ name: 'day', quota: 1, window: '1d' })

/** What was written, the code, and what the message must say of it. */
const mistakes: readonly [unknown, ErrorCode, RegExp][] = [
  [null, 'RAMPMETER_INVALID_OPTION', /the options: saw null/],
  ['memory', 'RAMPMETER_INVALID_OPTION', /the options/],
  [[], 'RAMPMETER_INVALID_OPTION', /the options/],
  [
    memoryStore(),
    'RAMPMETER_INVALID_OPTION',
    /^rampmeter: the options: saw an instance of a class .*; there are store, /,
  ],
  [new Map([['policies', []]]), 'RAMPMETER_INVALID_OPTION', /the options: saw an instance of a class/],
  [Promise.resolve({}), 'RAMPMETER_INVALID_OPTION', /the options: saw an instance of a class/],
  [{ limit: 5 }, 'RAMPMETER_UNKNOWN_OPTION', /unknown option `limit`; there are store, identify/],
  [{ windowMs: 1, max: 5 }, 'RAMPMETER_UNKNOWN_OPTION', /`windowMs`, `max`/],
  [{ store: {} }, 'RAMPMETER_INVALID_OPTION', /`store`.*memoryStore\(\) or redisStore/],
  [{ store: new Map() }, 'RAMPMETER_INVALID_OPTION', /`store`/],
  [{ identify: apiKey({ lookup: () => null }) }, 'RAMPMETER_INVALID_OPTION', /`identify`/],
  [{ identify: [() => null] }, 'RAMPMETER_INVALID_OPTION', /`identify\.0`.*a verifier, such as/],
  [{ identify: [null] }, 'RAMPMETER_INVALID_OPTION', /`identify\.0`/],
  [{ classify: 'human' }, 'RAMPMETER_INVALID_OPTION', /`classify`: saw "human", expected a function/],
  [{ tiers: {}, policies: [] }, 'RAMPMETER_TIERS_AND_POLICIES', /only one/],
  [{ classify: () => 'a', policies: [] }, 'RAMPMETER_INVALID_OPTION', /`classify` chooses among `tiers`/],
  [{ tiers: { default: { policies: [] } }, classify: () => 'default' }, 'RAMPMETER_RESERVED_TIER', /"default"/],
  [{ tiers: { ...presetTiers(), default: { policies: [] } } }, 'RAMPMETER_RESERVED_TIER', /"default"/],
  [{ tiers: { free: { policies: [] } } }, 'RAMPMETER_TIERS_NEED_CLASSIFY', /lacks "anonymous".*classify/],
  [{ tiers: {} }, 'RAMPMETER_TIERS_NEED_CLASSIFY', /lacks/],
  [
    { tiers: { 'a b': { policies: [] } }, classify: () => 'a b' },
    'RAMPMETER_INVALID_OPTION',
    /the name "a b" in `tiers`: expected a tier name of/,
  ],
  [{ tiers: { ...presetTiers(), human: {} } }, 'RAMPMETER_INVALID_OPTION', /`tiers\.human\.policies`/],
  [
    { tiers: { ...presetTiers(), human: { policies: [], initalBurst: {} } } },
    'RAMPMETER_UNKNOWN_OPTION',
    /`initalBurst` in tiers\.human/,
  ],
  [
    { tiers: { ...presetTiers(), human: { policies: [hour], initialBurst: 500 } } },
    'RAMPMETER_INVALID_OPTION',
    /initialBurst/,
  ],
  [
    { tiers: { ...presetTiers(), human: { policies: [hour], initialBurst: { quota: 0, window: '5m' } } } },
    'RAMPMETER_INVALID_OPTION',
    /quota/,
  ],
  [
    { tiers: { ...presetTiers(), human: { policies: [], initialBurst: { quota: 5, windw: '5m' } } } },
    'RAMPMETER_UNKNOWN_OPTION',
    /windw/,
  ],
  [
    {
      tiers: {
        ...presetTiers(),
        human: { policies: [hour], initialBurst: { quota: 5, window: '2m', renewAfter: '1m' } },
      },
    },
    'RAMPMETER_INVALID_OPTION',
    /renewAfter/,
  ],
  [
    { tiers: { ...presetTiers(), human: { policies: [], docsUrl: 'limits.html' } } },
    'RAMPMETER_INVALID_OPTION',
    /docsUrl/,
  ],
  [{ policies: hour }, 'RAMPMETER_INVALID_OPTION', /`policies`/],
  [{ policies: [{ quota: 5, window: '1m' }] }, 'RAMPMETER_INVALID_OPTION', /`policies\.0`.*made by tokenBucket/],
  [{ policies: [slidingWindow] }, 'RAMPMETER_INVALID_OPTION', /`policies\.0`/],
  [{ policies: [hour, hour] }, 'RAMPMETER_DUPLICATE_POLICY', /"hour"/],
  [
    { policies: [slidingWindow({ quota: 1, window: '1m' }), slidingWindow({ quota: 9, window: '1h' })] },
    'RAMPMETER_DUPLICATE_POLICY',
    /named after its kind/,
  ],
  [
    // Two names of the same 32 bits.
    { policies: ['policy-4wzx', 'policy-b6cd'].map((name) => slidingWindow({ name, quota: 1, window: '1h' })) },
    'RAMPMETER_STATE_ID_CLASH',
    /"policy-4wzx" and "policy-b6cd"/,
  ],
  [{ policies: [hour], pools: { p: { policies: [hour] } } }, 'RAMPMETER_INVALID_OPTION', /`pools`.*beside `policies`/],
  [{ pools: { p: { policies: [hour] } } }, 'RAMPMETER_INVALID_OPTION', /no tier draws on the pool "p"/],
  ...[
    [failures({ name: 'f', quota: 9, window: '1h' }), /the pool "p": the policy "f" counts failures/],
    [uniqueTargets({ name: 'u', quota: 9, window: '1h' }), /"u" counts targets/],
    [slidingWindow({ name: 'q', quota: () => 9, window: '1h' }), /"q" has a quota that depends on the client/],
    [slidingWindow({ name: 'a', quota: 9, window: '1h', partition: 'address' }), /"a" has a `partition`/],
    [slidingWindow({ name: 'a', quota: 9, window: '1h', partition: () => 'x' }), /"a" has a `partition`/],
  ].flatMap(([policy, message]) =>
    // Whether one tier draws on it or several.
    [['a'], ['a', 'b']].map((names): [unknown, ErrorCode, RegExp] => [
      {
        pools: { p: { policies: [policy] } },
        tiers: Object.fromEntries(names.map((name) => [name, { policies: [], pool: 'p' }])),
        classify: () => 'a',
      },
      'RAMPMETER_INVALID_OPTION',
      message as RegExp,
    ]),
  ),
  [{ routes: [] }, 'RAMPMETER_INVALID_OPTION', /`routes`/],
  [{ routes: { search: {} } }, 'RAMPMETER_INVALID_ROUTE', /routes\["search"\]/],
  [{ routes: { '/a': null } }, 'RAMPMETER_INVALID_OPTION', /routes\["\/a"\]/],
  [{ routes: { '/a': { costs: 5 } } }, 'RAMPMETER_UNKNOWN_OPTION', /routes\["\/a"\]: unknown option `costs`/],
  [{ routes: { '/a': { cost: 0.5 } } }, 'RAMPMETER_INVALID_OPTION', /routes\["\/a"\].*cost.*saw 0\.5/],
  [{ routes: { '/a': { policies: { gold: [hour] } } } }, 'RAMPMETER_UNKNOWN_TIER', /"gold"; there are "anonymous"/],
  [{ routes: { '/a': { policies: { toString: [hour] } } } }, 'RAMPMETER_UNKNOWN_TIER', /"toString"/],
  [{ routes: { '/a': { policies: { human: hour } } } }, 'RAMPMETER_INVALID_OPTION', /policies/],
  [{ routes: { '/a': { replace: true } } }, 'RAMPMETER_INVALID_OPTION', /no `policies` to stand/],
  [{ routes: { '/a': { replace: true, policies: {} } } }, 'RAMPMETER_INVALID_OPTION', /no `policies` to stand/],
  [
    { policies: [hour], routes: { '/a': { policies: [slidingLog({ name: 'hour', quota: 1, window: '1h' })] } } },
    'RAMPMETER_DUPLICATE_POLICY',
    /routes\["\/a"\]/,
  ],
  [
    { routes: { '/a': { policies: [tokenBucket({ name: 'first-minutes', quota: 1, window: '1h' })] } } },
    'RAMPMETER_DUPLICATE_POLICY',
    /"first-minutes"/,
  ],
  [{ headers: 'draft-11' }, 'RAMPMETER_INVALID_OPTION', /`headers`/],
  [{ headers: ['draft-8'] }, 'RAMPMETER_INVALID_OPTION', /`headers\.0`: saw "draft-8", expected "draft-11" or/],
  [{ headers: ['draft-11', 'draft-7'] }, 'RAMPMETER_HEADERS_CLASH', /"draft-11" and "draft-7"/],
  [{ exposeHeaders: 'yes' }, 'RAMPMETER_INVALID_OPTION', /`exposeHeaders`/],
  [{ docsUrl: 'ftp://x' }, 'RAMPMETER_INVALID_OPTION', /`docsUrl`.*http/],
  [{ docsUrl: 'javascript:alert(1)' }, 'RAMPMETER_INVALID_OPTION', /`docsUrl`/],
  [{ upgradeUrl: '/plans' }, 'RAMPMETER_INVALID_OPTION', /`upgradeUrl`/],
  [{ property: '' }, 'RAMPMETER_INVALID_OPTION', /`property`/],
  [
    { property: 'ip' },
    'RAMPMETER_INVALID_OPTION',
    /`property`: saw "ip", expected a name that requests do not have already/,
  ],
  [{ property: 'headers' }, 'RAMPMETER_INVALID_OPTION', /`property`/],
  [{ property: 'url' }, 'RAMPMETER_INVALID_OPTION', /`property`/],
  [{ onStoreError: 'fail' }, 'RAMPMETER_INVALID_OPTION', /"local" or "open" or "closed"/],
  [{ processes: 0 }, 'RAMPMETER_INVALID_OPTION', /`processes`: saw 0/],
  [{ processes: 1.5 }, 'RAMPMETER_INVALID_OPTION', /`processes`/],
  [{ deadline: 'soon' }, 'RAMPMETER_INVALID_DURATION', /deadline is "soon"/],
  [{ deadline: 0 }, 'RAMPMETER_INVALID_DURATION', /deadline is 0/],
  [{ mode: 'dry-run' }, 'RAMPMETER_INVALID_OPTION', /`mode`: saw "dry-run", expected "enforce" or "shadow"/],
  [{ enforcePercent: 101 }, 'RAMPMETER_INVALID_OPTION', /`enforcePercent`: saw 101/],
  [{ enforcePercent: '10' }, 'RAMPMETER_INVALID_OPTION', /`enforcePercent`/],
  [{ skip: true }, 'RAMPMETER_INVALID_OPTION', /`skip`: saw true, expected a function/],
  [{ handler: 'json' }, 'RAMPMETER_INVALID_OPTION', /`handler`/],
  [{ trustedAddress: 'cf-connecting-ip' }, 'RAMPMETER_INVALID_OPTION', /`trustedAddress`/],
  [{ ipv6Subnet: 0 }, 'RAMPMETER_INVALID_OPTION', /`ipv6Subnet`/],
  [{ ipv6Subnet: 129 }, 'RAMPMETER_INVALID_OPTION', /`ipv6Subnet`/],
  [{ keySecret: 'hunter2' }, 'RAMPMETER_INVALID_OPTION', /`keySecret`.*a text of 7 characters.*at least 16/],
]

describe('rampmeter', () => {
  it.each(mistakes)('finds the mistake in %j', (options, code, message) => {
    const mistake = mistakeOf(() => rampmeter(options as LimiterOptions))
    expect(mistake.code).toBe(code)
    expect(mistake.message).toMatch(message)
    expect(mistake.message).toContain(`(${code}, see rampmeter/docs/errors.md#${code.toLowerCase()})`)
    expect(mistake.docs).toBe(`rampmeter/docs/errors.md#${code.toLowerCase()}`)
    expect(mistake.name).toBe('RampmeterError')
  })

  it('tells all mistakes at once', () => {
    const { message } = mistakeOf(() => rampmeter({ mode: 'dry', ipv6Subnet: -1, headers: [5] } as never))
    expect(message).toMatch(/`mode`.*`ipv6Subnet`|`headers\.0`.*`mode`/)
    for (const part of ['`mode`', '`ipv6Subnet`', '`headers.0`']) expect(message).toContain(part)
  })

  it('shows no secret', () => {
    const options = { keySecret: ['hunter2', 'hunter3'], docsUrl: `https://user:${'p'.repeat(60)}` } as LimiterOptions
    expect(mistakeOf(() => rampmeter(options)).message).not.toMatch(/hunter|ppp/)
  })

  it('shows no password of a URL', () => {
    const tokens = { issuer: 'https://id.example.com', audience: 'https://api.example.com' }
    const url = 'https://ann:hunt@er2@id.example.com'
    const { message } = mistakeOf(() => bearer({ ...tokens, jwks: url }))
    expect(message).toContain('saw "https://…@id.example.com"')
    for (const make of [
      () => introspect({ endpoint: url, clientId: 'api', clientSecret: 'x' }),
      () => webBotAuth({ origin: tokens.audience, directories: { [url]: true } }),
      () => webBotAuth({ origin: tokens.audience, directories: { [url]: false as never } }),
    ]) {
      expect(mistakeOf(make).message).toContain('…@id.example.com')
      expect(mistakeOf(make).message).not.toMatch(/ann|hunt|er2/)
    }
  })

  it('opens no store before all else is found right', async () => {
    let opened = 0
    const store = {
      open() {
        opened += 1
        throw new Error('opened')
      },
    }
    mistakeOf(() => rampmeter({ store, mode: 'dry' } as never))
    mistakeOf(() => rampmeter({ store, policies: [hour, hour] }))
    mistakeOf(() => rampmeter({ store, routes: { nonsense: {} } }))
    expect(opened).toBe(0)
  })

  it('takes all that the contract names', () => {
    const store = memoryStore()
    const limiter = rampmeter({
      store,
      identify: [apiKey({ lookup: () => null }), session(() => null)],
      classify: (_req, client) => (client.kind === 'agent' ? 'agent' : 'human'),
      tiers: { human: { policies: [hour, day] }, agent: { policies: [], initialBurst: { quota: 5, window: '5m' } } },
      routes: { 'GET /a/:id': { name: 'a', cost: 5, policies: { default: [], human: [] }, replace: true } },
      headers: ['draft-7', 'draft-6', 'legacy'],
      exposeHeaders: true,
      docsUrl: 'https://example.com/docs',
      upgradeUrl: 'http://localhost:3000/plans',
      property: 'limits',
      onStoreError: 'closed',
      processes: 4,
      deadline: 20,
      mode: 'shadow',
      enforcePercent: 12.5,
      skip: async () => false,
      handler: (_req, res) => void res.end(),
      trustedAddress: (req) => req.ip,
      ipv6Subnet: 56,
      keySecret: ['a secret of this test', 'another of this test'],
    })
    expect(limiter).toBeInstanceOf(Function)
    expect(limiter).toHaveLength(3)
    expect(Object.keys(limiter)).toEqual(
      expect.arrayContaining(['route', 'decide', 'peek', 'reset', 'ready', 'flush', 'health', 'close']),
    )
  })

  it('takes an instance that has options, also where its class has them', () => {
    class Config {
      get headers() {
        return ['draft-7'] as const
      }
    }
    expect(readLimiterOptions(new Config(), presetTiers()).headers).toEqual(['draft-7'])
    expect(readLimiterOptions(Object.create(null) as LimiterOptions, presetTiers()).headers).toEqual([
      'draft-11',
      'draft-6',
    ])
  })

  it('finds a Redis store that stands in place of the options', () => {
    const redis = new Redis({ lazyConnect: true })
    onTestFinished(() => redis.disconnect())
    expect(mistakeOf(() => rampmeter(redisStore(redis) as LimiterOptions)).code).toBe('RAMPMETER_INVALID_OPTION')
  })

  it('does not change what it was given, nor mind a change of it later', () => {
    const options: LimiterOptions = Object.freeze({
      policies: Object.freeze([hour]),
      headers: Object.freeze(['legacy']),
    }) as never
    expect(() => rampmeter(options)).not.toThrow()
  })
})

describe('limiter.route', () => {
  it.each([
    [undefined, 'RAMPMETER_INVALID_OPTION'],
    [null, 'RAMPMETER_INVALID_OPTION'],
    [5, 'RAMPMETER_INVALID_OPTION'],
    [{ cots: 5 }, 'RAMPMETER_UNKNOWN_OPTION'],
    [{ name: '' }, 'RAMPMETER_INVALID_OPTION'],
    [{ policies: [hour, hour] }, 'RAMPMETER_DUPLICATE_POLICY'],
    [{ policies: [day], replace: 'yes' }, 'RAMPMETER_INVALID_OPTION'],
    [{ replace: true }, 'RAMPMETER_INVALID_OPTION'],
    [{ policies: { gold: [] } }, 'RAMPMETER_UNKNOWN_TIER'],
    [{ policies: [slidingLog({ name: 'hour', quota: 1, window: '1h' })] }, 'RAMPMETER_DUPLICATE_POLICY'],
    [{ highRisk: true }, 'RAMPMETER_INVALID_OPTION'],
    [{ highRisk: true, policies: { default: [day] } }, 'RAMPMETER_INVALID_OPTION'],
  ])('finds the mistake in %j', (options, code) => {
    const limiter = rampmeter({ policies: [hour] })
    expect(mistakeOf(() => limiter.route(options as object)).code).toBe(code)
  })

  it('says what a highRisk route lacks', () => {
    const limiter = rampmeter({ policies: [hour] })
    expect(mistakeOf(() => limiter.route({ highRisk: true })).message).toMatch(/own `policies`, and there are none/)
    expect(mistakeOf(() => limiter.route({ highRisk: true, policies: { default: [day] } })).message).toMatch(
      /as one list/,
    )
  })

  it('has defaults', () => {
    expect(readRoute({}, 'a route')).toEqual({
      name: undefined,
      called: 'a route',
      cost: 1,
      policies: {},
      replace: false,
      costHeader: undefined,
      target: undefined,
      highRisk: false,
      critical: false,
      health: true,
      requirePoP: false,
      scopes: [],
      ladder: undefined,
      requireApproval: false,
    })
    expect(readRoute({ policies: [] }, 'a route').policies).toEqual({ default: [] })
  })
})

describe('policies', () => {
  it.each([
    [() => tokenBucket({ quota: 5 } as never), 'RAMPMETER_INVALID_DURATION'],
    [() => tokenBucket({ window: '1m' } as never), 'RAMPMETER_INVALID_OPTION'],
    [() => tokenBucket({ quota: 0, window: '1m' }), 'RAMPMETER_INVALID_OPTION'],
    [() => tokenBucket({ quota: 1.5, window: '1m' }), 'RAMPMETER_INVALID_OPTION'],
    [() => tokenBucket({ quota: 1e12 + 1, window: '1m' }), 'RAMPMETER_INVALID_OPTION'],
    [() => tokenBucket({ quota: 5, window: '1m', burst: 0 }), 'RAMPMETER_INVALID_OPTION'],
    [() => slidingWindow({ quota: 5, window: '1m', burst: 5 } as never), 'RAMPMETER_UNKNOWN_OPTION'],
    [() => slidingWindow({ quota: 5, window: 0 }), 'RAMPMETER_INVALID_DURATION'],
    [() => slidingWindow({ quota: 5, window: 0.5 }), 'RAMPMETER_INVALID_DURATION'],
    [() => slidingWindow({ quota: 5, window: '367d' }), 'RAMPMETER_INVALID_DURATION'],
    [() => slidingWindow({ quota: 5, window: '1 minute' as never }), 'RAMPMETER_INVALID_DURATION'],
    [() => fixedWindow({ quota: 5, window: '-1m' }), 'RAMPMETER_INVALID_DURATION'],
    [() => fixedWindow({ name: 'a"b\n', quota: 5, window: '1m' }), 'RAMPMETER_POLICY_NAME'],
    [() => fixedWindow({ name: '', quota: 5, window: '1m' }), 'RAMPMETER_POLICY_NAME'],
    [() => fixedWindow({ name: 'größe', quota: 5, window: '1m' }), 'RAMPMETER_POLICY_NAME'],
    [() => fixedWindow({ quota: 5, window: '1m', partition: 'tenant' as never }), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: '1m', unit: 'größe' }), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: '5h', align: 'utc' }), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: '36h', align: 'utc' }), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: 7, align: 'utc' }), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: 'month' } as never), 'RAMPMETER_INVALID_OPTION'],
    [() => fixedWindow({ quota: 5, window: '1d', align: { day: 3 } } as never), 'RAMPMETER_INVALID_OPTION'],
    [() => slidingLog(undefined as never), 'RAMPMETER_INVALID_OPTION'],
    [() => slidingLog({ quota: 5, windowMs: 60_000 } as never), 'RAMPMETER_UNKNOWN_OPTION'],
  ] as [() => unknown, ErrorCode][])('find the mistake in %s', (make, code) => {
    expect(mistakeOf(make).code).toBe(code)
  })

  it('tell what was misspelt where something is missing', () => {
    const { message } = mistakeOf(() => tokenBucket({ quota: 5, windowMs: 60_000 } as never))
    expect(message).toMatch(/unknown option `windowMs`; there are name, .*window/)
  })

  it.each([
    ['week', /is "week"; .*; a week is "7d"/],
    ['1w', /; a week is "7d"/],
    ['2 weeks', /; a week is "7d"/],
    ['day', /is "day"; .*; one day is "1d"/],
    ['2 Hours', /; one hour is "1h"/],
    ['month', /; calendar months are a window of fixedWindow/],
    ['1mo', /; calendar months are a window of fixedWindow/],
    ['1y', /to 366 days \(/],
  ])('say what to write instead of a window of %s', (window, message) => {
    expect(mistakeOf(() => slidingWindow({ quota: 5, window: window as never })).message).toMatch(message)
  })

  it.each(['10m', '6h', '8h', '1d', '2d', '7d', '14d', '30d'] as const)('may begin with the calendar: %s', (window) => {
    expect(() => fixedWindow({ quota: 5, window, align: 'utc' })).not.toThrow()
  })

  it('may have a quote in their name', () => {
    expect(fixedWindow({ name: 'a "quoted" \\ name', quota: 5, window: '1m' }).name).toBe('a "quoted" \\ name')
  })
})

describe('stores', () => {
  it.each([
    [() => memoryStore({ maxKeys: 0 }), 'RAMPMETER_INVALID_OPTION'],
    [() => memoryStore({ now: 5 as never }), 'RAMPMETER_INVALID_OPTION'],
    [() => memoryStore({ max: 5 } as never), 'RAMPMETER_UNKNOWN_OPTION'],
    [() => redisStore(undefined as never), 'RAMPMETER_INVALID_REDIS'],
    [() => redisStore('redis://localhost' as never), 'RAMPMETER_INVALID_REDIS'],
    [() => redisStore({ duplicate() {}, connect() {} } as never), 'RAMPMETER_INVALID_REDIS'],
  ] as [() => unknown, ErrorCode][])('find the mistake in %s', (make, code) => {
    expect(mistakeOf(make).code).toBe(code)
  })

  it('on Redis find the mistake in their options', () => {
    const redis = new Redis({ lazyConnect: true })
    onTestFinished(() => redis.disconnect())
    expect(mistakeOf(() => redisStore(redis, { perfix: 'a:' } as never)).code).toBe('RAMPMETER_UNKNOWN_OPTION')
    expect(mistakeOf(() => redisStore(redis, { prefix: 5 as never })).code).toBe('RAMPMETER_INVALID_OPTION')
  })
})

describe('readLimiterOptions', () => {
  it('has the defaults that are written down', () => {
    const settings = readLimiterOptions({}, presetTiers())
    expect(settings).toMatchObject({
      identify: [],
      headers: ['draft-11', 'draft-6'],
      exposeHeaders: false,
      property: 'rateLimit',
      onStoreError: 'local',
      deadlineMs: 50,
      mode: 'enforce',
      enforcePercent: 100,
      ipv6Subnet: 64,
      keySecrets: [],
      routes: {},
    })
    expect(Object.keys(settings.tiers)).toEqual(Object.keys(presetTiers()))
  })
})

it('every code that a mistake can have is among those that are written down', () => {
  for (const [, code] of mistakes) expect(errorCodes).toHaveProperty(code)
})
