import type { Request } from 'express'
import * as z from 'zod'
import type { Client } from '../client.ts'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { internalsOf, type CreditLedger } from './ledger.ts'
import type { PaymentProvider } from './provider.ts'

/** What a request costs in credits. */
export interface Price {
  /** Whole credits; 0 is free. */
  credits: number
  /** Makes it a deposit: set aside for so long, until it is captured or released. */
  hold?: Duration
  /**
   * Which answers of the handler cost nothing: `server-errors` (default), 5xx; `errors`, 4xx too: then whoever asks for what fails
   * is kept off by the limits alone. A deposit is given back after either.
   */
  free?: 'server-errors' | 'errors'
  /**
   * What becomes of it where the client hangs up before the answer is complete: `paid` (default), the handler's answer decides,
   * though nobody reads it; `free`, it is given back unless `settle` was called: for work that ends when its client goes.
   */
  hangUp?: 'paid' | 'free'
}

/** A route's price; a function is given the matched path's parameters for an entry of `routes`. */
export type RoutePrice =
  | Price
  | ((req: Request, client: Client, params: Record<string, string | string[] | undefined>) => Price | Promise<Price>)

export interface PaymentsOptions {
  /** The credits that priced routes charge; made on the limiter's store. Without one, every priced request is paid by a provider. */
  ledger?: CreditLedger
  /** Whose credits a request uses. Default: the client's id. */
  account?: (req: Request, client: Client) => string
  /** Other ways to pay for a request. Default none. */
  // oxlint-disable-next-line typescript/no-explicit-any -- each knows its own offers
  providers?: readonly PaymentProvider<any>[]
  /**
   * Whether who shows no credential is asked for one (401) before a price is: `required`, or `optional`, then a stranger is told how
   * to pay (402). Default: `required` where credits alone pay, accounts are clients' ids and `identify` is given, since a stranger has
   * no account there; else `optional`.
   */
  identity?: 'required' | 'optional'
  /** Where credits can be bought: told in a 402. */
  topUpUrl?: string
  /**
   * How many 402s a client may cause, and how many payments that are not good; past it they are 429. Strangers share those of their
   * address. A good payment gives back the 402 that it answers. Default 20, refilled in a minute.
   */
  challenges?: { quota?: number; window?: Duration }
}

/** The same, as the limiter works with it. */
export interface PaymentSettings {
  /** An account is a client's id. */
  readonly paysItself: boolean
  readonly ledger: CreditLedger | undefined
  readonly account: (req: Request, client: Client) => string
  readonly providers: readonly PaymentProvider[]
  readonly topUpUrl: string | undefined
  readonly identity: 'required' | 'optional' | undefined
  readonly challenges: { readonly quota: number; readonly windowMs: number }
}

const members = ['name', 'detect', 'challenge', 'verify', 'reserve', 'capture', 'release', 'refund'] as const

const paymentsSchema = z.strictObject({
  ledger: z
    .custom<CreditLedger>((value) => typeof value === 'object' && value !== null, 'creditLedger({ store })')
    .optional(),
  account: z.custom<PaymentSettings['account']>((value) => typeof value === 'function', 'a function').optional(),
  providers: z
    .array(
      z.custom<PaymentProvider>(
        (value) => members.every((name) => Object(value)[name] !== undefined),
        `a payment provider, such as x402({ … }): an object with ${members.join(', ')}`,
      ),
    )
    .default([]),
  identity: z.enum(['required', 'optional']).optional(),
  topUpUrl: z.url({ protocol: /^https?$/, error: 'an http(s) URL' }).optional(),
  challenges: z
    .strictObject({
      quota: z.int().min(1).max(1_000_000).default(20),
      window: z
        .unknown()
        .transform((value) => parseDuration(value, 'the `window` of `challenges`'))
        .prefault('1m'),
    })
    .prefault({}),
})

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION` */
export function readPayments(options: unknown): PaymentSettings {
  const { ledger, challenges, topUpUrl, identity, account, ...rest } = readOptions(paymentsSchema, options, 'payments')
  if (ledger !== undefined) internalsOf(ledger)
  if (ledger === undefined && rest.providers.length === 0) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      '`payments` has neither a `ledger` nor `providers`, so nobody could pay; write ledger: creditLedger({ store })',
    )
  }
  for (const [nth, provider] of rest.providers.entries()) {
    const { name } = provider
    if (provider.join !== undefined || !rest.providers.slice(0, nth).some((other) => other.name === name)) continue
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `\`payments.providers\` has two of the name ${JSON.stringify(name)}, whose challenges would overwrite each other; give one, or providers of different names`,
    )
  }
  return {
    ...rest,
    ledger,
    topUpUrl,
    identity,
    account: account ?? ((_req, client) => client.id),
    paysItself: account === undefined,
    challenges: { quota: challenges.quota, windowMs: challenges.window },
  }
}

/** A price that can be charged. */
export interface CheckedPrice {
  readonly credits: number
  readonly holdMs: number | null
  readonly errorsAreFree: boolean
  readonly hangUpIsFree: boolean
}

/**
 * Sees to it that a route's price can be paid by somebody.
 *
 * @throws {RampmeterError} `RAMPMETER_PAYMENTS_MISSING`, `RAMPMETER_PAYMENT_UNSUPPORTED`
 */
export function checkPayable(
  { price }: { readonly price?: RoutePrice | undefined },
  payments: PaymentSettings | undefined,
  what: string,
): void {
  if (price === undefined) return
  if (payments === undefined) {
    throw new RampmeterError(
      'RAMPMETER_PAYMENTS_MISSING',
      `${what} has a \`price\`, and the limiter has no \`payments\`, so nobody could pay it; write payments: { ledger: creditLedger({ store }) }`,
    )
  }
  if (typeof price !== 'function' && price.hold !== undefined && price.credits !== 0) checkHolds(payments, what)
}

/**
 * Sees to it that somebody can say who they are, where payers have to.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 */
export function checkNames(payments: PaymentSettings | undefined, namesClients: boolean): void {
  if (payments?.identity !== 'required' || namesClients) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    '`payments.identity` is "required", and there is no verifier in `identify`, so nobody could ever pay; add one, such as apiKey({ lookup })',
  )
}

/** @throws {RampmeterError} `RAMPMETER_PAYMENT_UNSUPPORTED` */
export function checkHolds({ ledger, providers }: PaymentSettings, what: string): void {
  if (ledger !== undefined || providers.some(({ holds }) => holds)) return
  throw new RampmeterError(
    'RAMPMETER_PAYMENT_UNSUPPORTED',
    `${what} asks for a deposit (\`hold\`), and nothing in \`payments\` can set money aside (${providers.map(({ name }) => name).join(', ')}), so nobody could pay it; add ledger: creditLedger({ store }), or a provider that holds, such as stripe`,
  )
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_PRICE`, `RAMPMETER_INVALID_DURATION` */
export function checkPrice(price: unknown, what: string): CheckedPrice {
  const { credits, hold, free, hangUp, ...others } = Object(price) as Record<keyof Price, unknown>
  const unknown = Object.keys(others)
  const isFree = free === undefined || free === 'server-errors' || free === 'errors'
  const isHangUp = hangUp === undefined || hangUp === 'paid' || hangUp === 'free'
  const isAmount = Number.isInteger(credits) && (credits as number) >= 0 && (credits as number) <= 1e12
  if (isAmount && isFree && isHangUp && unknown.length === 0) {
    return {
      credits: credits as number,
      holdMs: hold === undefined ? null : parseDuration(hold, `the \`hold\` of ${what}`),
      errorsAreFree: free === 'errors',
      hangUpIsFree: hangUp === 'free',
    }
  }
  const seen =
    unknown.length > 0
      ? `an unknown member \`${unknown[0]}\``
      : isAmount
        ? isFree
          ? 'a `hangUp` that is neither "paid" nor "free"'
          : 'a `free` that is neither "server-errors" nor "errors"'
        : `credits of ${typeof credits === 'number' ? credits : `type ${typeof credits}`}`
  throw new RampmeterError(
    'RAMPMETER_INVALID_PRICE',
    `${what} has ${seen}; write { credits: 5 }, a whole number from 0 to 10^12, or with a deadline { credits: 50, hold: '15m' }`,
  )
}
