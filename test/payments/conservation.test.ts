// Money is neither made nor lost: granted = available + held + spent − refunded, at every moment, on both stores, whatever happens
// at once and however often it is told. And both stores say the same.

import fc from 'fast-check'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { creditLedger } from '../../src/payments/credit-ledger.ts'
import { internalsOf, type CreditLedger } from '../../src/payments/ledger.ts'
import { memoryStore } from '../../src/stores/memory.ts'
import { redisStore } from '../../src/stores/redis/redis-store.ts'
import type { TakeBack } from '../../src/stores/ledger.ts'
import type { Store } from '../../src/stores/store.ts'
import { startRedisWithClock, type RedisWithClock } from '../redis.ts'

const account = 'key:acme'

type Step =
  | { readonly does: 'grant' | 'revoke'; readonly credits: number; readonly event: number }
  | { readonly does: 'hold'; readonly credits: number; readonly ttl: number; readonly event?: number | undefined }
  | { readonly does: 'charge'; readonly credits: number }
  | { readonly does: 'capture' | 'refund'; readonly which: number; readonly credits: number | undefined }
  | { readonly does: 'release' | 'cancel'; readonly which: number }
  | { readonly does: 'settle'; readonly which: number; readonly total: number }
  | { readonly does: 'buy'; readonly credits: number; readonly event: number; readonly purchase: number }
  | {
      readonly does: 'take back'
      readonly purchase: number
      readonly by: number
      readonly how: TakeBack
      readonly part: number
      readonly price: number
    }
  | { readonly does: 'wait'; readonly ms: number }

const credits = fc.integer({ min: 1, max: 60 })
const which = fc.nat({ max: 5 })
const some = fc.option(credits, { nil: undefined })
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ does: fc.constant('grant' as const), credits, event: fc.nat({ max: 5 }) }) },
  fc.record({ does: fc.constant('revoke' as const), credits, event: fc.nat({ max: 3 }) }),
  {
    weight: 3,
    arbitrary: fc.record({
      does: fc.constant('hold' as const),
      credits: fc.oneof(credits, fc.constantFrom(3, 4)),
      ttl: fc.integer({ min: 1, max: 50 }),
      event: fc.option(fc.nat({ max: 2 }), { nil: undefined }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ does: fc.constant('charge' as const), credits }) },
  {
    weight: 2,
    arbitrary: fc.record({ does: fc.constantFrom('capture' as const, 'refund' as const), which, credits: some }),
  },
  { weight: 2, arbitrary: fc.record({ does: fc.constantFrom('release' as const, 'cancel' as const), which }) },
  fc.record({ does: fc.constant('settle' as const), which, total: fc.nat({ max: 90 }) }),
  {
    weight: 2,
    arbitrary: fc.record({
      does: fc.constant('buy' as const),
      credits,
      event: fc.nat({ max: 5 }),
      purchase: fc.nat({ max: 2 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      does: fc.constant('take back' as const),
      purchase: fc.nat({ max: 2 }),
      by: fc.nat({ max: 2 }),
      how: fc.constantFrom<TakeBack>('most', 'once', 'returned'),
      part: fc.nat({ max: 1200 }),
      price: fc.integer({ min: 1, max: 1000 }),
    }),
  },
  fc.record({ does: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 40 }) }),
)

/** A ledger under test, with charges of decisions besides, and its clock. */
interface Subject {
  readonly ledger: CreditLedger
  take(step: Step): Promise<string>
  close(): Promise<void>
}

function subjectOn(store: Store, wait: (ms: number) => void): Subject {
  const ledger = creditLedger({ store, acceptLoss: true, history: 100 })
  const { newCharge, nameOf, cancel, settle, takeBack } = internalsOf(ledger)
  const handle = store.open({ nameOf })
  const charges: string[] = []

  async function run(one: Step): Promise<unknown> {
    const chargeOf = (index: number): string => charges[charges.length - 1 - index] ?? newCharge(account)
    switch (one.does) {
      case 'grant':
      case 'revoke': {
        const { balance } = await ledger[one.does](account, one.credits, { idempotencyKey: `${one.does} ${one.event}` })
        return balance
      }
      case 'hold': {
        const key = one.event === undefined ? {} : { idempotencyKey: `hold ${one.event}` }
        const { id, balance } = await ledger.hold(account, one.credits, { ttl: one.ttl, ...key })
        charges.push(id)
        return balance
      }
      case 'charge': {
        const id = newCharge(account)
        await handle.ready()
        const { admitted } = await handle.decide({
          charges: [creditCharge(nameOf(account), id, one.credits)],
          undo: [],
          commit: true,
        })
        if (admitted) charges.push(id)
        return admitted
      }
      case 'capture':
      case 'refund':
        return await ledger[one.does](chargeOf(one.which), one.credits)
      case 'release':
        return await ledger.release(chargeOf(one.which))
      case 'cancel':
        return await cancel(chargeOf(one.which))
      case 'settle':
        return await settle(chargeOf(one.which), one.total)
      case 'buy': {
        const purchase = `pi_${one.purchase}`
        const { balance } = await ledger.grant(account, one.credits, { idempotencyKey: `buy ${one.event}`, purchase })
        return balance
      }
      case 'take back': {
        const { how, part, price } = one
        return await takeBack(account, `pi_${one.purchase}`, {
          by: `dp_${one.by}`,
          how,
          part,
          price,
          ref: '',
          early: one.by === 0,
        })
      }
      case 'wait':
        return wait(one.ms)
    }
  }

  return {
    ledger,
    take: (one) =>
      run(one).then(
        (answer) => JSON.stringify(answer) ?? 'done',
        (error: { code?: string; message: string }) => error.code ?? error.message,
      ),
    async close() {
      await ledger.close()
      await handle.close()
    },
  }
}

function creditCharge(
  name: string,
  id: string,
  cost: number,
): Parameters<ReturnType<Store['open']>['decide']>[0]['charges'][0] {
  return {
    kind: 'credits',
    stateId: 1,
    partition: `@account:${name}`,
    windowUs: 1,
    quota: 1e12,
    capacity: 1e12,
    cost,
    members: [id, '0', '100'],
    liftable: false,
    shadow: false,
  }
}

async function expectConserved(ledger: CreditLedger): Promise<void> {
  const { granted, available, held, spent, refunded, consistent, history } = await ledger.audit(account)
  expect(granted).toBe(available + held + spent - refunded)
  expect({ consistent, history }).toEqual({ consistent: true, history: { granted, available, held, spent, refunded } })
  expect(held).toBeGreaterThanOrEqual(0)
}

let server: RedisWithClock
let redis: Redis
let runs = 0

beforeAll(async () => {
  server = await startRedisWithClock()
  redis = new Redis(server.url)
}, 60_000)

afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

function onRedis(): Subject {
  runs += 1
  return subjectOn(redisStore(redis, { prefix: `conserve-${runs}:` }), (ms) => server.advanceUs(ms * 1000))
}

function inMemory(): Subject {
  let now = Date.UTC(2026, 0, 1)
  return subjectOn(memoryStore({ now: () => now }), (ms) => void (now += ms))
}

describe.each([
  ['in memory', inMemory],
  ['on Redis', onRedis],
] as const)('a ledger %s', (_, makeSubject) => {
  it('conserves credits under any history, many steps at once, each told twice', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(step, { minLength: 1, maxLength: 8 }), { maxLength: 12 }), async (rounds) => {
        const subject = makeSubject()
        try {
          for (const round of rounds) {
            await Promise.all([...round, ...round].map((one) => subject.take(one)))
            await expectConserved(subject.ledger)
          }
        } finally {
          await subject.close()
        }
      }),
      { numRuns: 40 },
    )
  })

  it('keeps the sum of what it trims from its history, and can be rebuilt from it', { timeout: 60_000 }, async () => {
    const subject = makeSubject()
    await subject.ledger.grant(account, 1000)
    for (let nth = 0; nth < 320; nth += 1) await subject.take({ does: 'charge', credits: 1 })
    await expectConserved(subject.ledger)
    const entries = await subject.ledger.history(account)
    expect(entries.length).toBeLessThanOrEqual(201)
    expect(entries[0]).toMatchObject({ type: 'checkpoint' })
    const sum = entries.reduce((total, { available }) => total + available, 0)
    expect(sum).toBe(680)
    expect(await subject.ledger.balance(account)).toEqual({ available: 680, held: 0 })
    expect((await subject.ledger.history(account, { limit: 3 })).length).toBe(3)
    await subject.close()
  })
})

it.each([
  ['in memory', inMemory],
  ['on Redis', onRedis],
] as const)(
  'tells %s of a hold that fell back in the meantime, also where nobody asked before',
  async (_, makeSubject) => {
    const subject = makeSubject()
    await subject.ledger.grant(account, 10)
    await subject.take({ does: 'hold', credits: 10, ttl: 5 })
    await subject.take({ does: 'wait', ms: 6 })
    const entries = await subject.ledger.history(account)
    expect(entries.map(({ type }) => type)).toEqual(['grant', 'hold', 'expire'])
    // Captured after its deadline, nothing is moved.
    expect(await subject.take({ does: 'capture', which: 0, credits: 4 })).toBe('RAMPMETER_HOLD_ENDED')
    expect(await subject.ledger.balance(account)).toEqual({ available: 10, held: 0 })
    await subject.close()
  },
)

it('decides the same in memory and on Redis', { timeout: 120_000 }, async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
      const [one, other] = [inMemory(), onRedis()]
      try {
        for (const next of steps) expect([next, await one.take(next)]).toEqual([next, await other.take(next)])
        const strip = (entries: Awaited<ReturnType<CreditLedger['history']>>): unknown[] =>
          entries.map(({ type, available, held }) => ({ type, available, held }))
        expect(strip(await one.ledger.history(account))).toEqual(strip(await other.ledger.history(account)))
      } finally {
        await Promise.all([one.close(), other.close()])
      }
    }),
    { numRuns: 60 },
  )
})

it('is made whole from its history where its totals are gone', async () => {
  const subject = onRedis()
  await subject.ledger.grant(account, 500)
  await subject.take({ does: 'charge', credits: 40 })
  const { id } = await subject.ledger.hold(account, 60, { ttl: '1h' })
  const name = internalsOf(subject.ledger).nameOf(account)
  await redis.del(`conserve-${runs}:ledger1:{${name}}`)
  expect(await subject.ledger.balance(account)).toEqual({ available: 0, held: 0 })
  expect(await subject.ledger.audit(account)).toMatchObject({ consistent: false })

  await subject.ledger.audit(account, { rebuild: true })
  expect(await subject.ledger.balance(account)).toEqual({ available: 400, held: 60 })
  await subject.ledger.capture(id, 10)
  await expectConserved(subject.ledger)
  await subject.close()
})
