import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Limiter } from './limiters.ts'
import type { Seen } from './log.ts'
import type { HerdLimit } from './settings.ts'

/** An app behind a limiter, in a process of its own. */
export class App {
  readonly limiter: Limiter
  readonly #port: number
  readonly #process: ChildProcess
  readonly #asked = new Map<string, (seen: Seen[]) => void>()

  private constructor(limiter: Limiter, port: number, child: ChildProcess) {
    this.limiter = limiter
    this.#port = port
    this.#process = child
    child.on('message', ({ client, seen }: { client: string; seen: Seen[] }) => {
      this.#asked.get(client)?.(seen)
      this.#asked.delete(client)
    })
  }

  static async start(limiter: Limiter, redisUrl: string): Promise<App> {
    const child = fork(fileURLToPath(new URL('server.ts', import.meta.url)), [limiter.name, redisUrl])
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the app with ${limiter.name} ended at once, with ${code}`)
    })
    const [port] = (await Promise.race([once(child, 'message'), ended])) as [number]
    ended.catch(() => {})
    return new App(limiter, port, child)
  }

  urlOf({ name }: HerdLimit): string {
    return `http://127.0.0.1:${this.#port}/${name}/items`
  }

  /** What it answered to a client. It forgets that then. */
  log(client: string): Promise<Seen[]> {
    return new Promise((resolve) => {
      this.#asked.set(client, resolve)
      this.#process.send(client)
    })
  }

  stop(): void {
    this.#process.kill('SIGKILL')
  }
}
