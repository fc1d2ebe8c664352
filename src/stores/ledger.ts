/** What an account's credits come to. Granted is available + held + spent - refunded, at every moment. */
export interface Totals {
  available: number
  held: number
  granted: number
  spent: number
  refunded: number
}

/**
 * What happens to credits.
 *
 * - `grant`: they are added; `revoke`: taken back, below zero if they are spent already.
 * - `charge`: spent at once; `refund`: what was spent comes back, in part or whole.
 * - `hold`: set aside; `capture`: all or part of that is spent, the rest falls back; `release`, `expire`: all of it does.
 * - `checkpoint`: the sum of what is older than history goes.
 */
export type MovementType =
  | 'grant'
  | 'revoke'
  | 'charge'
  | 'refund'
  | 'hold'
  | 'capture'
  | 'release'
  | 'expire'
  | 'checkpoint'

/** One entry of an account's history, as the store has it. */
export interface StoredMovement {
  /** Milliseconds since 1970, a dash, and a number within that millisecond. */
  readonly id: string
  readonly type: MovementType
  /** By how much each changed. */
  readonly available: number
  readonly held: number
  /** What it concerns: a charge or hold; of a grant what the app calls it. Empty where nothing. */
  readonly ref: string
}

/** Why something was not done to an account, by its number in lua/ledger.lua; `done` is 0. */
export const ledgerAnswers = [
  'done',
  'unknown',
  'short',
  'above',
  'captured',
  'released',
  'expired',
  'no-hold',
  'other-amount',
  'full',
  'not-spent',
  'no-account',
] as const

export type LedgerCode = (typeof ledgerAnswers)[number]

/**
 * What a ledger asks of a store. Charges are named by who makes them, so that one whose answer was lost can be cancelled. `key`:
 * what was done under a key before is not done again; empty for none.
 */
export type LedgerCall =
  | { readonly does: 'balance' }
  /** `purchase`: by what it was bought; `ref`: what the app calls it; empty for none. */
  | {
      readonly does: 'grant'
      readonly amount: number
      readonly key: string
      readonly purchase: string
      readonly ref: string
    }
  /** One of the same name and amount is the same, told again. */
  | { readonly does: 'hold'; readonly charge: string; readonly amount: number; readonly forUs: number }
  /** Without an amount, all of it. */
  | { readonly does: 'capture'; readonly charge: string; readonly amount: number | undefined }
  | { readonly does: 'release'; readonly charge: string }
  /** Without an amount, what is left of it. */
  | { readonly does: 'refund'; readonly charge: string; readonly amount: number | undefined; readonly key: string }
  | { readonly does: 'settle'; readonly charge: string; readonly total: number }
  /** Gives back what is left, once; one that has not come yet will not be made any more. */
  | { readonly does: 'cancel'; readonly charge: string }
  | { readonly does: 'sum'; readonly rebuild: boolean }
  /** Takes back, or returns, what a part of a purchase's price bought: `how` says what of all that `by` asked for counts. */
  | {
      readonly does: 'take-back'
      readonly purchase: string
      readonly by: string
      readonly how: TakeBack
      readonly part: number
      readonly price: number
      /** What the movement is to be called in the history; empty for nothing. */
      readonly ref: string
      /** Of a purchase that is not known yet it is taken when it is told; else nothing is remembered. */
      readonly early: boolean
    }

/** The most that was asked for so far; what was asked for first; or nothing any more. */
export type TakeBack = 'most' | 'once' | 'returned'

export interface LedgerAnswer {
  readonly code: LedgerCode
  readonly available: number
  readonly held: number
  /** Of a grant, the id of its movement. */
  readonly id?: string
  /** Of a settlement, what the charge comes to. */
  readonly total?: number
  /** Of what was taken back, how much that was; below zero where it was returned. */
  readonly moved?: number
  /** Of the same, whether who asked had not asked before. */
  readonly first?: boolean
  /** Of a sum: the totals, and what the movements come to. */
  readonly totals?: Totals
  readonly sums?: Totals
}

/** Which movements are told, and in what order. */
export interface HistoryQuery {
  /** From this time on, in ms. */
  readonly sinceMs: number
  readonly limit: number
  /** The id of the last movement that was told before; empty for none. */
  readonly after: string
  readonly newestFirst: boolean
}

/** How a store keeps accounts. Their names are told apart as they are: they are hashes already. */
export interface LedgerStore {
  /** @param history how many movements an account keeps */
  ask(account: string, call: LedgerCall, history: number): Promise<LedgerAnswer>
  /** What happened to an account. What was trimmed is one movement, its sum. */
  history(account: string, asked: HistoryQuery): Promise<readonly StoredMovement[]>
  /** How money could be lost here, in words; empty where it could not. */
  dangers(): Promise<readonly string[]>
}

/** The partition of charges on an account. No client's begins so. */
export function partitionOfAccount(account: string): string {
  return `${accountPrefix}${account}`
}

/** The account of such a partition; undefined for any other. */
export function accountOf(partition: string): string | undefined {
  return partition.startsWith(accountPrefix) ? partition.slice(accountPrefix.length) : undefined
}

const accountPrefix = '@account:'

/** Charges can be refunded, and keys are known, for so long. */
const keptUs = 30 * 24 * 3600 * 1_000_000
/** What was bought can be taken back for so long: a payment may be disputed long after. */
const purchaseKeptUs = 730 * 24 * 3600 * 1_000_000
/** That a charge which may still come is not to be made. */
const voidKeptUs = 600_000_000
const most = Number.MAX_SAFE_INTEGER
const mostSwept = 1000
const trimmed = 100

interface StoredCharge {
  state: 'charged' | 'held' | 'captured' | 'released' | 'expired' | 'void'
  readonly amount: number
  spent: number
  refunded: number
  /** Until when it is known, in µs. */
  until: number
}

interface StoredPurchase {
  /** Undefined until it is told. */
  credits: number | undefined
  /** What all together asked back, which may be more than there was. */
  taken: number
  /** What each asked back. */
  readonly by: Map<string, number>
  /** What each asked back of it before it was told: a part of its price, and what that is called. */
  readonly early: Map<string, { part: number; price: number; readonly ref: string }>
  until: number
}

type AskedBack = Pick<Extract<LedgerCall, { does: 'take-back' }>, 'by' | 'how' | 'part' | 'price' | 'ref'>
type TakenBack = Required<Pick<LedgerAnswer, 'code' | 'moved' | 'first'>>

/** Remembers what a purchase is asked for that was not told yet. */
function askEarly({ early }: StoredPurchase, { by, how, ref, ...asked }: AskedBack): void {
  const { part, price } = how === 'returned' ? { part: 0, price: 1 } : asked
  const own = early.get(by)
  if (own === undefined) early.set(by, { part, price, ref })
  else if (how === 'returned' || (how === 'most' && part * own.price > own.part * price)) {
    Object.assign(own, { part, price })
  }
}

const notHeld: Record<Exclude<StoredCharge['state'], 'held'>, LedgerCode> = {
  charged: 'no-hold',
  captured: 'captured',
  released: 'released',
  expired: 'expired',
  void: 'released',
}

function nothing(): Totals {
  return { available: 0, held: 0, granted: 0, spent: 0, refunded: 0 }
}

function add(totals: Totals, type: MovementType, available: number, held: number): void {
  totals.available += available
  totals.held += held
  const net = available + held
  if (type === 'grant' || type === 'revoke') totals.granted += net
  else if (type === 'charge' || type === 'capture') totals.spent -= net
  else if (type === 'refund') totals.refunded += net
}

/** An account in this process: the twin of lua/lib/ledger.lua, step by step the same. */
export class Account {
  totals: Totals = nothing()
  readonly #movements: StoredMovement[] = []
  readonly #checkpoint = nothing()
  #checkpointId: string | undefined
  /** By when each hold falls back. */
  readonly #holds = new Map<string, { readonly at: number; readonly amount: number }>()
  readonly #charges = new Map<string, StoredCharge>()
  readonly #keys = new Map<string, { readonly amount: number; readonly id: string; readonly until: number }>()
  readonly #purchases = new Map<string, StoredPurchase>()
  #lastMs = 0
  #lastNth = 0
  #history = Infinity
  #sweptAt = 0

  /** Makes it fit for use at a time. */
  open(now: number, history: number): this {
    this.#history = history
    if (this.totals.held > 0) this.#sweep(now)
    if (now - this.#sweptAt > voidKeptUs) this.#forget(now)
    return this
  }

  /** Whether so much can be charged under this name. */
  has(charge: string, amount: number, now: number): boolean {
    return this.totals.available >= amount && this.#find(charge, now) === undefined
  }

  charge(charge: string, amount: number, forUs: number, now: number): void {
    if (forUs > 0) {
      const until = now + Math.ceil(forUs / 1000) * 1000 + keptUs
      this.#charges.set(charge, { state: 'held', amount, spent: 0, refunded: 0, until })
      this.#holds.set(charge, { at: now + forUs, amount })
      this.#move('hold', -amount, amount, charge, now)
    } else {
      this.#charges.set(charge, { state: 'charged', amount, spent: amount, refunded: 0, until: now + keptUs })
      this.#move('charge', -amount, 0, charge, now)
    }
  }

  cancel(name: string, now: number): void {
    const charge = this.#find(name, now)
    if (charge === undefined) {
      this.#charges.set(name, { state: 'void', amount: 0, spent: 0, refunded: 0, until: now + voidKeptUs })
    } else if (charge.state === 'held') {
      this.#endHold(name, charge, 0, 'released', now)
    } else if (charge.state === 'charged') {
      charge.state = 'void'
      const left = charge.spent - charge.refunded
      if (left > 0) this.#refund(name, charge, left, now)
    }
  }

  do(call: LedgerCall, now: number): LedgerAnswer {
    const before = { ...this.totals }
    const told: { -readonly [Key in keyof Omit<LedgerAnswer, 'available' | 'held'>]: LedgerAnswer[Key] } = {
      code: 'done',
    }
    switch (call.does) {
      case 'balance':
        break
      case 'grant': {
        const { code, id } = this.#once(call.key, call.amount, now, () => this.#buy(call, now))
        told.code = code
        if (code === 'done') told.id = id
        break
      }
      case 'hold': {
        const before = this.#find(call.charge, now)
        if (before !== undefined) told.code = before.amount === call.amount ? 'done' : 'other-amount'
        else if (this.totals.available < call.amount) told.code = 'short'
        else this.charge(call.charge, call.amount, call.forUs, now)
        break
      }
      case 'capture':
        told.code = this.#capture(call.charge, call.amount, now)
        break
      case 'release':
        told.code = this.#release(call.charge, now)
        break
      case 'refund':
        told.code = this.#once(call.key, call.amount ?? -1, now, () =>
          this.#refundPart(call.charge, call.amount, now),
        ).code
        break
      case 'settle': {
        const { code, total } = this.#settle(call.charge, call.total, now)
        told.code = code
        told.total = total
        break
      }
      case 'cancel':
        this.cancel(call.charge, now)
        break
      case 'take-back': {
        Object.assign(told, this.#takeBack(call, now))
        break
      }
      case 'sum': {
        told.totals = before
        told.sums = { ...this.#checkpoint }
        for (const { type, available, held } of this.#movements) add(told.sums, type, available, held)
        if (call.rebuild) this.totals = { ...told.sums }
        break
      }
    }
    const { available, held } = this.totals
    return { ...told, available, held }
  }

  /** What happened. What was trimmed is one movement, its sum. */
  history({ sinceMs, limit, after, newestFirst }: HistoryQuery): StoredMovement[] {
    const told = this.#movements.filter(({ id }) => msOf(id) >= sinceMs)
    if (this.#checkpointId !== undefined && msOf(this.#checkpointId) >= sinceMs) {
      const { available, held } = this.#checkpoint
      told.unshift({ id: this.#checkpointId, type: 'checkpoint', available, held, ref: '' })
    }
    if (newestFirst) told.reverse()
    return told
      .filter(({ id }) => after === '' || (newestFirst ? cameBefore(id, after) : cameBefore(after, id)))
      .slice(0, limit)
  }

  /** Whether anything was ever moved on it. */
  get isKnown(): boolean {
    return this.#movements.length > 0 || this.#checkpointId !== undefined
  }

  get #id(): string {
    return `${this.#lastMs}-${this.#lastNth}`
  }

  #move(type: MovementType, available: number, held: number, ref: string, now: number): void {
    add(this.totals, type, available, held)
    const ms = Math.floor(now / 1000)
    if (ms > this.#lastMs) {
      this.#lastMs = ms
      this.#lastNth = 0
    } else {
      this.#lastNth += 1
    }
    this.#movements.push({ id: this.#id, type, available, held, ref })
    if (this.#movements.length < this.#history + trimmed) return
    for (const oldest of this.#movements.splice(0, trimmed)) {
      add(this.#checkpoint, oldest.type, oldest.available, oldest.held)
      this.#checkpointId = oldest.id
    }
  }

  #find(name: string, now: number): StoredCharge | undefined {
    const charge = this.#charges.get(name)
    return charge === undefined || charge.until <= now ? undefined : charge
  }

  #sweep(now: number): void {
    const ended = [...this.#holds]
      .filter(([, { at }]) => at <= now)
      .sort(([one, a], [other, b]) => a.at - b.at || (`${one} ${a.amount}` < `${other} ${b.amount}` ? -1 : 1))
      .slice(0, mostSwept)
    for (const [name, { amount }] of ended) {
      this.#holds.delete(name)
      this.#charges.set(name, { state: 'expired', amount, spent: 0, refunded: 0, until: now + keptUs })
      this.#move('expire', amount, -amount, name, now)
    }
  }

  /** Redis does that by itself. */
  #forget(now: number): void {
    this.#sweptAt = now
    for (const [name, { until }] of this.#charges) if (until <= now) this.#charges.delete(name)
    for (const [name, { until }] of this.#keys) if (until <= now) this.#keys.delete(name)
    for (const [name, { until }] of this.#purchases) if (until <= now) this.#purchases.delete(name)
  }

  #endHold(name: string, charge: StoredCharge, spent: number, state: StoredCharge['state'], now: number): void {
    this.#holds.delete(name)
    charge.spent = spent
    charge.state = state
    charge.until = now + keptUs
    this.#move(
      spent > 0 || state === 'captured' ? 'capture' : 'release',
      charge.amount - spent,
      -charge.amount,
      name,
      now,
    )
  }

  #refund(name: string, charge: StoredCharge, amount: number, now: number): void {
    charge.refunded += amount
    charge.until = now + keptUs
    this.#move('refund', amount, 0, name, now)
  }

  #grant(amount: number, ref: string, now: number): LedgerCode {
    const { available, held, granted } = this.totals
    if (amount < 0 && !this.isKnown) return 'no-account'
    if (granted + amount > most || available + held + amount > most) return 'full'
    this.#move(amount < 0 ? 'revoke' : 'grant', amount, 0, ref, now)
    return 'done'
  }

  /** Adds credits that were bought, and remembers by which purchase. */
  #buy({ amount, purchase: name, ref }: Extract<LedgerCall, { does: 'grant' }>, now: number): LedgerCode {
    const code = this.#grant(amount, ref, now)
    if (code !== 'done' || name === '') return code
    const purchase = this.#purchaseOf(name, now)
    const isTold = purchase.credits !== undefined
    purchase.credits = (purchase.credits ?? 0) + amount
    purchase.until = now + purchaseKeptUs
    this.#purchases.set(name, purchase)
    if (isTold) return code
    for (const [by, share] of purchase.early) this.#takeOf(purchase, { by, how: 'once', ...share }, now)
    return code
  }

  #purchaseOf(name: string, now: number): StoredPurchase {
    const purchase = this.#purchases.get(name)
    if (purchase !== undefined && purchase.until > now) return purchase
    return { credits: undefined, taken: 0, by: new Map(), early: new Map(), until: 0 }
  }

  #takeBack({ purchase: name, early, ...asked }: Extract<LedgerCall, { does: 'take-back' }>, now: number): TakenBack {
    const purchase = this.#purchaseOf(name, now)
    if (purchase.credits !== undefined) return this.#takeOf(purchase, asked, now)
    if (early) {
      askEarly(purchase, asked)
      purchase.until = now + purchaseKeptUs
      this.#purchases.set(name, purchase)
    }
    return { code: 'unknown', moved: 0, first: false }
  }

  #takeOf(purchase: StoredPurchase, { by, how, part, price, ref }: AskedBack, now: number): TakenBack {
    const { credits = 0, taken } = purchase
    const asked = purchase.by.get(by)
    const before = asked ?? 0
    const worth = Math.max(0, Math.min(credits, Math.floor((credits * part) / price)))
    const amount = how === 'returned' ? 0 : how === 'most' ? Math.max(before, worth) : (asked ?? worth)
    const more = taken - before + amount
    const moved = Math.min(credits, more) - Math.min(credits, taken)
    const code = moved === 0 ? 'done' : this.#grant(-moved, ref, now)
    if (code !== 'done') return { code, moved: 0, first: false }
    purchase.taken = more
    purchase.by.set(by, amount)
    purchase.until = now + purchaseKeptUs
    return { code, moved, first: asked === undefined }
  }

  #capture(name: string, amount: number | undefined, now: number): LedgerCode {
    const charge = this.#find(name, now)
    if (charge === undefined) return 'unknown'
    if (charge.state !== 'held') return notHeld[charge.state]
    if (amount !== undefined && amount > charge.amount) return 'above'
    this.#endHold(name, charge, amount ?? charge.amount, 'captured', now)
    return 'done'
  }

  #release(name: string, now: number): LedgerCode {
    const charge = this.#find(name, now)
    if (charge === undefined) return 'unknown'
    if (charge.state === 'held') this.#endHold(name, charge, 0, 'released', now)
    else if (charge.state === 'charged' || charge.state === 'captured') return notHeld[charge.state]
    return 'done'
  }

  #refundPart(name: string, amount: number | undefined, now: number): LedgerCode {
    const charge = this.#find(name, now)
    if (charge === undefined) return 'unknown'
    if (charge.state !== 'charged' && charge.state !== 'captured') return 'not-spent'
    const left = charge.spent - charge.refunded
    if ((amount ?? left) > left) return 'above'
    if ((amount ?? left) > 0) this.#refund(name, charge, amount ?? left, now)
    return 'done'
  }

  #settle(name: string, total: number, now: number): { code: LedgerCode; total: number } {
    const charge = this.#find(name, now)
    if (charge === undefined) return { code: 'unknown', total: 0 }
    const { state } = charge
    if (state === 'released' || state === 'expired' || state === 'void') return { code: notHeld[state], total: 0 }
    if (state === 'held') this.#endHold(name, charge, Math.min(total, charge.amount), 'charged', now)
    const by = total - (charge.spent - charge.refunded)
    if (by < 0) {
      this.#refund(name, charge, -by, now)
    } else {
      const taken = Math.max(0, Math.min(by, this.totals.available))
      if (taken > 0) {
        charge.spent += taken
        charge.until = now + keptUs
        this.#move('charge', -taken, 0, name, now)
      }
    }
    return { code: 'done', total: charge.spent - charge.refunded }
  }

  #once(key: string, amount: number, now: number, act: () => LedgerCode): { code: LedgerCode; id: string } {
    const done = key === '' ? undefined : this.#keys.get(key)
    if (done !== undefined && done.until > now) {
      return { code: done.amount === amount ? 'done' : 'other-amount', id: done.id }
    }
    const code = act()
    const id = this.#id
    if (code === 'done' && key !== '') this.#keys.set(key, { amount, id, until: now + keptUs })
    return { code, id }
  }
}

function msOf(id: string): number {
  return Number(id.slice(0, id.indexOf('-')))
}

/** Whether a movement, by its id, came before another. */
export function cameBefore(one: string, other: string): boolean {
  const nthOf = (id: string): number => Number(id.slice(id.indexOf('-') + 1))
  return msOf(one) === msOf(other) ? nthOf(one) < nthOf(other) : msOf(one) < msOf(other)
}
