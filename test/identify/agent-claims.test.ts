import { describe, expect, it } from 'vitest'
import { readBearer, type Claims } from '../../src/identify/agent-claims.ts'
import { bindingsOf, tokenIdentity } from '../../src/identify/token-identity.ts'

const issuer = 'https://id.example.com'
const agents: ReadonlySet<string> = new Set(['known-agent'])

const ann = { iss: issuer, sub: 'ann', client_id: 'app' }

describe('who uses a token', () => {
  it.each<[string, string | undefined, Claims, string, number, string, string]>([
    ['says nothing', 'at+jwt', ann, 'unknown', 0, 'ann', 'the token does not say who uses it'],
    // Microsoft Entra.
    [
      'has an agent as its actor',
      undefined,
      { ...ann, xms_act_fct: '3 11' },
      'agent',
      1,
      'ann|agent',
      "the token's xms_act_fct says agent",
    ],
    [
      'has an agent as its subject',
      undefined,
      { ...ann, xms_sub_fct: 11 },
      'agent',
      1,
      'ann',
      "the token's xms_sub_fct says agent",
    ],
    [
      'has an agent as its parent',
      undefined,
      { ...ann, xms_par_fct: [2, '11'] },
      'agent',
      1,
      'ann',
      "the token's xms_par_fct says agent",
    ],
    [
      'has other facets',
      undefined,
      { ...ann, xms_act_fct: '3 111 9', xms_sub_fct: 2 },
      'unknown',
      0,
      'ann',
      'the token does not say who uses it',
    ],
    ['is of an agent by its type', 'aa-agent+jwt', ann, 'agent', 1, 'ann', "the token's type says agent"],
    [
      'is of an agent by its type, for somebody',
      'aa-agent+jwt',
      { ...ann, act: { sub: 'bot' } },
      'agent',
      1,
      'ann|agent',
      "the token's type says agent",
    ],
    // RFC 8693 section 4.1.
    [
      'names an actor',
      undefined,
      { ...ann, act: { sub: 'bot' } },
      'agent',
      0.9,
      'ann|agent',
      'the token names an actor',
    ],
    [
      'names an actor that acts for another',
      undefined,
      { ...ann, act: { sub: 'bot', act: { sub: 'bot2' } } },
      'agent',
      0.9,
      'ann|agent',
      'the token names an actor',
    ],
    [
      'only says who may act',
      undefined,
      { ...ann, may_act: { sub: 'bot' } },
      'unknown',
      0,
      'ann',
      'the token does not say who uses it',
    ],
    [
      'has an actor that is no object',
      undefined,
      { ...ann, act: 'bot' },
      'unknown',
      0,
      'ann',
      'the token does not say who uses it',
    ],
    [
      'has a list of actors',
      undefined,
      { ...ann, act: [{ sub: 'bot' }] },
      'unknown',
      0,
      'ann',
      'the token does not say who uses it',
    ],
    // The marks of a client-credentials grant.
    [
      'has gty',
      undefined,
      { sub: 'x', gty: 'client-credentials' },
      'agent',
      0.8,
      'x',
      "the token is a client's own (gty)",
    ],
    [
      'has gty in a list',
      undefined,
      { sub: 'x', gty: ['password', 'client_credentials'] },
      'agent',
      0.8,
      'x',
      "the token is a client's own (gty)",
    ],
    [
      'has another gty',
      undefined,
      { sub: 'x', gty: 'password' },
      'unknown',
      0,
      'x',
      'the token does not say who uses it',
    ],
    ['has idtyp app', undefined, { sub: 'x', idtyp: 'app' }, 'agent', 0.8, 'x', "the token is a client's own (idtyp)"],
    [
      'has its client as its subject',
      undefined,
      { sub: 'app', client_id: 'app' },
      'agent',
      0.8,
      'app',
      "the token is a client's own (sub is its client)",
    ],
    [
      'has its client as its subject, as Okta writes it',
      undefined,
      { sub: 'app', cid: 'app' },
      'agent',
      0.8,
      'app',
      "the token is a client's own (sub is its client)",
    ],
    [
      'has a subject that ends in @clients',
      undefined,
      { sub: 'app@clients', azp: 'app' },
      'agent',
      0.8,
      'app@clients',
      "the token is a client's own (sub ends in @clients)",
    ],
    // A list of clients.
    [
      'is of a listed client, for somebody',
      undefined,
      { sub: 'ann', azp: 'known-agent' },
      'agent',
      0.8,
      'ann|agent',
      'its client is in the list of agents',
    ],
    [
      'is of a listed client and nobody else',
      undefined,
      { client_id: 'known-agent' },
      'agent',
      0.8,
      'known-agent',
      'its client is in the list of agents',
    ],
    ['names only a client', undefined, { client_id: 'app' }, 'unknown', 0, 'app', 'the token does not say who uses it'],
    [
      'has a subject named as a listed client',
      undefined,
      { sub: 'known-agent' },
      'unknown',
      0,
      'known-agent',
      'the token does not say who uses it',
    ],
  ])('%s', (_what, type, claims, kind, confidence, name, reason) => {
    expect(tokenIdentity(issuer, type, claims, agents)).toMatchObject({
      id: `sub:${issuer}|${name}`,
      kind,
      confidence,
      reason,
    })
  })

  it('is told by the most explicit of what it says', () => {
    const all = { sub: 'app', client_id: 'app', gty: 'client-credentials', act: { sub: 'bot' }, xms_sub_fct: 11 }
    const { xms_sub_fct: _facet, ...withActor } = all
    const { act: _actor, ...withMark } = withActor
    expect(readBearer('aa-agent+jwt', all, agents).reason).toBe("the token's xms_sub_fct says agent")
    expect(readBearer('aa-agent+jwt', withActor, agents).reason).toBe("the token's type says agent")
    expect(readBearer(undefined, withActor, agents).reason).toBe('the token names an actor')
    expect(readBearer(undefined, withMark, new Set(['app'])).reason).toBe("the token is a client's own (gty)")
  })
})

describe('the id', () => {
  it('is never that of another, whatever subjects are called', () => {
    const names = ['a', 'a|agent', 'a|agent|agent', 'a|agent|self', 'a|agent|self|self', 'a|self', 'a|agents']
    const ids = names.flatMap((sub) => [
      tokenIdentity(issuer, undefined, { sub }, agents)!.id,
      tokenIdentity(issuer, undefined, { sub, act: { sub: 'bot' } }, agents)!.id,
    ])
    expect(new Set(ids).size).toBe(2 * names.length)
  })

  it('is one for all agents that act for the same person', () => {
    const of = (bot: string) => tokenIdentity(issuer, undefined, { sub: 'ann', act: { sub: bot } }, agents)!.id
    expect(of('one')).toBe(of('other'))
  })

  it('tells the subjects of two issuers apart', () => {
    expect(tokenIdentity('https://a.example', undefined, ann, agents)!.id).not.toBe(
      tokenIdentity('https://b.example', undefined, ann, agents)!.id,
    )
  })

  it('has at most 1024 characters, its issuer included', () => {
    const room = 1024 - `sub:${issuer}|`.length
    expect(tokenIdentity(issuer, undefined, { sub: 'a'.repeat(room) }, agents)!.id).toHaveLength(1024)
    expect(tokenIdentity(issuer, undefined, { sub: 'a'.repeat(room + 1) }, agents)).toBeUndefined()
    expect(tokenIdentity(issuer, undefined, { sub: 'a'.repeat(room - 3), act: {} }, agents)).toBeUndefined()
  })

  it.each([{}, { sub: '' }, { sub: 7 }, { sub: '', client_id: '' }, { sub: '\ud800' }])(
    'is not made of %j',
    (claims) => {
      expect(tokenIdentity(issuer, undefined, claims, agents)).toBeUndefined()
    },
  )
})

describe('scopes', () => {
  it.each([
    [{}, undefined],
    [{ scope: 'a  b ' }, ['a', 'b']],
    [{ scope: '' }, []],
    [{ scp: ['a', 7, 'b'] }, ['a', 'b']],
    [{ scp: 'a b' }, ['a', 'b']],
    [{ scope: 'a', scp: 'b' }, ['a']],
    [{ scope: { a: true } }, undefined],
  ])('of %j are %j', (claims, scopes) => {
    expect(tokenIdentity(issuer, undefined, { ...ann, ...claims }, agents)!.scopes).toEqual(scopes)
  })
})

describe('what a token is bound to', () => {
  it.each<[Claims, ReturnType<typeof bindingsOf>]>([
    [{}, undefined],
    [{ cnf: null }, undefined],
    [{ cnf: { jkt: 'k' } }, { jkt: 'k', x5t: undefined, others: false }],
    [{ cnf: { 'x5t#S256': 'c' } }, { jkt: undefined, x5t: 'c', others: false }],
    [{ cnf: { jkt: 'k', 'x5t#S256': 'c' } }, { jkt: 'k', x5t: 'c', others: false }],
    [{ cnf: { jkt: 'k', jwk: {} } }, { jkt: 'k', x5t: undefined, others: true }],
    [{ cnf: { jkt: 'k', 'x5t#S256': null } }, { jkt: 'k', x5t: undefined, others: true }],
    [{ cnf: { kid: 'k' } }, { jkt: undefined, x5t: undefined, others: true }],
    [{ cnf: 'k' }, { jkt: undefined, x5t: undefined, others: true }],
    [{ cnf: {} }, { jkt: undefined, x5t: undefined, others: true }],
  ])('%j', (claims, bindings) => {
    expect(bindingsOf(claims)).toEqual(bindings)
  })
})
