import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import autocannon from 'autocannon'
import { rateLimitRedisOnIoredis } from './libraries/express-rate-limit.ts'
import { libraries, ours } from './libraries/libraries.ts'
import { inTurns, type Pace } from './pace.ts'
import type { ProfileFinding } from './profile/node-time.ts'
import type { Parties, Party } from './profile/parties.ts'
import type { RedisMeter } from './redis-meter.ts'
import type { Measured } from './slice.ts'
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

/** How many limits each request has. */
const counts = [1, 3]

const connections = 32

/** As many addresses as this ask over each connection, in turn. */
const clientsEach = 32

/**
 * Requests to an Express app, over connections that are kept alive. Each library has a process, and one is at work at a time.
 * All numbers of limits take turns as well, so that one can be compared with the other.
 */
export async function requests(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<Measured<HttpSample>[]> {
  await meter.flush()
  const limiters = libraries.filter(({ middleware }) => middleware).map(({ name }) => name)
  const servers = await Promise.all([
    Server.start(bareApp, redisUrl, [0]),
    ...limiters.map((name) => Server.start(name, redisUrl, counts)),
  ])
  try {
    const contenders = [0, ...counts].flatMap((limits) =>
      servers.filter((server) => server.serves(limits)).map((server) => ({ server, limits })),
    )
    const samples = await inTurns(contenders, pace.http, ({ server, limits }) =>
      slice(server, limits, pace.http.requests, meter),
    )
    return contenders.map(({ server, limits }, index) => ({ limits, name: server.name, samples: samples[index]! }))
  } finally {
    for (const server of servers) server.stop()
  }
}

/** Where a request's processor time goes: without a limiter, with three limits of ours, and with one of express-rate-limit on Redis. */
export async function profileRequests(redisUrl: string, meter: RedisMeter, pace: Pace): Promise<ProfileFinding[]> {
  const found: ProfileFinding[] = []
  for (const [name, limits] of [
    [bareApp, 0],
    [ours, 3],
    [rateLimitRedisOnIoredis.name, 1],
  ] as const) {
    const server = await Server.start(name, redisUrl, [limits])
    try {
      const some = (): Promise<HttpSample> => slice(server, limits, pace.http.requests * pace.http.warmUps, meter)
      await some()
      const { result, parties } = await server.profiled(some)
      found.push({ load: 'a request over HTTP', limits, name, us: result.serverUs, parties })
    } finally {
      server.stop()
    }
  }
  return found
}

/** The processor time that a limiter adds to a request, in µs, by round. */
export function addedUs(samples: readonly HttpSample[], bare: readonly HttpSample[]): number[] {
  return samples.map(({ serverUs }, round) => serverUs - bare[round]!.serverUs)
}

class Server {
  readonly name: string
  /** By number of limits. */
  readonly #ports: ReadonlyMap<number, number>
  readonly #process: ChildProcess

  private constructor(name: string, ports: ReadonlyMap<number, number>, process: ChildProcess) {
    this.name = name
    this.#ports = ports
    this.#process = process
  }

  static async start(name: string, redisUrl: string, counts: readonly number[]): Promise<Server> {
    const child = fork(fileURLToPath(new URL('http-server.ts', import.meta.url)), [
      name,
      redisUrl,
      ...counts.map(String),
    ])
    const ended = once(child, 'exit').then(([code]) => {
      throw new Error(`the server with ${name} ended at once, with ${code}`)
    })
    const [ports] = (await Promise.race([once(child, 'message'), ended])) as [number[]]
    ended.catch(() => {})
    return new Server(name, new Map(counts.map((count, index) => [count, ports[index]!])), child)
  }

  serves(limits: number): boolean {
    return this.#ports.has(limits)
  }

  /** Where its app with so many limits answers. */
  urlOf(limits: number): string {
    return `http://127.0.0.1:${this.#ports.get(limits)}/items/17`
  }

  /** Its processor time so far, in µs. */
  async cpuUs(): Promise<number> {
    const { user, system } = await this.#ask<NodeJS.CpuUsage>('cpu')
    return user + system
  }

  /** Looks at who is running in it, while something runs here. */
  async profiled<Result>(run: () => Promise<Result>): Promise<{ result: Result; parties: Parties }> {
    await this.#ask('begin profile')
    const result = await run()
    return { result, parties: new Map(await this.#ask<[Party, number][]>('end profile')) }
  }

  async #ask<Answer>(question: string): Promise<Answer> {
    const answered = once(this.#process, 'message')
    this.#process.send(question)
    const [answer] = (await answered) as [Answer]
    return answer
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
