// A redis-server that a test may kill, freeze and start again at the same address.

import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { Redis } from 'ioredis'
import { onTestFinished } from 'vitest'
import { killWithProcess } from '../../src/testing/kill-with-process.ts'
import { untilItAnswers } from '../../src/testing/redis-server.ts'

export interface RedisProcess {
  readonly url: string
  start(): Promise<void>
  /** Ends it at once, as a crash would: nothing is kept. */
  kill(): Promise<void>
  /** Stops it without closing its connections: it takes bytes and answers none. */
  freeze(): void
  thaw(): void
}

/** An address for one, where nothing listens yet. It is gone when the test is over. */
export async function redisProcess(): Promise<RedisProcess> {
  const port = await freePort()
  let child: ChildProcess | undefined
  let forget = (): void => {}

  async function kill(): Promise<void> {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = once(child, 'exit')
    child.kill('SIGKILL')
    child = undefined
    await ended
    forget()
  }
  onTestFinished(kill)

  return {
    url: `redis://127.0.0.1:${port}`,
    async start() {
      const program = process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server'
      const options = ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no']
      const started = spawn(program, options, { stdio: 'ignore' })
      child = started
      forget = killWithProcess(() => started.kill('SIGKILL'), ['kill', '-9', String(started.pid)])
      const runs = (): boolean => started.exitCode === null && started.signalCode === null
      if ((await untilItAnswers(port, undefined, runs)) === 'silent')
        throw new Error(`${program} did not answer on port ${port}`)
    },
    kill,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
  }
}

/** A client of it that does not complain while it is away. */
export function clientOf({ url }: RedisProcess): Redis {
  const redis = new Redis(url)
  redis.on('error', () => {})
  onTestFinished(() => redis.disconnect())
  return redis
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}
