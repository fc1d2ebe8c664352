import type { Request } from 'express'
import { RampmeterError } from '../errors.ts'
import { identityOf, type Presumption, type Subject } from './subject.ts'
import { isThenable } from './thenable.ts'
import type { Verification, Verifier } from './verifier.ts'

/** Who is logged in, or anything falsy where nobody is. */
export type SessionSubject = Subject | null | undefined | false | 0 | ''

const presumed: Presumption = {
  kind: 'human',
  confidence: 0.6,
  reason: 'a login session, which is taken for a person',
}

const nobody: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Counts by what the app's own login knows. `who` is called on every request, so it reads what earlier middleware has found:
 * put the limiter after the session middleware.
 *
 * The client's id is `session:<id>`, its kind `human` unless `type` says `agent` or `service`.
 *
 * What `who` throws fails the request through `next(error)`, as does an answer that names nobody.
 *
 * @example session((req) => req.user && { id: req.user.id })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` when `who` is not a function; on a request `RAMPMETER_INVALID_IDENTITY`
 */
export function session(who: (req: Request) => SessionSubject | Promise<SessionSubject>): Verifier {
  if (typeof who !== 'function') {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `session: saw a ${typeof who}, expected a function; write session((req) => req.user && { id: req.user.id })`,
    )
  }
  return {
    name: 'session',
    mayProveKey: false,
    // No registered scheme describes a login, and a 401 has to carry one (RFC 9110 section 15.5.2).
    asks: { challenge: 'Session realm="api"', words: 'a login session of this app' },
    mayChange: true,
    verify(req) {
      const subject = who(req)
      return isThenable(subject) ? subject.then(verificationOf) : verificationOf(subject)
    },
  }
}

function verificationOf(subject: SessionSubject): Verification {
  if (!subject) return nobody
  return { outcome: 'verified', identity: identityOf('session', subject, presumed, "session's function") }
}
