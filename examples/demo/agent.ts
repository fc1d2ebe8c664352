// A process of the demo: a program that reads an API. It takes the OpenAPI document, then every page of every list that it
// may read, then every item in them, with PARALLEL requests at once. When it has read them all it settles down to looking after
// single orders.
//
// It behaves as well-written programs do. A refusal holds back all that it sends, for as long as it was told, and from then on
// it sends one request at a time. Where it is told no time it waits longer after each refusal, and gives up after five.

import { setTimeout as sleep } from 'node:timers/promises'
import type { FromChild, ToReader } from './messages.ts'
import { isRefusal, understand } from './refusal.ts'

const { AGENT_KEY, USER_AGENT = '', PARALLEL = '20' } = process.env

const mostRefusals = 5
const settledPauseMs = 400

/** A request, until it is served or given up. */
interface Task {
  readonly path: string
  readonly order?: object
  refusals: number
  firstRefusedAt?: number
  lastRefusal?: { readonly at: number; readonly toldMs: number | null }
}

let api = ''
let startedAt = 0
let parallel = Number(PARALLEL)
/** Nothing is sent before this time. */
let holdUntil = 0
const refused = new Set<Task>()
const progress = { done: 0, of: 0, gaveUp: 0, finishedAt: null as number | null }

process.on('message', (message: ToReader) => {
  if (message.kind === 'go') {
    ;({ api, startedAt } = message)
    void live()
  } else {
    const waiting = [...refused].map((task) => task.firstRefusedAt ?? now())
    tell({
      kind: 'progress',
      ...progress,
      waiting:
        waiting.length === 0 ? null : { forMs: now() - Math.min(...waiting), moreMs: Math.max(0, holdUntil - now()) },
    })
  }
})
process.on('disconnect', () => process.exit())
if (process.connected) tell({ kind: 'ready' })
else process.exit()

async function live(): Promise<void> {
  const orders = await discover()
  progress.finishedAt = now()
  tell({ kind: 'settled' })
  await settle(orders)
}

/** Reads all there is, and returns the paths of the orders. */
async function discover(): Promise<string[]> {
  const [document] = (await readAll(['/openapi.json'])) as [OpenApi | undefined]
  const lists = document === undefined ? [] : listsOf(document)

  const first = (await readAll(lists.map((path) => `${path}?page=1`))) as (Page | undefined)[]
  const others = lists.flatMap((path, index) => pagesAfterFirst(path, first[index]?.pages ?? 1))
  const pages = [...first, ...((await readAll(others)) as (Page | undefined)[])]

  const listOf = [...lists, ...others.map((path) => path.slice(0, path.indexOf('?')))]
  const items = pages.flatMap((page, index) => (page?.items ?? []).map(({ id }) => `${listOf[index]}/${id}`))
  await readAll(items)
  return items.filter((path) => path.startsWith('/orders/'))
}

/** Looks at one order after the other, and once places one. */
async function settle(orders: readonly string[]): Promise<void> {
  if (orders.length === 0) return
  await complete({ path: '/orders', order: { product: 'p1' }, refusals: 0 })
  for (let turn = 0; ; turn++) {
    await sleep(settledPauseMs)
    await complete({ path: orders[turn % orders.length]!, refusals: 0 })
  }
}

/** Reads all of these; what was given up is undefined. */
async function readAll(paths: readonly string[]): Promise<unknown[]> {
  progress.of += paths.length
  const bodies: unknown[] = paths.map(() => undefined)
  const queue = paths.map((path, index) => ({ index, task: { path, refusals: 0 } as Task }))
  let workers = Math.min(parallel, queue.length)

  async function work(): Promise<void> {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
      let outcome: Outcome
      do {
        if (workers > parallel) {
          workers -= 1
          // The one worker who stays keeps the time that was told; for others to come then as well would be a herd.
          delete next.task.lastRefusal
          queue.unshift(next)
          return
        }
        outcome = await attempt(next.task)
      } while (outcome === 'refused')
      if (outcome === 'gave up') {
        progress.gaveUp += 1
      } else {
        progress.done += 1
        bodies[next.index] = outcome.body
      }
    }
    workers -= 1
  }

  await Promise.all(Array.from({ length: workers }, work))
  return bodies
}

async function complete(task: Task): Promise<void> {
  while ((await attempt(task)) === 'refused');
}

type Outcome = { readonly body: unknown } | 'refused' | 'gave up'

/** Sends a request once it may be sent, and reports what came of it. */
async function attempt(task: Task): Promise<Outcome> {
  while (holdUntil > now()) await sleep(holdUntil - now())
  const sentAt = now()
  const { lastRefusal } = task
  const tried = {
    waitedMs: sentAt - (task.firstRefusedAt ?? sentAt),
    ...(lastRefusal?.toldMs != null && {
      returned: { toldMs: lastRefusal.toldMs, afterMs: sentAt - lastRefusal.at },
    }),
  }
  let response: Response
  let body: string
  try {
    response = await fetch(api + task.path, {
      method: task.order === undefined ? 'GET' : 'POST',
      headers: {
        'user-agent': USER_AGENT,
        ...(AGENT_KEY !== undefined && { 'x-api-key': AGENT_KEY }),
        ...(task.order !== undefined && { 'content-type': 'application/json' }),
      },
      ...(task.order !== undefined && { body: JSON.stringify(task.order) }),
    })
    body = await response.text()
  } catch {
    tell({ kind: 'reply', at: now(), status: 0, ...tried })
    return 'gave up'
  }
  const { status } = response

  if (!isRefusal(status)) {
    tell({ kind: 'reply', at: now(), status, ...tried })
    refused.delete(task)
    return response.ok ? { body: JSON.parse(body) } : 'gave up'
  }
  const said = understand(response, body)
  tell({ kind: 'reply', at: now(), status, ...tried, said })
  refused.add(task)
  task.refusals += 1
  task.firstRefusedAt ??= now()
  task.lastRefusal = { at: now(), toldMs: said.toldMs }
  holdUntil = Math.max(holdUntil, now() + (said.toldMs ?? 500 * 2 ** task.refusals))
  parallel = 1
  if (said.toldMs === null && task.refusals === mostRefusals) {
    refused.delete(task)
    return 'gave up'
  }
  return 'refused'
}

interface OpenApi {
  readonly paths: Record<string, { get?: { parameters?: { name: string; in: string }[]; security?: unknown[] } }>
}

interface Page {
  readonly items: readonly { readonly id: string }[]
  readonly pages: number
}

/** The lists in pages, without those that want a credential where we have none. */
function listsOf({ paths }: OpenApi): string[] {
  return Object.entries(paths).flatMap(([path, { get }]) => {
    const inPages = get?.parameters?.some((parameter) => parameter.in === 'query' && parameter.name === 'page')
    const readable = AGENT_KEY !== undefined || get?.security === undefined
    return inPages === true && readable ? [path] : []
  })
}

function pagesAfterFirst(path: string, pages: number): string[] {
  return Array.from({ length: pages - 1 }, (_, index) => `${path}?page=${index + 2}`)
}

function now(): number {
  return Date.now() - startedAt
}

function tell(message: FromChild): void {
  // What cannot be told any more need not be: the channel is closed, which ends this process.
  process.send?.(message, undefined, undefined, () => {})
}
