// Every state that a Redis can be in: what is decided meanwhile, that it is told, and that it heals. States and counts are held
// against what must be, not times: how long things take is what `npm run test:faults` measures.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Decision } from '../../src/decision.ts'
import { classAndCodeOf } from '../../src/errors.ts'
import type { DegradedMessage } from '../../src/observe/channels.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Store } from '../../src/stores/store.ts'
import { proxyTo, type Proxy } from './proxy.ts'
import { running, server, until, type Server } from './server.ts'

/** So long that a busy machine is no outage, for what fails by itself. */
const long = '5s'
/** For what does not answer at all: an answer that comes is waited for with {@link until}. */
const short = '100ms'

async function started(options: readonly string[] = []): Promise<{ one: Server; admin: Redis }> {
  const one = await running(async () => options)
  onTestFinished(() => one.stop())
  return { one, admin: one.admin() }
}

async function proxied(port: number): Promise<Proxy> {
  const proxy = await proxyTo(port)
  onTestFinished(() => proxy.stop())
  return proxy
}

/** A limiter on a port, whose quota of 1000 an hour nobody uses up. */
function limiterOn(port: number, deadline: '5s' | '100ms', more: Partial<LimiterOptions> = {}) {
  const given = new Redis(port, '127.0.0.1', { lazyConnect: true })
  given.on('error', () => {})
  const limiter = rampmeter({
    store: redisStore(given, { prefix: 'states:' }),
    policies: [slidingWindow({ name: 'hour', quota: 1000, window: '1h' })],
    deadline,
    ...more,
  })
  onTestFinished(async () => {
    await limiter.close()
    given.disconnect()
  })
  const decide = (id = 'key:one', cost = 1) => limiter.decide({ client: { id }, cost })
  const left = async (id = 'key:one'): Promise<number | undefined> => (await limiter.peek({ id })).limits[0]?.remaining
  return { limiter, decide, left, given }
}

type Limited = ReturnType<typeof limiterOn>

function messages(): DegradedMessage[] {
  const heard: DegradedMessage[] = []
  const listen = (message: unknown): void => void heard.push(message as DegradedMessage)
  subscribe('rampmeter:degraded', listen)
  onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
  return heard
}

/** Uses it until the store decides. */
async function isUsed({ limiter, decide }: Limited): Promise<void> {
  await until(async () => !(await decide('key:warm')).degraded)
  await until(() => limiter.health().store === 'up')
}

const states: {
  readonly name: string
  readonly cause: RegExp
  readonly deadline: '5s' | '100ms'
  readonly options?: readonly string[]
  readonly begin: (admin: Redis, one: Server) => Promise<unknown>
  readonly end: (admin: Redis, one: Server) => Promise<unknown>
}[] = [
  {
    name: 'killed',
    cause: /not up|MaxRetriesPerRequestError|Stream isn't writeable/,
    deadline: long,
    begin: (_admin, one) => one.kill(),
    end: (_admin, one) => one.start(),
  },
  {
    name: 'frozen',
    // Its connection is made anew after 5 s.
    cause: /deadline of 100 ms|not up|MaxRetriesPerRequestError/,
    deadline: short,
    begin: async (_admin, one) => one.freeze(),
    end: async (_admin, one) => one.thaw(),
  },
  {
    name: 'full (OOM)',
    cause: /OOM/,
    deadline: long,
    begin: async (admin) => {
      await admin.set('ballast', 'x'.repeat(2_000_000))
      await admin.config('SET', 'maxmemory', '1mb')
    },
    end: (admin) => admin.config('SET', 'maxmemory', '0'),
  },
  {
    name: 'a replica (READONLY)',
    cause: /READONLY|not up|MaxRetries|writeable/,
    deadline: long,
    begin: (admin) => admin.replicaof('127.0.0.1', 1),
    end: (admin) => admin.replicaof('NO', 'ONE'),
  },
  {
    name: 'busy in a script (BUSY)',
    cause: /BUSY|deadline/,
    deadline: short,
    begin: async (admin, one) => {
      await admin.config('SET', 'busy-reply-threshold', '50')
      one
        .admin()
        .eval('while true do end', 0)
        .catch(() => {})
      await sleep(200)
    },
    end: (admin) => admin.script('KILL'),
  },
  {
    name: 'unable to save (MISCONF)',
    cause: /MISCONF/,
    deadline: long,
    begin: async (admin, { folder }) => {
      await admin.config('SET', 'save', '3600 1')
      rmSync(folder, { recursive: true, force: true })
      await admin.bgsave()
      await until(async () => (await admin.info('persistence')).includes('rdb_last_bgsave_status:err'))
    },
    end: (admin) => admin.config('SET', 'stop-writes-on-bgsave-error', 'no'),
  },
  {
    name: 'short of replicas (NOREPLICAS)',
    cause: /^ReplyError: NOREPLICAS$/,
    deadline: long,
    begin: (admin) => admin.config('SET', 'min-replicas-to-write', '1'),
    end: (admin) => admin.config('SET', 'min-replicas-to-write', '0'),
  },
  {
    name: 'under another password (NOAUTH)',
    cause: /not up|MaxRetries|writeable/,
    deadline: long,
    begin: async (admin) => {
      await admin.config('SET', 'requirepass', 'changed')
      await admin.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    },
    end: (admin) => admin.config('SET', 'requirepass', ''),
  },
  {
    name: 'short of a permission (NOPERM)',
    cause: /NOPERM/,
    deadline: long,
    begin: (admin) => admin.call('ACL', 'SETUSER', 'default', '-evalsha'),
    end: (admin) => admin.call('ACL', 'SETUSER', 'default', '+evalsha'),
  },
]

describe('a Redis that is', () => {
  it.each(states)(
    '$name is done without, told, and used again',
    async ({ name, cause, deadline, options, begin, end }) => {
      const { one, admin } = await started(options)
      const limited = limiterOn(one.port, deadline, { processes: 100 })
      const { limiter, decide, left } = limited
      await isUsed(limited)
      const heard = messages()

      await begin(admin, one)
      await until(async () => (await decide()).degraded)
      await until(async () => {
        await decide()
        return limiter.health().store === 'down' && heard.at(-1)?.waitedMs === 0
      })
      if (name === 'frozen') expect(heard[0]!.cause).toMatch(/deadline of 100 ms/)
      heard.length = 0
      const replies: Decision[] = []
      for (let times = 0; times < 30; times += 1) replies.push(await decide())
      // Not more than its share of ten, however often it is asked, and nobody waits any more.
      expect(replies.every(({ degraded, limits }) => degraded && limits.length === 0)).toBe(true)
      expect(replies.at(-1)).toMatchObject({ admitted: false, reason: 'store', retryEstimated: true })
      expect(heard.filter(({ state }) => state === 'away').map(({ waitedMs }) => waitedMs)).toEqual(Array(30).fill(0))
      expect(heard[0]!.cause).toMatch(cause)
      for (const message of heard) expect(message.cause).not.toContain('RAMPMETER_')

      await end(admin, one)
      // Without a request: by the probe alone.
      await until(() => limiter.health().store === 'up')
      expect(heard.at(-1)).toMatchObject({ state: 'back', waitedMs: 0 })
      expect(heard.at(-1)!.count).toBeGreaterThanOrEqual(30)
      // Ten were admitted here, and are counted there. One that was late may have run.
      await until(async () => ((await left()) ?? 1000) <= 990)
      await until(async () => !(await decide()).degraded)
    },
  )

  it('loading its data is done without until it has', async () => {
    const { one, admin } = await started(['--loading-process-events-interval-bytes', '1024'])
    const limited = limiterOn(one.port, long)
    await isUsed(limited)
    const fill = admin.pipeline()
    for (let nth = 0; nth < 2000; nth += 1) fill.set(`ballast:${nth}`, 'x'.repeat(100))
    await fill.exec()
    await admin.config('SET', 'key-load-delay', '1000')
    const heard = messages()
    const reloaded = one.admin().call('DEBUG', 'RELOAD')
    await until(async () => (await limited.decide()).degraded)
    expect(heard[0]!.cause).toContain('LOADING')
    await reloaded
    await until(async () => !(await limited.decide()).degraded)
  })
})

describe('a way to Redis that', () => {
  it('swallows what is sent is given up, and made anew', async () => {
    const { one } = await started()
    const proxy = await proxied(one.port)
    const limited = limiterOn(proxy.port, short)
    await isUsed(limited)
    proxy.weather = 'swallow'
    await until(async () => (await limited.decide()).degraded)
    await until(async () => {
      await limited.decide()
      return limited.limiter.health().store === 'down'
    })
    // What was swallowed once stays dead: only another connection is answered.
    proxy.weather = 'clear'
    await until(() => limited.limiter.health().store === 'up')
    await until(async () => !(await limited.decide()).degraded)
  })

  it('swallows the first word is not waited for', async () => {
    const { one } = await started()
    const proxy = await proxied(one.port)
    proxy.weather = 'swallow'
    const limited = limiterOn(proxy.port, short)
    expect((await limited.decide()).degraded).toBe(true)
    expect(limited.limiter.health()).toEqual({ store: 'down' })
    await expect(limited.limiter.ready({ within: '50ms' })).rejects.toMatchObject({
      code: 'RAMPMETER_STORE_UNAVAILABLE',
    })
    proxy.weather = 'clear'
    await limited.limiter.ready({ within: '20s' })
    await until(async () => !(await limited.decide()).degraded)
  })

  it.each(['cut', 'reset'] as const)('answers are %s on never has a call run twice', async (weather) => {
    const { one, admin } = await started()
    const proxy = await proxied(one.port)
    const limited = limiterOn(proxy.port, long)
    await isUsed(limited)
    await admin.config('RESETSTAT')
    let asked = 0
    for (let round = 0; round < 10; round += 1) {
      proxy.weather = weather
      asked += 20
      await Promise.all(Array.from({ length: 20 }, (_, nth) => limited.decide(`key:${round}:${nth}`, 7)))
      proxy.weather = 'clear'
      await until(() => limited.limiter.health().store === 'up')
    }
    await limited.limiter.flush()
    // Each client asked once, at 7: it was charged by one call, carried over from here, or was lost; a call that was lost may have
    // run and be carried over as well. A repeated one would make it three times.
    await sleep(100)
    const left = await Promise.all(
      Array.from({ length: asked }, (_, nth) => limited.left(`key:${Math.floor(nth / 20)}:${nth % 20}`)),
    )
    for (const one7 of left) expect([1000 - 14, 1000 - 7, 1000]).toContain(one7)
  })
})

describe('scripts that Redis has forgotten', () => {
  it('are loaded again, also for many that are under way', async () => {
    const { one, admin } = await started()
    const limited = limiterOn(one.port, long)
    await isUsed(limited)
    for (let round = 0; round < 5; round += 1) {
      await admin.script('FLUSH')
      const decisions = await Promise.all(Array.from({ length: 100 }, () => limited.decide()))
      expect(decisions.some(({ degraded }) => degraded)).toBe(false)
    }
    expect(await limited.left()).toBe(500)
  })
})

describe('a breaker', () => {
  it('is of the store: what one limiter has met the other need not meet', async () => {
    const { one } = await started()
    const given = new Redis(one.port, { lazyConnect: true })
    const store = redisStore(given, { prefix: 'shared:' })
    onTestFinished(() => given.disconnect())
    const policies = [slidingWindow({ name: 'hour', quota: 100, window: '1h' })]
    const [first, second] = [1, 2].map(() => rampmeter({ store, policies, deadline: short }))
    onTestFinished(async () => void (await Promise.all([first!.close(), second!.close()])))
    const who = { client: { id: 'key:one' } }
    for (const limiter of [first!, second!]) await until(async () => !(await limiter.decide(who)).degraded)
    one.freeze()
    while (first!.health().store !== 'down') await first!.decide(who)
    const heard = messages()
    expect((await second!.decide(who)).degraded).toBe(true)
    expect(heard).toMatchObject([{ waitedMs: 0, count: 1 }])
    // Whoever is left looks for it.
    await first!.close()
    one.thaw()
    await until(() => second!.health().store === 'up')
  })

  it('asks Redis nothing but probes while it is open', async () => {
    const { one, admin } = await started()
    const limited = limiterOn(one.port, long)
    await isUsed(limited)
    await admin.call('ACL', 'SETUSER', 'default', '-evalsha')
    while (limited.limiter.health().store !== 'down') await limited.decide()
    await admin.call('ACL', 'LOG', 'RESET')
    const began = performance.now()
    for (let times = 0; times < 2000; times += 1) await limited.decide()
    // A probe a second, once there were a few, is two or three calls.
    const most = 50 + (3 * (performance.now() - began)) / 1000
    const log = (await admin.call('ACL', 'LOG')) as unknown[][]
    const turnedAway = log.reduce((sum, entry) => sum + Number(entry[entry.indexOf('count') + 1]), 0)
    expect(turnedAway).toBeLessThan(most)
    await admin.call('ACL', 'SETUSER', 'default', '+evalsha')
  })
})

describe('health', () => {
  it('is true without a single request', async () => {
    const one = await server()
    onTestFinished(() => one.stop())
    const { limiter } = limiterOn(one.port, short)
    expect(limiter.health()).toEqual({ store: 'down' })
    await one.start()
    await until(() => limiter.health().store === 'up')
    await one.kill()
    await until(() => limiter.health().store === 'down')
    await one.start()
    await until(() => limiter.health().store === 'up')
    // Still connected, and silent: it is found out by those who ask for it.
    one.freeze()
    await until(() => limiter.health().store === 'down')
    one.thaw()
    await until(() => limiter.health().store === 'up')
  })
})

describe('health without a single request', () => {
  it.each(['-evalsha', '-set'])('finds out that the user may not decide: %s', async (rule) => {
    const { one, admin } = await started()
    const { limiter } = limiterOn(one.port, long)
    await until(() => limiter.health().store === 'up')
    await admin.call('ACL', 'SETUSER', 'default', rule)
    await until(() => limiter.health().store === 'down')
    await admin.call('ACL', 'SETUSER', 'default', `+${rule.slice(1)}`)
    await until(() => limiter.health().store === 'up')
  })
})

describe('a message of an outage', () => {
  it('says which store it is, and no password', async () => {
    const { one, admin } = await started()
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret-password', '~*', '+@all')
    const heard = messages()
    const given = new Redis(`redis://app:secret-password@127.0.0.1:${one.port}/3`, {
      lazyConnect: true,
      keyPrefix: 'app:',
    })
    given.on('error', () => {})
    const other = new Redis({ port: 1, password: 'secret-password', retryStrategy: null, lazyConnect: true })
    other.on('error', () => {})
    const policies = [slidingWindow({ name: 'hour', quota: 1000, window: '1h' })]
    const limiters = [given, other].map((redis, nth) =>
      rampmeter({ store: redisStore(redis, { prefix: `store${nth}:` }), policies, deadline: long }),
    )
    onTestFinished(async () => {
      await Promise.all(limiters.map((limiter) => limiter.close()))
      given.disconnect()
    })
    const [first, second] = limiters as [(typeof limiters)[0], (typeof limiters)[0]]
    const who = { client: { id: 'key:one' } }
    await until(async () => !(await first.decide(who)).degraded)
    heard.length = 0
    expect((await second.decide(who)).degraded).toBe(true)
    await admin.call('ACL', 'SETUSER', 'app', '-evalsha')
    expect((await first.decide(who)).degraded).toBe(true)
    await admin.call('ACL', 'SETUSER', 'app', '+evalsha')
    await until(async () => !(await first.decide(who)).degraded)
    await until(() => heard.some(({ state }) => state === 'back'))
    const stores = heard.map(({ state, store }) => `${state}: ${store!.kind} ${store!.address} ${store!.prefix}`)
    expect(new Set(stores)).toEqual(
      new Set([
        'away: redis localhost:1 store1:',
        `away: redis 127.0.0.1:${one.port}/3 app:store0:`,
        `back: redis 127.0.0.1:${one.port}/3 app:store0:`,
      ]),
    )
    expect(JSON.stringify(heard)).not.toContain('secret')
  })
})

it.each([
  ['redis://:se@cret@127.0.0.1:1', '127.0.0.1:1'],
  ['redis://app:secret%2F@127.0.0.1:1', '127.0.0.1:1'],
  ['127.0.0.1:1', '127.0.0.1:1'],
])('a message of a cluster that was given as %s says where it is, and no part of a password', async (node, address) => {
  const heard = messages()
  const given = new Cluster([node], { lazyConnect: true })
  given.on('error', () => {})
  const limiter = rampmeter({
    store: redisStore(given),
    policies: [slidingWindow({ name: 'hour', quota: 1000, window: '1h' })],
    deadline: short,
  })
  onTestFinished(async () => {
    await limiter.close()
    given.disconnect()
  })
  expect((await limiter.decide({ client: { id: 'key:one' } })).degraded).toBe(true)
  expect(heard[0]!.store).toMatchObject({ kind: 'redis-cluster', address })
  expect(JSON.stringify(heard)).not.toMatch(/secret|cret@|se@/)
})

describe('the cause of an outage', () => {
  it.each([
    [
      'Error: Too many Cluster redirections (MOVED)',
      'Too many Cluster redirections. Last error: ReplyError: MOVED 1 10.0.0.1:1',
    ],
    [
      'Error: All sentinels are unreachable (ECONNREFUSED)',
      'All sentinels are unreachable. Retrying from scratch after 10ms. Last error: connect ECONNREFUSED 10.0.0.1:1',
    ],
    ['Error: None of startup nodes is available', 'None of startup nodes is available'],
    ['Error: Socket timeout', "Socket timeout. Expecting data, but didn't receive any in 5000ms."],
    ['Error (ETIMEDOUT)', 'connect ETIMEDOUT'],
    ['Error', 'secret at 10.0.0.1 EXPECTED'],
  ])('is told as %s', (told, message) => {
    expect(classAndCodeOf(new Error(message))).toBe(told)
  })

  it('is what the last probe met, not what began it', async () => {
    const { one, admin } = await started()
    const limited = limiterOn(one.port, long)
    await isUsed(limited)
    const heard = messages()
    const untilToldOf = async (cause: RegExp): Promise<void> => {
      await until(async () => {
        await limited.decide()
        return cause.test(heard.at(-1)!.cause)
      })
    }
    await admin.call('ACL', 'SETUSER', 'default', '-evalsha')
    await untilToldOf(/^ReplyError: NOPERM \(evalsha\)$|may not run evalsha \(NOPERM\)/)
    await until(() => limited.limiter.health().store === 'down')
    // Nobody but a probe asks from now on.
    await admin.call('ACL', 'SETUSER', 'default', '+evalsha')
    await one.kill()
    await untilToldOf(/^the connection to Redis is not up \(\w+: Error ECONNREFUSED\)$/)
    expect(new Set(heard.map(({ since }) => since)).size).toBe(1)
  })
})

describe('who is told when to come back', () => {
  it('is not told to come while a probe is under way, nor at once', async () => {
    const { one } = await started()
    const limited = limiterOn(one.port, short, { onStoreError: 'closed' })
    await isUsed(limited)
    one.freeze()
    while (limited.limiter.health().store !== 'down') await limited.decide()
    const told: number[] = []
    const began = performance.now()
    // Each probe is under way for the deadline, 100 ms: some of these fall into one.
    while (performance.now() - began < 1500) {
      told.push((await limited.decide()).retryAfterMs!)
      await sleep(5)
    }
    expect(Math.min(...told)).toBeGreaterThanOrEqual(100)
    // The longest pause, with its spread, and the time that the answer may take.
    expect(Math.max(...told)).toBeLessThanOrEqual(1200)
  })
})

describe('ready', () => {
  it('adds no listener for each that waits', async () => {
    const one = await server()
    onTestFinished(() => one.stop())
    const { limiter } = limiterOn(one.port, short)
    const told: Error[] = []
    const listen = (warning: Error): void => void told.push(warning)
    process.on('warning', listen)
    onTestFinished(() => void process.off('warning', listen))
    const all = Array.from({ length: 30 }, () => limiter.ready({ within: 1 }).catch((error: Error) => error))
    expect(await Promise.all(all)).toHaveLength(30)
    await one.start()
    await limiter.ready({ within: '20s' })
    await sleep(0)
    expect(told.filter(({ name }) => name === 'MaxListenersExceededWarning')).toEqual([])
  })

  it('does not take an option that it does not have, or a wrong one', async () => {
    const { limiter } = limiterOn(1, short)
    await expect(limiter.ready({ witihn: '1s' } as never)).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_OPTION' })
    await expect(limiter.ready('1s' as never)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_OPTION' })
    await expect(limiter.ready({ within: 'soon' as never })).rejects.toMatchObject({
      code: 'RAMPMETER_INVALID_DURATION',
    })
  })

  it.each([
    ['keys', ['resetkeys', '~others:*'], /use keys that begin with "states:" \(NOPERM\); add ~states:\* to its ACL/],
    ['a command', ['-evalsha'], /may not run evalsha \(NOPERM\)/],
    ['a command of a script', ['-set'], /may not run set \(NOPERM\)/],
  ])('says that the user may not use %s', async (_what, rules, says) => {
    const { one, admin } = await started()
    await admin.call('ACL', 'SETUSER', 'limiter', 'on', '>secret', '~*', '+@all', ...rules)
    const given = new Redis({ port: one.port, username: 'limiter', password: 'secret', lazyConnect: true })
    const limiter = rampmeter({ store: redisStore(given, { prefix: 'states:' }), deadline: long })
    onTestFinished(async () => {
      await limiter.close()
      given.disconnect()
    })
    await expect(limiter.ready()).rejects.toMatchObject({
      code: 'RAMPMETER_REDIS_PERMISSIONS',
      message: expect.stringMatching(says),
    })
    await admin.call('ACL', 'SETUSER', 'limiter', 'allkeys', '+@all')
    await limiter.ready()
    await until(() => limiter.health().store === 'up')
  })
})

describe('a client whose own commands time out early', () => {
  it('does not have ours time out, nor lose what they charged', async () => {
    const { one, admin } = await started()
    const given = new Redis(one.port, '127.0.0.1', { lazyConnect: true, commandTimeout: 20 })
    given.on('error', () => {})
    const limiter = rampmeter({
      store: redisStore(given, { prefix: 'states:' }),
      policies: [slidingWindow({ name: 'hour', quota: 1000, window: '1h' })],
      deadline: long,
    })
    onTestFinished(async () => {
      await limiter.close()
      given.disconnect()
    })
    await until(async () => !(await limiter.decide({ client: { id: 'key:warm' } })).degraded)
    await admin.call('CLIENT', 'PAUSE', '300', 'ALL')
    const decision = await limiter.decide({ client: { id: 'key:one' } })
    expect(decision).toMatchObject({ degraded: false, limits: [{ remaining: 999 }] })
  })
})

describe('what is owed', () => {
  it('and certainly did not arrive is settled when Redis is back', async () => {
    const { one, admin } = await started()
    const limited = limiterOn(one.port, long)
    await isUsed(limited)
    const decision = await limited.decide('key:one', 10)
    await admin.call('ACL', 'SETUSER', 'default', '-evalsha', '-eval')
    const heard = messages()
    decision.settle(3)
    await limited.limiter.flush()
    expect(heard).toMatchObject([{ state: 'unsettled', code: 'RAMPMETER_STORE_UNAVAILABLE', count: 1 }])
    await admin.call('ACL', 'SETUSER', 'default', '+evalsha', '+eval')
    await until(async () => (await limited.left()) === 997)
  })

  it('does not hold flush, reset and close up for ever', async () => {
    const { one } = await started()
    const { limiter, decide } = limiterOn(one.port, short)
    let decision = await decide()
    while (decision.degraded) decision = await decide()
    one.freeze()
    decision.settle(3)
    await limiter.flush()
    await expect(limiter.reset('key:one')).rejects.toMatchObject({ code: 'RAMPMETER_STORE_UNAVAILABLE' })
    await limiter.close()
  })
})

describe('what was admitted here', () => {
  it('is carried over as far as it still counts, and what is given back later comes back there', async () => {
    const { one } = await started()
    const limited = limiterOn(one.port, long, {
      policies: [
        slidingWindow({ name: 'hour', quota: 1000, window: '1h' }),
        // Full again before Redis is back: nobody is in debt for it.
        tokenBucket({ name: 'quick', quota: 1000, window: '20ms', burst: 100 }),
      ],
    })
    await isUsed(limited)
    await one.kill()
    await until(async () => (await limited.decide('key:other')).degraded)
    const kept: Decision[] = []
    for (let times = 0; times < 20; times += 1) kept.push(await limited.decide())
    kept[0]!.refund()
    await limited.limiter.flush()
    await sleep(50)
    await one.start()
    const leftOf = async () =>
      (await limited.limiter.peek({ id: 'key:one' })).limits.map(({ remaining }) => remaining).join()
    await until(async () => (await leftOf()) === '981,100')
    // It was decided here, and is settled there now.
    kept[1]!.refund()
    await until(async () => (await leftOf()) === '982,100')
    kept[2]!.settle(11)
    await until(async () => (await leftOf()).startsWith('972,'))
  })

  it('in two outages is carried over once', async () => {
    const { one, admin } = await started()
    const limited = limiterOn(one.port, long, { processes: 10 })
    await isUsed(limited)
    for (const left of [990, 980]) {
      await admin.call('ACL', 'SETUSER', 'default', '-evalsha')
      for (let times = 0; times < 10; times += 1) expect(await limited.decide()).toMatchObject({ degraded: true })
      await admin.call('ACL', 'SETUSER', 'default', '+evalsha')
      await until(async () => (await limited.left()) === left)
      await until(() => limited.limiter.health().store === 'up')
    }
  })
})

describe('processes that share a store with boards', () => {
  it('are counted while it answers, and their number stands while it does not', async () => {
    const entries = new Map<string, number>()
    /** Who has spoken since all were there. */
    const again = new Set<string>()
    let isAway = false
    /** A process's own, with one board in common. */
    const makeStore = (): Store => ({
      open(settings) {
        const kept = memoryStore().open(settings)
        return {
          ...kept,
          local: false,
          decide: async (request) => {
            if (isAway) throw new Error('away')
            return await kept.decide(request)
          },
          post: async (_board, entry, value, ttlMs) => {
            if (isAway) throw new Error('away')
            if (ttlMs === 0) entries.delete(entry)
            else entries.set(entry, value)
            if (entries.size === 3) again.add(entry)
            return [...entries.values()]
          },
        }
      },
    })
    const policies = [slidingWindow({ name: 'hour', quota: 9, window: '1h' })]
    const processes: ReturnType<typeof rampmeter>[][] = []
    for (let nth = 0; nth < 3; nth += 1) {
      const store = makeStore()
      processes.push([rampmeter({ store, policies }), rampmeter({ store, policies })])
      await until(() => entries.size === nth + 1)
    }
    // The last to come knows of all three at once, the others when they say so again, within seconds.
    await until(() => again.size === 3)
    await sleep(0)
    isAway = true
    const admittedBy = async (limiter: ReturnType<typeof rampmeter>): Promise<number> => {
      let count = 0
      for (let times = 0; times < 12; times += 1) {
        count += Number((await limiter.decide({ client: { id: 'key:one' } })).admitted)
      }
      return count
    }
    // Of the two limiters of a process each finds what the other has admitted.
    const admitted = async (limiters: (typeof processes)[0]): Promise<number[]> => [
      await admittedBy(limiters[0]!),
      await admittedBy(limiters[1]!),
    ]
    expect(await Promise.all(processes.map(admitted))).toEqual([
      [3, 0],
      [3, 0],
      [3, 0],
    ])
    isAway = false
    await Promise.all(processes.flat().map((limiter) => limiter.close()))
    expect(entries.size).toBe(0)
  })
})
