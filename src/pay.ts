import { createHash } from 'node:crypto'
import type { Request, Response } from 'express'
import type { Client } from './client.ts'
import type { Decider, Ruling } from './decide.ts'
import type { RefusalReason } from './decision.ts'
import { RampmeterError, warn, withoutCode } from './errors.ts'
import type { Route } from './options.ts'
import { PaymentChallenges, type TooMany } from './payment-challenges.ts'
import { checkAccount } from './payments/amounts.ts'
import { internalsOf, type CreditBalance, type LedgerInternals } from './payments/ledger.ts'
import { PaymentGiveBacks } from './payments/give-backs.ts'
import { checkHolds, checkPrice, type PaymentSettings } from './payments/options.ts'
import { CreditPayment, type FollowedPayment } from './payments/payment.ts'
import { ProviderPayment } from './payments/provider-payment.ts'
import type { Bill, Challenge, Offer, PaymentOutcome, PaymentProvider } from './payments/provider.ts'
import { Unanswered } from './payments/unanswered.ts'
import { fnv1a } from './policies/build.ts'
import type { PaymentDemand } from './respond/answer.ts'
import { paymentChallenges } from './respond/problem.ts'
import { partitionOfAccount } from './stores/ledger.ts'
import type { Charge, Charged, ChargeOutcome } from './stores/store.ts'
import { givenBack } from './stores/together.ts'

/** Why a request that its limits admit is refused: it is not paid. */
export interface Unpaid {
  readonly reason: RefusalReason
  readonly retryAfterMs: number | null
  readonly violated?: readonly string[]
  /** What would pay; absent where it is not asked for. */
  readonly demand?: PaymentDemand
}

/** How a request is to be paid. What it charges goes beside the policies, into the same decision. */
export interface Checkout {
  readonly charges: readonly Charge[]
  /** Charges of a limiter further out that are given back with it. */
  readonly undo: readonly Charged[]
  /** False: nothing is to be charged, since nothing pays. */
  readonly commit: boolean
  safe(): Promise<Safety>
  /** What became of it: paid, or why not; undefined where the limits refuse. */
  close(ruling: Ruling, outcome: ChargeOutcome | undefined): Promise<{ payment: FollowedPayment } | Unpaid | undefined>
  /** The decision was made without the store, or was never heard of. */
  abandon(): void
  /** What is told then: what became of the money. */
  away(ruling: Ruling, safety: Safety): Unpaid
}

/** Whether money is safe in the store, as far as it can be told. */
type Safety = 'safe' | 'unsafe' | 'away'

/** What a limiter further out has made of the same request. */
export interface EarlierPayment {
  readonly payment: FollowedPayment
  /** Its charge; absent where a provider was paid. */
  readonly charged: Charged | undefined
}

/** When a request may come again whose payment could not be looked at, in ms: an estimate. */
const retryProviderMs = 5000

const largest = 1e12

const none: ReadonlySet<string> = new Set()

/** What is paid at this limiter, and how. */
export class Pay {
  /** Strangers are asked who they are before they are asked for money. */
  readonly needsName: boolean
  readonly #settings: PaymentSettings
  readonly #decider: Decider
  readonly #deadlineMs: number
  readonly #onFailure: (error: unknown) => void
  /** Its own errors, as of a connection, would be taken for the store's. */
  readonly #onProviderFailure = (error: unknown): void => {
    const isOurs = error instanceof RampmeterError
    const said = isOurs ? error : new RampmeterError('RAMPMETER_PAYMENT_PROVIDER', 'it failed', { cause: error })
    this.#onFailure(said)
  }
  readonly #ledger: LedgerInternals | undefined
  readonly #giveBacks: PaymentGiveBacks | undefined
  readonly #detach: (() => Promise<void>) | undefined
  readonly #challenges: PaymentChallenges
  readonly #endings: (() => void)[] = []
  readonly #unanswered = new Unanswered()
  /** What each charge was made with, for a limiter further in. */
  readonly #charged = new WeakMap<FollowedPayment, Charged>()
  /** Bills that only answer a challenge, and what paid them. No credits do: who holds a credential may spend its account's. */
  readonly #answers = new WeakSet<Bill | FollowedPayment>()
  /** Those that a provider is paid. */
  readonly #ofProviders = new WeakMap<FollowedPayment, ProviderPayment>()

  /** @param namesClients there is a way to say who one is */
  constructor(
    settings: PaymentSettings,
    decider: Decider,
    deadlineMs: number,
    onFailure: (error: unknown) => void,
    namesClients: boolean,
  ) {
    this.#settings = settings
    this.#decider = decider
    this.#deadlineMs = deadlineMs
    this.#onFailure = onFailure
    const { ledger, challenges, identity } = settings
    this.needsName = identity === undefined ? namesClients && isOfAccounts(settings) : identity === 'required'
    if (ledger !== undefined) {
      this.#ledger = internalsOf(ledger)
      this.#detach = this.#ledger.attach(settings.providers)
      this.#giveBacks = new PaymentGiveBacks(this.#ledger.cancel, onFailure)
      this.#lookAtSafety(this.#ledger)
    }
    this.#challenges = new PaymentChallenges(challenges, decider, onFailure)
  }

  /**
   * What a request is to pay; undefined where it is free.
   *
   * @throws {RampmeterError} `RAMPMETER_INVALID_PRICE`, `RAMPMETER_INVALID_ACCOUNT`
   */
  async billOf(
    req: Request,
    client: Client,
    { price, called }: Route,
    params: Record<string, string | string[] | undefined>,
  ): Promise<Bill | undefined> {
    if (price === undefined) return undefined
    const what = `the price of ${called}`
    let told: unknown = price
    if (typeof price === 'function') {
      try {
        told = await price(req, client, params)
      } catch (cause) {
        throw new RampmeterError(
          'RAMPMETER_INVALID_PRICE',
          `${what} threw; the request was refused and nothing was charged`,
          {
            cause,
          },
        )
      }
    }
    const { credits, ...terms } = checkPrice(told, what)
    if (credits === 0) return undefined
    if (terms.holdMs !== null) checkHolds(this.#settings, what)
    return { account: checkAccount(this.#settings.account(req, client)), credits, ...terms, req }
  }

  /** What a payment costs that answers a challenge on a route that is free. What fails costs nothing. */
  async answerBillOf(
    req: Request,
    client: Client,
    route: Route,
    params: Record<string, string | string[] | undefined>,
    { credits }: { readonly credits: number },
  ): Promise<Bill | undefined> {
    const bill = await this.billOf(req, client, { ...route, price: { credits, free: 'errors' } }, params)
    if (bill !== undefined) this.#answers.add(bill)
    return bill
  }

  /** Whether a request carries a payment of a provider. */
  carries(bill: Bill): boolean {
    return this.#providersOf(bill).some((provider) => provider.detect(bill.req, bill) !== undefined)
  }

  /** Asks for a payment that would answer a challenge; past so many, says when it may be asked again. Undefined where no provider takes one. */
  async ask(bill: Bill, client: Client): Promise<Unpaid | undefined> {
    if (this.#providersOf(bill).length === 0) return undefined
    const refused = await this.#challenges.ask(client)
    return refused === undefined ? await this.#demand(bill, undefined, undefined, 402, {}, false) : tooMany(refused)
  }

  /** Whether a payment only answers a challenge, and pays for nothing further in. */
  isAnswer(payment: FollowedPayment): boolean {
    return this.#answers.has(payment)
  }

  /** Whether a payment is one of a provider's. */
  isOfProvider(payment: FollowedPayment): boolean {
    return this.#ofProviders.has(payment)
  }

  #providersOf({ holdMs }: Bill): readonly PaymentProvider[] {
    return this.#settings.providers.filter(({ holds }) => holds || holdMs === null)
  }

  /** Begins to pay a bill. */
  begin(bill: Bill, client: Client, earlier: EarlierPayment | undefined): Checkout {
    const undo = earlier?.charged === undefined ? [] : [earlier.charged]
    const shown = this.#shown(bill)
    if ('offer' in shown) return this.#withOffer(client, bill, undo, shown.provider, shown.offer)
    if (shown.mismatch !== undefined) return this.#nothing(client, bill, undo, shown.mismatch, 402)
    if (shown.malformed !== undefined) return this.#nothing(client, bill, undo, shown.malformed, 400)
    if (this.#ledger === undefined) return this.#nothing(client, bill, undo, undefined, 402)
    return this.#withCredits(client, bill, undo, this.#ledger)
  }

  /** What a payment charged, for a limiter further in. */
  chargedOf(payment: FollowedPayment): Charged | undefined {
    return this.#charged.get(payment)
  }

  /** Sees to it that what a provider is to be paid is paid before the answer leaves. */
  follow(res: Response, payment: FollowedPayment, client: Client, answerFailure: (unpaid: Unpaid) => void): void {
    const paid = this.#ofProviders.get(payment)
    if (paid === undefined) return
    paid.follow(res, async (failed) => {
      if (failed === undefined) return () => answerFailure(settlementLost)
      void this.#challenges.failed(client)
      const demand = await this.#demand(paid.bill, undefined, failed.reason, 402, failed.fields)
      return () => answerFailure(demand)
    })
  }

  /** Has the providers tell which clients dispute their payments, where accounts are clients. */
  hearDisputes(report: (clientId: string) => Promise<void>): void {
    if (!this.#settings.paysItself) return
    for (const provider of this.#settings.providers) {
      const end = provider.disputes?.((account) => void report(account).catch(this.#onFailure))
      if (end !== undefined) this.#endings.push(end)
    }
  }

  async ready(): Promise<void> {
    await this.#ledger?.ready()
    await Promise.all(this.#settings.providers.map(async (provider) => await provider.ready?.()))
  }

  /** Whether credits are safe where they are kept; null while that is not known. Undefined without a ledger. */
  get ledgerIsSafe(): boolean | null | undefined {
    if (this.#ledger === undefined) return undefined
    // Somebody may have set it up since, or otherwise.
    this.#ledger.ready().catch(() => {})
    return this.#ledger.isSafe()
  }

  async flush(): Promise<void> {
    await this.#giveBacks?.flush()
  }

  async close(): Promise<void> {
    for (const end of this.#endings) end()
    await this.#unanswered.takeAll()
    this.#giveBacks?.end()
    await this.#detach?.()
  }

  /** The payment that a request carries, with the provider that takes it; else why none does. */
  #shown(bill: Bill): Shown {
    const mismatches = new Set<string>()
    const foreign = new Set<string>()
    let malformed: string | undefined
    for (const provider of this.#providersOf(bill)) {
      const offer = provider.detect(bill.req, bill)
      if (offer === undefined) continue
      if ('malformed' in offer) malformed ??= offer.malformed
      else if (offer.mismatch === undefined) return { provider, offer }
      else (offer.isForeign === true ? foreign : mismatches).add(offer.mismatch)
    }
    // That others do not know it says nothing where one does.
    const why = mismatches.size > 0 ? mismatches : malformed === undefined ? foreign : none
    return { mismatch: why.size === 0 ? undefined : [...why].join('; '), malformed }
  }

  /** Whoever does not wait for `ready()` is told too. */
  #lookAtSafety({ ready }: LedgerInternals): void {
    ready().catch((error: unknown) => {
      if (!isUnsafe(error)) return
      this.#onFailure(error)
      warn(error.code, `priced routes are answered 503, since ${withoutCode(error)}`)
    })
  }

  #nothing(
    client: Client,
    bill: Bill,
    undo: readonly Charged[],
    error: string | undefined,
    status: 400 | 402,
  ): Checkout {
    return {
      charges: [],
      undo,
      commit: false,
      safe: async () => 'safe',
      close: async ({ admitted }) =>
        admitted ? await this.#refuse(client, bill, undefined, error, status) : undefined,
      abandon: () => {},
      away: storeAway,
    }
  }

  #withCredits(client: Client, bill: Bill, undo: readonly Charged[], internals: LedgerInternals): Checkout {
    const { account, credits, holdMs } = bill
    const chargeId = internals.newCharge(account)
    const charge: Charge = {
      kind: 'credits',
      stateId: fnv1a('@credits'),
      partition: partitionOfAccount(internals.nameOf(account)),
      // It refills at no time of its own; for how long it is held goes with its name.
      windowUs: 1,
      quota: largest,
      capacity: largest,
      cost: credits,
      members: [chargeId, String((holdMs ?? 0) * 1000), String(internals.history)],
      liftable: false,
      shadow: false,
    }
    const giveBack = this.#giveBacks!.begin
    return {
      charges: [charge],
      undo,
      commit: true,
      safe: () => safetyOf(this.#deadlineMs, internals.ready()),
      close: async (ruling, outcome) => {
        if (ruling.admitted) {
          const payment = new CreditPayment(bill, chargeId, this.#settings.ledger!, internals, giveBack)
          const chargedAtUs = outcome?.atUs ?? ruling.nowUs
          this.#charged.set(payment, { charge, cost: credits, chargedAtUs })
          return { payment }
        }
        if (ruling.violated.length > 0 || outcome?.verdict !== 'refused') return undefined
        return await this.#refuse(client, bill, { available: outcome.remaining, held: outcome.resetUs }, undefined, 402)
      },
      abandon: () => giveBack(chargeId),
      away: creditsAway,
    }
  }

  #withOffer(client: Client, bill: Bill, undo: readonly Charged[], provider: PaymentProvider, offer: Offer): Checkout {
    const name = createHash('sha256')
      .update(`${provider.name}\n${offer.claim}`)
      .digest()
      .subarray(0, 16)
      .toString('base64url')
    const charge: Charge = {
      kind: 'single-use',
      stateId: fnv1a(name),
      // Whoever shows it: a payment that was overheard is not good for somebody else.
      partition: `@payment:${name}`,
      windowUs: Math.max(1, Math.ceil(offer.lastsMs)) * 1000,
      quota: 1,
      capacity: 1,
      cost: 1,
      members: [name, uniqueHolder()],
      liftable: false,
      shadow: false,
    }
    return {
      charges: [charge],
      undo,
      commit: true,
      safe: async () => 'safe',
      close: async (ruling, outcome) => {
        if (!ruling.admitted) {
          if (ruling.violated.length > 0 || outcome?.verdict !== 'refused') return undefined
          if (outcome.waitUs !== null) return noRoom
          return await this.#refuse(client, bill, undefined, 'this payment was used before', 402)
        }
        const claim: Charged = { charge, cost: 1, chargedAtUs: outcome?.atUs ?? ruling.nowUs }
        const forget = (): void => {
          this.#decider.settle('store', [givenBack(claim)]).catch(this.#onFailure)
        }
        const giveAllBack = async (): Promise<void> => {
          const charged = ruling.charged.filter(({ cost }) => cost > 0)
          await this.#decider.settle('store', [...charged, claim].map(givenBack)).catch(this.#onFailure)
        }
        let verified: PaymentOutcome | TooMany
        try {
          verified = await this.#challenges.verify(client, async () => {
            const outcomeOfIt = await provider.verify(offer, bill)
            if (outcomeOfIt.paid) await provider.reserve(offer, bill)
            return outcomeOfIt
          })
        } catch (error) {
          this.#onProviderFailure(error)
          await giveAllBack()
          return providerAway
        }
        if ('retryAfterMs' in verified) {
          await giveAllBack()
          return verified.isCrowd === true ? crowd(verified.retryAfterMs) : tooMany(verified)
        }
        if (!verified.paid) {
          await giveAllBack()
          return await this.#demand(bill, undefined, verified.reason, 402, verified.fields)
        }
        const payment = new ProviderPayment(provider, offer, bill, forget, this.#unanswered, this.#onProviderFailure)
        this.#ofProviders.set(payment, payment)
        if (this.#answers.has(bill)) this.#answers.add(payment)
        return { payment }
      },
      // If it was claimed all the same: nothing has been taken.
      abandon: () => {
        void this.#decider.settle('store', [givenBack({ charge, cost: 1, chargedAtUs: 0 })]).catch(() => {})
      },
      away: storeAway,
    }
  }

  /** Asks for money, as often as a client may be asked. */
  async #refuse(
    client: Client,
    bill: Bill,
    balance: CreditBalance | undefined,
    error: string | undefined,
    status: 400 | 402,
  ): Promise<Unpaid> {
    const refused = await this.#challenges.ask(client)
    return refused === undefined ? await this.#demand(bill, balance, error, status) : tooMany(refused)
  }

  async #demand(
    bill: Bill,
    balance: CreditBalance | undefined,
    error: string | undefined,
    status: 400 | 402,
    moreFields: Readonly<Record<string, string>> = {},
    byCredits = !this.#answers.has(bill),
  ): Promise<Unpaid> {
    const { topUpUrl, ledger } = this.#settings
    const ways: Record<string, unknown>[] = []
    if (ledger !== undefined && byCredits)
      ways.push({ provider: 'credits', ...(topUpUrl !== undefined && { topUpUrl }) })
    const fields: Record<string, string> = {}
    const told = new Map<string, { readonly provider: PaymentProvider; readonly challenges: Challenge[] }>()
    for (const provider of this.#providersOf(bill)) {
      try {
        const challenge = await provider.challenge(bill, error)
        const { name } = provider
        if (told.has(name)) told.get(name)!.challenges.push(challenge)
        else told.set(name, { provider, challenges: [challenge] })
      } catch (failure) {
        // The other ways are still told.
        this.#onProviderFailure(failure)
      }
    }
    for (const { provider, challenges } of told.values()) {
      const { way, fields: own } = challenges.length === 1 ? challenges[0]! : provider.join!(challenges)
      ways.push({ provider: provider.name, ...way })
      Object.assign(fields, own)
    }
    const known = balance ?? (byCredits ? await this.#balanceOf(bill.account) : undefined)
    return {
      reason: 'payment',
      retryAfterMs: null,
      demand: {
        status,
        error,
        price: { credits: bill.credits },
        balance: known,
        ways,
        fields: { ...fields, ...moreFields },
      },
    }
  }

  /** Where it is not known from the decision. */
  async #balanceOf(account: string): Promise<CreditBalance | undefined> {
    return await this.#settings.ledger?.balance(account).catch(() => undefined)
  }
}

function isUnsafe(error: unknown): error is RampmeterError {
  return error instanceof RampmeterError && error.code === 'RAMPMETER_LEDGER_UNSAFE'
}

/** Whether only credits pay, of accounts that are clients: a stranger has none, and is sold none. */
function isOfAccounts({ paysItself, providers }: PaymentSettings): boolean {
  return paysItself && providers.length === 0
}

/** What a request carries to pay with. */
type Shown =
  | { readonly provider: PaymentProvider; readonly offer: Offer }
  | { readonly mismatch: string | undefined; readonly malformed: string | undefined }

function tooMany({ retryAfterMs }: TooMany): Unpaid {
  return { reason: 'quota', retryAfterMs, violated: [paymentChallenges] }
}

function crowd(retryAfterMs: number): Unpaid {
  return away(
    'Too many payments of this client, or from its address, wait to be checked, and nothing was taken',
    retryAfterMs,
  )
}

/** Nothing has been taken. */
const providerAway = away('The payment cannot be checked at the moment, and nothing was taken', retryProviderMs)

/** Whoever comes again would pay again, so that no time is told. */
const settlementLost = away(
  'Whether the payment was taken is not known, since who settles it did not answer; the request was not served. The same payment is not good again: look whether it was taken before you pay another time',
  null,
)

/** The memory store has no room for another. */
const noRoom = away('No further payment can be remembered at the moment, and nothing was taken', retryProviderMs)

/** When a request may come again that met a store which somebody has to set up first, in ms: an estimate. */
const retryUnsafeMs = 60_000

/** What pays a request, as another than credits, is looked at after the decision: without that nothing has been taken. */
function storeAway(ruling: Ruling): Unpaid {
  return away('Payments cannot be checked at the moment, and nothing was taken', waitOf(ruling), 'store')
}

function creditsAway(ruling: Ruling, safety: Safety): Unpaid {
  if (safety === 'unsafe') {
    const error =
      'Credits are not charged here at the moment, since they could be lost where they are kept; nothing was taken'
    return away(error, retryUnsafeMs, 'store')
  }
  const error =
    ruling.mayBeCharged === true
      ? 'Whether credits were taken is not known, since who keeps them did not answer; what was taken for this request is given back as soon as that answers'
      : 'Credits cannot be charged at the moment, and nothing was taken'
  return away(error, waitOf(ruling), 'store')
}

function waitOf({ retryAfterUs }: Ruling): number | null {
  return retryAfterUs === null ? null : Math.ceil(retryAfterUs / 1000)
}

function away(error: string, retryAfterMs: number | null, reason: RefusalReason = 'payment'): Unpaid {
  const demand = { status: 503 as const, error, price: { credits: 0 }, balance: undefined, ways: [], fields: {} }
  return { reason, retryAfterMs, demand }
}

/** Whether a payment came and was not good: not, whether none came. */
export function isFailedPayment({ demand }: Unpaid): boolean {
  return demand?.status === 402 && demand.error !== undefined
}

let holders = 0
function uniqueHolder(): string {
  holders += 1
  return `${process.pid}.${Date.now().toString(36)}.${holders.toString(36)}`
}

/** What a ledger says of its store in time; what it fails of besides is thrown. */
async function safetyOf(ms: number, ready: Promise<void>): Promise<Safety> {
  let timer: NodeJS.Timeout | undefined
  try {
    const late = new Promise<Safety>((resolve) => (timer = setTimeout(() => resolve('away'), ms)))
    return await Promise.race([ready.then((): Safety => 'safe'), late])
  } catch (error) {
    if (isUnsafe(error)) return 'unsafe'
    if (error instanceof RampmeterError && /^RAMPMETER_(STORE_UNAVAILABLE|CLOSED)$/.test(error.code)) return 'away'
    throw error
  } finally {
    clearTimeout(timer)
  }
}
