/**
 * Every code that a {@link RampmeterError} or a warning of this library can carry, with what it means. Codes are stable:
 * they are never renamed, and each has a section of the same name in `docs/errors.md`.
 */
export const errorCodes = {
  RAMPMETER_UNKNOWN_OPTION: 'an option that does not exist, or stands in the wrong place',
  RAMPMETER_INVALID_OPTION: 'an option has a value it cannot have',
  RAMPMETER_INVALID_DURATION: 'a duration that is not a number of milliseconds or a text such as "10s"',
  RAMPMETER_TIERS_AND_POLICIES: '`tiers` and `policies` were both given',
  RAMPMETER_RESERVED_TIER: 'a tier has a name that the library uses itself',
  RAMPMETER_TIERS_NEED_CLASSIFY: 'tiers of your own leave out a preset tier, and nothing says who belongs in them',
  RAMPMETER_UNKNOWN_TIER: 'a request was put in a tier that is not configured',
  RAMPMETER_UNKNOWN_POOL: 'a tier names a pool that is not configured',
  RAMPMETER_DUPLICATE_POLICY: 'two policies of one decision have the same name',
  RAMPMETER_UNKNOWN_POLICY: '`settle` or `partitions` names a policy that the limiter does not have',
  RAMPMETER_POLICY_NAME: 'a policy name that cannot stand in a header field',
  RAMPMETER_STATE_ID_CLASH: 'two different policies would share one counter',
  RAMPMETER_HEADERS_CLASH: 'two header families that use the same field names',
  RAMPMETER_INVALID_ROUTE: 'a key of the `routes` table that is not a method and an Express 5 path',
  RAMPMETER_INVALID_REDIS: '`redisStore` was not given an ioredis client it can use',
  RAMPMETER_INVALID_LEVELS: 'levels of `adaptive` that make no sense together',
  RAMPMETER_SAMPLE_FAILED: '`sample()` of `adaptive` threw, was late or answered nonsense',
  RAMPMETER_ADAPTIVE_MISSING: 'an option about adaptive limits on a limiter without `adaptive`',
  RAMPMETER_INVALID_COST: 'a cost that is not a whole number of at least 0',
  RAMPMETER_INVALID_QUOTA: 'a quota or burst that is not a whole number in range',
  RAMPMETER_POLICY_FUNCTION_FAILED: 'a function given to a policy threw',
  RAMPMETER_INVALID_PARTITION: 'a partition that is not a text of 1 to 4096 characters',
  RAMPMETER_INVALID_TARGET: 'a target or session that is not a text, or too many of them',
  RAMPMETER_MISSING_PARTITION: '`decide` met a policy whose partition only a request could tell',
  RAMPMETER_INVALID_CLIENT: '`decide`, `reset` or `review` was given no client id, or one that nobody has',
  RAMPMETER_INVALID_IDENTITY: 'a verifier answered with something that is not an identity',
  RAMPMETER_LOOKUP_FAILED: "the app's own look-up of a credential threw",
  RAMPMETER_PROOFS_FULL: 'the memory store has no room to remember another proof',
  RAMPMETER_KEY_SECRET_NEEDED: 'nonces on a shared store, and no `keySecret` to make them with',
  RAMPMETER_STORE_UNAVAILABLE: 'the store did not answer',
  RAMPMETER_REDIS_EVICTS: 'the Redis gives up keys when its memory is full, and with them what clients have used',
  RAMPMETER_REDIS_PERMISSIONS: 'the user that connects to Redis may not do what the store does',
  RAMPMETER_CLOSED: 'the limiter, its store or a ledger was used after `close()`',
  RAMPMETER_TRUST_PROXY_UNSET: 'a proxy is in front, and Express was not told to trust it',
  RAMPMETER_TRUST_PROXY_PERMISSIVE: 'Express trusts every proxy, so a client can choose its own address',
  RAMPMETER_NO_ADDRESS: 'a request had no address; all such requests share one counter',
  RAMPMETER_LATE_SETTLE: 'a cost was settled after the response had ended',
  RAMPMETER_CRITICAL_LATE: 'a critical route is known only after a limiter further out has decided',
  RAMPMETER_NO_STANDINGS: 'a store that keeps limits only was asked about clients',
  RAMPMETER_ABUSE_NOT_CONFIGURED: '`abuse.report` or a `ladder` on a limiter that watches nothing',
  RAMPMETER_ENVIRONMENT_FAILED: "the app's own `environment` threw or answered nonsense",
  RAMPMETER_TARGET_FAILED: "a route's own `target` threw or answered nonsense",
  RAMPMETER_INCIDENT_HANDLER_FAILED: "the app's own `onIncident` threw",
  RAMPMETER_SIGNALS_DROPPED: 'more signals came at once than are sent in one call',
  RAMPMETER_INVALID_AMOUNT: 'an amount of credits that is not a whole number in range',
  RAMPMETER_INVALID_ACCOUNT: 'an account that is not a text of 1 to 1024 characters',
  RAMPMETER_UNKNOWN_ACCOUNT: 'credits were to be revoked from an account that was never granted any',
  RAMPMETER_INVALID_PRICE: 'a price that says nothing that can be charged',
  RAMPMETER_PAYMENTS_MISSING: 'a route has a price, and the limiter has no `payments`',
  RAMPMETER_LEDGER_STORE: 'a ledger on another store than the limiter, or on one that keeps no money',
  RAMPMETER_LEDGER_UNSAFE: 'the Redis of a ledger could lose money, and nobody said that it may',
  RAMPMETER_INSUFFICIENT_CREDIT: 'an account has less available than was asked for',
  RAMPMETER_UNKNOWN_CHARGE: 'a charge or hold that the ledger does not know, or not any more',
  RAMPMETER_CHARGE_EXCEEDED: 'more was captured or refunded than there was',
  RAMPMETER_ALREADY_CAPTURED: 'a hold was captured before',
  RAMPMETER_HOLD_ENDED: 'a hold was released or has expired',
  RAMPMETER_NOT_A_HOLD: 'a charge was captured or released as if it were a hold',
  RAMPMETER_NOT_SPENT: 'a refund of what was not spent',
  RAMPMETER_HISTORY_TRIMMED: 'a history was trimmed while it was read page by page',
  RAMPMETER_IDEMPOTENCY_CLASH: 'an idempotency key that was used for another amount',
  RAMPMETER_PAYMENT_UNSUPPORTED: 'a payment provider cannot do what was asked of it',
  RAMPMETER_PAYMENT_PROVIDER: 'a payment provider did not answer, or not as it should',
  RAMPMETER_WEBHOOK_ACCOUNT: 'a paid event names no account to credit',
  RAMPMETER_WEBHOOK_CURRENCY: 'money went back in a currency that does not say what it bought',
  RAMPMETER_WEBHOOK_BODY: 'the body of a webhook was read before its signature could be checked',
  RAMPMETER_INVALID_PAYMENT: '`pay` answered with something that is no header fields',
  RAMPMETER_NO_REDIS: '`startRedis` found no Redis to run or use for the tests',
} as const

/** A stable name for what went wrong; see `docs/errors.md`. */
export type ErrorCode = keyof typeof errorCodes

/**
 * What this library throws, and what it passes to Express's error handler.
 *
 * The message says what was seen and what to write instead. It never contains a credential, a key or an address.
 */
export class RampmeterError extends Error {
  override readonly name = 'RampmeterError'
  /** The stable code, for `switch` and alerts; the message may be reworded. */
  readonly code: ErrorCode
  /** Where the code is explained, in the package as it is installed: `rampmeter/docs/errors.md#…`. */
  readonly docs: string

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    const docs = docsOf(code)
    super(`${message}${whereToRead(code)}`, options)
    this.code = code
    this.docs = docs
  }
}

function whereToRead(code: ErrorCode): string {
  return ` (${code}, see ${docsOf(code)})`
}

/** What an error says, without its code, for where that is told beside it. */
export function withoutCode({ message, code }: RampmeterError): string {
  const end = whereToRead(code)
  return message.endsWith(end) ? message.slice(0, -end.length) : message
}

function docsOf(code: ErrorCode): string {
  return `rampmeter/docs/errors.md#${code.toLowerCase()}`
}

/**
 * Reports something that is wrong with the deployment and does not stop a request, by `process.emitWarning`.
 * The caller sees to it that one limiter says each thing once.
 */
export function warn(code: ErrorCode, message: string): void {
  process.emitWarning(message, { type: 'RampmeterWarning', code, detail: `See ${docsOf(code)}` })
}

/**
 * What something else threw, by its class and code alone: the message of a driver may name hosts, users or what was looked for.
 */
export function classAndCodeOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error
  const { code } = error as { code?: unknown }
  if (typeof code === 'string') return `${error.name} ${code}`
  if (isRefusedByAcl(error)) {
    const [, command] = /\brun the '([\w|]+)' command/.exec(error.message) ?? []
    return command === undefined ? `${error.name}: NOPERM` : `${error.name}: NOPERM (${command})`
  }
  const told = error.name === 'ReplyError' ? redisCode : ioredisSays
  const [words] = told.exec(error.message) ?? []
  const [, answered, met = answered] = lastly.exec(error.message) ?? []
  const last = met === undefined ? '' : ` (${met})`
  return words === undefined ? `${error.name}${last}` : `${error.name}: ${words}${last}`
}

/**
 * Whether something failed because the user that connects may not do it: by the answer to a call, or to a command within a script,
 * which Redis puts in words of its own.
 */
export function isNotPermitted(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  if (error instanceof RampmeterError && error.code === 'RAMPMETER_REDIS_PERMISSIONS') return true
  return isRefusedByAcl(error) || isNotPermitted(error.cause)
}

function isRefusedByAcl({ name, message }: Error): boolean {
  return name === 'ReplyError' && refusedByAcl.test(message)
}

/** Of a call, and of a command within a script, as Redis 7.0 and later ones say it. */
const refusedByAcl = /\bNOPERM\b|ACL failure in script|user executing the script can't/

/** Redis begins what it answers with a code: `CLUSTERDOWN Hash slot not served`. */
const redisCode = /^[A-Z]+(?= )/

/** What ioredis says in words that name nothing. */
const ioredisSays =
  /^(Connection is closed|Stream isn't writeable|Cluster isn't ready|Too many Cluster redirections|Socket timeout|Failed to refresh slots cache|None of startup nodes is available|All sentinels are unreachable)/

/** The code of what it met last, or that stands in the words alone: `Last error: ReplyError: MOVED 12 …`, `connect ECONNREFUSED …`. */
const lastly = /\bLast error: \w+: ([A-Z]{3,})\b|\b(E(?:CONN|TIMED|HOST|NET|NOT|AI_|PIPE|ADDR)[A-Z_]*)\b/
