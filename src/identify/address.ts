import { isIP } from 'node:net'
import type { Request } from 'express'
import ipaddr from 'ipaddr.js'
import { Recent } from '../recent.ts'
import { warn } from '../errors.ts'
import { isThenable } from './thenable.ts'

export interface AddressReaderOptions {
  /** Tells the client's address. Default: Express's `req.ip`. */
  trustedAddress?: ((req: Request) => string | undefined) | undefined
  /** How many leading bits of an IPv6 address count as one client, from 0 to 128. */
  ipv6Subnet: number
}

/** The partition of all requests without a usable address. */
const noAddress = 'ip:none'

/** The longest textual IPv6 address has 45 characters; the rest is room for a zone id. */
const longestText = 100

const rememberedAddresses = 10_000

/**
 * Makes what tells by address who sent a request: `ip:203.0.113.7`, or `ip:2001:db8:1:2::/64` for IPv6. One host has one
 * partition, however its address is written; an IPv4-mapped IPv6 address counts as IPv4.
 *
 * Requests whose address cannot be had share one partition, so that hiding an address gains nothing. That, and a
 * `trust proxy` setting under which addresses mean nothing, is reported once each by a process warning; the request is served.
 */
export function createAddressReader(options: AddressReaderOptions): (req: Request) => string {
  const { trustedAddress, ipv6Subnet } = options
  const known = new Recent<string, string>({ max: rememberedAddresses })
  const checkTrustProxy = trustedAddress === undefined ? createTrustProxyCheck() : undefined
  let reported = false

  function withoutAddress(why: string): string {
    if (!reported) {
      reported = true
      warn(
        'RAMPMETER_NO_ADDRESS',
        `${why}; all such requests share one counter. ${addressMend(trustedAddress !== undefined)}`,
      )
    }
    return noAddress
  }

  return function readAddress(req) {
    checkTrustProxy?.(req)
    let text: unknown
    try {
      text = trustedAddress === undefined ? req.ip : trustedAddress(req)
    } catch (error) {
      return withoutAddress(
        `reading the address of a request threw a ${error instanceof Error ? error.name : typeof error}`,
      )
    }
    // What an async function was to find out comes too late, and if it fails unseen it ends the process.
    if (isThenable(text)) text.then(undefined, () => {})
    if (typeof text !== 'string' || text === '') return withoutAddress('a request has no address')
    const remembered = known.get(text)
    if (remembered !== undefined) return remembered
    const partition = partitionOf(text, ipv6Subnet)
    if (partition === undefined) return withoutAddress('a request has an address that is neither IPv4 nor IPv6')
    known.set(detached(text), partition)
    return partition
  }
}

function addressMend(ofTheApp: boolean): string {
  return ofTheApp
    ? 'Let `trustedAddress` return a bare IPv4 or IPv6 address, without a port or a list, for every request'
    : 'Behind a Unix socket or a proxy that adds a port, give `trustedAddress: (req) => string`'
}

/** The partition of a textual address, or undefined if it is none. */
function partitionOf(text: string, ipv6Subnet: number): string | undefined {
  if (text.length > longestText) return undefined
  // isIP is strict where ipaddr.js takes what C libraries take: to that, `1`, `0x7f.1` and `010.0.0.1` are addresses too.
  const family = isIP(text)
  if (family === 4) return `ip:${text}`
  if (family !== 6) return undefined
  const zone = text.indexOf('%')
  const address = zone === -1 ? text : text.slice(0, zone)
  // ipaddr.js takes the deprecated `::203.0.113.7` for an IPv4-mapped address; written with seven groups it does not.
  const read = ipaddr.IPv6.parse(address.replace(/^::(?=\d+\.)/, '0:0:0:0:0:0:'))
  if (read.isIPv4MappedAddress()) return `ip:${read.toIPv4Address().toString()}`
  const subnet = read.parts.map((part, index) => part & groupMask(ipv6Subnet - index * 16))
  return `ip:${new ipaddr.IPv6(subnet).toRFC5952String()}/${ipv6Subnet}`
}

/** The client id of an address, which may be written with the subnet's length; undefined where it is none. */
export function addressIdOf(written: string, ipv6Subnet: number): string | undefined {
  const own = `/${ipv6Subnet}`
  return partitionOf(written.endsWith(own) ? written.slice(0, -own.length) : written, ipv6Subnet)
}

/** Keeps the first `bits` of a 16-bit group. */
function groupMask(bits: number): number {
  return (0xffff << (16 - Math.min(16, Math.max(0, bits)))) & 0xffff
}

/** A copy that stands alone: an address cut from a long `X-Forwarded-For` keeps the whole field in memory. */
function detached(text: string): string {
  return Buffer.from(text, 'latin1').toString('latin1')
}

/**
 * Watches for the two settings of Express's `trust proxy` under which counting by address fails. It is looked at on requests,
 * since an app may be set up after its limiter, and only until it has been reported.
 */
function createTrustProxyCheck(): (req: Request) => void {
  let unset = false
  let permissive = false

  return function checkTrustProxy(req) {
    if (unset && permissive) return
    const trusted = trustProxyOf(req)
    if (trusted === true && !permissive) {
      permissive = true
      warn(
        'RAMPMETER_TRUST_PROXY_PERMISSIVE',
        "Express's `trust proxy` is true, so any client can choose its own address by sending X-Forwarded-For, and with it its own counter. Write how many proxies stand in front, `app.set('trust proxy', 1)`, or their subnets, or give `trustedAddress`",
      )
    }
    if (unset) return
    const headers: Request['headers'] | undefined = req.headers
    if (headers?.['x-forwarded-for'] !== undefined) {
      // 0 trusts nobody, as false does, but somebody wrote it.
      if (trusted !== false) return
      unset = true
      warn(
        'RAMPMETER_TRUST_PROXY_UNSET',
        "a request carries X-Forwarded-For and Express's `trust proxy` is false: if a proxy stands in front, all its clients share one counter. Write how many proxies there are, `app.set('trust proxy', 1)`; if there are none, a client made it up: write `app.set('trust proxy', 0)`",
      )
    } else if (headers?.['forwarded'] !== undefined && trusted !== undefined && trusted !== 0) {
      unset = true
      warn(
        'RAMPMETER_TRUST_PROXY_UNSET',
        "a request carries Forwarded, which Express does not read, and no X-Forwarded-For: if a proxy stands in front, all its clients share one counter. Let the proxy send X-Forwarded-For and write `app.set('trust proxy', 1)`, or give `trustedAddress`; if there is no proxy, a client made it up: write `app.set('trust proxy', 0)`",
      )
    }
  }
}

/** Express's setting, or undefined outside Express. */
function trustProxyOf(req: Request): unknown {
  try {
    const app = req.app as Request['app'] | undefined
    return app?.get('trust proxy')
  } catch {
    return undefined
  }
}
