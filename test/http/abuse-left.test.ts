// A client that hangs up does not hide what it asked for.

import { once } from 'node:events'
import { connect } from 'node:net'
import type { Express, Request, Response } from 'express'
import { describe, expect, it } from 'vitest'
import { apiKey, presetSignals, tokenBucket, type Limiter } from '../../src/index.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'

const signals = presetSignals({ 'new-targets': { weight: 20, threshold: 10 }, 'failed-charges': { threshold: 5 } })

/** Asks, and hangs up once somebody says that the request is there. */
async function askAndLeave(all: AbuseScene, path: string, isThere: Promise<unknown>): Promise<void> {
  const { port } = all.served
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: leaver\r\n\r\n`)
  await isThere
  socket.destroy()
  await once(socket, 'close')
}

/** What tells that something has happened, once. */
function bell(): { rung: Promise<void>; ring: () => void } {
  let ring = (): void => {}
  const rung = new Promise<void>((resolve) => (ring = resolve))
  return { rung, ring }
}

async function signalsOf({ limiter }: AbuseScene): Promise<readonly string[] | undefined> {
  await limiter.flush()
  return (await limiter.peek({ id: 'key:leaver', tier: 'agent' })).abuse?.signals
}

describe('a client that hangs up', () => {
  it('while its request is handled has asked for it', async () => {
    let there = bell()
    let gone = bell()
    const all = await abuseScene({ signals }, {}, (app) => {
      app.get('/slow/:id', (_req, res) => {
        res.once('close', gone.ring)
        there.ring()
      })
    })
    for (let id = 0; id < 16; id += 1) {
      ;[there, gone] = [bell(), bell()]
      await askAndLeave(all, `/slow/${id}`, there.rung)
      await gone.rung
    }
    expect(await signalsOf(all)).toContain('new-targets')
  })

  it('while it is asked who it is has asked for it too', async () => {
    let there = bell()
    let known = bell()
    let handled = bell()
    const lookup = async (key: string): Promise<{ id: string; type: 'agent' }> => {
      there.ring()
      await known.rung
      return { id: key, type: 'agent' }
    }
    let gone = bell()
    const skip = (req: Request): boolean => {
      req.socket.once('close', gone.ring)
      return false
    }
    const all = await abuseScene({ signals }, { skip, identify: [apiKey({ lookup })] }, (app) => {
      app.get('/slow/:id', () => handled.ring())
    })
    for (let id = 0; id < 16; id += 1) {
      ;[there, gone, known, handled] = [bell(), bell(), bell(), bell()]
      await askAndLeave(all, `/slow/${id}`, there.rung)
      await gone.rung
      known.ring()
      await handled.rung
    }
    expect(await signalsOf(all)).toContain('new-targets')
  })

  it('before its card is declined has tried it', async () => {
    let there = bell()
    let gone = bell()
    const answers: Response[] = []
    const policies = [tokenBucket({ name: 'charges', quota: 30, window: '1m' })]
    const charge = (app: Express, limiter: Limiter): void => {
      app.get('/charge', limiter.route({ name: 'charge', highRisk: true, policies }), (_req, res) => {
        answers.push(res)
        res.once('close', gone.ring)
        there.ring()
      })
    }
    const all = await abuseScene({ signals }, {}, charge)
    for (let nth = 0; nth < 6; nth += 1) {
      ;[there, gone] = [bell(), bell()]
      await askAndLeave(all, '/charge', there.rung)
      await gone.rung
    }
    expect(await signalsOf(all)).not.toContain('failed-charges')
    for (const res of answers) res.status(402).end()
    expect(await signalsOf(all)).toContain('failed-charges')
  })
})
