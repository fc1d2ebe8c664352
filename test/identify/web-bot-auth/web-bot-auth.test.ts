import { createServer, type IncomingMessage } from 'node:http'
import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { generateKeyPairSync } from 'node:crypto'
import type { Request } from 'express'
import { describe, expect, it, vi } from 'vitest'
import { parseDictionary } from 'structured-headers'
import { RampmeterError } from '../../../src/errors.ts'
import type { WebBotAuthOptions } from '../../../src/identify/web-bot-auth/options.ts'
import { webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import type { Attempts, Verification } from '../../../src/identify/verifier.ts'
import {
  address,
  agentId,
  agentUrl,
  hostOnly,
  key,
  makeKey,
  noon,
  noonSeconds,
  options,
  recording,
  requestOf,
  signFields,
  unlimited,
  verify,
  wholeRequest,
  type Signing,
} from './signing.ts'

const signed = (signing: Signing = {}): Request => requestOf({ ...signFields(signing) })

describe('a signature that is right', () => {
  it('over this request names the agent and proves its key', async () => {
    expect(await verify(signed())).toEqual({
      outcome: 'verified',
      identity: {
        id: agentId,
        kind: 'agent',
        confidence: 1,
        reason: `signed by ${agentUrl}`,
        provesKey: true,
        thumbprint: key.keyid,
        claims: { directory: agentUrl, keyid: key.keyid },
      },
    })
  })

  it('over @target-uri in place of host and path proves as much', async () => {
    const covered = [
      ['"@method"', 'GET'],
      ['"@target-uri"', 'https://api.example.com/search'],
      wholeRequest[3],
    ] as const
    expect(await verify(signed({ covered }))).toMatchObject({ identity: { id: agentId, provesKey: true } })
  })

  it.each([
    ['the host alone', hostOnly],
    ['the target without the method', [['"@target-uri"', 'https://api.example.com/search'], wholeRequest[3]]],
    ['host and method without the path', [wholeRequest[0], wholeRequest[1], wholeRequest[3]]],
    ['host and path without the method', [wholeRequest[1], wholeRequest[2], wholeRequest[3]]],
  ] as const)('over %s is counted by URL and address, and proves no key', async (_what, covered) => {
    expect(await verify(signed({ covered }))).toMatchObject({
      outcome: 'verified',
      identity: {
        id: `${agentId}|${address}`,
        kind: 'agent',
        provesKey: false,
        reason: `signed by ${agentUrl}, for this host and not for this request`,
      },
    })
  })

  it('of another signer than those named stays unproven, with what it says as a hint', async () => {
    expect(await verify(signed(), { trust: () => false })).toEqual({
      outcome: 'absent',
      note: `signed as ${agentUrl}, unproven: the signature is right, and its signer is not among those trusted`,
      hint: { agent: 'bot.example', role: 'bot' },
    })
  })

  it('is trusted where `trust` says so of its URL, normalised', async () => {
    const trust = vi.fn((url: string) => url.startsWith('https://bot.example/'))
    const keys = { keys: [key.jwk] }
    const url = 'https://BOT.example:443/a/../%6beys?v=2'
    const covered = [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${url}"`]] as [string, string][]
    expect(await verify(signed({ url, covered }), { trust, directories: { [agentUrl]: keys } })).toMatchObject({
      identity: { id: agentId },
    })
    expect(trust.mock.calls).toEqual([[agentUrl]])
  })

  it.each(['nothing', 'a promise', 'a text'])('fails the request where `trust` answers with %s', async (what) => {
    const answer = { nothing: undefined, 'a promise': Promise.resolve(true), 'a text': 'yes' }[what]
    const failed = verify(signed(), { trust: (() => answer) as never })
    await expect(failed).rejects.toMatchObject({ name: 'RampmeterError', code: 'RAMPMETER_INVALID_IDENTITY' })
  })

  it('holds for a path behind a proxy that takes a prefix away', async () => {
    const covered = [wholeRequest[0], wholeRequest[1], ['"@path"', '/v1/search'], wholeRequest[3]] as const
    expect(await verify(signed({ covered }), { origin: 'https://api.example.com/v1/' })).toMatchObject({
      identity: { provesKey: true },
    })
    expect(await verify(signed({ covered }))).toMatchObject({ outcome: 'invalid' })
  })

  it('is checked against originalUrl: a router further in sees less of the path', async () => {
    const req = signed()
    req.url = '/'
    expect(await verify(req)).toMatchObject({ identity: { provesKey: true } })
  })

  it('holds where the request target is a whole URI', async () => {
    const req = requestOf({ ...signFields() }, { url: 'http://somewhere.example/search' })
    expect(await verify(req)).toMatchObject({ identity: { provesKey: true } })
  })

  it('is found in fields that an adapter has joined', async () => {
    const req = signed()
    req.rawHeaders = []
    expect(await verify(req)).toMatchObject({ identity: { provesKey: true } })
  })

  it('may have been given another label on its way', async () => {
    const fields = signFields()
    const req = requestOf({
      'Signature-Agent': fields['Signature-Agent'],
      'Signature-Input': fields['Signature-Input'].replace('sig1=', 'proxied='),
      Signature: fields.Signature.replace('sig1=', 'proxied='),
    })
    expect(await verify(req)).toMatchObject({ identity: { id: agentId, provesKey: true } })
  })

  it('may be over several things at once: fields, a query parameter, the whole query', async () => {
    const covered = [
      ...wholeRequest,
      ['"@query"', '?q=a%20lamp&page=2'],
      ['"@query-param";name="q"', 'a%20lamp'],
      ['"accept"', 'text/html, application/json'],
      ['"x-note";bs', `:${Buffer.from('one, two').toString('base64')}:`],
    ] as [string, string][]
    const req = requestOf(
      { ...signFields({ covered }), Accept: ['text/html', ' application/json '], 'X-Note': 'one, two' },
      { url: '/search?q=a%20lamp&page=2' },
    )
    expect(await verify(req)).toMatchObject({ identity: { provesKey: true } })
  })
})

describe('the origin', () => {
  it('comes from configuration: a request signed for another host is refused, whatever Host says', async () => {
    const covered = wholeRequest.map(
      ([id, value]) => [id, value === 'api.example.com' ? 'evil.example' : value] as const,
    )
    const req = requestOf({ ...signFields({ covered }), Host: 'evil.example' })
    expect(await verify(req)).toMatchObject({
      outcome: 'invalid',
      reason: 'the signature is refused: it does not verify',
    })
  })

  it('needs no Host', async () => {
    const req = requestOf({ ...signFields(), Host: 'internal:8080' })
    expect(await verify(req)).toMatchObject({ identity: { provesKey: true } })
  })

  it('may be one of several: Host chooses, or none is meant and all count', async () => {
    const origin = ['https://api.example.com', 'https://eu.example.com/eu']
    const eu = [
      ['"@method"', 'GET'],
      ['"@authority"', 'eu.example.com'],
      ['"@path"', '/eu/search'],
      wholeRequest[3],
    ] as const
    const from = (covered: Signing['covered'], Host: string): Promise<Verification> =>
      verify(requestOf({ ...signFields({ covered: covered! }), Host }), { origin })
    expect(await from(wholeRequest, 'api.example.com')).toMatchObject({ identity: { provesKey: true } })
    expect(await from(eu, 'EU.example.com')).toMatchObject({ identity: { provesKey: true } })
    expect(await from(eu, 'internal:8080')).toMatchObject({ identity: { provesKey: true } })
    expect(await from(eu, 'api.example.com')).toMatchObject({ outcome: 'invalid' })
  })

  it('has no default port and no capitals in it', async () => {
    expect(await verify(signed(), { origin: 'https://API.example.com:443' })).toMatchObject({ outcome: 'verified' })
    const covered = wholeRequest.map(
      ([id, value]) => [id, id === '"@authority"' ? 'api.example.com:8443' : value] as const,
    )
    expect(await verify(signed({ covered }), { origin: 'https://api.example.com:8443' })).toMatchObject({
      outcome: 'verified',
    })
  })
})

describe('nothing of ours', () => {
  const others = signFields({ params: { tag: 'somebody-else' } })
  it.each<[string, Record<string, string>]>([
    ['no fields', {}],
    ['a Signature alone', { Signature: signFields().Signature }],
    [
      'a Signature of the draft that came before, which is no Dictionary',
      { Signature: 'keyId="k",algorithm="rsa-sha256"' },
    ],
    ['a Signature-Agent alone', { 'Signature-Agent': `sig1="${agentUrl}"` }],
    ['an empty Signature-Input', { 'Signature-Input': '' }],
    ["somebody else's signature", { ...others }],
    ["somebody else's signature, with a Signature that we cannot read", { ...others, Signature: '!' }],
    ["somebody else's signature without a tag", { ...signFields({ params: { tag: undefined } }) }],
    ['a member that is no signature', { 'Signature-Input': 'sig1="text"' }],
  ])('%s is passed over', async (_what, fields) => {
    expect(await verify(requestOf(fields))).toEqual({ outcome: 'absent' })
  })
})

const other = makeKey()

/** Each has one defect, and is right but for that. */
const wrong: readonly (readonly [
  what: string,
  req: () => Request,
  reason: string,
  changes?: Partial<WebBotAuthOptions>,
])[] = [
  ['no created', () => signed({ params: { created: undefined } }), 'it does not say created and expires'],
  [
    'a created that is a text',
    () => signed({ params: { created: `${noonSeconds}` } }),
    'it does not say created and expires',
  ],
  [
    'a created with a fraction',
    () => signed({ params: { created: noonSeconds - 10.5 } }),
    'it does not say created and expires',
  ],
  ['no expires', () => signed({ params: { expires: undefined } }), 'it does not say created and expires'],
  ['a created beyond the tolerance', () => signed({ params: { created: noonSeconds + 6 } }), 'it is from the future'],
  [
    'an expires before its created',
    () => signed({ params: { created: noonSeconds + 3, expires: noonSeconds + 2 } }),
    'it expires before it is created',
  ],
  ['an expires that has passed', () => signed({ params: { expires: noonSeconds } }), 'it has expired'],
  [
    'a lifetime of more than a day',
    () => signed({ params: { created: noonSeconds - 10, expires: noonSeconds - 10 + 86_401 } }),
    'it lasts too long',
  ],
  [
    'a lifetime of more than maxLifetime',
    () => signed({ params: { created: noonSeconds - 10, expires: noonSeconds + 51 } }),
    'it lasts too long',
    { maxLifetime: '1m' },
  ],
  ['no keyid', () => signed({ params: { keyid: undefined } }), 'its keyid is no thumbprint of a key'],
  [
    "a keyid that is the key's kid and no thumbprint",
    () => signed({ params: { keyid: 'my-key' } }),
    'its keyid is no thumbprint of a key',
    { directories: { [agentUrl]: { keys: [{ ...key.jwk, kid: 'my-key' }] } } },
  ],
  ['a nonce that is a number', () => signed({ params: { nonce: 7 } }), 'its nonce is not a String'],
  ['HMAC', () => signed({ params: { alg: 'hmac-sha256' } }), 'its alg is not taken'],
  ['an alg that nobody registered', () => signed({ params: { alg: 'none' } }), 'its alg is not taken'],
  [
    'an alg that the key is not for',
    () => signed({ params: { alg: 'ecdsa-p256-sha256' } }),
    'its alg is not what the key is for',
  ],
  ['empty coverage', () => signed({ covered: [] }), 'it does not cover the host'],
  [
    'coverage without host and target',
    () => signed({ covered: [wholeRequest[0], wholeRequest[2], wholeRequest[3]] }),
    'it does not cover the host',
  ],
  [
    "coverage of a host that is another message's",
    () => signed({ covered: [['"@authority";req', 'api.example.com'], wholeRequest[3]] }),
    'it does not cover the host',
  ],
  [
    'coverage without Signature-Agent',
    () => signed({ covered: wholeRequest.slice(0, 3) }),
    'it does not cover its own member of Signature-Agent',
  ],
  [
    'coverage of Signature-Agent without key',
    () => signed({ covered: [...wholeRequest.slice(0, 3), ['"signature-agent"', `sig1="${agentUrl}"`]] }),
    'it does not cover its own member of Signature-Agent',
  ],
  [
    "coverage of another label's member",
    () => {
      const covered = [...wholeRequest.slice(0, 3), ['"signature-agent";key="other"', `"${agentUrl}"`]] as [
        string,
        string,
      ][]
      return requestOf({ ...signFields({ covered }), 'Signature-Agent': `sig1="${agentUrl}", other="${agentUrl}"` })
    },
    'it does not cover its own member of Signature-Agent',
  ],
  [
    'coverage of a member that is not there',
    () => requestOf({ ...signFields(), 'Signature-Agent': `other="${agentUrl}"` }),
    'it covers a member that Signature-Agent does not have',
  ],
  ['a component twice', () => signed({ covered: [...wholeRequest, wholeRequest[0]] }), 'it covers a component twice'],
  [
    'a field that did not come',
    () => signed({ covered: [...wholeRequest, ['"accept"', '*/*']] }),
    'it covers a field that did not come',
  ],
  [
    'a component of responses',
    () => signed({ covered: [...wholeRequest, ['"@status"', '200']] }),
    'it covers what no request has',
  ],
  [
    'a Signature-Agent by http',
    () => {
      const url = agentUrl.replace('https', 'http')
      return signed({ url, covered: [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${url}"`]] })
    },
    'its Signature-Agent is no https URL of a directory',
  ],
  [
    'a Signature-Agent that is a Token',
    () =>
      requestOf({
        ...signFields({ covered: [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', 'bot']] }),
        'Signature-Agent': 'sig1=bot',
      }),
    'its Signature-Agent is no https URL of a directory',
  ],
  [
    'a Signature of another label',
    () => requestOf({ ...signFields(), Signature: signFields().Signature.replace('sig1', 'sig9') }),
    'Signature has no member for it',
  ],
  ['no Signature', () => requestOf({ ...signFields(), Signature: [] }), 'Signature has no member for it'],
  [
    'a signature with one bit changed',
    () => {
      const { Signature } = signFields()
      const bytes = Buffer.from(Signature.slice(6, -1), 'base64')
      bytes[9]! ^= 1
      return requestOf({ ...signFields(), Signature: `sig1=:${bytes.toString('base64')}:` })
    },
    'it does not verify',
  ],
  ['an empty signature', () => requestOf({ ...signFields(), Signature: 'sig1=::' }), 'it does not verify'],
  ['another method', () => requestOf({ ...signFields() }, { method: 'POST' }), 'it does not verify'],
  ['another path', () => requestOf({ ...signFields() }, { url: '/admin' }), 'it does not verify'],
  [
    'an escape in the path that means the same',
    () => requestOf({ ...signFields() }, { url: '/%73earch' }),
    'it does not verify',
  ],
  ['a key that the directory does not have', () => signed({ key: makeKey() }), 'its key is not in the directory'],
  [
    "another directory's key",
    () => signed({ key: other }),
    'its key is not in the directory',
    {
      directories: {
        [agentUrl]: { keys: [key.jwk] },
        'https://other.example/keys': { keys: [other.jwk] },
      },
    },
  ],
]

describe('a signature with one defect', () => {
  it.each(wrong.map(([what, req, reason, changes]) => ({ what, req, reason, changes })))(
    '$what is refused',
    async (one) => {
      const { req, reason, changes } = one
      const verification = await verify(req(), changes)
      expect(verification).toMatchObject({ outcome: 'invalid', reason: `the signature is refused: ${reason}` })
      expect(verification).not.toHaveProperty('status')
      const { challenge, fields } = verification as Verification & { outcome: 'invalid' }
      expect(challenge).toBe(`Web-Bot-Auth error="invalid_signature", error_description="${reason}"`)
      expect(Object.keys(fields!)).toEqual(['Accept-Signature'])
    },
  )

  it('is not told apart by what it is made of: an expired one is no failed proof, all others are', async () => {
    for (const [, req, reason, changes] of wrong) {
      expect({ reason, counts: 'counts' in (await verify(req(), changes)) }).toEqual({
        reason,
        counts: reason === 'it has expired',
      })
    }
  })

  it('is right without it', async () => {
    expect(await verify(signed({ params: { created: noonSeconds + 5 } }))).toMatchObject({ outcome: 'verified' })
    expect(await verify(signed({ params: { expires: noonSeconds + 1 } }))).toMatchObject({ outcome: 'verified' })
    const day = { created: noonSeconds - 10, expires: noonSeconds - 10 + 86_400, nonce: 'n', alg: 'ed25519' }
    expect(await verify(signed({ params: day }))).toMatchObject({ outcome: 'verified' })
  })

  it('is asked for what would be right, in a field that parses', async () => {
    const { fields } = await verify(signed({ covered: [] }))
    const wanted = parseDictionary(fields!['Accept-Signature']!)
    expect([...wanted.get('sig1')![1]]).toEqual([
      ['created', true],
      ['expires', true],
      ['tag', 'web-bot-auth'],
    ])
    expect(webBotAuth(options).stepUp).toEqual({ challenge: 'Web-Bot-Auth', fields })
  })
})

describe('fields that do not parse', () => {
  const right = signFields()
  it.each<[string, Record<string, string | string[]>, string]>([
    [
      'Signature-Input',
      { ...right, 'Signature-Input': 'sig1=(' },
      'Signature-Input is not a Dictionary (RFC 9651 section 3.2)',
    ],
    ['Signature', { ...right, Signature: 'sig1=:' }, 'Signature is not a Dictionary (RFC 9651 section 3.2)'],
    [
      'Signature-Agent',
      { ...right, 'Signature-Agent': 'sig1="https' },
      'Signature-Agent is not a Dictionary (RFC 9651 section 3.2)',
    ],
    [
      'a bare Signature-Agent',
      { ...right, 'Signature-Agent': `"${agentUrl}"` },
      'Signature-Agent is not a Dictionary (RFC 9651 section 3.2)',
    ],
    [
      'a Signature-Input that is no list of components',
      { ...right, 'Signature-Input': 'sig1="text";tag="web-bot-auth"' },
      'a member of Signature-Input is not a list of components',
    ],
    [
      'a Signature that is no byte sequence',
      { ...right, Signature: 'sig1="text"' },
      'a member of Signature is not a byte sequence',
    ],
    [
      'a label twice',
      { ...right, 'Signature-Input': `${right['Signature-Input']}, ${right['Signature-Input']}` },
      'Signature-Input has two members of one name',
    ],
    [
      'a label twice, in two lines',
      { ...right, Signature: [right.Signature, right.Signature] },
      'Signature has two members of one name',
    ],
    [
      'a field without end',
      { ...right, Signature: `sig1=:${'A'.repeat(20_000)}:` },
      'Signature is longer than 16384 characters',
    ],
  ])('%s: 400', async (_what, fields, reason) => {
    expect(await verify(requestOf(fields))).toMatchObject({
      outcome: 'invalid',
      status: 400,
      reason: `a signature field cannot be read: ${reason}`,
      challenge: `Web-Bot-Auth error="invalid_request", error_description="${reason}"`,
    })
  })

  it('commas in texts and lists are no members', async () => {
    const fields = signFields({ params: { nonce: 'a, b=\\")(' } })
    expect(await verify(requestOf({ ...fields }))).toMatchObject({ outcome: 'verified' })
    const more = { ...fields, 'Signature-Input': `${fields['Signature-Input']}, x=("a" "b,c");n=%"\\", y=b%` }
    expect(await verify(requestOf(more))).toMatchObject({ outcome: 'verified' })
  })
})

describe('a signature of nobody known', () => {
  it('without Signature-Agent is no failure, and proves nothing', async () => {
    const { Signature, ...rest } = signFields({ covered: [wholeRequest[1]] })
    expect(await verify(requestOf({ Signature, 'Signature-Input': rest['Signature-Input'] }))).toEqual({
      outcome: 'absent',
      note: 'signed, unproven: no Signature-Agent says by whom',
      hint: { agent: 'bot', role: 'bot' },
    })
  })

  it('whose member has parameters is ignored', async () => {
    const fields = signFields({
      covered: [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${agentUrl}";type=jwks_uri`]],
    })
    const req = requestOf({ ...fields, 'Signature-Agent': `sig1="${agentUrl}";type=jwks_uri` })
    expect(await verify(req)).toMatchObject({ outcome: 'absent', note: expect.stringContaining('has parameters') })
  })

  it('whose directory cannot be had says nothing about the signer', async () => {
    const fetch = (): Promise<never> => Promise.reject(new TypeError('no'))
    expect(await verify(signed(), { directories: { [agentUrl]: true }, fetch })).toEqual({
      outcome: 'absent',
      note: `signed as ${agentUrl}, unproven: the directory cannot be had: it cannot be reached (TypeError)`,
      hint: { agent: 'bot.example', role: 'bot' },
    })
  })
})

describe('several signatures', () => {
  const stranger = makeKey()
  function both(one: Signing, two: Signing): Request {
    const [a, b] = [signFields({ label: 'a', ...one }), signFields({ label: 'b', ...two })]
    const join = (name: keyof typeof a): string => `${a[name]}, ${b[name]}`
    return requestOf({
      'Signature-Agent': join('Signature-Agent'),
      'Signature-Input': join('Signature-Input'),
      Signature: join('Signature'),
    })
  }
  const covering = (label: string, base: Signing['covered'] = wholeRequest): [string, string][] =>
    base.map(([id, value]) => [id.replace('sig1', label), value])
  const right = (label: string): Signing => ({ label, covered: covering(label) })
  const bad = (label: string): Signing => ({ label, covered: covering(label), key: { ...stranger, keyid: key.keyid } })

  it.each(['first', 'last'])('one that is right counts, beside one that is wrong and comes %s', async (when) => {
    const req = when === 'first' ? both(bad('a'), right('b')) : both(right('a'), bad('b'))
    expect(await verify(req)).toMatchObject({ identity: { id: agentId, provesKey: true } })
  })

  it('the one that proves more counts', async () => {
    const req = both({ label: 'a', covered: covering('a', hostOnly) }, right('b'))
    expect(await verify(req)).toMatchObject({ identity: { id: agentId, provesKey: true } })
  })

  it('stand for themselves: one that covers the other lends it nothing', async () => {
    const a = signFields(bad('a'))
    const covered = [
      ...covering('b'),
      ['"signature-agent";key="a"', `"${agentUrl}"`],
      ['"signature-input";key="a"', a['Signature-Input'].slice(2)],
      ['"signature";key="a"', a.Signature.slice(2)],
    ] as [string, string][]
    const req = both(bad('a'), { label: 'b', covered })
    expect(await verify(req)).toMatchObject({ identity: { id: agentId, provesKey: true } })
    expect(await verify(both(bad('a'), bad('b')))).toMatchObject({ outcome: 'invalid' })
  })

  it('are looked at up to the third, and each is an attempt', async () => {
    const labels = ['a', 'b', 'c', 'd', 'e']
    const all = labels.map((label) => signFields(label === 'd' ? right(label) : bad(label)))
    const join = (name: keyof (typeof all)[0]): string => all.map((one) => one[name]).join(', ')
    const attempts = recording()
    const req = requestOf({
      'Signature-Agent': join('Signature-Agent'),
      'Signature-Input': join('Signature-Input'),
      Signature: join('Signature'),
    })
    expect(await verify(req, {}, attempts)).toMatchObject({ outcome: 'invalid' })
    expect(new Set(attempts.credentials).size).toBe(3)
  })
})

describe('attempts', () => {
  const refusing: Attempts = { address, check: async () => ({ outcome: 'limited', retryAfterMs: 9 }) as never }

  it('are asked before a directory is fetched or a signature checked, also for what is wrong at once', async () => {
    const fetch = vi.fn()
    for (const req of [signed(), signed({ covered: [] }), requestOf({ ...signFields(), Signature: 'sig1=:' })]) {
      expect(await verify(req, { directories: {}, fetch }, refusing)).toEqual({ outcome: 'limited', retryAfterMs: 9 })
    }
    expect(fetch).not.toHaveBeenCalled()
  })

  it('tell two requests with one signature apart by what was checked', async () => {
    const attempts = recording()
    const fields = { ...signFields() }
    await verify(requestOf(fields), {}, attempts)
    await verify(requestOf(fields, { url: '/admin' }), {}, attempts)
    await verify(requestOf(fields), {}, attempts)
    const [one, two, three] = attempts.credentials
    expect(one).toBe(three)
    expect(one).not.toBe(two)
  })

  it('know a holder by its URL, its key and its address', async () => {
    const attempts = ['ip:192.0.2.1', 'ip:192.0.2.2'].map((from) => ({ ...recording(), address: from }))
    for (const one of attempts) await verify(signed(), {}, one)
    const holders = attempts.flatMap((one) => one.holders)
    expect(new Set(holders).size).toBe(2)
    expect(holders[0]).toContain(agentUrl)
    expect(holders[0]).toContain(key.keyid)
  })

  it('of an address at signatures of strangers are few: right or wrong, they earn nothing', async () => {
    let now = noon
    const verifier = webBotAuth({ ...options, trust: (url) => url !== agentUrl, now: () => now })
    const notes: (string | undefined)[] = []
    for (let nth = 0; nth < 70; nth += 1) {
      const verification = await verifier.verify(signed({ params: { nonce: `${nth}` } }), unlimited)
      notes.push((verification as { note?: string }).note)
    }
    expect(notes.filter((note) => note?.includes('not among those trusted'))).toHaveLength(60)
    expect(notes.at(-1)).toContain('its sender has shown too many signatures of strangers lately')
    expect(await verifier.verify(signed(), { ...unlimited, address: 'ip:192.0.2.2' })).toMatchObject({
      note: expect.stringContaining('not among those trusted'),
    })
    now += 60_000
    const later = { params: { created: now / 1000, expires: now / 1000 + 60 } }
    expect(await verifier.verify(signed(later), unlimited)).toMatchObject({
      note: expect.stringContaining('not among those trusted'),
    })
  })
})

describe('example keys', () => {
  // RFC 9421 appendix B.1.4.
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: 'JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs' }
  const keyid = 'poqkLGiymh_W0uP6PZFw-dvez3QJT5SolqXBCW38r0U'
  const directories = { [agentUrl]: { keys: [jwk] } }

  it('are refused, unless they are wanted', async () => {
    expect(await verify(signed({ params: { keyid } }), { directories })).toMatchObject({
      outcome: 'invalid',
      reason: 'the signature is refused: it is made with an example key, with which anybody can sign',
    })
    expect(await verify(signed({ params: { keyid } }), { directories, testKeys: true })).toMatchObject({
      reason: 'the signature is refused: it does not verify',
    })
  })

  it('are known in no other spelling', async () => {
    // The last character has bits that decoding drops.
    const spelt = { ...jwk, x: `${jwk.x.slice(0, -1)}t` }
    expect(Buffer.from(spelt.x, 'base64url')).toEqual(Buffer.from(jwk.x, 'base64url'))
    expect(() => webBotAuth({ ...options, directories: { [agentUrl]: { keys: [spelt] } } })).toThrow(RampmeterError)
  })
})

describe('earlier drafts', () => {
  const covered = [wholeRequest[1], ['"signature-agent"', '"https://bot.example"']] as [string, string][]
  const fields = { ...signFields({ covered }), 'Signature-Agent': '"https://bot.example"' }
  const directories = { 'https://bot.example': { keys: [key.jwk] } }
  const id = 'agent:https://bot.example/.well-known/http-message-signatures-directory'

  it('have a bare string in Signature-Agent, which is taken where `legacy` is true', async () => {
    expect(await verify(requestOf(fields), { directories, legacy: true })).toMatchObject({
      identity: { id: `${id}|${address}` },
    })
    expect(await verify(requestOf(fields), { directories })).toMatchObject({ outcome: 'invalid', status: 400 })
  })

  it('have to be covered as well, and come once', async () => {
    const uncovered = { ...signFields({ covered: [wholeRequest[1]] }), 'Signature-Agent': fields['Signature-Agent'] }
    expect(await verify(requestOf(uncovered), { directories, legacy: true })).toMatchObject({
      reason: 'the signature is refused: it does not cover Signature-Agent',
    })
    const twice = { ...fields, 'Signature-Agent': [fields['Signature-Agent'], fields['Signature-Agent']] }
    expect(await verify(requestOf(twice), { directories, legacy: true })).toMatchObject({ status: 400 })
  })

  it('name a bare origin in the new form too', async () => {
    const url = 'https://bot.example'
    const named = [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${url}"`]] as [string, string][]
    for (const legacy of [true, false]) {
      const verification = await verify(signed({ url, covered: named }), { directories, legacy })
      expect(verification).toMatchObject({ identity: { id, provesKey: true } })
    }
  })
})

describe('over HTTP', () => {
  it('a request signed for what a server is known by outside is proven, as it comes off the wire', async () => {
    const verifier = webBotAuth(options)
    const found: Verification[] = []
    const server = createServer((req: IncomingMessage, res) => {
      void Promise.resolve(verifier.verify(req as Request, unlimited)).then((verification) => {
        found.push(verification)
        res.end()
      })
    }).listen(0, '127.0.0.1')
    await once(server, 'listening')
    try {
      const covered = [...wholeRequest, ['"accept"', 'text/html, */*'], ['"x-empty"', '']] as [string, string][]
      const fields = signFields({ covered })
      const lines = [
        'GET /search HTTP/1.1',
        'Host: internal:8080',
        'Connection: close',
        'accept: text/html',
        'X-Empty:',
        `signature-agent: ${fields['Signature-Agent']}`,
        `Signature: ${fields.Signature}`,
        'ACCEPT:   */*  ',
        `SIGNATURE-INPUT: ${fields['Signature-Input']}`,
      ]
      const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
      socket.write(`${lines.join('\r\n')}\r\n\r\n`)
      for await (const _answer of socket);
    } finally {
      server.close()
    }
    expect(found).toMatchObject([{ outcome: 'verified', identity: { id: agentId, provesKey: true } }])
  })
})

describe('options', () => {
  const { publicKey } = generateKeyPairSync('x25519')
  it.each<[string, object, string]>([
    ['no origin', { origin: undefined }, 'RAMPMETER_INVALID_OPTION'],
    ['no origins', { origin: [] }, 'RAMPMETER_INVALID_OPTION'],
    ['an origin that is none', { origin: 'api.example.com' }, 'RAMPMETER_INVALID_OPTION'],
    ['a directory by http', { directories: { 'http://bot.example': true } }, 'RAMPMETER_INVALID_OPTION'],
    ['a directory that is false', { directories: { 'https://bot.example': false } }, 'RAMPMETER_INVALID_OPTION'],
    ['a key set without keys', { directories: { [agentUrl]: { keys: [] } } }, 'RAMPMETER_INVALID_OPTION'],
    [
      'a key set without keys for signatures',
      { directories: { [agentUrl]: { keys: [publicKey.export({ format: 'jwk' })] } } },
      'RAMPMETER_INVALID_OPTION',
    ],
    [
      'a private key',
      { directories: { [agentUrl]: { keys: [key.privateKey.export({ format: 'jwk' })] } } },
      'RAMPMETER_INVALID_OPTION',
    ],
    ['a lifetime that is none', { maxLifetime: 'a day' }, 'RAMPMETER_INVALID_DURATION'],
    ['a misspelt option', { directory: {} }, 'RAMPMETER_UNKNOWN_OPTION'],
  ])('%s is a mistake', (_what, changes, code) => {
    expect(() => webBotAuth({ ...options, ...changes })).toThrow(expect.objectContaining({ code }))
  })

  it('show no key in their messages', () => {
    const jwk = key.privateKey.export({ format: 'jwk' })
    const build = (): unknown => webBotAuth({ ...options, directories: { [agentUrl]: { keys: [jwk] } } })
    expect(build).toThrow(expect.not.stringContaining(jwk.d!) as never)
    expect(build).toThrow(/directories/)
  })
})
