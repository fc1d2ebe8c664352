import got from 'got'
import ky from 'ky'
import { pacedFetch } from 'rampmeter/client'
import { Agent, RetryAgent, request, type Dispatcher } from 'undici'

/** Gets a URL, with retries if it makes any. Resolves when it was served, rejects when it gives up. */
type Get = (url: string, headers: Record<string, string>) => Promise<void>

/** A client as it is, with its own defaults. */
export interface HerdClient {
  readonly name: string
  /** A new one, which knows nothing yet. */
  open: () => { get: Get; close: () => Promise<void> }
}

/** After so long a call of pacedFetch gives up: with its defaults it would go on for minutes. */
const patienceMs = 30_000

/** After so many requests a call that does as it is told gives up. */
const mostRequests = 15

/** Waits until then, and never less: a timer may be up to a millisecond early. */
export async function until(at: number): Promise<void> {
  for (let left = at - performance.now(); left > 0; left = at - performance.now()) {
    await new Promise((resolve) => setTimeout(resolve, Math.ceil(left)))
  }
}

/** What a refusal told. */
interface Told {
  readonly waitMs: number
  /** What goes with the same request when it comes again. */
  readonly headers: Record<string, string>
}

/** Asks once. Returns what it was told, or null when it was served. */
export async function askOnce(
  dispatcher: Dispatcher,
  url: string,
  headers: Record<string, string>,
): Promise<Told | null> {
  const { statusCode, headers: told, body } = await request(url, { headers, dispatcher })
  const arrived = performance.now()
  await body.dump()
  if (statusCode === 200) return null
  if (statusCode !== 429) throw new Error(`${url} answered ${statusCode}`)
  const ms = told['retry-after-ms']
  const wait = ms === undefined ? Number(told['retry-after']) * 1000 : Number(ms)
  if (!Number.isFinite(wait)) throw new Error(`${url} told no time`)
  // The wait begins when the answer is there, not when its body has been read.
  const waitMs = Math.max(0, wait - (performance.now() - arrived))
  const ticket = told['ratelimit-ticket']
  const { 'RateLimit-Ticket': _spent, ...own } = headers
  return { waitMs, headers: typeof ticket === 'string' ? { ...own, 'RateLimit-Ticket': ticket } : own }
}

/** Does exactly as it is told: in milliseconds where that is told, else in seconds; and returns its ticket, if it got one. */
const asTold: HerdClient = {
  name: 'as told',
  open() {
    const agent = new Agent()
    return {
      async get(url, headers) {
        let sent = headers
        for (let requests = 0; requests < mostRequests; requests += 1) {
          const told = await askOnce(agent, url, sent)
          if (told === null) return
          sent = told.headers
          await until(performance.now() + told.waitMs)
        }
        throw new Error('refused too often')
      },
      close: () => agent.close(),
    }
  },
}

const plain = (name: string, get: Get): HerdClient => ({ name, open: () => ({ get, close: async () => {} }) })

const retryAgent: HerdClient = {
  name: 'RetryAgent',
  open() {
    const agent = new RetryAgent(new Agent())
    return {
      async get(url, headers) {
        const { body } = await request(url, { headers, dispatcher: agent })
        await body.dump()
      },
      close: () => agent.close(),
    }
  },
}

const paced: HerdClient = {
  name: 'pacedFetch',
  open() {
    const fetch = pacedFetch()
    return {
      async get(url, headers) {
        const response = await fetch(url, { headers, signal: AbortSignal.timeout(patienceMs) })
        await response.arrayBuffer()
        if (!response.ok) throw new Error(`gave up with ${response.status}`)
      },
      close: async () => {},
    }
  },
}

export const herdClients: readonly HerdClient[] = [
  asTold,
  plain('got', async (url, headers) => void (await got(url, { headers }))),
  plain('ky', async (url, headers) => void (await ky(url, { headers }).arrayBuffer())),
  retryAgent,
  paced,
]
