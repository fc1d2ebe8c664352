// What `npm run bench:adaptive` runs: an Express app with a bottleneck, overloaded on purpose, with limits that stay as they
// are, with levels, with a limit of what is in flight, and with both.
//
//   npm run bench:adaptive                in about four minutes
//   npm run bench:adaptive -- --write     and puts the tables into docs/adaptive.md, and the picture beside it
//   npm run bench:adaptive -- --quick     only shows that it runs: the numbers say little

import { writeFileSync } from 'node:fs'
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'
import { afterTable, burstTable, overloadTable } from './adaptive/findings.ts'
import { drawPlays } from './adaptive/picture.ts'
import { play, type Played } from './adaptive/play.ts'
import { full, quick, variants } from './adaptive/settings.ts'
import { writeBetween } from './honesty/page.ts'

const { values: wish } = parseArgs({ options: { quick: { type: 'boolean' }, write: { type: 'boolean' } } })
if (wish.quick && wish.write)
  throw new Error('--quick measures too little to be written down: leave out --quick or --write')

const loadBefore = loadavg()[0]!
const plays: Played[] = []
for (const variant of variants) plays.push(await play(variant, wish.quick ? quick : full))

const text = `Node ${process.version}, ${cpus().length} × ${cpus()[0]?.model ?? 'unknown'}; load average ${loadBefore.toFixed(1)} before.

### Bursts at an idle app

${burstTable(plays)}

### Overload

${overloadTable(plays)}

### Afterwards

${afterTable(plays)}`
console.log(text)
if (wish.write) {
  writeBetween('adaptive', text, new URL('../docs/adaptive.md', import.meta.url))
  writeFileSync(new URL('../docs/pictures/adaptive.svg', import.meta.url), drawPlays(plays))
}
