import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** A nonce serves for one to two steps. */
const stepMs = 30_000

const nonceBytes = 15

export interface NonceOptions {
  /** What they are for, so that those of one use are not good for another. */
  readonly use: string
  /** The newest first: nonces are made with the first, and good with any. Empty: with a secret of this process. */
  readonly secrets: readonly string[]
  /** The time in ms since 1970. */
  readonly now: () => number
}

/** Nonces that nobody has to remember (RFC 9449 section 8): each is a keyed hash of when it was given. */
export interface Nonces {
  /** The one to give now. */
  current(): string
  /** Whether a text is a nonce that was given a moment ago; by a process whose clock runs a step ahead, too. */
  isGood(text: string): boolean
}

/** Makes nonces. All of a step are the same text, so that a step costs one hash a secret. */
export function createNonces({ use, secrets, now }: NonceOptions): Nonces {
  const keys: readonly (string | Buffer)[] = secrets.length === 0 ? [randomBytes(32)] : secrets
  let step = Number.NaN
  let good: readonly Buffer[] = []
  let given = ''

  function turnTo(current: number): void {
    const nonceOf = (key: string | Buffer, at: number): string =>
      createHmac('sha256', key).update(`${use}\n${at}`).digest().subarray(0, nonceBytes).toString('base64url')
    step = current
    given = nonceOf(keys[0]!, current)
    good = keys.flatMap((key) => [current - 1, current, current + 1].map((at) => Buffer.from(nonceOf(key, at))))
  }

  function turn(): void {
    const current = Math.floor(now() / stepMs)
    if (current !== step) turnTo(current)
  }

  return {
    current() {
      turn()
      return given
    },
    isGood(text) {
      turn()
      const shown = Buffer.from(text)
      // All are compared, so that the time tells nothing.
      return good.filter((one) => one.length === shown.length && timingSafeEqual(one, shown)).length > 0
    },
  }
}
