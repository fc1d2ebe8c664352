import { readFileSync, writeFileSync } from 'node:fs'

const honesty = new URL('../../docs/honesty.md', import.meta.url)

/** Puts text between the two comments of a name in docs/honesty.md, or another page. */
export function writeBetween(name: string, text: string, page: URL = honesty): void {
  const before = readFileSync(page, 'utf8')
  const [begin, end] = [`<!-- ${name}: begin -->`, `<!-- ${name}: end -->`]
  const from = before.indexOf(begin)
  const to = before.indexOf(end)
  if (from === -1 || to < from) throw new Error(`${page.pathname} lacks ${begin} and ${end}`)
  writeFileSync(page, `${before.slice(0, from)}${begin}\n\n${text}\n\n${before.slice(to)}`)
}
