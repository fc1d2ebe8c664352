import type { Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import type { MovementType, TakeBack, Totals } from '../stores/ledger.ts'
import type { Store } from '../stores/store.ts'
import type { PaymentProvider } from './provider.ts'

export interface CreditLedgerOptions {
  /** Where the accounts live: the limiter's own store. */
  store: Store
  /**
   * Says yes to a Redis that could lose money: one that may evict keys, has no append-only file, or does not tell. Default false:
   * then `ready()`, and every other call, fails with `RAMPMETER_LEDGER_UNSAFE` there.
   */
  acceptLoss?: boolean
  /** How many movements an account's history keeps at least; what is older becomes one, its sum. Default 10 000. */
  history?: number
  /** How long a call waits for the store, then it rejects: it may have been done, or not. Default 2 s. */
  deadline?: Duration
}

/** What an account has. */
export interface CreditBalance {
  /** What can be spent. Below zero where credits were revoked that were spent already. */
  readonly available: number
  /** What is set aside by holds. */
  readonly held: number
}

/** A movement that was made, and what the account has after it. */
export interface LedgerMovement {
  readonly id: string
  readonly balance: CreditBalance
}

/** Credits that are set aside. */
export interface CreditHold extends LedgerMovement {
  readonly credits: number
}

/** One line of an account's history. Those of an account sum to its balance. */
export interface HistoryEntry {
  readonly id: string
  /** In ms since 1970, by the store's clock. */
  readonly at: number
  readonly type: MovementType
  /** By how much what is available changed. */
  readonly available: number
  /** By how much what is held changed. */
  readonly held: number
  /**
   * The charge or hold that it is about; of a grant or `revoke` its `idempotencyKey`, else its `purchase`, as the app wrote it; of
   * what Stripe's webhook took back or returned the dispute, or the refunded payment. Null where there is none.
   */
  readonly ref: string | null
}

/** What an account comes to, and what its history says that it should. */
export interface LedgerAudit extends Totals {
  /** The sums of its history: the same, unless something else wrote in the store. */
  readonly history: Totals
  readonly consistent: boolean
}

/** Under a key that was used before, nothing is done again: 30 days long. */
export interface IdempotencyOptions {
  /** Names what happened: an event's id. */
  idempotencyKey?: string
}

export interface HoldOptions extends IdempotencyOptions {
  /** After so long the credits fall back by themselves. */
  ttl: Duration
}

/** Which entries of a history are told. */
export interface HistoryOptions {
  /** From this time on: a date or ms. Default: the beginning. */
  since?: Date | number
  /** How many at most. Default: all that is kept. */
  limit?: number
  /** The `id` of the last entry that was told before: pages on from there, in the same order. */
  after?: string
  /** Default false: the oldest come first. */
  newestFirst?: boolean
}

export interface GrantOptions extends IdempotencyOptions {
  /**
   * Names the payment that bought the credits, such as a PaymentIntent: what is refunded or disputed of that takes back as much
   * of them. Remembered for two years. Default: none.
   */
  purchase?: string
}

/**
 * Prepaid credits, in whole numbers. For every account, at every moment: granted = available + held + spent − refunded.
 *
 * Every call may throw `RAMPMETER_STORE_UNAVAILABLE`. Its message says whether nothing was done, or it may have been: then whatever
 * has an idempotency key, and `release` and `capture`, can be called again as it was. After `close` it throws `RAMPMETER_CLOSED`; options that there are not are
 * `RAMPMETER_UNKNOWN_OPTION`, others than they can be `RAMPMETER_INVALID_OPTION`.
 */
export interface CreditLedger {
  /**
   * Adds credits.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_AMOUNT`, `RAMPMETER_INVALID_ACCOUNT`, `RAMPMETER_IDEMPOTENCY_CLASH`
   */
  grant(account: string, credits: number, options?: GrantOptions): Promise<LedgerMovement>
  /**
   * Takes granted credits back, as after a dispute. What is spent already is owed: `available` is then below zero, and nothing can
   * be charged until it has been made good.
   *
   * @throws {RampmeterError} as `grant`, and `RAMPMETER_UNKNOWN_ACCOUNT` where nothing was ever granted
   */
  revoke(account: string, credits: number, options?: IdempotencyOptions): Promise<LedgerMovement>
  /** What an account has; nothing where it is not known. */
  balance(account: string): Promise<CreditBalance>
  /**
   * Sets credits aside, until they are captured, released, or `ttl` is over: then they fall back by themselves. With an
   * `idempotencyKey` it can be called again, for 30 days after its end: it resolves with the same id, whatever became of the hold.
   *
   * @throws {RampmeterError} `RAMPMETER_INSUFFICIENT_CREDIT`, `RAMPMETER_INVALID_AMOUNT`, `RAMPMETER_INVALID_DURATION`, `RAMPMETER_IDEMPOTENCY_CLASH`
   */
  hold(account: string, credits: number, options: HoldOptions): Promise<CreditHold>
  /**
   * Spends a hold, once: all of it, or a part, and the rest falls back.
   *
   * This, `release` and `refund` also take the `chargeId` of a payment that a provider was paid (`stripe:pi_…`), where a limiter of
   * this process has the provider and this ledger. What they resolve with is then what the account has here.
   *
   * @throws {RampmeterError} `RAMPMETER_ALREADY_CAPTURED`, `RAMPMETER_HOLD_ENDED`, `RAMPMETER_CHARGE_EXCEEDED`, `RAMPMETER_NOT_A_HOLD`, `RAMPMETER_UNKNOWN_CHARGE`
   */
  capture(holdId: string, credits?: number): Promise<CreditBalance>
  /**
   * Gives a hold back. One that was released or has expired stays so.
   *
   * @throws {RampmeterError} `RAMPMETER_ALREADY_CAPTURED`, `RAMPMETER_NOT_A_HOLD`, `RAMPMETER_UNKNOWN_CHARGE`
   */
  release(holdId: string): Promise<CreditBalance>
  /**
   * Gives back what was spent, all that is left of it or a part. Parts add up to the charge, no further.
   *
   * @throws {RampmeterError} `RAMPMETER_CHARGE_EXCEEDED`, `RAMPMETER_NOT_SPENT`, `RAMPMETER_UNKNOWN_CHARGE`, `RAMPMETER_IDEMPOTENCY_CLASH`
   */
  refund(chargeId: string, credits?: number, options?: IdempotencyOptions): Promise<CreditBalance>
  /**
   * What happened to an account, the oldest first. What was trimmed is one entry, `checkpoint`, its sum.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`; `RAMPMETER_HISTORY_TRIMMED` where pages cannot go on after `after`
   */
  history(account: string, options?: HistoryOptions): Promise<HistoryEntry[]>
  /** Compares an account with its history; with `rebuild`, makes it what its history says. */
  audit(account: string, options?: { rebuild?: boolean }): Promise<LedgerAudit>
  /**
   * Resolves when the store has answered and was found safe for money.
   *
   * @throws {RampmeterError} `RAMPMETER_LEDGER_UNSAFE`, `RAMPMETER_LEDGER_STORE`, `RAMPMETER_STORE_UNAVAILABLE` after 5 s
   */
  ready(): Promise<void>
  /** Ends the ledger's use of the store. The last limiter that has it does so too; one that is made with it later opens it again. */
  close(): Promise<void>
}

/** What a limiter knows of a ledger besides. */
export interface LedgerInternals {
  readonly store: Store
  readonly history: number
  readonly nameOf: (account: string) => string
  readonly newCharge: (account: string) => string
  /** Resolves when money is safe; at once where that is known. */
  readonly ready: () => Promise<void>
  /** What was found out so far; null while nothing was. */
  readonly isSafe: () => boolean | null
  readonly settle: (chargeId: string, total: number) => Promise<{ total: number; balance: CreditBalance }>
  /** Gives back what is left of a charge, once; one that has not come yet will not be made any more. */
  readonly cancel: (chargeId: string) => Promise<void>
  /**
   * Takes back, or returns, what a part of a purchase's price bought.
   *
   * @param by who asks, such as a dispute: of each, only the most, the first, or nothing counts, as `how` says; `ref`: what the
   * history calls it; `early`: of a purchase that is not known yet, it is taken when that is told
   * @returns how much was taken, below zero where it was returned; whether `by` asked for the first time; and the balance.
   * Undefined where no such purchase is known
   */
  readonly takeBack: (
    account: string,
    purchase: string,
    asked: { by: string; how: TakeBack; part: number; price: number; ref: string; early: boolean },
  ) => Promise<{ moved: number; first: boolean; balance: CreditBalance } | undefined>
  /** Counts a limiter that uses it, whose payments can be captured later by their ids; the last to leave closes it. */
  readonly attach: (providers: readonly PaymentProvider[]) => () => Promise<void>
}

const internals = new WeakMap<CreditLedger, LedgerInternals>()

/** Says what a limiter knows of a ledger that was just made. */
export function register(ledger: CreditLedger, known: LedgerInternals): CreditLedger {
  internals.set(ledger, known)
  return ledger
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` */
export function internalsOf(ledger: CreditLedger): LedgerInternals {
  const found = internals.get(ledger)
  if (found !== undefined) return found
  throw new RampmeterError('RAMPMETER_INVALID_OPTION', 'a ledger was not made by creditLedger({ store }); write that')
}
