import type { Request } from 'express'
import type { Adaptivity, Place } from './adaptive/adaptivity.ts'
import type { AttemptLimit } from './attempts.ts'
import type { createBeside, SpentProof } from './beside.ts'
import type { createClassifier } from './classify/classify.ts'
import type { Client } from './client.ts'
import { noPlace, type Decider, type Ruling } from './decide.ts'
import { demandName, demandPayer, type createDemand, type Refusal } from './demand.ts'
import { strangerAt, type Identified } from './identify/identify.ts'
import type { createOutageReport } from './identify/outage.ts'
import type { Verifier } from './identify/verifier.ts'
import type { Route, Tier } from './options.ts'
import type { EarlierPayment, Pay, Unpaid } from './pay.ts'
import type { Bill } from './payments/provider.ts'
import type { PaymentDemand } from './respond/answer.ts'
import type { FollowedPayment } from './payments/payment.ts'
import type { Notes } from './notes.ts'
import type { Plan, PlannedRoute, Plans } from './plan.ts'
import { CircumstancesOfRequest, isSamePrice, price, type PricedPolicy, type TargetedRoute } from './price.ts'
import type { createRouteTable } from './route-table.ts'
import type { Settlement } from './settlement.ts'
import type { createTickets } from './tickets.ts'
import type { Watch } from './watch.ts'

/** What a limiter remembers of a request, for a `limiter.route()` further in. */
export interface Passage {
  readonly identified: Identified
  readonly client: Client
  readonly priced: readonly PricedPolicy[]
  readonly settlement: Settlement
  readonly payment: FollowedPayment | undefined
  readonly critical: boolean
  readonly planned: PlannedRoute
  readonly touching: TargetedRoute
}

/** What was ruled about a request, and about whom. */
export interface Judged {
  readonly identified: Identified
  readonly client: Client
  readonly route: Route
  readonly params: Record<string, string | string[] | undefined>
  /** The route, with what those further out add. */
  readonly planned: PlannedRoute
  readonly touching: TargetedRoute
  readonly priced: readonly PricedPolicy[]
  readonly ruling: Ruling
  /** Why it is refused whatever its limits say. */
  readonly refusal: Refusal | undefined
  /** What reserves the time that it is told. */
  readonly ticket: string | undefined
  readonly payment?: FollowedPayment | undefined
  /** Why it is refused although its limits admit it. */
  readonly unpaid?: Unpaid | undefined
  /** What would pay, where a payment would answer the challenge that refuses it. */
  readonly instead?: PaymentDemand | undefined
}

/** What judges consult. */
export interface JudgeParts {
  readonly classify: ReturnType<typeof createClassifier>
  readonly watch: Watch
  readonly routeFor: (
    req: Request,
    own: PlannedRoute | null,
  ) => ReturnType<ReturnType<typeof createRouteTable<PlannedRoute>>>
  readonly plans: Plans
  readonly demand: ReturnType<typeof createDemand>
  readonly verifiers: readonly Verifier[]
  readonly tiers: Readonly<Record<string, Tier>>
  readonly isEnforced: (client: Client) => boolean
  /** Where the limiter is adaptive. */
  readonly adaptivity: Adaptivity | undefined
  /** Places among the requests in flight. */
  readonly places: Notes<Request, Place>
  readonly multiplierOf: (tier: string, critical?: boolean) => number
  readonly pay: Pay | undefined
  readonly besideOf: ReturnType<typeof createBeside>
  readonly askForTicket: ReturnType<typeof createTickets> | undefined
  readonly decider: Decider
  readonly reportOutage: ReturnType<typeof createOutageReport>
  readonly attempts: AttemptLimit
}

/** Judges one request. */
export type Judge = (
  req: Request,
  own: PlannedRoute | null,
  identified: Identified,
  outer: Passage | undefined,
) => Promise<Judged | undefined>

/** Makes what goes from who is asking to what is ruled. */
export function createJudge({
  classify,
  watch,
  routeFor,
  plans,
  demand,
  verifiers,
  tiers,
  isEnforced,
  adaptivity,
  places,
  multiplierOf,
  pay,
  besideOf,
  askForTicket,
  decider,
  reportOutage,
  attempts,
}: JudgeParts): Judge {
  /** From who is asking to what is ruled; undefined where a limiter further out has ruled the same. */
  async function judge(
    req: Request,
    own: PlannedRoute | null,
    identified: Identified,
    outer: Passage | undefined,
    earlier: Ruling | undefined = outer?.settlement.ruling,
    again = false,
    answer?: Bill,
  ): Promise<Judged | undefined> {
    const classified = await classify(req, identified.client)
    const client = watch.assigned(classified)
    const { value, params } = routeFor(req, own)
    const planned = outer === undefined ? value : plans.within(outer.planned, value)
    const { route } = planned
    const touching = route.target === undefined && outer !== undefined ? outer.touching : { route, params }
    const plan = plans.forTier(planned, client.tier)
    let refusal =
      demand(identified, route, tiers[client.tier]) ?? (isEnforced(client) ? demandPayer(identified, route) : undefined)
    if (adaptivity !== undefined && !countsInFlight(route, plan)) {
      // A limiter further out may have taken it for any other.
      places.get(req)?.leave()
    } else if (
      adaptivity !== undefined &&
      outer === undefined &&
      refusal === undefined &&
      places.get(req) === undefined
    ) {
      const { fits, place } = adaptivity.enter(client, route.critical, isEnforced(client))
      if (place !== undefined) places.set(req, place)
      const full = { identified, client, route, params, planned, touching, priced: [], refusal, ticket: undefined }
      if (!fits) return { ...full, ruling: noPlace(adaptivity.retryMs(client)) }
    }
    if (route.critical && outer?.critical === false) adaptivity?.criticalRoutes.cameLate()
    if (route.critical && outer === undefined) adaptivity?.criticalRoutes.met(planned)
    const circumstances = new CircumstancesOfRequest(req, client, route, params, touching)
    const pricing = price(plan, client, circumstances, multiplierOf(client.tier, route.critical))
    const priced = Array.isArray(pricing) ? pricing : await pricing
    const asksAnew = value.route.ladder !== undefined || route.requireApproval
    const { earlier: paidBefore, bill: due = answer } =
      pay === undefined || route.price === undefined || refusal !== undefined
        ? nothingToPay
        : await billOf(pay, req, client, route, params, outer)
    // What a provider was paid further out answers a challenge here too.
    const pays = answer !== undefined || (outer?.payment !== undefined && pay!.isOfProvider(outer.payment))
    if (due !== undefined && pay!.needsName) refusal = demandName(identified, verifiers)
    const bill = refusal === undefined ? due : undefined
    const payable = bill !== undefined
    if (
      outer !== undefined &&
      refusal === undefined &&
      !asksAnew &&
      !payable &&
      isSettledBy(outer, identified, client, priced)
    ) {
      return undefined
    }

    // What is refused anyway uses no proof up.
    const beside = besideOf(req, identified, refusal === undefined, outer !== undefined)
    let { spent } = beside
    if (spent === undefined) {
      // An outage of ours is not charged to whoever meets it.
      const commit = identified.outcome !== 'unavailable' || outer !== undefined
      const { provesKey } = identified.client
      const query = watch.chargeFor(client, route, provesKey, pays)
      const shown = outer === undefined ? ticketOf(req) : undefined
      const asked = askForTicket?.({ client, thumbprint: identified.client.thumbprint, priced }, shown)
      const checkout = payable ? pay!.begin(bill, client, paidBefore) : undefined
      const safety = checkout === undefined ? 'safe' : await checkout.safe()
      const ruling = await decider.decide(priced, earlier, {
        commit: commit && (checkout?.commit ?? true),
        promise: isEnforced(client),
        beside: checkout === undefined ? beside.charges : [...beside.charges, ...checkout.charges],
        undoBeside: checkout === undefined ? beside.undo : [...beside.undo, ...checkout.undo],
        money: checkout !== undefined,
        away: safety !== 'safe',
        standing: query,
        // A limiter further out would not know its ticket.
        tickets: asked && (outer === undefined ? asked.terms : { ...asked.terms, share: 0 }),
      })
      if (ruling.degraded) checkout?.abandon()
      watch.learn(client, route, ruling)
      // People have put it in another tier since this process last saw it: decided once more, by that one's limits.
      if (!again && watch.isOfOtherTier(client, classified)) {
        return await judge(req, own, identified, outer, ruling, true, answer)
      }
      spent = beside.read(ruling)
      if (spent === undefined && !ruling.admitted && beside.charges.length > 0 && !isEnforced(client)) {
        // In shadow it goes on all the same, so its proofs are used.
        spent = beside.read(await decider.decide([], undefined, { beside: beside.charges }))
      }
      if (spent === undefined) {
        const ofClient = watch.refusalOf(client, route, provesKey, ruling, query, pays)
        const ticket = asked?.read(ruling.ticket)
        const judged = {
          identified,
          client,
          route,
          params,
          planned,
          touching,
          priced,
          ruling,
          refusal: refusal ?? ofClient,
          ticket,
        }
        if (pay !== undefined && refusal === undefined && ofClient?.payable === true) {
          const toAnswer = bill ?? (await billOfAnswer(pay, req, client, route, params))
          if (toAnswer !== undefined && pay.carries(toAnswer)) {
            return await judge(req, own, identified, outer, ruling, again, toAnswer)
          }
          if (toAnswer !== undefined) return await askInstead(pay, judged, toAnswer)
        }
        if (checkout === undefined) return judged
        const paid = ruling.degraded
          ? checkout.away(ruling, safety)
          : await checkout.close(ruling, ruling.beside[beside.charges.length])
        if (paid === undefined) return judged
        if ('payment' in paid) return { ...judged, payment: paid.payment }
        // What was charged for it has been given back.
        return { ...judged, ruling: { ...ruling, admitted: false, charged: [] }, unpaid: paid }
      }
    }
    const unproven = withoutProof(identified, spent, await countReplay(identified.client.address, spent))
    reportOutage(unproven)
    return await judge(req, own, unproven, outer)
  }

  /** What a request is to pay here: nothing in shadow, and nothing twice where a limiter further out was paid by a provider. */
  async function billOf(
    pay: Pay,
    req: Request,
    client: Client,
    route: Route,
    params: Record<string, string | string[] | undefined>,
    outer: Passage | undefined,
  ): Promise<ToPay> {
    if (!isEnforced(client)) return nothingToPay
    const earlier = outer?.payment && { payment: outer.payment, charged: pay.chargedOf(outer.payment) }
    const isPaid = earlier !== undefined && earlier.charged === undefined && !pay.isAnswer(earlier.payment)
    if (isPaid) return { earlier, bill: undefined }
    return { earlier, bill: await pay.billOf(req, client, route, params) }
  }

  /** What a payment costs that answers a challenge on a route that is free. */
  async function billOfAnswer(
    pay: Pay,
    req: Request,
    client: Client,
    route: Route,
    params: Record<string, string | string[] | undefined>,
  ): Promise<Bill | undefined> {
    const price = route.price === undefined ? watch.answerPriceFor(client, route) : undefined
    return price && (await pay.answerBillOf(req, client, route, params, price))
  }

  /** Says what would pay, beside the credentials that answer a challenge as well, or alone. */
  async function askInstead(pay: Pay, judged: Judged, bill: Bill): Promise<Judged> {
    const asked = await pay.ask(bill, judged.client)
    if (asked === undefined) return judged
    if (asked.demand !== undefined) return { ...judged, instead: asked.demand }
    if (judged.refusal?.denial?.status !== 402) return judged
    return { ...judged, refusal: undefined, unpaid: asked, ruling: { ...judged.ruling, admitted: false, charged: [] } }
  }

  /** A proof that comes again is a failed one; the same again and again, as of a client that repeats what it sends, is one failure. */
  async function countReplay(address: string, spent: SpentProof): Promise<number> {
    return spent.why === 'used' ? await attempts.replayed(address, spent.name) : 0
  }

  return (req, own, identified, outer) => judge(req, own, identified, outer)
}

/** What waits on purpose is no load, and a probe without limits must never be refused for one. */
function countsInFlight(route: Route, plan: Plan): boolean {
  return route.health && !(route.replace && plan.length === 0)
}

/** What a request is to pay, and what a limiter further out was paid for it. */
interface ToPay {
  readonly earlier: EarlierPayment | undefined
  readonly bill: Awaited<ReturnType<Pay['billOf']>>
}

const nothingToPay: ToPay = { earlier: undefined, bill: undefined }

/** Whether a limiter further out has decided the same: then its decision stands. */
function isSettledBy(
  outer: Passage,
  { outcome }: Identified,
  { id, tier }: Client,
  priced: readonly PricedPolicy[],
): boolean {
  const sameClient = outcome === 'known' && outer.client.id === id && outer.client.tier === tier
  return sameClient && isSamePrice(outer.priced, priced)
}

/** Several fields come joined by commas, which no ticket has. */
function ticketOf({ headers }: Request): string | undefined {
  const field = headers['ratelimit-ticket']
  return Array.isArray(field) ? field.join() : field
}

/** Whoever shows a proof that cannot be taken has proven nothing. */
function withoutProof(identified: Identified, spent: SpentProof, failures: number): Identified {
  const reason = spent.why === 'used' ? 'the proof was used before' : 'no further proof can be remembered now'
  const client = strangerAt(identified.client, reason)
  const { answers, fields } = identified
  const told = { client, answers, fields, failures }
  return spent.why === 'used'
    ? { outcome: 'invalid', denial: { status: 401, challenges: [spent.challenge] }, ...told }
    : { outcome: 'unavailable', reason, cause: spent.error, ...told }
}
