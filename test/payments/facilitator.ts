// An x402 facilitator of the test's own: it keeps what it was asked, and says what the test lets it say. Its types are those of
// @x402/core.

import type { SettleRequest, SettleResponse, VerifyRequest, VerifyResponse } from '@x402/core/types'
import express from 'express'
import { serve } from '../http/serve.ts'

export interface Facilitator {
  readonly url: string
  readonly verified: VerifyRequest[]
  readonly settled: SettleRequest[]
  /** What it says; the test may change it. */
  verify: (request: VerifyRequest) => Partial<VerifyResponse> | Promise<Partial<VerifyResponse>>
  settle: (request: SettleRequest) => Partial<SettleResponse> | Promise<Partial<SettleResponse>>
  /** It answers nothing but this status. */
  down: number | undefined
  /** What it says that it supports; undefined where it does not tell. */
  supported: unknown
  /** Under what status it answers. */
  status: number
}

export async function startFacilitator(): Promise<Facilitator> {
  const app = express()
  app.use(express.json())
  const facilitator: Omit<Facilitator, 'url'> = {
    verified: [],
    settled: [],
    verify: () => ({}),
    settle: () => ({}),
    down: undefined,
    supported: undefined,
    status: 200,
  }
  const payerOf = ({ paymentPayload }: VerifyRequest): string => {
    const { authorization, permit2Authorization } = paymentPayload.payload as Record<
      string,
      { from: string } | undefined
    >
    // Of a signed transaction, the facilitator would read it there.
    return (authorization ?? permit2Authorization)?.from ?? 'somebody'
  }
  app.get('/supported', async (_, res) => {
    if (facilitator.supported === undefined || facilitator.down !== undefined) {
      return void res.status(facilitator.down ?? 404).end()
    }
    res.json(facilitator.supported)
  })
  app.post('/verify', async (req, res) => {
    if (facilitator.down !== undefined) return void res.status(facilitator.down).end()
    const request = req.body as VerifyRequest
    facilitator.verified.push(request)
    const said = await facilitator.verify(request)
    const answer: VerifyResponse = { isValid: true, payer: payerOf(request), ...said }
    res.status(facilitator.status).json(answer)
  })
  app.post('/settle', async (req, res) => {
    if (facilitator.down !== undefined) return void res.status(facilitator.down).end()
    const request = req.body as SettleRequest
    facilitator.settled.push(request)
    const answer: SettleResponse = {
      success: true,
      payer: payerOf(request),
      transaction: `0x${'ab'.repeat(32)}`,
      network: request.paymentRequirements.network,
      ...(await facilitator.settle(request)),
    }
    res.json(answer)
  })
  const { port } = await serve(app)
  return Object.assign(facilitator, { url: `http://127.0.0.1:${port}` })
}
