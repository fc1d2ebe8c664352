// What one machine cannot run: 10 000 agents on one signal, in virtual time. The decisions are the library's own, made by the
// memory store on a clock that the script turns; what differs is what a refused agent is told, and what it makes of that. It
// comes out the same every time.
//
//   node --import tsx bench/simulate-herd.ts
//   node --import tsx bench/simulate-herd.ts --write     and puts the table into docs/honesty.md

import { parseArgs } from 'node:util'
import { memoryStore, rampmeter, tokenBucket } from 'rampmeter'
import { manualClock } from 'rampmeter/testing'
import { EventQueue } from './honesty/event-queue.ts'
import { writeBetween } from './honesty/page.ts'
import { seeded } from './honesty/random.ts'
import { markdownTable } from './honesty/tables.ts'
import { quantile } from './statistics.ts'

const agents = 10_000
const seed = 20_260_101

/** Shared by all agents: it takes 27 s until the last of them can be served. */
const quota = 20_000
const windowMs = 60_000
const burst = 1000
const earliestMs = ((agents - burst) * windowMs) / quota

/** How long a request or an answer travels, in ms. */
const travel = { least: 10, most: 50 }

/** What a refusal tells, in ms. `aloneMs` is when one more request would fit, `toldMs` what the library tells. */
type Answer = (refusal: { aloneMs: number; toldMs: number }, random: () => number) => number

const sameSecond: Answer = ({ aloneMs }) => wholeSeconds(aloneMs)
/** Spread over so long. How long a herd needs, a server would have to guess. */
const jittered =
  (spanMs: number): Answer =>
  ({ aloneMs }, random) =>
    wholeSeconds(aloneMs + random() * spanMs)
const ours: Answer = ({ toldMs }) => toldMs

/** How long an agent waits that was told so, after its nth refusal. */
type Behaviour = (toldMs: number, refusals: number, random: () => number) => number

const immediate: Behaviour = () => 250
const fixed: Behaviour = () => 5000
const exponential: Behaviour = (_told, refusals) => Math.min(60_000, 1000 * 2 ** (refusals - 1))
const fullJitter: Behaviour = (told, refusals, random) => random() * exponential(told, refusals, random)
const honouring: Behaviour = (toldMs) => wholeSeconds(toldMs)
const honouringMs: Behaviour = (toldMs) => toldMs

interface Scene {
  readonly answer: string
  readonly behaviour: string
  readonly tell: Answer
  /** What an agent does, by its number. */
  readonly behave: (agent: number) => Behaviour
  /** Whose results count. Default: everybody's. */
  readonly counted?: (agent: number) => boolean
}

const everyone =
  (behaviour: Behaviour): ((agent: number) => Behaviour) =>
  () =>
    behaviour
const isDeaf = (agent: number): boolean => agent % 10 === 0

const scenes: readonly Scene[] = [
  { answer: 'any', behaviour: 'at once (250 ms)', tell: ours, behave: everyone(immediate) },
  { answer: 'any', behaviour: 'every 5 s', tell: ours, behave: everyone(fixed) },
  { answer: 'any', behaviour: 'exponential', tell: ours, behave: everyone(exponential) },
  { answer: 'any', behaviour: 'exponential, full jitter', tell: ours, behave: everyone(fullJitter) },
  { answer: 'same second', behaviour: 'honours Retry-After', tell: sameSecond, behave: everyone(honouring) },
  { answer: 'jitter, 10 s', behaviour: 'honours Retry-After', tell: jittered(10_000), behave: everyone(honouring) },
  { answer: 'jitter, 30 s', behaviour: 'honours Retry-After', tell: jittered(30_000), behave: everyone(honouring) },
  { answer: 'jitter, 2 min', behaviour: 'honours Retry-After', tell: jittered(120_000), behave: everyone(honouring) },
  { answer: 'rampmeter', behaviour: 'honours Retry-After', tell: ours, behave: everyone(honouring) },
  { answer: 'rampmeter', behaviour: 'honours milliseconds', tell: ours, behave: everyone(honouringMs) },
  {
    answer: 'rampmeter',
    behaviour: 'milliseconds, beside a tenth at once',
    tell: ours,
    behave: (agent) => (isDeaf(agent) ? immediate : honouringMs),
    counted: (agent) => !isDeaf(agent),
  },
]

interface Outcome {
  readonly scene: Scene
  readonly requests: number
  readonly inVain: number
  readonly refused: number
  readonly firstRetry: number
  readonly waitsMs: readonly number[]
}

/** Plays one scene until everybody is served. */
async function play(scene: Scene): Promise<Outcome> {
  const random = seeded(seed)
  const clock = manualClock()
  const start = clock()
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    policies: [tokenBucket({ name: 'everybody', quota, window: windowMs, burst, partition: 'global' })],
  })
  const arrivals = new EventQueue()
  const refusals = new Uint32Array(agents)
  const waitsMs: number[] = []
  let [requests, inVain, refused, firstRetry] = [0, 0, 0, 0]
  const travelMs = (): number => travel.least + random() * (travel.most - travel.least)
  for (let agent = 0; agent < agents; agent += 1) arrivals.add(travelMs(), agent)
  for (let next = arrivals.take(); next !== undefined; next = arrivals.take()) {
    const { at, item: agent } = next
    const counts = scene.counted?.(agent) ?? true
    clock.set(start + at)
    const decision = await limiter.decide({ client: { id: `key:agent-${agent}` } })
    if (counts) requests += 1
    if (decision.admitted) {
      if (!counts) continue
      if (refusals[agent] === 1) firstRetry += 1
      waitsMs.push(at)
      continue
    }
    refusals[agent]! += 1
    if (counts && refusals[agent] === 1) refused += 1
    else if (counts) inVain += 1
    const told = scene.tell({ aloneMs: decision.limits[0]!.waitMs!, toldMs: decision.retryAfterMs! }, random)
    const waitMs = scene.behave(agent)(told, refusals[agent]!, random)
    arrivals.add(at + travelMs() + waitMs + travelMs(), agent)
  }
  await limiter.close()
  return { scene, requests, inVain, refused, firstRetry, waitsMs }
}

function wholeSeconds(ms: number): number {
  return Math.ceil(ms / 1000) * 1000
}

/** Jain's index: 1 when all are alike, 1 / n when one has everything. */
function jain(values: readonly number[]): number {
  const sum = values.reduce((total, value) => total + value, 0)
  const squares = values.reduce((total, value) => total + value * value, 0)
  return (sum * sum) / (values.length * squares)
}

function seconds(ms: number): string {
  return (ms / 1000).toFixed(1)
}

const { values: wish } = parseArgs({ options: { write: { type: 'boolean' } } })
const outcomes: Outcome[] = []
for (const scene of scenes) outcomes.push(await play(scene))
const table = markdownTable<Outcome>(outcomes, [
  { title: 'answer', words: true, cell: ({ scene }) => scene.answer },
  { title: 'an agent retries', words: true, cell: ({ scene }) => scene.behaviour },
  { title: 'requests', cell: ({ requests }) => String(requests) },
  { title: 'retries in vain', cell: ({ inVain }) => String(inVain) },
  {
    title: 'served by first retry',
    cell: ({ refused, firstRetry }) => `${Math.floor((firstRetry / refused) * 1000) / 10} %`,
  },
  { title: 'drained after, s', cell: ({ waitsMs }) => seconds(waitsMs.at(-1)!) },
  { title: 'median wait, s', cell: ({ waitsMs }) => seconds(quantile(waitsMs, 0.5)) },
  { title: '99 %, s', cell: ({ waitsMs }) => seconds(quantile(waitsMs, 0.99)) },
  { title: "Jain's index", cell: ({ waitsMs }) => jain(waitsMs).toFixed(2) },
])
console.log(`${table}\n\nThe quota allows the last at ${seconds(earliestMs)} s.`)
if (wish.write) writeBetween('simulation', table)
