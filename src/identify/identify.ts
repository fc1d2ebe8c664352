import type { Request } from 'express'
import type { AgentHint, IdentifiedClient } from '../client.ts'
import { RampmeterError } from '../errors.ts'
import { hintOf, loadIsbot } from './hints.ts'
import { isWellFormed, shape } from './subject.ts'
import { isThenable } from './thenable.ts'
import type { Attempts, Identity, SingleUse, Verification, Verifier } from './verifier.ts'

/**
 * Who sent a request.
 *
 * - `known`: a client with an identity, or an anonymous one.
 * - `invalid`: a credential was wrong; `client` is anonymous, so that guesses are charged to their address. Answered 401.
 * - `unavailable`: it cannot be told now. Answered 503.
 * - `limited`: its address has shown too many wrong credentials. Answered 429.
 */
export type Identified = (
  | {
      readonly outcome: 'known'
      /** The proofs that this request uses up. */
      readonly singleUses: readonly SingleUse[]
    }
  | { readonly outcome: 'invalid'; readonly denial: Denial }
  | { readonly outcome: 'unavailable'; readonly reason: string; readonly cause: unknown }
  | { readonly outcome: 'limited'; readonly retryAfterMs: number }
) & {
  readonly client: IdentifiedClient
  /** What the verifiers answered, in their order, so that no proof is checked twice for one request. */
  readonly answers: readonly Verification[]
  /** Fields for the response. */
  readonly fields: Readonly<Record<string, string>>
  /** How many wrong credentials were counted. */
  readonly failures: number
}

/** Why a credential is not enough, and what would be. */
export interface Denial {
  /** 400 for what cannot be read, 401 for what is missing or wrong, 402 where only a payment would do, 403 for what does not allow this. */
  readonly status: 400 | 401 | 402 | 403
  /** The `WWW-Authenticate` values. */
  readonly challenges: readonly string[]
  /** What would do, in words, such as `an API key in the field X-API-Key`. */
  readonly words?: string
  /** Other fields that say what would do. */
  readonly fields?: Readonly<Record<string, string>>
}

/** The attempts of one request, as {@link Attempts}, and what came of them. */
export interface CountedAttempts extends Attempts {
  readonly failures: number
  /** Said before each verifier is asked. */
  begin(): void
  /** Counts a failure of a verifier that has not asked before it looked. */
  countUnlessAsked(): void
}

export interface IdentifierOptions {
  /** Tried in order. The first identity wins; later ones add claims. */
  verifiers: readonly Verifier[]
  readAddress: (req: Request) => string
  /** What checking may cost an address. */
  attemptsOf: (address: string) => CountedAttempts
}

/** What is known of a request while its verifiers are asked. */
interface Findings {
  readonly address: string
  readonly attempts: CountedAttempts
  readonly answers: Verification[]
  readonly singleUses: SingleUse[]
  fields: Readonly<Record<string, string>>
  hint: AgentHint | null
  identity: Identity | null
  provedBy: string | null
  /** What stands where no other verifier names somebody. */
  isSecondary: boolean
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
  const { verifiers, readAddress, attemptsOf } = options
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
      findings.attempts.begin()
      const before = verifier.mayChange === true ? undefined : earlier?.answers[index]
      const verification = before ?? verifier.verify(req, findings.attempts)
      if (isThenable(verification)) {
        return Promise.resolve(verification).then(
          (answer) => take(findings, verifier.name, answer, true) ?? ask(req, findings, earlier, index + 1),
        )
      }
      const end = take(findings, verifier.name, verification, before === undefined)
      if (end !== undefined) return end
    }
    return { outcome: 'known', client: clientOf(findings), singleUses: findings.singleUses, ...told(findings) }
  }

  return function identify(req, earlier) {
    if (earlier !== undefined && !mayChange) return earlier
    const userAgent: unknown = (req.headers as Request['headers'] | undefined)?.['user-agent']
    const address = readAddress(req)
    const findings: Findings = {
      address,
      attempts: attemptsOf(address),
      answers: [],
      singleUses: [],
      fields: noFields,
      hint: typeof userAgent === 'string' ? hintOf(userAgent) : null,
      identity: null,
      provedBy: null,
      isSecondary: false,
      claims: {},
      also: [],
      notes: [],
    }
    return ask(req, findings, earlier, 0)
  }
}

const noFields: Readonly<Record<string, string>> = {}

function told({ answers, fields, attempts }: Findings): Pick<Identified, 'answers' | 'fields' | 'failures'> {
  return { answers, fields, failures: attempts.failures }
}

/** Adds what a verifier found. Gives an answer where it ends the search. */
function take(findings: Findings, name: string, verification: Verification, isFresh: boolean): Identified | undefined {
  findings.answers.push(verification)
  const given = (verification as Verification | undefined | null)?.fields
  if (given !== undefined) findings.fields = { ...findings.fields, ...given }
  switch ((verification as Verification | undefined | null)?.outcome) {
    case 'absent': {
      const { note, failed, hint } = verification as Verification & { outcome: 'absent' }
      if (note !== undefined) findings.notes.push(note)
      if (hint !== undefined) findings.hint = hint
      if (failed === true && isFresh) findings.attempts.countUnlessAsked()
      return undefined
    }
    case 'verified': {
      const { identity, singleUses = [], secondary = false } = verification as Verification & { outcome: 'verified' }
      checkIdentity(name, identity)
      checkSingleUses(name, singleUses)
      for (const proof of singleUses) {
        if (!findings.singleUses.some(({ name: other }) => other === proof.name)) findings.singleUses.push(proof)
      }
      const { identity: first, provedBy } = findings
      if (first === null || (findings.isSecondary && !secondary)) {
        if (first !== null) findings.also.push(`${provedBy} agrees and adds claims: ${first.reason}`)
        findings.identity = identity
        findings.provedBy = name
        findings.isSecondary = secondary
        // What was there are the claims of a secondary one, which are its own to make.
        findings.claims = { ...identity.claims, ...findings.claims }
      } else {
        findings.claims = secondary
          ? { ...findings.claims, ...identity.claims }
          : { ...identity.claims, ...findings.claims }
        findings.also.push(`${name} agrees and adds claims: ${identity.reason}`)
      }
      return undefined
    }
    case 'invalid': {
      const { reason, challenge, status = 401, counts } = verification as Verification & { outcome: 'invalid' }
      if (typeof reason !== 'string' || typeof challenge !== 'string' || !fieldValue.test(challenge)) {
        throw misread(name, 'an invalid credential without a reason and a challenge', '{ outcome, reason, challenge }')
      }
      if (counts !== false && isFresh) findings.attempts.countUnlessAsked()
      const denial: Denial = { status, challenges: [challenge] }
      return { outcome: 'invalid', client: strangerOf(findings, reason), denial, ...told(findings) }
    }
    case 'unavailable': {
      const { reason, cause } = verification as Verification & { outcome: 'unavailable' }
      if (typeof reason !== 'string') throw misread(name, 'an outage without a reason', '{ outcome, reason, cause }')
      return { outcome: 'unavailable', client: strangerOf(findings, reason), reason, cause, ...told(findings) }
    }
    case 'limited': {
      const { retryAfterMs } = verification as Verification & { outcome: 'limited' }
      const client = strangerOf(findings, 'its address has shown too many wrong credentials lately')
      return { outcome: 'limited', client, retryAfterMs, ...told(findings) }
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
    thumbprint: identity.thumbprint,
    scopes: identity.scopes ?? [],
  }
}

/** A request that is turned away counts for its address, whatever else was proven. */
function strangerOf(findings: Findings, reason: string): IdentifiedClient {
  return anonymous(findings, [reason, ...findings.notes])
}

function anonymous(
  { address, hint }: Pick<Findings, 'address' | 'hint'>,
  reasons: readonly string[],
): IdentifiedClient {
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
    scopes: [],
  }
}

/** The same request, as one that has proven nothing. */
export function strangerAt({ address, hint }: IdentifiedClient, reason: string): IdentifiedClient {
  return anonymous({ address, hint }, [reason])
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
  const { id, kind, confidence, reason, tier, claims, provesKey, thumbprint, scopes } = identity as {
    [Key in keyof Identity]: unknown
  }
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
  if (thumbprint !== undefined && typeof thumbprint !== 'string') {
    throw misread(name, `a thumbprint that is ${shape(thumbprint)}`, 'a text, or leave it out')
  }
  if (scopes !== undefined && !(Array.isArray(scopes) && scopes.every((scope) => typeof scope === 'string'))) {
    throw misread(name, `scopes that are ${shape(scopes)}`, 'a list of texts, or leave them out')
  }
}

const singleUseName = /^[\w-]{1,64}$/

/** What is wrong here would be found when a proof is shown again, which is too late. */
function checkSingleUses(name: string, singleUses: unknown): void {
  const isRight = (proof: Partial<SingleUse> | null): boolean =>
    typeof proof === 'object' &&
    proof !== null &&
    typeof proof.name === 'string' &&
    singleUseName.test(proof.name) &&
    typeof proof.lastsMs === 'number' &&
    proof.lastsMs > 0 &&
    proof.lastsMs <= longestProofMs &&
    typeof proof.challenge === 'string' &&
    fieldValue.test(proof.challenge)
  if (Array.isArray(singleUses) && singleUses.every(isRight)) return
  throw misread(
    name,
    'singleUses that are not proofs',
    'a list of { name, lastsMs, challenge }: a hash of 1 to 64 letters, digits, "_" or "-", for how long it could be shown again (at most a day), and the WWW-Authenticate value that answers its second use',
  )
}

/** A proof that could be shown for longer would have to be remembered for longer. */
const longestProofMs = 24 * 3_600_000

function misread(name: string, seen: string, instead: string): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_INVALID_IDENTITY',
    `the verifier "${name}" answered with ${seen}; write ${instead}`,
  )
}
