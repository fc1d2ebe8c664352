// A person in the demo: logs in, then opens a page every second or so, sometimes several quickly. A page asks for several things at
// once. Unlike a program, a person who is refused sees an error, and clicks on.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Progress, Reply } from './messages.ts'
import { isRefusal, understand } from './refusal.ts'

/** What is clicked, and how many ms after the click before; from the top again at the end. */
const clicks: readonly { readonly after: number; readonly asks: readonly string[] }[] = [
  { after: 300, asks: ['/products?page=1', '/products/p3', '/products/p7'] },
  { after: 1600, asks: ['/products/p3', '/orders?page=1'] },
  { after: 400, asks: ['/products/p4', '/products/p5'] },
  { after: 300, asks: ['/products/p5', '/products/p6', '/orders/o1'] },
  { after: 2200, asks: ['/products?page=2', '/products/p21', '/products/p22', '/products/p23'] },
  { after: 1200, asks: ['/products/p22'] },
  { after: 1000, asks: ['POST /orders'] },
  { after: 2400, asks: ['/orders?page=8', '/orders/o160'] },
]

const browser = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'

export class Person {
  readonly #api: string
  readonly #cookie: string
  readonly #report: (reply: Reply) => void
  readonly #leaving = new AbortController()
  #worked = 0
  #clicked = 0

  private constructor(api: string, cookie: string, report: (reply: Reply) => void) {
    this.#api = api
    this.#cookie = cookie
    this.#report = report
  }

  static async logIn(api: string, password: string, report: (reply: Reply) => void): Promise<Person> {
    const response = await fetch(`${api}/session`, {
      method: 'POST',
      headers: { 'user-agent': browser, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'ada', password }),
    })
    const cookie = response.headers.getSetCookie()[0]?.split(';')[0]
    if (cookie === undefined) throw new Error(`logging in was answered ${response.status}`)
    return new Person(api, cookie, report)
  }

  /** Clicks until `leave` is called. */
  async click(startedAt: number): Promise<void> {
    const { signal } = this.#leaving
    for (let turn = 0; ; turn++) {
      const { after, asks } = clicks[turn % clicks.length]!
      await sleep(after, undefined, { signal }).catch(() => {})
      if (signal.aborted) return
      const answers = await Promise.all(asks.map((ask) => this.#ask(ask, startedAt)))
      if (signal.aborted) return
      this.#clicked += 1
      if (answers.every(Boolean)) this.#worked += 1
    }
  }

  leave(): Progress {
    this.#leaving.abort()
    return { kind: 'progress', done: this.#worked, of: this.#clicked, finishedAt: null, gaveUp: 0, waiting: null }
  }

  /** Whether it was served. */
  async #ask(ask: string, startedAt: number): Promise<boolean> {
    const [path, method] = ask.startsWith('POST ') ? [ask.slice(5), 'POST'] : [ask, 'GET']
    try {
      const response = await fetch(this.#api + path, {
        method,
        headers: { 'user-agent': browser, cookie: this.#cookie, 'content-type': 'application/json' },
        ...(method === 'POST' && { body: JSON.stringify({ product: 'p22' }) }),
        signal: this.#leaving.signal,
      })
      const body = await response.text()
      const { status } = response
      this.#report({
        kind: 'reply',
        at: Date.now() - startedAt,
        status,
        waitedMs: 0,
        ...(isRefusal(status) && { said: understand(response, body) }),
      })
      return response.ok
    } catch {
      if (!this.#leaving.signal.aborted) {
        this.#report({ kind: 'reply', at: Date.now() - startedAt, status: 0, waitedMs: 0 })
      }
      return false
    }
  }
}
