import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const exec = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

// Long, for a machine that runs the rest of the suite meanwhile.
const patienceMs = 240_000

/** The rows of the table under a heading, by column. */
function tableUnder(text: string, heading: string): string[][] {
  const section = text.split(`### ${heading}\n`)[1]?.split('\n### ')[0] ?? ''
  return section
    .split('\n')
    .filter((line) => line.startsWith('|'))
    .slice(2)
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
}

const ratio = /^\*\*-?\d+\.\d\d\*\* \(-?\d+\.\d\d to -?\d+\.\d\d\)$/

describe('npm run bench', () => {
  let output = ''
  beforeAll(async () => {
    const { stdout } = await exec('npm', ['run', 'bench', '--', '--quick'], { cwd: root, timeout: patienceMs })
    output = stdout
  }, patienceMs)

  it('says what it ran on', () => {
    expect(output).toMatch(/cores .*Node \d+\.\d+\.\d+, (Redis|Valkey) \d+\.\d+\.\d+, express 5\./)
  })

  it.each([
    ['Decisions on Redis, 64 in flight', 3],
    ['Decisions on Redis, one at a time', 3],
    ['Decisions in memory', 2],
    ['Requests to an Express 5 app, counted on Redis', 2],
  ])('sets ours against the peers, for one, two and three limits: %s', (heading, ratios) => {
    const rows = tableUnder(output, heading)
    for (const peer of ['express-rate-limit', 'rate-limiter-flexible']) {
      const ofPeer = rows.filter((row) => row[1] === peer)
      expect(ofPeer.map((row) => row[0])).toEqual(['1', '2', '3'])
      for (const row of ofPeer) {
        for (const cell of row.slice(-ratios)) expect(cell).toMatch(ratio)
      }
    }
    expect(rows.filter((row) => row[1] === 'rampmeter')).toHaveLength(3)
  })

  it.each(['Dimensions, in memory', 'Dimensions, on Redis'])(
    'says what each dimension costs to one token bucket: %s',
    (heading) => {
      const rows = tableUnder(output, heading)
      expect(rows.map((row) => row[1])).toEqual(
        expect.arrayContaining(['token bucket', 'concurrency', 'failures', 'unique targets', 'calendar quota']),
      )
      expect(rows.at(-1)![0]).toBe('7')
      for (const row of rows.slice(1)) expect(row.at(heading.endsWith('Redis') ? -1 : -2)).toMatch(ratio)
    },
  )

  it('counts one call to Redis for a decision of ours, however many limits, and one a limit for the peers', () => {
    const rows = tableUnder(output, 'Decisions on Redis, one at a time')
    const callsOf = (name: string): (string | undefined)[] => rows.filter((row) => row[1] === name).map((row) => row[6])
    expect(callsOf('rampmeter')).toEqual(['1.00', '1.00', '1.00'])
    expect(callsOf('express-rate-limit')).toEqual(['1.00', '2.00', '3.00'])
    expect(callsOf('rate-limiter-flexible')).toEqual(['1.00', '2.00', '3.00'])
  })
})
