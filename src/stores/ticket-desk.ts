import type { Algorithm } from '../policies/algorithm.ts'
import {
  afterAll,
  asRuns,
  dropLate,
  hasLapsed,
  lapseUs,
  leavesRoom,
  mayReserve,
  reservationOf,
  reservedUnits,
  withReservation,
  withoutReservation,
  type Reservations,
} from '../policies/reservations.ts'
import { reservedUs, slotFor, type Run } from '../policies/schedule.ts'
import type { PolicyKind } from '../policy.ts'
import type { Charge, DecisionRequest, ShownTicket, TicketTerms } from './store.ts'
import type { Counters } from './together.ts'

/** What reservations have to do with one decision. */
export interface TicketDesk {
  /** What became of the ticket that was shown, as far as its time and its reservations go. */
  readonly shown: ShownTicket | undefined
  /** What of a charge's counter is reserved, as runs. */
  runsOf(index: number): readonly Run[]
  /** How many units of a charge's counter are reserved. */
  unitsOf(index: number): number
  /** Whether a refusal may be given a slot here, and how far ahead. */
  readonly reservesUntilUs: number | undefined
  reserve(slot: number): void
  /** Takes out the reservations of the ticket that was shown. */
  redeem(): void
}

/**
 * Opens the reservations beside the counters of a request, and tells in `waits` what they mean for it: whoever shows a ticket whose
 * time is there need not wait for what it reserved; whoever shows one early waits for its slot; everybody else waits until there is
 * room besides all that is reserved.
 *
 * @param waits how long each charge has to wait by itself, in µs
 */
export function openDesk(
  { charges, commit, promise }: DecisionRequest,
  terms: TicketTerms,
  now: number,
  counters: Counters,
  algorithms: Readonly<Record<PolicyKind, Algorithm<unknown>>>,
  states: readonly unknown[],
  waits: number[],
): TicketDesk {
  const books = charges.map((charge): Reservations | undefined => {
    if (!isReservable(charge, algorithms[charge.kind])) return undefined
    const stored = counters.reservations(charge)
    const book = dropLate(stored, charge.windowUs, now)
    if (commit && book !== stored) counters.keepReservations(charge, book)
    return book
  })
  const isForAll = charges.every((charge, index) => books[index] !== undefined || isFree(charge))
  const shown = terms.shown === undefined ? undefined : lookUp(books, terms.shown, isForAll, now)
  const runs = new Map<number, readonly Run[]>()
  const runsOf = (index: number): readonly Run[] => {
    let known = runs.get(index)
    if (known === undefined) {
      known = asRuns(books[index]!)
      runs.set(index, known)
    }
    return known
  }

  charges.forEach((charge, index) => {
    const book = books[index]
    if (book === undefined) return
    if (shown === 'kept') waits[index] = 0
    else if (shown === 'early') waits[index] = terms.shown!.slotUs - now
    else if (book.kept.length > 0 && waits[index] !== Infinity) {
      const room = algorithms[charge.kind].room!(states[index], charge, now)
      if (waits[index] === 0 && leavesRoom(room, book, now, charge.cost)) return
      const from = now + Math.max(1, waits[index]!)
      const slot = slotFor(room, { runs: runsOf(index) }, from, charge.cost)
      waits[index] = (slot === Infinity ? afterAll(room, book, from, charge.cost) : slot) - now
    }
  })

  return {
    shown,
    runsOf: (index) => (books[index]?.kept.length ? runsOf(index) : []),
    unitsOf: (index) => (books[index] === undefined ? 0 : reservedUnits(books[index])),
    reservesUntilUs:
      commit &&
      promise === undefined &&
      shown !== 'early' &&
      shown !== 'kept' &&
      isForAll &&
      isWithin(charges, books, terms, now)
        ? now + terms.horizonUs
        : undefined,
    reserve(slot) {
      const { id, client } = terms
      keepAll((book, { cost }) => withReservation(book, { slot, cost, id, client }))
    },
    redeem() {
      keepAll((book) => withoutReservation(book, terms.shown!.id))
    },
  }

  function keepAll(change: (book: Reservations, charge: Charge) => Reservations): void {
    charges.forEach((charge, index) => {
      const book = books[index]
      if (book === undefined) return
      const changed = change(book, charge)
      books[index] = changed
      counters.keepReservations(charge, changed)
    })
  }
}

/** Where it is known when room comes back, and for how much. Pools that tiers share, and quotas by the calendar, reserve nothing. */
function isReservable({ kind, role, cost, after, calendar, shadow }: Charge, algorithm: Algorithm<unknown>): boolean {
  if (kind === 'first-minutes' || shadow || after === true || cost === 0) return false
  return algorithm.room !== undefined && calendar === undefined && (role === undefined || role === 'whole')
}

/** Whether a charge has no say in when a ticket is good. A proof is a new one with each request. */
function isFree({ kind, cost, shadow, after }: Charge): boolean {
  if (kind === 'first-minutes' || kind === 'single-use' || kind === 'standing') return true
  return shadow || (cost === 0 && after !== true)
}

function lookUp(
  books: readonly (Reservations | undefined)[],
  { id, slotUs }: NonNullable<TicketTerms['shown']>,
  isForAll: boolean,
  now: number,
): ShownTicket {
  let count = 0
  for (const book of books) {
    if (book === undefined) continue
    count += 1
    const found = reservationOf(book, id)
    if (found === undefined || found.slot !== slotUs) return slotUs + reservedUs <= now ? 'lapsed' : 'used'
  }
  if (count === 0 || !isForAll) return 'used'
  return now < slotUs ? 'early' : 'kept'
}

/** Whether every policy may reserve so much more, and the client has let none lapse for a window, the shortest of them. */
function isWithin(
  charges: readonly Charge[],
  books: readonly (Reservations | undefined)[],
  { share, client }: TicketTerms,
  now: number,
): boolean {
  let shortest = Infinity
  charges.forEach(({ windowUs }, index) => {
    if (books[index] !== undefined) shortest = Math.min(shortest, lapseUs(windowUs))
  })
  if (shortest === Infinity || share === 0) return false
  return charges.every(({ cost, quota, holder }, index) => {
    const book = books[index]
    if (book === undefined) return true
    if (hasLapsed(book, client, shortest, now)) return false
    return mayReserve(book, cost, Math.floor(share * quota), holder === undefined ? undefined : client)
  })
}
