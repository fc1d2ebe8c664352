// Clients that ask without a pause while something goes wrong, and what became of them.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import type { Cluster, Redis } from 'ioredis'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { Limiter } from '../../src/limiter.ts'

export const deadlineMs = 50
/** What the limit divides by; one of them runs. */
export const processes = 2

export interface Load {
  readonly limiter: Limiter
  /** Of every client together. */
  readonly quota: number
  /** What this process may admit without the store. */
  readonly share: number
  /** Uses every client's quota up. */
  drain(): Promise<void>
  /** Asks every few milliseconds from now on. */
  begin(): void
  /** One client asks so often in one turn of the event loop; resolves when all of it is decided. */
  flood(times: number): Promise<void>
  /** The longest a request waited, in ms, and the longest the event loop was held up, by whatever. */
  longest(): { readonly waitedMs: number; readonly heldUpMs: number }
  /** How many were decided without the store until now. */
  withoutStore(): number
  /** How many were admitted beyond the quota. */
  over(): number
  /** How many requests were made until now. */
  asked(): number
  /** How long after a moment the store decided again for every client, in ms. */
  healedAfter(momentMs: number): Promise<number>
  end(): Promise<void>
}

const everyMs = 5

export async function loadOn(
  redis: Redis | Cluster,
  clients = 1,
  more: { ready?: boolean; known?: boolean } = {},
): Promise<Load> {
  redis.on('error', () => {})
  const each = 300 / clients
  const limiter = rampmeter({
    store: redisStore(redis, { prefix: 'faults:' }),
    policies: [slidingWindow({ name: 'hour', quota: each, window: '1h' })],
    deadline: `${deadlineMs}ms`,
    processes,
    // Whoever is watched has a standing, a key of its own beside its counters.
    ...(more.known === true && { abuse: {} }),
  })
  const ids = Array.from({ length: clients }, (_, nth) => `key:${nth}`)
  const decided: { at: number; nth: number; waitedMs: number; admitted: boolean; degraded: boolean }[] = []
  const pending = new Set<Promise<void>>()
  let timer: NodeJS.Timeout | undefined
  let next = 0
  const loop = monitorEventLoopDelay({ resolution: 5 })

  async function ask(nth: number): Promise<void> {
    const started = performance.now()
    const { admitted, degraded } = await limiter.decide({ client: { id: ids[nth]! } })
    const at = performance.now()
    decided.push({ at: started, nth, waitedMs: at - started, admitted, degraded })
  }

  function send(nth: number): void {
    const one = ask(nth).finally(() => pending.delete(one))
    pending.add(one)
  }

  if (more.ready !== false) await limiter.ready()
  return {
    limiter,
    quota: each * clients,
    share: Math.floor(each / processes) * clients,
    async drain() {
      for (let times = 0; times < each; times += 1) {
        for (const id of ids) {
          while ((await limiter.decide({ client: { id } })).degraded) await new Promise((r) => setTimeout(r, 50))
        }
      }
      decided.push(
        ...Array.from({ length: each * clients }, () => ({
          at: 0,
          nth: 0,
          waitedMs: 0,
          admitted: true,
          degraded: false,
        })),
      )
    },
    begin() {
      loop.enable()
      timer = setInterval(() => {
        send(next)
        next = (next + 1) % clients
      }, everyMs)
    },
    async flood(times) {
      for (let nth = 0; nth < times; nth += 1) send(0)
      await Promise.all(pending)
    },
    longest: () => ({
      waitedMs: Math.max(...decided.map(({ waitedMs }) => waitedMs)),
      heldUpMs: loop.max / 1e6,
    }),
    withoutStore: () => decided.filter(({ degraded }) => degraded).length,
    over: () => decided.filter(({ admitted }) => admitted).length - each * clients,
    asked: () => decided.length - each * clients,
    async healedAfter(momentMs) {
      const giveUp = performance.now() + 60_000
      for (;;) {
        // From then on no request of a client was decided without the store, for a second.
        const last = decided.findLast(({ degraded }) => degraded)?.at ?? momentMs
        const now = performance.now()
        const since = Math.max(last, momentMs)
        if (now - since > 1500) return Math.max(0, since - momentMs)
        if (now > giveUp) throw new Error('it did not heal within a minute')
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    },
    async end() {
      clearInterval(timer)
      loop.disable()
      await Promise.all(pending)
      await limiter.close()
      redis.disconnect()
    },
  }
}
