import type { Request } from 'express'

/** What a request is to pay. */
export interface Bill {
  readonly account: string
  readonly credits: number
  /** For how long it is a deposit, in ms; null where it is spent at once. */
  readonly holdMs: number | null
  /** An answer of 4xx costs nothing either. */
  readonly errorsAreFree: boolean
  /** Who hangs up before the answer is complete pays nothing, unless `settle` was called. */
  readonly hangUpIsFree: boolean
  readonly req: Request
}

/** A payment that a request carries. */
export interface Offer {
  /** Names what may pay once: the same for the same authorisation, however it is written. At most 256 characters. */
  readonly claim: string
  /** How long it could still be shown again, in ms: so long it is remembered. */
  readonly lastsMs: number
  /**
   * Why it is not one for this provider, such as another network or price: then the others are asked, and where it is one for none
   * of them, it is refused with this, without `verify`.
   */
  readonly mismatch?: string | undefined
  /** It is none of this provider's at all, such as one of another network: what another provider says of it is told instead. */
  readonly isForeign?: boolean | undefined
}

/** What a 402 says about one way to pay. */
export interface Challenge {
  /** A member of `error.ways` in the body; `provider` is added. */
  readonly way: Readonly<Record<string, unknown>>
  /** Header fields of the 402. */
  readonly fields?: Readonly<Record<string, string>>
}

/** What came of a payment. */
export type PaymentOutcome =
  | {
      readonly paid: true
      readonly payer?: string | undefined
      /** Of `capture`, what was taken, where that is not what was asked for. */
      readonly credits?: number
      readonly fields?: Readonly<Record<string, string>>
    }
  | { readonly paid: false; readonly reason: string; readonly fields?: Readonly<Record<string, string>> }

/**
 * What can be done with a payment when its request is long over, by its claim (a `chargeId` is the provider's name, a colon, and the
 * claim). All resolve with whose it is.
 *
 * Thrown are the errors of the ledger's own calls, and `RAMPMETER_PAYMENT_PROVIDER` for an outage.
 */
export interface LaterPayments {
  /** Takes a deposit: all of it, or so much. */
  capture(claim: string, credits: number | undefined): Promise<{ readonly account: string }>
  /** Gives a deposit back. */
  release(claim: string): Promise<{ readonly account: string }>
  /** Gives back what was taken: what is left of it, or so much. */
  refund(
    claim: string,
    credits: number | undefined,
    idempotencyKey: string | undefined,
  ): Promise<{ readonly account: string }>
}

/**
 * A way to pay for single requests, beside the ledger's credits. `x402` and `stripe` are such; one of your own (MPP, L402) is an
 * object with these members.
 *
 * In the order in which they are called: `detect`; then limits are asked, and the claim is taken with them, so that two requests
 * never pay with the same authorisation; `verify` and `reserve`; the handler runs; `capture`, before the first byte of its answer
 * leaves; or `release`, where it failed. `refund` when the app asks for it. What throws or rejects is an outage of the provider: 503.
 */
export interface PaymentProvider<Own extends Offer = Offer> {
  /** As `error.ways` calls it. */
  readonly name: string
  /** Whether it can set money aside until the app captures or releases it: else prices with `hold` are not offered. */
  readonly holds: boolean
  /** The fields it may give a response, so that scripts of other origins can be let read them. */
  readonly fieldNames?: readonly string[]
  /** Finds a payment of this provider in a request; says what is wrong with one that cannot be read (400). It asks nobody. */
  detect(req: Request, bill: Bill): Own | { readonly malformed: string } | undefined
  /** Says how to pay. `error`: why the payment that came was not taken. */
  challenge(bill: Bill, error: string | undefined): Challenge | Promise<Challenge>
  /**
   * Makes one challenge of those of several providers of this name, whose fields would overwrite each other. Absent: two of a name
   * are a mistake.
   */
  join?(challenges: readonly Challenge[]): Challenge
  /** Whether the payment is good, without taking it. */
  verify(offer: Own, bill: Bill): Promise<PaymentOutcome>
  /** Sets the money aside, where that is a step of its own. */
  reserve(offer: Own, bill: Bill): Promise<void>
  /**
   * What is taken where so much is asked for: of what can only be taken whole, the whole. Absent: as much as is asked for.
   */
  comesTo?(offer: Own, credits: number, bill: Bill): number
  /** Takes so much of it, at most what was offered. */
  capture(offer: Own, credits: number, bill: Bill): Promise<PaymentOutcome>
  /** Gives up what was not taken. */
  release(offer: Own, bill: Bill): Promise<void>
  /**
   * Gives back what was taken, in whole or in part.
   *
   * @param left what was left of it before this: names the refund, so that one whose answer was lost can be repeated
   *
   * @throws {RampmeterError} `RAMPMETER_PAYMENT_UNSUPPORTED` where that cannot be done
   */
  refund(offer: Own, credits: number, bill: Bill, left: number): Promise<void>
  /**
   * Looks whether it could be paid here at all, for `limiter.ready()`, which rejects as this does. An outage is no reason to: then
   * requests are answered 503. Absent where there is nothing to look at.
   */
  ready?(): Promise<void>
  /** Payments after their request, as the calls of a ledger reach them by their `chargeId`. Absent where that cannot be done. */
  readonly later?: LaterPayments
  /**
   * Calls a listener with the account of each payment that its payer disputes; the limiter tells its abuse layer. Returns what
   * ends that. Absent where disputes are not heard of.
   */
  disputes?(listener: (account: string) => void): () => void
}
