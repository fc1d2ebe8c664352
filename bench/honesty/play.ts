import { Agent } from 'undici'
import type { App } from './app.ts'
import { askOnce, until, type HerdClient } from './clients.ts'
import { callField, type Seen } from './log.ts'
import { seeded } from './random.ts'
import type { HerdLimit } from './settings.ts'

/** What a client and a limiter made of each other, as the server saw it. */
export interface Played {
  readonly limiter: App['limiter']
  readonly client: string
  readonly limit: HerdLimit
  readonly seen: readonly Seen[]
}

let clients = 0

/** Whose requests these are: nobody had this address before. */
function newAddress(): string {
  clients += 1
  return `198.51.${clients >> 8}.${clients & 255}`
}

/** Uses the quota up with requests that come at once. */
async function useUp(agent: Agent, url: string, address: string, quota: number): Promise<void> {
  const waits = await Promise.all(
    Array.from({ length: quota }, () => askOnce(agent, url, { 'x-forwarded-for': address, [callField]: 'fill' })),
  )
  if (waits.some((wait) => wait !== null)) throw new Error(`${url} refused within the quota`)
}

/** A herd of one client comes at once, when its quota has just been used up. */
export async function playHerd(app: App, client: HerdClient, limit: HerdLimit, crowded: boolean): Promise<Played> {
  const address = newAddress()
  const url = app.urlOf(limit)
  const agent = new Agent()
  const { get, close } = client.open()
  await useUp(agent, url, address, limit.quota)
  const over = new AbortController()
  const crowd = crowded ? newTraffic(agent, url, address, limit, over.signal) : undefined
  // Who gives up is seen in the server's log, as a call without an answer of 200.
  await Promise.allSettled(
    Array.from({ length: limit.herd }, (_, index) =>
      get(url, { 'x-forwarded-for': address, [callField]: `herd-${index}` }),
    ),
  )
  over.abort()
  await crowd
  await Promise.all([close(), agent.close()])
  return { limiter: app.limiter, client: client.name, limit, seen: await app.log(address) }
}

/** Requests of the same client at random times, half as many as the quota allows, that are never repeated. */
async function newTraffic(
  agent: Agent,
  url: string,
  address: string,
  { quota, windowMs }: HerdLimit,
  over: AbortSignal,
): Promise<void> {
  const random = seeded(1)
  const gapMs = (windowMs / quota) * 2
  const under: Promise<unknown>[] = []
  let at = performance.now()
  for (let index = 0; ; index += 1) {
    at += -Math.log(1 - random()) * gapMs
    await until(at)
    if (over.aborted) break
    under.push(askOnce(agent, url, { 'x-forwarded-for': address, [callField]: `new-${index}` }))
  }
  await Promise.all(under)
}

/** One client asks, some time after its quota was used up, until it is refused, waits exactly as told, and asks again. */
export async function playLone(app: App, limit: HerdLimit, afterMs: number): Promise<Played> {
  const address = newAddress()
  const url = app.urlOf(limit)
  const agent = new Agent()
  await useUp(agent, url, address, limit.quota)
  await until(performance.now() + afterMs)
  const headers = { 'x-forwarded-for': address, [callField]: 'herd-0' }
  // A bucket has refilled a little by now.
  let told = await askOnce(agent, url, headers)
  while (told === null) told = await askOnce(agent, url, headers)
  await until(performance.now() + told.waitMs)
  await askOnce(agent, url, told.headers)
  await agent.close()
  return { limiter: app.limiter, client: 'as told', limit, seen: await app.log(address) }
}
