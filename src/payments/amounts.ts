import { RampmeterError } from '../errors.ts'

/** The most credits that one movement may be about. */
const largestCredits = 1e12

/** The longest text that names an account, as of a client's id. */
const longestAccount = 1024

/** The credits of a charge id, an idempotency key and the like are told apart by texts of at most so many characters. */
const longestKey = 512

/**
 * Lets an amount of credits through that can be moved.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_AMOUNT`
 */
export function checkCredits(credits: unknown, what: string, least: 0 | 1 = 1): number {
  if (Number.isInteger(credits) && (credits as number) >= least && (credits as number) <= largestCredits) {
    return credits as number
  }
  throw new RampmeterError(
    'RAMPMETER_INVALID_AMOUNT',
    `${what} is ${typeof credits === 'number' ? String(credits) : `a value of type ${typeof credits}`}; credits are whole: write a number from ${least} to 10^12 (and let a credit be worth less where fractions matter)`,
  )
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_ACCOUNT` */
export function checkAccount(account: unknown): string {
  if (typeof account === 'string' && account !== '' && account.length <= longestAccount) return account
  throw new RampmeterError(
    'RAMPMETER_INVALID_ACCOUNT',
    `an account is ${typeof account === 'string' ? `a text of ${account.length} characters` : typeof account}; write a text of 1 to ${longestAccount} characters, such as the client's id`,
  )
}

/**
 * What names something that happened, of a call's options. One that is there and says nothing is a mistake, not the same as none:
 * what is told twice would be done twice.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 */
export function checkKey(options: object, name: 'idempotencyKey' | 'purchase'): string | undefined {
  if (!Object.hasOwn(options, name)) return undefined
  const key: unknown = (options as Record<string, unknown>)[name]
  if (typeof key === 'string' && key !== '' && key.length <= longestKey) return key
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `\`${name}\` is ${typeof key === 'string' ? `a text of ${key.length} characters` : typeof key}; write a text of 1 to ${longestKey} characters that names what happened, such as the id of a webhook's event, or leave it out`,
  )
}
