import type { Request } from 'express'
import { describe, expect, it } from 'vitest'
import { RampmeterError } from '../../src/errors.ts'
import { session } from '../../src/identify/session.ts'
import type { Verification } from '../../src/identify/verifier.ts'
import { unlimited } from './unlimited.ts'

const req = { user: { id: 42 } } as unknown as Request

function verify(who: unknown): Verification | Promise<Verification> {
  return session((() => who) as never).verify(req, unlimited)
}

describe('session', () => {
  it('reads the request, at once', () => {
    const verifier = session((request) => {
      const { user } = request as Request & { user?: { id: number } }
      return user && { id: user.id }
    })
    expect(verifier.name).toBe('session')
    expect(verifier.verify(req, unlimited)).toMatchObject({
      outcome: 'verified',
      identity: { id: 'session:42', kind: 'human' },
    })
    expect(verifier.verify({} as Request, unlimited)).toEqual({ outcome: 'absent' })
  })

  it('waits where it must', async () => {
    await expect(verify(Promise.resolve({ id: 'ann' }))).resolves.toMatchObject({ identity: { id: 'session:ann' } })
    await expect(verify(Promise.resolve(null))).resolves.toEqual({ outcome: 'absent' })
    // oxlint-disable-next-line unicorn/no-thenable -- what a query builder is
    const query = { then: (resolve: (value: unknown) => void) => resolve({ id: 'lazy' }) }
    expect(await verify(query)).toMatchObject({ identity: { id: 'session:lazy' } })
  })

  it.each([undefined, null, false, 0, ''])('takes %j for nobody', (who) => {
    expect(verify(who)).toEqual({ outcome: 'absent' })
  })

  it.each([
    ['user', 'human', 0.9],
    ['agent', 'agent', 0.9],
    ['service', 'agent', 0.9],
    [undefined, 'human', 0.6],
    [null, 'human', 0.6],
  ])('type %j is kind %s', (type, kind, confidence) => {
    expect(verify({ id: 1, type })).toMatchObject({ identity: { kind, confidence, provesKey: false } })
  })

  it('passes tier and claims on, and takes null for nothing', () => {
    expect(verify({ id: 1n, tier: 'premium', claims: { seats: 3 } })).toMatchObject({
      identity: { id: 'session:1', tier: 'premium', claims: { seats: 3 } },
    })
    const { identity } = verify({ id: 1, tier: null, claims: null }) as Verification & { outcome: 'verified' }
    expect(identity).not.toHaveProperty('tier')
    expect(identity.claims).toEqual({})
  })

  it.each([
    ['true', true],
    ['a list', [1]],
    ['no id', {}],
    ['an empty id', { id: '' }],
    ['a null id', { id: null }],
    ['an object id', { id: { toString: () => 'ann' } }],
    ['NaN', { id: Number.NaN }],
    ['half a number', { id: 0.5 }],
    ['a number that is not exact', { id: 2 ** 53 }],
    ['a long id', { id: 'secret-'.repeat(150) }],
    ['a long number', { id: 10n ** 1000n }],
    ['half a surrogate pair', { id: 'secret-\ud800' }],
    ['a wrong type', { id: 1, type: 'secret-robot' }],
    ['a numeric tier', { id: 1, tier: 3 }],
    ['an empty tier', { id: 1, tier: '' }],
    ['claims that are a list', { id: 1, claims: [] }],
    ['claims that are a text', { id: 1, claims: 'secret' }],
  ])('fails loudly for %s, without telling what it was', (_what, who) => {
    let thrown: unknown
    try {
      void verify(who)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(RampmeterError)
    expect(thrown).toMatchObject({ code: 'RAMPMETER_INVALID_IDENTITY' })
    expect((thrown as Error).message).not.toContain('secret')
    expect((thrown as Error).message).toContain("session's function")
  })

  it('lets what the app throws pass', async () => {
    const bug = new TypeError('req.session is undefined')
    const thrower = session(() => {
      throw bug
    })
    expect(() => thrower.verify(req, unlimited)).toThrow(bug)
    await expect(verify(Promise.reject(bug))).rejects.toBe(bug)
  })

  it('must be given a function', () => {
    expect(() => session(undefined as never)).toThrow(expect.objectContaining({ code: 'RAMPMETER_INVALID_OPTION' }))
  })
})
