// What `npm run bench` runs: what a decision and a request cost, here and with the libraries that people use today, side by
// side in one run. It starts a Redis of its own, and ends it.
//
//   npm run bench                              in about a quarter of an hour
//   npm run bench -- --write                   and puts tables and picture into docs/performance.md
//   npm run bench -- --only decisions,http     only some of it: see sections.ts
//   npm run bench -- --quick                   only shows that it runs: the numbers say little

import { readFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { startRedis } from 'rampmeter/testing'
import { goalTable, type Findings } from './goals.ts'
import { full, quick } from './pace.ts'
import { write } from './page.ts'
import { RedisMeter } from './redis-meter.ts'
import { sections } from './sections.ts'

const { values: wish } = parseArgs({
  options: { quick: { type: 'boolean' }, write: { type: 'boolean' }, only: { type: 'string' } },
})
if (wish.write && (wish.quick || wish.only !== undefined))
  throw new Error('what is written down is the whole page, measured in full: leave out --quick and --only, or --write')
const wanted = wish.only?.split(',') ?? Object.keys(sections)
const unknown = wanted.find((name) => !Object.hasOwn(sections, name))
if (unknown !== undefined) throw new Error(`--only names "${unknown}"; there are ${Object.keys(sections).join(', ')}`)

const pace = wish.quick ? quick : full
const redis = await startRedis()
if (redis.from === 'url')
  throw new Error('the bench needs a Redis of its own: install redis-server, valkey-server or Docker')
const meter = new RedisMeter(redis.url)
const loadBefore = loadavg()[0]!
const begun = performance.now()
const findings: Findings = {}
const said: string[] = []
try {
  const ground = await groundOf()
  console.log(`${ground}\n`)
  for (const name of wanted) {
    await sections[name]!({ redisUrl: redis.url, meter, pace, findings, section })
  }
  const goals = goalTable(findings)
  if (goals !== undefined) console.log(`### Goals\n\n${goals}\n`)
  const minutes = ((performance.now() - begun) / 60_000).toFixed(1)
  const end = `Load average: ${loadBefore.toFixed(1)} at the start, ${loadavg()[0]!.toFixed(1)} at the end, ${minutes} minutes later.`
  console.log(end)
  if (wish.write) write({ ground, goals: goals!, sections: said, end, busy: findings.busy! })
} finally {
  await meter.close()
  await redis.stop()
}

function section(title: string, text: string): void {
  const whole = `### ${title}\n\n${text}`
  said.push(whole)
  console.log(`${whole}\n`)
}

/** What it ran on. */
async function groundOf(): Promise<string> {
  const packages = [
    'express',
    'ioredis',
    'redis',
    'express-rate-limit',
    'rate-limit-redis',
    'rate-limiter-flexible',
    '@upstash/ratelimit',
  ]
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
