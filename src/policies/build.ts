import * as z from 'zod'
import { formatDuration, parseDuration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import type { Amount, Calendar, Cost, OnStoreError, Partition, Policy, PolicyKind } from '../policy.ts'
import { readOptions } from '../read-options.ts'
import { alignedTo, monthsFrom } from './calendar.ts'

/** The largest quota, burst and cost: what fits the five bytes that a stored entry has for it. */
export const largestAmount = 1e12

const aFunction = <T>(): z.ZodType<T> => z.custom<T>((value) => typeof value === 'function', 'a function')

export const amountSchema: z.ZodType<Amount> = z.union(
  [z.int().min(1).max(largestAmount), aFunction<Exclude<Amount, number>>()],
  { error: 'a whole number from 1 to 10^12, or a function of the client' },
)

const policyCostSchema = z.union([z.int().min(0).max(largestAmount), aFunction<Exclude<Cost, number>>()], {
  error: 'a whole number from 0 to 10^12, or a function of the request and the client',
})

/** RFC 9651 section 3.3.3: a String is printable ASCII, space included. */
const printable = /^[\x20-\x7e]{1,128}$/

function readName(value: unknown): string {
  if (typeof value !== 'string' || !printable.test(value)) {
    throw new RampmeterError(
      'RAMPMETER_POLICY_NAME',
      `a policy is named ${JSON.stringify(value)}; names travel in header fields: write 1 to 128 printable ASCII characters`,
    )
  }
  return value
}

const partitionSchema = z
  .union([z.enum(['client', 'address', 'tier', 'global']), aFunction<Exclude<Partition, string>>()], {
    error: '"client", "address", "tier", "global", or a function of the request and the client',
  })
  .default('client')

/** What every policy takes, whatever it counts. */
const policyShape = {
  name: z.unknown().transform(readName).optional(),
  partition: partitionSchema,
  when: aFunction<Policy['when'] & {}>().optional(),
  mode: z.enum(['enforce', 'shadow']).default('enforce'),
  maxRate: z.number().positive().optional(),
  onStoreError: z.enum(['local', 'open', 'closed'] satisfies OnStoreError[]).optional(),
  quota: amountSchema,
}

const unitSchema = z.string().regex(printable, 'printable ASCII')

const windowUnitSchema = unitSchema.refine(
  (unit) => unit !== 'concurrent-requests',
  'a unit that is counted over a window; for requests in flight there is concurrency(…)',
)

const isNoBytes = (unit: string): boolean => unit !== 'content-bytes'
const noBytes = 'a unit of what is counted here; for bytes there are buckets and windows'

const chargeSchema = z.enum(['before', 'after']).optional()
const beforeSchema = z.literal('before', { error: '"before": it counts from when the request starts' }).optional()

/** What a policy takes whose units and costs are the app's. */
const costShape = {
  unit: windowUnitSchema.default('requests'),
  cost: policyCostSchema.optional(),
  charge: chargeSchema,
}

const durationSchema = (what: string): z.ZodType<number> => z.unknown().transform((value) => parseDuration(value, what))

const windowSchema = durationSchema('window')

/** What a policy with a quota and a window takes. */
export const windowPolicyShape: z.ZodRawShape = {
  ...policyShape,
  ...costShape,
  window: windowSchema,
  prefetch: z
    .strictObject({
      share: z.number().min(0.001).max(0.25),
      ttl: durationSchema('ttl').prefault('1s'),
    })
    .optional(),
}

const dayMs = 86_400_000

/** The longest month: what a month counts as where a length is needed. */
const monthMs = 31 * dayMs

export const fixedWindowShape: z.ZodRawShape = {
  ...windowPolicyShape,
  window: z.union([z.literal('month').transform(() => monthMs), windowSchema]),
  align: z
    .union([z.literal('utc'), z.strictObject({ day: z.int().min(1).max(31) })], {
      error: '"utc", or { day } from 1 to 31',
    })
    .optional(),
}

/** What `initialBurst` takes. */
export const firstMinutesShape: z.ZodRawShape = {
  quota: amountSchema,
  window: windowSchema,
  renewAfter: durationSchema('renewAfter').prefault('1d'),
}

/** The most members that one request may bring: as many as a mask of bits tells apart. */
export const mostMembers = 32

export const concurrencyShape: z.ZodRawShape = {
  ...policyShape,
  unit: unitSchema.refine(isNoBytes, noBytes).default('concurrent-requests'),
  cost: z
    .union([z.int().min(0).max(mostMembers), aFunction<Exclude<Cost, number>>()], {
      error: `a whole number from 0 to ${mostMembers}, or a function of the request and the client`,
    })
    .optional(),
  charge: beforeSchema,
  lease: durationSchema('lease')
    .refine((lease) => lease >= 1000, 'a lease of at least 1 s')
    .prefault('30s'),
  per: aFunction<Policy['per'] & {}>().optional(),
}

export const uniqueTargetsShape: z.ZodRawShape = {
  ...policyShape,
  unit: windowUnitSchema.refine(isNoBytes, noBytes).default('requests'),
  charge: beforeSchema,
  window: windowSchema,
  target: aFunction<Policy['target'] & {}>().optional(),
}

export const failuresShape: z.ZodRawShape = {
  ...policyShape,
  ...costShape,
  unit: windowUnitSchema.refine(isNoBytes, noBytes).default('requests'),
  window: windowSchema,
  counts: aFunction<Policy['counts'] & {}>().optional(),
  reserve: z.boolean().optional(),
}

/** What is left of a builder's options once they are read. */
interface ReadPolicy extends Partial<
  Pick<
    Policy,
    'name' | 'burst' | 'partition' | 'unit' | 'cost' | 'charge' | 'when' | 'mode' | 'per' | 'target' | 'counts'
  >
> {
  quota: Amount
  window?: number
  lease?: number
  align?: 'utc' | { day: number }
  renewAfter?: number
  maxRate?: number
  onStoreError?: OnStoreError
  reserve?: boolean
  prefetch?: { share: number; ttl: number }
}

/** Checks a builder's options and makes the policy. */
export function buildPolicy(kind: PolicyKind, shape: z.ZodRawShape, options: object): Policy {
  const read = readOptions(z.strictObject(shape), options, `${kind} policy`) as unknown as ReadPolicy
  const name = read.name ?? kind
  const windowMs = read.window ?? read.lease!
  if (read.renewAfter !== undefined && read.renewAfter < windowMs) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `renewAfter is shorter than the window of ${windowMs} ms it renews; write at least as much`,
    )
  }
  const calendar = calendarOf((options as { window?: unknown }).window === 'month', windowMs, read.align)
  if (read.unit === 'content-bytes' && read.charge === 'before' && read.cost === undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      "content-bytes are known when they have been sent; leave out charge: 'before', or write what a request is to be charged as `cost`",
    )
  }
  if (kind === 'failures') checkReserve(read)
  if (read.per !== undefined && read.cost !== undefined) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      'with `per` a session has one slot, whatever its requests cost; leave out `cost`',
    )
  }
  const prefetch = read.prefetch && { share: read.prefetch.share, ttlMs: read.prefetch.ttl }
  if (prefetch !== undefined) checkPrefetch(read, prefetch.ttlMs, windowMs)
  const unit = read.unit ?? 'requests'
  return Object.freeze({
    kind,
    name,
    quota: read.quota,
    burst: read.burst,
    windowMs,
    renewAfterMs: read.renewAfter,
    calendar,
    per: read.per,
    target: read.target,
    counts: read.counts,
    reserve: kind === 'failures' ? reserveOf(read) : undefined,
    holdsSlots: kind === 'concurrency',
    partition: read.partition ?? 'client',
    unit,
    cost: read.cost,
    // Nobody knows how many bytes a response will have: they are counted as they are sent. Of failures, `reserve` says it.
    charge:
      (kind === 'failures' ? 'before' : read.charge) ??
      (unit === 'content-bytes' && read.cost === undefined ? 'after' : 'before'),
    when: read.when,
    mode: read.mode ?? 'enforce',
    maxRate: read.maxRate,
    onStoreError: read.onStoreError,
    prefetch,
    stateId: fnv1a(`${name}\n${kind}\n${windowMs}`),
  })
}

/** A failure that is charged before is reserved. */
function reserveOf({ reserve, charge }: ReadPolicy): boolean | undefined {
  return reserve ?? (charge === undefined ? undefined : charge === 'before')
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` */
function checkReserve(read: ReadPolicy): void {
  const { reserve, charge } = read
  if (reserve === undefined || charge === undefined || reserve === (charge === 'before')) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `reserve: ${reserve} is to charge failures ${reserve ? 'before' : 'after'}, and charge: '${charge}' says otherwise; write one of the two`,
  )
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION` */
function checkPrefetch({ charge, unit, cost }: ReadPolicy, ttlMs: number, windowMs: number): void {
  if (charge === 'after' || (unit === 'content-bytes' && cost === undefined)) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      "prefetch: what is charged afterwards is not known when it would be taken; leave it out, or write charge: 'before'",
    )
  }
  if (ttlMs >= 10 && ttlMs <= windowMs / 10) return
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    `prefetch: a ttl of ${formatDuration(ttlMs)} does not go with a window of ${formatDuration(windowMs)}; write at least '10ms' and at most a tenth of the window`,
  )
}

function calendarOf(months: boolean, windowMs: number, align: ReadPolicy['align']): Calendar | undefined {
  if (align === undefined) {
    if (!months) return undefined
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      "a window of 'month' begins on a day of the calendar; add align: 'utc' for the 1st, or align: { day: 15 }",
    )
  }
  if (months) return monthsFrom(align === 'utc' ? 1 : align.day)
  if (align === 'utc') {
    if (windowMs % dayMs === 0 || dayMs % windowMs === 0) return alignedTo(windowMs)
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `a window of ${formatDuration(windowMs)} would begin at another time each day; with align: 'utc' write one that divides a day, such as '6h', whole days, or 'month'`,
    )
  }
  throw new RampmeterError(
    'RAMPMETER_INVALID_OPTION',
    "align: { day } goes with window: 'month'; for days or hours write align: 'utc'",
  )
}

/** Whether a policy is charged what the response turns out to be. */
export function isMeasured({ unit, charge, cost }: Pick<Policy, 'unit' | 'charge' | 'cost'>): boolean {
  return unit === 'content-bytes' && charge === 'after' && cost === undefined
}

/** FNV-1a, 32 bits: small, well spread, and the same in every process. Not for secrets. */
export function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  }
  return hash >>> 0
}
