import type { IncomingMessage } from 'node:http'
import { createNotes } from '../notes.ts'
import type { Attempts } from './verifier.ts'

/** By whose attempts, since each limiter that a request passes has verifiers of its own. */
const proven = createNotes<object, Attempts>()

/** Notes that a verifier found what stands in `Authorization` good, with all that belongs to it. */
export function noteProven(req: Pick<IncomingMessage, 'headers'>, attempts: Attempts): void {
  proven.set(req, attempts)
}

/**
 * Whether a verifier before this one found what stands in `Authorization` good. Then it is not judged once more by one that knows less:
 * `bearer` looks at no certificate and would refuse a token that is bound to one, and `introspect` does not know the app's API keys.
 */
export function isProven(req: Pick<IncomingMessage, 'headers'>, attempts: Attempts): boolean {
  return proven.get(req) === attempts
}
