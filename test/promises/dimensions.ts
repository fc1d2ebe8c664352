// Random limits of the kinds that count by name, afterwards, by the calendar or for a pool, and requests that meet them.

import fc from 'fast-check'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { calendarLimit } from '../../src/policies/calendar.ts'
import type { Charge } from '../../src/stores/store.ts'
import { hourUs, limitOf, minuteUs, secondUs, type Limit } from './histories.ts'

/** A limit, and how a request's claim on it is made. */
export interface Dimension {
  readonly limit: Limit
  /** What is counted by name: a slot for each request, for each session, or the targets it touches. */
  readonly named?: 'requests' | 'sessions' | 'targets'
}

const plain = { liftable: false, shadow: false }

const somePartition = fc.constantFrom('key:one', 'key:one', 'ip:two')

const smallQuota = fc.integer({ min: 1, max: 6 })

export const someSlots: fc.Arbitrary<Dimension> = fc
  .record({
    quota: smallQuota,
    leaseS: fc.constantFrom(1, 2, 30, 900),
    sessions: fc.boolean(),
    partition: somePartition,
  })
  .map(({ quota, leaseS, sessions, partition }) => ({
    named: sessions ? 'sessions' : 'requests',
    limit: {
      ...plain,
      kind: 'concurrency',
      stateId: 0,
      partition,
      windowUs: leaseS * secondUs,
      quota,
      capacity: quota,
      ...(sessions && { untilExpiry: true }),
    },
  }))

export const someTargets: fc.Arbitrary<Dimension> = fc
  .record({ quota: smallQuota, windowUs: fc.constantFrom(1000, secondUs, minuteUs + 1000), partition: somePartition })
  .map(({ quota, windowUs, partition }) => ({
    named: 'targets',
    limit: { ...plain, kind: 'unique-targets', stateId: 0, partition, windowUs, quota, capacity: quota },
  }))

/** Failures, reserved or counted afterwards, and amounts that are charged afterwards. */
const someAfter: fc.Arbitrary<Dimension> = fc
  .record({
    limit: limitOf(['failures', 'token-bucket', 'sliding-window', 'sliding-log', 'fixed-window']),
    after: fc.boolean(),
  })
  .map(({ limit, after }) => ({ limit: { ...limit, after: after || limit.kind !== 'failures' } }))

const someCalendar = fc.oneof(
  fc.constantFrom('1s', '1m', '1h', '1d', '7d', '14d').map((window) => ({ window, align: 'utc' as const })),
  fc
    .oneof(fc.constantFrom(1, 28, 29, 30, 31), fc.integer({ min: 1, max: 31 }))
    .map((day) => ({ window: 'month' as const, align: { day } })),
)

/** Quotas by the calendar, as a policy makes them. */
export const someCalendarQuota: fc.Arbitrary<Dimension> = fc
  .record({
    options: someCalendar,
    quota: fc.oneof(smallQuota, fc.constant(1e6)),
    place: fc.double({ min: 0, max: 1, noNaN: true }),
    partition: somePartition,
  })
  .map(({ options, quota, place, partition }) => {
    const { calendar, windowMs } = fixedWindow({ quota, ...options })
    return {
      limit: {
        ...plain,
        kind: 'fixed-window',
        stateId: 0,
        partition,
        windowUs: windowMs * 1000,
        quota,
        capacity: quota,
        calendar: calendarLimit(calendar!, windowMs, place),
      },
    }
  })

/** The three charges of one tier in a pool that two or three tiers share, for each of them. */
export interface SharedPool {
  readonly tiers: readonly (readonly [own: Limit, common: Limit, demand: Limit])[]
}

export const poolKinds = ['token-bucket', 'sliding-window', 'sliding-log', 'fixed-window'] as const

export function sharedPool(kinds: readonly (typeof poolKinds)[number][] = poolKinds): fc.Arbitrary<SharedPool> {
  return fc
    .record({
      kind: fc.constantFrom(...kinds),
      windowUs: fc.constantFrom(secondUs, minuteUs, hourUs),
      own: fc.integer({ min: 1, max: 5 }),
      common: fc.integer({ min: 1, max: 20 }),
      burst: fc.option(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 20 })), { nil: undefined }),
      priorities: fc.array(fc.nat(2), { minLength: 2, maxLength: 3 }),
    })
    .map(({ kind, windowUs, own, common, burst, priorities }) => {
      const bursts = kind === 'token-bucket' ? burst : undefined
      const base = { ...plain, partition: '@pool:shared', windowUs }
      return {
        tiers: priorities.map((priority, seat) => {
          const higher = priorities.flatMap((other, index) => (other > priority ? [index] : []))
          const seating = { seats: priorities.length, seat, higher }
          const ofOwn = { quota: own, capacity: bursts?.[0] ?? own }
          const ofCommon = { quota: common, capacity: bursts?.[1] ?? common }
          return [
            { ...base, kind, stateId: 0xaaaa0000 + seat, role: 'own', seating, ...ofOwn },
            { ...base, kind, stateId: 0xbbbb0000, role: 'common', seating, ...ofCommon },
            { ...base, kind: 'pool-demand', stateId: 0xcccc0000, role: 'demand', seating, ...ofCommon },
          ] as const
        }),
      }
    })
}

/** One to three dimensions that are decided together. */
export const someDimensions: fc.Arbitrary<Dimension[]> = fc
  .array(
    fc.oneof(
      someSlots,
      someTargets,
      someAfter,
      someCalendarQuota,
      limitOf().map((limit) => ({ limit })),
    ),
    { minLength: 1, maxLength: 3 },
  )
  .map((dimensions) =>
    dimensions.map(({ limit, ...rest }, index) => ({ ...rest, limit: { ...limit, stateId: 0xfffffff0 + index } })),
  )

/** What a request asks for, of every kind. */
export interface Wish {
  /** A part of the capacity, in thousandths, or whole units where it is negative. */
  readonly part: number
  /** Which of the sessions, and from which target on how many. */
  readonly name: number
  readonly count: number
}

export const someWish: fc.Arbitrary<Wish> = fc.record({
  part: fc.oneof(fc.integer({ min: -3, max: 0 }), fc.nat(1000)),
  name: fc.nat(9),
  count: fc.nat(4),
})

/** The charge of a request; `number` tells requests apart. */
export function claim({ limit, named }: Dimension, { part, name, count }: Wish, number: number): Charge {
  const members =
    named === undefined
      ? undefined
      : named === 'requests'
        ? [`request-${number}`]
        : named === 'sessions'
          ? [`session-${name % 5}`]
          : Array.from({ length: count }, (_, index) => `target-${(name + index) % 12}`)
  if (members !== undefined) return { ...limit, members, cost: members.length }
  return { ...limit, cost: amount(limit, part) }
}

/** The charges of a request of one tier in a pool. */
export function claimOfPool(tier: SharedPool['tiers'][number], cost: number): Charge[] {
  return tier.map((limit) => ({ ...limit, cost }))
}

function amount({ capacity }: Limit, part: number): number {
  return part <= 0 ? Math.min(-part, capacity) : Math.floor((capacity * part) / 1000)
}

/** Just before a moment at which some calendar turns over: midnights, month ends, a leap day. */
export const turningPoints: readonly number[] = [
  Date.UTC(2026, 0, 31),
  Date.UTC(2026, 1, 1),
  Date.UTC(2026, 1, 28),
  Date.UTC(2026, 2, 1),
  Date.UTC(2026, 3, 30),
  Date.UTC(2027, 0, 1),
  Date.UTC(2028, 1, 28),
  Date.UTC(2028, 1, 29),
  Date.UTC(2028, 2, 1),
  Date.UTC(2028, 11, 31),
].map((ms) => ms * 1000)
