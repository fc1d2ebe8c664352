import { hash } from 'node:crypto'
import { Recent } from './recent.ts'
import type { CountedAttempts } from './identify/identify.ts'
import type { Checked, LimitedVerification } from './identify/verifier.ts'

export interface AttemptLimitOptions {
  /** How many wrong credentials an address may show within a window. */
  readonly quota: number
  readonly windowMs: number
}

/** A credential that was found wrong is refused from memory for so long; then it is looked at again, since keys change. */
const wrongForMs = 10_000

/** Whoever was found good is known for so long. */
const goodForMs = 10 * 60_000

/** A check that hangs is joined no longer than that. */
const joinedForMs = 10_000

/** Of each: addresses, wrong credentials, good ones, checks under way. */
const remembered = 10_000

/** Of one address, so many checks wait for others to end. */
const mostWaiting = 1000

/** When somebody who found too many waiting may come again, in ms: an estimate. */
const retryCrowdMs = 1000

/** Read through the global each time, so that the fake timers of a test turn it; lru-cache keeps the real one. */
const perf = { now: (): number => performance.now() }

/**
 * What checking credentials may cost an address: so many wrong ones within a window. Then no further unknown credential of it is
 * looked at: no signature is verified, nothing is looked up or fetched for it. Whoever was found good lately is served on, also
 * from there.
 *
 * A failure is a distinct wrong credential: one that comes again counts nothing. An attempt is counted before its work is done and
 * taken back when the credential was good; while as many are under way as may still fail, others wait for them.
 *
 * Counted in this process. What the others saw is learned from the store, with the decision about a failure ({@link AttemptLimit.learn}).
 */
export class AttemptLimit {
  readonly #options: AttemptLimitOptions
  readonly #budgets = new Recent<string, Budget>({ max: remembered })
  readonly #good = new Recent<string, true>({ max: remembered, ttl: goodForMs, perf })
  readonly #wrong: Recent<string, { readonly answer: Checked; readonly at: number }>
  readonly #underWay = new Recent<string, UnderWay>({ max: remembered, ttl: joinedForMs, perf })

  constructor(options: AttemptLimitOptions) {
    this.#options = options
    this.#wrong = new Recent({ max: remembered, ttl: options.windowMs, perf })
  }

  /** The attempts of one request. */
  of(address: string): RequestAttempts {
    return new RequestAttempts(address, this)
  }

  /** Takes over what the store knows of an address: for so long, it has failed too often. */
  learn(address: string, closedForMs: number): void {
    this.#budgetOf(address).closeFor(closedForMs)
  }

  /** Counts a wrong credential that nobody asked about before looking at it. */
  fail(address: string): void {
    this.#budgetOf(address).fail()
  }

  /** @param onFailure hears of a failure that was counted */
  async check<Answer extends Checked>(
    address: string,
    credential: string,
    work: () => Answer | Promise<Answer>,
    holder: string,
    onFailure: () => void,
  ): Promise<Answer | LimitedVerification> {
    const name = digest(credential)
    const known = this.#foundWrong(name)
    if (known !== undefined) return known as Answer
    const others = this.#underWay.get(name)
    if (others !== undefined) {
      const answer = await others.answer
      // That it may not be looked at for another address says nothing of this one.
      if (answer.outcome !== 'limited' || others.address === address) return answer as Answer
    }
    const checking = this.#attempt(address, name, holder === credential ? name : digest(holder), work, onFailure)
    const underWay = { address, answer: checking }
    this.#underWay.set(name, underWay)
    try {
      return await checking
    } finally {
      if (this.#underWay.peek(name) === underWay) this.#underWay.delete(name)
    }
  }

  /** Remembers a proof that was shown again. */
  async replayed(address: string, proof: string): Promise<number> {
    const attempts = this.of(address)
    await attempts.check(replayOf(proof), () => ({ outcome: 'invalid' }))
    return attempts.failures
  }

  wasReplayed(proof: string): boolean {
    return this.#foundWrong(digest(replayOf(proof))) !== undefined
  }

  #foundWrong(name: string): Checked | undefined {
    const known = this.#wrong.get(name)
    return known !== undefined && performance.now() - known.at < wrongForMs ? known.answer : undefined
  }

  async #attempt<Answer extends Checked>(
    address: string,
    name: string,
    holder: string,
    work: () => Answer | Promise<Answer>,
    onFailure: () => void,
  ): Promise<Answer | LimitedVerification> {
    // Whoever holds a good credential has tries of their own: those of others at their address do not lock them out, nor
    // does a thief who knows the half of it have tries without end.
    const budget = this.#budgetOf(this.#good.has(holder) ? `${address} ${holder}` : address)
    const closed = await budget.enter()
    if (closed !== undefined) return { outcome: 'limited', retryAfterMs: closed }
    let failed = false
    try {
      const answer = await work()
      // A verifier may be the app's own, and what it answers is checked by whoever asked it.
      const { outcome, counts, failed: isNobodys } = (answer ?? {}) as Partial<Checked>
      const isWrong = isNobodys === true || (outcome === 'invalid' && counts !== false)
      failed = isWrong && !this.#wrong.has(name)
      // What is late is refused from memory as well: to find it late costs as much as to find it wrong.
      if (isWrong || outcome === 'invalid') this.#wrong.set(name, { answer, at: performance.now() })
      else if (isGood(outcome)) this.#good.set(holder, true)
      return answer
    } finally {
      budget.leave(failed)
      if (failed) onFailure()
    }
  }

  #budgetOf(name: string): Budget {
    let budget = this.#budgets.get(name)
    if (budget === undefined) {
      budget = new Budget(this.#options)
      this.#budgets.set(name, budget)
    }
    return budget
  }
}

/** A check that others may wait for. */
interface UnderWay {
  readonly address: string
  readonly answer: Promise<Checked>
}

function replayOf(proof: string): string {
  return `used ${proof}`
}

/** Not a step that found nothing, nor one that could not be made. */
function isGood(outcome: string | undefined): boolean {
  return (
    outcome !== undefined &&
    outcome !== 'absent' &&
    outcome !== 'invalid' &&
    outcome !== 'unavailable' &&
    outcome !== 'limited'
  )
}

/** Kept in place of the credential, so that a heap dump gives none away. */
function digest(text: string): string {
  return hash('sha256', text, 'base64')
}

/** What one address may still get wrong. */
class Budget {
  readonly #quota: number
  readonly #windowMs: number
  /** When each failure within the window was, the oldest first. */
  #failures: number[] = []
  #closedUntil = -Infinity
  #pending = 0
  #waiting: (() => void)[] = []

  constructor({ quota, windowMs }: AttemptLimitOptions) {
    this.#quota = quota
    this.#windowMs = windowMs
  }

  closeFor(ms: number): void {
    this.#closedUntil = Math.max(this.#closedUntil, performance.now() + ms)
  }

  fail(): void {
    this.#pending += 1
    this.leave(true)
  }

  /** Begins an attempt, or says how long none may be made, in ms. */
  async enter(): Promise<number | undefined> {
    for (;;) {
      const wait = this.#wait()
      if (wait > 0) return wait
      if (this.#failures.length + this.#pending < this.#quota) {
        this.#pending += 1
        return undefined
      }
      if (this.#waiting.length >= mostWaiting) return retryCrowdMs
      await new Promise<void>((resolve) => this.#waiting.push(resolve))
    }
  }

  leave(failed: boolean): void {
    this.#pending -= 1
    if (failed) this.#failures.push(performance.now())
    const free = this.#wait() > 0 ? this.#waiting.length : this.#quota - this.#failures.length - this.#pending
    for (const wake of this.#waiting.splice(0, Math.max(0, free))) wake()
  }

  #wait(): number {
    const now = performance.now()
    const from = now - this.#windowMs
    while (this.#failures.length > 0 && this.#failures[0]! <= from) this.#failures.shift()
    const own = this.#failures.length < this.#quota ? 0 : this.#failures[this.#failures.length - this.#quota]! - from
    return Math.max(0, Math.ceil(Math.max(own, this.#closedUntil - now)))
  }
}

/** The attempts of one request, and what came of them. */
export class RequestAttempts implements CountedAttempts {
  readonly address: string
  readonly #limit: AttemptLimit
  #failures = 0
  #asked = false

  constructor(address: string, limit: AttemptLimit) {
    this.address = address
    this.#limit = limit
  }

  /** How many wrong credentials were counted. */
  get failures(): number {
    return this.#failures
  }

  async check<Answer extends Checked>(
    credential: string,
    work: () => Answer | Promise<Answer>,
    holder: string = credential,
  ): Promise<Answer | LimitedVerification> {
    this.#asked = true
    return await this.#limit.check(this.address, credential, work, holder, () => (this.#failures += 1))
  }

  wasUsed(name: string): boolean {
    return this.#limit.wasReplayed(name)
  }

  begin(): void {
    this.#asked = false
  }

  /** Counts the failure that a verifier found, unless it asked before it looked: then it is counted already. */
  countUnlessAsked(): void {
    if (this.#asked) return
    this.#failures += 1
    this.#limit.fail(this.address)
  }
}
