import type { Client } from './client.ts'
import type { Decider, Ruling } from './decide.ts'
import type { PaymentOutcome } from './payments/provider.ts'
import { Turns } from './payments/turns.ts'
import { slidingWindow } from './policies/sliding-window.ts'
import { tokenBucket } from './policies/token-bucket.ts'
import type { Charge, Charged } from './stores/store.ts'
import { givenBack } from './stores/together.ts'

/** Too many 402s, or payments that were not good. */
export interface TooMany {
  readonly retryAfterMs: number
  /** Too many wait for theirs to be looked at: nobody knows how long that takes. */
  readonly isCrowd?: true
}

/** When whoever finds too many payments waiting may come again, in ms: an estimate. */
const retryCrowdMs = 1000

/**
 * What asking for money, and looking at it, may cost a client: so many 402s, and so many payments that are not good. Whoever proved
 * who it is has counts of its own; strangers share those of their address, so that none of theirs keeps a client out.
 *
 * A good payment gives back the 402 that it answers, so that an honest payer is asked as often as it pays. It is a bucket for that:
 * what is given back fills it at most. Only payments that were not good are counted; before one is looked at there must be room for
 * it, and no more are looked at together than may still fail.
 */
export class PaymentChallenges {
  readonly #decider: Decider
  readonly #onFailure: (error: unknown) => void
  readonly #asked: (partition: string) => Charge
  readonly #failed: (partition: string) => Charge
  readonly #turns: Turns

  constructor(
    { quota, windowMs }: { readonly quota: number; readonly windowMs: number },
    decider: Decider,
    onFailure: (error: unknown) => void,
  ) {
    this.#decider = decider
    this.#onFailure = onFailure
    this.#turns = new Turns(quota)
    const limit = { windowUs: windowMs * 1000, quota, capacity: quota, cost: 1, liftable: false, shadow: false }
    // Names that no policy of an app is likely to have, since they would share a counter.
    const asked = tokenBucket({ name: '@payment challenges', quota, window: windowMs }).stateId
    const failed = slidingWindow({ name: '@failed payments', quota, window: windowMs }).stateId
    this.#asked = (partition) => ({ ...limit, kind: 'token-bucket', stateId: asked, partition })
    this.#failed = (partition) => ({ ...limit, kind: 'sliding-window', stateId: failed, partition })
  }

  /** Counts a 402; past the limit, says when it may come again. */
  async ask(client: Client): Promise<TooMany | undefined> {
    const ruling = await this.#decider.decide([], undefined, { beside: [this.#asked(counterOf(client))] })
    return ruling.admitted ? undefined : tooMany(ruling)
  }

  /**
   * Has a payment looked at: one that is good gives back the 402 that it answers, one that is not is counted.
   *
   * @param work rejects where the provider is away: then nothing is counted
   */
  async verify(client: Client, work: () => Promise<PaymentOutcome>): Promise<PaymentOutcome | TooMany> {
    const partition = counterOf(client)
    if (!(await this.#turns.enter(partition))) return { retryAfterMs: retryCrowdMs, isCrowd: true }
    try {
      const charge = this.#failed(partition)
      const ruling = await this.#decider.decide([], undefined, { beside: [charge], commit: false })
      if (!ruling.admitted) return tooMany(ruling)
      const outcome = await work()
      if (outcome.paid) await this.#giveBack(partition, ruling)
      else await this.failed(client)
      return outcome
    } finally {
      this.#turns.leave(partition)
    }
  }

  /** Counts a payment that was not good. */
  async failed(client: Client): Promise<void> {
    const beside = [this.#failed(counterOf(client))]
    await this.#decider.decide([], undefined, { beside, promise: false }).catch(this.#onFailure)
  }

  async #giveBack(partition: string, { nowUs, degraded }: Ruling): Promise<void> {
    const asked: Charged = { charge: this.#asked(partition), cost: 1, chargedAtUs: nowUs }
    await this.#decider.settle(degraded ? 'local' : 'store', [givenBack(asked)]).catch(this.#onFailure)
  }
}

/** Whose challenges a request counts among. */
function counterOf({ id, provedBy, address }: Client): string {
  return provedBy === null ? (address ?? id) : id
}

function tooMany({ retryAfterUs }: Ruling): TooMany {
  return { retryAfterMs: Math.max(1, Math.ceil((retryAfterUs ?? 0) / 1000)) }
}
