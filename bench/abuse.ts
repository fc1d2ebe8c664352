// What `npm run bench:abuse` runs: honest clients of many habits and abusers of each label, in one app, in virtual time, through
// Express and the limiter as it is. It says who was caught as what, after how long, and what honest clients had to bear.
//
//   npm run bench:abuse                  two hours, five seeds
//   npm run bench:abuse -- --write       and puts the tables into docs/abuse.md
//   npm run bench:abuse -- --seed 42     seeds of your own, one or more
//   npm run bench:abuse -- --quick       half an hour of one seed, so that it is seen to run

import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { abusiveCast } from './abuse/abusers.ts'
import { bystanders, honestCast } from './abuse/honest.ts'
import { play, type Outcome, type Tally } from './abuse/world.ts'
import { seeded } from './honesty/random.ts'

const { values: wish } = parseArgs({
  options: { quick: { type: 'boolean' }, write: { type: 'boolean' }, seed: { type: 'string', multiple: true } },
})
const seeds = wish.seed !== undefined ? wish.seed.map(Number) : wish.quick === true ? [1] : [1, 2, 3, 4, 5]
const hours = wish.quick === true ? 0.5 : 2

const outcomes: Outcome[] = []
for (const seed of seeds) {
  const random = seeded(seed)
  outcomes.push(await play([...honestCast(random), ...abusiveCast(random)], seed, hours * 3_600_000))
}

/** What an actor is taken for: the label whose incident began first, of its own or, of accounts in a row, of their address. */
function takenFor(outcome: Outcome, { actor }: Tally): { label: string; afterMs: number; of: string } | null {
  const own = outcome.incidents.filter(({ client }) => client.id === actor.id)
  const behind = outcome.incidents.filter(({ client }) => client.accounts?.includes(actor.id) === true)
  const first = own[0] ?? (actor.label === null ? undefined : behind[0])
  if (first === undefined) return null
  return {
    label: first.label,
    afterMs: first.firstSeen - outcome.startMs - actor.startsMs,
    of: own.length > 0 ? 'itself' : 'its address',
  }
}

const labels = [
  'retry-storm',
  'quota-exhaustion',
  'scraping',
  'enumeration',
  'credential-leakage',
  'transactional-abuse',
]
const all = outcomes.flatMap((outcome) =>
  outcome.tallies.map((tally) => ({ outcome, tally, taken: takenFor(outcome, tally) })),
)

function confusion(): string {
  const rows = [...labels, null].map((truth) => {
    const those = all.filter(({ tally }) => tally.actor.label === truth)
    const cells = [...labels, null].map((label) => those.filter(({ taken }) => (taken?.label ?? null) === label).length)
    return [truth ?? 'honest', ...cells.map(String)]
  })
  return tableOf(['is \\\\ taken for', ...labels, 'nothing'], rows)
}

function detection(): string {
  const habits = [
    ...new Set(all.filter(({ tally }) => tally.actor.label !== null).map(({ tally }) => tally.actor.habit)),
  ]
  return tableOf(
    ['abuser', 'label', 'caught', 'by incidents of', 'median time to detection', 'longest'],
    habits.map((habit) => {
      const those = all.filter(({ tally }) => tally.actor.habit === habit)
      const found = those.filter(({ taken, tally }) => taken !== null && taken.label === tally.actor.label)
      const times = found.map(({ taken }) => taken!.afterMs).sort((one, other) => one - other)
      const of = [...new Set(found.map(({ taken }) => taken!.of))].join(', ')
      return [
        habit,
        those[0]!.tally.actor.label!,
        `${found.length} of ${those.length}`,
        of,
        span(times[Math.floor(times.length / 2)]),
        span(times.at(-1)),
      ]
    }),
  )
}

function honesty(): string {
  const habits = [
    ...new Set(all.filter(({ tally }) => tally.actor.label === null).map(({ tally }) => tally.actor.habit)),
  ]
  const row = (name: string, those: typeof all): string[] => {
    const sum = (of: (tally: Tally) => number): number => those.reduce((total, { tally }) => total + of(tally), 0)
    const requests = sum((tally) => tally.requests)
    return [
      name,
      String(those.length),
      String(requests),
      percent(sum((tally) => tally.throttled) / requests),
      percent(sum((tally) => tally.challenged) / requests),
      String(those.filter(({ tally }) => tally.denied > 0).length),
      [...new Set(those.flatMap(({ taken }) => (taken === null ? [] : [taken.label])))].join(', '),
    ]
  }
  const honest = all.filter(({ tally }) => tally.actor.label === null)
  return tableOf(
    ['honest client', 'clients', 'requests', 'refused as throttled', 'challenged', 'clients ever denied', 'incidents'],
    [
      ...habits.map((habit) =>
        row(
          habit,
          honest.filter(({ tally }) => tally.actor.habit === habit),
        ),
      ),
      row('all', honest),
      row(
        `all but ${bystanders}`,
        honest.filter(({ tally }) => tally.actor.habit !== bystanders),
      ),
    ],
  )
}

function tableOf(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

function span(ms: number | undefined): string {
  if (ms === undefined) return ''
  return ms < 120_000 ? `${Math.round(ms / 1000)} s` : `${Math.round(ms / 60_000)} min`
}

function percent(share: number): string {
  return `${(100 * share).toFixed(3)} %`
}

const said = [
  `${seeds.length} seeds (${seeds.join(', ')}), ${hours} hours each, ${all.reduce((sum, { tally }) => sum + tally.requests, 0)} requests. Made by \`npm run bench:abuse\`.`,
  `### Who is taken for what\n\n${confusion()}`,
  `### How soon\n\n${detection()}`,
  `### What honest clients bear\n\n${honesty()}`,
].join('\n\n')
console.log(said)
if (wish.write === true) {
  const page = new URL('../docs/abuse.md', import.meta.url)
  const before = readFileSync(page, 'utf8')
  const [from, to] = [before.indexOf('<!-- bench: begin -->'), before.indexOf('<!-- bench: end -->')]
  if (from === -1 || to < from)
    throw new Error('docs/abuse.md lacks its marks <!-- bench: begin --> and <!-- bench: end -->')
  writeFileSync(
    page,
    `${before.slice(0, from)}<!-- bench: begin -->\n\n${said.replaceAll('### ', '#### ')}\n\n${before.slice(to)}`,
  )
}
