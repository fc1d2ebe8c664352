import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { RampmeterError } from '../../src/errors.ts'
import { startRedis } from '../../src/testing/index.ts'
import { runServer } from '../../src/testing/redis-server.ts'

/** Folder of programs that a test writes itself. */
let programs: string

beforeEach(() => {
  programs = mkdtempSync(join(tmpdir(), 'rampmeter-programs-'))
})

afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(programs, { recursive: true, force: true })
})

/** Writes a program into that folder. */
function program(name: string, script: string): string {
  const path = join(programs, name)
  writeFileSync(path, `#!/bin/sh\n${script}\n`)
  chmodSync(path, 0o755)
  return path
}

async function answers(port: number): Promise<boolean> {
  const redis = new Redis(port, '127.0.0.1', { retryStrategy: () => null, lazyConnect: true })
  redis.on('error', () => {})
  try {
    await redis.connect()
    return (await redis.ping()) === 'PONG'
  } catch {
    return false
  } finally {
    redis.disconnect()
  }
}

describe('startRedis', () => {
  it('starts an empty server of its own, and ends it with its files', async () => {
    const server = await startRedis()
    const redis = new Redis(server.url)
    expect(server.url).toBe(`redis://127.0.0.1:${server.port}`)
    expect(await redis.dbsize()).toBe(0)
    expect(await redis.config('GET', 'save')).toEqual(['save', ''])
    const [, folder] = (await redis.config('GET', 'dir')) as [string, string]
    expect(existsSync(folder)).toBe(true)
    redis.disconnect()
    await server.stop()
    expect(await answers(server.port)).toBe(false)
    expect(existsSync(folder)).toBe(false)
    await server.stop()
  })

  it('starts many at once, each on a port of its own', async () => {
    const servers = await Promise.all(Array.from({ length: 6 }, () => startRedis()))
    expect(new Set(servers.map((server) => server.port)).size).toBe(6)
    await Promise.all(servers.map((server) => server.stop()))
  })

  it('runs the program that is named', async () => {
    const real = process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server'
    const named = program('my-redis', `touch ${programs}/was-run; exec ${real} "$@"`)
    const server = await startRedis({ server: named })
    expect(server.from).toBe('server')
    expect(existsSync(join(programs, 'was-run'))).toBe(true)
    await server.stop()

    rmSync(join(programs, 'was-run'))
    vi.stubEnv('RAMPMETER_REDIS_SERVER', named)
    await (await startRedis()).stop()
    expect(existsSync(join(programs, 'was-run'))).toBe(true)
  })

  it('takes another port when the one it picked is taken meanwhile', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    const real = process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server'
    // Its first run gets a port that is taken: the last `--port` counts.
    const unlucky = program(
      'unlucky',
      `if mkdir ${programs}/first 2>/dev/null; then exec ${real} "$@" --port ${port}; else exec ${real} "$@"; fi`,
    )
    const server = await runServer(unlucky)
    expect(existsSync(join(programs, 'first'))).toBe(true)
    expect(server.port).not.toBe(port)
    expect(await answers(server.port)).toBe(true)
    await server.stop()
    other.close()
  })

  it('uses the address given, and leaves what is there alone', async () => {
    const there = await startRedis()
    const server = await startRedis({ url: there.url })
    expect(server).toMatchObject({ url: there.url, port: there.port, from: 'url' })
    await server.stop()
    expect(await answers(there.port)).toBe(true)
    await there.stop()
  })

  it('says so where nothing answers at the address given', async () => {
    await expect(startRedis({ url: 'redis://127.0.0.1:1' })).rejects.toMatchObject({ code: 'RAMPMETER_NO_REDIS' })
  })

  it('uses REDIS_URL where nothing can be started', async () => {
    const there = await startRedis()
    vi.stubEnv('PATH', programs)
    vi.stubEnv('RAMPMETER_REDIS_SERVER', undefined)
    vi.stubEnv('REDIS_URL', there.url)
    expect(await startRedis()).toMatchObject({ url: there.url, port: there.port, from: 'url' })
    await there.stop()
  })

  it('says what it tried and what to install where there is nothing', async () => {
    vi.stubEnv('PATH', programs)
    vi.stubEnv('RAMPMETER_REDIS_SERVER', undefined)
    vi.stubEnv('REDIS_URL', undefined)
    program('docker', 'echo "Cannot connect to the Docker daemon" >&2; exit 1')
    const error = await startRedis().catch((error: unknown) => error)
    expect(error).toBeInstanceOf(RampmeterError)
    expect(error).toMatchObject({ code: 'RAMPMETER_NO_REDIS' })
    for (const said of [
      'redis-server is not on the PATH',
      'valkey-server',
      'Cannot connect to the Docker',
      'REDIS_URL',
    ]) {
      expect((error as Error).message).toContain(said)
    }
    expect((error as Error).message).toContain('apt-get install redis-server')
  })

  it('says why a named program did not start, and tries nothing else', async () => {
    await expect(startRedis({ server: program('broken', 'echo "no good" >&2; exit 3') })).rejects.toThrow(
      /no good.*`server`/,
    )
    await expect(startRedis({ server: join(programs, 'absent') })).rejects.toMatchObject({ code: 'RAMPMETER_NO_REDIS' })
  })

  it('refuses options that are none', async () => {
    await expect(startRedis({ url: 'localhost:6379' })).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_OPTION' })
    await expect(startRedis({ prot: 1 } as object)).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_OPTION' })
  })

  it('asks Docker for a port that is free, and removes its container', async () => {
    // Stands for Docker where no daemon runs: a container is a server of this machine, told by its name.
    const there = await startRedis()
    program('docker', `echo "$@" >> ${programs}/calls; if [ "$1" = port ]; then echo 127.0.0.1:${there.port}; fi`)
    vi.stubEnv('PATH', [programs, '/nowhere'].join(delimiter))
    vi.stubEnv('RAMPMETER_REDIS_SERVER', undefined)
    const server = await startRedis({ image: 'valkey/valkey:8' })
    expect(server).toMatchObject({ from: 'docker', port: there.port })
    await server.stop()
    vi.unstubAllEnvs()
    const calls = readFileSync(join(programs, 'calls'), 'utf8').trim().split('\n')
    const name = /--name (\S+)/.exec(calls[1]!)![1]
    expect(calls).toEqual([
      'version',
      `run --rm --detach --name ${name} --publish 127.0.0.1::6379 valkey/valkey:8`,
      `port ${name} 6379/tcp`,
      `rm --force --volumes ${name}`,
    ])
    await there.stop()
  })
})

describe('a server of ours', () => {
  const source = new URL('../../src/testing/index.ts', import.meta.url).href

  /** Starts a process that starts a server, and returns both once the server runs. */
  async function owner(then: string): Promise<{ end: Promise<unknown>; port: number; kill: () => void }> {
    const child = spawn(
      process.execPath,
      [
        '--import',
        'tsx',
        '--input-type',
        'module',
        '--eval',
        `const { startRedis } = await import(${JSON.stringify(source)})
         const server = await startRedis()
         console.log(server.port)
         ${then}`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const end = once(child, 'exit')
    const [line] = (await once(child.stdout, 'data')) as [Buffer]
    return { end, port: Number(line.toString()), kill: () => child.kill('SIGKILL') }
  }

  async function untilSilent(port: number): Promise<boolean> {
    for (let tries = 0; tries < 100; tries += 1) {
      if (!(await answers(port))) return true
      await sleep(20)
    }
    return false
  }

  it('keeps no process alive, and ends with it', async () => {
    const { end, port } = await owner('')
    expect(await end).toEqual([0, null])
    expect(await untilSilent(port)).toBe(true)
  })

  it('ends when its process throws', async () => {
    const { end, port } = await owner('process.exit(7)')
    expect(await end).toEqual([7, null])
    expect(await untilSilent(port)).toBe(true)
  })

  it('ends when its process is killed', async () => {
    const { end, port, kill } = await owner('setInterval(() => {}, 1000)')
    expect(await answers(port)).toBe(true)
    kill()
    await end
    expect(await untilSilent(port)).toBe(true)
  })
})
