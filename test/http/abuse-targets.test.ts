// What requests touch, where a route says so.

import { describe, expect, it } from 'vitest'
import type { RouteTarget } from '../../src/index.ts'
import { fnv1a } from '../../src/policies/build.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'
import { warningsOf } from './warnings.ts'

const idOf: RouteTarget = ({ query: { id } }) => (typeof id === 'string' ? id : undefined)

async function guess(all: AbuseScene): Promise<string[]> {
  for (let id = 0; id < 40; id += 1) await all.ask(`/item?id=${id * 7}`, 'guesser')
  return all.incidents.map(({ label }) => label)
}

describe('the path', () => {
  it('is a target however long it is', async () => {
    const all = await abuseScene()
    for (let id = 1000; id < 1040; id += 1) await all.ask(`/items/${'0'.repeat(2000)}${id * 7}`, 'guesser')
    for (let id = 1000; id < 1040; id += 1) await all.ask(`/items/${id * 7}${'%20'.repeat(700)}`, 'other')
    const found = all.incidents.map(({ client }) => client.id)
    expect(found.filter((id) => id.startsWith('key:'))).toEqual(['key:guesser', 'key:other'])
  })
})

/** The path of an item, with such blanks behind it that its mark is that of all others, as far as who writes it knows. */
function disguised(id: number): string {
  const blanks = ['%20', '%09', '%0a', '%0d']
  for (let form = 0; form < 100_000; form += 1) {
    const path = `/items/${id}${form.toString(4).replace(/\d/g, (digit) => blanks[Number(digit)]!)}`
    if (fnv1a(path) % 2048 === 7) return path
  }
  throw new Error(`${id} cannot be written so`)
}

it('which targets share a mark is not to be guessed where there is a secret', async () => {
  const all = await abuseScene({}, { keySecret: 'a-secret-of-this-test' })
  for (let id = 1000; id < 1040; id += 1) {
    expect((await all.ask(disguised(id * 7), 'guesser')).json.abuse).toBeDefined()
  }
  expect(all.incidents.map(({ client }) => client.id)).toContain('key:guesser')
})

describe('the target of a route', () => {
  it('tells enumeration by the query string, which the path does not', async () => {
    const without = await abuseScene({}, {}, (app) => app.get('/item', (_req, res) => void res.status(404).end()))
    expect(await guess(without)).toEqual([])
    const routes = { '/item': { target: idOf } }
    const all = await abuseScene({}, { routes }, (app) => app.get('/item', (_req, res) => void res.status(404).end()))
    expect(await guess(all)).toEqual(['enumeration'])
  })

  it('counts behind app.use too, where the route decides nothing', async () => {
    const all = await abuseScene({}, {}, (app, limiter) => {
      app.get('/item', limiter.route({ target: idOf }), (_req, res) => void res.status(404).end())
    })
    expect(await guess(all)).toEqual(['enumeration'])
  })

  it.each([
    () => {
      throw new Error('no')
    },
    () => 7,
    () => null,
    () => ['a', 7],
    async () => 'a',
    async () => {
      throw new Error('no')
    },
  ])('that fails is reported once, and harms no request (%#)', async (target) => {
    const warnings = warningsOf('RAMPMETER_TARGET_FAILED')
    const routes = { '/items/:id': { target: target as unknown as RouteTarget } }
    const all = await abuseScene({}, { routes })
    for (let id = 0; id < 30; id += 1) expect((await all.ask(`/items/${id}`, 'acme')).status).toBe(200)
    expect(await warnings()).toHaveLength(1)
    // The path still tells.
    for (let id = 1000; id < 1040; id += 1) await all.ask(`/items/${id * 7}`, 'guesser')
    expect(all.incidents.map(({ label }) => label)).toEqual(['enumeration'])
  })
})
