import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { runExample, startExample, stopAll } from './running.ts'

beforeAll(async () => {
  const built = await runExample(['scripts/build.mjs', '--if-stale'])
  if (built.code !== 0) throw new Error(`the examples run on the package as it is built:\n${built.stdout}`)
}, 120_000)

afterAll(stopAll)

describe('paced-agent', () => {
  it('has all of its searches answered by an API that admits a third of them at once', async () => {
    const { code, stdout, stderr } = await runExample(['--import', 'tsx', 'examples/paced-agent.ts'], {
      API: undefined,
    })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain('30 of 30 searches were answered')
    // Twenty places at five a second.
    const seconds = Number(/([\d.]+) s {2}30 of 30/.exec(stdout)?.[1])
    expect(seconds).toBeGreaterThan(3.5)
    expect(seconds).toBeLessThan(20)
  }, 60_000)

  it('asks another API too', async () => {
    const { url, stop } = await startExample('minimal.ts')
    const { stdout } = await runExample(['--import', 'tsx', 'examples/paced-agent.ts'], { API: `${url}/` })
    expect(stdout).toMatch(/\d+ of 30 searches were answered/)
    await stop()
  }, 120_000)
})

describe('tickets', () => {
  it('has an agent served at each of its first retries, beside a client that takes all that comes back', async () => {
    const { code, stdout, stderr } = await runExample(['--import', 'tsx', 'examples/tickets.ts'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout.split('\n')).toEqual([
      expect.stringContaining('without tickets: the agent got 0 of 5 answers'),
      'with tickets: the agent got 5 of 5 answers and was refused 5 times; the steady client got 94 and was refused 6 times',
      '',
    ])
  }, 120_000)
})
