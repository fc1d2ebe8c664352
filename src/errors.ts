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
  RAMPMETER_INVALID_COST: 'a cost that is not a whole number of at least 0',
  RAMPMETER_INVALID_QUOTA: 'a quota or burst that is not a whole number in range',
  RAMPMETER_POLICY_FUNCTION_FAILED: 'a function given to a policy threw',
  RAMPMETER_INVALID_PARTITION: 'a partition that is not a text of 1 to 4096 characters',
  RAMPMETER_INVALID_TARGET: 'a target or session that is not a text, or too many of them',
  RAMPMETER_MISSING_PARTITION: '`decide` met a policy whose partition only a request could tell',
  RAMPMETER_INVALID_CLIENT: '`decide`, `peek` or `reset` was given no usable client id',
  RAMPMETER_INVALID_IDENTITY: 'a verifier answered with something that is not an identity',
  RAMPMETER_LOOKUP_FAILED: "the app's own look-up of a credential threw",
  RAMPMETER_STORE_UNAVAILABLE: 'the store did not answer',
  RAMPMETER_CLOSED: 'the limiter or its store was used after `close()`',
  RAMPMETER_TRUST_PROXY_UNSET: 'a proxy is in front, and Express was not told to trust it',
  RAMPMETER_TRUST_PROXY_PERMISSIVE: 'Express trusts every proxy, so a client can choose its own address',
  RAMPMETER_NO_ADDRESS: 'a request had no address; all such requests share one counter',
  RAMPMETER_LATE_SETTLE: 'a cost was settled after the response had ended',
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
    super(`${message} (${code}, see ${docs})`, options)
    this.code = code
    this.docs = docs
  }
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
  return typeof code === 'string' ? `${error.name} ${code}` : error.name
}
