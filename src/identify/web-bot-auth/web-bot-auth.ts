import type { Request } from 'express'
import { serializeInnerList, type InnerList } from 'structured-headers'
import type { AgentHint } from '../../client.ts'
import { RampmeterError } from '../../errors.ts'
import { challenge } from '../challenge.ts'
import { fieldValues } from '../fields.ts'
import type { Attempts, Verification, Verifier } from '../verifier.ts'
import { createBudget, createDirectories, findIn, type FindKey, type Finding } from './directories.ts'
import { createFetcher, type Network } from './fetch-directory.ts'
import { algorithmOf, isExampleKey, isKnownAlgorithm, verifiesWith } from './keys.ts'
import { readWebBotAuthOptions, type WebBotAuthOptions, type WebBotAuthSettings } from './options.ts'
import { readDirectoryUrl, type DirectoryUrl } from './signature-agent.ts'
import { signatureBase, Unbuildable, type SignedMessage } from './signature-base.ts'
import {
  Malformed,
  readSignatureAgent,
  readSignatures,
  type ShownSignature,
  type SignatureAgent,
} from './signatures.ts'
import { createTarget } from './signed-target.ts'

/** More signatures of one request are not looked at. */
const mostSignatures = 3

/** What one address can make us do in a minute that is no failure of its own. */
const fetchesAMinute = 20
const strangersAMinute = 60

/** What a signer is asked for (RFC 9421 section 5.1): what earns the best tier. */
const wanted = 'sig1=("@method" "@authority" "@path" "signature-agent";key="sig1");created;expires;tag="web-bot-auth"'
const fields = Object.freeze({ 'Accept-Signature': wanted })

/**
 * RFC 9110 section 15.5.2 wants a challenge with a 401, and no scheme is registered for signatures as of RFC 9421. `Signature` is
 * that of an expired draft, whose clients would answer in another field. So it is one that nobody else means; what to sign is in
 * `Accept-Signature`.
 */
const scheme = 'Web-Bot-Auth'

const absent: Verification = Object.freeze({ outcome: 'absent' })

/**
 * Proves an agent by the signature on its request (RFC 9421), made with a key that it publishes at a URL (Web Bot Auth,
 * draft-ietf-webbotauth-httpsig-protocol).
 *
 * The client's id is `agent:<URL>`, its tier `verified-agent`, where the signature covers `@method` and `@path` or `@target-uri`.
 * One that covers the host alone could be on any request: it is counted by URL and address, in tier `agent`.
 *
 * A signature that is wrong is refused. One whose directory cannot be had, or whose signer is not trusted, earns nothing.
 *
 * @example
 * webBotAuth({
 *   origin: 'https://api.example.com',
 *   directories: { 'https://bot.example': true },
 * })
 *
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION`; on a request
 *   `RAMPMETER_INVALID_IDENTITY` where `trust` answers with something else than true or false
 */
export function webBotAuth(options: WebBotAuthOptions): Verifier {
  return createWebBotAuth(readWebBotAuthOptions(options))
}

/** The verifier itself. A network of one's own is for tests. */
export function createWebBotAuth(settings: WebBotAuthSettings, network?: Network): Verifier {
  const { legacy, testKeys, maxLifetime, clockTolerance, now } = settings
  const targetsOf = createTarget(settings.origin)
  const isTrusted = createTrust(settings)
  const findKey = createKeyFinder(settings, network)
  const mayCheckStranger = createBudget(strangersAMinute, now)

  /** What a request's signature says, as far as that can be told without its key. Throws {@link Invalid} for what is wrong. */
  function read(shown: ShownSignature, agent: SignatureAgent): Claim | Note {
    const { input, signature } = shown
    if (signature === undefined) throw new Invalid('Signature has no member for it')
    const { created, expires, keyid, alg, nonce } = Object.fromEntries(input[1])
    if (typeof keyid !== 'string' || !/^[\w-]{43}$/.test(keyid))
      throw new Invalid('its keyid is no thumbprint of a key')
    if (alg !== undefined && !(typeof alg === 'string' && isKnownAlgorithm(alg)))
      throw new Invalid('its alg is not taken')
    if (nonce !== undefined && typeof nonce !== 'string') throw new Invalid('its nonce is not a String')
    if (!Number.isInteger(created) || !Number.isInteger(expires))
      throw new Invalid('it does not say created and expires')
    const from = Number(created) * 1000
    const until = Number(expires) * 1000
    if (from > now() + clockTolerance) throw new Invalid('it is from the future')
    if (until - from > maxLifetime) throw new Invalid('it lasts too long')
    if (until < from) throw new Invalid('it expires before it is created')
    if (until <= now()) throw new Invalid('it has expired', { counts: false })

    const covered = new Set(input[0].filter(([, options]) => options.size === 0).map(([name]) => name))
    if (!covered.has('@authority') && !covered.has('@target-uri')) throw new Invalid('it does not cover the host')
    const member = ownMember(shown, agent)
    if (member === undefined) return { note: 'its Signature-Agent has parameters, and is ignored for that' }
    const directory = readDirectoryUrl(member)
    if (directory === undefined) throw new Invalid('its Signature-Agent is no https URL of a directory')
    const isForRequest = covered.has('@method') && (covered.has('@path') || covered.has('@target-uri'))
    return { directory, keyid, alg: alg as string | undefined, signature, isForRequest }
  }

  /** Checks what was claimed, by its key. */
  async function prove(claim: Claim, bases: readonly string[], payer: string): Promise<Verification> {
    const { directory, keyid, alg, signature, isForRequest } = claim
    if (!testKeys && isExampleKey(keyid)) return refuse('it is made with an example key, with which anybody can sign')
    const trusted = isTrusted(directory.id)
    // Right or wrong it earns nothing, so nobody has a right to any number of checks.
    if (!trusted && !mayCheckStranger(payer)) {
      return unproven(directory, 'its sender has shown too many signatures of strangers lately')
    }
    const finding = await findKey(directory, keyid, payer, trusted)
    if (finding.outcome === 'unavailable') return unproven(directory, `the directory cannot be had: ${finding.reason}`)
    if (finding.outcome === 'missing') return refuse('its key is not in the directory')
    const algorithm = algorithmOf(finding.key, alg)
    if (algorithm === undefined) return refuse('its alg is not what the key is for')
    if (!bases.some((base) => verifiesWith(finding.key, algorithm, base, signature)))
      return refuse('it does not verify')
    if (!trusted) return unproven(directory, 'the signature is right, and its signer is not among those trusted')
    return {
      outcome: 'verified',
      identity: {
        id: `agent:${directory.id}`,
        kind: 'agent',
        confidence: 1,
        reason: `signed by ${directory.id}${isForRequest ? '' : ', for this host and not for this request'}`,
        provesKey: isForRequest,
        thumbprint: keyid,
        claims: { directory: directory.id, keyid },
      },
    }
  }

  async function examine(
    shown: ShownSignature,
    agent: SignatureAgent,
    messages: readonly SignedMessage[],
    attempts: Attempts,
  ): Promise<Verification> {
    let claim: Claim | Note
    let bases: readonly string[]
    try {
      claim = read(shown, agent)
      if ('note' in claim) return { outcome: 'absent', note: `signed, unproven: ${claim.note}`, hint: someBot }
      bases = messages.map((message) => signatureBase(message, shown.input))
    } catch (error) {
      if (!(error instanceof Invalid) && !(error instanceof Unbuildable)) throw error
      // The reason is part of what is remembered: it depends on more of the request than is worth naming.
      const credential = `web-bot-auth ${error.message} ${serializeSafely(shown.input)} ${encode(shown.signature)}`
      const counts = !(error instanceof Invalid) || error.counts
      return await attempts.check(credential, () => refuse(error.message, counts ? {} : { counts }))
    }

    const { directory, keyid, signature } = claim
    const known = claim
    const verification = await attempts.check(
      `web-bot-auth ${directory.url} ${encode(signature)} ${bases.join('\n\n')}`,
      () => prove(known, bases, attempts.address),
      // With the address: URL and keyid are public, and would buy attempts to whoever names them.
      `web-bot-auth ${directory.id} ${keyid} ${attempts.address}`,
    )
    if (verification.outcome !== 'verified' || verification.identity.provesKey === true) return verification
    const { identity } = verification
    return { ...verification, identity: { ...identity, id: `${identity.id}|${attempts.address}` } }
  }

  return {
    name: 'web-bot-auth',
    fieldNames: Object.keys(fields),
    stepUp: { challenge: challenge(scheme, {}), fields },

    async verify(req, attempts) {
      const inputs = fieldValues(req, 'signature-input')
      if (inputs.length === 0) return absent
      let signatures: readonly ShownSignature[]
      let agent: SignatureAgent | undefined
      try {
        signatures = readSignatures(inputs, fieldValues(req, 'signature'))
        if (signatures.length === 0) return absent
        agent = readSignatureAgent(fieldValues(req, 'signature-agent'), legacy)
      } catch (error) {
        if (!(error instanceof Malformed)) throw error
        return await attempts.check(`web-bot-auth ${error.message} ${inputs.join(', ')}`, () =>
          refuse(error.message, { status: 400 }),
        )
      }
      if (agent === undefined) {
        return { outcome: 'absent', note: 'signed, unproven: no Signature-Agent says by whom', hint: someBot }
      }
      const messages = messagesOf(req, targetsOf(req))
      let best: Verification | undefined
      for (const shown of signatures.slice(0, mostSignatures)) {
        const verification = await examine(shown, agent, messages, attempts)
        if (best === undefined || rankOf(verification) > rankOf(best)) best = verification
        if (rankOf(best) === bestRank) break
      }
      return best!
    },
  }
}

/** What a signature claims, before its key has been asked for. */
interface Claim {
  readonly directory: DirectoryUrl
  readonly keyid: string
  readonly alg: string | undefined
  readonly signature: Uint8Array
  /** It covers this request, and not only the host that it is sent to. */
  readonly isForRequest: boolean
}

/** Why nothing can be said of a signature that is not wrong. */
interface Note {
  readonly note: string
}

/** A signature is wrong, whoever made it. */
class Invalid extends Error {
  override readonly name = 'Invalid'
  readonly counts: boolean

  constructor(message: string, { counts = true }: { counts?: boolean } = {}) {
    super(message)
    this.counts = counts
  }
}

/** Of a signer whose URL is not known. */
const someBot: AgentHint = Object.freeze({ agent: 'bot', role: 'bot' })

function unproven({ id }: DirectoryUrl, why: string): Verification {
  const { host } = new URL(id)
  return { outcome: 'absent', note: `signed as ${id}, unproven: ${why}`, hint: { agent: host, role: 'bot' } }
}

function refuse(why: string, { status, counts }: { status?: 400; counts?: boolean } = {}): Verification {
  const reason = status === 400 ? `a signature field cannot be read: ${why}` : `the signature is refused: ${why}`
  const error = status === 400 ? 'invalid_request' : 'invalid_signature'
  return {
    outcome: 'invalid',
    reason,
    challenge: challenge(scheme, { error, error_description: why }),
    fields,
    ...(status !== undefined && { status }),
    ...(counts !== undefined && { counts }),
  }
}

/**
 * The Signature-Agent member that says whose a signature is: that of its own label, or, where an intermediary has given it another
 * label, the only one it covers. Undefined for one that has to be ignored.
 */
function ownMember({ label, input }: ShownSignature, agent: SignatureAgent): unknown {
  const covered = input[0].filter(([name]) => name === 'signature-agent')
  if (agent.form === 'string') {
    if (!covered.some(([, options]) => options.size === 0)) throw new Invalid('it does not cover Signature-Agent')
    return valueOf(agent.item)
  }
  const keys = covered.map(([, options]) => options.get('key')).filter((key) => typeof key === 'string')
  const own = agent.members.has(label) ? keys.find((key) => key === label) : keys.length === 1 ? keys[0] : undefined
  if (own === undefined) throw new Invalid('it does not cover its own member of Signature-Agent')
  const member = agent.members.get(own)
  if (member === undefined) throw new Invalid('it covers a member that Signature-Agent does not have')
  return valueOf(member)
}

function valueOf([value, parameters]: InnerList | InnerList[0][number]): unknown {
  return parameters.size > 0 ? undefined : (value ?? null)
}

/** The better an answer, the higher. One good signature is not worth less for a bad one beside it. */
function rankOf(verification: Verification): number {
  if (verification.outcome === 'verified') return verification.identity.provesKey === true ? bestRank : 3
  if (verification.outcome === 'absent') return 2
  return verification.outcome === 'limited' ? 1 : 0
}

const bestRank = 4

/** Makes what tells whether a signer earns a tier. Anything but true or false would be a guess: a promise is no yes. */
function createTrust({ trust, directories }: WebBotAuthSettings): (id: string) => boolean {
  return function isTrusted(id) {
    if (trust === undefined) return directories.has(id)
    const answer: unknown = trust(id)
    if (typeof answer === 'boolean') return answer
    throw new RampmeterError(
      'RAMPMETER_INVALID_IDENTITY',
      `webBotAuth's \`trust\` answered with ${answer === null ? 'null' : `a ${typeof answer}`}; write one that returns true or false at once`,
    )
  }
}

type KeyFinder = (directory: DirectoryUrl, keyid: string, payer: string, trusted: boolean) => Promise<Finding>

function createKeyFinder({ directories, fetch, now }: WebBotAuthSettings, network: Network | undefined): KeyFinder {
  const fetchDirectory = createFetcher(fetch, network)
  const mayFetch = createBudget(fetchesAMinute, now)
  const create = (): FindKey => createDirectories({ fetchDirectory, mayFetch, now })
  // Apart, so that strangers with any number of directories neither drive out nor delay those that count.
  const ofTrusted = create()
  const ofStrangers = create()

  return async function findKey({ id, url }, keyid, payer, trusted) {
    const known = directories.get(id)
    if (known?.keys !== undefined) return findIn(known.keys, keyid, now())
    // What was named is fetched as it was named: a query of the signer's choice gets nothing else.
    return await (trusted ? ofTrusted : ofStrangers)(known?.url ?? url, keyid, payer)
  }
}

function messagesOf(req: Request, targets: readonly { origin: string; target: string }[]): readonly SignedMessage[] {
  // The signer chooses the names, and every object has a `constructor`.
  const fields = (name: string): readonly string[] => (Object.hasOwn(req.headers, name) ? fieldValues(req, name) : [])
  return targets.map(({ origin, target }) => ({ method: req.method, origin, target, fields }))
}

function serializeSafely(input: InnerList): string {
  try {
    return serializeInnerList(input)
  } catch {
    return ''
  }
}

function encode(bytes: Uint8Array | undefined): string {
  return bytes === undefined ? '' : Buffer.from(bytes).toString('base64')
}
