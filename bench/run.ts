// What `npm run bench` runs: what a decision and a request cost, here and with the libraries that people use today, side by
// side in one run. It starts a Redis of its own, and ends it.
//
//   npm run bench                in about three minutes
//   npm run bench -- --write     and puts the tables into docs/performance.md
//   npm run bench -- --quick     only shows that it runs: the numbers say little

import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { startRedis } from 'rampmeter/testing'
import { decisionsInMemory, decisionsOnRedis } from './decisions.ts'
import { dimensionsOf } from './dimensions.ts'
import { requests } from './http.ts'
import { full, quick } from './pace.ts'
import { RedisMeter } from './redis-meter.ts'
import { dimensionTable, httpTable, memoryTable, redisTable } from './report.ts'

const { values: wish } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } })
if (wish.quick && wish.write)
  throw new Error('--quick measures too little to be written down: leave out --quick or --write')

const pace = wish.quick ? quick : full
const redis = await startRedis()
if (redis.from === 'url')
  throw new Error('the bench needs a Redis of its own: install redis-server, valkey-server or Docker')
const meter = new RedisMeter(redis.url)
const loadBefore = loadavg()[0]!
const said: string[] = []
say(await ground())

section(
  'Decisions on Redis, 64 in flight',
  redisTable(await decisionsOnRedis(redis.url, meter, pace, { inFlight: 64, sliceMs: pace.redisMs })),
)
section(
  'Decisions on Redis, one at a time',
  redisTable(await decisionsOnRedis(redis.url, meter, pace, { inFlight: 1, sliceMs: pace.aloneMs })),
)
section('Decisions in memory', memoryTable(await decisionsInMemory(pace)))
section('Dimensions, in memory', dimensionTable(await dimensionsOf(pace)))
section('Dimensions, on Redis', dimensionTable(await dimensionsOf(pace, { url: redis.url, meter })))
section('Requests to an Express 5 app, counted on Redis', httpTable(await requests(redis.url, meter, pace)))
say(`Load average: ${loadBefore.toFixed(1)} at the start, ${loadavg()[0]!.toFixed(1)} at the end.`)

await meter.close()
await redis.stop()
if (wish.write) write(said.join('\n\n'))

function say(text: string): void {
  said.push(text)
  console.log(`${text}\n`)
}

function section(title: string, text: string): void {
  say(`### ${title}\n\n${text}`)
}

/** What it ran on. */
async function ground(): Promise<string> {
  const packages = ['express', 'ioredis', 'express-rate-limit', 'rate-limit-redis', 'rate-limiter-flexible']
  const facts = [
    `${cpus().length} cores (${cpus()[0]!.model.trim()})`,
    `Node ${process.versions.node}`,
    await meter.name(),
    ...packages.map((name) => `${name} ${versionOf(name)}`),
  ]
  return `${facts.join(', ')}; medians of ${pace.rounds} rounds.`
}

function versionOf(name: string): string {
  const path = new URL(`../node_modules/${name}/package.json`, import.meta.url)
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version
}

function write(tables: string): void {
  const page = new URL('../docs/performance.md', import.meta.url)
  const text = readFileSync(page, 'utf8')
  const [begin, end] = ['<!-- bench: begin -->', '<!-- bench: end -->']
  const from = text.indexOf(begin)
  const to = text.indexOf(end)
  if (from === -1 || to < from) throw new Error(`docs/performance.md lacks ${begin} and ${end}`)
  writeFileSync(page, `${text.slice(0, from)}${begin}\n\n${tables}\n\n${text.slice(to)}`)
}
