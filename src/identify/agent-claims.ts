import type { Identity } from './verifier.ts'

/** A token's claims, verified. */
export type Claims = Readonly<Record<string, unknown>>

/** What a token's claims say of who uses it. */
export interface Bearer extends Pick<Identity, 'kind' | 'confidence' | 'reason'> {
  /** It acts for the subject, and is not the subject itself. */
  readonly actsFor: boolean
}

/** Microsoft Entra marks its tokens with facets; 11 is an agent identity. */
const agentFacet = 11

const facetClaims = ['xms_act_fct', 'xms_sub_fct', 'xms_par_fct'] as const

/**
 * Tells an agent's token by its claims, from the most to the least explicit: what an issuer says of agents, an actor (RFC 8693
 * section 4.1; the outermost, since that is who acts now), the marks of a client-credentials grant, a list of clients.
 *
 * A token that says nothing is `unknown`, not a person's: silence proves nothing.
 *
 * @param type the token's `typ`, in lower case
 * @param agents client ids that are known to be agents
 */
export function readBearer(type: string | undefined, claims: Claims, agents: ReadonlySet<string>): Bearer {
  const actor = claims['act']
  const hasActor = typeof actor === 'object' && actor !== null && !Array.isArray(actor)
  const facet = facetClaims.find((name) => hasFacet(claims[name]))
  if (facet !== undefined) {
    const actsFor = hasActor || facet === 'xms_act_fct'
    return { kind: 'agent', confidence: 1, reason: `the token's ${facet} says agent`, actsFor }
  }
  if (type === 'aa-agent+jwt') {
    return { kind: 'agent', confidence: 1, reason: "the token's type says agent", actsFor: hasActor }
  }
  if (hasActor) return { kind: 'agent', confidence: 0.9, reason: 'the token names an actor', actsFor: true }
  const mark = clientCredentialsMark(claims)
  if (mark !== undefined) {
    return { kind: 'agent', confidence: 0.8, reason: `the token is a client's own (${mark})`, actsFor: false }
  }
  const client = clientOf(claims)
  if (client !== undefined && agents.has(client)) {
    const actsFor = claims['sub'] !== undefined && claims['sub'] !== client
    return { kind: 'agent', confidence: 0.8, reason: 'its client is in the list of agents', actsFor }
  }
  return { kind: 'unknown', confidence: 0, reason: 'the token does not say who uses it', actsFor: false }
}

/** Facets are numbers, alone, in a list, or in a text between spaces. */
function hasFacet(claim: unknown): boolean {
  if (typeof claim === 'number') return claim === agentFacet
  if (typeof claim === 'string') return claim.split(/[\s,]+/).includes(String(agentFacet))
  return Array.isArray(claim) && claim.some((one) => Number(one) === agentFacet)
}

function clientCredentialsMark(claims: Claims): string | undefined {
  const { gty, sub, idtyp } = claims as Record<string, unknown>
  if ([gty].flat().some((grant) => grant === 'client-credentials' || grant === 'client_credentials')) return 'gty'
  if (idtyp === 'app') return 'idtyp'
  if (typeof sub !== 'string') return undefined
  // RFC 9068 section 5: a token without a user has the client as its subject.
  if (sub === clientOf(claims)) return 'sub is its client'
  return sub.endsWith('@clients') ? 'sub ends in @clients' : undefined
}

/** The client a token was issued to. */
export function clientOf(claims: Claims): string | undefined {
  for (const name of ['client_id', 'azp', 'appid', 'cid'] as const) {
    const client = claims[name]
    if (typeof client === 'string' && client !== '') return client
  }
  return undefined
}
