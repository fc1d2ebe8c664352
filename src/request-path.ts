import type { NextFunction, Request, Response } from 'express'
import type { Abuse } from './abuse/abuse.ts'
import { touchedBy } from './abuse/targets.ts'
import type { Adaptivity, Place } from './adaptive/adaptivity.ts'
import { Admission, limitsOf, toldOf, withoutGaps } from './admission.ts'
import type { Client } from './client.ts'
import type { Decision } from './decision.ts'
import type { createIdentifier } from './identify/identify.ts'
import type { createOutageReport } from './identify/outage.ts'
import type { Judge, Judged, JudgeParts, Passage } from './judge.ts'
import { createNotes, type Notes } from './notes.ts'
import { observeDecision } from './observe/channels.ts'
import type { Settings } from './options.ts'
import { isFailedPayment, type Pay, type Unpaid } from './pay.ts'
import type { FollowedPayment } from './payments/payment.ts'
import type { PlannedRoute } from './plan.ts'
import type { createFieldWriter } from './respond/fields.ts'
import type { createRefuser } from './respond/refuse.ts'
import { nothingAtAll, Settlement } from './settlement.ts'
import type { Settler } from './settler.ts'
import type { Watch } from './watch.ts'
import { whenAnswered } from './when-answered.ts'

/** What a request meets on its way. */
export interface RequestPathParts extends Pick<Settings, 'skip' | 'property'> {
  readonly identify: ReturnType<typeof createIdentifier>
  readonly reportOutage: ReturnType<typeof createOutageReport>
  readonly judge: Judge
  readonly routeFor: JudgeParts['routeFor']
  readonly isEnforced: (client: Client) => boolean
  readonly settler: Settler
  readonly watch: Watch
  readonly abuse: Abuse
  /** Where the limiter is adaptive, and the places among the requests in flight. */
  readonly adaptivity: Adaptivity | undefined
  readonly places: Notes<Request, Place>
  readonly pay: Pay | undefined
  readonly writer: ReturnType<typeof createFieldWriter>
  readonly refuse: ReturnType<typeof createRefuser>
}

/** Takes a request through the limiter; a route's own where it has one. */
export type Pass = (req: Request, res: Response, next: NextFunction, own: PlannedRoute | null) => Promise<void>

/** Makes the way of a request: who asks, what is ruled, and what it is told. */
export function createRequestPath({
  skip,
  property,
  identify,
  reportOutage,
  judge,
  routeFor,
  isEnforced,
  settler,
  watch,
  abuse,
  adaptivity,
  places,
  pay,
  writer,
  refuse,
}: RequestPathParts): Pass {
  const passages = createNotes<Request, Passage>()

  /** The way of a request, in the order it happens. True when it goes on to the handler. */
  async function admit(req: Request, res: Response, next: NextFunction, own: PlannedRoute | null): Promise<boolean> {
    if (skip !== undefined && (await skip(req))) return true
    const outer = passages.get(req)

    const identified = await identify(req, outer?.identified)
    reportOutage(identified)
    const judged = await judge(req, own, identified, outer)
    if (judged === undefined) {
      const { value, params } = routeFor(req, own)
      settler.takeCost(res, outer!.settlement, value.route.costHeader)
      const answer = answers.get(req)
      if (answer !== undefined && value.route.target !== undefined) answer.touching = { route: value.route, params }
      return true
    }
    const { client, route, ruling, refusal, ticket, unpaid } = judged
    const demand = unpaid?.demand ?? judged.instead
    const priced = ruling.cut ?? judged.priced
    const payment = judged.payment ?? (unpaid === undefined ? outer?.payment : undefined)
    outer?.settlement.end()
    if (payment !== outer?.payment) outer?.payment?.replaced()
    const settlement = new Settlement(ruling, priced)
    const { critical } = route
    const { planned, touching } = judged
    passages.set(req, {
      identified: judged.identified,
      client,
      priced,
      settlement,
      payment,
      critical,
      planned,
      touching,
    })
    settler.follow(req, res, settlement)
    settler.takeCost(res, settlement, route.costHeader)

    const obeyed = isEnforced(client)
    // Whose credential was not looked at is told when it will be, not when strangers have room; who is refused for what it is, why.
    const stands = refusal !== undefined && (refusal.stands === true || standing.has(refusal.reason))
    const unproven = unpaid ?? (ruling.admitted || !obeyed || stands ? refusal : undefined)
    const limits = limitsOf(priced, ruling)
    const decision = new Admission({
      client,
      enforced: obeyed || unproven !== undefined,
      ruling,
      limits: withoutGaps(limits),
      ...unproven,
      ticket,
      abuse: watch.statusOf(client, ruling, judged.identified.client.provesKey),
      payment,
      settle: (total) => settler.withResponse(res, settlement, total),
      release: () => settler.releaseNow(settlement),
    })
    // `Reflect.set` costs as much here as pricing does.
    ;(req as unknown as Record<string, Decision>)[property] = decision
    observeDecision(decision, route.name)

    if (abuse.watches) watchAnswer(req, res, judged, decision)
    if (!decision.admitted && decision.reason === 'abuse' && decision.enforced && !decision.degraded)
      abuse.noteRefused(req, client)

    const policies = obeyed ? toldOf(priced, ruling, limits) : []
    const answer = { decision, policies, nowMs: ruling.nowUs / 1000, byShare: ruling.byShare, payment: demand }
    if (outer !== undefined) writer.clear(res)
    for (const [name, value] of Object.entries(judged.identified.fields)) res.setHeader(name, value)
    if (decision.admitted || !decision.enforced) {
      if (obeyed) writer.write(res, answer)
      if (adaptivity !== undefined && outer === undefined) {
        places.get(req)?.follow(req, res, (act) => settler.whenClosed(req, res, act))
      }
      if (payment !== undefined && payment !== outer?.payment) followPayment(payment)
      return true
    }
    places.get(req)?.leave()
    if (decision.reason === 'capacity' && own === null && !critical) adaptivity?.criticalRoutes.wasRefused()
    for (const [name, value] of Object.entries(demand?.fields ?? {})) res.setHeader(name, value)
    await refuse(req, res, next, answer, refusal === unproven ? refusal?.denial : undefined)
    return false

    function followPayment(paid: FollowedPayment): void {
      settler.whenClosed(req, res, () => paid.ended(res))
      pay!.follow(res, paid, client, (failure) => void answerUnpaid(failure))
    }

    /** The answer is there and its payment failed: in its stead goes a 402, or a 503 where the provider is away. */
    async function answerUnpaid({ reason: why, retryAfterMs, demand }: Unpaid): Promise<void> {
      for (const name of res.getHeaderNames())
        if (/^(content-|etag|last-modified|location|set-cookie)/.test(name)) res.removeHeader(name)
      for (const [name, value] of Object.entries(demand?.fields ?? {})) res.setHeader(name, value)
      decision.refund()
      const failed = new Admission({
        client,
        enforced: true,
        ruling,
        limits: decision.limits,
        reason: why,
        violated: undefined,
        retryAfterMs,
        settle: () => {},
        release: () => {},
      })
      await refuse(req, res, next, { ...answer, decision: failed, payment: demand })
    }
  }

  /** Has what became of the request told to the store once it is answered; of several limiters by the innermost. */
  function watchAnswer(req: Request, res: Response, judged: Judged, decision: Decision): void {
    const before = answers.get(req)
    const touching = judged.route.target === undefined && before !== undefined ? before.touching : judged
    const priced = before === undefined ? judged.priced : [...before.priced, ...judged.priced]
    answers.set(req, { judged, decision, failedProofs: judged.identified.failures, touching, priced })
    if (before !== undefined) return
    settler.whenClosed(req, res, () => {
      const { judged, decision, failedProofs, touching, priced } = answers.get(req)!
      const { client, route, ruling, refusal } = judged
      const { route: touched, params } = touching
      const { target } = touched
      const known = {
        req,
        res,
        client,
        decision,
        nowUs: ruling.nowUs,
        route: route.name,
        isFree: isFree(priced),
        charges: route.highRisk || route.price !== undefined,
        failedPayment: judged.unpaid !== undefined && isFailedPayment(judged.unpaid),
        targets: target && touchedBy(target, () => target(req, client, params), touched.name),
        failedProofs,
        challenged: refusal?.reason === 'abuse' && refusal.denial !== undefined,
      }
      const ladder = watch.ladderFor(client, route)
      abuse.note(known, ladder, ruling.standing)
      if (known.charges && (decision.admitted || !decision.enforced) && !res.headersSent)
        whenAnswered(res, () => abuse.noteUnread(client.id, res, ladder))
    })
  }

  /** A mistake on the way refuses the request, through the app's own error handler. */
  async function pass(req: Request, res: Response, next: NextFunction, own: PlannedRoute | null): Promise<void> {
    let goesOn: boolean
    try {
      goesOn = await admit(req, res, next, own)
    } catch (error) {
      // What fails is charged nothing, by the limiter further out neither.
      const outer = passages.get(req)
      if (outer !== undefined) settler.now(outer.settlement, nothingAtAll)
      places.get(req)?.leave()
      next(error)
      return
    }
    if (goesOn) next()
  }

  return pass
}

/** Reasons that stand whatever the limits say. */
const standing: ReadonlySet<string> = new Set(['verification', 'abuse', 'approval'])

/** Of each request what is to be told of it when it is answered. */
const answers = createNotes<Request, Answer>()

interface Answer {
  judged: Judged
  decision: Decision
  failedProofs: number
  /** The innermost that says what the request touches: a limiter further in may decide nothing, and say that. */
  touching: Pick<Judged, 'route' | 'params'>
  /** By all of them. */
  priced: Judged['priced']
}

/** Whether it costs nothing where others cost something. */
function isFree(priced: Judged['priced']): boolean {
  const counted = priced.filter(({ charge, policy }) => charge.after !== true && !policy.holdsSlots)
  return counted.length > 0 && counted.every(({ charge }) => charge.cost === 0)
}
