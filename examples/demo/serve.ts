// A process of the demo: the API behind one of the guards, on a free port, until the demo closes the channel to it.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Redis } from 'ioredis'
import { createAccounts } from './accounts.ts'
import { createApi } from './api.ts'
import { guards } from './guards.ts'
import type { GuardName, Listening } from './messages.ts'

const { GUARD, AGENT_KEY = '', PASSWORD = '', REDIS_URL, PREFIX = '' } = process.env

const redis = REDIS_URL === undefined ? undefined : new Redis(REDIS_URL)
redis?.on('error', (error) => console.error(`Redis: ${error.message}`))
const accounts = createAccounts(AGENT_KEY, PASSWORD)
const guard = guards[GUARD as GuardName]({ accounts, redis, prefix: PREFIX })
const server = createServer(createApi(guard.middleware, accounts))

process.once('disconnect', () => void stop())
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address() as AddressInfo
  const listening: Listening = { kind: 'listening', url: `http://127.0.0.1:${port}` }
  // Fails when the demo has ended meanwhile.
  process.send?.(listening, undefined, undefined, (error) => error !== null && void stop())
})

async function stop(): Promise<void> {
  if (!server.listening) return
  server.close()
  server.closeAllConnections()
  await guard.close()
  await redis?.quit()
}
