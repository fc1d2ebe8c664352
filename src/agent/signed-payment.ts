// What a payment is really for: read from what was signed, and not from the bill that asked for it.

/** An amount of one unit. */
export interface SignedPayment {
  /** `<network>/<asset>`. */
  readonly unit: string
  readonly amount: bigint
}

/**
 * Reads what an x402 authorisation (version 2) lets its holder take: of `exact` the value that is authorised, of `upto` what is
 * permitted at most.
 *
 * @returns undefined where the signature is of another kind, such as a signed transaction, and does not show its amount;
 * `unreadable` for what is no payment payload
 *
 * @see [x402 v2, exact on EVM](https://github.com/x402-foundation/x402/blob/main/specs/schemes/exact/scheme_exact_evm.md)
 */
export function readSignedPayment(header: string): SignedPayment | 'unreadable' | undefined {
  const payload = decode(header)
  const accepted = fieldOf(payload, 'accepted')
  const signed = fieldOf(payload, 'payload')
  const network = fieldOf(accepted, 'network')
  const asset = fieldOf(accepted, 'asset')
  if (typeof network !== 'string' || typeof asset !== 'string' || !isObject(signed)) return 'unreadable'
  const ofToken = fieldOf(signed, 'authorization')
  const ofPermit = fieldOf(signed, 'permit2Authorization')
  // Both at once would leave open which of them is taken.
  if (isObject(ofToken) && isObject(ofPermit)) return 'unreadable'
  if (isObject(ofToken)) return signedFor(network, asset, ofToken['value'])
  if (!isObject(ofPermit)) return undefined
  const permitted = ofPermit['permitted']
  const token = fieldOf(permitted, 'token')
  return typeof token === 'string' ? signedFor(network, token, fieldOf(permitted, 'amount')) : 'unreadable'
}

function signedFor(network: string, asset: string, value: unknown): SignedPayment | 'unreadable' {
  if (typeof value !== 'string' || !/^(\d{1,78}|0x[0-9a-fA-F]{1,64})$/.test(value)) return 'unreadable'
  return { unit: `${network}/${asset}`, amount: BigInt(value) }
}

function decode(header: string): unknown {
  try {
    const bytes = Uint8Array.from(atob(header.replaceAll('-', '+').replaceAll('_', '/')), (one) => one.charCodeAt(0))
    return JSON.parse(new TextDecoder().decode(bytes))
  } catch {
    return undefined
  }
}

function fieldOf(value: unknown, name: string): unknown {
  return isObject(value) ? value[name] : undefined
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
