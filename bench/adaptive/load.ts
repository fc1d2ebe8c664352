// Open-loop load on an app: requests leave when they are due, whether those before them are answered or not. `bench/adaptive.ts`
// starts it, in a process of its own.
//
//   node --import tsx bench/adaptive/load.ts <port> <phases as JSON>

import { Agent, request } from 'node:http'
import { seeded } from '../honesty/random.ts'
import { burst, burstsAt, mostOutstanding, patienceMs, tiers, type Phase } from './settings.ts'

/** What became of a request. */
export interface Seen {
  /** When it was due, in ms from the start. */
  readonly at: number
  readonly tier: string
  readonly phase: Phase['name']
  /** 0: its client has gone, or it was dropped. */
  readonly status: number
  readonly ms: number
}

interface Due {
  readonly at: number
  readonly tier: string
  readonly key: string
  readonly phase: Phase['name']
}

/** When who asks: at random moments, the same in each run. */
function timetable(phases: readonly Phase[]): Due[] {
  const random = seeded(20_260_101)
  const due: Due[] = []
  let from = 0
  for (const { name: phase, ms, part } of phases) {
    for (const { name: tier, clients, perSecond } of tiers) {
      const asking = phase === 'one alone' ? (tier === 'middle' ? 1 : 0) : clients
      for (let client = 0; client < asking; client += 1) {
        const gapMs = 1000 / (perSecond * part)
        for (let at = from + random() * gapMs; at < from + ms; at += gapMs * (0.8 + 0.4 * random())) {
          due.push({ at, tier, key: `${tier}-${client}`, phase })
        }
      }
    }
    if (phase === 'burst') {
      const [{ name: tier, clients }] = tiers as [(typeof tiers)[number]]
      for (const part of burstsAt) {
        for (let one = 0; one < burst; one += 1)
          due.push({ at: from + part * ms, tier, key: `${tier}-${one % clients}`, phase })
      }
    }
    from += ms
  }
  return due.sort((one, other) => one.at - other.at)
}

const [port, phases] = process.argv.slice(2)
const agent = new Agent({ keepAlive: true })
const due = timetable(JSON.parse(phases!) as Phase[])
const seen: Seen[] = []
const startedAt = performance.now()
let outstanding = 0
let next = 0

function send({ at, tier, key, phase }: Due): void {
  const told = (status: number): void => {
    seen.push({ at, tier, phase, status, ms: performance.now() - startedAt - at })
  }
  if (outstanding >= mostOutstanding) return told(0)
  outstanding += 1
  let isOver = false
  const end = (status: number): void => {
    if (isOver) return
    isOver = true
    outstanding -= 1
    told(status)
  }
  const req = request({ host: '127.0.0.1', port, agent, headers: { 'x-api-key': key } }, (res) => {
    res.resume()
    res.on('end', () => end(res.statusCode!))
    res.on('error', () => end(0))
  })
  req.setTimeout(patienceMs, () => req.destroy())
  req.on('error', () => end(0))
  req.end()
}

const clock = setInterval(() => {
  const now = performance.now() - startedAt
  while (next < due.length && due[next]!.at <= now) send(due[next++]!)
  if (next < due.length || outstanding > 0) return
  clearInterval(clock)
  agent.destroy()
  process.send!(seen, () => process.disconnect())
}, 2)
