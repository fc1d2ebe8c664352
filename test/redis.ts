// Redis for our own tests: a real server, running the production scripts. Where a test needs to turn its clock, the server
// runs under libfaketime, which answers every gettimeofday() from a file.

import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { runServer } from '../src/testing/redis-server.ts'
import { startRedis, type TestRedis } from '../src/testing/start-redis.ts'

/**
 * A Redis for tests that need no clock: the one that `REDIS_URL` names if it is set, else one of our own. Others may use it
 * too, so take key prefixes of your own and flush nothing.
 */
export function startTestRedis(): Promise<TestRedis> {
  const url = process.env['REDIS_URL']
  return startRedis(url ? { url } : {})
}

/** A Redis whose time stands still until the test turns it: `TIME`, in scripts too, and the expiry of keys. */
export interface RedisWithClock {
  readonly url: string
  readonly port: number
  /** What its clock shows, in microseconds since 1970. */
  timeUs(): number
  /** Sets its clock, exact to the microsecond, back too. The next command sees it. */
  setTimeUs(us: number): void
  advanceUs(us: number): void
  stop(): Promise<void>
}

/**
 * Starts one. Needs Debian's packages `redis-server` and `libfaketime`, which `RAMPMETER_REDIS_SERVER` and
 * `RAMPMETER_FAKETIME` may name elsewhere.
 */
export async function startRedisWithClock(startUs = Date.UTC(2026, 0, 1) * 1000): Promise<RedisWithClock> {
  let clock = ''
  let shown = startUs

  function setTimeUs(us: number): void {
    if (!Number.isSafeInteger(us) || us < 0) throw new TypeError(`a clock was set to ${us} µs`)
    writeFileSync(`${clock}.next`, faketimeLine(us))
    // In one step, so that the server never reads half a line.
    renameSync(`${clock}.next`, clock)
    shown = us
  }

  // The C library once more: jemalloc asks for the time before libfaketime can tell it, so its malloc has to stand back.
  const libraries = [findLibrary('libfaketime.so.1', process.env['RAMPMETER_FAKETIME']), findLibrary('libc.so.6')]
  const server = await runServer(process.env['RAMPMETER_REDIS_SERVER'] || 'redis-server', {
    // In memory the clock turns three times as fast as on disk.
    within: existsSync('/dev/shm') ? '/dev/shm' : tmpdir(),
    prepare(folder) {
      clock = join(folder, 'clock')
      setTimeUs(shown)
      return {
        LD_PRELOAD: libraries.join(' '),
        FAKETIME_TIMESTAMP_FILE: clock,
        FAKETIME_NO_CACHE: '1',
        // Redis's event loop keeps its own pace.
        DONT_FAKE_MONOTONIC: '1',
        FAKETIME_DONT_FAKE_MONOTONIC: '1',
        TZ: 'UTC',
      }
    },
    leftovers: (pid) => [`/dev/shm/faketime_shm_${pid}`, `/dev/shm/sem.faketime_sem_${pid}`],
  })
  return {
    url: `redis://127.0.0.1:${server.port}`,
    port: server.port,
    timeUs: () => shown,
    setTimeUs,
    advanceUs: (us) => setTimeUs(shown + us),
    stop: () => server.stop(),
  }
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
