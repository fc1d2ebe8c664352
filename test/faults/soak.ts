// What `npm run soak` runs: hours of mixed load in minutes, or for hours, on a Redis of its own. It fails when memory or keys
// grow without end, a key has no expiry, the event loop is held up, or somebody got in beyond a limit.
//
//   npm run soak                        three minutes
//   npm run soak -- --for 4h            longer
//   npm run soak -- --addresses 10000000   and so many addresses that come once, in memory, before that (default: 2 million)

import { setTimeout as sleep } from 'node:timers/promises'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { parseDuration } from '../../src/duration.ts'
import { concurrency } from '../../src/policies/concurrency.ts'
import { failures } from '../../src/policies/failures.ts'
import { slidingLog } from '../../src/policies/sliding-log.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import { uniqueTargets } from '../../src/policies/unique-targets.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import { server } from './server.ts'

const { lastsMs, addresses } = readArguments()
const wrong: string[] = []

await flood()
if (lastsMs > 0) await soak()
if (wrong.length > 0) console.error(`\nWRONG\n${wrong.join('\n')}`)
process.exitCode = wrong.length > 0 ? 1 : 0

function readArguments(): { lastsMs: number; addresses: number } {
  try {
    const { values } = parseArgs({
      options: {
        for: { type: 'string', default: '3m' },
        addresses: { type: 'string', default: '2000000' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    const count = Number(values.addresses)
    if (!Number.isSafeInteger(count) || count < 0) throw new Error('--addresses is no whole number')
    if (!values.help) return { lastsMs: values.for === '0' ? 0 : parseDuration(values.for, '--for'), addresses: count }
  } catch (error) {
    console.error(`${(error as Error).message}\n`)
    process.exitCode = 2
  }
  console.log('npm run soak -- [--for 3m] [--addresses 2000000]')
  console.log('Addresses that come once each, in memory; then mixed load on a Redis of its own, for so long (0: none).')
  process.exit()
}

function must(holds: boolean, otherwise: string): void {
  if (!holds) wrong.push(otherwise)
}

function usedMb(): number {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed / 1e6
}

/** Addresses that each come once: they may neither fill the memory nor make those forgotten who came first. */
async function flood(): Promise<void> {
  const limiter = rampmeter({
    store: memoryStore(),
    policies: [slidingWindow({ name: 'hour', quota: 5, window: '1h' })],
  })
  const first = { client: { id: 'ip:198.51.100.1' } }
  for (let times = 0; times < 5; times += 1) await limiter.decide(first)
  const early = Math.min(addresses, 200_000)
  let early0 = 0
  for (let nth = 0; nth < addresses; nth += 1) {
    await limiter.decide({ client: { id: `ip:10.${(nth >> 16) & 255}.${(nth >> 8) & 255}.${nth & 255}.${nth >> 24}` } })
    if (nth + 1 === early) early0 = usedMb()
    // A second's worth of requests, and then others' turn.
    if (nth % 10_000 === 0) await sleep(0)
  }
  const after = usedMb()
  const { admitted } = await limiter.decide(first)
  await limiter.close()
  console.log(
    `${addresses} addresses in memory: ${early0.toFixed(0)} MB after ${early}, ${after.toFixed(0)} MB after all`,
  )
  must(after < early0 * 1.5 + 50, `memory grew from ${early0.toFixed(0)} to ${after.toFixed(0)} MB with the addresses`)
  must(!admitted, 'whoever came first was let in again beyond the limit')
}

async function soak(): Promise<void> {
  const one = await server()
  await one.start()
  const admin = one.admin()
  const given = new Redis(one.port, { lazyConnect: true })
  const limiter = rampmeter({
    store: redisStore(given, { prefix: 'soak:' }),
    policies: [
      tokenBucket({ name: 'second', quota: 50, window: '1s', burst: 50 }),
      slidingWindow({ name: 'short', quota: 200, window: '10s' }),
      slidingLog({ name: 'log', quota: 100, window: '5s' }),
      concurrency({ name: 'slots', quota: 20, lease: '2s' }),
      uniqueTargets({ name: 'targets', quota: 50, window: '10s' }),
      failures({ name: 'failures', quota: 100, window: '10s' }),
    ],
    deadline: '500ms',
  })
  await limiter.ready()
  const loop = monitorEventLoopDelay({ resolution: 10 })
  loop.enable()
  const admittedBy = new Map<string, number[]>()
  const counts = { asked: 0, admitted: 0, degraded: 0 }
  const samples: { heapMb: number; redisMb: number; keys: number }[] = []
  const startedAt = performance.now()
  const endsAt = startedAt + lastsMs
  const sampleEveryMs = Math.min(5000, lastsMs / 20)
  let nextSampleAt = startedAt + sampleEveryMs
  let newcomer = 0
  // Long enough for all that expires to have done so: from then on nothing may grow.
  const warmMs = Math.min(lastsMs / 2, 90_000)

  while (performance.now() < endsAt) {
    await Promise.all(Array.from({ length: 20 }, (_, nth) => request(nth)))
    await sleep(5)
    if (performance.now() < nextSampleAt) continue
    nextSampleAt += sampleEveryMs
    if (performance.now() - startedAt > warmMs) samples.push(await sample())
  }
  loop.disable()
  await limiter.flush()

  const [half, rest] = [samples.slice(0, samples.length >> 1), samples.slice(samples.length >> 1)]
  const most = (of: typeof samples, what: keyof (typeof samples)[0]): number =>
    Math.max(...of.map((each) => each[what]))
  for (const [what, slack] of [
    ['heapMb', 20],
    ['redisMb', 5],
    ['keys', 500],
  ] as const) {
    const [before, after] = [most(half, what), most(rest, what)]
    console.log(`${what}: at most ${before.toFixed(0)} in the first half, ${after.toFixed(0)} in the second`)
    must(after <= before * 1.2 + slack, `${what} grew from ${before.toFixed(0)} to ${after.toFixed(0)}`)
  }
  const p99 = loop.percentile(99) / 1e6
  console.log(`event loop: ${p99.toFixed(0)} ms late at the 99th percentile, ${(loop.max / 1e6).toFixed(0)} ms at most`)
  console.log(`${counts.asked} requests, ${counts.admitted} admitted, ${counts.degraded} without the store`)
  must(p99 < 100, `the event loop was ${p99.toFixed(0)} ms late at the 99th percentile`)
  for (const [id, times] of admittedBy) {
    const over = times.filter((at, nth) => (times[nth + 100] ?? Infinity) - at < 5_000_000 / 1000 - 500).length
    must(over === 0, `${id} was admitted more than 100 times within 5 s, ${over} times over`)
  }
  await limiter.close()
  // All that was written expires by itself.
  const ttls = await Promise.all((await admin.keys('soak:*')).map((key) => admin.pttl(key)))
  must(
    ttls.every((ttl) => ttl !== -1),
    'a key has no expiry',
  )
  must(
    ttls.every((ttl) => ttl <= 80_000),
    `a key expires only in ${Math.max(0, ...ttls)} ms, over windows of 10 s`,
  )
  given.disconnect()
  await one.stop()

  async function request(nth: number): Promise<void> {
    // Half are the same twenty, who ask too much; half come once.
    const isRegular = nth % 2 === 0
    const id = isRegular ? `key:${nth}` : `ip:newcomer-${(newcomer += 1)}`
    const decision = await limiter.decide({ client: { id }, target: `/${Math.floor(Math.random() * 80)}` })
    counts.asked += 1
    if (decision.degraded) counts.degraded += 1
    if (!decision.admitted) return
    counts.admitted += 1
    if (isRegular) noteAdmitted(id)
    const dice = Math.random()
    if (dice < 0.2) decision.settle({ second: 3 })
    else if (dice < 0.3) decision.refund()
    if (dice < 0.9) decision.release()
    // What was refunded may be used again.
    if (dice >= 0.2 && dice < 0.3 && isRegular) admittedBy.get(id)!.pop()
  }

  function noteAdmitted(id: string): void {
    let times = admittedBy.get(id)
    if (times === undefined) admittedBy.set(id, (times = []))
    times.push(performance.now())
    if (times.length > 10_000) times.splice(0, 5000)
  }

  async function sample(): Promise<(typeof samples)[0]> {
    const memory = /^used_memory:(\d+)/m.exec(await admin.info('memory'))![1]
    return { heapMb: usedMb(), redisMb: Number(memory) / 1e6, keys: await admin.dbsize() }
  }
}
