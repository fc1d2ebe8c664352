// One attack is told once: an address that only repeats what one account did is a part of that account's incident, and all that
// belongs together says so.

import { describe, expect, it } from 'vitest'
import { presetSignals } from '../../src/index.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { fnv1a } from '../../src/policies/build.ts'
import { abuseScene, enumerate } from './abuse-scene.ts'
import { watched } from './watched.ts'

describe('one guesser with one key', () => {
  it('is told once and listed once, as its account, and its address is found by its name', async () => {
    const all = await abuseScene()
    await enumerate(all, 60, 'guesser')
    expect(all.incidents.map(({ client }) => client.id)).toEqual(['key:guesser'])
    const listed = await all.limiter.incidents.list()
    const [ofAddress] = await all.limiter.incidents.list({ clientId: 'ip:127.0.0.1' })
    expect(listed).toHaveLength(1)
    expect(listed[0]).toMatchObject({
      client: { id: 'key:guesser', addresses: ['ip:127.0.0.1'] },
      related: [{ id: ofAddress!.id, clientId: 'ip:127.0.0.1' }],
    })
    expect(ofAddress).toMatchObject({
      client: { accounts: ['key:guesser'] },
      partOf: listed[0]!.id,
      related: [{ id: listed[0]!.id, clientId: 'key:guesser' }],
    })
  })

  it.each(['no', 'one'])('is told once, as its account, beside an account with %s dead link', async (links) => {
    const all = await abuseScene()
    if (links === 'one') await all.ask('/items/5005', 'honest')
    for (let nth = 0; nth < 60; nth += 1) {
      await all.ask(`/items/${1000 + nth * 7}`, 'guesser')
      await all.ask('/', 'honest')
      all.clock.advance('1s')
    }
    expect(all.incidents.map(({ client }) => client.id)).toEqual(['key:guesser'])
    const [ofAddress] = await all.limiter.incidents.list({ clientId: 'ip:127.0.0.1' })
    expect(ofAddress).toMatchObject({ partOf: all.incidents[0]!.id, client: { accounts: ['key:guesser'] } })
  })

  it('is told as its address too, where another account did a fifth of it', async () => {
    const all = await abuseScene()
    for (let nth = 0; nth < 60; nth += 1) await all.ask(`/items/${1000 + nth * 7}`, nth % 5 === 0 ? 'other' : 'guesser')
    expect(all.incidents.map(({ client }) => client.id).sort()).toEqual(['ip:127.0.0.1', 'key:guesser'])
    expect(all.incidents[0]!.client.accounts?.toSorted()).toEqual(['key:guesser', 'key:other'])
  })

  it('is told once, as its account, where it comes from a new address, which remembers less than the account', async () => {
    const all = await watched()
    for (let id = 0; id < 100; id += 1) await all.ask(`/items/${id}`, 'guesser', '192.0.2.1')
    // Taken for what the account asked for before, since 2048 marks tell targets apart, and new to the address.
    const marks = new Set(Array.from({ length: 100 }, (_, id) => fnv1a(`/items/${id}`) % 2048))
    const missing = Array.from({ length: 3000 }, (_, nth) => `/items/${1000 + nth * 7}`)
    const seen = missing.filter((path) => marks.has(fnv1a(path) % 2048)).slice(0, 8)
    const unseen = missing.filter((path) => !marks.has(fnv1a(path) % 2048)).slice(0, 40)
    for (const path of [...seen, ...unseen]) await all.ask(path, 'guesser', '203.0.113.9')
    expect(all.incidents.map(({ client }) => client.id)).toEqual(['key:guesser'])
    const listed = await all.limiter.incidents.list()
    expect(listed.map(({ client }) => client.id)).toEqual(['key:guesser'])
    const [ofAddress] = await all.limiter.incidents.list({ clientId: 'ip:203.0.113.9' })
    expect(ofAddress).toMatchObject({ partOf: listed[0]!.id, client: { accounts: ['key:guesser'] } })
    expect(ofAddress).not.toHaveProperty('held')
  })

  it('is told as its address after all where the account does no more of it and the address does', async () => {
    const all = await watched({ halfLife: '1m', signals: presetSignals({ 'slow-enumeration': { weight: 0 } }) })
    for (let id = 0; id < 100; id += 1) await all.ask(`/items/${id}`, 'guesser', '192.0.2.1')
    const marks = new Set(Array.from({ length: 100 }, (_, id) => fnv1a(`/items/${id}`) % 2048))
    const seen = Array.from({ length: 9000 }, (_, nth) => `/items/${1000 + nth * 7}`)
      .filter((path) => marks.has(fnv1a(path) % 2048))
      .filter((path, at, all) => all.findIndex((one) => fnv1a(one) % 2048 === fnv1a(path) % 2048) === at)
    for (const path of seen.slice(0, 25)) await all.ask(path, 'guesser', '203.0.113.9')
    expect(all.incidents).toEqual([])
    expect((await all.limiter.incidents.list()).map(({ client }) => client.id)).toEqual(['ip:203.0.113.9'])
    all.clock.advance('61s')
    for (const path of seen.slice(25, 50)) await all.ask(path, 'guesser', '203.0.113.9')
    expect(all.incidents.map(({ client }) => client.id)).toEqual(['ip:203.0.113.9'])
  })

  it('is more than its account where strangers at its address guess too, in another process as well', async () => {
    const clock = manualClock()
    const store = memoryStore({ now: clock })
    const first = await abuseScene({}, { store })
    const second = await abuseScene({}, { store })
    await enumerate(first, 60, 'guesser')
    expect([...first.incidents, ...second.incidents]).toHaveLength(1)
    // Until its address is not challenged any more.
    clock.advance('30m')
    for (let id = 0; id < 60; id += 1) {
      await second.ask(`/items/${20_000 + id * 7}`)
      clock.advance('3s')
    }
    expect(second.incidents.map(({ client }) => client.id)).toEqual(['ip:127.0.0.1'])
    expect(await second.limiter.incidents.list()).toHaveLength(2)
  })
})

describe('people', () => {
  it('are asked once to look at who was suspended by its score, and its step ends by itself', async () => {
    const all = await abuseScene({ signals: presetSignals({ 'missing-targets': { weight: 100 } }) })
    await enumerate(all, 40, 'guesser')
    expect((await all.limiter.review.get('key:guesser')).step).toBe('suspend')
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:guesser', state: 'review' }])
    all.clock.advance('2h')
    expect((await all.ask('/', 'guesser')).json.abuse).toMatchObject({ step: 'allow' })
    expect(await all.limiter.review.list()).toMatchObject([{ clientId: 'key:guesser', state: 'review' }])
  })
})

describe('one client with two labels', () => {
  it('is two incidents that say so', async () => {
    const all = await abuseScene({ signals: presetSignals({ disputes: { threshold: 1 } }) })
    await enumerate(all, 30, 'guesser')
    await all.limiter.abuse.report('key:guesser', 'dispute')
    const [first, second] = all.incidents
    expect([first!.label, second!.label]).toEqual(['enumeration', 'transactional-abuse'])
    expect(second!.related).toEqual([{ id: first!.id, clientId: 'key:guesser' }])
  })
})

describe('logins of the app', () => {
  it('that fail are told of, and count against the address', async () => {
    const all = await abuseScene({ signals: presetSignals({ 'failed-proofs': { threshold: 5, weight: 50 } }) })
    for (let nth = 0; nth < 6; nth += 1) await all.limiter.abuse.report('ip:127.0.0.1', 'failed-login', 'ann')
    expect(all.incidents).toMatchObject([{ label: 'enumeration', client: { id: 'ip:127.0.0.1' } }])
    expect((await all.ask('/')).status).toBe(401)
    expect((await all.ask('/', 'known')).status).toBe(200)
  })
})

describe('one guesser with many keys', () => {
  it('is one incident of its address, with the accounts', async () => {
    const all = await abuseScene()
    for (let id = 0; id < 60; id += 1) await all.ask(`/items/${1000 + id * 7}`, `key-${id % 8}`)
    expect(all.incidents.map(({ client }) => client.id)).toEqual(['ip:127.0.0.1'])
    expect(all.incidents[0]!.client.accounts!.length).toBe(8)
    expect(all.incidents[0]!.partOf).toBeUndefined()
  })

  it('says that what its accounts do belongs together, also to who hears of them', async () => {
    const all = await abuseScene()
    for (let id = 0; id < 120; id += 1) await all.ask(`/items/${1000 + id * 7}`, `key-${id % 2}`)
    const told = all.incidents.map(({ client }) => client.id)
    expect(told.toSorted()).toEqual(['ip:127.0.0.1', 'key:key-0', 'key:key-1'])
    const [first, ...others] = all.incidents
    expect(first!.client.id).toBe('ip:127.0.0.1')
    for (const one of others) expect(one.related).toEqual([{ id: first!.id, clientId: 'ip:127.0.0.1' }])
    const [listed] = await all.limiter.incidents.list({ clientId: 'ip:127.0.0.1' })
    expect(listed!.related.map(({ clientId }) => clientId).toSorted()).toEqual(['key:key-0', 'key:key-1'])
  })
})
