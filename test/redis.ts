// Redis for our own tests: a real server, running the production scripts. Where a test needs to turn its clock, the server
// runs under libfaketime, which answers every gettimeofday() from a file.

import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runServer, type Surroundings } from '../src/testing/redis-server.ts'
import { startRedis, type TestRedis } from '../src/testing/start-redis.ts'

/**
 * A Redis for tests that need no clock: the one that `REDIS_URL` names if it is set, else one of our own. Others may use it
 * too, so take key prefixes of your own and flush nothing.
 */
export function startTestRedis(): Promise<TestRedis> {
  const url = process.env['REDIS_URL']
  return startRedis(url ? { url } : {})
}

/** A clock that stands still until the test turns it. */
export interface ServerClock {
  /** What it shows, in microseconds since 1970. */
  timeUs(): number
  /** Sets it, exact to the microsecond, back too. The next command sees it. */
  setTimeUs(us: number): void
  advanceUs(us: number): void
}

/** A Redis that goes by such a clock: `TIME`, in scripts too, and the expiry of keys. */
export interface RedisWithClock extends ServerClock {
  readonly url: string
  readonly port: number
  stop(): Promise<void>
}

/**
 * Makes a clock, and what every server that is to go by it needs around it. The clock is a file in the folder of the first of
 * them. Needs Debian's package `libfaketime`, which `RAMPMETER_FAKETIME` may name elsewhere.
 */
export function serverClock(startUs: number): ServerClock & { readonly around: Surroundings } {
  let file: string | undefined
  let shown = startUs

  function setTimeUs(us: number): void {
    if (!Number.isSafeInteger(us) || us < 0) throw new TypeError(`a clock was set to ${us} µs`)
    writeFileSync(`${file}.next`, faketimeLine(us))
    // In one step, so that no server ever reads half a line.
    renameSync(`${file}.next`, file!)
    shown = us
  }

  // The C library once more: jemalloc asks for the time before libfaketime can tell it, so its malloc has to stand back.
  const libraries = [findLibrary('libfaketime.so.1', process.env['RAMPMETER_FAKETIME']), findLibrary('libc.so.6')]
  return {
    timeUs: () => shown,
    setTimeUs,
    advanceUs: (us) => setTimeUs(shown + us),
    around: {
      // In memory the clock turns three times as fast as on disk.
      within: existsSync('/dev/shm') ? '/dev/shm' : tmpdir(),
      prepare(folder) {
        if (file === undefined || !existsSync(file)) {
          file = join(folder, 'clock')
          setTimeUs(shown)
        }
        return {
          LD_PRELOAD: libraries.join(' '),
          FAKETIME_TIMESTAMP_FILE: file,
          FAKETIME_NO_CACHE: '1',
          // Redis's event loop keeps its own pace.
          DONT_FAKE_MONOTONIC: '1',
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
          TZ: 'UTC',
        }
      },
      leftovers: (pid) => [`/dev/shm/faketime_shm_${pid}`, `/dev/shm/sem.faketime_sem_${pid}`],
    },
  }
}

/** Starts one. Needs Debian's package `redis-server` besides, which `RAMPMETER_REDIS_SERVER` may name elsewhere. */
export async function startRedisWithClock(startUs = Date.UTC(2026, 0, 1) * 1000): Promise<RedisWithClock> {
  const { around, ...clock } = serverClock(startUs)
  const server = await runServer(process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server', around)
  const { port } = server
  return { ...clock, url: `redis://127.0.0.1:${port}`, port, stop: () => server.stop() }
}

/** What libfaketime reads as that time: half a microsecond is added, since it rounds the fraction down through a double. */
function faketimeLine(us: number): string {
  const seconds = new Date(Math.floor(us / 1_000_000) * 1000).toISOString().slice(0, 19).replace('T', ' ')
  return `${seconds}.${String(us % 1_000_000).padStart(6, '0')}5\n`
}

function findLibrary(file: string, given?: string): string {
  if (given) return given
  const machines = existsSync('/usr/lib') ? readdirSync('/usr/lib').filter((name) => name.endsWith('-linux-gnu')) : []
  const folders = machines.map((machine) => join('/usr/lib', machine))
  const found = [
    ...folders.map((folder) => join(folder, 'faketime')),
    ...folders,
    '/usr/lib/faketime',
    '/usr/lib64/faketime',
  ]
    .map((folder) => join(folder, file))
    .find((path) => existsSync(path))
  if (!found)
    throw new Error(`${file} is not in /usr/lib: install Debian's package faketime, or set RAMPMETER_FAKETIME`)
  return found
}
