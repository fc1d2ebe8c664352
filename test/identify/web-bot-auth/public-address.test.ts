import { describe, expect, it } from 'vitest'
import { isPublicAddress } from '../../../src/identify/web-bot-auth/public-address.ts'

describe('isPublicAddress', () => {
  it.each(['8.8.8.8', '1.1.1.1', '93.184.216.34', '2606:4700::6810:84e5', '2a00:1450:4001:830::200e'])(
    '%s is one',
    (address) => {
      expect(isPublicAddress(address)).toBe(true)
    },
  )

  it.each([
    ['loopback', '127.0.0.1'],
    ['loopback, elsewhere in its block', '127.255.3.4'],
    ['loopback of IPv6', '::1'],
    ['unspecified', '0.0.0.0'],
    ['in the unspecified block', '0.1.2.3'],
    ['unspecified of IPv6', '::'],
    ['private, 10/8', '10.0.0.1'],
    ['private, 172.16/12', '172.31.255.255'],
    ['private, 192.168/16', '192.168.1.1'],
    ['unique local', 'fd00::1'],
    ['link-local, where clouds keep their secrets', '169.254.169.254'],
    ['link-local of IPv6', 'fe80::1'],
    ['link-local with a zone', 'fe80::1%eth0'],
    ['global with a zone', '2606:4700::1%eth0'],
    ['site-local', 'fec0::1'],
    ['multicast', '224.0.0.1'],
    ['multicast of IPv6', 'ff02::1'],
    ['broadcast', '255.255.255.255'],
    ['carrier-grade NAT', '100.64.0.1'],
    ['benchmarking', '198.18.0.1'],
    ['for documentation', '203.0.113.9'],
    ['for documentation, of IPv6', '2001:db8::1'],
    ['reserved', '240.0.0.1'],
    ['IETF protocol assignments', '192.0.0.170'],
    ['6to4 relay', '192.88.99.1'],
    ['IPv4-mapped', '::ffff:127.0.0.1'],
    ['IPv4-mapped of a public one', '::ffff:8.8.8.8'],
    ['IPv4-compatible', '::127.0.0.1'],
    ['IPv4-translated', '::ffff:0:10.0.0.1'],
    ['NAT64', '64:ff9b::10.0.0.1'],
    ['NAT64 of a network of its own', '64:ff9b:1::10.0.0.1'],
    ['6to4', '2002:7f00:1::1'],
    ['Teredo', '2001:0:53aa:64c::1'],
    ['discard', '100::1'],
    ['of no block that was given out', '4000::1'],
    ['a name', 'localhost'],
    ['a number', '2130706433'],
    ['octal', '0177.0.0.1'],
    ['nothing', ''],
  ])('%s is none: %s', (_what, address) => {
    expect(isPublicAddress(address)).toBe(false)
  })
})
