// What `npm run test:faults` runs: every fault, done to real servers under load, and a table of what came of it.
//
//   npm run test:faults                 in about three minutes
//   npm run test:faults -- Sentinel     only those whose name says so
//   npm run test:faults -- --write      and puts the table into docs/operations.md
//   npm run test:faults -- --help       says this, and their names

import { readFileSync, writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { floodOne } from './flood.ts'
import { deadlineMs, processes } from './load.ts'
import { scenarios, type Bound, type Outcome } from './scenarios.ts'

const flood = 'flood: one client asks a thousand times in one turn, then another asks once'
const { values: wish, positionals } = readArguments()
if (wish.help) {
  console.log(usage())
  process.exit()
}

/** A busy machine may hold up our own event loop: what it was held up at most is not the store's doing. */
const dispatchMs = 20

const reasons: Record<Bound, string> = {
  none: 'nothing was used before',
  share: "this process's share of the quota",
  forgotten: 'the quota: what was used is forgotten with the server',
  lag: 'the quota: what the successor had not heard of is forgotten',
}

const isChosen = (name: string): boolean => positionals.every((word) => name.includes(word))
const chosen = scenarios.filter(({ name }) => isChosen(name))
if (chosen.length === 0 && !isChosen(flood)) refuse('no fault is called like that')
const faults: string[] = []
const rows: string[] = []
for (const { name, bound, run } of chosen) {
  process.stderr.write(`${name} … `)
  const outcome = await run().catch((error: unknown) => {
    faults.push(`${name}: ${String(error)}`)
    process.stderr.write(`WRONG: ${String(error)}\n`)
  })
  if (outcome === undefined) continue
  const wrong = wrongOf(outcome)
  process.stderr.write(wrong === undefined ? 'ok\n' : `WRONG: ${wrong}\n`)
  if (wrong !== undefined) faults.push(`${name}: ${wrong}`)
  rows.push(rowOf(name, bound, outcome))
}

if (rows.length > 0) {
  const said = table()
  console.log(`\n${said}`)
  if (wish.write) write(said)
}
if (isChosen(flood)) {
  const { otherMs, lastMs, before } = await floodOne()
  console.log(
    `\n${flood}: answered after ${otherMs.toFixed(1)} ms, behind ${before} of the thousand; the last of them after ${lastMs.toFixed(1)} ms`,
  )
}
if (faults.length > 0) {
  console.error(`\nWRONG\n${faults.join('\n')}`)
  process.exitCode = 1
}

function readArguments() {
  const options = {
    write: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  } as const
  try {
    return parseArgs({ allowPositionals: true, options })
  } catch (error) {
    return refuse((error as Error).message)
  }
}

function refuse(what: string): never {
  console.error(`${what}\n\n${usage()}`)
  process.exit(2)
}

function usage(): string {
  return [
    'npm run test:faults -- [--write] [words that a name has]',
    '',
    '  --write   puts the table into docs/operations.md',
    '  --help    says this',
    '',
    'Does to real servers, under load:',
    ...scenarios.map(({ name }) => `  ${name}`),
    `  ${flood}`,
  ].join('\n')
}

function wrongOf({ waitedMs, heldUpMs, over, bound, longTurns = 1 }: Outcome): string | undefined {
  if (waitedMs > deadlineMs + longTurns * heldUpMs + dispatchMs) return `a request waited ${waitedMs.toFixed(0)} ms`
  return over > bound ? `${over} were admitted beyond the limit, and ${bound} may be` : undefined
}

function rowOf(name: string, bound: Bound, outcome: Outcome): string {
  const { requests, withoutStore, waitedMs, heldUpMs, over, healedMs } = outcome
  const seconds = `${(healedMs / 1000).toFixed(1)} s`
  const cells = [
    name,
    `${waitedMs.toFixed(0)} ms (${heldUpMs.toFixed(0)})`,
    `${withoutStore} of ${requests}`,
    `${Math.max(0, over)}`,
    `${outcome.bound}: ${reasons[bound]}`,
    seconds,
  ]
  return `| ${cells.join(' | ')} |`
}

function table(): string {
  return [
    '| what happens | longest wait (longest stall of our own event loop) | decided without the store | admitted over 300 | at most, and why | healed after |',
    '| --- | --- | --- | --- | --- | --- |',
    ...rows,
  ].join('\n')
}

function write(text: string): void {
  const page = new URL('../../docs/operations.md', import.meta.url)
  const [begin, end] = ['<!-- faults -->', '<!-- /faults -->']
  const before = readFileSync(page, 'utf8')
  const [head, tail] = [before.indexOf(begin), before.indexOf(end)]
  if (head === -1 || tail === -1) throw new Error(`docs/operations.md has no place for the table: ${begin} … ${end}`)
  writeFileSync(page, `${before.slice(0, head + begin.length)}\n\n${text}\n\n${before.slice(tail)}`)
  console.error(`written to docs/operations.md (${processes} processes, a deadline of ${deadlineMs} ms)`)
}
