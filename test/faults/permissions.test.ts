// What a user may not do, found where it is looked for, and not by a decision that happens to need it.

import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { Redis } from 'ioredis'
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { classAndCodeOf, RampmeterError } from '../../src/errors.ts'
import type { Limiter } from '../../src/limiter.ts'
import type { DegradedMessage } from '../../src/observe/channels.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { Breakers, wholeStore } from '../../src/stores/breaker.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Store } from '../../src/stores/store.ts'
import { warningsOf } from '../http/warnings.ts'
import { running, until, type Server } from './server.ts'

const lua = fileURLToPath(new URL('../../lua', import.meta.url))

/** Those that the scripts say they call, of all but the one that looks. */
const commands = new Set(
  readdirSync(lua)
    .filter((name) => name.endsWith('.lua') && name !== 'permissions.lua')
    .flatMap((name) => {
      const [, words = ''] = /^-- COMMANDS (.*(?:\n-- {2,}.*)*)/m.exec(readFileSync(`${lua}/${name}`, 'utf8')) ?? []
      return words.toLowerCase().match(/\w+/g) ?? []
    }),
)

let one: Server
let admin: Redis

beforeAll(async () => {
  one = await running(async () => [])
  admin = one.admin()
  return () => one.stop()
})

async function as(user: string, rules: readonly string[], options: LimiterOptions = {}): Promise<Limiter> {
  return limiterOn(await storeAs(user, rules), options)
}

function limiterOn(store: Store, options: LimiterOptions): Limiter {
  const limiter = rampmeter({ store, deadline: '5s', ...options })
  onTestFinished(() => limiter.close())
  return limiter
}

async function storeAs(user: string, rules: readonly string[]): Promise<Store> {
  await admin.call('ACL', 'SETUSER', user, 'on', '>secret', '~*', '+@all', ...rules)
  const given = new Redis({ port: one.port, username: user, password: 'secret', lazyConnect: true })
  onTestFinished(() => given.disconnect())
  return redisStore(given, { prefix: `${user}:` })
}

describe('ready', () => {
  it('names each command of the scripts that the user may not run, and leaves no key behind', async () => {
    const limiter = await as('each', [], { processes: 1 })
    for (const command of commands) {
      await admin.call('ACL', 'SETUSER', 'each', `-${command}`)
      await expect(limiter.ready()).rejects.toMatchObject({
        code: 'RAMPMETER_REDIS_PERMISSIONS',
        message: expect.stringContaining(`may not run ${command} (NOPERM); its ACL needs +${command},`),
      })
      await admin.call('ACL', 'SETUSER', 'each', `+${command}`)
    }
    await limiter.ready()
    expect(await admin.keys('each:*')).toEqual([])
  })

  it('names all that are missing, and leaves nothing behind where it could not remove it', async () => {
    const limiter = await as('many', ['-zadd', '-hgetall', '-unlink', '-pexpire'], { processes: 1 })
    await expect(limiter.ready()).rejects.toThrow(/may not run unlink, pexpire, zadd, hgetall \(NOPERM\)/)
    expect(await admin.keys('many:*')).toEqual([])
  })
})

describe('a user that may not do what only some decisions need', () => {
  it('is one outage until that is permitted, whatever else is decided', async () => {
    const told: DegradedMessage[] = []
    const listen = (message: unknown): void => void told.push(message as DegradedMessage)
    subscribe('rampmeter:degraded', listen)
    onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
    const store = await storeAs('some', ['-zadd'])
    const limiter = limiterOn(store, { policies: [slidingWindow({ name: 'hour', quota: 1000, window: '1h' })] })
    const holding = limiterOn(store, { policies: [concurrency({ name: 'slots', quota: 100 })] })
    const decide = (what: 'counted' | 'held') =>
      (what === 'held' ? holding : limiter).decide({ client: { id: 'key:one' } })
    expect(await decide('counted')).toMatchObject({ degraded: false })
    expect(await decide('held')).toMatchObject({ degraded: true, admitted: true })
    expect(told[0]!.cause).toMatch(/^ReplyError: NOPERM( \(zadd\))?$/)
    // Long enough for several probes, which do not need the command.
    await until(async () => {
      await decide('counted')
      await decide('held')
      return /may not run zadd \(NOPERM\)/.test(told.at(-1)!.cause)
    })
    for (let times = 0; times < 10; times += 1) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      await decide('counted')
      expect(limiter.health().store).not.toBe('up')
    }
    // One of each limiter.
    expect(told.filter(({ count }) => count === 1)).toHaveLength(2)
    expect(told.filter(({ state }) => state === 'back')).toEqual([])
    await admin.call('ACL', 'SETUSER', 'some', '+zadd')
    await until(() => told.some(({ state }) => state === 'back'))
    expect(await decide('held')).toMatchObject({ degraded: false, admitted: true })
  })

  it('is not ended by the answer to what was sent with it', () => {
    const breakers = new Breakers()
    const end = breakers.use({ probe: async () => undefined, onBack: () => {} })
    onTestFinished(end)
    breakers.missed(wholeStore, 'key:one', new RampmeterError('RAMPMETER_REDIS_PERMISSIONS', 'it may not'))
    breakers.answered([wholeStore])
    expect(breakers.state).toBe('down')
  })

  it('is told by health(), though all decisions are made', async () => {
    const limiter = await as('quiet', ['-zadd'], { processes: 1 })
    const decide = () => limiter.decide({ client: { id: 'key:one', tier: 'agent' } })
    expect(await decide()).toMatchObject({ degraded: false })
    await until(async () => {
      expect(await decide()).toMatchObject({ degraded: false })
      return limiter.health().store === 'degraded'
    })
  })
})

describe('processes that may not be counted', () => {
  it('share quotas by the connections that Redis has, and say why', async () => {
    const warnings = warningsOf('RAMPMETER_REDIS_PERMISSIONS')
    const policies = [slidingWindow({ name: 'hour', quota: 100, window: '1h' })]
    const all = [
      await as('uncounted', ['-hset'], { policies, deadline: '100ms' }),
      await as('uncounted', ['-hset'], { policies, deadline: '100ms' }),
    ]
    await until(async () =>
      (await warnings()).some(({ message }) => /cannot be counted \(ReplyError: NOPERM/.test(message)),
    )
    await until(async () => {
      await all[0]!.decide({ client: { id: 'key:other' } })
      return all[0]!.health().store === 'degraded'
    })
    one.freeze()
    let admitted = 0
    for (const limiter of all) {
      for (let times = 0; times < 60; times += 1) {
        if ((await limiter.decide({ client: { id: 'key:one' } })).admitted) admitted += 1
      }
    }
    one.thaw()
    expect(admitted).toBeGreaterThan(0)
    expect(admitted).toBeLessThanOrEqual(100)
  })
})

it.each([
  ["ERR ACL failure in script: User limiter has no permissions to run the 'hset' command", 'NOPERM (hset)'],
  ["ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:1.", 'NOPERM'],
  ["NOPERM User limiter has no permissions to run the 'cluster|slots' command", 'NOPERM (cluster|slots)'],
])('a permission that is wanting is told as such: %s', (message, told) => {
  expect(classAndCodeOf(Object.assign(new Error(message), { name: 'ReplyError' }))).toBe(`ReplyError: ${told}`)
})
