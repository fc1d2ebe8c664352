// The same app with clients at addresses of their own.

import type { Express } from 'express'
import type { AbuseOptions } from '../../src/abuse/options.ts'
import type { Limiter } from '../../src/limiter.ts'
import type { LimiterOptions } from '../../src/options.ts'
import { abuseScene, type AbuseScene } from './abuse-scene.ts'
import type { Reply } from './serve.ts'

export interface Watched extends Omit<AbuseScene, 'ask'> {
  /** As whoever has the key, from the address. */
  readonly ask: (path: string, key?: string, from?: string, more?: Record<string, string>) => Promise<Reply>
}

/** Answers 404 for items from 100 on. */
export async function watched(
  abuse: AbuseOptions | null = {},
  options: LimiterOptions = {},
  more: (app: Express, limiter: Limiter) => void = () => {},
): Promise<Watched> {
  const trustedAddress: LimiterOptions['trustedAddress'] = (req) =>
    (req.headers['x-from'] as string | undefined) ?? '127.0.0.1'
  const scene = await abuseScene(abuse, { trustedAddress, ...options }, more)
  return {
    ...scene,
    ask: (path, key, from, headers = {}) =>
      scene.ask(path, key, { ...(from !== undefined && { 'x-from': from }), ...headers }),
  }
}

/** Asks for so many items that are not there, one after the other. */
export async function guess(
  all: Watched,
  count: number,
  key?: string,
  from?: string,
  more?: Record<string, string>,
): Promise<Reply[]> {
  const replies: Reply[] = []
  for (let id = 1000; id < 1000 + count; id += 1) {
    replies.push(await all.ask(`/items/${id * 7}`, key, from, more))
    all.clock.advance(2500)
  }
  return replies
}
