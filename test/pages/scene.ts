/**
 * What the examples in the pages take for granted, so that each can show one thing: an app with a limiter, and the exports of
 * the library. A block that needs more imports or declares it. A text, since as a declaration it would hold for our tests too.
 */
export const scene = `
import type * as library from 'rampmeter'
import type { Express, RequestHandler } from 'express'
import type { Redis } from 'ioredis'
import type { Server } from 'node:http'

declare global {
  const app: Express
  const server: Server
  const redis: Redis
  const limiter: library.Limiter

  /** Handlers of the app. */
  const search: RequestHandler
  const report: RequestHandler

  /** The app's own database. */
  const db: {
    latency(): Promise<{ p99: number }>
    findKey(key: string): Promise<{ id: string; type: 'agent' | 'service' | 'user'; tier?: string; plan?: string; tenant?: string } | undefined>
  }
  /** The app's own call of a language model. */
  function complete(prompt: unknown): Promise<{ usage: { total_tokens: number }; text: string }>

  const rampmeter: typeof library.rampmeter
  const tokenBucket: typeof library.tokenBucket
  const adaptive: typeof library.adaptive
  const presetLevels: typeof library.presetLevels
  const gradient: typeof library.gradient
  const slidingWindow: typeof library.slidingWindow
  const slidingLog: typeof library.slidingLog
  const fixedWindow: typeof library.fixedWindow
  const concurrency: typeof library.concurrency
  const failures: typeof library.failures
  const uniqueTargets: typeof library.uniqueTargets
  const presetTiers: typeof library.presetTiers
  const presetClassifier: typeof library.presetClassifier
  const apiKey: typeof library.apiKey
  const session: typeof library.session
  const memoryStore: typeof library.memoryStore
  const redisStore: typeof library.redisStore
}
`
