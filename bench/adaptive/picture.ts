import { quantile } from '../statistics.ts'
import { isGood, phaseOf } from './findings.ts'
import type { Played } from './play.ts'
import { capacity, patienceMs } from './settings.ts'

const width = 760
const left = 48
const right = 48
const rowHeight = 118
const plotHeight = 76
const top = 52
const bottom = 36
const stepMs = 500

/**
 * Draws what each variant did over time: what was asked, what was served in time, how long it took at the worst, and the
 * multiplier. Every colour stands out from white and from black alike, since the page may be either.
 */
export function drawPlays(all: readonly Played[]): string {
  const spanMs = all[0]!.phases.reduce((sum, { ms }) => sum + ms, 0)
  const height = top + all.length * rowHeight + bottom
  const most = 2.6 * capacity
  const x = (ms: number): number => round(left + (ms / spanMs) * (width - left - right))
  const title = `An app that can answer ${capacity} requests a second, asked 2.2 times as often for a while`
  const rows = all.map((played, index) => drawRow(played, top + index * rowHeight, { x, most, spanMs }))
  const overload = phaseOf(all[0]!, 'overload')
  const marks = Array.from({ length: Math.floor(spanMs / 10_000) + 1 }, (_, index) => index * 10_000)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${title}</title>
<style>
text { font: 12px system-ui, sans-serif; fill: #7a828c }
.title { font-weight: 600; font-size: 13px }
.axis { stroke: #7a828c; stroke-width: 1; fill: none }
.asked { fill: #7a828c; fill-opacity: 0.22 }
.served { fill: #2f8f5b }
.p99 { stroke: #d1622b; stroke-width: 2; fill: none }
.multiplier { stroke: #3b7dd8; stroke-width: 2; fill: none; stroke-dasharray: 5 3 }
.can { stroke: #7a828c; stroke-dasharray: 2 3 }
</style>
<text class="title" x="${left}" y="18">${title}</text>
<rect class="asked" x="${left}" y="28" width="10" height="10"/><text x="${left + 15}" y="37">asked</text>
<rect class="served" x="${left + 70}" y="28" width="10" height="10"/><text x="${left + 85}" y="37">served in time</text>
<path class="p99" d="M${left + 190} 33h16"/><text x="${left + 211}" y="37">p99 of what was served, up to ${patienceMs / 1000} s</text>
<path class="multiplier" d="M${left + 420} 33h16"/><text x="${left + 441}" y="37">multiplier, up to 2</text>
${rows.join('\n')}
${marks.map((ms) => `<text x="${x(ms)}" y="${height - bottom + 14}" text-anchor="middle">${ms / 1000}</text>`).join('\n')}
<text x="${width - right}" y="${height - 4}" text-anchor="end">seconds; overload from ${overload.from / 1000} to ${overload.until / 1000}</text>
</svg>
`
}

interface Scale {
  readonly x: (ms: number) => number
  readonly most: number
  readonly spanMs: number
}

function drawRow({ variant, seen, looks }: Played, y: number, { x, most, spanMs }: Scale): string {
  const ground = y + 22 + plotHeight
  const tall = (part: number): number => round(ground - Math.min(1, part) * plotHeight)
  const [asked, served, slow]: string[][] = [[], [], []]
  for (let from = 0; from < spanMs; from += stepMs) {
    const here = seen.filter(({ at }) => at >= from && at < from + stepMs)
    const rate = (count: number): number => (count * 1000) / stepMs / most
    const wide = round(x(from + stepMs) - x(from))
    const bar = (kind: string, count: number): string =>
      `<rect class="${kind}" x="${x(from)}" y="${tall(rate(count))}" width="${wide}" height="${round(ground - tall(rate(count)))}"/>`
    asked!.push(bar('asked', here.length))
    served!.push(bar('served', here.filter(isGood).length))
    const took = here.filter(({ status }) => status === 200).map(({ ms }) => ms)
    if (took.length > 0) slow!.push(`${x(from + stepMs / 2)} ${tall(quantile(took, 0.99) / patienceMs)}`)
  }
  const multipliers = looks
    .filter(({ at }) => at <= spanMs)
    .map(({ at, multiplier }) => `${x(at)} ${tall(multiplier / 2)}`)
  return `<text x="${left}" y="${y + 14}">${variant}</text>
${asked!.join('')}
${served!.join('')}
<path class="can" d="M${left} ${tall(capacity / most)}H${width - right}"/>
<text x="${width - right + 4}" y="${tall(capacity / most) + 4}">${capacity}/s</text>
<path class="p99" d="M${slow!.join('L')}"/>
${variant === 'levels' || variant === 'both' ? `<path class="multiplier" d="M${multipliers.join('L')}"/>` : ''}
<path class="axis" d="M${left} ${ground}H${width - right}"/>`
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
