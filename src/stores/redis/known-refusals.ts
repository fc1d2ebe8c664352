import { Recent } from '../../recent.ts'
import type { RampmeterError } from '../../errors.ts'
import type { StoreDecision } from '../store.ts'
import { reachOf } from '../../policies/schedule.ts'
import type { ShapedRequest } from './plan.ts'
import type { Shape } from './shapes.ts'

/** A refusal that stands for a while. */
interface Known {
  readonly shape: Shape
  readonly decision: StoreDecision
  /** When it was heard, and until when it stands, in ms. */
  readonly heardAt: number
  readonly until: number
}

/**
 * The longest a refusal is given without asking again, in ms. What another process gives back, or an operator lifts, counts here
 * after so long at the latest.
 */
const longestMs = 1000

const mostPartitions = 10_000
const mostOfOnePartition = 4

/**
 * Remembers who was refused and has no room yet, so that a storm of retries does not reach Redis. It never refuses what Redis
 * would admit: until a counter has room again, others can only use more of it; what is given back here ends it at once.
 *
 * The first of a herd are told times by Redis, which notes them. Only what it tells without noting it, as the schedule has no
 * room for more, is told again from here: until then Redis would say the same.
 */
export class KnownRefusals {
  readonly #now: () => number
  /** By partition; those heard last in front. */
  readonly #known = new Recent<string, Known[]>({ max: mostPartitions })
  /** When something was last given back, by partition: what was asked before says nothing any more. */
  readonly #givenBackAt = new Recent<string, number>({
    max: mostPartitions,
    dispose: (at, _partition, why) => {
      if (why === 'evict') this.#notBefore = Math.max(this.#notBefore, at)
    },
  })
  #notBefore = -Infinity

  /** @param now the time in ms */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  get isEmpty(): boolean {
    return this.#known.size === 0
  }

  /** What is known about a request; undefined when Redis has to be asked. */
  find({ shape, request }: ShapedRequest): StoreDecision | undefined {
    if (shape === undefined || this.isEmpty) return undefined
    const { partition } = request.charges[0]!
    const known = this.#known.get(partition)?.find((one) => one.shape === shape)
    if (known === undefined) return undefined
    const now = this.#now()
    if (now < known.until) return later(known.decision, Math.floor((now - known.heardAt) * 1000))
    this.#known.delete(partition)
    return undefined
  }

  /**
   * Learns from an answer: of policies that share a partition, so that whoever gives back there ends it.
   *
   * @param sentAt when it was asked, in ms
   */
  learn({ shape, request }: ShapedRequest, decision: StoreDecision | RampmeterError, sentAt: number): void {
    if (decision instanceof Error || decision.admitted || shape?.keyCount !== 1) return
    // What one client did says nothing of others who share a counter with it.
    if (shape.standing !== undefined && shape.standingPlace !== 1) return
    const { charges } = request
    const { partition } = charges[0]!
    if (sentAt <= Math.max(this.#notBefore, this.#givenBackAt.get(partition) ?? -Infinity)) return
    let waitUs = 0
    let windowUs = 0
    let forMs = longestMs
    decision.outcomes.forEach(({ verdict, waitUs: own }, index) => {
      const charge = charges[index]!
      // What people or a ladder decided may be lifted at any time.
      if (charge.kind === 'standing' && verdict === 'refused') forMs = 0
      // The first minutes' extra may come back before the others have room.
      if (charge.kind === 'first-minutes' && own !== null) forMs = Math.min(forMs, own / 1000)
      if (verdict !== 'refused' || charge.shadow) return
      waitUs = Math.max(waitUs, own ?? Infinity)
      windowUs = Math.max(windowUs, charge.windowUs)
    })
    // A sooner time has been noted for whoever heard it, so the next one is told another.
    if (decision.retryAfterUs !== null && decision.retryAfterUs < waitUs + reachOf(windowUs)) return
    const until = sentAt + Math.min(waitUs / 1000, forMs)
    const heardAt = this.#now()
    if (until <= heardAt) return
    const others = this.#known.get(partition)?.filter((one) => one.shape !== shape) ?? []
    const known = { shape, decision, heardAt, until }
    this.#known.set(partition, [known, ...others.slice(0, mostOfOnePartition - 1)])
  }

  /** Something is given back in a partition, or all of it forgotten. */
  forget(partition: string): void {
    this.#givenBackAt.set(partition, this.#now())
    if (!this.isEmpty) this.#known.delete(partition)
  }
}

/** The same decision some time later, while nothing but time has passed. */
function later({ nowUs, retryAfterUs, outcomes }: StoreDecision, elapsedUs: number): StoreDecision {
  const less = (us: number | null): number | null => (us === null ? null : Math.max(0, us - elapsedUs))
  return {
    admitted: false,
    nowUs: nowUs + elapsedUs,
    retryAfterUs: less(retryAfterUs),
    outcomes: outcomes.map(({ verdict, remaining, waitUs, resetUs, added = 0 }) => ({
      verdict,
      remaining,
      waitUs: less(waitUs),
      resetUs: Math.max(0, resetUs - elapsedUs),
      added,
    })),
  }
}
