import { afterAll, beforeAll, expect, it } from 'vitest'
import { runExample, stopAll } from './running.ts'

beforeAll(async () => {
  const built = await runExample(['scripts/build.mjs', '--if-stale'])
  if (built.code !== 0) throw new Error(`the examples run on the package as it is built:\n${built.stdout}`)
}, 120_000)

afterAll(() => stopAll())

it('dpop: a stolen token is worth nothing without the key, and a stolen proof nothing at all', async () => {
  expect(await runExample(['--import', 'tsx', 'examples/dpop.ts'])).toEqual({
    code: 0,
    stderr: '',
    stdout: `\
the agent:                  200 verified-agent, sub:https://id.example.com|agent-7
the agent, again:           200 verified-agent, sub:https://id.example.com|agent-7
a thief, the same proof:    401 DPoP error="invalid_dpop_proof", error_description="the proof was used before"
a thief, with a key:        401 DPoP error="invalid_dpop_proof", error_description="the proof is signed with another key than the one wanted"
a thief, without a proof:   401 DPoP error="invalid_token", error_description="the token is bound to a key: send it as DPoP, with a proof"
`,
  })
}, 60_000)

it('mtls: a stolen token is worth nothing without the certificate', async () => {
  expect(await runExample(['--import', 'tsx', 'examples/mtls.ts'])).toEqual({
    code: 0,
    stderr: '',
    stdout: `\
the agent:                     200 verified-agent, sub:https://id.example.com|agent-7
a thief:                       401 Bearer error="invalid_token", error_description="the token is bound to another certificate"
a thief without a certificate: 401 Bearer error="invalid_token", error_description="the token is bound to a certificate, and the client showed none"
`,
  })
}, 60_000)

it('attestation: an attested agent is served once for each proof that it makes', async () => {
  expect(await runExample(['--import', 'tsx', 'examples/attestation.ts'])).toEqual({
    code: 0,
    stderr: '',
    stdout: `\
the agent at first:  401 Bearer error="use_attestation_challenge", error_description="a challenge of this server is needed"
the agent:           200 verified-agent, sub:https://platform.example|agent-7
a thief:             401 Bearer error="invalid_client_attestation", error_description="the proof of possession was used before"
`,
  })
}, 60_000)
