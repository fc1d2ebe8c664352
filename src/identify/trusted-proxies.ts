import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'
import * as z from 'zod'

/**
 * Addresses of proxies, as Express's `trust proxy` takes them: addresses, subnets (`10.0.0.0/8`, `fd00::/8`, `10.0.0.0/255.0.0.0`), and the
 * names `loopback`, `linklocal` and `uniquelocal`; as a list, or as a text with commas. How many proxies there are, or `true`, says nothing
 * of who they are.
 */
export type TrustedProxies = string | readonly string[]

type Subnet = readonly [ipaddr.IPv4 | ipaddr.IPv6, bits: number]

const named: Readonly<Record<string, readonly string[]>> = {
  loopback: ['127.0.0.0/8', '::1'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7'],
}

/** Reads {@link TrustedProxies} as a list; none where nothing is given. */
export const trustedProxyList: z.ZodType<readonly string[]> = z
  .custom<TrustedProxies>(
    (value) => [value].flat().every((text) => typeof text === 'string' && entriesOf(text).every(isEntry)),
    'addresses or subnets of proxies, such as "10.0.0.0/8" or "loopback"',
  )
  .transform((value) => [value].flat().flatMap(entriesOf))
  .default([])

function entriesOf(text: string): string[] {
  return text.split(',').map((entry) => entry.trim())
}

function isEntry(entry: string): boolean {
  return Object.hasOwn(named, entry) || readSubnet(entry) !== undefined
}

/**
 * Makes what tells whether a peer is one of the proxies.
 *
 * @param entries as {@link trustedProxyList} gives them
 */
export function createTrust(entries: readonly string[]): (address: string | undefined) => boolean {
  const subnets = entries.flatMap((entry) => named[entry] ?? [entry]).map((entry) => readSubnet(entry)!)

  return function isTrusted(address) {
    const peer = address === undefined ? undefined : readAddress(address)
    if (peer === undefined) return false
    return subnets.some((subnet) => subnet[0].kind() === peer.kind() && peer.match(subnet as never))
  }
}

/** An address as a socket tells it; an IPv4-mapped one counts as IPv4. */
function readAddress(text: string): ipaddr.IPv4 | ipaddr.IPv6 | undefined {
  const zone = text.indexOf('%')
  const address = zone === -1 ? text : text.slice(0, zone)
  // isIP is strict where ipaddr.js takes what C libraries take: to that, `1`, `0x7f.1` and `010.0.0.1` are addresses too.
  if (isIP(address) === 0) return undefined
  // ipaddr.js takes the deprecated `::203.0.113.7` for an IPv4-mapped address; written with seven groups it does not.
  return ipaddr.process(address.replace(/^::(?=\d+\.)/, '0:0:0:0:0:0:'))
}

function readSubnet(text: string): Subnet | undefined {
  const [address = '', prefix, ...rest] = text.split('/')
  const read = address.includes('%') ? undefined : readAddress(address)
  if (read === undefined || rest.length > 0) return undefined
  const longest = read.kind() === 'ipv4' ? 32 : 128
  if (prefix === undefined) return [read, longest]
  // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
  const offset = longest === 32 && address.includes(':') ? 96 : 0
  const bits = readPrefix(prefix, longest)
  return bits === undefined || bits < offset || bits - offset > longest ? undefined : [read, bits - offset]
}

/** How many bits a prefix keeps: a number, or for IPv4 a mask. */
function readPrefix(prefix: string, longest: number): number | undefined {
  if (/^\d{1,3}$/.test(prefix)) return Number(prefix) <= 128 ? Number(prefix) : undefined
  if (longest !== 32 || isIP(prefix) !== 4) return undefined
  return ipaddr.IPv4.parse(prefix).prefixLengthFromSubnetMask() ?? undefined
}
