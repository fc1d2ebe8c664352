import { RampmeterError } from '../errors.ts'
import type { Identity } from './verifier.ts'

/** Who a credential belongs to, as the app itself knows. */
export interface Subject {
  /** Names the client among those of its verifier: a text, or a whole number. At most 1000 characters. */
  id: string | number | bigint
  /** What it is: `user` is a person, `agent` and `service` are programs. */
  type?: 'agent' | 'service' | 'user' | null | undefined
  /** The tier it belongs in, such as `premium`. Default: the classifier chooses. */
  tier?: string | null | undefined
  /** What else is known, such as a quota of its own; found on `client.claims`. */
  claims?: Record<string, unknown> | null | undefined
}

const longestId = 1000

/** What to take a subject for when it does not say. */
export interface Presumption {
  readonly kind: Identity['kind']
  readonly confidence: number
  readonly reason: string
}

/**
 * Turns what the app answered into an identity, `scheme:id`.
 *
 * A null in an optional field is what databases give for nothing, and taken as such. Everything else must be right: a wrong
 * id would give strangers one counter, and an unread tier would be a surprise.
 *
 * @param source what answered, for the message: "`lookup` of apiKey"
 * @throws {RampmeterError} `RAMPMETER_INVALID_IDENTITY`
 */
export function identityOf(scheme: string, answer: unknown, presumed: Presumption, source: string): Identity {
  if (typeof answer !== 'object' || answer === null || Array.isArray(answer)) {
    throw invalid(source, `answered with ${shape(answer)}`, '`{ id }`, or null where there is nobody')
  }
  const { id, type, tier, claims } = answer as Record<keyof Subject, unknown>
  if (!isUsableId(id)) {
    throw invalid(
      source,
      `answered with an id that is ${shape(id)}`,
      `a whole number or a text of 1 to ${longestId} characters`,
    )
  }
  if (tier != null && (typeof tier !== 'string' || tier === '')) {
    throw invalid(source, `answered with a tier that is ${shape(tier)}`, 'the name of a tier, or leave it out')
  }
  if (claims != null && (typeof claims !== 'object' || Array.isArray(claims))) {
    throw invalid(source, `answered with claims that are ${shape(claims)}`, 'an object, or leave them out')
  }
  return {
    id: `${scheme}:${id}`,
    ...kindOf(type, presumed, source),
    provesKey: false,
    ...(tier != null && { tier }),
    claims: { ...claims },
  }
}

function kindOf(type: unknown, presumed: Presumption, source: string): Presumption {
  if (type == null) return presumed
  // Not 1: the app says so, and has no proof that the credential was not lent out.
  if (type === 'user') return { kind: 'human', confidence: 0.9, reason: 'the credential is registered to a user' }
  if (type === 'agent') return { kind: 'agent', confidence: 0.9, reason: 'the credential is registered to an agent' }
  if (type === 'service') return { kind: 'agent', confidence: 0.9, reason: 'the credential is registered to a service' }
  throw invalid(source, `answered with a type that is ${shape(type)}`, '"agent", "service" or "user", or leave it out')
}

function isUsableId(id: unknown): id is Subject['id'] {
  // Beyond 2^53 two numbers may be one.
  if (typeof id === 'number') return Number.isSafeInteger(id)
  if (typeof id === 'bigint') return String(id).length <= longestId
  return typeof id === 'string' && id !== '' && id.length <= longestId && isWellFormed(id)
}

/** False for a text with half a surrogate pair: all of them are the same once written as UTF-8, and with it their counters. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text)
}

function invalid(source: string, seen: string, instead: string): RampmeterError {
  return new RampmeterError('RAMPMETER_INVALID_IDENTITY', `${source} ${seen}; write ${instead}`)
}

/** Shows what kind of value it is, never the value: it may be a credential. */
export function shape(value: unknown): string {
  if (value === undefined) return 'nothing'
  if (value === null) return 'null'
  if (value === '') return 'an empty text'
  if (typeof value === 'string')
    return `a text of ${value.length} characters${isWellFormed(value) ? '' : ' that is not well-formed Unicode'}`
  if (typeof value === 'object') return Array.isArray(value) ? 'a list' : 'an object'
  return `a ${typeof value}`
}
