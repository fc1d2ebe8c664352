// What x402 is told at start-up: what would send money where nobody is, or ask for what nobody can pay, is a mistake then.

import { describe, expect, it } from 'vitest'
import { x402, type X402Options } from '../../src/payments/x402.ts'
import { rampmeter } from '../../src/rampmeter.ts'
import { opened } from '../http/serve.ts'
import { startFacilitator } from './facilitator.ts'

const evm = {
  facilitator: 'https://x.example',
  network: 'eip155:8453',
  asset: '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913',
  payTo: '0x209693Bc6afc0C5328bA36FaF03C514EF312287C',
  perCredit: '1000',
  extra: { name: 'USD Coin', version: '2' },
}
const solana = {
  facilitator: 'https://x.example',
  network: 'solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp',
  asset: 'EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v',
  payTo: '2wKupLR9q6wXYppw8Gr2NvWxKBUqm4PPJKkQfoxHDBg4',
  perCredit: '1000',
  extra: { feePayer: 'EwWqGE4ZFKLofuestmU4LDdK7XM1N4ALgdZccwYugwGd' },
}
const key = `0x${'4c'.repeat(32)}`

describe('options of x402', () => {
  it.each<Partial<X402Options>>([
    {},
    { payTo: evm.payTo.toLowerCase() },
    { payTo: `0x${evm.payTo.slice(2).toUpperCase()}` },
    // Those of ERC-55 itself.
    { payTo: '0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed' },
    { payTo: '0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359' },
    { payTo: '0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB' },
    { payTo: '0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb' },
    { extra: { assetTransferMethod: 'permit2' } },
    { schemes: ['upto'], extra: { facilitatorAddress: evm.payTo } },
    { schemes: ['exact', 'upto'], extra: { ...evm.extra, facilitatorAddress: evm.payTo } },
    { facilitator: 'http://localhost:4021/x402/' },
    solana,
    // As many zeros as there are.
    { ...solana, payTo: '1'.repeat(31) + '2' },
  ])('takes %o', (right) => {
    expect(x402({ ...evm, ...right }).name).toBe('x402')
  })

  it.each<[Partial<X402Options>, string]>([
    [{ network: 'base' }, '`network`'],
    [{ network: 'eip155:0x2105' }, '`network`'],
    [{ network: 'eip155:08453' }, '`network`'],
    [{ network: 'eip155:*' }, '`network`'],
    [{ network: 'stellar:pubnet' }, '`network`'],
    [{ network: 'solana:mainnet' }, '`network`'],
    [{ payTo: 'alice.eth' }, '`payTo` is no address on eip155:8453'],
    [{ payTo: evm.payTo.slice(0, -1) }, '`payTo` is no address'],
    [{ payTo: ` ${evm.payTo}` }, '`payTo` is no address'],
    [{ payTo: evm.payTo.slice(2) }, '`payTo` is no address'],
    [{ payTo: evm.payTo.replace('3C5', '3C6') }, 'a good checksum'],
    [{ payTo: solana.payTo }, '`payTo` is no address'],
    [{ payTo: key }, '`payTo` is no address'],
    [{ payTo: `0x${'0'.repeat(40)}` }, 'the address that nobody has'],
    [{ payTo: evm.asset.toLowerCase() }, 'the token itself'],
    [{ asset: `0x${'0'.repeat(40)}` }, '`asset` is the address that nobody has'],
    [{ asset: 'USDC' }, '`asset` is no address'],
    [{ ...solana, payTo: evm.payTo }, '`payTo` is no address on solana:'],
    [{ ...solana, payTo: solana.payTo.replace('w', 'l') }, '32 bytes in base 58'],
    [{ ...solana, payTo: solana.payTo.slice(0, -1) }, '32 bytes in base 58'],
    [{ ...solana, payTo: '1'.repeat(32) }, 'the address that nobody has'],
    [{ ...solana, payTo: '1'.repeat(33) }, '32 bytes in base 58'],
    [{ ...solana, extra: {} }, 'feePayer'],
    [{ extra: {} }, 'name and version'],
    [{ extra: { name: 'USD Coin' } }, 'name and version'],
    [{ extra: { ...evm.extra, worth: 1n } }, 'JSON'],
    [{ schemes: ['exact', 'upto'] }, 'facilitatorAddress'],
    [{ schemes: ['upto'], extra: { facilitatorAddress: 'x' } }, 'facilitatorAddress'],
    [{ perCredit: '0.01' }, '`perCredit`'],
    [{ perCredit: '$0.01' }, '`perCredit`'],
    [{ perCredit: 0.01 as unknown as string }, '`perCredit`'],
    [{ perCredit: '0' }, '`perCredit`'],
    [{ facilitator: 'ftp://x' }, '`facilitator`'],
    [{ facilitator: 'https://me:secret@x.example' }, 'write the URL alone'],
    [{ facilitator: 'https://x.example/?key=1' }, 'write the URL alone'],
    [{ schemes: [] }, '`schemes`'],
    [{ timeout: 'soon' as '1s' }, 'timeout'],
    [{ facilitators: 'https://x' } as unknown as Partial<X402Options>, 'unknown option `facilitators`'],
  ])('is told of a mistake at once: %o', (wrong, says) => {
    expect(() => x402({ ...evm, ...wrong })).toThrow(
      expect.objectContaining({
        code: expect.stringMatching(/^RAMPMETER_(INVALID_OPTION|UNKNOWN_OPTION|INVALID_DURATION)$/) as string,
        message: expect.stringContaining(says) as string,
      }),
    )
  })

  it('tells nothing of what may be a key', () => {
    expect(() => x402({ ...evm, payTo: key })).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('4c4c') as string }),
    )
  })
})

describe('ready() with a facilitator', () => {
  const kind = (network: string, scheme = 'exact', x402Version = 2): object => ({ x402Version, scheme, network })

  async function ready(
    supported: unknown,
    { down, ...own }: Partial<X402Options> & { down?: number } = {},
  ): Promise<void> {
    const facilitator = await startFacilitator()
    Object.assign(facilitator, { supported, down })
    const limiter = rampmeter({ payments: { providers: [x402({ ...evm, ...own, facilitator: facilitator.url })] } })
    await opened(limiter).ready()
  }

  it.each([
    ['that settles there', { kinds: [kind('eip155:84532'), kind('eip155:8453')] }],
    ['that settles on the whole family', { kinds: [kind('eip155:*')] }],
    ['that does not say', undefined],
    ['that says nothing', { kinds: [] }],
    ['that says what cannot be read', { kinds: [null] }],
    ['that says no object', 'yes'],
  ])('%s', async (_, supported) => {
    await expect(ready(supported)).resolves.toBeUndefined()
  })

  it('that is away', async () => {
    await expect(ready({ kinds: [kind('eip155:1')] }, { down: 502 })).resolves.toBeUndefined()
    const gone = x402({ ...evm, facilitator: 'http://127.0.0.1:1' })
    await expect(gone.ready!()).resolves.toBeUndefined()
  })

  it.each<[string, object[], Partial<X402Options>, string]>([
    ['on another network', [kind('eip155:84532')], {}, 'does not settle exact on eip155:8453'],
    ['in another version', [kind('eip155:8453', 'exact', 1)], {}, 'it settles nothing in version 2'],
    [
      'by another scheme',
      [kind('eip155:8453')],
      { schemes: ['exact', 'upto'], extra: { ...evm.extra, facilitatorAddress: evm.payTo } },
      'does not settle upto on eip155:8453, so that no such payment would be good; by its /supported it settles exact on eip155:8453',
    ],
  ])('that settles %s', async (_, kinds, own, says) => {
    await expect(ready({ kinds }, own)).rejects.toMatchObject({
      code: 'RAMPMETER_PAYMENT_UNSUPPORTED',
      message: expect.stringContaining(says) as string,
    })
  })
})
