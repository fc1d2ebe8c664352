import { createLocalJWKSet, type CryptoKey } from 'jose'
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { keySource, type KeySource } from '../../src/identify/key-source.ts'
import { createKeys, KeysUnavailable, withKey, type FindKey } from '../../src/identify/keys.ts'
import { startAuthorizationServer, type AuthorizationServer } from './authorization-server.ts'
import { createSigningKey, type SigningKey } from './issuer.ts'

/** Only the clock by which keys grow old: the requests are real ones. */
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance'] })
  vi.advanceTimersByTime(1)
})

afterEach(() => {
  vi.useRealTimers()
})

const noToken = { protected: '', payload: '', signature: '' }

function find(keys: FindKey, kid: string | undefined, alg = 'ES256'): Promise<CryptoKey> {
  return keys({ alg, ...(kid !== undefined && { kid }) }, noToken)
}

/** Lets requests that nobody waits for go out and come back. */
async function settle(server: AuthorizationServer, fetches: number): Promise<void> {
  await vi.waitFor(() => expect(server.asked('/jwks')).toBe(fetches), { timeout: 5000 })
  await new Promise((resolve) => setTimeout(resolve, 50))
}

const minute = 60_000
const hour = 60 * minute

describe('keys at a URL', () => {
  let server: AuthorizationServer
  let keys: FindKey

  beforeEach(async () => {
    server = await startAuthorizationServer()
    keys = createKeys(`${server.issuer}/jwks`)
  })

  const fetches = (): number => server.asked('/jwks')

  it('are not fetched before they are needed, and then once for all who need them', async () => {
    expect(fetches()).toBe(0)
    const found = await Promise.all(Array.from({ length: 50 }, () => find(keys, server.key.jwk.kid)))
    expect(new Set(found).size).toBe(1)
    expect(fetches()).toBe(1)
  })

  it('cannot be asked for by making up kids, but once in 30 seconds', async () => {
    await find(keys, server.key.jwk.kid)
    for (let count = 0; count < 50; count += 1) {
      await expect(find(keys, `made up ${count}`)).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
    }
    expect(fetches()).toBe(1)
    vi.advanceTimersByTime(30_000)
    const answers = await Promise.allSettled(
      Array.from({ length: 50 }, (_, count) => find(keys, `made up again ${count}`)),
    )
    expect(answers.filter(({ status }) => status === 'fulfilled')).toEqual([])
    await expect(find(keys, 'made up once more')).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
    expect(fetches()).toBe(2)
  })

  it('are found when they are new, as soon as that', async () => {
    await find(keys, server.key.jwk.kid)
    const next = await createSigningKey('ES256', 'next')
    server.jwks.keys.push(next.jwk)
    await expect(find(keys, 'next')).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
    vi.advanceTimersByTime(30_000)
    expect((await find(keys, 'next')).type).toBe('public')
    expect(fetches()).toBe(2)
  })

  it('are refreshed after ten minutes, beside the request', async () => {
    await find(keys, server.key.jwk.kid)
    vi.advanceTimersByTime(10 * minute)
    await find(keys, server.key.jwk.kid)
    expect(fetches()).toBe(1)
    vi.advanceTimersByTime(1)
    // What the server does not answer is not waited for.
    let release = (): void => {}
    const held = new Promise<void>((resolve) => (release = resolve))
    server.faults.set('/jwks', (_req, res) => void held.then(() => res.writeHead(200).end('{"keys":[]}')))
    expect((await find(keys, server.key.jwk.kid)).type).toBe('public')
    await vi.waitFor(() => expect(fetches()).toBe(2))
    release()
    await vi.waitFor(() =>
      expect(find(keys, server.key.jwk.kid)).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' }),
    )
  })

  it('are refreshed before the first request after a quiet time, so that a withdrawn one is out', async () => {
    await find(keys, server.key.jwk.kid)
    server.jwks.keys.splice(0)
    vi.advanceTimersByTime(hour)
    await expect(find(keys, server.key.jwk.kid)).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
    expect(fetches()).toBe(2)
  })

  it('serve on for a day while they cannot be fetched, which is tried every five seconds', async () => {
    await find(keys, server.key.jwk.kid)
    server.faults.set('/jwks', 503)
    vi.advanceTimersByTime(hour)
    expect((await find(keys, server.key.jwk.kid)).type).toBe('public')
    await settle(server, 2)
    for (let count = 0; count < 20; count += 1) await find(keys, server.key.jwk.kid)
    vi.advanceTimersByTime(4999)
    await find(keys, server.key.jwk.kid)
    await settle(server, 2)
    vi.advanceTimersByTime(1)
    await find(keys, server.key.jwk.kid)
    await settle(server, 3)
    // A kid that is not among them cannot be told to be wrong now.
    await expect(find(keys, 'perhaps new')).rejects.toBeInstanceOf(KeysUnavailable)
    expect(fetches()).toBe(3)

    vi.advanceTimersByTime(23 * hour - 10_000)
    expect((await find(keys, server.key.jwk.kid)).type).toBe('public')
    await settle(server, 4)
    vi.advanceTimersByTime(20_000)
    await expect(find(keys, server.key.jwk.kid)).rejects.toBeInstanceOf(KeysUnavailable)

    server.faults.clear()
    vi.advanceTimersByTime(5000)
    expect((await find(keys, server.key.jwk.kid)).type).toBe('public')
  })

  it('that cannot be had are asked for once in five seconds', async () => {
    server.faults.set('/jwks', 500)
    for (let count = 0; count < 20; count += 1) {
      await expect(find(keys, server.key.jwk.kid)).rejects.toBeInstanceOf(KeysUnavailable)
    }
    expect(fetches()).toBe(1)
    vi.advanceTimersByTime(5000)
    server.faults.clear()
    expect((await find(keys, server.key.jwk.kid)).type).toBe('public')
    expect(fetches()).toBe(2)
  })

  it.each<[string, Parameters<AuthorizationServer['faults']['set']>[1]]>([
    ['elsewhere', (_req, res) => void res.writeHead(302, { location: '/other' }).end()],
    ['no JSON', (_req, res) => void res.end('<html>')],
    ['no set', (_req, res) => void res.end('{"keys":{}}')],
    ['cut short', (req) => void req.socket.destroy()],
  ])('are not had from an answer that is %s', async (_what, fault) => {
    server.faults.set('/jwks', fault)
    await expect(find(keys, server.key.jwk.kid)).rejects.toBeInstanceOf(KeysUnavailable)
    expect(server.asked('/other')).toBe(0)
  })

  it('are waited for five seconds', { timeout: 20_000 }, async () => {
    server.faults.set('/jwks', () => {})
    const startedAt = Date.now()
    await expect(find(keys, server.key.jwk.kid)).rejects.toBeInstanceOf(KeysUnavailable)
    expect(Date.now() - startedAt).toBeGreaterThan(4500)
    expect(Date.now() - startedAt).toBeLessThan(19_000)
  })

  it('that are broken are the fault of whoever published them', async () => {
    server.jwks.keys.splice(0, 1, { ...server.key.jwk, x: 'AAAA' })
    await expect(find(keys, server.key.jwk.kid)).rejects.toBeInstanceOf(KeysUnavailable)
  })
})

describe('keys in a set', () => {
  let signing: SigningKey[]
  beforeAll(async () => {
    signing = await Promise.all(Array.from({ length: 10 }, () => createSigningKey('ES256', undefined)))
  })

  /** Which key a token without a kid turns out to be signed with, and how many were tried. */
  async function tryAll(source: KeySource, signer: CryptoKey): Promise<number> {
    let tried = 0
    const wrong = Object.assign(new Error('wrong'), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' })
    const text = new TextEncoder().encode('text')
    const algorithm = { name: 'ECDSA', hash: 'SHA-256' }
    const signature = await crypto.subtle.sign(algorithm, signer, text)
    await withKey(createKeys(source), { alg: 'ES256' }, noToken, async (key) => {
      tried += 1
      if (!(await crypto.subtle.verify(algorithm, key, signature, text))) throw wrong
    }).catch((error: unknown) => {
      if (error !== wrong) throw error
      tried = -tried
    })
    return tried
  }

  it('that all fit a token without a kid are tried, a few of them', async () => {
    const keys = signing.map(({ jwk }) => jwk)
    expect(await tryAll({ keys }, signing[0]!.privateKey)).toBe(1)
    expect(await tryAll({ keys }, signing[7]!.privateKey)).toBe(8)
    expect(await tryAll({ keys }, signing[8]!.privateKey)).toBe(-8)
  })

  it('may come from a function of jose, also then', async () => {
    const keys = signing.slice(0, 3).map(({ jwk }) => jwk)
    expect(await tryAll(createLocalJWKSet({ keys }), signing[2]!.privateKey)).toBe(3)
  })

  it('that are broken are the fault of whoever wrote them', async () => {
    const keys = createKeys({ keys: [{ ...signing[0]!.jwk, kid: 'a', x: 'AAAA' }] })
    await expect(find(keys, 'a')).rejects.toBeInstanceOf(KeysUnavailable)
    await expect(find(keys, 'b')).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
  })
})

describe('keys by a function', () => {
  it('are asked for with the header', async () => {
    const source = vi.fn(async () => await import('jose').then(({ importJWK }) => importJWK(publicKey, 'ES256')))
    const { jwk: publicKey } = await createSigningKey()
    expect(await find(createKeys(source), 'a')).toMatchObject({ type: 'public' })
    expect(source.mock.calls).toEqual([[{ alg: 'ES256', kid: 'a' }, noToken]])
  })

  it.each([
    ['undefined', () => undefined],
    ['null, later', async () => null],
  ])('that says %s are not there', async (_what, source) => {
    await expect(find(createKeys(source), 'a')).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
  })

  it.each([
    [
      'throws',
      () => {
        throw new Error('the database is away')
      },
    ],
    [
      'rejects',
      async () => {
        throw new Error('the database is away')
      },
    ],
    ['answers with a text', () => 'a key'],
  ])('that %s cannot be had', async (_what, source) => {
    await expect(find(createKeys(source), 'a')).rejects.toBeInstanceOf(KeysUnavailable)
  })
})

describe('a source of keys', () => {
  it.each([
    'https://id.example.com/keys',
    new URL('https://id.example.com/keys'),
    'http://localhost:3000/keys',
    'http://127.0.0.1/keys',
    'http://[::1]:3000/keys',
    { keys: [] },
    { keys: [{ kty: 'EC', crv: 'P-256', x: 'x', y: 'y' }] },
    () => undefined,
  ])('is %s', (source) => {
    expect(keySource.safeParse(source).success).toBe(true)
  })

  it.each([
    'http://id.example.com/keys',
    'http://localhost.example.com/keys',
    'http://127.0.0.1.example.com/keys',
    'https://user:secret@id.example.com/keys',
    'ftp://id.example.com/keys',
    'file:///keys',
    '/keys',
    '',
    null,
    undefined,
    [],
    {},
    { keys: {} },
    { keys: [null] },
    { keys: [{ kty: 'oct', k: 'c2VjcmV0' }] },
    { keys: [{ kty: 'EC', crv: 'P-256', x: 'x', y: 'y', d: 'd' }] },
  ])('is not %j', (source) => {
    expect(keySource.safeParse(source).success).toBe(false)
  })
})
