// A world for the client's tests: a clock that is turned, and a server that is a function. Where the network itself matters
// (redirects, connections, the middleware), servers.test.ts has real ones.

import { createPacedFetch } from '../../src/agent/paced-fetch.ts'
import type { PacedFetchOptions, Wait } from '../../src/agent/options.ts'
import type { Runtime } from '../../src/agent/runtime.ts'

/** Noon, as Unix time. */
export const noon = Date.UTC(2026, 1, 27, 12)

interface Asked {
  readonly at: number
  readonly url: string
  readonly method: string
  readonly headers: Headers
  readonly init: RequestInit
}

export interface World {
  readonly fetch: typeof fetch
  readonly asked: Asked[]
  readonly waits: Wait[]
  readonly now: () => number
  /** Turns the clock on, step by step from timer to timer, and lets everything happen that happens then. */
  readonly advance: (ms: number) => Promise<void>
  /** Timers that are set. */
  readonly timers: () => number
}

export type Handler = (asked: Asked, nth: number) => Response | Promise<Response>

export interface WorldOptions extends PacedFetchOptions {
  /** How long a request takes to its answer, in ms. Default: 0. */
  latency?: number
  random?: () => number
}

export function createWorld(
  handler: Handler,
  { latency = 0, random = () => 0.5, ...options }: WorldOptions = {},
): World {
  let time = 1000
  const timers = new Map<object, { at: number; run: () => void }>()
  const runtime: Runtime = {
    now: () => time,
    wall: () => noon + time - 1000,
    random,
    setTimer(run, ms) {
      const timer = {}
      timers.set(timer, { at: time + Math.max(0, ms), run })
      return timer
    },
    clearTimer: (timer) => void timers.delete(timer as object),
  }
  const asked: Asked[] = []
  const waits: Wait[] = []

  async function advance(ms: number): Promise<void> {
    const end = time + ms
    await settled()
    for (;;) {
      const next = [...timers].sort(([, one], [, other]) => one.at - other.at)[0]
      if (next === undefined || next[1].at > end) break
      timers.delete(next[0])
      time = Math.max(time, next[1].at)
      next[1].run()
      await settled()
    }
    time = end
  }

  const fetch = createPacedFetch(
    {
      onWait: (wait) => void waits.push(wait),
      async fetch(input, init = {}) {
        const request = input instanceof Request ? input : undefined
        const one = {
          at: time - 1000,
          url: input instanceof Request ? input.url : new URL(input).href,
          method: init.method ?? request?.method ?? 'GET',
          headers: new Headers(init.headers ?? request?.headers),
          init,
        }
        asked.push(one)
        const response = await handler(one, asked.length)
        if (latency > 0) await new Promise<void>((resolve) => void runtime.setTimer(resolve, latency))
        return response
      },
      ...options,
    },
    runtime,
  )
  return { fetch, asked, waits, advance, now: () => time - 1000, timers: () => timers.size }
}

/** Lets promises run, those of bodies too. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 3; turn += 1) await new Promise((resolve) => setImmediate(resolve))
}

export function ok(headers: Record<string, string> = {}): Response {
  return new Response('{"ok":true}', { headers })
}

export function refusal(headers: Record<string, string> = {}, status = 429): Response {
  return new Response('{"error":{}}', { status, headers })
}

/** What a promise has come to by now. */
export function watch<Value>(promise: Promise<Value>): { value: Value | undefined; error: unknown; done: boolean } {
  const state: { value: Value | undefined; error: unknown; done: boolean } = {
    value: undefined,
    error: undefined,
    done: false,
  }
  promise.then(
    (value) => Object.assign(state, { value, done: true }),
    (error: unknown) => Object.assign(state, { error, done: true }),
  )
  return state
}
