import type { Request } from 'express'
import type { AgentHint, IdentifiedClient } from '../client.ts'
import { RampmeterError } from '../errors.ts'
import { hintOf, loadIsbot } from './hints.ts'
import { isWellFormed, shape } from './subject.ts'
import { isThenable } from './thenable.ts'
import type { Identity, Verification, Verifier } from './verifier.ts'

/**
 * Who sent a request.
 *
 * - `known`: a client with an identity, or an anonymous one.
 * - `invalid`: a credential was wrong; `client` is anonymous, so that guesses are charged to their address. Answered 401.
 * - `unavailable`: it cannot be told now. Answered 503.
 */
export type Identified = (
  | { readonly outcome: 'known'; readonly client: IdentifiedClient }
  | {
      readonly outcome: 'invalid'
      readonly client: IdentifiedClient
      readonly reason: string
      readonly challenge: string
    }
  | {
      readonly outcome: 'unavailable'
      readonly client: IdentifiedClient
      readonly reason: string
      readonly cause: unknown
    }
) & {
  /** What the verifiers answered, in their order, so that no proof is checked twice for one request. */
  readonly answers: readonly Verification[]
}

export interface IdentifierOptions {
  /** Tried in order. The first identity wins; later ones add claims. */
  verifiers: readonly Verifier[]
  readAddress: (req: Request) => string
}

/** What is known of a request while its verifiers are asked. */
interface Findings {
  readonly address: string
  readonly answers: Verification[]
  readonly hint: AgentHint | null
  identity: Identity | null
  provedBy: string | null
  claims: Record<string, unknown>
  readonly also: string[]
  readonly notes: string[]
}

/**
 * Makes what tells who sent a request. It answers with a promise only where a verifier does. Asked again about the same request
 * with its `earlier` answer, it asks only those verifiers anew whose answer may have changed.
 *
 * What a verifier throws passes through, as does `RAMPMETER_INVALID_IDENTITY` for one that answers with no verification.
 */
export function createIdentifier(
  options: IdentifierOptions,
): (req: Request, earlier?: Identified) => Identified | Promise<Identified> {
  const { verifiers, readAddress } = options
  const mayChange = verifiers.some((verifier) => verifier.mayChange === true)
  void loadIsbot()

  function ask(
    req: Request,
    findings: Findings,
    earlier: Identified | undefined,
    from: number,
  ): Identified | Promise<Identified> {
    for (let index = from; index < verifiers.length; index += 1) {
      const verifier = verifiers[index]!
      const before = verifier.mayChange === true ? undefined : earlier?.answers[index]
      const verification = before ?? verifier.verify(req)
      if (isThenable(verification)) {
        return Promise.resolve(verification).then(
          (answer) => take(findings, verifier.name, answer) ?? ask(req, findings, earlier, index + 1),
        )
      }
      const end = take(findings, verifier.name, verification)
      if (end !== undefined) return end
    }
    return { outcome: 'known', client: clientOf(findings), answers: findings.answers }
  }

  return function identify(req, earlier) {
    if (earlier !== undefined && !mayChange) return earlier
    const userAgent: unknown = (req.headers as Request['headers'] | undefined)?.['user-agent']
    const findings: Findings = {
      address: readAddress(req),
      answers: [],
      hint: typeof userAgent === 'string' ? hintOf(userAgent) : null,
      identity: null,
      provedBy: null,
      claims: {},
      also: [],
      notes: [],
    }
    return ask(req, findings, earlier, 0)
  }
}

/** Adds what a verifier found. Gives an answer where it ends the search. */
function take(findings: Findings, name: string, verification: Verification): Identified | undefined {
  const { answers } = findings
  answers.push(verification)
  switch ((verification as Verification | undefined | null)?.outcome) {
    case 'absent': {
      const { note } = verification as Verification & { outcome: 'absent' }
      if (note !== undefined) findings.notes.push(note)
      return undefined
    }
    case 'verified': {
      const { identity } = verification as Verification & { outcome: 'verified' }
      checkIdentity(name, identity)
      if (findings.identity === null) {
        findings.identity = identity
        findings.provedBy = name
        findings.claims = { ...identity.claims }
      } else {
        findings.claims = { ...identity.claims, ...findings.claims }
        findings.also.push(`${name} agrees and adds claims: ${identity.reason}`)
      }
      return undefined
    }
    case 'invalid': {
      const { reason, challenge } = verification as Verification & { outcome: 'invalid' }
      if (typeof reason !== 'string' || typeof challenge !== 'string' || !fieldValue.test(challenge)) {
        throw misread(name, 'an invalid credential without a reason and a challenge', '{ outcome, reason, challenge }')
      }
      return { outcome: 'invalid', client: strangerOf(findings, reason), reason, challenge, answers }
    }
    case 'unavailable': {
      const { reason, cause } = verification as Verification & { outcome: 'unavailable' }
      if (typeof reason !== 'string') throw misread(name, 'an outage without a reason', '{ outcome, reason, cause }')
      return { outcome: 'unavailable', client: strangerOf(findings, reason), reason, cause, answers }
    }
    default:
      throw misread(name, shape(verification), 'a Verification; for no credential of its kind `{ outcome: "absent" }`')
  }
}

function clientOf(findings: Findings): IdentifiedClient {
  const { identity, address, hint, notes } = findings
  if (identity === null) return anonymous(findings, [...notes, ...strangerReasons(findings)])
  return {
    id: identity.id,
    kind: identity.kind,
    provedBy: findings.provedBy,
    confidence: identity.confidence,
    reasons: [identity.reason, ...findings.also, ...notes],
    claims: findings.claims,
    address,
    hint,
    namedTier: identity.tier ?? null,
    provesKey: identity.provesKey ?? false,
  }
}

/** A request that is turned away counts for its address, whatever else was proven. */
function strangerOf(findings: Findings, reason: string): IdentifiedClient {
  return anonymous(findings, [reason, ...findings.notes])
}

function anonymous({ address, hint }: Findings, reasons: readonly string[]): IdentifiedClient {
  return {
    id: address,
    kind: 'anonymous',
    provedBy: null,
    confidence: 0,
    reasons,
    claims: {},
    address,
    hint,
    namedTier: null,
    provesKey: false,
  }
}

function strangerReasons({ hint, notes }: Findings): string[] {
  const nothing = notes.length === 0 ? ['no credential was shown'] : []
  return hint === null ? nothing : [...nothing, `the User-Agent says ${hint.agent}, unproven`]
}

const kinds: readonly unknown[] = ['human', 'agent', 'unknown'] satisfies Identity['kind'][]

/** The scheme that keeps two verifiers' clients apart; `ip` is what addresses have. */
const scheme = /^(?!ip:)[a-z][a-z0-9+.-]*:./is

const longestId = 1024

/** RFC 9110 section 5.5, less the obsolete octets above ASCII. */
const fieldValue = /^[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?$/

/**
 * Sees to it that what becomes a counter's name and a tier is what it should be: a verifier may be the app's own, and a type
 * does not stop a row of a database.
 */
function checkIdentity(name: string, identity: Identity): void {
  if (typeof identity !== 'object' || identity === null)
    throw misread(name, `an identity that is ${shape(identity)}`, 'an Identity')
  const { id, kind, confidence, reason, tier, claims, provesKey } = identity as { [Key in keyof Identity]: unknown }
  if (typeof id !== 'string' || id.length > longestId || !scheme.test(id) || !isWellFormed(id)) {
    throw misread(
      name,
      `an id that is ${shape(id)}`,
      `a text of at most ${longestId} characters that begins with a scheme of its own, such as "key:acme"; "ip:" is for addresses`,
    )
  }
  if (!kinds.includes(kind)) throw misread(name, `a kind that is ${shape(kind)}`, '"human", "agent" or "unknown"')
  if (typeof confidence !== 'number' || !(confidence >= 0 && confidence <= 1)) {
    throw misread(
      name,
      `a confidence that is ${typeof confidence === 'number' ? confidence : shape(confidence)}`,
      'a number from 0 to 1',
    )
  }
  if (typeof reason !== 'string') throw misread(name, `a reason that is ${shape(reason)}`, 'a sentence')
  if (tier !== undefined && (typeof tier !== 'string' || tier === '')) {
    throw misread(name, `a tier that is ${shape(tier)}`, "a tier's name, or leave it out")
  }
  if (claims !== undefined && (typeof claims !== 'object' || claims === null || Array.isArray(claims))) {
    throw misread(name, `claims that are ${shape(claims)}`, 'an object, or leave them out')
  }
  // Truthiness is not proof: "false" is a text.
  if (provesKey !== undefined && typeof provesKey !== 'boolean') {
    throw misread(name, `a provesKey that is ${shape(provesKey)}`, 'true or false, or leave it out')
  }
}

function misread(name: string, seen: string, instead: string): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_INVALID_IDENTITY',
    `the verifier "${name}" answered with ${seen}; write ${instead}`,
  )
}
