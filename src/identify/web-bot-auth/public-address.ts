import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** All that IANA has given out to be reached from everywhere (RFC 4291 section 2.4). */
const globalUnicast = ipaddr.IPv6.parseCIDR('2000::/3')

/**
 * True for an address that anybody on the Internet may be asked to connect to. Not for private, loopback, link-local, multicast,
 * carrier-grade NAT and reserved ones, nor for those that carry an IPv4 address inside (mapped, NAT64, 6to4, Teredo): what they
 * lead to is another network's business.
 *
 * @param address as `node:dns` gives it; a zone makes it link-local
 */
export function isPublicAddress(address: string): boolean {
  const family = isIP(address)
  if (family === 4) return ipaddr.IPv4.parse(address).range() === 'unicast'
  if (family !== 6 || address.includes('%')) return false
  const read = ipaddr.IPv6.parse(address)
  // Named ranges alone would let through what nobody has named yet.
  return read.match(globalUnicast) && read.range() === 'unicast'
}
