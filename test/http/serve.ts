// A real server for a test, on the Express versions that are supported, and a client that shows everything it was told.

import { createServer, request, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import express, { type ErrorRequestHandler, type Express, type RequestHandler } from 'express'
import express4 from 'express4'
import { onTestFinished } from 'vitest'
import type { Decision } from '../../src/decision.ts'
import type { Problem } from '../../src/respond/problem.ts'

export interface ExpressVersion {
  readonly name: string
  readonly express: typeof express
}

/** Their own types differ in places that no test here touches, so that one test can run on both. */
export const expressVersions: readonly ExpressVersion[] = [
  { name: 'Express 5', express },
  { name: 'Express 4', express: express4 as unknown as typeof express },
]

export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly body: string
  /** The body as what a refusal says. */
  readonly problem: Problem
  // oxlint-disable-next-line typescript/no-explicit-any -- whatever the test's own handler answered
  readonly json: any
}

export interface Ask {
  method?: string
  headers?: OutgoingHttpHeaders
  body?: string
}

export interface Served {
  readonly port: number
  /** Sends a request and reads the whole answer. */
  ask(path?: string, ask?: Ask): Promise<Reply>
  /** Sends bytes as they are and reads until the server hangs up: for targets and fields that a client would not send. */
  send(bytes: string | Buffer): Promise<string>
  close(): Promise<void>
}

/** Serves an app on a free port until the test is over. */
export async function serve(app: Express): Promise<Served> {
  const server = createServer(app)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  let closed = false

  async function close(): Promise<void> {
    if (closed) return
    closed = true
    const ended = new Promise((resolve) => server.close(resolve))
    server.closeAllConnections()
    await ended
  }
  onTestFinished(close)

  return {
    port,
    close,
    ask(path = '/', { method = 'GET', headers = {}, body } = {}) {
      return new Promise((resolve, reject) => {
        const req = request({ host: '127.0.0.1', port, path, method, headers }, (res) => {
          const chunks: Buffer[] = []
          res.on('data', (chunk: Buffer) => chunks.push(chunk))
          res.on('error', reject)
          res.on('end', () => {
            const text = Buffer.concat(chunks).toString()
            resolve({
              status: res.statusCode!,
              headers: res.headers,
              body: text,
              get problem() {
                return JSON.parse(text) as Problem
              },
              get json() {
                return JSON.parse(text) as unknown
              },
            })
          })
        })
        req.on('error', reject)
        req.end(body)
      })
    },
    send(bytes) {
      return new Promise((resolve, reject) => {
        const chunks: Buffer[] = []
        const socket = connect(port, '127.0.0.1', () => socket.write(bytes))
        socket.on('data', (chunk) => chunks.push(chunk))
        socket.on('error', reject)
        socket.on('close', () => resolve(Buffer.concat(chunks).toString('latin1')))
      })
    },
  }
}

/** Answers with what the limiter decided. */
export const tellDecision: RequestHandler = (req, res) => {
  res.json(req.rateLimit ?? null)
}

/** Answers with what failed a request, and keeps it: what reaches `next(error)` is the app's to see. */
export function keepErrors(): { readonly errors: unknown[]; readonly handler: ErrorRequestHandler } {
  const errors: unknown[] = []
  return {
    errors,
    handler: (error, _req, res, _next) => {
      errors.push(error)
      res.status(500).json({ code: (error as { code?: unknown }).code ?? null, message: String(error) })
    },
  }
}

/** Sends so many requests, one after the other. */
export async function askTimes(served: Served, count: number, path?: string, ask?: Ask): Promise<Reply[]> {
  const replies: Reply[] = []
  for (let index = 0; index < count; index += 1) replies.push(await served.ask(path, ask))
  return replies
}

/** What is left of a policy, by name. */
export function leftOf(decision: Pick<Decision, 'limits'>): Record<string, number> {
  return Object.fromEntries(decision.limits.map(({ name, remaining }) => [name, remaining]))
}

/** Closes what a test has opened when the test is over. */
export function opened<Closeable extends { close(): Promise<void> }>(closeable: Closeable): Closeable {
  onTestFinished(() => closeable.close())
  return closeable
}
