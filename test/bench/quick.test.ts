import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const exec = promisify(execFile)
const root = fileURLToPath(new URL('../..', import.meta.url))

// Long, for a machine that runs the rest of the suite meanwhile.
const patienceMs = 900_000

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

  const onRedis = ['rate-limit-redis on ioredis', 'rate-limit-redis on node-redis', 'rate-limiter-flexible']
  const everywhere = [...onRedis, '@upstash/ratelimit']

  it.each([
    ['Decisions on Redis, 64 in flight', everywhere, ['1', '2', '3', '7'], 3],
    ['Decisions on Redis, one at a time', everywhere, ['1', '3'], 3],
    ['Decisions on Redis, 512 in flight', everywhere, ['1', '3'], 3],
    ['Decisions on Redis, 64 in flight, some clients ask much more than others', everywhere, ['1', '3'], 3],
    ['Decisions in memory', ['express-rate-limit', 'rate-limiter-flexible'], ['1', '2', '3', '7'], 2],
    ['Requests to an Express 5 app, counted on Redis', onRedis, ['1', '3'], 2],
  ])('sets ours against the peers, by number of limits: %s', (heading, peers, counts, ratios) => {
    const rows = tableUnder(output, heading)
    for (const peer of peers) {
      const ofPeer = rows.filter((row) => row[1] === peer)
      expect(ofPeer.map((row) => row[0])).toEqual(counts)
      for (const row of ofPeer) {
        for (const cell of row.slice(-ratios)) expect(cell).toMatch(ratio)
      }
    }
    expect(rows.filter((row) => row[1] === 'rampmeter')).toHaveLength(counts.length)
  })

  it('has the least that a round trip costs', () => {
    const names = tableUnder(output, 'Decisions on Redis, one at a time').map((row) => row[1])
    expect(names).toEqual(expect.arrayContaining(['a bare INCR', 'a bare PING', 'rampmeter, its store alone']))
  })

  it('counts what reaches Redis of a retry storm: all of it, unless a library remembers', () => {
    const rows = tableUnder(output, 'A retry storm: one client that has used up its quota, 64 in flight')
    const callsOf = (name: string): number => Number(rows.find((row) => row[0] === name)![4])
    // A call of a slice before that a stalled machine runs late is counted too.
    for (const peer of onRedis) {
      expect(callsOf(peer)).toBeGreaterThan(990)
      expect(callsOf(peer)).toBeLessThan(1100)
    }
    // A slice that begins late may see the end of a block.
    expect(callsOf('rate-limiter-flexible, inMemoryBlockOnConsumed')).toBeLessThan(10)
    // None, unless the machine stalls for so long that it is forgotten.
    expect(callsOf('rampmeter')).toBeLessThan(500)
  })

  it('counts memory, of one client and of many', () => {
    for (const heading of ['Memory of one client in Redis', 'Memory of many clients in Redis, one request each']) {
      const rows = tableUnder(output, heading)
      expect(rows.map((row) => row.slice(0, 2).join(' '))).toEqual([
        '1 rampmeter',
        '1 rate-limit-redis',
        '3 rampmeter',
        '3 rate-limit-redis',
      ])
    }
    const keys = tableUnder(output, 'Memory of many clients in Redis, one request each').map((row) => row.at(-1))
    expect(keys).toEqual(['1.00', '1.00', '1.00', '3.00'])
    expect(output).toMatch(
      /three seconds after one request each, of 60 a minute: rampmeter \d{1,3}, rate-limit-redis 1 000\./,
    )
    expect(tableUnder(output, 'Memory of many clients in memory stores')).toHaveLength(6)
  })

  it('says where the time goes: of Node by whose code it is, of Redis step by step', () => {
    const ofNode = tableUnder(output, "Where Node's time goes")
    expect(ofNode.map((row) => row.slice(0, 3).join(', '))).toEqual([
      '64 in flight, 1, rampmeter',
      '64 in flight, 1, rate-limit-redis on ioredis',
      '64 in flight, 3, rampmeter',
      '64 in flight, 3, rate-limit-redis on ioredis',
      'one at a time, 1, rampmeter',
      'one at a time, 1, a bare INCR',
      'a retry storm, 1, rampmeter',
      'a retry storm, 1, rate-limiter-flexible, inMemoryBlockOnConsumed',
      'in memory, 1, rampmeter',
      'in memory, 1, express-rate-limit',
      'a request over HTTP, 0, no limiter',
      'a request over HTTP, 3, rampmeter',
      'a request over HTTP, 1, rate-limit-redis on ioredis',
    ])
    for (const [, , , all, ...parts] of ofNode) {
      const sum = parts.reduce((total, part) => total + Number(part), 0)
      // Each part is rounded.
      expect(Math.abs(sum - Number(all))).toBeLessThan(0.05)
    }
    const ofRedis = tableUnder(output, "Where Redis's time goes, 64 in flight")
    expect(ofRedis.map(([count]) => count)).toEqual(['1', '1', '1', '1', '3', '3', '3', '3'])
    for (const [, , us] of ofRedis) expect(us).toMatch(/^\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)$/)
  })

  it('sets layouts of state side by side', () => {
    const rows = tableUnder(output, 'Layouts of state in Redis').filter((row) => row[0] === '7')
    expect(rows.map((row) => row.slice(1, 4).join(', '))).toEqual([
      'one packed string, 1, 1',
      'one hash, 1, 2',
      'a key a policy, 1, 7',
    ])
  })

  it('says how long it takes to start', () => {
    const names = tableUnder(output, 'Start-up').map((row) => row[0])
    expect(names).toEqual(expect.arrayContaining(['rampmeter', 'rampmeter/client', 'express-rate-limit']))
  })

  it('says of each goal what was measured, and whether it was met', () => {
    const goals = tableUnder(output, 'Goals')
    expect(goals).toHaveLength(14)
    for (const [goal, measured, met] of goals) {
      const [, kind, wanted] = /at (least|most) ([\d.]+)/.exec(goal!)!
      const value = Number.parseFloat(measured!)
      // What is shown is rounded.
      if (Math.abs(value - Number(wanted)) < 0.01) continue
      expect(met).toBe((kind === 'least' ? value > Number(wanted) : value < Number(wanted)) ? 'yes' : '**no**')
    }
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
    const callsOf = (name: string): number[] => rows.filter((row) => row[1] === name).map((row) => Number(row[6]))
    // What runs beside the decisions (a process says that it lives, a client connects anew) is seen in a slice that the
    // machine cuts short. test/stores/redis.test.ts counts the calls of one decision exactly.
    for (const [name, three] of [['rampmeter', 1], ...everywhere.map((peer) => [peer, 3] as const)] as const) {
      const [ofOne, ofThree] = callsOf(name)
      expect(ofOne).toBeCloseTo(1, 0)
      expect(ofThree).toBeCloseTo(three, 0)
    }
  })

  it('refuses to write down what says little', async () => {
    const run = ['--import', 'tsx', 'bench/run.ts']
    await expect(exec(process.execPath, [...run, '--quick', '--write'], { cwd: root })).rejects.toThrow(
      'leave out --quick',
    )
    await expect(exec(process.execPath, [...run, '--only', 'nothing'], { cwd: root })).rejects.toThrow(
      'there are decisions,',
    )
  })
})
