import { Redis } from 'ioredis'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startRedisWithClock, startTestRedis, type RedisWithClock } from '../redis.ts'

let server: RedisWithClock
let redis: Redis

beforeAll(async () => {
  server = await startRedisWithClock()
  redis = new Redis(server.url)
})

afterAll(async () => {
  redis.disconnect()
  await server.stop()
})

async function timeUs(): Promise<number> {
  const [seconds, micros] = (await redis.time()).map(Number) as [number, number]
  return seconds * 1_000_000 + micros
}

describe('a Redis whose clock a test turns', () => {
  it('stands still', async () => {
    const before = await timeUs()
    expect(before).toBe(Date.UTC(2026, 0, 1) * 1000)
    expect(await timeUs()).toBe(before)
    expect(server.timeUs()).toBe(before)
  })

  it('shows every microsecond it is set to, in commands and in scripts', async () => {
    const start = Date.UTC(2026, 5, 15) * 1000
    const micros = [0, 1, 2, 9, 10, 99_999, 100_000, 123_457, 333_333, 499_999, 500_000, 999_998, 999_999]
    for (let step = 0; step < 1000; step += 1) micros.push((step * 7_919_993) % 1_000_000)
    for (const [index, micro] of micros.entries()) {
      const us = start + index * 1_000_000 + micro
      server.setTimeUs(us)
      const [inCommand, inScript] = await Promise.all([timeUs(), redis.eval("return redis.call('TIME')", 0)])
      expect(inCommand).toBe(us)
      expect((inScript as string[]).map(Number)).toEqual([Math.floor(us / 1_000_000), us % 1_000_000])
    }
  })

  it('advances, and goes back', async () => {
    const start = server.timeUs()
    server.advanceUs(1)
    expect(await timeUs()).toBe(start + 1)
    server.advanceUs(366 * 86_400_000_000)
    expect(await timeUs()).toBe(start + 1 + 366 * 86_400_000_000)
    server.advanceUs(-366 * 86_400_000_000 - 2)
    expect(await timeUs()).toBe(start - 1)
  })

  it('expires keys by that clock, and only by it', async () => {
    server.setTimeUs(Date.UTC(2027, 0, 1) * 1000)
    await redis.set('by-px', 'here', 'PX', 1000)
    await redis.set('by-pexpire', 'here')
    await redis.pexpire('by-pexpire', 1500)
    server.advanceUs(999_000)
    expect(await redis.mget('by-px', 'by-pexpire')).toEqual(['here', 'here'])
    expect(await redis.pttl('by-px')).toBe(1)
    server.advanceUs(2000)
    expect(await redis.mget('by-px', 'by-pexpire')).toEqual([null, 'here'])
    server.advanceUs(500_000)
    expect(await redis.eval("return redis.call('EXISTS', 'by-pexpire')", 0)).toBe(0)
  })

  it('has a clock of its own for each server', async () => {
    const other = await startRedisWithClock(1_000_000_000_000_000)
    const there = new Redis(other.url)
    expect((await there.time()).map(Number)).toEqual([1_000_000_000, 0])
    expect(await timeUs()).toBe(server.timeUs())
    there.disconnect()
    await other.stop()
  })

  it('cannot be set to what is no time', () => {
    const before = server.timeUs()
    for (const us of [0.5, -1, NaN, Infinity]) expect(() => server.setTimeUs(us)).toThrow(TypeError)
    expect(server.timeUs()).toBe(before)
  })
})

describe('startTestRedis', () => {
  it('gives a Redis whose clock runs', async () => {
    const plain = await startTestRedis()
    const client = new Redis(plain.url)
    const [seconds] = await client.time()
    expect(Math.abs(Number(seconds) - Date.now() / 1000)).toBeLessThan(60)
    client.disconnect()
    await plain.stop()
  })
})
