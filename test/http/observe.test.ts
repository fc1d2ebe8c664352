// What is told on `node:diagnostics_channel`, and what never is.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import express from 'express'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Admission } from '../../src/admission.ts'
import { apiKey } from '../../src/identify/api-key.ts'
import type { DecisionMessage } from '../../src/observe/channels.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import type { Store } from '../../src/stores/store.ts'
import { manualClock } from '../../src/testing/manual-clock.ts'
import { opened, serve, tellDecision } from './serve.ts'

function listenTo(name: string): unknown[] {
  const heard: unknown[] = []
  const listen = (message: unknown): void => void heard.push(message)
  subscribe(name, listen)
  onTestFinished(() => void unsubscribe(name, listen))
  return heard
}

const policies = [slidingWindow({ name: 'hour', quota: 1, window: '1h' })]

describe('rampmeter:decision', () => {
  it('tells each decision, and no claims', async () => {
    const limiter = opened(
      rampmeter({
        store: memoryStore({ now: manualClock() }),
        policies,
        identify: [apiKey({ lookup: () => ({ id: 'acme', type: 'agent', claims: { email: 'a@example.com' } }) })],
        routes: { 'GET /search': { name: 'search' } },
      }),
    )
    const served = await serve(express().use(limiter, tellDecision))
    const heard = listenTo('rampmeter:decision')
    const { json } = await served.ask('/search', { headers: { 'x-api-key': 'sk-secret' } })
    expect(json).not.toHaveProperty('reason')
    await served.ask('/', { headers: { 'x-api-key': 'sk-secret' } })

    expect(heard).toEqual([
      {
        client: { id: 'key:acme', kind: 'agent', tier: 'default', provedBy: 'api-key' },
        admitted: true,
        enforced: true,
        limits: [
          {
            name: 'hour',
            quota: 1,
            windowMs: 3_600_000,
            unit: 'requests',
            cost: 1,
            remaining: 0,
            resetMs: 3_600_000,
            waitMs: 3_600_000,
            capacity: 1,
          },
        ],
        violated: [],
        retryAfterMs: 0,
        degraded: false,
        reason: null,
        abuse: null,
        route: 'search',
      },
      expect.objectContaining({
        admitted: false,
        violated: ['hour'],
        reason: 'quota',
        retryAfterMs: 3_600_000,
        route: null,
      }),
    ] satisfies unknown[])
    expect(JSON.stringify(heard)).not.toMatch(/sk-secret|example\.com|claims/)
  })

  it('tells of decisions outside HTTP, and not of looks', async () => {
    const limiter = opened(rampmeter({ policies }))
    const heard = listenTo('rampmeter:decision') as DecisionMessage[]
    await limiter.peek({ id: 'key:a' })
    await limiter.decide({ client: { id: 'key:a' } })
    expect(heard.map(({ client }) => client.id)).toEqual(['key:a'])
  })

  it('tells of shadow decisions as such, and of the route further in', async () => {
    const limiter = opened(rampmeter({ policies, mode: 'shadow' }))
    const app = express().use(limiter)
    app.get('/', limiter.route({ name: 'inner', cost: 2 }), tellDecision)
    const served = await serve(app)
    const heard = listenTo('rampmeter:decision') as DecisionMessage[]
    await served.ask('/')
    expect(heard).toMatchObject([
      { admitted: true, enforced: false, route: null },
      { admitted: false, enforced: false, route: 'inner', reason: 'never', retryAfterMs: null },
    ])
  })

  it('does not fail a request whose listener throws', async () => {
    const limiter = opened(rampmeter({ policies }))
    const served = await serve(express().use(limiter, tellDecision))
    const thrown: unknown[] = []
    const catchIt = (error: unknown): void => void thrown.push(error)
    // Node hands what a subscriber throws to the process.
    const others = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException')
    process.on('uncaughtException', catchIt)
    onTestFinished(() => {
      process.off('uncaughtException', catchIt)
      for (const other of others) process.on('uncaughtException', other)
    })
    const listen = (): never => {
      throw new Error('in the listener')
    }
    subscribe('rampmeter:decision', listen)
    onTestFinished(() => void unsubscribe('rampmeter:decision', listen))
    expect((await served.ask('/')).status).toBe(200)
    expect(thrown).toMatchObject([{ message: 'in the listener' }])
  })
})

describe('where nobody listens', () => {
  it('no message of a decision is built', async () => {
    // An admitted decision has no reason of its own, and only a message asks for it.
    const asked = vi.fn(() => undefined)
    Object.defineProperty(Admission.prototype, 'reason', { configurable: true, get: asked })
    onTestFinished(() => void Reflect.deleteProperty(Admission.prototype, 'reason'))
    const limiter = opened(rampmeter({ policies: [slidingWindow({ quota: 9, window: '1h' })] }))
    const served = await serve(express().use(limiter, (_req, res) => void res.end()))

    expect((await served.ask('/')).status).toBe(200)
    expect(asked).not.toHaveBeenCalled()
    listenTo('rampmeter:decision')
    expect((await served.ask('/')).status).toBe(200)
    expect(asked).toHaveBeenCalledTimes(1)
  })

  it('no message of an outage is built', async () => {
    const failure = new Error('away')
    const asked = vi.fn(() => 'EAWAY')
    Object.defineProperty(failure, 'code', { get: asked })
    const fails = async (): Promise<never> => Promise.reject(failure)
    const store: Store = {
      open: () => ({ decide: fails, settle: fails, reset: fails, ready: async () => {}, close: async () => {} }),
    }
    const limiter = opened(rampmeter({ store, policies, onStoreError: 'open' }))

    // The first of an outage is told to whoever runs the app.
    expect(await limiter.decide({ client: { id: 'key:a' } })).toMatchObject({ admitted: true, degraded: true })
    asked.mockClear()
    await limiter.decide({ client: { id: 'key:a' } })
    expect(asked).not.toHaveBeenCalled()
    const heard = listenTo('rampmeter:degraded')
    await limiter.decide({ client: { id: 'key:a' } })
    expect(heard).toMatchObject([{ code: 'RAMPMETER_STORE_UNAVAILABLE', cause: 'Error EAWAY', count: 3 }])
  })
})
