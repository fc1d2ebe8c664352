import { execFile, spawnSync } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { connect } from 'node:net'
import { promisify } from 'node:util'
import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { killWithProcess } from './kill-with-process.ts'
import { runServer, untilItAnswers, type RunningServer } from './redis-server.ts'

/** Where `startRedis` takes its Redis from. */
export interface StartRedisOptions {
  /** Use the Redis at this address (`redis://…`, `rediss://…`) and start none. Default: none. */
  url?: string
  /** The `redis-server` or `valkey-server` to run: a name on the PATH, or a path. Default: `RAMPMETER_REDIS_SERVER`. */
  server?: string
  /** The image for Docker. Default `redis:7`. */
  image?: string
}

/** A Redis for a test run. */
export interface TestRedis {
  /** What `new Redis(url)` takes. */
  readonly url: string
  readonly port: number
  /** Where it came from: started from a program, started in Docker, or one that was there. */
  readonly from: 'server' | 'docker' | 'url'
  /** Ends what was started, and deletes its data. Does nothing to a Redis that was there. */
  stop(): Promise<void>
}

const optionsSchema = z.strictObject({
  url: z
    .string()
    .refine((url) => redisUrl(url) !== undefined, 'a URL such as "redis://127.0.0.1:6379"')
    .optional(),
  server: z.string().min(1).optional(),
  image: z.string().min(1).default('redis:7'),
})

/**
 * Gives a test run a real Redis: empty, without persistence, on a free port of 127.0.0.1, gone when the process is, even if
 * that is killed.
 *
 * The first of these that is there:
 *
 * 1. `options.url`, if given.
 * 2. The program that `options.server` or the environment variable `RAMPMETER_REDIS_SERVER` names.
 * 3. `redis-server`, then `valkey-server`, on the PATH.
 * 4. Docker: `docker run redis:7`.
 * 5. The Redis that the environment variable `REDIS_URL` names. It comes last because it may hold somebody's data: use
 *    key prefixes of your own there, and do not flush it.
 *
 * @throws {RampmeterError} `RAMPMETER_NO_REDIS` says what was tried and what to install; `RAMPMETER_INVALID_OPTION`,
 *   `RAMPMETER_UNKNOWN_OPTION`
 *
 * @example
 * const server = await startRedis()
 * const redis = new Redis(server.url)
 * // … tests …
 * await redis.quit()
 * await server.stop()
 */
export async function startRedis(options: StartRedisOptions = {}): Promise<TestRedis> {
  const { url, server: named, image } = readOptions(optionsSchema, options, 'startRedis')
  if (url !== undefined) return await redisAt(url)

  const tried: string[] = []
  const server = named ?? process.env['RAMPMETER_REDIS_SERVER']
  for (const program of server ? [server] : ['redis-server', 'valkey-server']) {
    try {
      return running('server', await runServer(program))
    } catch (error) {
      tried.push((error as NodeJS.ErrnoException).code === 'ENOENT' ? `${program} is not on the PATH` : say(error))
      if (server)
        throw noRedis(tried, `Check the program that ${named ? '`server`' : 'RAMPMETER_REDIS_SERVER'} names`, error)
    }
  }

  try {
    return running('docker', await runContainer(image))
  } catch (error) {
    tried.push(
      (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'docker is not on the PATH' : `docker: ${say(error)}`,
    )
  }

  const present = process.env['REDIS_URL']
  if (present && redisUrl(present)) return await redisAt(present)
  tried.push(present ? 'REDIS_URL is not a URL such as "redis://127.0.0.1:6379"' : 'REDIS_URL is not set')
  throw noRedis(
    tried,
    'Install a server (Debian and Ubuntu: `apt-get install redis-server`; macOS: `brew install redis`), or start Docker, or set REDIS_URL',
  )
}

/** How long a server may take to accept a connection, in ms. */
const connectWithinMs = 5000

function running(from: 'server' | 'docker', server: RunningServer): TestRedis {
  return { url: `redis://127.0.0.1:${server.port}`, port: server.port, from, stop: () => server.stop() }
}

/** A server that somebody else runs; it must be there, or every test would fail for a reason that is hard to see. */
async function redisAt(url: string): Promise<TestRedis> {
  const { hostname, port: told } = new URL(url)
  const port = Number(told || 6379)
  const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port, timeout: connectWithinMs })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve())
      socket.once('timeout', () => reject(new Error('it did not answer in time')))
      socket.once('error', reject)
    })
  } catch (error) {
    throw noRedis([`nothing answers at the given URL (${say(error)})`], 'Start it, or check the URL', error)
  } finally {
    socket.destroy()
  }
  return { url, port, from: 'url', stop: async () => {} }
}

function redisUrl(text: string): URL | undefined {
  return URL.canParse(text) && /^rediss?:/i.test(text) ? new URL(text) : undefined
}

function noRedis(tried: readonly string[], advice: string, cause?: unknown): RampmeterError {
  return new RampmeterError('RAMPMETER_NO_REDIS', `no Redis could be started: ${tried.join('; ')}. ${advice}`, {
    cause,
  })
}

/** The last line that a program wrote, or an error's own message. */
function say(error: unknown): string {
  const { stderr, message } = error as { stderr?: string; message: string }
  return stderr?.trim().split('\n').at(-1) || message
}

const exec = promisify(execFile)

/** Long enough to pull the image over a slow line. */
const dockerDeadlineMs = 300_000

async function runContainer(image: string): Promise<RunningServer> {
  // Fails within a second where the program is there and its daemon is not.
  await exec('docker', ['version'], { timeout: 10_000 })
  const name = `rampmeter-test-${randomUUID()}`
  const remove = ['docker', 'rm', '--force', '--volumes', name] as const
  const forget = killWithProcess(() => {
    spawnSync(remove[0], remove.slice(1), { stdio: 'ignore', timeout: 10_000 })
  }, remove)

  async function stop(): Promise<void> {
    await exec(remove[0], remove.slice(1)).finally(forget)
  }

  try {
    // Without a host port Docker picks one that is free.
    const published = ['--publish', '127.0.0.1::6379']
    await exec('docker', ['run', '--rm', '--detach', '--name', name, ...published, image], {
      timeout: dockerDeadlineMs,
    })
    const { stdout } = await exec('docker', ['port', name, '6379/tcp'], { timeout: 10_000 })
    const port = Number(stdout.trim().split(':').at(-1))
    if ((await untilItAnswers(port)) === 'silent') throw new Error(`${image} did not answer on port ${port}`)
    return { port, stop }
  } catch (error) {
    await stop().catch(() => {})
    throw error
  }
}
