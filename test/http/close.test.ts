// What keeps a process alive: nothing of ours after `close()`, nor before it without a store of its own.

import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { testRedis } from './stores.ts'

const root = fileURLToPath(new URL('../..', import.meta.url))

/** Runs a program that imports the sources, and tells how it ended by itself; after so many ms it is ended, and told so. */
async function run(program: string, withinMs = 90_000): Promise<{ ended: string; said: string; errors: string }> {
  const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', program], {
    cwd: root,
    env: { ...process.env, NODE_ENV: 'production' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  let errors = ''
  child.stdout.on('data', (chunk) => (said += chunk))
  child.stderr.on('data', (chunk) => (errors += chunk))
  const timer = setTimeout(() => child.kill('SIGKILL'), withinMs)
  const ended = await new Promise<string>((resolve) =>
    child.on('close', (code, signal) => resolve(signal === null ? `exit ${code}` : `killed by ${signal}`)),
  )
  clearTimeout(timer)
  return { ended, said, errors }
}

const serveOnce = `
  import express from 'express'
  import { rampmeter, memoryStore, redisStore } from './src/index.ts'
  async function serveOnce(limiter) {
    const app = express().use(limiter).get('/', (req, res) => { req.rateLimit.settle(2); res.end('ok') })
    const server = app.listen(0)
    await new Promise((resolve) => server.once('listening', resolve))
    const reply = await fetch('http://127.0.0.1:' + server.address().port, { headers: { connection: 'close' } })
    console.log(reply.status, reply.headers.get('ratelimit'))
    await new Promise((resolve) => server.close(resolve))
  }
`

describe('a process', () => {
  it('ends by itself with a limiter in memory, though nobody closed it', async () => {
    const program = `${serveOnce}
      const limiter = rampmeter()
      await serveOnce(limiter)
      await limiter.decide({ client: { id: 'key:a', tier: 'agent' } })

    `
    const { ended, said, errors } = await run(program)
    expect({ ended, errors }).toEqual({ ended: 'exit 0', errors: '' })
    expect(said).toMatch(/^200 "per-minute";r=59/)
  })

  it('ends by itself with an adaptive limiter, though nobody closed it', async () => {
    const program = `${serveOnce}
      import { adaptive } from './src/index.ts'
      await serveOnce(rampmeter({ adaptive: adaptive({ every: '100ms', sample: () => new Promise(() => {}) }) }))
    `
    const { ended, said } = await run(program)
    expect(ended).toBe('exit 0')
    expect(said).toMatch(/^200 "per-minute";r=/)
  })

  it('ends by itself once its limiter on Redis is closed, and the app’s own client', async () => {
    const { url } = await testRedis()
    const program = `${serveOnce}
      import { Redis } from 'ioredis'
      const redis = new Redis(${JSON.stringify(url)})
      const limiter = rampmeter({ store: redisStore(redis, { prefix: 'close-${process.pid}:' }), deadline: '10s' })
      await limiter.ready()
      await serveOnce(limiter)
      await limiter.close()
      console.log(redis.status, await redis.ping())
      await redis.quit()
    `
    const { ended, said, errors } = await run(program)
    expect({ ended, errors }).toEqual({ ended: 'exit 0', errors: '' })
    expect(said).toMatch(/^200 "per-minute";r=59.*\nready PONG\n$/)
  })

  it('ends by itself once its limiter is closed, though its Redis never came', async () => {
    const program = `${serveOnce}
      import { Redis } from 'ioredis'
      const redis = new Redis(1, { lazyConnect: true })
      redis.on('error', () => {})
      const limiter = rampmeter({ store: redisStore(redis) })
      const another = rampmeter({ store: redisStore(redis) })
      await another.decide({ client: { id: 'key:one', tier: 'agent' } })
      await another.close()
      await serveOnce(limiter)
      await limiter.close()
      console.log('closed')
    `
    const { ended, said, errors } = await run(program)
    expect(ended).toBe('exit 0')
    // The outage is told, once in a process.
    expect(errors.match(/RAMPMETER_\w+\] RampmeterWarning: the store is away/g)).toEqual([
      'RAMPMETER_STORE_UNAVAILABLE] RampmeterWarning: the store is away',
    ])
    expect(said).toBe('200 null\nclosed\n')
  })
})
