// What is told of an error that somebody else threw: enough to know what is wrong, and nothing that names a host or a user.

import { Redis } from 'ioredis'
import { expect, it, onTestFinished } from 'vitest'
import { classAndCodeOf } from '../src/errors.ts'
import { openRedis } from './http/stores.ts'

async function failureOf(work: Promise<unknown>): Promise<unknown> {
  return await work.then(
    () => undefined,
    (error: unknown) => error,
  )
}

it('what Redis and its client say is told by the words that name nothing', async () => {
  const { redis } = await openRedis()
  await redis.set('a name of ours', 'text', 'EX', 1)
  expect(classAndCodeOf(await failureOf(redis.lpush('a name of ours', 'b')))).toBe('ReplyError: WRONGTYPE')

  const offline = new Redis({ lazyConnect: true, enableOfflineQueue: false })
  onTestFinished(() => offline.disconnect())
  expect(classAndCodeOf(await failureOf(offline.get('a')))).toBe("Error: Stream isn't writeable")
  const ended = redis.duplicate()
  await ended.quit()
  expect(classAndCodeOf(await failureOf(ended.get('a')))).toBe('Error: Connection is closed')
})

it('of others the class, and the code where there is one', () => {
  expect(classAndCodeOf(new TypeError('user amy at 10.0.0.1'))).toBe('TypeError')
  expect(classAndCodeOf(new Error('SECRET of amy'))).toBe('Error')
  expect(classAndCodeOf(Object.assign(new Error('connect 10.0.0.1:5432'), { code: 'ECONNREFUSED' }))).toBe(
    'Error ECONNREFUSED',
  )
  expect(classAndCodeOf('a text')).toBe('string')
})
