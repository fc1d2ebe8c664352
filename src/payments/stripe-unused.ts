import type { StripeClient } from './stripe.ts'

/** How many are remembered; of more, the oldest are looked at before their time. */
const mostRemembered = 10_000

/** What nobody has confirmed: one that is confirmed sets money aside, perhaps as a deposit that another process has taken. */
const unconfirmed: ReadonlySet<string> = new Set([
  'requires_payment_method',
  'requires_confirmation',
  'requires_action',
])

/** PaymentIntents of 402s: those that nobody pays are cancelled after a time, which else would stay open for ever. */
export class UnusedIntents {
  readonly #client: StripeClient
  readonly #afterMs: number
  readonly #timers = new Map<string, NodeJS.Timeout>()

  constructor(client: StripeClient, afterMs: number) {
    this.#client = client
    this.#afterMs = afterMs
  }

  add(id: string): void {
    const [oldest] = this.#timers.size >= mostRemembered ? this.#timers.keys() : []
    if (oldest !== undefined) void this.#cancel(oldest)
    const timer = setTimeout(() => void this.#cancel(id), this.#afterMs)
    timer.unref()
    this.#timers.set(id, timer)
  }

  /** It pays. */
  used(id: string): void {
    clearTimeout(this.#timers.get(id))
    this.#timers.delete(id)
  }

  async #cancel(id: string): Promise<void> {
    this.used(id)
    try {
      const { status } = await this.#client.paymentIntents.retrieve(id)
      if (unconfirmed.has(status)) await this.#client.paymentIntents.cancel(id)
    } catch {
      // It stays open at Stripe, which costs nobody anything.
    }
  }
}
