import { Resolver } from 'node:dns/promises'
import { request } from 'node:https'
import { isIP, type LookupFunction } from 'node:net'
import { classAndCodeOf } from '../../errors.ts'
import type { ResponseField } from './freshness.ts'
import { isPublicAddress } from './public-address.ts'

/** Finds the addresses of a name. */
type Resolve = (hostname: string, signal: AbortSignal) => Promise<readonly string[]>

/** How directories are reached. For tests: nobody else is to change it. */
export interface Network {
  readonly resolve: Resolve
  readonly allows: (address: string) => boolean
  /** Trusted besides the authorities that Node knows (PEM). */
  readonly ca?: string
}

/** A directory as it came: JSON that nobody has looked at. */
export interface Answer {
  readonly json: unknown
  readonly field: ResponseField
}

/** A directory cannot be had. The message says why, in words without anything that the directory wrote. */
export class DirectoryFailure extends Error {
  override readonly name = 'DirectoryFailure'
  /** The answer, where there was one. */
  readonly field: ResponseField | undefined

  constructor(message: string, field?: ResponseField) {
    super(message)
    this.field = field
  }
}

/** A hundred keys of the longest kind are less. */
const mostBytes = 65_536

/** For all of it: resolving, connecting, and the last byte. */
const timeoutMs = 3000

const headers = {
  accept: 'application/http-message-signatures-directory+json, application/jwk-set+json, application/json;q=0.9',
  'user-agent': 'rampmeter',
}

interface Response {
  readonly status: number
  readonly field: ResponseField
  readonly body: AsyncIterable<Uint8Array> | null
  /** Gives up the rest of the body. */
  readonly discard: () => void
}

type Get = (url: string, signal: AbortSignal) => Promise<Response>

/**
 * Makes what fetches directories: GET by https, 200 only, no redirects, at most 64 KiB and 3 s. The answer comes from the address
 * that was checked, since the connection is made to it and the name not resolved again.
 *
 * @param fetch used instead, with the same bounds; which addresses it connects to is its own affair
 */
export function createFetcher(
  fetch: typeof globalThis.fetch | undefined,
  network: Network = publicNetwork,
): (url: string) => Promise<Answer> {
  const get = fetch === undefined ? getFrom(network) : getWith(fetch)

  return async function fetchDirectory(url) {
    const abort = new AbortController()
    let giveUp: NodeJS.Timeout | undefined
    // What ignores the signal is not waited for either.
    const late = new Promise<never>((_resolve, reject) => {
      giveUp = setTimeout(
        () => reject(new DirectoryFailure(`it did not answer within ${timeoutMs / 1000} s`)),
        timeoutMs,
      )
    })
    try {
      return await Promise.race([read(get, url, abort.signal), late])
    } catch (error) {
      if (error instanceof DirectoryFailure) throw error
      throw new DirectoryFailure(`it cannot be reached (${classAndCodeOf(error)})`)
    } finally {
      clearTimeout(giveUp)
      abort.abort()
    }
  }
}

async function read(get: Get, url: string, signal: AbortSignal): Promise<Answer> {
  const { status, field, body, discard } = await get(url, signal)
  try {
    if (status !== 200) throw new DirectoryFailure(`it answered ${status}, and only 200 counts`, field)
    const chunks: Uint8Array[] = []
    let bytes = 0
    for await (const chunk of body ?? []) {
      bytes += chunk.length
      if (bytes > mostBytes) throw new DirectoryFailure(`it is longer than ${mostBytes} bytes`)
      chunks.push(chunk)
    }
    return { json: parse(Buffer.concat(chunks).toString('utf8')), field }
  } finally {
    discard()
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new DirectoryFailure('it is not JSON')
  }
}

function getWith(fetch: typeof globalThis.fetch): Get {
  return async function getByFetch(url, signal) {
    const response = await fetch(url, { headers, redirect: 'manual', signal })
    const { status, body } = response
    return {
      status,
      field: (name) => response.headers.get(name),
      body: body as AsyncIterable<Uint8Array> | null,
      discard: () => {
        if (body !== null && !body.locked) body.cancel().catch(() => {})
      },
    }
  }
}

function getFrom({ resolve, allows, ca }: Network): Get {
  function check(address: string): void {
    if (!allows(address)) throw new DirectoryFailure('its address is not a public one')
  }

  return async function getByHttps(url, signal) {
    const { hostname } = new URL(url)
    const literal = hostname.replace(/^\[|\]$/g, '')
    const addresses = isIP(literal) === 0 ? await resolve(hostname, signal) : [literal]
    if (addresses.length === 0) throw new DirectoryFailure('its name has no address')
    // One of them that is not public is one too many: whose name has both is not to be trusted with the choice.
    for (const address of addresses) check(address)
    return await new Promise<Response>((settle, fail) => {
      const sent = request(
        url,
        {
          headers: { ...headers, 'accept-encoding': 'identity' },
          // A connection of its own, to what was checked just now; a pooled one would have been checked for somebody else.
          agent: false,
          lookup: pinnedTo(addresses),
          rejectUnauthorized: true,
          signal,
          ...(ca !== undefined && { ca }),
        },
        (response) => {
          // It is torn down in the middle where it is too long or too late, and nobody may be reading it then.
          response.on('error', () => {})
          const field: ResponseField = (name) => {
            const value = response.headers[name]
            return typeof value === 'string' ? value : null
          }
          const encoding = field('content-encoding')
          if (encoding !== null && encoding.toLowerCase() !== 'identity') {
            response.destroy()
            fail(new DirectoryFailure('it is compressed, and was asked not to be', field))
            return
          }
          settle({ status: response.statusCode ?? 0, field, body: response, discard: () => response.destroy() })
        },
      )
      sent.on('error', fail)
      sent.end()
    })
  }
}

/** A look-up that finds what was found before, whatever it is asked. */
function pinnedTo(addresses: readonly string[]): LookupFunction {
  const found = addresses.map((address) => ({ address, family: isIP(address) }))
  return function lookup(_hostname, options, callback) {
    if (options.all === true) callback(null, found)
    else callback(null, found[0]!.address, found[0]!.family)
  }
}

/**
 * Asks DNS itself. `dns.lookup`, which connections use, keeps one of four threads busy that the whole process shares, for as long
 * as a server of the asker's choice takes to answer; and it knows names that only this machine has.
 */
async function resolveByDns(hostname: string, signal: AbortSignal): Promise<readonly string[]> {
  const resolver = new Resolver({ timeout: timeoutMs, tries: 1 })
  const cancel = (): void => resolver.cancel()
  signal.addEventListener('abort', cancel)
  try {
    const found = await Promise.allSettled([resolver.resolve4(hostname), resolver.resolve6(hostname)])
    const addresses = found.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
    const [first] = found
    if (addresses.length === 0 && first.status === 'rejected') throw first.reason
    return addresses
  } finally {
    signal.removeEventListener('abort', cancel)
  }
}

const publicNetwork: Network = { resolve: resolveByDns, allows: isPublicAddress }
