import type { Played } from './play.ts'

const width = 760
const left = 44
const right = 16
const rowHeight = 92
const top = 44
const bottom = 38
const barMs = 100

/**
 * Draws what herds of one size met at each limiter: over time, how many requests were served, and how many refused. Every
 * colour stands out from white and from black alike, since the page may be either.
 */
export function drawHerds(plays: readonly Played[]): string {
  const { herd, quota, windowMs } = plays[0]!.limit
  const title = `${herd} requests at once, ${quota} per ${windowMs / 1000} s used up: each comes back exactly as told`
  const rows = plays.map(readRow)
  const spanMs =
    Math.ceil(Math.max(...rows.flatMap(({ requests }) => requests.map(({ at }) => at))) / 1000 + 0.2) * 1000
  const height = top + rows.length * rowHeight + bottom
  const scale: Scale = {
    x: (ms) => round(left + (ms / spanMs) * (width - left - right)),
    // A herd in one bar would dwarf all others, so that the height stands for the root of the count.
    length: (count) => round(Math.sqrt(count / herd) * 32),
  }
  const seconds = Array.from({ length: spanMs / 1000 + 1 }, (_, index) => index)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<desc>${rows.map(({ name, summary }) => `${name}: ${summary}.`).join(' ')}</desc>
<style>
text { font: 12px system-ui, sans-serif; fill: #7a828c }
.title { font-weight: 600; font-size: 13px }
.axis { stroke: #7a828c; stroke-width: 1 }
.served { fill: #2f8f5b }
.refused { fill: #d1622b }
</style>
<text class="title" x="${left}" y="18">${title}</text>
<rect class="served" x="${width - 150}" y="9" width="10" height="10"/><text x="${width - 135}" y="18">served</text>
<rect class="refused" x="${width - 76}" y="9" width="10" height="10"/><text x="${width - 61}" y="18">refused</text>
${rows.map((row, index) => drawRow(row, top + index * rowHeight, scale)).join('\n')}
${seconds.map((second) => `<text x="${scale.x(second * 1000)}" y="${height - bottom + 17}" text-anchor="middle">${second}</text>`).join('\n')}
<text x="${width - right}" y="${height - 5}" text-anchor="end">seconds; the height of a bar grows with the root of the count</text>
</svg>
`
}

interface Scale {
  readonly x: (ms: number) => number
  readonly length: (count: number) => number
}

interface Row {
  readonly name: string
  readonly summary: string
  readonly requests: readonly { at: number; served: boolean }[]
}

function readRow({ limiter, limit, seen }: Played): Row {
  const start = Math.min(...seen.map(({ at }) => at))
  const herd = seen.filter(({ call }) => call.startsWith('herd-'))
  const again = herd.filter(({ status }) => status !== 200).length - new Set(refusedAtFirst(herd)).size
  return {
    name: limiter.name,
    summary: `${herd.length} requests for ${limit.herd}, ${again} retries refused again`,
    requests: herd.map(({ at, status }) => ({ at: at - start, served: status === 200 })),
  }
}

function refusedAtFirst(herd: Played['seen']): string[] {
  return herd.filter(({ status }) => status === 429).map(({ call }) => call)
}

function drawRow({ name, summary, requests }: Row, y: number, { x, length }: Scale): string {
  const middle = y + 54
  const bars: string[] = []
  const last = Math.max(...requests.map(({ at }) => at))
  for (let from = 0; from <= last; from += barMs) {
    const here = requests.filter(({ at }) => at >= from && at < from + barMs)
    const served = here.filter((one) => one.served).length
    const refused = here.length - served
    const [start, wide] = [round(x(from) + 1), round(x(barMs) - x(0) - 2)]
    if (served > 0) {
      const tall = length(served)
      bars.push(`<rect class="served" x="${start}" y="${round(middle - tall)}" width="${wide}" height="${tall}"/>`)
    }
    if (refused > 0) {
      bars.push(`<rect class="refused" x="${start}" y="${middle}" width="${wide}" height="${length(refused)}"/>`)
    }
  }
  return `<text x="${left}" y="${y + 14}">${name}: ${summary}</text>
${bars.join('\n')}
<path class="axis" d="M${left} ${middle}H${width - right}"/>`
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
