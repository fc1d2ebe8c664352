import { beforeAll, expect, it } from 'vitest'
import { runExample } from './running.ts'

beforeAll(async () => {
  const built = await runExample(['scripts/build.mjs', '--if-stale'])
  if (built.code !== 0) throw new Error(`the examples run on the package as it is built:\n${built.stdout}`)
}, 120_000)

it.each([
  [
    'credits',
    ['200: paid 5', '200: paid 5', '402: This request costs 5 credits; 2 are available.', '{ available: 2, held: 0 }'],
  ],
  [
    'actions',
    [
      'summarise 200 { tokens: 400, paid: 4 }',
      'translate 200 { tokens: 100, paid: 1 }',
      'help 200 { tokens: 0, paid: 0 }',
      'summarise 400 { paid: 0 }',
      'mine 404 { paid: 0 }',
      '{ available: 95, held: 0 }',
    ],
  ],
  [
    'deposit',
    [
      'while it runs: { available: 10, held: 50 }',
      'good: { available: 60, held: 0 }',
      'while it runs: { available: 10, held: 50 }',
      'spam: { available: 40, held: 0 }',
    ],
  ],
  [
    'reservation',
    [
      'used: 200 { used: true } { available: 70, held: 0 }',
      "let go after that: 409 { released: false, code: 'RAMPMETER_ALREADY_CAPTURED' } { available: 70, held: 0 }",
      'let go in time: 200 { released: true } { available: 70, held: 0 }',
      'while it is reserved: { available: 40, held: 30 }',
      "used too late: 409 { used: false, code: 'RAMPMETER_HOLD_ENDED' } { available: 70, held: 0 }",
    ],
  ],
  [
    'own-provider',
    [
      '402: This request costs 5 credits. {"provider":"voucher","field":"Voucher","buy":"https://shop.example/vouchers","credits":5}',
      '200: rendered, 5 paid',
      '402: This request costs 5 credits, and the payment was not taken: this payment was used before.',
      '402: This request costs 5 credits, and the payment was not taken: its signature is not ours.',
      '402: This request costs 5 credits, and the payment was not taken: it is worth 3 credits, which is too little.',
      '400: The payment cannot be read: Voucher is no voucher.',
      '500: the render failed',
      '200: rendered, 5 paid',
    ],
  ],
  ['tiers', ['without a pass: 3 of 20', 'a pass: 201', 'with it: 20 of 20', 'another: 402']],
])(
  'payments-%s',
  async (name, lines) => {
    const { code, stdout, stderr } = await runExample(['--import', 'tsx', `examples/payments-${name}.ts`])
    expect({ code, stderr, lines: stdout.trim().split('\n') }).toEqual({ code: 0, stderr: '', lines })
  },
  60_000,
)
