import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import autocannon from 'autocannon'
import type { Measured } from './decisions.ts'
import { limits } from './libraries/library.ts'
import { inTurns, type Pace } from './pace.ts'
import type { RedisMeter } from './redis-meter.ts'
import { quantile } from './statistics.ts'

/** What a slice of requests cost, each. */
export interface HttpSample {
  readonly perSecond: number
  /** Processor time of the server's process, in µs. */
  readonly serverUs: number
  readonly redisUs: number
  readonly calls: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** The app without a limiter, to which the others add. */
export const bareApp = 'no limiter'

const contenders = [bareApp, 'rampmeter', 'express-rate-limit', 'rate-limiter-flexible']

const connections = 32

/** As many addresses as this ask over each connection, in turn. */
const clientsEach = 32

/** Requests to an Express app, over connections that are kept alive. Each library has a process, and one is at work at a time. */
export async function requests(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<Measured<HttpSample>[]> {
  const measured: Measured<HttpSample>[] = []
  const servers = await Promise.all(contenders.map((name) => Server.start(name, redisUrl)))
  try {
    for (let count = 1; count <= limits.length; count += 1) {
      await meter.flush()
      const samples = await inTurns(servers, pace, (server) => slice(server, count, pace.httpRequests, meter))
      servers.forEach(({ name }, index) => measured.push({ limits: count, name, samples: samples[index]! }))
    }
  } finally {
    for (const server of servers) server.stop()
  }
  return measured
}

class Server {
  readonly name: string
  readonly #ports: readonly number[]
  readonly #process: ChildProcess

  private constructor(name: string, ports: readonly number[], process: ChildProcess) {
    this.name = name
    this.#ports = ports
    this.#process = process
  }

  static async start(name: string, redisUrl: string): Promise<Server> {
    const child = fork(fileURLToPath(new URL('http-server.ts', import.meta.url)), [name, redisUrl])
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the server with ${name} ended at once, with ${code}`)
    })
    const [ports] = (await Promise.race([once(child, 'message'), ended])) as [number[]]
    ended.catch(() => {})
    return new Server(name, ports, child)
  }

  /** Where its app with so many limits answers. */
  urlOf(limitCount: number): string {
    return `http://127.0.0.1:${this.#ports[limitCount - 1]}/items/17`
  }

  /** Its processor time so far, in µs. */
  async cpuUs(): Promise<number> {
    const answer = once(this.#process, 'message')
    this.#process.send('cpu')
    const [{ user, system }] = (await answer) as [NodeJS.CpuUsage]
    return user + system
  }

  stop(): void {
    this.#process.kill('SIGKILL')
  }
}

/**
 * @throws {Error} if any request was refused or failed
 */
async function slice(server: Server, limitCount: number, amount: number, meter: RedisMeter): Promise<HttpSample> {
  const endRedis = await meter.start()
  const cpu = await server.cpuUs()
  const tookMs: number[] = []
  let connection = 0
  let first = 0
  let last = 0
  const { errors, timeouts, non2xx } = await new Promise<autocannon.Result>((resolve, reject) => {
    const load = autocannon(
      {
        url: server.urlOf(limitCount),
        connections,
        amount,
        // It ends at the next of its looks around.
        sampleInt: 20,
        setupClient: (client) => client.setRequests(requestsOver(connection++)),
      },
      (error: unknown, result) => (error instanceof Error ? reject(error) : resolve(result)),
    )
    load.on('response', (_client, _status, _bytes, took) => {
      last = performance.now()
      if (tookMs.push(took) === 1) first = last
    })
  })
  const serverUs = (await server.cpuUs()) - cpu
  const redis = await endRedis()
  if (errors + timeouts + non2xx > 0) {
    throw new Error(`${server.name}: ${non2xx} of ${tookMs.length} requests were refused, ${errors + timeouts} failed`)
  }
  return {
    perSecond: ((tookMs.length - 1) / (last - first)) * 1000,
    serverUs: serverUs / tookMs.length,
    redisUs: redis.cpuUs / tookMs.length,
    calls: redis.calls / tookMs.length,
    p50Ms: quantile(tookMs, 0.5),
    p99Ms: quantile(tookMs, 0.99),
  }
}

function requestsOver(connection: number): autocannon.Request[] {
  return Array.from({ length: clientsEach }, (_, client) => ({
    headers: {
      accept: 'application/json',
      'user-agent':
        'Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36',
      'x-forwarded-for': `198.51.${connection}.${client}`,
    },
  }))
}
