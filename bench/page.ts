import { readFileSync, writeFileSync } from 'node:fs'
import { ours } from './libraries/libraries.ts'
import { drawDecisions } from './picture.ts'
import type { DecisionSample, Measured } from './slice.ts'

/** What a whole run has to say. */
export interface Report {
  readonly ground: string
  readonly goals: string
  readonly sections: readonly string[]
  readonly end: string
  /** What the picture shows. */
  readonly busy: readonly Measured<DecisionSample>[]
}

const title = 'Decisions a second on Redis, 64 in flight'

/** Puts a run into docs/performance.md, and its picture beside it. */
export function write({ ground, goals, sections, end, busy }: Report): void {
  const page = new URL('../docs/performance.md', import.meta.url)
  const text = readFileSync(page, 'utf8')
  const shown = busy.filter(({ name }) => !name.includes('alone'))
  writeFileSync(new URL('../docs/pictures/performance.svg', import.meta.url), drawDecisions(shown, ours, title))
  const picture = `![${title}, by library and number of limits](pictures/performance.svg)`
  const whole = [ground, picture, `### Goals\n\n${goals}`, ...sections, end].join('\n\n')
  writeFileSync(page, between(text, whole))
}

/** The page with other text between the two comments. */
function between(page: string, text: string): string {
  const [begin, end] = ['<!-- bench: begin -->', '<!-- bench: end -->']
  const from = page.indexOf(begin)
  const to = page.indexOf(end)
  if (from === -1 || to < from) throw new Error(`docs/performance.md lacks ${begin} and ${end}`)
  return `${page.slice(0, from)}${begin}\n\n${text}\n\n${page.slice(to)}`
}
