// How a Redis may be set up, and what a limiter leaves behind.

import { spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import { describe, expect, it, onTestFinished } from 'vitest'
import { freePort } from '../../src/testing/redis-server.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { createAuthority } from '../certificates.ts'
import { scenarios } from './scenarios.ts'
import { running, server, until } from './server.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))
const policies = [slidingWindow({ name: 'hour', quota: 10, window: '1h' })]
const who = { client: { id: 'key:one' } }

describe('close', () => {
  it.each(['kill', 'freeze', 'leave'] as const)(
    'leaves no timer and no socket, when Redis is left to: %s',
    async (what) => {
      const one = await running(async () => [])
      onTestFinished(() => one.stop())
      const program = `
      import { Redis } from 'ioredis'
      import { rampmeter, redisStore, concurrency, slidingWindow } from './src/index.ts'
      import { setTimeout as sleep } from 'node:timers/promises'
      const given = new Redis(${one.port}, { lazyConnect: true })
      const limiter = rampmeter({
        store: redisStore(given),
        policies: [slidingWindow({ quota: 10, window: '1h' }), concurrency({ quota: 5, lease: '30s' })],
      })
      await limiter.ready()
      const before = process.getActiveResourcesInfo().filter((kind) => kind === 'TCPSocketWrap').length
      const decision = await limiter.decide({ client: { id: 'key:one' } })
      console.log('ready ' + before)
      process.stdin.once('data', async () => {
        for (let times = 0; times < 5; times += 1) await limiter.decide({ client: { id: 'key:one' } })
        limiter.health()
        decision.settle(2)
        await limiter.close()
        process.stdin.destroy()
        given.disconnect()
        // What a socket needs to be gone is turns of the event loop, and no time: a busy machine makes them longer, and not more.
        const left = () => process.getActiveResourcesInfo().filter((kind) => /TCP|Timeout/.test(kind))
        for (let turns = 0; turns < 20 && left().length > 0; turns += 1) await sleep(1)
        console.log(JSON.stringify(left()))
      })
    `
      const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
        cwd: root,
        stdio: ['pipe', 'pipe', 'ignore'],
      })
      onTestFinished(() => void child.kill('SIGKILL'))
      const ended = new Promise((resolve) => child.once('close', resolve))
      let said = ''
      child.stdout.on('data', (chunk) => (said += chunk))
      await until(() => said.includes('ready 1'))
      if (what === 'kill') await one.kill()
      if (what === 'freeze') one.freeze()
      child.stdin.write('go\n')
      const code = await ended
      expect({ code, said }).toEqual({ code: 0, said: 'ready 1\n[]\n' })
    },
  )
})

describe('a process that is told to end', () => {
  /** Whether Redis was back within the 5 s for which it is waited; if it was, what was owed has to be there. */
  async function isDelivered(what: 'frozen' | 'killed'): Promise<boolean> {
    const one = await running(async () => ['--appendonly', 'yes', '--appendfsync', 'always'])
    onTestFinished(() => one.stop())
    const program = `
      import express from 'express'
      import { Redis } from 'ioredis'
      import { rampmeter, redisStore, slidingWindow } from './src/index.ts'
      const given = new Redis(${one.port}, { lazyConnect: true })
      const limiter = rampmeter({ store: redisStore(given), policies: [slidingWindow({ quota: 100, window: '1h' })], processes: 1 })
      await limiter.ready()
      const server = express().listen(0, '127.0.0.1')
      const who = { client: { id: 'key:one' } }
      let decision
      do decision = await limiter.decide(who)
      while (decision.degraded)
      process.once('SIGTERM', () => {
        server.close(async () => {
          const began = performance.now()
          await limiter.close()
          given.disconnect()
          console.log('closed ' + Math.round(performance.now() - began))
        })
      })
      process.stdin.once('data', async () => {
        process.stdin.destroy()
        while (limiter.health().store !== 'down') await limiter.decide({ client: { id: 'key:other' } })
        decision.settle(7)
        console.log('owes')
      })
      console.log('ready')
    `
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
      cwd: root,
      stdio: ['pipe', 'pipe', 'ignore'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    const ended = new Promise((resolve) => child.once('close', resolve))
    let said = ''
    child.stdout.on('data', (chunk) => (said += chunk))
    await until(() => said.includes('ready'))
    if (what === 'frozen') one.freeze()
    else await one.kill()
    child.stdin.write('go\n')
    await until(() => said.includes('owes'))
    child.kill('SIGTERM')
    // It waits for Redis, and not only for what was sent.
    await sleep(300)
    expect(said).not.toContain('closed')
    if (what === 'frozen') one.thaw()
    else await one.start()
    // It may have ended before the server was seen to answer.
    expect(await ended).toBe(0)
    const [, closedAfterMs] = /closed (\d+)/.exec(said)!
    if (Number(closedAfterMs) >= 5000) return false

    const redis = new Redis(one.port, { lazyConnect: true })
    const limiter = rampmeter({
      store: redisStore(redis),
      policies: [slidingWindow({ quota: 100, window: '1h' })],
      deadline: '5s',
      processes: 1,
    })
    onTestFinished(async () => {
      await limiter.close()
      redis.disconnect()
    })
    const used = async (): Promise<number> => 100 - (await limiter.peek({ id: 'key:one' })).limits[0]!.remaining
    // Tries before the one that counts may have been charged and taken back.
    await until(async () => (await used()) === 7)
    return true
  }

  it.each(['frozen', 'killed'] as const)(
    'delivers what it owes to a Redis that was %s, when that comes back meanwhile',
    async (what) => {
      // On a machine so busy that it was not, nothing is shown either way.
      for (let tries = 1; !(await isDelivered(what)); tries += 1) expect(tries).toBeLessThan(4)
    },
  )
})

it('ends as docs/operations.md writes it, also where Redis hangs', async () => {
  const one = await running(async () => [])
  onTestFinished(() => one.stop())
  const page = readFileSync(join(root, 'docs', 'operations.md'), 'utf8')
  const [, written = ''] = page.match(/```ts\n(import express(?:(?!```)[^])*SIGTERM[^]*?)```/) ?? []
  const program = written
    .replace("'rampmeter'", "'./src/index.ts'")
    .replace('new Redis()', `new Redis(${one.port})`)
    .replace('listen(3000)', 'listen(0)')
  expect(program).toContain(String(one.port))
  const child = spawn(
    process.execPath,
    ['--import', 'tsx', '--input-type=module', '--eval', `${program}\nawait limiter.ready()\nconsole.log('ready')`],
    { cwd: root, stdio: ['ignore', 'pipe', 'ignore'] },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  const ended = new Promise((resolve) => child.once('close', resolve))
  let said = ''
  child.stdout.on('data', (chunk) => (said += chunk))
  await until(() => said.includes('ready'))
  one.freeze()
  child.kill('SIGTERM')
  // A quit() would wait for as long as Redis hangs: without end.
  expect(await ended).toBe(0)
})

describe('a Redis that evicts', () => {
  async function warningsFor(settings: readonly string[]): Promise<string[]> {
    const one = await running(async () => settings)
    onTestFinished(() => one.stop())
    const heard: string[] = []
    const listen = (warning: Error & { code?: string }): void => void heard.push(`${warning.code}: ${warning.message}`)
    process.on('warning', listen)
    onTestFinished(() => void process.off('warning', listen))
    const given = new Redis(one.port, { lazyConnect: true })
    const limiter = rampmeter({ store: redisStore(given), policies, deadline: '5s' })
    onTestFinished(async () => {
      await limiter.close()
      given.disconnect()
    })
    // An app may make a store for each of its limiters.
    const another = rampmeter({ store: redisStore(given, { prefix: 'another:' }), policies, deadline: '5s' })
    onTestFinished(() => another.close())
    await another.ready()
    await another.decide(who)
    await limiter.ready()
    await limiter.decide(who)
    await one.admin().call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes')
    await until(async () => !(await limiter.decide(who)).degraded)
    // INFO was sent before the decision: what it answered has been read.
    await sleep(50)
    return heard.filter((one1) => one1.startsWith('RAMPMETER_REDIS_EVICTS'))
  }

  it('is told once in a process', async () => {
    const told = await warningsFor(['--maxmemory', '100mb', '--maxmemory-policy', 'allkeys-lru'])
    expect(told).toEqual([expect.stringMatching(/eviction policy allkeys-lru, .* set maxmemory-policy to noeviction/)])
  })

  it.each([[['--maxmemory', '100mb']], [['--maxmemory-policy', 'volatile-ttl']]])(
    'and one that does not is not: %s',
    async (settings) => {
      expect(await warningsFor(settings)).toEqual([])
    },
  )
})

describe('TLS', () => {
  it('is that of the client that was given', async () => {
    const authority = await createAuthority()
    const certificate = await authority.issue()
    const port = await freePort()
    const one = await server()
    onTestFinished(() => one.stop())
    const files = { cert: certificate.cert, key: certificate.key, ca: authority.cert }
    for (const [name, text] of Object.entries(files)) writeFileSync(join(one.folder, `${name}.pem`), text)
    const of = (name: keyof typeof files): string => join(one.folder, `${name}.pem`)
    await one.start([
      '--tls-port',
      String(port),
      '--tls-auth-clients',
      'no',
      '--tls-cert-file',
      of('cert'),
      '--tls-key-file',
      of('key'),
      '--tls-ca-cert-file',
      of('ca'),
    ])
    const decided = async (tls: object, within: '1s' | '30s'): Promise<boolean> => {
      const given = new Redis({ port, host: 'localhost', tls, lazyConnect: true })
      const limiter = rampmeter({ store: redisStore(given), policies, deadline: within })
      onTestFinished(async () => {
        await limiter.close()
        given.disconnect()
      })
      await limiter.ready({ within }).catch(() => {})
      return !(await limiter.decide(who)).degraded
    }
    expect(await decided({ ca: authority.cert }, '30s')).toBe(true)
    // Nobody that it knows has signed this one.
    expect(await decided({}, '1s')).toBe(false)
  })
})

describe('a group of servers', () => {
  it.each(
    scenarios.filter(({ name }) =>
      /^(Sentinel|Cluster): (the master is killed|a master is killed|slots move)/.test(name),
    ),
  )('$name: it heals, and no more are admitted than may be', async ({ run }) => {
    const { over, bound } = await run()
    expect(over).toBeLessThanOrEqual(bound)
  })
})
