import * as z from 'zod'
import { parseDuration, type Duration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import { isEvmAddress, isSolanaAddress } from './addresses.ts'

export interface X402Options {
  /** The facilitator, which verifies authorisations and settles them: a URL under which there are `/verify` and `/settle`. */
  facilitator: string
  /** Where it is paid, in CAIP-2 form: `eip155:8453`, or `solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp`. */
  network: string
  /** The token: its contract's address, on Solana its mint's. */
  asset: string
  /** The address that is paid. */
  payTo: string
  /** What a credit costs, in the token's smallest unit, as a text of digits. */
  perCredit: string
  /**
   * How it can be paid: `exact`, the price; `upto`, at most the price, settled to what `settle` says before the answer begins.
   * Default `['exact']`.
   */
  schemes?: readonly ('exact' | 'upto')[]
  /**
   * What clients want to know besides, to sign: on an EVM network `exact` the token's `name` and `version` (or `assetTransferMethod:
   * 'permit2'`), `upto` the `facilitatorAddress`; on Solana the `feePayer`. The last two the facilitator tells under `/supported`.
   */
  extra?: Readonly<Record<string, unknown>>
  /** How long an authorisation is to be good for, in whole seconds. Default 60. */
  maxTimeoutSeconds?: number
  /** The longest the facilitator, and `headers`, are waited for. Default 5 s. */
  timeout?: Duration
  /** Header fields for the facilitator, such as a credential of yours there; asked for each call. */
  headers?: () => Readonly<Record<string, string>> | Promise<Readonly<Record<string, string>>>
}

export interface X402Settings extends Required<Omit<X402Options, 'timeout' | 'headers'>> {
  readonly timeout: number
  readonly headers?: X402Options['headers'] | undefined
}

const optionsSchema = z.strictObject({
  facilitator: z.url({ protocol: /^https?$/, error: 'an http(s) URL' }),
  network: z
    .string()
    .regex(
      /^(eip155:[1-9]\d{0,31}|solana:[1-9A-HJ-NP-Za-km-z]{32})$/,
      'a network in CAIP-2 form, of those that are known here: "eip155:" and the chain\'s number, such as "eip155:8453", or "solana:" and 32 characters of its genesis hash',
    ),
  asset: z.string(),
  payTo: z.string(),
  perCredit: z.string().regex(/^[1-9]\d{0,60}$/, 'a text of digits, such as "1000"'),
  schemes: z
    .array(z.enum(['exact', 'upto']))
    .min(1)
    .default(['exact']),
  extra: z.record(z.string(), z.unknown()).default({}),
  maxTimeoutSeconds: z.int().min(1).max(86_400).default(60),
  timeout: z
    .unknown()
    .transform((value) => parseDuration(value, "x402's timeout"))
    .prefault('5s'),
  headers: z.custom<X402Options['headers'] & {}>((value) => typeof value === 'function', 'a function').optional(),
})

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION` */
export function readX402Options(options: X402Options): X402Settings {
  const settings = readOptions(optionsSchema, options, 'x402')
  const mistakes = [...mistakesOfUrl(settings), ...mistakesOfAddresses(settings), ...mistakesOfExtra(settings)]
  if (mistakes.length === 0) return settings
  throw new RampmeterError('RAMPMETER_INVALID_OPTION', `x402: ${mistakes.join('; ')}`)
}

function mistakesOfUrl({ facilitator }: X402Settings): string[] {
  const { username, password, search, hash } = new URL(facilitator)
  if (username === '' && password === '' && search === '' && hash === '') return []
  return [
    '`facilitator` has a credential, a query or a fragment; `/verify` and `/settle` are written after it, so write the URL alone, and a credential as `headers`',
  ]
}

/** What is sent to an address that nobody has the key of is gone. */
function mistakesOfAddresses({ network, asset, payTo }: X402Settings): string[] {
  const isEvm = network.startsWith('eip155:')
  const isAddress = isEvm ? isEvmAddress : isSolanaAddress
  const form = isEvm
    ? '0x and 40 hexadecimal digits, with a good checksum (ERC-55) or all in small letters'
    : '32 bytes in base 58'
  // Neither is told: who mixes them up with a key had better not find it in a log.
  const mistakes = Object.entries({ asset, payTo })
    .filter(([, address]) => !isAddress(address))
    .map(([name]) => `\`${name}\` is no address on ${network}; write ${form}`)
  if (mistakes.length > 0) return mistakes
  if (payTo.toLowerCase() === asset.toLowerCase()) {
    return ['`payTo` is the token itself, where nobody could get at the money; write the address that is paid']
  }
  return Object.entries({ asset, payTo })
    .filter(([, address]) => /^(0x0{40}|1{32})$/.test(address))
    .map(([name]) => `\`${name}\` is the address that nobody has; write the right one`)
}

/** Without these no client can sign, and every 402 would ask for what cannot be paid. */
function mistakesOfExtra({ network, schemes, extra }: X402Settings): string[] {
  try {
    JSON.stringify(extra)
  } catch {
    return ['`extra` cannot be written as JSON']
  }
  const isText = (name: string): boolean => typeof extra[name] === 'string' && extra[name] !== ''
  const isAddress = (name: string, is: (text: string) => boolean): boolean => isText(name) && is(extra[name] as string)
  if (network.startsWith('solana:')) {
    if (isAddress('feePayer', isSolanaAddress)) return []
    return [
      "on Solana clients sign for who pays the fee; write extra: { feePayer: '…' }, as the facilitator tells it under /supported",
    ]
  }
  const mistakes: string[] = []
  if (
    schemes.includes('exact') &&
    extra['assetTransferMethod'] !== 'permit2' &&
    !(isText('name') && isText('version'))
  ) {
    mistakes.push(
      "clients sign `exact` with the token's name and version; write extra: { name: 'USD Coin', version: '2' }, as its contract tells them",
    )
  }
  if (schemes.includes('upto') && !isAddress('facilitatorAddress', isEvmAddress)) {
    mistakes.push(
      "clients sign `upto` for one facilitator; write extra: { facilitatorAddress: '0x…' }, as it tells under /supported",
    )
  }
  return mistakes
}
