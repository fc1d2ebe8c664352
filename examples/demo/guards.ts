// The two limiters that the demo compares, each as an app would have it.

import type { RequestHandler } from 'express'
import { ipKeyGenerator, rateLimit } from 'express-rate-limit'
import type { Redis } from 'ioredis'
import { RedisStore, type RedisReply } from 'rate-limit-redis'
import { apiKey, memoryStore, rampmeter, redisStore, session } from 'rampmeter'
import type { Accounts } from './accounts.ts'
import type { GuardName } from './messages.ts'

export interface Guard {
  readonly middleware: RequestHandler
  close(): Promise<void>
}

export interface GuardOptions {
  readonly accounts: Accounts
  /** Where the counters live; in the process when there is none. */
  readonly redis: Redis | undefined
  /** What every key in Redis begins with. */
  readonly prefix: string
}

export const guards: Record<GuardName, (options: GuardOptions) => Guard> = {
  /** The preset tiers: nothing is configured but who is asking. */
  rampmeter({ accounts, redis, prefix }) {
    const limiter = rampmeter({
      store: redis === undefined ? memoryStore() : redisStore(redis, { prefix }),
      identify: [apiKey({ lookup: (key) => accounts.agentOf(key) }), session((req) => accounts.personOf(req))],
      docsUrl: 'https://shop.example/docs/limits',
      // Six processes share this machine while the demo runs: a stall is not an outage.
      deadline: '1s',
    })
    return { middleware: limiter, close: () => limiter.close() }
  },

  /** What most APIs have: 100 a minute for everybody, counted by key, session or address. */
  'fixed-window'({ accounts, redis, prefix }) {
    const middleware = rateLimit({
      windowMs: 60_000,
      limit: 100,
      standardHeaders: 'draft-8',
      legacyHeaders: false,
      keyGenerator(req) {
        const agent = accounts.agentOf(req.get('x-api-key') ?? '')
        if (agent !== null) return `key:${agent.id}`
        const person = accounts.personOf(req)
        return person === null ? ipKeyGenerator(req.ip ?? '') : `session:${person.id}`
      },
      ...(redis !== undefined && {
        store: new RedisStore({
          prefix,
          sendCommand: (command: string, ...args: string[]) => redis.call(command, ...args) as Promise<RedisReply>,
        }),
      }),
    })
    return { middleware, close: async () => {} }
  },
}
