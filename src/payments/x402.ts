import { createHash } from 'node:crypto'
import type { Request } from 'express'
import { RampmeterError } from '../errors.ts'
import { unsupported } from './payment.ts'
import type { Offer, PaymentOutcome, PaymentProvider } from './provider.ts'
import { isObject, readAuthorisation, type Authorisation } from './x402-authorisation.ts'
import { readX402Options, type X402Options } from './x402-options.ts'
import { lackOf } from './x402-supported.ts'

export type { X402Options } from './x402-options.ts'

/** How a payment can be made: `PaymentRequirements` of x402 v2, section 5.1. */
export interface X402Requirements {
  readonly scheme: string
  readonly network: string
  readonly amount: string
  readonly asset: string
  readonly payTo: string
  readonly maxTimeoutSeconds: number
  readonly extra: Readonly<Record<string, unknown>>
}

/** An authorisation that a request carries. */
export interface X402Offer extends Offer {
  readonly scheme: 'exact' | 'upto'
  /** Who signed it, where the payload tells. */
  readonly payer: string | undefined
  /** The decoded `PaymentPayload`. */
  readonly payload: Readonly<Record<string, unknown>>
}

/** An authorisation without an end is remembered for so long; then the network alone knows that it was used. */
const longestMemoryMs = 30 * 24 * 3_600_000
const shortestMemoryMs = 60_000

/** A facilitator that is away holds the start of an app back no longer. */
const longestLookMs = 2000

/** An answer of the facilitator is no longer. */
const longestAnswer = 65_536

/**
 * Payment by stablecoin and the like with x402, version 2: the client signs an authorisation, a facilitator verifies it before
 * the handler runs, and settles it before the first byte of the answer leaves.
 *
 * Each authorisation pays once: it is claimed in the store, with the decision that admits the request.
 *
 * @see [x402 v2](https://github.com/x402-foundation/x402/blob/main/specs/x402-specification-v2.md), [over HTTP](https://github.com/x402-foundation/x402/blob/main/specs/transports-v2/http.md)
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function x402(options: X402Options): PaymentProvider<X402Offer> {
  const settings = readX402Options(options)
  const { network, asset, payTo, perCredit, schemes, extra, maxTimeoutSeconds, timeout, headers } = settings
  const facilitator = settings.facilitator.replace(/\/$/, '')

  function requirements(scheme: string, credits: number): X402Requirements {
    const amount = String(BigInt(perCredit) * BigInt(credits))
    return { scheme, network, amount, asset, payTo, maxTimeoutSeconds, extra }
  }

  /** What differs between what the client took, or signed, and what is offered. */
  function mismatchOf(accepted: Record<string, unknown>, signed: Authorisation, credits: number): string | undefined {
    if (fold(accepted['network']) !== fold(network)) return otherNetwork
    if (!schemes.includes(accepted['scheme'] as 'exact')) return 'the scheme is not offered here'
    const offered = requirements(accepted['scheme'] as string, credits)
    for (const name of ['asset', 'payTo', 'amount'] as const) {
      if (fold(accepted[name]) !== fold(offered[name])) return `its ${name} is not what is offered here`
    }
    if (signed.to !== undefined && fold(signed.to) !== fold(payTo)) return 'it was signed for another payee'
    if (signed.token !== undefined && fold(signed.token) !== fold(asset)) return 'it was signed for another token'
    if (signed.amount !== undefined && signed.amount < BigInt(offered.amount)) return 'it was signed for less'
    return undefined
  }

  async function send(path: string, ms: number, body?: string): Promise<Response> {
    const signal = AbortSignal.timeout(ms)
    // A credential may have to be fetched, which may hang as well.
    const credential = await before(signal, headers?.())
    const fields = { ...credential, ...(body !== undefined && { 'content-type': 'application/json' }) }
    return await fetch(`${facilitator}/${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: fields,
      ...(body !== undefined && { body }),
      redirect: 'error',
      signal,
    })
  }

  async function ask(what: 'verify' | 'settle', offer: X402Offer, credits: number): Promise<Record<string, unknown>> {
    const body = JSON.stringify({
      x402Version: 2,
      paymentPayload: offer.payload,
      paymentRequirements: requirements(offer.scheme, credits),
    })
    const response = await send(what, timeout, body)
    const answer = await readAnswer(response)
    if (answer !== undefined && isVerdict(what, response.status, answer)) return answer
    throw new RampmeterError(
      'RAMPMETER_PAYMENT_PROVIDER',
      `the x402 facilitator answered ${what} with status ${response.status}, and nothing that says whether the payment is ${what === 'verify' ? 'good' : 'settled'}`,
    )
  }

  /** What the facilitator says that it settles; undefined where it does not answer that. */
  async function supported(): Promise<Record<string, unknown> | undefined> {
    try {
      const response = await send('supported', Math.min(timeout, longestLookMs))
      const answer = await readAnswer(response)
      return response.ok ? answer : undefined
    } catch {
      return undefined
    }
  }

  return {
    name: 'x402',
    holds: false,
    fieldNames: ['PAYMENT-REQUIRED', 'PAYMENT-RESPONSE'],

    async ready() {
      const lack = lackOf(await supported(), schemes, network)
      if (lack === undefined) return
      const settles = lack.settles.slice(0, 10).map((kind) => plain(kind, '…'))
      throw new RampmeterError(
        'RAMPMETER_PAYMENT_UNSUPPORTED',
        `the x402 facilitator ${facilitator} does not settle ${lack.missing.join(' and ')} on ${network}, so that no such payment would be good; by its /supported it settles ${settles.join(', ') || 'nothing in version 2'}; write what it settles, or another facilitator`,
      )
    },

    detect(req, { credits }) {
      const header = req.headers['payment-signature']
      if (typeof header !== 'string') return undefined
      const payload = decode(header)
      const accepted = payload?.['accepted']
      if (payload === undefined || !isObject(accepted) || !isObject(payload['payload'])) {
        return { malformed: 'PAYMENT-SIGNATURE is not the base64 of a payment payload' }
      }
      if (payload['x402Version'] !== 2) return { malformed: 'its x402Version is not 2' }
      if (typeof accepted['network'] === 'string' && fold(accepted['network']) !== fold(network)) {
        // Its authorisation may be of a kind that is not known here.
        const claim = createHash('sha256').update(header).digest('base64url')
        return {
          claim,
          lastsMs: shortestMemoryMs,
          scheme: 'exact',
          payer: undefined,
          payload,
          mismatch: otherNetwork,
          isForeign: true,
        }
      }
      const authorisation = readAuthorisation(network, payload['payload'])
      if (authorisation === undefined) return { malformed: 'its authorisation cannot be read' }
      const { claim, payer, endsMs } = authorisation
      const lastsMs = Math.min(Math.max(endsMs - Date.now(), shortestMemoryMs), longestMemoryMs)
      return {
        claim: createHash('sha256').update(`${network}\n${claim}`).digest('base64url'),
        lastsMs,
        scheme: accepted['scheme'] as 'exact',
        payer,
        payload,
        mismatch: mismatchOf(accepted, authorisation, credits),
      }
    },

    challenge({ credits, req }, error) {
      const accepts = schemes.map((scheme) => requirements(scheme, credits))
      const required = {
        x402Version: 2,
        error: error ?? 'PAYMENT-SIGNATURE header is required',
        resource: { url: urlOf(req) },
        accepts,
      }
      return { way: { accepts }, fields: { 'PAYMENT-REQUIRED': encode(required) } }
    },

    join(challenges) {
      const required = challenges.map(({ fields }) => decode(fields!['PAYMENT-REQUIRED']!)!)
      const accepts = required.flatMap((one) => one['accepts'] as X402Requirements[])
      return { way: { accepts }, fields: { 'PAYMENT-REQUIRED': encode({ ...required[0], accepts }) } }
    },

    async verify(offer, { credits }): Promise<PaymentOutcome> {
      const { isValid, invalidReason, payer } = await ask('verify', offer, credits)
      if (isValid !== true) return { paid: false, reason: plain(invalidReason, 'the facilitator does not accept it') }
      if (namesAnother(payer, offer)) {
        return { paid: false, reason: 'it was signed by somebody else' }
      }
      return { paid: true, payer: offer.payer }
    },

    // The signature sets nothing aside.
    reserve: async () => {},

    // What is signed as `exact` can only be taken whole, or not at all.
    comesTo: ({ scheme }, credits, bill) => (scheme === 'upto' || credits === 0 ? credits : bill.credits),

    async capture(offer, credits, bill): Promise<PaymentOutcome> {
      if (offer.scheme === 'exact' && credits === 0) return { paid: true, payer: offer.payer }
      const taken = offer.scheme === 'upto' ? credits : bill.credits
      const settled = await ask('settle', offer, taken)
      if (settled['success'] === true) mustBeOurs(settled, offer, requirements(offer.scheme, taken))
      const { success, transaction, errorReason, payer, amount } = settled
      const told = {
        success: success === true,
        ...(success !== true && { errorReason: plain(errorReason, 'unexpected_settle_error') }),
        transaction: plain(transaction, ''),
        network,
        ...(typeof payer === 'string' && { payer: plain(payer, '') }),
        ...(typeof amount === 'string' && { amount: plain(amount, '') }),
      }
      const fields = { 'PAYMENT-RESPONSE': encode(told) }
      if (success === true) return { paid: true, payer: offer.payer, credits: taken, fields }
      return { paid: false, reason: plain(errorReason, 'it could not be settled'), fields }
    },

    // An authorisation that is not settled ends by itself.
    release: async () => {},

    async refund() {
      throw unsupported(
        'an x402 payment that is settled cannot be taken back; send its payer what you owe, or grant credits',
      )
    },
  }
}

/**
 * Whether an answer says something of the payment. One that only says that the facilitator was asked wrongly, too often or without its
 * credential does not: nobody who pays can mend that.
 */
function isVerdict(what: 'verify' | 'settle', status: number, answer: Record<string, unknown>): boolean {
  const says = answer[what === 'verify' ? 'isValid' : 'success']
  if (typeof says === 'boolean') return status < 300 || (status < 500 && !says)
  // What it cannot read was written by who pays, and is no payment; whether it settled, it has to say.
  return what === 'verify' && (status === 400 || status === 422)
}

/** Whether the facilitator names another payer than the authorisation; it need not name any. */
function namesAnother(payer: unknown, offer: X402Offer): boolean {
  return typeof payer === 'string' && payer !== '' && offer.payer !== undefined && fold(payer) !== fold(offer.payer)
}

/** What was settled elsewhere, for somebody else or at another amount, is not what this request is paid with. */
function mustBeOurs(settled: Record<string, unknown>, offer: X402Offer, { network, amount }: X402Requirements): void {
  const { network: where, payer, transaction, amount: taken } = settled
  const differs =
    (fold(where) !== fold(network) && 'network') ||
    (namesAnother(payer, offer) && 'payer') ||
    (typeof taken === 'string' && taken !== amount && 'amount') ||
    // Of nothing that is taken there is none.
    (amount !== '0' && plain(transaction, '') === '' && 'transaction')
  if (differs === false) return
  throw new RampmeterError(
    'RAMPMETER_PAYMENT_PROVIDER',
    `the x402 facilitator says that it settled, and the ${differs} it tells is not that of the payment; look whether ${network} is its network, and whether it was taken`,
  )
}

/** What there is before a signal aborts. */
async function before<T>(signal: AbortSignal, work: T | Promise<T>): Promise<T> {
  return await new Promise((resolve, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true })
    Promise.resolve(work).then(resolve, reject)
  })
}

const otherNetwork = 'its network is not what is offered here'

/** Addresses and networks are the same in either case. */
function fold(value: unknown): unknown {
  return typeof value === 'string' ? value.toLowerCase() : value
}

function decode(header: string): Record<string, unknown> | undefined {
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(header)) return undefined
  try {
    const value: unknown = JSON.parse(Buffer.from(header, 'base64').toString('utf8'))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64')
}

/** A word of the facilitator's that is told on: short, and nothing that could be mistaken for more. */
function plain(value: unknown, otherwise: string): string {
  return typeof value === 'string' && /^[\x20-\x7e]{1,256}$/.test(value) ? value : otherwise
}

function urlOf(req: Request): string {
  const host = req.get('host') ?? ''
  const path = req.originalUrl.split('?', 1)[0]!
  return `${req.protocol}://${host}${path}`
}

async function readAnswer(response: Response): Promise<Record<string, unknown> | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of response.body ?? []) {
    size += part.byteLength
    if (size > longestAnswer) return undefined
    parts.push(part)
  }
  try {
    const value: unknown = JSON.parse(Buffer.concat(parts).toString('utf8'))
    return isObject(value) ? value : undefined
  } catch {
    return undefined
  }
}
