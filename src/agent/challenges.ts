// The two answers that are no refusal but a question: who are you, and who pays?

import { RampmeterError } from '../errors.ts'

/** What a proof is made for. */
export interface ProofRequest {
  readonly method: string
  /** The whole URL of the request. */
  readonly url: string
  /** The same without query and fragment: the `htu` claim. */
  readonly htu: string
  /** The newest nonce of this server, for the `nonce` claim; undefined where it gave none. */
  readonly nonce: string | undefined
  /** The token that goes with it, for the `ath` claim: what `Authorization: DPoP` carries. */
  readonly accessToken: string | undefined
}

/** Makes a DPoP proof: a JWT in compact form, or nothing for a request that needs none. */
export type ProveHook = (request: ProofRequest) => string | null | undefined | Promise<string | null | undefined>

/** What is to be paid. */
export interface Bill {
  readonly request: Request
  /** The 402. Reading its body takes nothing from the caller. */
  readonly response: Response
  /**
   * Sets so much of `payBudget` aside for this call, in the smallest part of a unit that is named there; false where it does not
   * allow that, and then the bill is not to be paid. It has to be called before what shows no amount of its own is signed or
   * confirmed, such as a PaymentIntent or a transaction; what an x402 authorisation is for is read from it. True without a budget.
   */
  readonly reserve: (unit: string, amount: bigint | number | string) => boolean
}

/** Header fields that pay a bill, or nothing to decline. */
export type PayHook = (bill: Bill) => PaymentFields | null | undefined | Promise<PaymentFields | null | undefined>

/**
 * What `pay` answered, as fields that can be sent.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_PAYMENT`
 */
export function readPayment(payment: unknown): Headers {
  let fields: Headers | undefined
  try {
    if (typeof payment === 'object') fields = new Headers(payment as PaymentFields)
  } catch {
    // What cannot be sent is told below, without what it says.
  }
  if (fields !== undefined && [...fields].length > 0) return fields
  throw new RampmeterError(
    'RAMPMETER_INVALID_PAYMENT',
    `pacedFetch: \`pay\` answered with ${typeof payment === 'object' ? 'an object that holds no header fields that can be sent' : `a value of type ${typeof payment}`}; return the fields that pay, as { 'PAYMENT-SIGNATURE': '…' }, or nothing to decline. Nothing counts as spent`,
  )
}

export type PaymentFields = Headers | Record<string, string>

/** A nonce as RFC 9449 section 8.1 spells it, and no longer than one need be. */
const nonceSyntax = /^[\x21\x23-\x5b\x5d-\x7e]{1,1024}$/

/** The nonce that a response hands out. */
export function nonceOf(headers: Headers): string | null {
  const nonce = headers.get('dpop-nonce')
  return nonce !== null && nonceSyntax.test(nonce) ? nonce : null
}

/**
 * Whether a response asks for a proof with the nonce it brings.
 *
 * @see [RFC 9449 section 9](https://www.rfc-editor.org/rfc/rfc9449#section-9)
 */
export function wantsNonce(response: Response): boolean {
  if (response.status !== 401) return false
  const challenge = response.headers.get('www-authenticate') ?? ''
  return /(?:^|[\s,])DPoP(?:\s|$)/i.test(challenge) && /[\s,]error="?use_dpop_nonce"?(?:[\s,]|$)/i.test(challenge)
}

/** What a proof for this request is to be made for. */
export function proofRequest(method: string, url: URL, headers: Headers, nonce: string | undefined): ProofRequest {
  const [, accessToken] = /^DPoP +(\S+)$/i.exec(headers.get('authorization') ?? '') ?? []
  return { method, url: url.href, htu: `${url.origin}${url.pathname}`, nonce, accessToken }
}
