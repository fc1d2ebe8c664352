import { afterAll, beforeAll, expect, it } from 'vitest'
import { runExample, stopAll } from './running.ts'

beforeAll(async () => {
  const built = await runExample(['scripts/build.mjs', '--if-stale'])
  if (built.code !== 0) throw new Error(`the examples run on the package as it is built:\n${built.stdout}`)
}, 120_000)

afterAll(() => stopAll())

it('web-bot-auth: a signature proves an agent, for the request that it was made for', async () => {
  expect(await runExample(['--import', 'tsx', 'examples/web-bot-auth.ts'])).toEqual({
    code: 0,
    stderr: '',
    stdout: `\
the agent:           200 verified-agent, agent:https://agent.example/keys.json
a thief:             401 Web-Bot-Auth error="invalid_signature", error_description="it does not verify"
a forger:            401 Web-Bot-Auth error="invalid_signature", error_description="it does not verify"
one that only says:  200 unverified-agent, by its address
`,
  })
}, 60_000)
