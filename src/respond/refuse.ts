import type { NextFunction, Request, Response } from 'express'
import type { Decision } from '../decision.ts'
import type { Answer } from './answer.ts'
import { isBestTier, type TierLimits } from './best-tier.ts'
import type { FieldWriter } from './fields.ts'
import { htmlOf, textOf } from './page.ts'
import { problemOf, type Problem, type ProblemLinks } from './problem.ts'

/**
 * Writes a refusal in the library's stead. Status and header fields are set already; what it throws, or rejects with, goes to
 * `next`.
 */
export type RefusalHandler = (req: Request, res: Response, next: NextFunction, decision: Decision) => unknown

export interface RefuserOptions extends ProblemLinks {
  readonly writer: FieldWriter
  readonly handler?: RefusalHandler | undefined
  /** Tiers may have links of their own. The `upgradeUrl` of all is not for the best of them. */
  readonly tiers?: Readonly<Record<string, ProblemLinks & TierLimits>> | undefined
}

/** What would do instead of the credential that was shown, or missing. */
interface Demanded {
  readonly status: 400 | 401 | 402 | 403
  /** The `WWW-Authenticate` values (RFC 9110 section 15.5.2). */
  readonly challenges: readonly string[]
  /** What would do, in words. */
  readonly words?: string | undefined
  readonly fields?: Readonly<Record<string, string>> | undefined
}

/** Answers a request that was not admitted. */
export type Refuser = (
  req: Request,
  res: Response,
  next: NextFunction,
  answer: Answer,
  demanded?: Demanded,
) => Promise<void>

/** Builds what answers the requests that are refused. */
export function createRefuser({ writer, handler, tiers = {}, ...links }: RefuserOptions): Refuser {
  const linksOf = new Map<string, ProblemLinks>()
  for (const [tier, own] of Object.entries(tiers)) {
    const ofAll = isBestTier(tier, tiers) ? undefined : links.upgradeUrl
    linksOf.set(tier, { docsUrl: own.docsUrl ?? links.docsUrl, upgradeUrl: own.upgradeUrl ?? ofAll })
  }

  return async function refuse(req, res, next, answer, demanded) {
    // Somebody has answered already, so there is nothing left to refuse.
    if (res.headersSent) return
    const problem = problemOf(
      answer,
      linksOf.get(answer.decision.client.tier) ?? links,
      demanded?.status,
      demanded?.words,
    )
    res.statusCode = problem.status
    writer.write(res, answer)
    res.setHeader('Cache-Control', 'no-store')
    const { ticket } = answer.decision
    if (ticket !== undefined) res.setHeader('RateLimit-Ticket', ticket)
    if (demanded !== undefined) {
      if (demanded.challenges.length > 0) res.setHeader('WWW-Authenticate', demanded.challenges.map(withoutControls))
      for (const [name, value] of Object.entries(demanded.fields ?? {})) res.setHeader(name, value)
    }
    if (handler === undefined) {
      send(req, res, problem)
      return
    }
    try {
      await handler(req, res, next, answer.decision)
    } catch (error) {
      next(error)
    }
  }
}

/** A verifier may be the app's own: what cannot stand in a field must not turn a 401 into a crash. */
function withoutControls(challenge: string): string {
  return challenge.replace(/[^\x20-\x7e]/g, '')
}

/** In the order in which we would rather answer; `application/json` is answered as the problem type that it is. */
const offered = ['application/problem+json', 'application/json', 'text/html', 'text/plain']

function send(req: Request, res: Response, problem: Problem): void {
  const [type, body] = represent(preferred(req, res), problem)
  res.setHeader('Content-Type', type)
  res.setHeader('Content-Length', Buffer.byteLength(body))
  if (req.method === 'HEAD') res.end()
  else res.end(body)
}

/** What the client would rather read. Frameworks that only resemble Express may lack the method: they get the default. */
function preferred(req: Request, res: Response): string | false {
  if (typeof req.accepts !== 'function') return false
  res.vary('Accept')
  return req.accepts(offered)
}

function represent(type: string | false, problem: Problem): [type: string, body: string] {
  if (type === 'text/html') return ['text/html; charset=utf-8', htmlOf(problem)]
  if (type === 'text/plain') return ['text/plain; charset=utf-8', textOf(problem)]
  return ['application/problem+json', JSON.stringify(problem)]
}
