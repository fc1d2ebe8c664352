import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { WebBotAuthOptions } from '../../../src/identify/web-bot-auth/options.ts'
import { webBotAuth } from '../../../src/identify/web-bot-auth/web-bot-auth.ts'
import type { Verification, Verifier } from '../../../src/identify/verifier.ts'
import {
  address,
  agentUrl,
  key,
  makeKey,
  noon,
  requestOf,
  signFields,
  unlimited,
  wholeRequest,
  type TestKey,
} from './signing.ts'

let now = noon
const second = 1000
const minute = 60 * second
const hour = 60 * minute

beforeEach(() => {
  now = noon
})

/** A directory whose answer each test writes. */
function createDirectory(keys: readonly TestKey[] = [key]) {
  const directory = {
    keys: keys.map(({ jwk }) => jwk) as readonly unknown[],
    headers: { 'cache-control': 'max-age=600' } as Record<string, string>,
    status: 200,
    fetch: vi.fn(async (_url: string): Promise<Response> => {
      const { status, headers } = directory
      return new Response(status === 304 ? null : JSON.stringify({ keys: directory.keys }), { status, headers })
    }),
  }
  return directory
}

function verifierOf(fetch: unknown, changes: Partial<WebBotAuthOptions> = {}): Verifier {
  return webBotAuth({
    origin: 'https://api.example.com',
    directories: { [agentUrl]: true },
    now: () => now,
    ...changes,
    fetch: fetch as typeof globalThis.fetch,
  })
}

async function show(
  verifier: Verifier,
  { signer = key, url = agentUrl, from = address }: { signer?: TestKey; url?: string; from?: string } = {},
): Promise<Verification> {
  const covered = [...wholeRequest.slice(0, 3), ['"signature-agent";key="sig1"', `"${url}"`]] as [string, string][]
  const created = Math.floor(now / 1000)
  const params = { created, expires: created + 60 }
  return await verifier.verify(requestOf({ ...signFields({ covered, url, params, key: signer }) }), {
    ...unlimited,
    address: from,
  })
}

const proven = { outcome: 'verified', identity: { provesKey: true } }
const unproven = { outcome: 'absent', note: expect.stringContaining('the directory cannot be had') }
const notThere = { outcome: 'invalid', reason: 'the signature is refused: its key is not in the directory' }

describe('a directory', () => {
  it('is fetched once for all who ask at the same time, and then kept', async () => {
    const { fetch } = createDirectory()
    const verifier = verifierOf(fetch)
    const all = await Promise.all(Array.from({ length: 30 }, () => show(verifier)))
    for (const one of all) expect(one).toMatchObject(proven)
    expect(await show(verifier)).toMatchObject(proven)
    expect(fetch.mock.calls.map(([url]) => url)).toEqual([agentUrl])
  })

  it('is fetched as a JSON Web Key Set, without following redirects', async () => {
    const { fetch } = createDirectory()
    await show(verifierOf(fetch))
    const [, init] = fetch.mock.calls[0] as unknown as [string, RequestInit]
    expect(init).toMatchObject({ redirect: 'manual', signal: expect.any(AbortSignal) })
    expect((init.headers as Record<string, string>)['accept']).toContain(
      'application/http-message-signatures-directory+json',
    )
  })

  it('of a bare origin is at the well-known place; anything with a path is fetched as it stands', async () => {
    const { fetch } = createDirectory()
    const verifier = verifierOf(fetch, { trust: () => true, directories: {} })
    await show(verifier, { url: 'https://bot.example' })
    await show(verifier, { url: 'https://bot.example/keys?v=2' })
    expect(fetch.mock.calls.map(([url]) => url)).toEqual([
      'https://bot.example/.well-known/http-message-signatures-directory',
      'https://bot.example/keys?v=2',
    ])
  })

  it('that was named is fetched as it was named, whatever query the signer adds', async () => {
    const { fetch } = createDirectory()
    const verifier = verifierOf(fetch)
    for (const query of ['?a', '?b', '?c'])
      expect(await show(verifier, { url: agentUrl + query })).toMatchObject(proven)
    expect(fetch.mock.calls.map(([url]) => url)).toEqual([agentUrl])
  })

  it('is asked again when it is stale, and what it then says replaces what was kept', async () => {
    const directory = createDirectory()
    const verifier = verifierOf(directory.fetch)
    expect(await show(verifier)).toMatchObject(proven)
    directory.keys = [makeKey().jwk]
    now += 10 * minute - 1
    expect(await show(verifier)).toMatchObject(proven)
    now += 1
    expect(await show(verifier)).toMatchObject(notThere)
    expect(directory.fetch).toHaveBeenCalledTimes(2)
  })

  it('that says nothing may be kept is kept for a minute; for a year, for a day', async () => {
    for (const [control, ms] of [
      ['no-store', minute],
      ['max-age=31536000', 24 * hour],
    ] as const) {
      const directory = createDirectory()
      directory.headers = { 'cache-control': control }
      const verifier = verifierOf(directory.fetch)
      await show(verifier)
      now += ms - 1
      await show(verifier)
      expect(directory.fetch).toHaveBeenCalledTimes(1)
      now += 1
      await show(verifier)
      expect(directory.fetch).toHaveBeenCalledTimes(2)
    }
  })

  it('is asked for a key that is new, and at most every 30 s, whoever makes keys up', async () => {
    const directory = createDirectory()
    const verifier = verifierOf(directory.fetch)
    await show(verifier)
    const next = makeKey()
    directory.keys = [key.jwk, next.jwk]
    for (let nth = 0; nth < 10; nth += 1) expect(await show(verifier, { signer: makeKey() })).toMatchObject(notThere)
    expect(await show(verifier, { signer: next })).toMatchObject(notThere)
    expect(directory.fetch).toHaveBeenCalledTimes(1)
    now += 30 * second
    expect(await show(verifier, { signer: next })).toMatchObject(proven)
    expect(await show(verifier)).toMatchObject(proven)
    expect(directory.fetch).toHaveBeenCalledTimes(2)
  })

  it('lends its keys to no other URL: a key is looked up with the URL that it is claimed for', async () => {
    const others = makeKey()
    const keysOf: Record<string, TestKey> = { [agentUrl]: key, 'https://other.example/keys': others }
    const fetch = async (url: string): Promise<Response> => Response.json({ keys: [keysOf[url]!.jwk] })
    const verifier = verifierOf(fetch, { directories: { [agentUrl]: true, 'https://other.example/keys': true } })
    expect(await show(verifier)).toMatchObject(proven)
    expect(await show(verifier, { signer: others, url: 'https://other.example/keys' })).toMatchObject(proven)
    expect(await show(verifier, { signer: others })).toMatchObject(notThere)
  })

  it('may hold keys for a time only, and some that are not for us', async () => {
    const directory = createDirectory()
    const [seconds, past, future] = [noon / 1000, makeKey(), makeKey()]
    directory.keys = [
      { kty: 'oct', k: 'AAAA' },
      'not a key',
      null,
      { ...past.jwk, exp: seconds },
      { ...future.jwk, nbf: seconds + 5 },
      { ...key.jwk, kid: 'whatever', nbf: seconds, exp: seconds + 60, use: 'sig', alg: 'EdDSA' },
    ]
    const verifier = verifierOf(directory.fetch)
    expect(await show(verifier)).toMatchObject(proven)
    expect(await show(verifier, { signer: past })).toMatchObject(notThere)
    expect(await show(verifier, { signer: future })).toMatchObject(notThere)
    now += 5 * second
    expect(await show(verifier, { signer: future })).toMatchObject(proven)
  })
})

describe('a directory that fails', () => {
  it.each([
    ['302', 'it answered 302, and only 200 counts'],
    ['203', 'it answered 203, and only 200 counts'],
    ['304', 'it answered 304, and only 200 counts'],
    ['500', 'it answered 500, and only 200 counts'],
  ])('with %s is none', async (status, why) => {
    const directory = createDirectory()
    directory.status = Number(status)
    directory.headers = { location: 'https://elsewhere.example/keys' }
    expect(await show(verifierOf(directory.fetch))).toMatchObject({ note: expect.stringContaining(why) })
    expect(directory.fetch).toHaveBeenCalledTimes(1)
  })

  it.each([
    ['is not JSON', 'hello', 'it is not JSON'],
    ['is no key set', '[]', 'it is not a JSON Web Key Set'],
    ['is null', 'null', 'it is not a JSON Web Key Set'],
    ['has keys that are no list', '{"keys":{"length":1}}', 'it is not a JSON Web Key Set'],
    ['has 101 keys', JSON.stringify({ keys: Array.from({ length: 101 }, () => key.jwk) }), 'it has more than 100 keys'],
    ['is too long', JSON.stringify({ keys: [key.jwk], more: 'x'.repeat(65_536) }), 'it is longer than 65536 bytes'],
  ])('because it %s is none', async (_what, body, why) => {
    const fetch = async (): Promise<Response> => new Response(body)
    expect(await show(verifierOf(fetch))).toMatchObject({ outcome: 'absent', note: expect.stringContaining(why) })
  })

  it('evicts nothing: what was kept serves on for a day, and no longer', async () => {
    const directory = createDirectory()
    const verifier = verifierOf(directory.fetch)
    await show(verifier)
    directory.status = 503
    now += 10 * minute
    expect(await show(verifier)).toMatchObject(proven)
    now += 24 * hour - 1
    expect(await show(verifier)).toMatchObject(proven)
    now += 1
    expect(await show(verifier)).toMatchObject(unproven)
  })

  it('does not tell whether a key is there that was not there before', async () => {
    const directory = createDirectory()
    const verifier = verifierOf(directory.fetch)
    await show(verifier)
    directory.status = 503
    now += 30 * second
    expect(await show(verifier, { signer: makeKey() })).toMatchObject(unproven)
    expect(await show(verifier)).toMatchObject(proven)
  })

  it('is left alone for ten seconds, and longer each time, and at most five minutes', async () => {
    const directory = createDirectory()
    directory.status = 500
    const verifier = verifierOf(directory.fetch)
    const pauses: number[] = []
    let since = now
    await show(verifier)
    while (pauses.length < 8) {
      const before = directory.fetch.mock.calls.length
      now += 5 * second
      expect(await show(verifier)).toMatchObject(unproven)
      if (directory.fetch.mock.calls.length === before) continue
      pauses.push((now - since) / second)
      since = now
    }
    expect(pauses).toEqual([10, 20, 40, 80, 160, 300, 300, 300])
  })

  it.each([
    ['60', 60 * second],
    ['86400', 5 * minute],
    ['1', 10 * second],
  ])('and says Retry-After: %s is left alone that long, within bounds', async (value, ms) => {
    const directory = createDirectory()
    directory.status = 429
    directory.headers = { 'retry-after': value }
    const verifier = verifierOf(directory.fetch)
    await show(verifier)
    now += ms - 1
    await show(verifier)
    expect(directory.fetch).toHaveBeenCalledTimes(1)
    now += 1
    directory.status = 200
    expect(await show(verifier)).toMatchObject(proven)
  })
})

describe('bounds', () => {
  it('an address causes at most 20 fetches in any minute, and no more than it pays for itself', async () => {
    const { fetch } = createDirectory()
    const verifier = verifierOf(fetch, { directories: {} })
    for (let nth = 0; nth < 30; nth += 1) {
      now += second
      await show(verifier, { url: `https://bot-${nth}.example/keys` })
    }
    expect(fetch).toHaveBeenCalledTimes(20)
    expect(await show(verifier, { url: 'https://bot-29.example/keys' })).toMatchObject({
      note: expect.stringContaining('its sender has caused too many fetches lately'),
    })
    await show(verifier, { url: 'https://bot-29.example/keys', from: 'ip:192.0.2.2' })
    expect(fetch).toHaveBeenCalledTimes(21)
    // The first of the twenty is a minute ago, and the second is not.
    now = noon + second + minute
    for (const nth of [40, 41]) await show(verifier, { url: `https://bot-${nth}.example/keys` })
    expect(fetch).toHaveBeenCalledTimes(22)
  })

  it('16 directories of strangers are fetched at once, and those that are trusted do not wait for them', async () => {
    const release: (() => void)[] = []
    const fetch = vi.fn(async (url: string): Promise<Response> => {
      if (url !== agentUrl) await new Promise<void>((resolve) => release.push(resolve))
      return Response.json({ keys: [key.jwk] })
    })
    const verifier = verifierOf(fetch)
    const strangers = Array.from({ length: 20 }, (_none, nth) =>
      show(verifier, { url: `https://bot-${nth}.example/keys`, from: `ip:192.0.2.${nth}` }),
    )
    await vi.waitFor(() => expect(release).toHaveLength(16))
    expect(await show(verifier)).toMatchObject(proven)
    for (const answer of release) answer()
    const notes = (await Promise.all(strangers)).map((one) => (one as { note: string }).note)
    expect(notes.filter((note) => note.includes('too many directories are being fetched'))).toHaveLength(4)
    expect(notes.filter((note) => note.includes('not among those trusted'))).toHaveLength(16)
  })

  it('any number of strangers drive out no directory that is trusted', async () => {
    const { fetch } = createDirectory()
    const verifier = verifierOf(fetch)
    await show(verifier)
    for (let nth = 0; nth < 1100; nth += 1) {
      await show(verifier, { url: `https://bot-${nth}.example/keys`, from: `ip:${nth}` })
    }
    fetch.mockClear()
    expect(await show(verifier)).toMatchObject(proven)
    expect(fetch).not.toHaveBeenCalled()
    await show(verifier, { url: 'https://bot-1.example/keys' })
    expect(fetch).toHaveBeenCalledTimes(1)
  })

  it('a fetch that never answers is waited for three seconds', async () => {
    vi.useFakeTimers()
    try {
      const verifier = verifierOf(() => new Promise(() => {}))
      const pending = show(verifier)
      await vi.advanceTimersByTimeAsync(3000)
      expect(await pending).toMatchObject({ note: expect.stringContaining('it did not answer within 3 s') })
    } finally {
      vi.useRealTimers()
    }
  })
})
