import { createHmac, timingSafeEqual } from 'node:crypto'
import { finished } from 'node:stream/promises'
import type { NextFunction, Request, Response } from 'express'
import { RampmeterError } from '../errors.ts'

/** An event of Stripe's, as far as it is looked at. */
export interface StripeEvent {
  readonly id: string
  readonly type: string
  readonly data: {
    readonly object: Readonly<Record<string, unknown>>
    readonly previous_attributes?: Readonly<Record<string, unknown>>
  }
}

/** Express middleware that takes the raw body itself. */
export type WebhookHandler = (req: Request, res: Response, next: NextFunction) => void

/** Stripe's events are far smaller. */
const longestBody = 1_048_576

/**
 * Makes the handler of a signed webhook. What is not well signed, or no event, is 400 and nothing is done; what fails is passed to `next`, so
 * that Stripe sends it again.
 *
 * The check is ours, twenty lines of HMAC, so that credits can be sold without the `stripe` package in the process.
 *
 * @param secrets any of them may have signed
 */
export function webhook(
  secrets: readonly string[],
  toleranceMs: number,
  act: (event: StripeEvent) => Promise<void>,
): WebhookHandler {
  async function answer(req: Request, res: Response): Promise<void> {
    if (secrets.length === 0) {
      throw new RampmeterError(
        'RAMPMETER_INVALID_OPTION',
        'a webhook came, and without the signing secret of its endpoint nothing of it can be believed; give stripe({ webhookSecret, … })',
      )
    }
    const body = await rawBody(req)
    if (body === undefined) return refuse(res, 'The body is larger than 1 MiB, which no event is.')
    if (!isSigned(body, req.headers['stripe-signature'], secrets, toleranceMs)) {
      return refuse(res, 'The signature is missing, wrong or old.')
    }
    const event = readEvent(body)
    if (event === undefined) return refuse(res, 'The signature is good, and the body is no event of Stripe.')
    await act(event)
    res.json({ received: true })
  }

  async function handle(req: Request, res: Response, next: NextFunction): Promise<void> {
    try {
      await answer(req, res)
    } catch (error) {
      next(error)
    }
  }

  return function stripeWebhook(req, res, next) {
    void handle(req, res, next)
  }
}

function refuse(res: Response, detail: string): void {
  const problem = { type: 'about:blank', title: 'Bad Request', status: 400, detail }
  res.status(400).set('Cache-Control', 'no-store').type('application/problem+json').send(JSON.stringify(problem))
}

/** The bytes that were signed; undefined where there are too many. */
async function rawBody(req: Request): Promise<Buffer | undefined> {
  const body: unknown = req.body
  if (Buffer.isBuffer(body)) return body
  if (typeof body === 'string') return Buffer.from(body)
  if (req.readableEnded) {
    throw new RampmeterError(
      'RAMPMETER_WEBHOOK_BODY',
      'a body parser has read this webhook already, and the signature is of its bytes; mount the webhook before express.json()',
    )
  }
  const parts: Buffer[] = []
  let size = 0
  // To the end, so that who sends too much still reads the answer; what is too much is not kept.
  req.on('data', (part: Buffer) => {
    size += part.length
    if (size <= longestBody) parts.push(part)
  })
  await finished(req)
  return size > longestBody ? undefined : Buffer.concat(parts)
}

/** @see [Stripe, verify webhook signatures manually](https://docs.stripe.com/webhooks#verify-manually) */
function isSigned(body: Buffer, header: unknown, secrets: readonly string[], toleranceMs: number): boolean {
  if (typeof header !== 'string') return false
  const items = header.split(',', 20).map((item) => item.split('=', 2) as [string, string | undefined])
  const [, time] = items.find(([name]) => name === 't') ?? []
  if (time === undefined || !/^\d{1,12}$/.test(time)) return false
  if (Math.abs(Date.now() - Number(time) * 1000) > toleranceMs) return false
  const expected = secrets.map((secret) => createHmac('sha256', secret).update(`${time}.`).update(body).digest())
  return items.some(([name, value]) => {
    if (name !== 'v1' || !/^[0-9a-f]{64}$/.test(value ?? '')) return false
    const given = Buffer.from(value!, 'hex')
    return expected.some((one) => timingSafeEqual(one, given))
  })
}

function readEvent(body: Buffer): StripeEvent | undefined {
  try {
    const event = JSON.parse(body.toString('utf8')) as Partial<StripeEvent> | null
    const isEvent =
      typeof event?.id === 'string' &&
      typeof event.type === 'string' &&
      Object(event.data?.object) === event.data?.object
    return isEvent ? (event as StripeEvent) : undefined
  } catch {
    return undefined
  }
}

/** @throws {RampmeterError} `RAMPMETER_WEBHOOK_ACCOUNT` */
export function accountless({ type, id }: StripeEvent): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_WEBHOOK_ACCOUNT',
    `the event ${id} (${type}) was paid and names no account to credit; set client_reference_id on the Checkout Session, or give \`account\`. Stripe sends it again`,
  )
}
