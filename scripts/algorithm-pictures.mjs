// Draws the pictures of docs/algorithms.md: each algorithm under the same burst. The decisions are the library's own, made by the
// memory store on a clock that the script turns, so a picture shows what the code does and comes out the same every time.
//
//   node --import tsx scripts/algorithm-pictures.mjs

import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fixedWindow, memoryStore, rampmeter, slidingLog, slidingWindow, tokenBucket } from '../src/index.ts'
import { manualClock } from '../src/testing/manual-clock.ts'
import { isMain, root } from './process.mjs'

/** What every policy allows here: 20 requests in 10 s. */
const quota = 20
const windowMs = 10_000

/** How long a picture is, and how much of that one bar stands for. */
const spanMs = 36_000
const barMs = 500

/** The burst that all of them meet, as [from, until, requests a second]: some traffic, a fan-out, then retries at a steady pace. */
const phases = /** @type {const} */ ([
  [0, 8000, 1],
  [8000, 12_000, 12],
  [12_000, 36_000, 3],
])

const window = /** @type {const} */ ('10s')

/** @typedef {import('../src/index.ts').TierOptions<never>} TierOptions */

/** @type {{ name: string, title: string, tier: TierOptions }[]} */
const subjects = [
  {
    name: 'token-bucket',
    title: 'Token bucket: 20 per 10 s, holds 10',
    tier: { policies: [tokenBucket({ quota, window, burst: 10 })] },
  },
  {
    name: 'sliding-window',
    title: 'Sliding window: 20 per 10 s',
    tier: { policies: [slidingWindow({ quota, window })] },
  },
  { name: 'sliding-log', title: 'Sliding log: 20 per 10 s', tier: { policies: [slidingLog({ quota, window })] } },
  { name: 'fixed-window', title: 'Fixed window: 20 per 10 s', tier: { policies: [fixedWindow({ quota, window })] } },
  {
    name: 'first-minutes',
    title: 'The same token bucket, with 15 extra in the first 15 s',
    tier: {
      policies: [tokenBucket({ quota, window, burst: 10 })],
      initialBurst: { quota: 15, window: '15s' },
    },
  },
]

/** When the requests of the burst arrive, in ms. */
function arrivals() {
  /** @type {number[]} */
  const times = []
  for (const [from, until, perSecond] of phases) {
    const count = ((until - from) / 1000) * perSecond
    for (let index = 0; index < count; index += 1) times.push(Math.round(from + (index * 1000) / perSecond))
  }
  return times
}

/**
 * Plays the burst to a tier.
 * @param {TierOptions} tier
 */
async function play(tier) {
  const clock = manualClock()
  const start = clock()
  const limiter = rampmeter({
    store: memoryStore({ now: clock }),
    tiers: { guests: tier },
    classify: () => 'guests',
  })
  /** @type {{ at: number, admitted: boolean }[]} */
  const requests = []
  for (const at of arrivals()) {
    clock.set(start + at)
    const { admitted } = await limiter.decide({ client: { id: 'key:agent', tier: 'guests' } })
    requests.push({ at, admitted })
  }
  await limiter.close()
  return requests
}

const width = 760
const height = 230
const left = 44
const right = 16
const top = 44
const bottom = 38
/** What the vertical axis ends at, in requests. */
const most = 45

/** @param {number} ms */
const x = (ms) => round(left + (ms / spanMs) * (width - left - right))
/** @param {number} count */
const y = (count) => round(height - bottom - (count / most) * (height - top - bottom))
/** @param {number} value */
const round = (value) => Math.round(value * 10) / 10

/**
 * Draws one picture. Every colour stands out from white and from black alike, since the page may be either.
 * @param {string} title
 * @param {{ at: number, admitted: boolean }[]} requests
 */
function draw(title, requests) {
  const admitted = requests.filter((request) => request.admitted)
  /** @type {string[]} */
  const marks = []
  for (let from = 0; from < spanMs; from += barMs) {
    const here = requests.filter(({ at }) => at >= from && at < from + barMs)
    const passed = here.filter((request) => request.admitted).length
    if (passed > 0) marks.push(bar('admitted', from, 0, passed))
    if (here.length > passed) marks.push(bar('refused', from, passed, here.length))
  }
  // Steps up with each admitted request, and down a window later.
  const steps = [
    ...admitted.map(({ at }) => ({ at, by: 1 })),
    ...admitted.map(({ at }) => ({ at: at + windowMs, by: -1 })),
  ]
    .filter(({ at }) => at <= spanMs)
    .sort((one, other) => one.at - other.at || one.by - other.by)
  let used = 0
  let path = `M${x(0)} ${y(0)}`
  let peak = 0
  for (const { at, by } of steps) {
    path += `H${x(at)}`
    used += by
    peak = Math.max(peak, used)
    path += `V${y(used)}`
  }
  path += `H${x(spanMs)}`

  const seconds = Array.from({ length: spanMs / 4000 + 1 }, (_, index) => index * 4)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<desc>${admitted.length} of ${requests.length} requests are admitted, at most ${peak} in any 10 s.</desc>
<style>
text { font: 12px system-ui, sans-serif; fill: #7a828c }
.title { font-weight: 600; font-size: 13px }
.axis { stroke: #7a828c; stroke-width: 1 }
.quota { stroke: #d1622b; stroke-width: 1.5; stroke-dasharray: 6 4 }
.admitted { fill: #2f8f5b }
.refused { fill: none; stroke: #d1622b; stroke-width: 1 }
.used { fill: none; stroke: #4a7fd6; stroke-width: 2 }
</style>
<text class="title" x="${left}" y="18">${title}</text>
<text x="${left}" y="35">${admitted.length} of ${requests.length} admitted; at most ${peak} in any 10 s</text>
<rect class="admitted" x="${width - 306}" y="9" width="10" height="10"/><text x="${width - 291}" y="18">admitted</text>
<rect class="refused" x="${width - 226}" y="9.5" width="9" height="9"/><text x="${width - 212}" y="18">refused</text>
<path class="used" d="M${width - 156} 14h16"/><text x="${width - 135}" y="18">admitted in last 10 s</text>
${marks.join('\n')}
<path class="quota" d="M${left} ${y(quota)}H${width - right}"/>
<path class="used" d="${path}"/>
<path class="axis" d="M${left} ${y(0)}H${width - right}M${left} ${y(0)}V${top}"/>
${[0, 20, 40].map((count) => `<text x="${left - 6}" y="${y(count) + 4}" text-anchor="end">${count}</text>`).join('\n')}
${seconds.map((second) => `<text x="${x(second * 1000)}" y="${height - bottom + 17}" text-anchor="middle">${second}</text>`).join('\n')}
<text x="${width - right}" y="${height - 5}" text-anchor="end">seconds</text>
</svg>
`
}

/**
 * @param {string} kind
 * @param {number} from
 * @param {number} low
 * @param {number} high
 */
function bar(kind, from, low, high) {
  const inset = kind === 'refused' ? 0.5 : 0
  return `<rect class="${kind}" x="${round(x(from) + 1 + inset)}" y="${round(y(high) + inset)}" width="${round(x(barMs) - x(0) - 2 - 2 * inset)}" height="${round(y(low) - y(high) - 2 * inset)}"/>`
}

/**
 * The pictures, by the name of their file.
 * @returns {Promise<Map<string, string>>}
 */
export async function drawAlgorithms() {
  /** @type {Map<string, string>} */
  const pictures = new Map()
  for (const { name, title, tier } of subjects) pictures.set(`${name}.svg`, draw(title, await play(tier)))
  return pictures
}

if (isMain(import.meta.url)) {
  const folder = join(root, 'docs', 'pictures')
  mkdirSync(folder, { recursive: true })
  for (const [file, picture] of await drawAlgorithms()) {
    writeFileSync(join(folder, file), picture)
    console.log(`docs/pictures/${file}: ${/<desc>(.*)<\/desc>/.exec(picture)?.[1]}`)
  }
}
