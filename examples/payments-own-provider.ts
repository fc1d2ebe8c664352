// A way to pay of one's own: vouchers, sold elsewhere and signed by the shop, each good for one request. What L402, MPP or anything
// else needs is written in the same places.
//
//   node --import tsx examples/payments-own-provider.ts

import { createHmac, randomUUID, timingSafeEqual } from 'node:crypto'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { rampmeter, RampmeterError, tokenBucket, type Offer, type PaymentProvider } from 'rampmeter'

const secret = 'known to the shop and to this server'
const signatureOf = (text: string): Buffer => createHmac('sha256', secret).update(text).digest()

/** What the shop sells: `<id>.<credits>.<until>.<signature>`. */
function sellVoucher(credits: number): string {
  const text = `${randomUUID()}.${credits}.${Date.now() + 86_400_000}`
  return `${text}.${signatureOf(text).toString('base64url')}`
}

/** What `detect` finds in a request, and the other calls are given. */
interface VoucherOffer extends Offer {
  readonly signed: string
  readonly signature: Buffer
  readonly credits: number
  readonly until: number
}

const vouchers: PaymentProvider<VoucherOffer> = {
  name: 'voucher',
  // A voucher cannot be set aside and given back later: no deposits.
  holds: false,

  // Reads, and asks nobody: limits come first. The claim is what can pay once, in all processes.
  detect(req) {
    const header = req.get('voucher')
    if (header === undefined) return undefined
    const [, signed, id, credits, until, signature] =
      /^(([\w-]{36})\.(\d{1,6})\.(\d{13}))\.([\w-]{43})$/.exec(header) ?? []
    if (signed === undefined) return { malformed: 'Voucher is no voucher' }
    return {
      claim: id!,
      // For so long the library remembers that it was used; after that it is not good by itself.
      lastsMs: Math.min(Math.max(Number(until) - Date.now(), 60_000), 31 * 86_400_000),
      signed,
      signature: Buffer.from(signature!, 'base64url'),
      credits: Number(credits),
      until: Number(until),
    }
  },

  // Stands in the 402, as one of `error.ways`; `fields` would be header fields, such as WWW-Authenticate: L402 ….
  challenge: ({ credits }) => ({ way: { field: 'Voucher', buy: 'https://shop.example/vouchers', credits } }),

  // Whether it is good, without taking it. What throws here is an outage: 503, and nothing was taken.
  async verify({ signed, signature, credits, until }, bill) {
    if (!timingSafeEqual(signatureOf(signed), signature)) return { paid: false, reason: 'its signature is not ours' }
    if (until < Date.now()) return { paid: false, reason: 'it has expired' }
    if (credits < bill.credits) return { paid: false, reason: `it is worth ${credits} credits, which is too little` }
    return { paid: true }
  },

  // Nothing is set aside elsewhere; nothing is taken elsewhere, since its claim was. One that is given up is good again.
  reserve: async () => {},
  capture: async () => ({ paid: true }),
  release: async () => {},

  // A voucher is used whole, whatever `settle` says.
  comesTo: (_offer, credits, bill) => (credits === 0 ? 0 : bill.credits),

  async refund() {
    throw new RampmeterError('RAMPMETER_PAYMENT_UNSUPPORTED', 'vouchers are not refunded; send another')
  },
}

const limiter = rampmeter({
  policies: [tokenBucket({ quota: 100, window: '1m' })],
  payments: { providers: [vouchers] },
})
await limiter.ready()

const app = express()
let fails = false
app.get('/render', limiter.route({ price: { credits: 5 } }), (req, res) => {
  if (fails) res.status(500).json({ detail: 'the render failed' })
  else res.json({ detail: `rendered, ${req.rateLimit?.payment?.credits ?? 0} paid` })
})

const server = app.listen(0, '127.0.0.1')
await new Promise((resolve) => server.once('listening', resolve))
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/render`
async function ask(voucher?: string): Promise<void> {
  const response = await fetch(url, { headers: voucher === undefined ? {} : { voucher } })
  const { detail, error } = (await response.json()) as { detail: string; error?: { ways?: object[] } }
  const ways = voucher === undefined ? ` ${JSON.stringify(error?.ways?.[0])}` : ''
  console.log(`${response.status}: ${detail}${ways}`)
}

await ask()
const voucher = sellVoucher(5)
await ask(voucher)
await ask(voucher)
const forged = sellVoucher(3).replace('.3.', '.5.')
await ask(forged)
await ask(sellVoucher(3))
await ask('free, please')
// What the server failed to serve costs nothing: the voucher is good for another try.
const another = sellVoucher(5)
fails = true
await ask(another)
fails = false
await ask(another)

server.close()
await limiter.close()
