// While Redis is away, what was last known of a client holds; what clients do meanwhile is lost, and said to be.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import express from 'express'
import { expect, it, onTestFinished } from 'vitest'
import { apiKey, rampmeter, redisStore, type DegradedMessage, type Incident } from '../../src/index.ts'
import { clientOf, redisProcess } from './redis-process.ts'
import { opened, serve, tellDecision, type Reply } from './serve.ts'

async function scene() {
  const server = await redisProcess()
  await server.start()
  const incidents: Incident[] = []
  const limiter = opened(
    rampmeter({
      store: redisStore(clientOf(server)),
      deadline: '500ms',
      identify: [apiKey({ lookup: (key) => ({ id: key, type: 'agent' }) })],
      abuse: { onIncident: (incident) => incidents.push(incident) },
    }),
  )
  await limiter.ready()
  const app = express().use(limiter).get('/', tellDecision)
  app.get('/wire', limiter.route({ name: 'wire', requireApproval: true }), tellDecision)
  const served = await serve(app)
  const ask = (key: string, path = '/'): Promise<Reply> => served.ask(path, { headers: { 'x-api-key': key } })
  return { server, limiter, incidents, ask }
}

function degradedMessages(): DegradedMessage[] {
  const heard: DegradedMessage[] = []
  const listen = (message: unknown): void => void heard.push(message as DegradedMessage)
  subscribe('rampmeter:degraded', listen)
  onTestFinished(() => void unsubscribe('rampmeter:degraded', listen))
  return heard
}

it('holds to what it last knew: suspensions, tiers, denials, approvals', async () => {
  const { server, limiter, ask } = await scene()
  await limiter.review.suspend('key:suspended', { by: 'kim', reason: 'fraud' })
  await limiter.assign('key:premium', { tier: 'premium', by: 'kim' })
  await limiter.review.approve('key:approved', { scope: 'wire', by: 'kim' })
  for (let count = 0; count < 6; count += 1) await limiter.abuse.report('key:denied', 'dispute')
  expect((await ask('suspended')).status).toBe(403)
  expect((await ask('premium')).headers['x-ratelimit-tier']).toBe('premium')
  expect((await ask('approved', '/wire')).status).toBe(200)
  const before = await ask('denied')
  expect(before.status).toBe(403)

  await server.kill()
  expect((await ask('somebody')).json.degraded).toBe(true)
  expect((await ask('suspended')).status).toBe(403)
  expect((await ask('premium')).headers['x-ratelimit-tier']).toBe('premium')
  expect((await ask('approved', '/wire')).status).toBe(200)
  const meanwhile = await ask('denied')
  expect(meanwhile.status).toBe(403)
  const waitOf = ({ problem }: Reply): number => problem.error.retry_after_ms!
  expect(waitOf(meanwhile)).toBeGreaterThan(0)
  expect(waitOf(meanwhile)).toBeLessThanOrEqual(waitOf(before))
  // Nobody can look up whether it was approved.
  const unknown = await ask('somebody', '/wire')
  expect(unknown.status).toBe(503)
  expect(unknown.headers['retry-after']).toBe('1')
}, 30_000)

it('loses what clients do meanwhile, says so, and counts on when the store is back', async () => {
  const { server, limiter, incidents, ask } = await scene()
  await ask('guesser')
  await limiter.flush()
  await server.kill()
  const heard = degradedMessages()
  for (let id = 0; id < 30; id += 1) await ask('guesser', `/nowhere/${id}`)
  await limiter.flush()
  expect(incidents).toEqual([])
  // What was lost is told apart from the decisions of the outage.
  expect(heard.filter(({ state, count }) => state === 'unsettled' && count === 1).length).toBeGreaterThan(1)

  await server.start()
  while ((await ask('guesser')).json.degraded === true) await new Promise((resolve) => setTimeout(resolve, 50))
  for (let id = 0; id < 30; id += 1) await ask('guesser', `/nowhere/${id}`)
  await limiter.flush()
  expect(incidents.map(({ label }) => label)).toContain('enumeration')
}, 30_000)

it('keeps nobody waiting who asks or decides about clients, and says what it is, not what the client of Redis threw', async () => {
  const { server, limiter, ask } = await scene()
  await ask('guesser')
  await limiter.flush()
  const heard = degradedMessages()
  server.freeze()
  onTestFinished(() => server.thaw())
  await ask('guesser', '/nowhere')
  const asked = [
    limiter.review.suspend('key:guesser', { by: 'kim', reason: 'fraud' }),
    limiter.assign('key:guesser', { tier: 'premium', by: 'kim' }),
    limiter.unassign('key:guesser', { by: 'kim' }),
    limiter.review.list(),
    limiter.review.audit('key:guesser'),
    limiter.incidents.list(),
    limiter.edge.export({ format: 'json' }),
  ]
  const outcomes = await Promise.allSettled([...asked, limiter.flush()])
  expect(outcomes.pop()).toMatchObject({ status: 'fulfilled' })
  for (const outcome of outcomes) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'RAMPMETER_STORE_UNAVAILABLE' } })
  }
  expect(heard.some(({ state, code }) => state === 'unsettled' && code === 'RAMPMETER_STORE_UNAVAILABLE')).toBe(true)
}, 30_000)
