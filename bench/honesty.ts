// What `npm run bench:honesty` runs: whether what a refused client is told is true, for one alone and for herds, here and with
// the libraries that people use today, side by side in one run, over HTTP on the loopback address. It starts a Redis of its
// own, and ends it.
//
//   npm run bench:honesty                in about three minutes
//   npm run bench:honesty -- --write     and puts the tables into docs/honesty.md, and the picture beside it
//   npm run bench:honesty -- --quick     only shows that it runs: the numbers say little

import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import { startRedis } from 'rampmeter/testing'
import { App } from './honesty/app.ts'
import { herdClients, type HerdClient } from './honesty/clients.ts'
import { herdFinding, loneFinding, ticketFinding, type HerdFinding } from './honesty/findings.ts'
import { limiters, withTickets } from './honesty/limiters.ts'
import { writeBetween } from './honesty/page.ts'
import { drawHerds } from './honesty/picture.ts'
import { playHerd, playLone, type Played } from './honesty/play.ts'
import { seeded } from './honesty/random.ts'
import { full, limitOf, loneLimit, quick, type Plan } from './honesty/settings.ts'
import { herdTable, loneTable, ratioTable, ticketTable } from './honesty/tables.ts'

const { values: wish } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } })
if (wish.quick && wish.write)
  throw new Error('--quick measures too little to be written down: leave out --quick or --write')

/** The herds that the picture shows. */
const drawn = { herd: 100, client: 'as told' }

const pace = wish.quick ? quick : full
const redis = await startRedis()
if (redis.from === 'url')
  throw new Error('the bench needs a Redis of its own: install redis-server, valkey-server or Docker')
const apps = await Promise.all(limiters.map((limiter) => App.start(limiter, redis.url)))
const ticketed = await App.start(withTickets, redis.url)
const loadBefore = loadavg()[0]!
const said: string[] = []
try {
  say(await ground())
  if (!wish.quick) await warmUp()
  const lone = await Promise.all(apps.map(playLoneClients))
  section('Alone', loneTable(lone.map(loneFinding)))

  const alone = await playAll(apps, pace.alone, false)
  section('Herds', herdTable(findingsOf(alone)))
  section('Herds, beside the best peer', ratioTable(findingsOf(alone)))

  const crowded = await playAll(apps, pace.crowded, true)
  section('Herds, with new traffic meanwhile', herdTable(findingsOf(crowded)))
  section('Herds with new traffic, beside the best peer', ratioTable(findingsOf(crowded)))
  const reserved = await playAll([ticketed], pace.ticketed, true)
  section('Tickets, with new traffic meanwhile', ticketTable(alikeOf(reserved).map(ticketFinding)))
  say(`Load average: ${loadBefore.toFixed(1)} at the start, ${loadavg()[0]!.toFixed(1)} at the end.`)

  if (wish.write) {
    writeBetween('honesty', said.join('\n\n'))
    const shown = alone.filter(({ limit, client }) => limit.herd === drawn.herd && client === drawn.client)
    writeFileSync(new URL('../docs/pictures/honesty.svg', import.meta.url), drawHerds(shown))
  }
} finally {
  for (const app of [...apps, ticketed]) app.stop()
  await redis.stop()
}

function say(text: string): void {
  said.push(text)
  console.log(`${text}\n`)
}

function section(title: string, text: string): void {
  say(`### ${title}\n\n${text}`)
}

/** Code is compiled and connections to Redis are open before anything counts. */
async function warmUp(): Promise<void> {
  await Promise.all(apps.map((app) => playHerd(app, herdClients[0]!, loneLimit, false)))
}

async function playLoneClients(app: App, index: number): Promise<Played[]> {
  // Not at the same moments as at the other apps.
  await pause(30 * index)
  const random = seeded(2)
  const plays: Promise<Played>[] = []
  for (let count = 0; count < pace.lone; count += 1) {
    plays.push(playLone(app, loneLimit, random() * loneLimit.windowMs * 0.9))
    await pause(150)
  }
  return Promise.all(plays)
}

/** Plays herds that begin one after the other, each at another limiter than the one before. */
async function playAll(among: readonly App[], plans: readonly Plan[], crowded: boolean): Promise<Played[]> {
  const plays: Promise<Played>[] = []
  for (const { herd, clients, repeats, apartMs } of plans) {
    // A thousand at once would be in the way of those who wait for a moment.
    if (herd === 1000) await Promise.all(plays)
    for (const client of clients.map(clientNamed)) {
      for (let count = 0; count < repeats; count += 1) {
        for (const app of among) {
          plays.push(playHerd(app, client, limitOf(herd), crowded))
          await pause(apartMs)
        }
      }
    }
  }
  return Promise.all(plays)
}

/** By size, client and limiter, in the order in which they were played. */
function findingsOf(played: readonly Played[]): HerdFinding[] {
  return alikeOf(played).map(herdFinding)
}

/** Those that differ in nothing but their addresses. */
function alikeOf(played: readonly Played[]): Played[][] {
  const alike = new Map<string, Played[]>()
  for (const one of played) {
    const name = `${one.limit.name}/${one.client}/${one.limiter.name}`
    alike.set(name, [...(alike.get(name) ?? []), one])
  }
  return [...alike.values()]
}

function clientNamed(name: string): HerdClient {
  return herdClients.find((client) => client.name === name)!
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}

/** What it ran on. */
async function ground(): Promise<string> {
  const packages = ['express', 'express-rate-limit', 'rate-limit-redis', 'rate-limiter-flexible', 'got', 'ky', 'undici']
  const facts = [
    `${cpus().length} cores (${cpus()[0]!.model.trim()})`,
    `Node ${process.versions.node}`,
    await serverName(),
    ...packages.map((name) => `${name} ${versionOf(name)}`),
  ]
  return `${facts.join(', ')}.`
}

async function serverName(): Promise<string> {
  const connection = new Redis(redis.url)
  const info = await connection.info('server')
  await connection.quit()
  const valkey = /^valkey_version:(.+)$/m.exec(info)?.[1]
  return valkey ? `Valkey ${valkey.trim()}` : `Redis ${/^redis_version:(.+)$/m.exec(info)![1]!.trim()}`
}

function versionOf(name: string): string {
  const path = new URL(`../node_modules/${name}/package.json`, import.meta.url)
  return (JSON.parse(readFileSync(path, 'utf8')) as { version: string }).version
}
