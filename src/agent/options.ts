import { RampmeterError } from '../errors.ts'
import type { PayHook, ProveHook } from './challenges.ts'
import { isMisspelt, readAmount, unitName, type Budget, type PayBudget } from './spending.ts'

/**
 * Why a call waits.
 *
 * - `refused`: the server refused it and said when to come back
 * - `backoff`: the server refused it and said nothing; the wait is a guess
 * - `quota`: nothing is left of a limit, or calls under way will use what is
 * - `pace`: a limit nears its end, and the rest of it is spread
 * - `first-answer`: nothing is known of this server yet, and enough calls are under way to find out
 */
export type WaitReason = 'refused' | 'backoff' | 'quota' | 'pace' | 'first-answer'

/** A wait that begins. */
export interface Wait {
  readonly url: string
  readonly method: string
  /**
   * How long it will take. For `refused` and `backoff` it is what was told or chosen, and never less; a server that refused again and
   * again is asked more slowly, which comes on top. Else an estimate, since others' answers may shorten it.
   */
  readonly ms: number
  readonly reason: WaitReason
}

/** A span of time: milliseconds, or a number with a unit: `'250ms'`, `'10s'`, `'1m'`, `'1h'`, `'1d'`. */
export type WaitDuration = number | `${number}${'ms' | 's' | 'm' | 'h' | 'd'}`

export interface PacedFetchOptions {
  /**
   * The longest wait that is believed, in ms or as text. Default: `'60s'`; at most a day. A refusal that asks for more is
   * returned as it came. No single wait of a call is longer; a call that is refused again may wait again.
   */
  maxWait?: WaitDuration
  /** Called when a wait begins. What it throws, the call rejects with. */
  onWait?: (wait: Wait) => void
  /** What sends the requests. Default: the global `fetch`. */
  fetch?: typeof fetch
  /**
   * Makes the DPoP proof for a request (RFC 9449 section 4.2). Called for every attempt, since a proof is used once; nothing is
   * sent where it answers nothing. Default: none are sent.
   */
  prove?: ProveHook
  /**
   * Answers a 402 with the header fields that pay, or with nothing to decline; the 402 is then returned as it came. Called at
   * most once a call. Default: 402s are returned.
   */
  pay?: PayHook
  /**
   * What may be spent by `pay`, by what it is spent in: `{ 'eip155:8453/0x8335…': { total: '5000000', perCall: '10000' } }`. It counts
   * what is signed, not what a bill says. What would go beyond it, or is in a unit that is not named, is not sent: the 402 is
   * returned as it came. Default: `pay` decides alone.
   */
  payBudget?: PayBudget
  /**
   * Whether a refused request may be sent again. Default: those that are idempotent by their method (RFC 9110 section 9.2.2),
   * and those with an `Idempotency-Key`. A body that is a stream is never sent twice, whatever this says.
   */
  retry?: (request: { readonly url: string; readonly method: string; readonly headers: Headers }) => boolean
  /** How often a call is sent again, and how much of an origin's traffic may be repetition. */
  retryBudget?: RetryBudgetOptions
}

export interface RetryBudgetOptions {
  /** The most times one call is sent again. Default: 8. */
  perCall?: number
  /**
   * How many retries a served request pays for. A call's first retry is free where the server named the time; later ones, and
   * guesses, are paid from this. Default: 0.2.
   */
  share?: number
  /** How many such retries an origin has to begin with. Default: 10. */
  reserve?: number
}

export interface Settings {
  readonly maxWaitMs: number
  readonly onWait: (wait: Wait) => void
  readonly fetch: typeof fetch
  readonly prove: ProveHook | undefined
  readonly pay: PayHook | undefined
  readonly payBudget: Budget | undefined
  readonly retry: (request: { url: string; method: string; headers: Headers }) => boolean
  readonly budget: Required<RetryBudgetOptions>
}

const known = ['maxWait', 'onWait', 'fetch', 'prove', 'pay', 'payBudget', 'retry', 'retryBudget']
const knownBudget = ['perCall', 'share', 'reserve']
const unitMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 }
const longestWaitMs = 24 * 3_600_000

/** @throws {RampmeterError} `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_OPTION`, `RAMPMETER_INVALID_DURATION` */
export function readOptions(options: PacedFetchOptions): Settings {
  expectObject(options, 'the options of pacedFetch')
  refuseUnknown(options, known, 'pacedFetch')
  for (const name of ['onWait', 'fetch', 'prove', 'pay', 'retry'] as const) {
    const value: unknown = options[name]
    if (value !== undefined && typeof value !== 'function') {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: \`${name}\` is ${typeof value}; give a function`,
      )
    }
  }
  return {
    maxWaitMs: readDuration(options.maxWait ?? '60s'),
    onWait: options.onWait ?? (() => {}),
    // Looked up at each call, so that a global that is replaced later (by a test, by instrumentation) is the one used.
    fetch: options.fetch ?? ((input, init) => globalThis.fetch(input, init)),
    prove: options.prove,
    pay: options.pay,
    payBudget: readPayBudget(options.payBudget, options.pay),
    retry: options.retry ?? isRepeatable,
    budget: readBudget(options.retryBudget ?? {}),
  }
}

/** Safe or idempotent by RFC 9110 section 9.2, QUERY by its own specification; else it takes a key that says so. */
const idempotent = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE', 'QUERY'])

function isRepeatable({ method, headers }: { method: string; headers: Headers }): boolean {
  return idempotent.has(method) || headers.has('idempotency-key')
}

function readBudget(given: RetryBudgetOptions): Required<RetryBudgetOptions> {
  expectObject(given, '`retryBudget`')
  refuseUnknown(given, knownBudget, '`retryBudget`')
  const budget = { perCall: given.perCall ?? 8, share: given.share ?? 0.2, reserve: given.reserve ?? 10 }
  for (const [name, value] of Object.entries(budget)) {
    if (!(typeof value === 'number' && value >= 0 && value <= 1e6) || (name !== 'share' && !Number.isInteger(value))) {
      const what = name === 'share' ? 'a number' : 'a whole number'
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: \`retryBudget.${name}\` is ${String(value)}; write ${what} of at least 0`,
      )
    }
  }
  return budget
}

function readPayBudget(given: PayBudget | undefined, pay: PayHook | undefined): Budget | undefined {
  if (given === undefined) return undefined
  if (pay === undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'pacedFetch: `payBudget` bounds what `pay` spends, and there is no `pay`, so nothing would ever be paid; give both',
    )
  }
  expectObject(given, '`payBudget`')
  const budget = new Map<string, { total: bigint; perCall: bigint }>()
  for (const [unit, allowance] of Object.entries(given)) {
    const where = `\`payBudget[${JSON.stringify(unit)}]\``
    if (isMisspelt(unit)) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: ${where} is the unit of no payment, so that nothing would ever be paid by it; write the network in CAIP-2 form and the token's address, such as 'eip155:8453/0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'`,
      )
    }
    if (typeof allowance !== 'object' || allowance === null) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: ${where} is ${typeof allowance}; write what may be spent by its unit: { 'eip155:8453/0x8335…': { total: '5000000', perCall: '10000' }, usd: { total: 2000 } }`,
      )
    }
    refuseUnknown(allowance, ['total', 'perCall'], where)
    const total = readAmount(allowance.total)
    const perCall = allowance.perCall === undefined ? total : readAmount(allowance.perCall)
    if (total === undefined || perCall === undefined) {
      const [name, seen] = total === undefined ? ['total', allowance.total] : ['perCall', allowance.perCall]
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: ${where}.${name} is ${String(seen)}; write a whole number of the smallest part of the unit, or a text of digits`,
      )
    }
    if (perCall > total) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        `pacedFetch: ${where}.perCall is ${perCall}, more than the ${total} of \`total\` that there are in all; write at most that`,
      )
    }
    budget.set(unitName(unit), { total, perCall })
  }
  return budget
}

function readDuration(value: unknown): number {
  const [, number, unit] = typeof value === 'string' ? (/^(\d+(?:\.\d+)?)(ms|s|m|h|d)$/.exec(value) ?? []) : []
  const ms = typeof value === 'number' ? value : Number(number) * (unitMs[unit ?? ''] ?? Number.NaN)
  if (!(ms >= 0 && ms <= longestWaitMs)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_DURATION',
      `pacedFetch: \`maxWait\` is ${typeof value === 'string' ? JSON.stringify(value) : String(value)}; write milliseconds or a text such as "500ms", "60s" or "5m", from 0 to a day`,
    )
  }
  return ms
}

function expectObject(value: unknown, what: string): void {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `pacedFetch: ${what} must be an object, as in { maxWait: "60s" }`,
  )
}

function refuseUnknown(options: object, names: readonly string[], where: string): void {
  const unknown = Object.keys(options).find((name) => !names.includes(name))
  if (unknown === undefined) return
  throw new RampmeterError(
    'RAMPMETER_UNKNOWN_OPTION',
    `${where} has no option \`${unknown}\`; there are ${names.join(', ')}`,
  )
}
