import { RampmeterError } from '../errors.ts'

/** Sees to it that an id is one that some client may have: what is decided about another would concern nobody. */
export type CheckClientId = (clientId: string, what: string) => void

export interface ClientIdOptions {
  readonly isClientId: (id: unknown) => id is string
  /** The id of the address that was written, however it was; undefined where it is none. */
  readonly addressIdOf: (written: string) => string | undefined
}

/** What each id of a request begins with, so that clients of two verifiers are told apart. */
const scheme = /^[a-z][a-z0-9+.-]*:./s

/** What no credential and no address has. */
const controlCharacter = /\p{Cc}/u

/** All requests whose address could not be had. */
export const noAddress = 'ip:none'

/** Makes the check. It throws {@link RampmeterError} `RAMPMETER_INVALID_CLIENT`. */
export function createClientIdCheck({ isClientId, addressIdOf }: ClientIdOptions): CheckClientId {
  return function checkClientId(clientId, what) {
    if (!isClientId(clientId)) {
      throw invalid(
        `${what}: a client id is missing, longer than 1024 characters, or begins with "@"; write the id as in \`req.rateLimit.client.id\`, such as "key:acme"`,
      )
    }
    const id = clientId.slice(0, 64)
    const saw = JSON.stringify(id)
    if (controlCharacter.test(clientId)) {
      throw invalid(
        `${what}: saw the client id ${saw}, which has a control character in it, such as a line's end; write it without, as in \`req.rateLimit.client.id\``,
      )
    }
    const meant = addressIdOf(clientId.replace(/^ip:/, ''))
    if (meant !== undefined && meant !== clientId) {
      throw invalid(
        `${what}: no client has the id ${saw}, which is an address; the client is called ${JSON.stringify(meant)}`,
      )
    }
    if (clientId.startsWith('ip:') && meant === undefined && clientId !== noAddress) {
      throw invalid(
        `${what}: saw the client id ${saw}, which is no address; write one address as in \`req.rateLimit.client.id\`: "ip:203.0.113.7", without leading zeros, spaces or a range, or of IPv6 "${addressIdOf('2001:db8::1')}"`,
      )
    }
    if (scheme.test(clientId)) return
    throw invalid(
      `${what}: saw the client id ${saw}, which has no scheme, so that it is nobody's; write it as in \`req.rateLimit.client.id\`: "key:${id}" of an API key, "session:…" of a session, "sub:…" of a token, "agent:…" of a signature, "ip:203.0.113.7" of an address; an id of your own, given to \`decide\`, needs a scheme too, such as "job:${id}"`,
    )
  }
}

function invalid(message: string): RampmeterError {
  return new RampmeterError('RAMPMETER_INVALID_CLIENT', message)
}
