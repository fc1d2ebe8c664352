import type { RefusalReason } from './decision.ts'
import { RampmeterError } from './errors.ts'
import { challenge } from './identify/challenge.ts'
import type { Denial, Identified } from './identify/identify.ts'
import { missingScopes } from './identify/token-identity.ts'
import type { Verifier } from './identify/verifier.ts'
import type { Route, Tier } from './options.ts'
import { failedProofs } from './respond/problem.ts'

/** Why a request is refused whatever its limits say: what it showed is not enough. */
export interface Refusal {
  readonly reason: RefusalReason
  /** When it may come again, in ms; null where waiting does not help. */
  readonly retryAfterMs: number | null
  /** What refused, where no policy did. */
  readonly violated?: readonly string[]
  /** What would be enough. */
  readonly denial?: Denial
  /** A payment would be enough too. */
  readonly payable?: true
  /** It is what is told, whatever the limits say. */
  readonly stands?: true
}

/** When a request whose credential could not be checked may come again, in ms: an estimate. */
const retryVerificationMs = 5000

/**
 * Sees to it that what is asked for can be shown.
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`
 */
export function checkDemand(verifiers: readonly Verifier[], { requirePoP }: TierDemand, what: string): void {
  if (!requirePoP || verifiers.some(({ mayProveKey = true }) => mayProveKey)) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `${what}: \`requirePoP\` asks for a proven key, and no verifier in \`identify\` proves one, so nobody would ever be let in; add dpop, mtls, webBotAuth or attestation`,
  )
}

/** What a tier asks of its clients' credentials. */
type TierDemand = Pick<Tier, 'requirePoP'>

/** Says what is wanting in what a request showed; undefined where it is enough. */
export type Demand = (identified: Identified, route: Route, tier: TierDemand | undefined) => Refusal | undefined

/** Makes what compares a request's credential with what its route and tier ask for. */
export function createDemand(verifiers: readonly Verifier[]): Demand {
  /** Asks for a token that has the scopes; `insufficient_scope` where one came that lacks some. */
  function scopesDenial(identified: Identified, scopes: readonly string[]): Refusal {
    const { provedBy } = identified.client
    const error = provedBy === null ? undefined : 'insufficient_scope'
    const own = verifiers
      .filter(({ name }) => name === provedBy)
      .flatMap((one) => one.challengeFor?.(scopes, error) ?? [])
    const any = verifiers.flatMap((one) => one.challengeFor?.(scopes, error) ?? [])
    const challenges = [own, any, [challenge('Bearer', { error, scope: scopes.join(' ') })]].find(
      ({ length }) => length > 0,
    )!
    return {
      reason: provedBy === null ? 'proof' : 'scope',
      retryAfterMs: null,
      denial: { status: provedBy === null ? 401 : 403, challenges },
    }
  }

  return function demand(identified, route, tier) {
    switch (identified.outcome) {
      case 'invalid': {
        const { denial } = identified
        return { reason: denial.status === 403 ? 'scope' : 'proof', retryAfterMs: null, denial }
      }
      case 'unavailable':
        return { reason: 'verification', retryAfterMs: retryVerificationMs }
      case 'limited':
        return { reason: 'verification', retryAfterMs: identified.retryAfterMs, violated: [failedProofs] }
      case 'known': {
        const { provesKey, scopes } = identified.client
        if ((route.requirePoP || tier?.requirePoP === true) && !provesKey) {
          return { reason: 'proof', retryAfterMs: null, denial: stepUpOf(verifiers) }
        }
        if (missingScopes(route.scopes, scopes).length > 0) return scopesDenial(identified, route.scopes)
        return undefined
      }
    }
  }
}

/**
 * Who is to pay is asked before the money: a credential that is nobody's is no anonymous payer. Undefined where the route is free,
 * or the request has a name, or showed nothing.
 */
export function demandPayer({ outcome, client, answers }: Identified, { price }: Route): Refusal | undefined {
  if (price === undefined || outcome !== 'known' || client.provedBy !== null) return undefined
  const challenges = answers.flatMap((one) => (one.outcome === 'absent' && one.challenge) || [])
  if (challenges.length === 0) return undefined
  return { reason: 'proof', retryAfterMs: null, denial: { status: 401, challenges } }
}

/** Who is to pay is asked for a name first, where nobody pays without one. */
export function demandName({ outcome, client }: Identified, verifiers: readonly Verifier[]): Refusal | undefined {
  if (outcome !== 'known' || client.provedBy !== null) return undefined
  return { reason: 'proof', retryAfterMs: null, denial: credentialDenial(verifiers) }
}

/** How a client can prove that it holds a key. Asked each time: what a verifier says may hold a challenge of this moment. */
export function stepUpOf(verifiers: readonly Verifier[]): Denial {
  const challenges = verifiers.flatMap(({ stepUp }) => stepUp?.challenge ?? [])
  return {
    status: 401,
    challenges:
      challenges.length > 0
        ? [...new Set(challenges)]
        : [
            challenge('Bearer', {
              error: 'invalid_token',
              error_description: 'a credential that proves a key is needed',
            }),
          ],
    fields: Object.assign({}, ...verifiers.map(({ stepUp }) => stepUp?.fields)) as Record<string, string>,
  }
}

/** What asks a stranger for any credential there is. */
export function credentialDenial(verifiers: readonly Verifier[]): Denial {
  const asked = verifiers.flatMap(({ asks }) => asks ?? [])
  const challenges = verifiers.flatMap((one) => one.asks?.challenge ?? one.challengeFor?.([]) ?? [])
  if (verifiers.some((one) => one.asks === undefined && one.challengeFor !== undefined)) {
    asked.push({ words: 'a token in the field Authorization', challenge: '' })
  }
  return {
    status: 401,
    challenges: challenges.length > 0 ? [...new Set(challenges)] : [challenge('Bearer', {})],
    words: asked.length > 0 ? asked.map(({ words }) => words).join(', or ') : 'a credential',
  }
}
