// The limiter without HTTP: decide, peek, reset, and how it ends.

import express from 'express'
import { describe, expect, it } from 'vitest'
import { presetTiers } from '../src/classify/presets.ts'
import { fixedWindow } from '../src/policies/fixed-window.ts'
import { slidingLog } from '../src/policies/sliding-log.ts'
import { slidingWindow } from '../src/policies/sliding-window.ts'
import { tokenBucket } from '../src/policies/token-bucket.ts'
import { rampmeter } from '../src/rampmeter.ts'
import { askTimes, leftOf, opened, serve } from './http/serve.ts'
import { stores } from './http/stores.ts'

const client = { id: 'key:acme' }
const hour = slidingWindow({ name: 'hour', quota: 10, window: '1h' })
const deadline = '5s'

for (const { name, makeStore } of stores) {
  describe(`limiter.decide ${name}`, () => {
    it('charges what a request would', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hour], deadline }))
      const decision = await limiter.decide({ client, cost: 4 })
      expect(decision).toMatchObject({
        admitted: true,
        enforced: true,
        degraded: false,
        violated: [],
        retryAfterMs: 0,
        client: { id: 'key:acme', kind: 'unknown', tier: 'default', address: null },
        limits: [{ name: 'hour', quota: 10, cost: 4, remaining: 6 }],
      })
      const refused = await limiter.decide({ client, cost: 7 })
      expect(refused).toMatchObject({ admitted: false, reason: 'quota', violated: ['hour'] })
      expect(refused.retryAfterMs).toBeGreaterThan(3_500_000)
      expect(await limiter.decide({ client, cost: 11 })).toMatchObject({
        admitted: false,
        reason: 'never',
        retryAfterMs: null,
      })
      expect(leftOf(await limiter.decide({ client, cost: 0 }))).toEqual({ hour: 6 })
    })

    it('shares the counters of HTTP', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hour], deadline }))
      await askTimes(await serve(express().use(limiter)), 3)
      expect(leftOf(await limiter.decide({ client: { id: 'ip:127.0.0.1' } }))).toEqual({ hour: 6 })
    })

    it('puts policies of its own on top, and remembers them', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), policies: [hour], deadline }))
      const tool = [slidingLog({ name: 'tool', quota: 2, window: '1h' })]
      const ask = async () => (await limiter.decide({ client, policies: tool })).admitted
      expect([await ask(), await ask(), await ask()]).toEqual([true, true, false])
      expect(leftOf(await limiter.peek(client))).toEqual({ hour: 8 })
    })

    it('is told the partitions that a request would tell, and which `when` applies', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          policies: [
            hour,
            slidingWindow({ name: 'tenant', quota: 5, window: '1h', partition: (req) => req.get('x-tenant')! }),
            slidingWindow({ name: 'writes', quota: 2, window: '1h', when: (req) => req.method === 'POST' }),
          ],
        }),
      )
      const partitions = { tenant: 'acme' }
      expect(leftOf(await limiter.decide({ client, partitions }))).toEqual({ hour: 9, tenant: 4 })
      expect(leftOf(await limiter.decide({ client, partitions: { tenant: 'other' } }))).toEqual({ hour: 8, tenant: 4 })
      expect(leftOf(await limiter.decide({ client, partitions: { ...partitions, writes: 'key:acme' } }))).toMatchObject(
        { tenant: 3, writes: 1 },
      )
      await expect(limiter.decide({ client })).rejects.toMatchObject({ code: 'RAMPMETER_MISSING_PARTITION' })
      await expect(limiter.decide({ client, partitions: { tenant: '' } })).rejects.toMatchObject({
        code: 'RAMPMETER_INVALID_PARTITION',
      })
      expect(leftOf(await limiter.decide({ client, partitions, cost: 0 }))).toMatchObject({ hour: 7 })

      // The tenant of HTTP is the same tenant.
      const served = await serve(express().use(limiter))
      await served.ask('/', { headers: { 'x-tenant': 'acme' } })
      expect(leftOf(await limiter.decide({ client, partitions, cost: 0 }))).toMatchObject({ tenant: 2 })
    })

    it('counts by address where it is told one', async () => {
      const limiter = opened(rampmeter({ store: await makeStore(), tiers: presetTiers({ perAddress: 3 }), deadline }))
      const human = { id: 'session:7', tier: 'human' } as const
      await expect(limiter.decide({ client: human })).rejects.toMatchObject({ code: 'RAMPMETER_MISSING_PARTITION' })
      for (const address of ['203.0.113.7', 'ip:203.0.113.7', '203.0.113.7']) {
        expect((await limiter.decide({ client: human, partitions: { 'per-address': address } })).admitted).toBe(true)
      }
      const refused = await limiter.decide({ client: human, partitions: { 'per-address': '203.0.113.7' } })
      expect(refused.violated).toEqual(['per-address'])
      expect(Object.keys(leftOf(await limiter.peek(human)))).toEqual(['per-minute', 'per-hour'])
    })
  })

  describe(`limiter.peek ${name}`, () => {
    it('looks and changes nothing', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          policies: [
            hour,
            tokenBucket({ quota: 5, window: '1h' }),
            fixedWindow({ quota: 9, window: '1d', partition: 'global' }),
          ],
        }),
      )
      for (let index = 0; index < 3; index += 1) {
        expect(leftOf(await limiter.peek(client))).toEqual({ hour: 10, 'token-bucket': 5, 'fixed-window': 9 })
      }
      await limiter.decide({ client, cost: 5 })
      const peeked = await limiter.peek(client)
      expect(peeked).toMatchObject({ admitted: false, violated: ['token-bucket'], reason: 'quota' })
      peeked.settle(1)
      peeked.refund()
      await limiter.flush()
      expect(leftOf(await limiter.peek(client))).toEqual({ hour: 5, 'token-bucket': 0, 'fixed-window': 4 })
    })
  })

  describe(`limiter.reset ${name}`, () => {
    it('forgets a client’s counters, and nobody else’s', async () => {
      const limiter = opened(
        rampmeter({
          store: await makeStore(),
          deadline,
          policies: [
            hour,
            slidingLog({ name: 'log', quota: 10, window: '1h' }),
            slidingLog({ name: 'all', quota: 100, window: '1h', partition: 'global' }),
          ],
          routes: { '/wire': { policies: [slidingLog({ name: 'wire', quota: 3, window: '1h' })] } },
        }),
      )
      const own = [slidingLog({ name: 'tool', quota: 3, window: '1h' })]
      const other = { id: 'key:other' }
      for (const each of [client, other]) await limiter.decide({ client: each, policies: own, cost: 3 })
      await limiter.reset(client.id)
      const lookAt = async (one: typeof client) => leftOf(await limiter.decide({ client: one, policies: own, cost: 0 }))
      expect(await lookAt(client)).toEqual({ hour: 10, log: 10, all: 94, tool: 3 })
      expect(await lookAt(other)).toEqual({ hour: 7, log: 7, all: 94, tool: 0 })

      // What stands over is forgotten with it, logs of routes too.
      const served = await serve(express().use(limiter))
      await served.ask('/wire')
      await limiter.reset('ip:127.0.0.1')
      expect((await served.ask('/wire')).headers['ratelimit']).toContain('"wire";r=2')
    })
  })

  describe(`the end of a limiter ${name}`, () => {
    it('is one that it survives, as do requests after it', async () => {
      const limiter = rampmeter({ store: await makeStore(), policies: [hour], deadline })
      const served = await serve(
        express()
          .use(limiter)
          .get('/', (req, res) => void res.json(req.rateLimit)),
      )
      await limiter.ready()
      await askTimes(served, 2)

      await Promise.all([limiter.close(), limiter.close()])
      await limiter.close()

      const replies = await askTimes(served, 11)
      expect(replies[0]).toMatchObject({ status: 200, json: { admitted: true, degraded: true, limits: [] } })
      expect(replies[0]!.headers).not.toHaveProperty('ratelimit')
      expect(replies[0]!.headers).not.toHaveProperty('ratelimit-limit')
      // In its own process it still keeps the limit.
      expect(replies[10]!.status).toBe(503)
      expect(replies[10]!.problem.type).toContain('#temporary-reduced-capacity')
      expect(await limiter.decide({ client })).toMatchObject({ admitted: true, degraded: true })
      await limiter.flush()
    })

    it('is not that of another limiter on the same store', async () => {
      const store = await makeStore()
      const one = rampmeter({ store, policies: [hour], deadline })
      const other = opened(rampmeter({ store, policies: [hour], deadline }))
      await one.decide({ client, cost: 3 })
      await one.close()
      expect(await other.decide({ client })).toMatchObject({ degraded: false, limits: [{ remaining: 6 }] })
      expect(await one.decide({ client })).toMatchObject({ degraded: true })
    })

    it('is not the end of its store, which a new limiter may open again', async () => {
      const store = await makeStore()
      await rampmeter({ store, policies: [hour] }).close()
      const next = opened(rampmeter({ store, policies: [hour], deadline }))
      await next.ready()
      expect(await next.decide({ client })).toMatchObject({ degraded: false })
    })

    it('waits for what was settled before', async () => {
      const store = await makeStore()
      const reader = opened(rampmeter({ store, policies: [hour], deadline }))
      const limiter = rampmeter({ store, policies: [hour], deadline })
      const decision = await limiter.decide({ client })
      decision.settle(8)
      await limiter.close()
      expect(leftOf(await reader.peek(client))).toEqual({ hour: 2 })
    })
  })
}

describe('what is given outside HTTP', () => {
  const limiter = () => opened(rampmeter({ policies: [hour] }))

  it.each([
    undefined,
    null,
    {},
    { client: null },
    { client: {} },
    { client: { id: '' } },
    { client: { id: 7 } },
    { client: { id: '@global' } },
    { client: { id: 'x'.repeat(1025) } },
  ])('must name a client: %j', async (request) => {
    await expect(limiter().decide(request as never)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_CLIENT' })
    const client = (request as { client?: { id?: string } } | null | undefined)?.client
    await expect(limiter().peek(client as never)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_CLIENT' })
    await expect(limiter().reset(client?.id as never)).rejects.toMatchObject({ code: 'RAMPMETER_INVALID_CLIENT' })
  })

  it.each(['gold', 'constructor', '__proto__', 7, null])('must name a tier that there is: %j', async (tier) => {
    const decided = limiter().decide({ client: { id: 'key:a', tier: tier as 'human' } })
    if (tier === null) await expect(decided).resolves.toMatchObject({ client: { tier: 'default' } })
    else await expect(decided).rejects.toMatchObject({ code: 'RAMPMETER_UNKNOWN_TIER' })
  })

  it('must name a tier where there are several', async () => {
    const tiered = opened(rampmeter())
    const mistake = {
      code: 'RAMPMETER_UNKNOWN_TIER',
      message: expect.stringMatching(/given no `tier`.*"human"/) as string,
    }
    await expect(tiered.decide({ client: { id: 'key:a' } })).rejects.toMatchObject(mistake)
    await expect(tiered.peek({ id: 'key:a' })).rejects.toMatchObject(mistake)
  })

  it.each([Number.NaN, -1, 1.5, '5', null])('must have a cost that can be charged: %j', async (cost) => {
    const one = limiter()
    await expect(one.decide({ client: { id: 'key:a' }, cost: cost as number })).rejects.toMatchObject({
      code: 'RAMPMETER_INVALID_COST',
    })
    expect(leftOf(await one.peek({ id: 'key:a' }))).toEqual({ hour: 10 })
  })

  it.each([['none'], [[{}]], [{}], [[null]], [7]])('must have policies that are some: %j', async (policies) => {
    await expect(limiter().decide({ client: { id: 'key:a' }, policies: policies as never })).rejects.toMatchObject({
      code: 'RAMPMETER_INVALID_OPTION',
    })
  })

  it('must not name two policies alike', async () => {
    await expect(limiter().decide({ client: { id: 'key:a' }, policies: [hour] })).rejects.toMatchObject({
      code: 'RAMPMETER_DUPLICATE_POLICY',
    })
  })

  it('must be written as it is called', async () => {
    await expect(limiter().decide({ client: { id: 'key:a' }, costs: 5 } as never)).rejects.toMatchObject({
      code: 'RAMPMETER_UNKNOWN_OPTION',
    })
  })
})
