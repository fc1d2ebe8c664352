import { BoundedMap } from './bounded-map.ts'
import { createBudget, type RetryBudget } from './budget.ts'
import { callerOf, bodyHolder, readCall, routeOf, type Call } from './call.ts'
import { nonceOf, readPayment, wantsNonce, type PaymentFields } from './challenges.ts'
import { discard } from './discard.ts'
import { readOptions, type PacedFetchOptions, type Settings } from './options.ts'
import { platform, type Runtime } from './runtime.ts'
import { Schedule, type Answer, type Due } from './schedule.ts'
import { send } from './send.ts'
import { Spending } from './spending.ts'
import { readLimits, readWait, type ToldLimit, type ToldWait } from './told.ts'

/** What is remembered of a server. */
interface Origin {
  readonly schedule: Schedule
  readonly budget: RetryBudget
  nonce: string | undefined
}

/** How far a call has come. */
interface Progress {
  due: Due | null
  ticket: string | undefined
  payment: PaymentFields | undefined
  sentAgain: number
  challenged: boolean
}

const mostOrigins = 64

/**
 * A `fetch` for agents, which keeps to what servers tell about their limits.
 *
 * It waits before it is refused where `RateLimit` fields say that a limit is used up, and spreads the rest of one that nears
 * its end. A refused request (429, or 503 with a time) is sent again when the server said, to the millisecond where it tells
 * them. All calls of one instance to an origin share one schedule, so a crowd of them does not come back at once. Whatever
 * cannot be mended is returned as it came: it never makes up a response, and never throws what fetch would not, except for an
 * `AbortSignal`'s reason during a wait and what the hooks throw.
 *
 * @returns a function with the type of `fetch`
 * @throws {RampmeterError} `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_OPTION` or `RAMPMETER_INVALID_DURATION`, at once
 *
 * @example
 * const fetch = pacedFetch({ maxWait: '2m', onWait: ({ url, ms }) => console.log(`${url}: ${ms} ms`) })
 * const pages = await Promise.all(urls.map((url) => fetch(url)))
 */
export function pacedFetch(options: PacedFetchOptions = {}): typeof fetch {
  return createPacedFetch(options, platform)
}

/** The same, in a world of the caller's making. */
export function createPacedFetch(options: PacedFetchOptions, runtime: Runtime): typeof fetch {
  const settings = readOptions(options)
  const origins = new BoundedMap<Origin>(mostOrigins)
  const spending = settings.payBudget === undefined ? undefined : new Spending(settings.payBudget)

  function originOf(name: string): Origin {
    let origin = origins.get(name)
    if (origin === undefined) {
      const schedule = new Schedule(runtime, settings.maxWaitMs)
      origin = { schedule, budget: createBudget(settings.budget), nonce: undefined }
      origins.set(name, origin)
    }
    return origin
  }

  return async function pacedFetch(input, init) {
    const call = readCall(input, init)
    if (call === null) return settings.fetch(input, init)
    const mayRepeat = call.replayable && settings.retry(describe(call))
    const again = call.replayable && (mayRepeat || settings.prove !== undefined || settings.pay !== undefined)
    try {
      return await untilAnswered(call, mayRepeat, again)
    } finally {
      // Its copies were sent; fetch would have used it up.
      if (again)
        void bodyHolder(call)
          ?.body?.cancel()
          .catch(() => {})
    }
  }

  async function untilAnswered(call: Call, mayRepeat: boolean, again: boolean): Promise<Response> {
    const origin = originOf(call.url.origin)
    const place = { caller: callerOf(call), route: routeOf(call) }
    const { url, method } = call
    const progress: Progress = {
      due: null,
      ticket: undefined,
      payment: undefined,
      sentAgain: 0,
      challenged: false,
    }
    for (;;) {
      const started = await origin.schedule.admit(place, progress.due, call.signal, (ms, reason) =>
        settings.onWait({ url: url.href, method, ms, reason }),
      )
      let response: Response
      try {
        const { ticket, payment } = progress
        const additions = { ticket, payment, prove: settings.prove, nonce: origin.nonce }
        response = await send(call, additions, again, settings.fetch)
      } catch (error) {
        started.ended()
        throw error
      }
      const answer = readAnswer(call, response, progress)
      noteNonce(call, response)
      const limits = answer === null ? [] : started.answered(answer)
      if (answer === null) started.ended()
      else if (answer.refusal === null) origin.budget.earn()

      const repeats =
        answer?.refusal == null
          ? again && (await meets(call, response, progress, settings, spending))
          : mayRepeat && mayWait(answer.refusal, progress, origin)
      if (!repeats) return response
      progress.due = null
      if (answer?.refusal != null) {
        progress.ticket = ticketOf(response) ?? progress.ticket
        progress.sentAgain += 1
        const { ms, reason } = answer.refusal
        progress.due = { at: answer.at + ms, reason, reserved: progress.ticket !== undefined, limits }
      }
      void discard(response)
    }
  }

  /** What a response of this call's own server says about limits; null for one that says nothing to be believed. */
  function readAnswer(call: Call, response: Response, { sentAgain }: Progress): HeardAnswer | null {
    const { headers, status } = response
    if (headers.has('age') || status === 0 || respondent(call, response) !== call.url.origin) return null
    const wall = runtime.wall()
    const limits = readLimits(headers, wall)
    const wait = status === 429 || status === 503 ? readWait(headers, wall) : null
    const refused = status === 429 || wait !== null
    return { at: runtime.now(), limits, refusal: refused ? readRefusal(wait, limits, sentAgain) : null }
  }

  function readRefusal(told: ToldWait | null, limits: readonly ToldLimit[], sentAgain: number): Refusal {
    const wait = told ?? emptyUntil(limits)
    if (wait === null || wait.ms <= 0) {
      // Nothing is told, or a time that is past: twice as long each time, and never all of us at once.
      return { ms: 1000 * 2 ** sentAgain * (0.5 + runtime.random() / 2), exact: false, reason: 'backoff' }
    }
    // Everybody was told the same second, so it may as well be a bit later.
    const jitter = wait.exact ? 0 : runtime.random() * Math.min(1000, wait.ms / 2)
    return { ms: wait.ms + jitter, exact: wait.exact, reason: 'refused' }
  }

  function mayWait({ ms, reason }: Refusal, { sentAgain }: Progress, { budget }: Origin): boolean {
    if (ms > settings.maxWaitMs || sentAgain >= settings.budget.perCall) return false
    return (sentAgain === 0 && reason === 'refused') || budget.take()
  }

  function noteNonce(call: Call, response: Response): void {
    const nonce = nonceOf(response.headers)
    if (nonce !== null && !response.headers.has('age')) originOf(respondent(call, response)).nonce = nonce
  }
}

interface Refusal extends ToldWait {
  readonly reason: 'refused' | 'backoff'
}

interface HeardAnswer extends Answer {
  /** When it came, on the schedule's clock. */
  readonly at: number
  readonly refusal: Refusal | null
}

/** Whether a response that is no refusal asks for something that we have: a nonce in the proof, or money. */
async function meets(
  call: Call,
  response: Response,
  progress: Progress,
  { prove, pay }: Settings,
  spending: Spending | undefined,
): Promise<boolean> {
  if (prove !== undefined && !progress.challenged && wantsNonce(response) && nonceOf(response.headers) !== null) {
    progress.challenged = true
    return true
  }
  if (response.status !== 402 || pay === undefined) return false
  // What has been signed can be settled whatever the answer says: it counts as spent.
  if (progress.payment !== undefined) return false
  const ofCall = spending?.ofCall()
  const copy = response.clone()
  let isSigned = false
  try {
    const request = new Request(call.url, { method: call.method, headers: call.headers })
    const reserve = ofCall?.reserve ?? (() => true)
    const payment = await pay({ request, response: copy, reserve })
    if (payment === undefined || payment === null) return false
    const fields = readPayment(payment)
    isSigned = true
    if (ofCall?.allows(fields) === false) return false
    progress.payment = fields
    return true
  } finally {
    // What was set aside and signed may be taken, sent or not.
    if (!isSigned) ofCall?.giveBack()
    if (!copy.bodyUsed) void copy.body?.cancel().catch(() => {})
  }
}

/** Who answered: after redirects perhaps not who was asked. */
function respondent(call: Call, { url }: Response): string {
  return url === '' ? call.url.origin : new URL(url).origin
}

/** The longest wait of the limits that have nothing left. */
function emptyUntil(limits: readonly ToldLimit[]): ToldWait | null {
  const waits = limits.filter(({ available }) => available === 0).map(({ effectiveMs }) => effectiveMs ?? 0)
  return waits.length === 0 ? null : { ms: Math.max(...waits), exact: false }
}

/** A ticket as it can stand in a header field, and no longer than servers take. */
function ticketOf({ headers }: Response): string | undefined {
  const ticket = headers.get('ratelimit-ticket')
  return ticket !== null && /^[\x21-\x7e]{1,4096}$/.test(ticket) ? ticket : undefined
}

function describe({ url, method, headers }: Call): { url: string; method: string; headers: Headers } {
  return { url: url.href, method, headers: new Headers(headers) }
}
