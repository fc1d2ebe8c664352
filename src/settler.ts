import type { Request, Response } from 'express'
import onHeaders from 'on-headers'
import { measureBody } from './body-bytes.ts'
import type { Decider } from './decide.ts'
import { warn } from './errors.ts'
import { isFailure } from './policies/failures.ts'
import type { Policy } from './policy.ts'
import type { ActualCost, ResponseFacts, Settlement } from './settlement.ts'
import type { Correction } from './stores/store.ts'

/** How often the slots of requests that are still at work are kept, in ms: thrice in the shortest lease. */
const renewEveryMs = 333

/**
 * Brings to the store what requests turned out to cost, and gives back the slots they held. What falls due in one turn of the
 * event loop travels in one call.
 */
export class Settler {
  readonly #decider: Decider
  readonly #onFailure: (error: unknown) => void
  /** Corrections that wait for the turn to end, apart for those decided without the store. */
  readonly #due: { store: Correction[]; local: Correction[] } = { store: [], local: [] }
  #sending: Promise<void> | undefined
  readonly #owed = new Set<Promise<void>>()
  /** Requests that hold slots, and when their leases were last renewed, in ms. */
  readonly #holding = new Map<Settlement, number>()
  #renewal: NodeJS.Timeout | undefined
  readonly #watched = new WeakSet<Settlement>()
  readonly #warned = new Set<string>()

  constructor(decider: Decider, onFailure: (error: unknown) => void) {
    this.#decider = decider
    this.#onFailure = onFailure
  }

  /**
   * Follows a response: at its end, complete or not, what is charged afterwards is charged, what was reserved for nothing comes
   * back, and slots are released.
   *
   * @param costHeader a field of the response that says the cost, and is taken out before it leaves
   */
  follow(req: Request, res: Response, settlement: Settlement, costHeader: string | undefined): void {
    if (costHeader !== undefined) {
      onHeaders(res, () => this.#takeCostHeader(res, settlement, costHeader))
    } else if (!settlement.awaitsResponse) {
      return
    }
    const bytes = settlement.countsBytes ? measureBody(req, res) : () => 0
    this.#watched.add(settlement)
    if (settlement.renew().length > 0) this.#hold(settlement)
    res.once('close', () => {
      const facts: ResponseFacts = { bytes: bytes(), isFailure: (policy) => this.#isFailure(policy, res) }
      this.#pay(settlement, [...settlement.take(facts), ...this.#release(settlement)])
    })
  }

  /** Settles when the response ends; the total said last counts. */
  withResponse(res: Response, settlement: Settlement, total: ActualCost | 'refund'): void {
    if (total === 'refund') settlement.refund()
    else settlement.state(total)
    if (res.closed || res.destroyed) {
      this.#warnOnce(
        'RAMPMETER_LATE_SETTLE',
        'a cost was settled after its response had ended or its client had gone, and changed nothing; settle before the response ends',
      )
    } else if (!this.#watched.has(settlement)) {
      this.#watched.add(settlement)
      res.once('close', () => this.#pay(settlement, settlement.take()))
    }
  }

  /** Settles at once; a later total corrects it. */
  now(settlement: Settlement, total: ActualCost | 'refund'): void {
    if (total === 'refund') settlement.refund()
    else settlement.state(total)
    this.#pay(settlement, settlement.take({ bytes: 0, isFailure: () => false }))
  }

  /** Gives the slots of a request back, once. */
  releaseNow(settlement: Settlement): void {
    this.#pay(settlement, this.#release(settlement))
  }

  /** Resolves when all that was owed so far has reached the store. */
  async flush(): Promise<void> {
    await this.#sending
    await Promise.all(this.#owed)
  }

  /** Stops renewing: slots that are still held come back when their leases run out. */
  stop(): void {
    clearInterval(this.#renewal)
    this.#renewal = undefined
    this.#holding.clear()
  }

  #pay({ ruling }: Settlement, corrections: readonly Correction[]): void {
    if (corrections.length === 0) return
    this.#due[ruling.degraded ? 'local' : 'store'].push(...corrections)
    this.#sending ??= new Promise((resolve) => {
      setImmediate(() => {
        this.#sending = undefined
        this.#send('store')
        this.#send('local')
        resolve()
      })
    })
  }

  #send(where: 'store' | 'local'): void {
    const corrections = this.#due[where]
    if (corrections.length === 0) return
    this.#due[where] = []
    const payment = this.#decider.settle(where, corrections).catch(this.#onFailure)
    this.#owed.add(payment)
    void payment.finally(() => this.#owed.delete(payment))
  }

  #release(settlement: Settlement): Correction[] {
    this.#holding.delete(settlement)
    return settlement.release()
  }

  #hold(settlement: Settlement): void {
    this.#holding.set(settlement, performance.now())
    if (this.#renewal !== undefined) return
    this.#renewal = setInterval(() => this.#renewDue(), renewEveryMs)
    this.#renewal.unref()
  }

  #renewDue(): void {
    if (this.#holding.size === 0) {
      this.stop()
      return
    }
    const now = performance.now()
    for (const [settlement, renewedAt] of this.#holding) {
      const renewals = settlement.renew()
      const shortest = Math.min(...renewals.map(({ charged }) => charged.charge.windowUs / 1000))
      if (now - renewedAt < shortest / 3 - renewEveryMs) continue
      this.#holding.set(settlement, now)
      this.#pay(settlement, renewals)
    }
  }

  #takeCostHeader(res: Response, settlement: Settlement, name: string): void {
    const value = res.getHeader(name)
    if (value === undefined) return
    res.removeHeader(name)
    const text = String(value).trim()
    if (/^\d{1,13}$/.test(text) && Number(text) <= 1e12) {
      settlement.state(Number(text))
    } else {
      this.#warnOnce(
        'RAMPMETER_INVALID_COST',
        'the response header named by `costHeader` was not a whole number from 0 to 10^12; what was charged stands',
      )
    }
  }

  /** A predicate that throws counts: a limit against guessing must not end with its first bug. */
  #isFailure(policy: Policy, res: Response): boolean {
    try {
      return (policy.counts ?? isFailure)(res)
    } catch {
      this.#warnOnce(
        'RAMPMETER_POLICY_FUNCTION_FAILED',
        `the function \`counts\` of policy ${JSON.stringify(policy.name)} threw; the response was counted as a failure`,
      )
      return true
    }
  }

  #warnOnce(code: Parameters<typeof warn>[0], message: string): void {
    if (this.#warned.has(code)) return
    this.#warned.add(code)
    warn(code, message)
  }
}
