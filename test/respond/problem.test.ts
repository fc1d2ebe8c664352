import { describe, expect, it } from 'vitest'
import { fixedWindow } from '../../src/policies/fixed-window.ts'
import { slidingWindow } from '../../src/policies/sliding-window.ts'
import { tokenBucket } from '../../src/policies/token-bucket.ts'
import type { AppliedPolicy } from '../../src/respond/answer.ts'
import { problemOf } from '../../src/respond/problem.ts'
import { answer, applied, type Outcome } from './answers.ts'

const perMinute = tokenBucket({ name: 'per-minute', quota: 500, window: '1m', burst: 200 })
const perHour = slidingWindow({ name: 'per-hour', quota: 20_000, window: '1h' })
const links = { docsUrl: 'https://api.example/limits', upgradeUrl: 'https://api.example/plans' }

const problem = (policies: AppliedPolicy[], outcome: Outcome) => problemOf(answer(policies, outcome), links)

describe('a used-up quota', () => {
  it('is told as draft-11 and RFC 9457 have it, with the same facts as fields', () => {
    const policies = [
      applied(perMinute, { remaining: 0, waitMs: 1180, resetMs: 23_500 }),
      applied(perHour, { remaining: 15_000, resetMs: 3_000_000 }),
    ]
    const detail = 'Tier "agent" allows 500 requests per minute; the next one is admitted in 2 s.'
    expect(problem(policies, { reason: 'quota', violated: ['per-minute'], retryAfterMs: 1180 })).toEqual({
      type: 'https://iana.org/assignments/http-problem-types#quota-exceeded',
      title: 'Request cannot be satisfied as assigned quota has been exceeded',
      status: 429,
      detail,
      'violated-policies': ['per-minute'],
      error: {
        type: 'rate_limit_exceeded',
        message: detail,
        tier: 'agent',
        retry_after: 2,
        retry_after_ms: 1180,
        limit: 500,
        remaining: 0,
        window: '1m',
        reset_at: '2026-02-27T12:00:24Z',
        docs_url: 'https://api.example/limits',
        upgrade_url: 'https://api.example/plans',
      },
    })
  })

  it('shows the numbers of the policy that makes one wait longest', () => {
    const policies = [
      applied(perMinute, { remaining: 3, cost: 5, waitMs: 240, resetMs: 23_500 }),
      applied(perHour, { remaining: 4, cost: 5, waitMs: 600_000, resetMs: 3_000_000 }),
    ]
    const told = problem(policies, { reason: 'quota', violated: ['per-minute', 'per-hour'], retryAfterMs: 600_000 })
    expect(told.error).toMatchObject({ limit: 20_000, remaining: 4, window: '1h', reset_at: '2026-02-27T12:50:00Z' })
    expect(told['violated-policies']).toEqual(['per-minute', 'per-hour'])
  })

  it('is never free again before it is admitted again', () => {
    const policies = [applied(perMinute, { remaining: 0, waitMs: 1180, resetMs: 2000 })]
    const told = problem(policies, { reason: 'quota', violated: ['per-minute'], retryAfterMs: 30_000 })
    expect(told.error.reset_at).toBe('2026-02-27T12:00:30Z')
  })

  it.each([
    [{ quota: 1, window: '1s' }, {}, 900, 'Tier "agent" allows 1 request per second; the next one is admitted in 1 s.'],
    [
      { quota: 30, window: '15m' },
      { cost: 5 },
      840_001,
      'Tier "agent" allows 30 requests per 15 minutes; this request costs 5 and is admitted in 15 min.',
    ],
    [
      { quota: 1000, window: '1d', unit: 'tokens' },
      {},
      20_000_000,
      'Tier "agent" allows 1000 tokens per day; this request costs 1 and is admitted in 6 h.',
    ],
    [
      { quota: 4096, window: 250, unit: 'content-bytes' },
      { cost: 4096 },
      100,
      'Tier "agent" allows 4096 bytes per 250 ms; this request costs 4096 and is admitted in 1 s.',
    ],
    [
      { quota: 7, window: '90s' },
      {},
      119_001,
      'Tier "agent" allows 7 requests per 90 seconds; the next one is admitted in 2 min.',
    ],
  ] as const)('is said in words: %o', (options, status, retryAfterMs, detail) => {
    const policy = fixedWindow({ name: 'x', ...options })
    const policies = [applied(policy, { remaining: 0, waitMs: retryAfterMs, ...status })]
    expect(problem(policies, { reason: 'quota', violated: ['x'], retryAfterMs }).detail).toBe(detail)
  })

  it.each([
    [7_200_000, '2 h'],
    [48 * 3_600_000 - 1000, '48 h'],
    [48 * 3_600_000, '2 days'],
    [362 * 3_600_000, '16 days'],
  ])('a wait of %i ms is said as %s', (retryAfterMs, words) => {
    const policies = [applied(perHour, { remaining: 0, waitMs: retryAfterMs })]
    const { detail } = problem(policies, { reason: 'quota', violated: ['per-hour'], retryAfterMs })
    expect(detail).toContain(`; the next one is admitted in ${words}.`)
  })

  it('says so where the limit is that of a pool: its quota is not the tier’s', () => {
    const policies = [applied(perHour, { remaining: 0, waitMs: 1000 }, { ofPool: true })]
    expect(problem(policies, { reason: 'quota', violated: ['per-hour'], retryAfterMs: 1000 }).detail).toBe(
      'The pool of tier "agent" allows 20000 requests per hour; the next one is admitted in 1 s.',
    )
    expect(problem(policies, { reason: 'never', violated: ['per-hour'], retryAfterMs: null }).detail).toBe(
      'This request costs 1; the pool of tier "agent" never admits more than 20000 requests at once.',
    )
  })

  it("says so where the limit is the route's own", () => {
    const wire = tokenBucket({ name: 'wire', quota: 5, window: '1h' })
    const policies = [applied(wire, { remaining: 0, waitMs: 720_000 }, { ofRoute: true })]
    expect(problem(policies, { reason: 'quota', violated: ['wire'], retryAfterMs: 720_000 }).detail).toBe(
      'This route allows 5 requests per hour; the next one is admitted in 12 min.',
    )
  })
})

describe('a cost that never fits', () => {
  it('is said to be never, with the numbers that show why and no time to wait', () => {
    const policies = [
      applied(perMinute, { cost: 300, remaining: 150, waitMs: null, resetMs: 6000 }),
      applied(perHour, { cost: 300, remaining: 4, waitMs: 900, resetMs: 3_000_000 }),
    ]
    const told = problem(policies, { reason: 'never', violated: ['per-minute', 'per-hour'], retryAfterMs: null })
    const detail = 'This request costs 300; tier "agent" never admits more than 200 requests at once.'
    expect(told).toMatchObject({ status: 403, retryable: false, detail })
    expect(told.type).toMatch(/#quota-exceeded$/)
    expect(told.error).toEqual({
      type: 'cost_exceeds_limit',
      message: detail,
      tier: 'agent',
      limit: 500,
      remaining: 150,
      window: '1m',
      cost: 300,
      capacity: 200,
      docs_url: links.docsUrl,
      upgrade_url: links.upgradeUrl,
    })
  })
})

describe("a refusal that is nobody's fault", () => {
  it.each(['store', 'verification', 'capacity'] as const)('%s: 503 with an estimated wait', (reason) => {
    const told = problem([], { reason, retryAfterMs: 1000, retryEstimated: true })
    expect(told).toMatchObject({ status: 503, retry_estimated: true })
    expect(told.type).toBe('https://iana.org/assignments/http-problem-types#temporary-reduced-capacity')
    expect(told).not.toHaveProperty('retryable')
    expect(told).not.toHaveProperty('violated-policies')
    expect(told.detail).toMatch(/; try again in about 1 s\.$/)
    expect(told.error).toEqual({
      type: 'temporarily_unavailable',
      message: told.detail,
      tier: 'agent',
      retry_after: 1,
      retry_after_ms: 1000,
      docs_url: links.docsUrl,
    })
  })
})

describe('a limit that is used up while each server counts for itself', () => {
  it('is told as that, and not as one that cannot be checked', () => {
    const refused = answer([], { reason: 'store', retryAfterMs: 3_600_000, retryEstimated: true })
    expect(problemOf({ ...refused, byShare: true }, links)).toMatchObject({
      status: 503,
      retry_estimated: true,
      detail:
        'Each server counts for itself at the moment, and what this one may still admit is less than this request costs; try again in about 60 min.',
    })
  })
})

describe('a credential that is not valid', () => {
  it('is 401 and about:blank, titled as RFC 9457 section 4.2.1 asks', () => {
    const told = problem([applied(perMinute, { remaining: 20 })], { reason: 'proof', retryAfterMs: null })
    expect(told).toEqual({
      type: 'about:blank',
      title: 'Unauthorized',
      status: 401,
      detail: 'The credential is missing or not valid here.',
      retryable: false,
      error: {
        type: 'invalid_credential',
        message: 'The credential is missing or not valid here.',
        tier: 'agent',
        docs_url: links.docsUrl,
      },
    })
  })
})
