import { afterAll, beforeAll, expect, it } from 'vitest'
import { runExample, stopAll } from './running.ts'

beforeAll(async () => {
  const built = await runExample(['scripts/build.mjs', '--if-stale'])
  if (built.code !== 0) throw new Error(`the examples run on the package as it is built:\n${built.stdout}`)
}, 120_000)

afterAll(() => stopAll())

it('bearer: from an address to a token that is taken', async () => {
  const metadata = 'resource_metadata="http://127.0.0.1/.well-known/oauth-protected-resource/orders"'
  const invalid = 'Bearer error="invalid_token", error_description='
  expect(await runExample(['--import', 'tsx', 'examples/bearer.ts'])).toEqual({
    code: 0,
    stderr: '',
    stdout: `\
without a token:             401 Bearer ${metadata}
the agent:                   200 agent, since the token is a client's own (sub is its client)
a token for another API:     401 ${invalid}"the token is for somebody else", ${metadata}
a token for something else:  403 Bearer error="insufficient_scope", scope="orders:read", ${metadata}
a token that was changed:    401 ${invalid}"the token's signature is wrong", ${metadata}
a thief with a copy:         200 agent, since the token is a client's own (sub is its client)
`,
  })
}, 60_000)

it('introspect: asked once about many requests, and nobody is refused because the server is away', async () => {
  const inactive = 'Bearer error="invalid_token", error_description="the token is not active", scope="orders:read"'
  const { code, stdout, stderr } = await runExample(['--import', 'tsx', 'examples/introspect.ts'])
  expect({ code, stdout }).toEqual({
    code: 0,
    stdout: `\
a token of an agent:          200 agent, sub:https://id.example.com|agent-7
a token of a person:          200 human, sub:https://id.example.com|ann
a token that nobody issued:   401 ${inactive}
twenty requests at once:      1 question to the server
a token that was revoked:     401 ${inactive}
the server is away:           503 no challenge: the token may be good
and is back:                  200 human, sub:https://id.example.com|ann
`,
  })
  // Whoever runs the API is told, once, and without a token.
  expect(stderr).toMatch(/RAMPMETER_LOOKUP_FAILED.*the cause was IntrospectionFailed HTTP_503/)
  expect(stderr).not.toMatch(/anns-token|a-secret/)
}, 60_000)
