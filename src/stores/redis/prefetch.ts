import { LRUCache } from 'lru-cache'
import type { Charge, ChargeOutcome, Correction, DecisionRequest, OpenStore, StoreDecision } from '../store.ts'

/** Of so many counters units are held at a time; those that were asked for last. */
const mostCounters = 1000

/** Once so much of what was taken is left, as a share, the next is taken: no request waits for it. */
const takeAnewAt = 0.25

/** Units that were charged at once, of which this process spends one after the other. */
interface Held {
  readonly charge: Charge
  /** What the store said when they were charged. */
  readonly outcome: ChargeOutcome
  /** When that was, by the store's clock. */
  readonly chargedAtUs: number
  /** When the store was asked for them, and until when they may be spent, by this process's clock, in ms. */
  readonly sentAt: number
  readonly endsAt: number
  left: number
}

interface Counter {
  readonly partition: string
  /** The oldest first. */
  held: Held[]
  isTaking: boolean
  /** Nothing is taken before, since there was no room. */
  notBefore: number
}

/** What was spent of one charge of a request. */
interface Spent {
  readonly held: Held
  readonly cost: number
}

/** The clock of this process, in ms, and its timers. */
export interface ProcessClock {
  readonly now: () => number
  /** Does something later, without keeping the process alive. */
  readonly after: (ms: number, act: () => void) => void
}

const processClock: ProcessClock = {
  now: () => performance.now(),
  after: (ms, act) => void setTimeout(act, ms).unref(),
}

/**
 * A store that takes a part of a hot quota at once, where a charge says so (`prefetch`), and spends it in this process: such a
 * charge is then left out of what the store is asked. What is not spent in time is given back.
 *
 * Nothing is admitted that the store has not charged before; price.ts sees to it that what is spent later than it was charged
 * still counts for a whole window. A refusal is always the store's, by all of its charges: so its wait is promised by all.
 *
 * @param store its methods need no `this`
 */
export function prefetching(store: OpenStore, { now, after }: ProcessClock = processClock): OpenStore {
  let closed = false
  const counters = new LRUCache<string, Counter>({
    max: mostCounters,
    dispose: ({ held }) => held.forEach((one) => void giveBack(one)),
  })

  /** Spends what a request costs, where enough is held; the place of each charge has what was spent for it. */
  function spend(charges: readonly Charge[]): (Spent | undefined)[] | undefined {
    let spent: (Spent | undefined)[] | undefined
    charges.forEach((charge, index) => {
      if (charge.prefetch === undefined || charge.cost === 0) return
      const counter = counterOf(charge)
      const held = counter.held.find((one) => one.left >= charge.cost && one.endsAt > now() && isSameLimit(one, charge))
      if (held !== undefined) {
        held.left -= charge.cost
        spent ??= charges.map(() => undefined)
        spent[index] = { held, cost: charge.cost }
      }
      const left = counter.held.reduce((sum, one) => sum + one.left, 0)
      if (left <= charge.prefetch.units * takeAnewAt) void take(counter, charge)
    })
    return spent
  }

  function counterOf({ partition, stateId }: Charge): Counter {
    const key = `${stateId}:${partition}`
    let counter = counters.get(key)
    if (counter === undefined) {
      counter = { partition, held: [], isTaking: false, notBefore: -Infinity }
      counters.set(key, counter)
    }
    return counter
  }

  async function take(counter: Counter, charge: Charge): Promise<void> {
    const { units, ttlMs } = charge.prefetch!
    const sentAt = now()
    if (counter.isTaking || closed || sentAt < counter.notBefore) return
    counter.isTaking = true
    // Where there is no room, or no answer, the requests find out by themselves.
    counter.notBefore = sentAt + ttlMs
    const all = { ...charge, cost: units }
    try {
      const { outcomes, nowUs } = await store.decide({ charges: [all], undo: [], commit: true, promise: false })
      const [outcome] = outcomes as [ChargeOutcome]
      if (outcome.verdict !== 'fits') return
      // What a window counts that ends sooner is not spent in the next.
      const lastsMs = charge.kind === 'fixed-window' ? Math.min(ttlMs, outcome.resetUs / 1000) : ttlMs
      const chargedAtUs = outcome.atUs ?? nowUs
      const held = { charge: all, outcome, chargedAtUs, sentAt, endsAt: sentAt + lastsMs, left: units }
      // What is used up is only waited for.
      counter.held = [...counter.held.filter(({ left }) => left > 0), held]
      counter.notBefore = -Infinity
      if (closed) await end(counter, held)
      else after(Math.max(0, held.endsAt - now()), () => void end(counter, held))
    } catch {
      // What may have been charged all the same counts until it leaves its window.
    } finally {
      counter.isTaking = false
    }
  }

  async function end(counter: Counter, held: Held): Promise<void> {
    counter.held = counter.held.filter((one) => one !== held)
    await giveBack(held)
  }

  /** Gives back what was not spent. If that fails, it counts until it leaves its window. */
  async function giveBack(held: Held): Promise<void> {
    const { left } = held
    held.left = 0
    if (left > 0) await store.settle([unspent(held, left)]).catch(() => {})
  }

  /** What a request did not need after all can be spent by another, or else is given back. */
  function putBack(spent: readonly (Spent | undefined)[]): void {
    const corrections: Correction[] = []
    for (const one of spent) {
      if (one === undefined) continue
      if (one.held.endsAt > now() && !closed) one.held.left += one.cost
      else corrections.push(unspent(one.held, one.cost))
    }
    if (corrections.length > 0) store.settle(corrections).catch(() => {})
  }

  async function decideHolding(
    request: DecisionRequest,
    spent: readonly (Spent | undefined)[],
    caller: Parameters<OpenStore['decide']>[1],
  ): Promise<StoreDecision> {
    const charges = request.charges.filter((_, index) => spent[index] === undefined)
    const isAsked = charges.length + request.undo.length > 0
    try {
      const decision = isAsked ? await store.decide({ ...request, charges }, caller) : ofNothing(spent)
      if (decision.admitted) return { ...decision, outcomes: merged(spent, decision) }
    } catch (error) {
      putBack(spent)
      throw error
    }
    putBack(spent)
    return await store.decide(request, caller)
  }

  /** What the store would say of a request without charges: its time, as far as it is known here. */
  function ofNothing(spent: readonly (Spent | undefined)[]): StoreDecision {
    const { held } = spent.find((one) => one !== undefined)!
    return { admitted: true, nowUs: held.chargedAtUs + sinceUs(held), retryAfterUs: 0, outcomes: [] }
  }

  function sinceUs({ sentAt }: Held): number {
    return Math.max(0, Math.round((now() - sentAt) * 1000))
  }

  function merged(spent: readonly (Spent | undefined)[], { outcomes }: StoreDecision): ChargeOutcome[] {
    let next = 0
    return spent.map((one): ChargeOutcome => {
      if (one === undefined) return outcomes[next++]!
      const { held } = one
      return {
        verdict: 'fits',
        remaining: held.outcome.remaining + held.left,
        waitUs: 0,
        resetUs: Math.max(0, held.outcome.resetUs - sinceUs(held)),
        added: 0,
        // It was charged with the others that were taken with it, and is given back or corrected there.
        atUs: held.chargedAtUs,
      }
    })
  }

  return {
    ...store,
    decide(request, caller) {
      const spent = mayPrefetch(request) ? spend(request.charges) : undefined
      return spent === undefined ? store.decide(request, caller) : decideHolding(request, spent, caller)
    },
    ...(store.decideFor !== undefined && {
      decideFor(request, caller) {
        const spent = mayPrefetch(request) ? spend(request.charges) : undefined
        if (spent === undefined) return store.decideFor!(request, caller)
        caller.sent()
        decideHolding(request, spent, caller).then(
          (decision) => caller.answered(decision),
          (error: unknown) => caller.failed(error),
        )
      },
    }),
    async reset(partition, owners) {
      for (const counter of counters.values()) {
        if (counter.partition === partition) for (const one of counter.held) one.left = 0
      }
      await store.reset(partition, owners)
    },
    async close() {
      closed = true
      await Promise.all([...counters.values()].flatMap(({ held }) => held.map(giveBack)))
      await store.close()
    },
  }
}

/** Tickets reserve room of all charges of a request, so that the store has to see them all. */
function mayPrefetch({ charges, commit, promise, tickets }: DecisionRequest): boolean {
  const isHot = charges.some(({ prefetch }) => prefetch !== undefined)
  return isHot && commit && tickets === undefined && typeof promise !== 'object'
}

/** Whether what is held was charged under the limit as it is now. */
function isSameLimit({ charge }: Held, { quota, capacity }: Charge): boolean {
  return charge.quota === quota && charge.capacity === capacity
}

function unspent({ charge, chargedAtUs }: Held, units: number): Correction {
  return { charged: { charge, cost: charge.cost, chargedAtUs }, does: 'correct', by: -units }
}
