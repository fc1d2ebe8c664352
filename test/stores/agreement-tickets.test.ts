// With tickets, too, the memory store and Redis answer the same: random histories of those who show theirs early, in time, late,
// twice or not at all, under limits that change.

import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Charge, DecisionRequest, StoreDecision, TicketTerms } from '../../src/stores/store.ts'
import {
  costOf,
  memoryStage,
  minuteUs,
  mixOf,
  mixWithExtra,
  pauseUs,
  redisStage,
  secondUs,
  smallStep,
  someQuota,
  someStep,
  type Limit,
} from '../promises/histories.ts'

let onRedis: Awaited<ReturnType<typeof redisStage>>
const inMemory = memoryStage()

beforeAll(async () => {
  onRedis = await redisStage()
})
afterAll(async () => {
  await onRedis.stop()
})

const someRequest = fc.record({
  does: fc.constant('ask' as const),
  step: fc.oneof(smallStep, someStep),
  client: fc.nat(3),
  looks: fc.nat(9).map((chance) => chance === 0),
  asksForTickets: fc.nat(9).map((chance) => chance > 0),
})

const someReturn = fc.record({
  does: fc.constant('return' as const),
  which: fc.nat(80),
  shiftUs: fc.oneof(
    fc.integer({ min: -3 * secondUs, max: 4 * secondUs }),
    fc.constantFrom(-1, 0, 2_000_999, 2_001_000),
  ),
})

const someChange = fc.record({ does: fc.constant('change' as const), whose: fc.nat(3), quota: someQuota })

const someEvents = fc.array(
  fc.oneof(
    { weight: 12, arbitrary: someRequest },
    { weight: 6, arbitrary: someReturn },
    { weight: 1, arbitrary: someChange },
  ),
  { minLength: 1, maxLength: 120, size: 'max' },
)

const someTerms = fc.record({
  share: fc.oneof(fc.constantFrom(0.25, 1), fc.double({ min: 0.01, max: 1, noNaN: true })),
  horizonUs: fc.constantFrom(secondUs, minuteUs, 60 * minuteUs),
})

function withQuota(limit: Limit, quota: number): Limit {
  if (limit.kind === 'first-minutes' || limit.kind === 'token-bucket') return { ...limit, quota }
  return { ...limit, quota, capacity: quota }
}

it('answers the same on both, to the microsecond, whoever shows which ticket when', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.oneof(mixOf(undefined, 3), mixWithExtra()),
      someTerms,
      someEvents,
      async (mix, terms, events) => {
        const both = [inMemory.fresh(), onRedis.fresh()] as const
        let limits = mix
        let id = 0
        const issued: { charges: readonly Charge[]; id: number; slotUs: number; client: number }[] = []

        const decide = async (request: DecisionRequest): Promise<StoreDecision> => {
          const [expected, answered] = [await both[0].store.decide(request), await both[1].store.decide(request)]
          expect(answered).toEqual(expected)
          return answered
        }
        const ask = async (charges: readonly Charge[], client: number, shown: TicketTerms['shown'], commit = true) => {
          id += 1
          const decision = await decide({ charges, undo: [], commit, tickets: { ...terms, id, client, shown } })
          const slotUs = decision.ticket?.reservedUs
          if (slotUs !== undefined) issued.push({ charges, id, slotUs, client })
        }

        for (const event of events) {
          if (event.does === 'change') {
            const whose = event.whose % limits.length
            limits = limits.map((limit, index) => (index === whose ? withQuota(limit, event.quota) : limit))
          } else if (event.does === 'return') {
            const ticket = issued[event.which % Math.max(1, issued.length)]
            if (ticket === undefined) continue
            const atUs = Math.max(both[0].timeUs(), ticket.slotUs + event.shiftUs)
            for (const one of both) one.setTimeUs(atUs)
            // Its limits may have changed since.
            const charges = ticket.charges.map((charge) => {
              const now = limits.find(({ stateId }) => stateId === charge.stateId)!
              return { ...charge, quota: now.quota, capacity: now.capacity }
            })
            await ask(charges, ticket.client, { id: ticket.id, slotUs: ticket.slotUs })
          } else {
            const { step, client, looks, asksForTickets } = event
            for (const one of both) one.advanceUs(pauseUs(step.pause, limits))
            const charges = limits.map((limit, index): Charge => {
              const cost = costOf(step.asks[index % step.asks.length]!, limit)
              const holder = limit.partition === 'ip:two' ? client + 1 : undefined
              return { ...limit, cost: limit.kind === 'first-minutes' ? Math.max(1, cost) : cost, holder }
            })
            if (asksForTickets) await ask(charges, client + 1, undefined, !looks)
            else await decide({ charges, undo: [], commit: !looks })
          }
        }
      },
    ),
    onRedis.runs(3000),
  )
})
