// What tests of Stripe share: its events, signed with its own helper, and a local server that speaks its few endpoints.

import { randomUUID } from 'node:crypto'
import express from 'express'
import Stripe from 'stripe'
import { keepErrors, serve, type Reply, type Served } from '../http/serve.ts'

export const webhookSecret = 'whsec_of_the_test'
export const account = 'key:acme'
const { webhooks } = new Stripe('sk_test_x')

export interface Told {
  type: string
  object: Record<string, unknown>
  previous?: Record<string, unknown>
  id?: string
}

/** An event as Stripe sends it. */
export function eventOf({ type, object, previous, id = `evt_${randomUUID()}` }: Told): string {
  const data = { object, ...(previous !== undefined && { previous_attributes: previous }) }
  return JSON.stringify({ id, object: 'event', type, data })
}

export function send(
  served: Served,
  payload: string,
  signed: { secret?: string; timestamp?: number; of?: string } = {},
): Promise<Reply> {
  const { secret = webhookSecret, of = payload, timestamp } = signed
  const signature = webhooks.generateTestHeaderString({
    payload: of,
    secret,
    ...(timestamp !== undefined && { timestamp }),
  })
  return served.ask('/stripe', {
    method: 'POST',
    headers: { 'content-type': 'application/json', 'stripe-signature': signature },
    body: payload,
  })
}

export const paidSession = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  id: `cs_${randomUUID()}`,
  object: 'checkout.session',
  payment_status: 'paid',
  client_reference_id: account,
  amount_total: 1000,
  ...more,
})

export async function serveWebhook(handler: express.RequestHandler): Promise<Served> {
  const app = express()
  app.post('/stripe', handler)
  app.use(keepErrors().handler)
  return await serve(app)
}

export interface Intent {
  id: string
  status: string
  amount: number
  amount_capturable: number
  amount_received: number
  currency: string
  client_secret: string
  metadata: Record<string, string>
}

/** The few endpoints of Stripe. */
export async function startStripe(): Promise<{
  client: Stripe
  intents: Map<string, Intent>
  calls: string[]
  readonly confirm: (id: string) => void
  state: { down: boolean; losesAnswer: boolean }
  sessions: { payment_intent: string; client_reference_id: string }[]
}> {
  const intents = new Map<string, Intent>()
  const calls: string[] = []
  const state = { down: false, losesAnswer: false }
  const refunded = new Set<string>()
  const sessions: { payment_intent: string; client_reference_id: string }[] = []
  const app = express()
  app.use(express.urlencoded({ extended: true }))
  app.use((req, res, next) => {
    if (state.down) return void res.status(503).json({ error: { type: 'api_error', message: 'down' } })
    calls.push(`${req.method} ${req.path.replace(/pi_\w+/, ':id')}`)
    next()
  })
  const wrong = (res: express.Response, code: string): void =>
    void res.status(400).json({ error: { type: 'invalid_request_error', code, message: code } })
  app.post('/v1/payment_intents', (req, res) => {
    const id = `pi_${randomUUID().replaceAll('-', '')}`
    const intent = {
      id,
      object: 'payment_intent',
      status: 'requires_payment_method',
      amount: Number(req.body.amount),
      amount_capturable: 0,
      amount_received: 0,
      currency: req.body.currency,
      client_secret: `${id}_secret`,
      metadata: req.body.metadata ?? {},
    }
    intents.set(id, intent)
    res.json(intent)
  })
  app.get('/v1/payment_intents/:id', (req, res) => {
    const intent = intents.get(req.params.id)
    if (intent === undefined)
      return void res
        .status(404)
        .json({ error: { type: 'invalid_request_error', code: 'resource_missing', message: 'no' } })
    res.json(intent)
  })
  app.post('/v1/payment_intents/:id/:does', (req, res) => {
    const intent = intents.get(req.params.id)!
    const isCapture = req.params.does === 'capture'
    if (intent.status !== 'requires_capture' && (isCapture || /^(succeeded|canceled)$/.test(intent.status))) {
      return wrong(res, 'payment_intent_unexpected_state')
    }
    intent.status = isCapture ? 'succeeded' : 'canceled'
    intent.amount_received = isCapture ? Number(req.body.amount_to_capture ?? intent.amount) : 0
    intent.amount_capturable = 0
    res.json(intent)
  })
  app.get('/v1/checkout/sessions', (req, res) => {
    const found = sessions.filter(({ payment_intent: intent }) => intent === req.query['payment_intent'])
    res.json({ object: 'list', data: found, has_more: false })
  })
  app.post('/v1/refunds', (req, res) => {
    const key = req.get('idempotency-key')
    const intent = intents.get(req.body.payment_intent)!
    const amount = Number(req.body.amount ?? intent.amount_received)
    if (key !== undefined && refunded.has(key)) return void res.json({ id: 're_1', object: 'refund' })
    if (amount > intent.amount_received) return wrong(res, 'charge_already_refunded')
    if (key !== undefined) refunded.add(key)
    intent.amount_received -= amount
    if (state.losesAnswer) {
      state.losesAnswer = false
      return void res.status(503).json({ error: { type: 'api_error', message: 'lost' } })
    }
    res.json({ id: 're_1', object: 'refund' })
  })
  const { port } = await serve(app)
  return {
    client: new Stripe('sk_test_x', { host: '127.0.0.1', port, protocol: 'http', maxNetworkRetries: 0 }),
    intents,
    calls,
    state,
    sessions,
    confirm(id) {
      const intent = intents.get(id)!
      intent.status = 'requires_capture'
      intent.amount_capturable = intent.amount
    },
  }
}
