import { expect, it } from 'vitest'
import { Abuse } from '../src/abuse/abuse.ts'
import type { Client } from '../src/client.ts'
import type { Ruling } from '../src/decide.ts'
import { plainRoute, type Route } from '../src/options.ts'
import type { KnownStanding } from '../src/standing.ts'
import { MemoryStandings } from '../src/stores/standings.ts'
import { heldForMs, Watch } from '../src/watch.ts'

const client: Client = {
  id: 'key:acme',
  kind: 'agent',
  tier: 'agent',
  provedBy: 'api-key',
  confidence: 1,
  reasons: [],
  claims: {},
  address: null,
  hint: null,
}
const inOrder: KnownStanding = { score: 0, step: 'allow', signals: 0, tier: 0, suspended: false, unapproved: false }
const ruled: Ruling = {
  admitted: true,
  outcomes: [],
  violated: [],
  retryAfterUs: 0,
  estimated: false,
  nowUs: 0,
  charged: [],
  beside: [],
  degraded: false,
}
const away: Ruling = { ...ruled, degraded: true }

function scene(hasStandings = true) {
  let nowMs = 1000
  const standings = new MemoryStandings(() => nowMs * 1000, 100)
  const watch = new Watch({
    abuse: new Abuse(undefined, {
      standings: () => standings,
      hash: () => 1,
      markOf: () => 1,
      onFailure: () => {},
      checkId: () => {},
    }),
    tiers: {},
    verifiers: [],
    stepUp: () => ({ status: 401, challenges: [] }),
    isEnforced: () => true,
    hasStandings,
    clock: { now: () => nowMs },
  })
  return {
    watch,
    advance: (ms: number) => (nowMs += ms),
    learn: (standing: KnownStanding, route: Route = plainRoute) => watch.learn(client, route, { ...ruled, standing }),
    reasonAway: (route: Route = plainRoute) => watch.refusalOf(client, route, false, away, undefined)?.reason,
  }
}

it('holds a suspended client to it as long as it was suspended for, whatever the outage', () => {
  const { advance, learn, reasonAway } = scene()
  learn({ ...inOrder, suspended: true })
  advance(10 * heldForMs)
  expect(reasonAway()).toBe('abuse')
  learn({ ...inOrder, suspended: true, suspendedForMs: 5000 })
  advance(4999)
  expect(reasonAway()).toBe('abuse')
  advance(2)
  expect(reasonAway()).toBeUndefined()
})

it('forgets it when the store says that it is lifted', () => {
  const { learn, reasonAway } = scene()
  learn({ ...inOrder, suspended: true })
  learn(inOrder)
  expect(reasonAway()).toBeUndefined()
})

it('forgets an approval that was taken back here', () => {
  const { watch, learn, reasonAway } = scene()
  const wire: Route = { ...plainRoute, name: 'wire', requireApproval: true }
  learn(inOrder, wire)
  expect(reasonAway(wire)).toBeUndefined()
  watch.revoked(client.id, 'wire')
  expect(reasonAway(wire)).toBe('store')
})

it('remembers approvals as long, for their own scope', () => {
  const { advance, learn, reasonAway } = scene()
  const wire: Route = { ...plainRoute, name: 'wire', requireApproval: true }
  expect(reasonAway(wire)).toBe('store')
  learn(inOrder, wire)
  expect(reasonAway(wire)).toBeUndefined()
  expect(reasonAway({ ...wire, name: 'other' })).toBe('store')
  advance(heldForMs + 1)
  expect(reasonAway(wire)).toBe('store')
  learn(inOrder, wire)
  learn({ ...inOrder, unapproved: true }, wire)
  expect(reasonAway(wire)).toBe('store')
})

it('lets nobody in where people have to approve and the store knows no clients', () => {
  const { watch } = scene(false)
  expect(watch.chargeFor(client, plainRoute, false)).toBeUndefined()
  const wire: Route = { ...plainRoute, name: 'wire', requireApproval: true }
  expect(() => watch.chargeFor(client, wire, false)).toThrow(
    expect.objectContaining({ code: 'RAMPMETER_NO_STANDINGS' }),
  )
})
