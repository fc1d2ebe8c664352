import type { Socket } from 'node:net'
import type { Request, Response } from 'express'
import onHeaders from 'on-headers'
import { measureBody } from './body-bytes.ts'
import type { Decider } from './decide.ts'
import { warn } from './errors.ts'
import { isThenable } from './identify/thenable.ts'
import { largestAmount } from './policies/build.ts'
import { isFailure } from './policies/failures.ts'
import type { Plans } from './plan.ts'
import type { Policy } from './policy.ts'
import { checkTotal, type ActualCost, type nothingAtAll, type Settlement } from './settlement.ts'
import type { Correction } from './stores/store.ts'
import { whenAnswered } from './when-answered.ts'

/** How often the slots of requests that are still at work are kept, in ms: thrice in the shortest lease. */
const renewEveryMs = 333

/**
 * How long what is reserved for a failure waits for the answer to a client that has gone, in ms. Not so short that whoever hangs
 * up gets the next try before the last one was judged, nor so long that handlers which stop when their client has gone lock it out.
 */
const answersWithinMs = 30_000

/** How many requests may wait for an answer that nobody will read. */
const mostUnanswered = 10_000

/** Policies may be made for single requests: what is warned of is bounded. */
const mostWarnings = 100

/**
 * Brings to the store what requests turned out to cost, and gives back the slots they held. What falls due in one turn of the
 * event loop travels in one call.
 */
export class Settler {
  readonly #decider: Decider
  readonly #plans: Plans
  readonly #onFailure: (error: unknown) => void
  /** Corrections that wait for the turn to end, apart for those decided without the store. */
  readonly #due: { store: Correction[]; local: Correction[] } = { store: [], local: [] }
  #sending: Promise<void> | undefined
  readonly #owed = new Set<Promise<void>>()
  /** Requests that hold slots, and when their leases were last renewed, in ms. */
  readonly #holding = new Map<Settlement, number>()
  /** Requests whose clients went before they were answered, and when, in ms; the longest ago first. */
  readonly #unanswered = new Map<Settlement, number>()
  #rounds: NodeJS.Timeout | undefined
  /** What is to be done when a connection closes with responses that it never came to. */
  readonly #queued = new WeakMap<Socket, Set<() => void>>()
  readonly #warned = new Set<string>()

  constructor(decider: Decider, plans: Plans, onFailure: (error: unknown) => void) {
    this.#decider = decider
    this.#plans = plans
    this.#onFailure = onFailure
  }

  /**
   * Follows a response: at its end, complete or not, what is charged afterwards is charged, what was reserved for nothing comes
   * back, slots are released, and those of sessions kept for their lease from then on.
   */
  follow(req: Request, res: Response, settlement: Settlement): void {
    if (!settlement.awaitsResponse) return
    settlement.isFollowed = true
    const bytes = settlement.countsBytes ? measureBody(req, res) : () => 0
    const isFailure = (policy: Policy): boolean => this.#isFailure(policy, res)
    this.whenClosed(req, res, () => {
      const sent = bytes()
      // The client has gone before there was an answer: what counts is what it would have been, or whoever hangs up in time
      // tries for nothing.
      const isUnanswered = settlement.judgesResponse && !res.headersSent
      this.#pay(settlement, [
        ...settlement.take({ bytes: sent, isFailure: isUnanswered ? undefined : isFailure }),
        ...this.#release(settlement),
      ])
      if (!isUnanswered) return
      this.#awaitAnswer(settlement)
      whenAnswered(res, () => {
        this.#unanswered.delete(settlement)
        this.#pay(settlement, settlement.take({ bytes: sent, isFailure }))
      })
    })
    if (!res.closed && settlement.renew().length > 0) this.#hold(settlement)
  }

  /**
   * Takes the cost from a field of the response, which does not leave.
   *
   * @param costHeader the field; nothing happens without one
   */
  takeCost(res: Response, settlement: Settlement, costHeader: string | undefined): void {
    if (costHeader === undefined) return
    onHeaders(res, () => {
      const value = res.getHeader(costHeader)
      if (value === undefined) return
      res.removeHeader(costHeader)
      const text = String(value).trim()
      if (/^\d{1,13}$/.test(text) && Number(text) <= largestAmount) {
        this.withResponse(res, settlement, Number(text))
      } else {
        const seen = /^[\d.,+-]{1,20}$/.test(text) ? text : `a text of ${text.length} characters`
        this.#warnOnce(
          'RAMPMETER_INVALID_COST',
          `the response header ${JSON.stringify(costHeader)}, named by \`costHeader\`, was ${seen}; it must be a whole number from 0 to 10^12, and what was charged stands`,
          costHeader,
        )
      }
    })
  }

  /**
   * Settles when the response ends; the total said last counts.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_COST`, `RAMPMETER_UNKNOWN_POLICY`
   */
  withResponse(res: Response, settlement: Settlement, total: ActualCost | typeof nothingAtAll): void {
    this.#check(total)
    if (res.closed || res.destroyed) {
      this.#warnOnce(
        'RAMPMETER_LATE_SETTLE',
        'a cost was settled after its response had ended or its client had gone, and changed nothing; settle before that, and charge beforehand what a request may cost at most',
      )
      return
    }
    settlement.state(total)
    if (settlement.isFollowed) return
    settlement.isFollowed = true
    res.once('close', () => this.#pay(settlement, settlement.take()))
  }

  /**
   * Settles at once; a later total corrects it.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_COST`, `RAMPMETER_UNKNOWN_POLICY`
   */
  now(settlement: Settlement, total: ActualCost | typeof nothingAtAll): void {
    this.#check(total)
    settlement.state(total)
    this.#pay(settlement, settlement.take({ bytes: undefined, isFailure: () => false }))
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
    clearInterval(this.#rounds)
    this.#rounds = undefined
    this.#holding.clear()
    this.#unanswered.clear()
  }

  #check(total: ActualCost | typeof nothingAtAll): void {
    checkTotal(total)
    if (typeof total === 'object') this.#plans.checkNames(Object.keys(total), 'settle')
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
    const renewedAt = this.#holding.get(settlement)
    this.#holding.delete(settlement)
    return settlement.release(renewedAt === undefined ? undefined : performance.now() - renewedAt)
  }

  /** Does something once when a response has ended, its client has gone, or its connection closed before it was its turn. */
  whenClosed(req: Request, res: Response, act: () => void): void {
    // The client left while its request was being decided.
    if (res.closed) {
      act()
      return
    }
    let done = false
    const once = (): void => {
      if (done) return
      done = true
      act()
    }
    res.once('close', once)
    // Behind another response on its connection (RFC 9112 section 9.3.2): such a one is told nothing when that closes.
    const { socket } = req
    if (res.socket !== null) return
    if (socket.destroyed) {
      once()
      return
    }
    let queued = this.#queued.get(socket)
    if (queued === undefined) {
      const all = (queued = new Set())
      this.#queued.set(socket, all)
      socket.once('close', () => all.forEach((one) => one()))
    }
    queued.add(once)
    res.once('close', () => queued.delete(once))
  }

  #hold(settlement: Settlement): void {
    this.#holding.set(settlement, performance.now())
    this.#beginRounds()
  }

  #awaitAnswer(settlement: Settlement): void {
    if (!settlement.reservesFailures) return
    if (this.#unanswered.size >= mostUnanswered) this.#unreserve(this.#unanswered.keys().next().value!)
    this.#unanswered.set(settlement, performance.now())
    this.#beginRounds()
  }

  #unreserve(settlement: Settlement): void {
    this.#unanswered.delete(settlement)
    this.#pay(settlement, settlement.unreserve())
  }

  #beginRounds(): void {
    if (this.#rounds !== undefined) return
    this.#rounds = setInterval(() => this.#makeRound(), renewEveryMs)
    this.#rounds.unref()
  }

  #makeRound(): void {
    if (this.#holding.size === 0 && this.#unanswered.size === 0) {
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
    for (const [settlement, since] of this.#unanswered) {
      if (now - since < answersWithinMs) return
      this.#unreserve(settlement)
    }
  }

  /** A predicate that fails counts: a limit against guessing must not end with its first bug. */
  #isFailure(policy: Policy, res: Response): boolean {
    let failed: string
    try {
      const counts: unknown = (policy.counts ?? isFailure)(res)
      if (!isThenable(counts)) return Boolean(counts)
      // Nobody waits for it, and what is rejected unseen ends the process.
      counts.then(undefined, () => {})
      failed = 'returned a promise'
    } catch {
      failed = 'threw'
    }
    this.#warnOnce(
      'RAMPMETER_POLICY_FUNCTION_FAILED',
      `the function \`counts\` of policy ${JSON.stringify(policy.name)} ${failed}; the response was counted as a failure`,
      policy.name,
    )
    return true
  }

  /** Warns once of each kind, and where it is about one of several things once of each, a hundred in all. */
  #warnOnce(code: Parameters<typeof warn>[0], message: string, about = ''): void {
    const warning = `${code} ${about}`
    if (this.#warned.has(warning) || this.#warned.size >= mostWarnings) return
    this.#warned.add(warning)
    warn(code, message)
  }
}
