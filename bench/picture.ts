import type { DecisionSample, Measured } from './slice.ts'
import { spread } from './statistics.ts'
import { grouped } from './table.ts'

const width = 760
const left = 220
const right = 70
const top = 52
const rowHeight = 17
const gap = 26

/**
 * Draws how many decisions a second each library makes, by number of limits. Every colour stands out from white and from black
 * alike, since the page may be either.
 */
export function drawDecisions(measured: readonly Measured<DecisionSample>[], ours: string, title: string): string {
  const counts = [...new Set(measured.map(({ limits }) => limits))]
  const most = Math.max(...measured.map(rateOf))
  const scale = (rate: number): number => round((rate / most) * (width - left - right))
  const lines: string[] = []
  let y = top
  for (const count of counts) {
    lines.push(`<text class="title" x="16" y="${y}">${count === 1 ? 'one limit' : `${count} limits`}</text>`)
    for (const one of measured.filter(({ limits }) => limits === count)) {
      const rate = rateOf(one)
      y += rowHeight
      const kind = one.name === ours ? 'ours' : one.name.startsWith('a bare') ? 'floor' : 'peer'
      lines.push(
        `<text x="${left - 8}" y="${y}" text-anchor="end">${one.name}</text>` +
          `<rect class="${kind}" x="${left}" y="${y - 10}" width="${Math.max(1, scale(rate))}" height="12"/>` +
          `<text x="${left + scale(rate) + 6}" y="${y}">${grouped(rate)}</text>`,
      )
    }
    y += gap
  }
  const told = measured.map((one) => `${one.name}, ${one.limits} limits: ${grouped(rateOf(one))}.`).join(' ')
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" width="${width}" height="${y}" role="img">
<title>${title}</title>
<desc>${told}</desc>
<style>
text { font: 12px system-ui, sans-serif; fill: #7a828c }
.title { font-weight: 600; font-size: 13px }
.ours { fill: #2f8f5b }
.peer { fill: #d1622b }
.floor { fill: #7a828c }
</style>
<text class="title" x="16" y="20">${title}</text>
${lines.join('\n')}
</svg>
`
}

function rateOf({ samples }: Measured<DecisionSample>): number {
  return spread(samples.map(({ perSecond }) => perSecond)).median
}

function round(value: number): number {
  return Math.round(value * 10) / 10
}
