import { describe, expect, it } from 'vitest'
import { freshnessOf, retryAfterOf } from '../../../src/identify/web-bot-auth/freshness.ts'

const now = Date.UTC(2026, 1, 27, 12)
const date = 'Fri, 27 Feb 2026 12:00:00 GMT'
const later = 'Fri, 27 Feb 2026 12:30:00 GMT'
const minute = 60_000
const day = 24 * 60 * minute

const fieldOf =
  (fields: Record<string, string>) =>
  (name: string): string | null =>
    fields[name] ?? null

describe('freshnessOf', () => {
  it.each<[string, Record<string, string>, number]>([
    ['nothing said', {}, 10 * minute],
    ['max-age', { 'cache-control': 'public, max-age=3600' }, 60 * minute],
    ['max-age, quoted and in capitals', { 'cache-control': 'MAX-AGE="3600"' }, 60 * minute],
    ['max-age before Expires', { 'cache-control': 'max-age=120', expires: later }, 2 * minute],
    ['s-maxage, which is for shared caches', { 'cache-control': 's-maxage=3600' }, 10 * minute],
    ['less what it has lain elsewhere', { 'cache-control': 'max-age=3600', age: '600' }, 50 * minute],
    ['Expires, by our clock', { expires: later }, 30 * minute],
    ['Expires, by its own clock', { expires: later, date: 'Fri, 27 Feb 2026 12:20:00 GMT' }, 10 * minute],
    ['an Expires that is no date', { expires: '0', date }, minute],
    ['no-store', { 'cache-control': 'no-store, max-age=3600' }, minute],
    ['no-cache', { 'cache-control': 'no-cache' }, minute],
    ['max-age=0', { 'cache-control': 'max-age=0' }, minute],
    ['an Age that is no number', { 'cache-control': 'max-age=3600', age: '-1' }, 60 * minute],
    ['a year', { 'cache-control': 'max-age=31536000' }, day],
    ['more than a number can be', { 'cache-control': `max-age=${'9'.repeat(40)}` }, day],
  ])('%s', (_what, fields, ms) => {
    expect(freshnessOf(fieldOf(fields), now)).toBe(ms)
  })
})

describe('retryAfterOf', () => {
  it.each([
    ['120', 120_000],
    [later, 30 * minute],
    ['Fri, 27 Feb 2026 11:00:00 GMT', 0],
    ['soon', 0],
    ['', 0],
  ])('%s', (value, ms) => {
    expect(retryAfterOf(fieldOf({ 'retry-after': value }), now)).toBe(ms)
    expect(retryAfterOf(fieldOf({}), now)).toBe(0)
  })
})
