import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
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

const limiters = [
  'express-rate-limit',
  'rate-limiter-flexible, fraction',
  'rate-limiter-flexible, rounded',
  'rampmeter, token bucket',
  'rampmeter, sliding window',
]

describe('npm run bench:honesty', () => {
  let output = ''
  beforeAll(async () => {
    const { stdout } = await exec('npm', ['run', 'bench:honesty', '--', '--quick'], { cwd: root, timeout: patienceMs })
    output = stdout
  }, patienceMs)

  it('says what it ran on', () => {
    expect(output).toMatch(/cores .*Node \d+\.\d+\.\d+, (Redis|Valkey) \d+\.\d+\.\d+, express 5\..*, undici \d/)
  })

  // How true a told time comes out depends on how busy the machine is: that is for the bench to say, and for the property tests of
  // the schedule, whose clock is turned.
  it('plays one alone and herds, with each client at each limiter', () => {
    expect(tableUnder(output, 'Alone').map((row) => row[0])).toEqual(limiters)
    const herds = tableUnder(output, 'Herds')
    for (const client of ['as told', 'got']) {
      const rows = herds.filter((row) => row[1] === client)
      expect(rows.map((row) => row[2])).toEqual(limiters)
      for (const [herd, , , refused, firstRetry] of rows) {
        expect(herd).toBe('20')
        expect(Number(refused)).toBeGreaterThan(0)
        expect(firstRetry).toMatch(/^\d+ \(/)
      }
    }
  })

  it('sets ours beside the best peer, also where new traffic comes', () => {
    for (const heading of ['Herds, beside the best peer', 'Herds with new traffic, beside the best peer']) {
      const rows = tableUnder(output, heading)
      expect(new Set(rows.map((row) => row[2]))).toEqual(new Set(limiters.slice(-2)))
      for (const row of rows) expect(row[6]).toMatch(/^\*\*\d+\.\d\d\*\*$/)
    }
    expect(tableUnder(output, 'Herds, with new traffic meanwhile')).toHaveLength(limiters.length)
  })

  it('says what became of those with tickets where new traffic comes', () => {
    const [row] = tableUnder(output, 'Tickets, with new traffic meanwhile')
    expect(row!.slice(0, 2)).toEqual(['20', 'as told'])
    expect(Number(row![3])).toBeGreaterThan(0)
  })
})

it('what docs/honesty.md says of the simulation is what comes out', { timeout: patienceMs }, async () => {
  const { stdout } = await exec(process.execPath, ['--import', 'tsx', 'bench/simulate-herd.ts'], { cwd: root })
  const [table] = stdout.split('\n\n')
  const page = readFileSync(new URL('../../docs/honesty.md', import.meta.url), 'utf8')
  expect(page).toContain(`<!-- simulation: begin -->\n\n${table}\n\n<!-- simulation: end -->`)
})
