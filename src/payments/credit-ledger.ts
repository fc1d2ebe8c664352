import { createHash, randomBytes } from 'node:crypto'
import * as z from 'zod'
import { parseDuration } from '../duration.ts'
import { RampmeterError, warn, withoutCode, type ErrorCode } from '../errors.ts'
import { createNames } from '../names.ts'
import { readOptions } from '../read-options.ts'
import type {
  HistoryQuery,
  LedgerAnswer,
  LedgerCall,
  LedgerCode,
  LedgerStore,
  StoredMovement,
  Totals,
} from '../stores/ledger.ts'
import type { OpenStore, Store } from '../stores/store.ts'
import { checkAccount, checkCredits, checkKey } from './amounts.ts'
import { entriesOf, isCut, pageStart } from './history-pages.ts'
import {
  register,
  type CreditBalance,
  type CreditLedger,
  type CreditLedgerOptions,
  type GrantOptions,
  type IdempotencyOptions,
  type LedgerMovement,
} from './ledger.ts'
import { unsupported } from './payment.ts'
import type { LaterPayments, PaymentProvider } from './provider.ts'

/** How long it may take until the store has answered for the first time, in ms. */
const startsWithinMs = 5000

/**
 * What was found safe is looked at again after so long, in ms, beside those who ask: a Redis may be restarted with other settings, or
 * another take its place.
 */
const safeForMs = 10_000

const optionsSchema = z.strictObject({
  store: z.custom<Store>(
    (value) => typeof (value as Partial<Store> | null)?.open === 'function',
    "the limiter's store, such as redisStore(new Redis())",
  ),
  acceptLoss: z.boolean().default(false),
  history: z.int().min(100).max(1_000_000).default(10_000),
  deadline: z
    .unknown()
    .transform((value) => parseDuration(value, "the ledger's `deadline`"))
    .prefault('2s'),
})

/** What is read further on, and only has to be an option that there is. */
const anything = z.unknown().optional()
const keyed = z.strictObject({ idempotencyKey: anything })
const granting = z.strictObject({ idempotencyKey: anything, purchase: anything })
const holding = z.strictObject({ ttl: anything, idempotencyKey: anything })
const telling = z.strictObject({
  since: anything,
  limit: anything,
  after: anything,
  newestFirst: z.boolean().default(false),
})
const auditing = z.strictObject({ rebuild: z.boolean().default(false) })

/**
 * Makes a ledger of prepaid credits on a store: in memory, or on a Redis that keeps what it has.
 *
 * @example
 * const store = redisStore(new Redis())
 * const ledger = creditLedger({ store })
 * await ledger.grant('key:acme', 1000, { idempotencyKey: event.id })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`
 */
export function creditLedger(options: CreditLedgerOptions): CreditLedger {
  const { store, acceptLoss, history, deadline } = readOptions(optionsSchema, options, 'creditLedger')
  // Without a secret: money must not be forgotten with one.
  const { nameOf } = createNames([])
  let handle: OpenStore | undefined
  let safe: Promise<void> | undefined
  let isSafe: boolean | null = null
  /** By `performance.now()`. */
  let lookedAt = 0
  let users = 0
  /** Of each limiter that has it. */
  const providers: (readonly PaymentProvider[])[] = []
  let closed = false

  function open(): OpenStore & { readonly ledger: LedgerStore } {
    if (closed) {
      throw new RampmeterError(
        'RAMPMETER_CLOSED',
        'the ledger was used after close(), its own or that of the last limiter that had it; make another with creditLedger({ store })',
      )
    }
    handle ??= store.open({ nameOf })
    if (handle.ledger === undefined) {
      throw new RampmeterError(
        'RAMPMETER_LEDGER_STORE',
        'this store keeps no accounts; give creditLedger a memoryStore() or a redisStore(…)',
      )
    }
    return handle as OpenStore & { readonly ledger: LedgerStore }
  }

  async function checkSafety(): Promise<void> {
    const opened = open()
    await opened.ready()
    const dangers = acceptLoss ? [] : await opened.ledger.dangers()
    isSafe = dangers.length === 0
    if (isSafe) return
    throw new RampmeterError(
      'RAMPMETER_LEDGER_UNSAFE',
      `this Redis could lose money: ${dangers.join('; ')}. Set maxmemory-policy noeviction and appendonly yes, or say acceptLoss: true`,
    )
  }

  function ready(): Promise<void> {
    if (safe === undefined) {
      const checking = within(startsWithinMs, checkSafety(), false)
      safe = checking
      lookedAt = performance.now()
      // What could not be asked is asked again.
      checking.catch(() => (safe = undefined))
    } else if (isSafe === true && performance.now() - lookedAt > safeForMs) {
      void lookAgain()
    }
    return safe
  }

  /** Looks whether it is still safe; who asks meanwhile goes by what is known. */
  async function lookAgain(): Promise<void> {
    lookedAt = performance.now()
    try {
      await within(startsWithinMs, checkSafety(), false)
    } catch (error) {
      if (!(error instanceof RampmeterError) || error.code !== 'RAMPMETER_LEDGER_UNSAFE') return
      safe = undefined
      warn(error.code, `the ledger takes nothing more, since ${withoutCode(error)}`)
    }
  }

  /**
   * Uses the store once money is safe there, within the deadline for both. What fails says whether it may have been done.
   *
   * @param isRead it changes nothing
   */
  async function use<T>(act: (store: LedgerStore) => Promise<T>, isRead: boolean): Promise<T> {
    let begun: OpenStore | undefined
    let isLate = false
    const acting = ready().then(() => {
      // What was told not to be done is not done later.
      if (isLate) throw lateError(deadline)
      const opened = open()
      begun = opened
      return act(opened.ledger)
    })
    try {
      return await within(deadline, acting)
    } catch (error) {
      isLate = true
      if (isRead || !(error instanceof RampmeterError) || error.code !== 'RAMPMETER_STORE_UNAVAILABLE') throw error
      const { cause } = error
      const isUndone = begun === undefined || (!lateErrors.has(error) && hasNotRun(begun, cause))
      const says = isUndone ? 'nothing was done' : mayBeDone
      throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', `${withoutCode(error)}; ${says}`, { cause })
    }
  }

  async function ask(account: string, call: LedgerCall): Promise<LedgerAnswer> {
    const answer = await use((accounts) => accounts.ask(account, call, history), isReading(call))
    if (answer.code === 'done') return answer
    const [code, says] = refusals[answer.code]
    throw new RampmeterError(code, says)
  }

  const balanceOf = ({ available, held }: LedgerAnswer): CreditBalance => ({ available, held })

  async function grant(account: string, amount: number, options: GrantOptions): Promise<LedgerMovement> {
    const name = nameOf(checkAccount(account))
    const key = checkKey(options, 'idempotencyKey')
    const purchase = checkKey(options, 'purchase')
    const answer = await ask(name, {
      does: 'grant',
      amount,
      key: hashOfKey(key),
      purchase: hashOfKey(purchase),
      ref: key ?? purchase ?? '',
    })
    return { id: `${name}.${answer.id}`, balance: balanceOf(answer) }
  }

  function newCharge(account: string): string {
    return `${nameOf(account)}.${randomBytes(12).toString('base64url')}`
  }

  /** The same for the same key. */
  function holdOf(account: string, key: string | undefined): string {
    if (key === undefined) return newCharge(account)
    return `${nameOf(account)}.${createHash('sha256').update(`hold ${key}`).digest().subarray(0, 12).toString('base64url')}`
  }

  /** What a provider was paid, by its id; undefined for charges and holds of the ledger itself. */
  function paymentOf(id: unknown): { readonly later: LaterPayments; readonly claim: string } | undefined {
    const [, name, claim] = typeof id === 'string' ? (/^([\w-]+):(.+)$/.exec(id) ?? []) : []
    if (name === undefined) return undefined
    const known = providers.flat().filter((one) => one.name === name)
    const later = known.find((one) => one.later !== undefined)?.later
    if (later !== undefined) return { later, claim: claim! }
    if (known.length === 0) {
      throw new RampmeterError(
        'RAMPMETER_UNKNOWN_CHARGE',
        `this is a payment of the provider ${JSON.stringify(name)}, which no limiter in this process has beside this ledger; give both to rampmeter({ payments })`,
      )
    }
    throw unsupported(
      `the provider ${JSON.stringify(name)} can do that within the request alone, by req.rateLimit.payment`,
    )
  }

  async function balanceAfter(done: Promise<{ readonly account: string }>): Promise<CreditBalance> {
    const { account } = await done
    return await ledger.balance(account)
  }

  const ledger: CreditLedger = {
    grant: async (account, credits, options = {}) =>
      await grant(
        account,
        checkCredits(credits, 'a grant'),
        readOptions(granting, options, 'ledger.grant') as GrantOptions,
      ),

    revoke: async (account, credits, options = {}) =>
      await grant(
        account,
        -checkCredits(credits, 'what is to be revoked'),
        readOptions(keyed, options, 'ledger.revoke') as IdempotencyOptions,
      ),

    async balance(account) {
      return balanceOf(await ask(nameOf(checkAccount(account)), { does: 'balance' }))
    },

    async hold(account, credits, options) {
      checkAccount(account)
      const asked = readOptions(holding, options ?? {}, 'ledger.hold')
      const { ttl } = asked
      const id = holdOf(account, checkKey(options ?? {}, 'idempotencyKey'))
      const forUs = parseDuration(ttl, 'the `ttl` of a hold') * 1000
      const amount = checkCredits(credits, 'a hold')
      const answer = await ask(accountOfCharge(id), { does: 'hold', charge: id, amount, forUs })
      return { id, credits: amount, balance: balanceOf(answer) }
    },

    async capture(holdId, credits) {
      const paid = paymentOf(holdId)
      if (paid !== undefined) return await balanceAfter(paid.later.capture(paid.claim, credits))
      const amount = credits === undefined ? undefined : checkCredits(credits, 'what is to be captured', 0)
      return balanceOf(await ask(accountOfCharge(holdId), { does: 'capture', charge: holdId, amount }))
    },

    async release(holdId) {
      const paid = paymentOf(holdId)
      if (paid !== undefined) return await balanceAfter(paid.later.release(paid.claim))
      return balanceOf(await ask(accountOfCharge(holdId), { does: 'release', charge: holdId }))
    },

    async refund(chargeId, credits, options = {}) {
      const amount = credits === undefined ? undefined : checkCredits(credits, 'a refund')
      readOptions(keyed, options, 'ledger.refund')
      const given = checkKey(options, 'idempotencyKey')
      const paid = paymentOf(chargeId)
      if (paid !== undefined) return await balanceAfter(paid.later.refund(paid.claim, credits, given))
      // Of each charge by itself, and never taken for a grant's.
      const key = given === undefined ? '' : hashOfKey(`refund ${chargeId} ${given}`)
      return balanceOf(await ask(accountOfCharge(chargeId), { does: 'refund', charge: chargeId, amount, key }))
    },

    async history(account, options = {}) {
      const name = nameOf(checkAccount(account))
      const asked = readOptions(telling, options, 'ledger.history')
      const { since = 0, limit = Number.MAX_SAFE_INTEGER, after, newestFirst } = asked
      const sinceMs = typeof since === 'number' || since instanceof Date ? Math.ceil(Number(since)) : Number.NaN
      if (!(sinceMs >= 0 && isCount(limit))) {
        throw new RampmeterError(
          'RAMPMETER_INVALID_OPTION',
          'history: write `since` as a date or in ms since 1970, and `limit` as a whole number of at least 1',
        )
      }
      const start = pageStart(after, name)
      const query = { sinceMs, limit, after: start.movement, newestFirst }
      const told = (asked: HistoryQuery): Promise<readonly StoredMovement[]> =>
        use((accounts) => accounts.history(name, asked), true)
      const page = await told(query)
      const oldest = { sinceMs: 0, limit: 1, after: '', newestFirst: false }
      if (await isCut(start, query, page, async () => (await told(oldest))[0])) {
        throw new RampmeterError(
          'RAMPMETER_HISTORY_TRIMMED',
          'history: what comes next to `after` was trimmed since, and is now in a checkpoint together with what was told before; begin anew, without `after`, and take the checkpoint in place of all that is older',
        )
      }
      return entriesOf(name, page)
    },

    async audit(account, options = {}) {
      const { rebuild } = readOptions(auditing, options, 'ledger.audit')
      const { totals, sums } = await ask(nameOf(checkAccount(account)), { does: 'sum', rebuild })
      const consistent = Object.entries(sums!).every(([name, sum]) => totals![name as keyof Totals] === sum)
      return { ...totals!, history: sums!, consistent }
    },

    ready() {
      // Whoever asks in so many words is told of now.
      if (isSafe === true) safe = undefined
      return ready()
    },

    async close() {
      closed = true
      const closing = handle
      handle = undefined
      safe = undefined
      await closing?.close()
    },
  }
  return register(ledger, {
    store,
    history,
    nameOf,
    newCharge,
    ready,
    isSafe: () => isSafe,
    async settle(chargeId, total) {
      const answer = await ask(accountOfCharge(chargeId), { does: 'settle', charge: chargeId, total })
      return { total: answer.total!, balance: balanceOf(answer) }
    },
    async cancel(chargeId) {
      await ask(accountOfCharge(chargeId), { does: 'cancel', charge: chargeId })
    },
    async takeBack(account, purchase, { by, ...asked }) {
      const call = { does: 'take-back', purchase: hashOfKey(purchase), by: hashOfKey(by), ...asked } as const
      const answer = await use((accounts) => accounts.ask(nameOf(checkAccount(account)), call, history), false)
      if (answer.code === 'unknown') return undefined
      if (answer.code === 'done') return { moved: answer.moved!, first: answer.first!, balance: balanceOf(answer) }
      const [code, says] = refusals[answer.code]
      throw new RampmeterError(code, says)
    },
    attach(added) {
      closed = false
      users += 1
      let attached = true
      providers.push(added)
      return async () => {
        if (!attached) return
        attached = false
        users -= 1
        providers.splice(providers.indexOf(added), 1)
        if (users === 0) await ledger.close()
      }
    },
  })
}

/** Why the ledger did not do it, as an error. */
const refusals: Record<Exclude<LedgerCode, 'done'>, [ErrorCode, string]> = {
  unknown: ['RAMPMETER_UNKNOWN_CHARGE', 'the ledger knows no such charge or hold; they are known for 30 days'],
  short: ['RAMPMETER_INSUFFICIENT_CREDIT', 'the account has less available than that; nothing was moved'],
  above: ['RAMPMETER_CHARGE_EXCEEDED', 'that is more than is left of the charge or hold; nothing was moved'],
  captured: [
    'RAMPMETER_ALREADY_CAPTURED',
    'the hold was captured before, and a hold is captured once; nothing was moved',
  ],
  released: ['RAMPMETER_HOLD_ENDED', 'what was held or charged has been given back; nothing was moved'],
  expired: ['RAMPMETER_HOLD_ENDED', 'the hold has expired, and its credits fell back; nothing was moved'],
  'no-hold': [
    'RAMPMETER_NOT_A_HOLD',
    'this is a charge and no hold, or a hold that was settled; give it back with refund',
  ],
  'other-amount': [
    'RAMPMETER_IDEMPOTENCY_CLASH',
    'this idempotency key was used before, for another amount or for the opposite (a grant and its revoke are two things); one key names one thing that happened; nothing was moved',
  ],
  full: ['RAMPMETER_INVALID_AMOUNT', 'the account would hold more than 2^53 credits, which cannot be counted exactly'],
  'not-spent': ['RAMPMETER_NOT_SPENT', 'this hold was not captured, so there is nothing to refund; release it'],
  'no-account': [
    'RAMPMETER_UNKNOWN_ACCOUNT',
    'nothing was ever granted to this account, so nothing can be revoked; look at how its name is spelt',
  ],
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) > 0
}

/** Charges carry the name of their account. */
const chargeSyntax = /^([\w-]{22})\.[\w-]{16}$/

function accountOfCharge(id: unknown): string {
  const [, name] = typeof id === 'string' ? (chargeSyntax.exec(id) ?? []) : []
  if (name !== undefined) return name
  throw new RampmeterError(
    'RAMPMETER_UNKNOWN_CHARGE',
    'what was given is no id of a charge or hold; write the `id` that hold() resolved with, or the `chargeId` of req.rateLimit.payment',
  )
}

function hashOfKey(key: string | undefined): string {
  return key === undefined ? '' : createHash('sha256').update(key).digest().subarray(0, 16).toString('base64url')
}

const mayBeDone =
  'it may have been done all the same, or be done yet: whatever had an `idempotencyKey`, and `settle`, `capture` and `release`, can be called again as it was; look for anything else in history() first'

function isReading({ does, ...call }: LedgerCall): boolean {
  return does === 'balance' || (does === 'sum' && !(call as { rebuild: boolean }).rebuild)
}

/** Whether what failed like that certainly was not done. What has no cause is our own: there is no connection. */
function hasNotRun(store: OpenStore, cause: unknown): boolean {
  return cause === undefined || store.hasNotRun?.(cause) === true
}

/** Errors of answers that did not come in time. */
const lateErrors = new WeakSet<Error>()

function lateError(ms: number): RampmeterError {
  const error = new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', `the ledger's store did not answer within ${ms} ms`)
  lateErrors.add(error)
  return error
}

/** @throws {RampmeterError} `RAMPMETER_STORE_UNAVAILABLE` */
async function within<T>(ms: number, answer: Promise<T>, holdsProcess = true): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const giveUp = (): void => reject(lateError(ms))
    // After a stall of the event loop the timer is due before the answer that has long arrived is read.
    timer = setTimeout(() => setImmediate(giveUp), ms)
    if (!holdsProcess) timer.unref()
  })
  try {
    return await Promise.race([answer, late])
  } catch (cause) {
    if (cause instanceof RampmeterError) throw cause
    throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', "the ledger's store failed", { cause })
  } finally {
    clearTimeout(timer)
  }
}
