import { setTimeout as sleep } from 'node:timers/promises'
import { readStanding } from '../../policies/standing.ts'
import type { Charge, Correction, DecisionRequest, StoreDecision } from '../store.ts'
import { throttled } from '../together.ts'
import { decideAcrossSlots, type AskSlot, type Slots } from './across-slots.ts'

/** How long a slot is taken to be on the move after a node has said so, in ms: meanwhile nobody asks in vain first. */
const movesForMs = 1000

/**
 * Whether a node turned a call away because it names several keys, and not all of them are there, while their slot moves to
 * another master. It did not run.
 */
export function isMoving(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('TRYAGAIN ')
}

/** The slots that move, as far as calls have met it. */
export class MovingSlots {
  /** Until when, by `performance.now()`. */
  readonly #until = new Map<number, number>()

  note(slot: number): void {
    this.#until.set(slot, performance.now() + movesForMs)
  }

  has(slot: number): boolean {
    if (this.#until.size === 0) return false
    const until = this.#until.get(slot)
    if (until === undefined) return false
    if (performance.now() < until) return true
    this.#until.delete(slot)
    return false
  }
}

/**
 * Asks a slot in one call; while it moves, in one call for each key. Of a key that is there or nowhere a node answers, and sends on
 * whoever asks for one that has gone: only a call of several keys cannot be answered.
 */
export function askWhereItMoves(slots: Slots, moving: MovingSlots): AskSlot {
  const { slotOf, ask } = slots
  // A log and its entries are two keys for all that. They may be parted for the moment in which one goes after the other.
  const apart = {
    ...slots,
    ask: async (one: readonly DecisionRequest[]) => await untilMoved(() => ask(one), decisions),
  }
  return async (requests) => {
    const partition = partitionOf(requests[0]!)
    if (partition === undefined) return await ask(requests)
    const slot = slotOf(partition)
    if (!moving.has(slot)) {
      try {
        return await ask(requests)
      } catch (error) {
        if (!isMoving(error)) throw error
        moving.note(slot)
      }
    }
    const made: StoreDecision[] = []
    // One after the other, as in one call.
    for (const request of requests) made.push(await decideApart(request, apart))
    return made
  }
}

function partitionOf({ charges, undo }: DecisionRequest): string | undefined {
  return (charges[0] ?? undo[0]?.charge)?.partition
}

/**
 * Decides by calls of one key: first the client's standing, which is only read and may cut the others; then the counters and each
 * proof, all at once, all or none as if they were in slots of their own.
 */
async function decideApart(request: DecisionRequest, slots: Slots): Promise<StoreDecision> {
  const { ask } = slots
  const byKey: Slots = { ...slots, groupOf: keyOf }
  // It was refused by others already: what is wanted is a time in the retry schedules.
  if (typeof request.promise === 'object') {
    return (await ask([{ ...request, charges: request.charges.filter(hasSchedule) }]))[0]!
  }
  const standing = request.charges.at(-1)
  if (standing?.kind !== 'standing') return await decideAcrossSlots(request, byKey)

  const stood = (await ask([{ charges: [standing], undo: [], commit: false, promise: false }]))[0]!
  const outcome = stood.outcomes[0]!
  const charges = chargesLeft(request.charges, readStanding(outcome, standing.standing!).step !== 'allow')
  if (charges.length === 0 && request.undo.length === 0) return stood
  if (outcome.verdict !== 'refused') {
    const { outcomes, ...rest } = await decideAcrossSlots({ ...request, charges }, byKey)
    return { ...rest, outcomes: [...outcomes, outcome] }
  }
  if (request.commit && request.undo.length > 0) {
    await decideAcrossSlots({ charges: [], undo: request.undo, commit: true }, byKey)
  }
  const looking = { ...request, charges, undo: [], commit: false }
  const { outcomes, nowUs, ticket } = charges.length === 0 ? stood : await decideAcrossSlots(looking, byKey)
  const all = charges.length === 0 ? [outcome] : [...outcomes, outcome]
  return { admitted: false, nowUs, retryAfterUs: null, outcomes: all, ...(ticket && { ticket }) }
}

/** The charges but the standing: where that throttles, a part of the client's own, and no extra lifts what it leaves. */
function chargesLeft(charges: readonly Charge[], isAbove: boolean): readonly Charge[] {
  const { enforce, share } = charges.at(-1)!.standing!
  if (!enforce || !isAbove || share === 1000) return charges.slice(0, -1)
  return throttled(charges, share)
    .slice(0, -1)
    .map((charge) => ({ ...charge, liftable: false, base: undefined }))
}

/** A client's standing and a proof are keys of their own; of all else the partition's is one. */
function keyOf({ kind, partition, members }: Charge): string {
  return kind === 'single-use' ? `${partition} ${members![0]}` : partition
}

function hasSchedule({ kind }: Charge): boolean {
  return kind !== 'standing' && kind !== 'single-use'
}

/** Corrections of one slot, apart by the key they are for, in their order. */
export function correctionsByKey(corrections: readonly Correction[]): Correction[][] {
  const byKey = new Map<string, Correction[]>()
  for (const correction of corrections) {
    const key = keyOf(correction.charged.charge)
    const others = byKey.get(key)
    if (others === undefined) byKey.set(key, [correction])
    else others.push(correction)
  }
  return [...byKey.values()]
}

/** How often a call is made, and how long apart, in ms. */
interface Patience {
  readonly mostTries: number
  readonly pauseMs: number
}

/** A request waits, by a deadline; a person may wait until the slot has moved. */
const decisions: Patience = { mostTries: 4, pauseMs: 10 }
const people: Patience = { mostTries: 10, pauseMs: 200 }

/** Makes a call of several keys, again while their slot moves: it has not run. */
export async function untilMoved<T>(call: () => Promise<T>, { mostTries, pauseMs }: Patience = people): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await call()
    } catch (error) {
      if (!isMoving(error) || tries === mostTries) throw error
    }
    await sleep(pauseMs, undefined, { ref: false })
  }
}
