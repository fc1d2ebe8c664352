// Who has an account with the demo's API: one program with an API key, and one person who can log in.

import { createHash, randomUUID } from 'node:crypto'
import type { Request } from 'express'

export interface Accounts {
  /** Whose API key it is, if it is one. */
  agentOf(key: string): { id: string; type: 'agent' } | null
  /** Who is logged in. */
  personOf(req: Request): { id: string } | null
  /** Starts a session; returns what goes into the cookie, or null for a wrong password. */
  logIn(name: string, password: string): string | null
}

/**
 * @param agentKey the key of the program `acme-research`
 * @param password the password of `ada`
 */
export function createAccounts(agentKey: string, password: string): Accounts {
  // Kept as hashes: a leak gives no key away, and neither does the time that a comparison takes.
  const keys = new Map([[sha256(agentKey), { id: 'acme-research', type: 'agent' as const }]])
  const passwords = new Map([['ada', sha256(password)]])
  /** One a person, so that logging in again and again fills nothing. */
  const sessions = new Map<string, string>()

  return {
    agentOf: (key) => keys.get(sha256(key)) ?? null,

    personOf(req) {
      const shown = /(?:^|;\s*)sid=([\w-]+)/.exec(req.headers.cookie ?? '')?.[1]
      if (shown === undefined) return null
      const hash = sha256(shown)
      for (const [id, session] of sessions) if (session === hash) return { id }
      return null
    },

    logIn(name, given) {
      if (passwords.get(name) !== sha256(given)) return null
      const session = randomUUID()
      sessions.set(name, sha256(session))
      return session
    },
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('base64')
}
