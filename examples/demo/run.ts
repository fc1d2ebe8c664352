// The demo: one API behind two limiters, side by side, and the same visitors at both. `npm run demo` runs it.
//
//   npm run demo                                      counters in memory
//   REDIS_URL=redis://localhost:6379 npm run demo     counters in Redis
//   npm run --silent demo -- --json                   the numbers, for programs
//   npm run demo -- --seconds 30                      longer visits than 12 seconds
//
// Each API, each agent and each crawler is a process of its own; the two persons are played here.

import { fork, type ChildProcess } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import type { FromChild, GuardName, Progress, ToReader } from './messages.ts'
import { Person } from './person.ts'
import { intro, numbers, report, type Visit, type VisitorName } from './report.ts'

const { REDIS_URL } = process.env
const { json, seconds } = parseArgs({
  options: { json: { type: 'boolean', default: false }, seconds: { type: 'string', default: '12' } },
}).values
/** How long the visits take: at least, and at most, if the agent behind the presets has not read all by then. */
const shortestMs = Math.max(1, Number(seconds) || 12) * 1000
const longestMs = Math.max(shortestMs, 45_000)

const agentKey = randomUUID()
const password = randomUUID()
/** Of this run alone: the next one begins with unused quotas. */
const prefix = `rampmeter-demo:${randomUUID().slice(0, 8)}:`

const children: ChildProcess[] = []
let ending = false
let breakOff: (error: Error) => void
const untilOneBreaks = new Promise<never>((_, reject) => (breakOff = reject))
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => void end(signal === 'SIGINT' ? 130 : 143))
}

try {
  await Promise.race([run(), untilOneBreaks])
  await end(0)
} catch (error) {
  if (!ending) {
    console.error(`The demo ended early: ${(error as Error).message}`)
    await end(1)
  }
}

async function run(): Promise<void> {
  const store = REDIS_URL === undefined ? 'memory' : await nameOfRedis(REDIS_URL)
  if (!json) console.log(intro(store, shortestMs))

  const [rampmeter, fixedWindow] = await Promise.all([visit('rampmeter'), visit('fixed-window')])
  const visits = [...rampmeter, ...fixedWindow]
  const startedAt = Date.now()
  const agent = visits[0]!
  for (const { go } of visits) go(startedAt)

  while (Date.now() - startedAt < longestMs) {
    await sleep(250)
    const ranMs = Date.now() - startedAt
    if (ranMs > shortestMs && agent.hasSettled()) break
    if (!json && process.stdout.isTTY) process.stdout.write(`\r  ${Math.floor(ranMs / 1000)} s`)
  }
  const ranMs = Date.now() - startedAt
  if (!json && process.stdout.isTTY) process.stdout.write('\r\x1b[K')

  await Promise.all(visits.map(async ({ visit, leave }) => (visit.progress = await leave())))
  const outcome = { ranMs, store, visits: visits.map(({ visit }) => visit) }
  console.log(json ? JSON.stringify(numbers(outcome), undefined, 2) : report(outcome))
}

/** Somebody who uses the API, until `leave` is called. */
interface Visitor {
  readonly visit: Visit
  readonly go: (startedAt: number) => void
  /** Whether all that it came for is done. */
  readonly hasSettled: () => boolean
  readonly leave: () => Promise<Progress>
}

/** Starts the API behind a guard and everybody who visits it. */
async function visit(guard: GuardName): Promise<Visitor[]> {
  const server = start('serve.ts', {
    GUARD: guard,
    AGENT_KEY: agentKey,
    PASSWORD: password,
    PREFIX: `${prefix}${guard}:`,
  })
  const readers = [
    reader(guard, 'agent', { AGENT_KEY: agentKey, PARALLEL: '20', USER_AGENT: 'acme-research/1.0' }),
    reader(guard, 'crawler', { PARALLEL: '5', USER_AGENT: 'catalog-crawler/1.0' }),
  ] as const
  const { url } = await heard(server, 'listening')
  const [agent, crawler] = await Promise.all(readers.map((ready) => ready(url)))
  return [agent!, await person(guard, url), crawler!]
}

function reader(
  guard: GuardName,
  name: VisitorName,
  settings: Record<string, string>,
): (api: string) => Promise<Visitor> {
  const child = start('agent.ts', settings)
  const visit = newVisit(guard, name)
  let settled = false
  child.on('message', (message: FromChild) => {
    if (message.kind === 'reply') visit.replies.push(message)
    else if (message.kind === 'settled') settled = true
  })
  const ready = heard(child, 'ready')
  return async (api) => {
    await ready
    return {
      visit,
      go: (startedAt) => say(child, { kind: 'go', startedAt, api }),
      hasSettled: () => settled,
      async leave() {
        const progress = heard(child, 'progress')
        say(child, { kind: 'how far' })
        return await progress
      },
    }
  }
}

async function person(guard: GuardName, api: string): Promise<Visitor> {
  const visit = newVisit(guard, 'person')
  const person = await Person.logIn(api, password, (reply) => visit.replies.push(reply))
  return {
    visit,
    go: (startedAt) => void person.click(startedAt),
    hasSettled: () => false,
    leave: async () => person.leave(),
  }
}

function newVisit(guard: GuardName, visitor: VisitorName): Visit {
  return { guard, visitor, replies: [], progress: null }
}

function start(file: string, settings: Record<string, string>): ChildProcess {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const child = fork(path, { env: { ...process.env, ...settings }, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  children.push(child)
  child.once('exit', (code) => {
    if (!ending) breakOff(new Error(`${file} ended with ${code}`))
  })
  return child
}

function say(child: ChildProcess, message: ToReader): void {
  child.send(message)
}

/** The first message of that kind. */
function heard<Kind extends FromChild['kind']>(
  child: ChildProcess,
  kind: Kind,
): Promise<Extract<FromChild, { kind: Kind }>> {
  return new Promise((resolve) => {
    child.on('message', (message: FromChild) => {
      if (message.kind === kind) resolve(message as Extract<FromChild, { kind: Kind }>)
    })
  })
}

/** Ends all processes, forgets what they left in Redis, and then this process. */
async function end(code: number): Promise<void> {
  if (ending) return
  ending = true
  await Promise.all(
    children.map(async (child) => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const ended = once(child, 'exit')
      if (child.connected) child.disconnect()
      const timer = setTimeout(() => child.kill('SIGKILL'), 3000)
      await ended
      clearTimeout(timer)
    }),
  )
  if (REDIS_URL !== undefined) await forget(REDIS_URL).catch(() => {})
  process.exit(code)
}

/** What to call the Redis in the output: never its password. Throws if it does not answer. */
async function nameOfRedis(url: string): Promise<string> {
  const redis = connection(url)
  let cause = ''
  redis.on('error', ({ message }) => (cause = message))
  try {
    await redis.connect()
    const version = /^redis_version:(\S+)/m.exec(await redis.info('server'))?.[1]
    return `Redis ${version} at ${redis.options.host}:${redis.options.port}`
  } catch (error) {
    const why = cause || (error as Error).message
    throw new Error(`REDIS_URL is set, and no Redis answers there (${why})`, { cause: error })
  } finally {
    redis.disconnect()
  }
}

function connection(url: string): Redis {
  return new Redis(url, { lazyConnect: true, retryStrategy: null })
}

async function forget(url: string): Promise<void> {
  const redis = connection(url)
  redis.on('error', () => {})
  await redis.connect()
  for await (const keys of redis.scanStream({ match: `${prefix}*`, count: 1000 })) {
    if (keys.length > 0) await redis.unlink(...(keys as string[]))
  }
  await redis.quit()
}
