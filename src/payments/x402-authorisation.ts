import { createHash } from 'node:crypto'

/** What of a payload says which authorisation it is, so that however it is written it pays once. */
export interface Authorisation {
  readonly claim: string
  readonly payer: string | undefined
  /** When it ends, in ms since 1970; 0 where it does not say. */
  readonly endsMs: number
  /** What it says of itself; undefined where only the facilitator can tell. */
  readonly to: string | undefined
  readonly token: string | undefined
  readonly amount: bigint | undefined
}

/** Undefined: it cannot be read. */
export function readAuthorisation(network: string, payload: Record<string, unknown>): Authorisation | undefined {
  return network.startsWith('eip155:') ? ofSignature(payload) : ofTransaction(payload)
}

const evmAddress = /^0x[0-9a-f]{40}$/i
const evmNumber = /^(0x[0-9a-f]{1,64}|\d{1,78})$/i

/** Of EIP-3009 or Permit2: payer and nonce. */
function ofSignature(payload: Record<string, unknown>): Authorisation | undefined {
  const { authorization, permit2Authorization } = payload
  // Of two, the facilitator would settle one, and the other could be written anew each time.
  if (authorization !== undefined && permit2Authorization !== undefined) return undefined
  const signed = authorization ?? permit2Authorization
  if (!isObject(signed)) return undefined
  const { from, nonce, validBefore, deadline } = signed
  if (typeof from !== 'string' || !evmAddress.test(from)) return undefined
  // The same number may be written in several ways.
  const number = numberOf(nonce)
  if (number === undefined) return undefined
  const permitted = isObject(signed['permitted']) ? signed['permitted'] : {}
  const witness = isObject(signed['witness']) ? signed['witness'] : {}
  const amount = authorization === undefined ? permitted['amount'] : signed['value']
  if (numberOf(amount) === undefined) return undefined
  return {
    claim: `${from.toLowerCase()} ${number}`,
    payer: from,
    endsMs: Number(validBefore ?? deadline ?? 0) * 1000 || 0,
    to: textOf(authorization === undefined ? witness['to'] : signed['to']),
    token: textOf(permitted['token']),
    amount: numberOf(amount),
  }
}

/**
 * Of Solana: the message that was signed. Its signatures are no part of that: one is the facilitator's to make, and whoever sends it
 * may write there what he likes. A transaction that is sent again succeeds again, and moves nothing.
 */
function ofTransaction({ transaction }: Record<string, unknown>): Authorisation | undefined {
  if (typeof transaction !== 'string' || transaction === '') return undefined
  const bytes = Buffer.from(transaction, 'base64')
  if (bytes.toString('base64') !== transaction) return undefined
  // A transaction has at most 1232 bytes, so that the count of its signatures of 64 is one byte.
  const signatures = bytes[0] ?? 0
  const message = bytes.subarray(1 + 64 * signatures)
  if (signatures === 0 || signatures > 19 || !isMessage(message)) return undefined
  return {
    claim: createHash('sha256').update(message).digest('base64url'),
    payer: undefined,
    endsMs: Date.now() + 86_400_000,
    to: undefined,
    token: undefined,
    amount: undefined,
  }
}

/** Whether it is a whole message and no byte more, written in the one way that there is. */
function isMessage(bytes: Buffer): boolean {
  let at = 0
  const list = (skip: () => void): void => {
    let count = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at]
      // A last byte of 0 would be another way to write it.
      if (byte === undefined || shift > 14 || (byte === 0 && shift > 0)) throw new RangeError()
      at += 1
      count |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    for (let nth = 0; nth < count && at <= bytes.length; nth += 1) skip()
  }
  const skip = (length: number) => () => void (at += length)
  const isVersioned = (bytes[0] ?? 0) >= 0x80
  if (isVersioned && bytes[0] !== 0x80) return false
  try {
    at += isVersioned ? 4 : 3
    list(skip(32)) // accounts
    at += 32 // a recent blockhash
    list(() => {
      at += 1
      list(skip(1)) // its accounts
      list(skip(1)) // its data
    })
    const skipLookup = (): void => {
      at += 32
      list(skip(1))
      list(skip(1))
    }
    if (isVersioned) list(skipLookup)
  } catch {
    return false
  }
  return at === bytes.length
}

function numberOf(value: unknown): bigint | undefined {
  if (typeof value === 'number' ? !Number.isSafeInteger(value) || value < 0 : typeof value !== 'string')
    return undefined
  return evmNumber.test(String(value)) ? BigInt(value as string | number) : undefined
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
