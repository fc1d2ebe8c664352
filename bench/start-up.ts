import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { inTurns, type Pace } from './pace.ts'

const exec = promisify(execFile)
const root = fileURLToPath(new URL('..', import.meta.url))

/** What a process takes until it can limit. */
export interface StartSample {
  /** Until its modules are there, and from then on until the limiter is, in ms. */
  readonly importMs: number
  readonly startMs: number
  /** Processor time of the two, in ms. */
  readonly cpuMs: number
  /** What they leave on the heap. */
  readonly heapMB: number
}

export interface StartFinding {
  readonly name: string
  readonly samples: readonly StartSample[]
}

/** A module, and what makes a limiter of it, where it needs no server. */
const contenders: readonly (readonly [name: string, modules: readonly string[], start: string])[] = [
  [
    'rampmeter',
    ['rampmeter'],
    'const limiter = first.rampmeter({ policies: [first.tokenBucket({ name: "a", quota: 9, window: "1m" })] }); await limiter.ready()',
  ],
  ['rampmeter/client', ['rampmeter/client'], 'first.pacedFetch()'],
  ['express-rate-limit', ['express-rate-limit'], 'first.rateLimit({ windowMs: 60000, limit: 9 })'],
  ['express-rate-limit, rate-limit-redis', ['express-rate-limit', 'rate-limit-redis'], 'first.rateLimit({ limit: 9 })'],
  ['rate-limiter-flexible', ['rate-limiter-flexible'], 'new first.RateLimiterMemory({ points: 9, duration: 60 })'],
  ['@upstash/ratelimit', ['@upstash/ratelimit'], ''],
  ['express, for scale', ['express'], 'first.default()'],
  ['ioredis, for scale', ['ioredis'], ''],
]

/** Each in a process of its own. */
export async function startUps({ rounds }: Pace): Promise<StartFinding[]> {
  const samples = await inTurns(contenders, { rounds, warmUps: 0 }, async ([, modules, start]) => {
    const program = programOf(modules, start)
    const { stdout } = await exec(process.execPath, ['--expose-gc', '--input-type=module', '-e', program], {
      cwd: root,
    })
    return JSON.parse(stdout) as StartSample
  })
  return contenders.map(([name], index) => ({ name, samples: samples[index]! }))
}

function programOf(modules: readonly string[], start: string): string {
  return `
    gc()
    const heap = process.memoryUsage().heapUsed
    const cpu = process.cpuUsage()
    const begun = performance.now()
    const [first] = await Promise.all([${modules.map((name) => `import('${name}')`).join(', ')}])
    const imported = performance.now()
    ${start}
    const started = performance.now()
    const { user, system } = process.cpuUsage(cpu)
    gc()
    const heapMB = (process.memoryUsage().heapUsed - heap) / 1e6
    const told = { importMs: imported - begun, startMs: started - imported, cpuMs: (user + system) / 1000, heapMB }
    process.stdout.write(JSON.stringify(told), () => process.exit())`
}
