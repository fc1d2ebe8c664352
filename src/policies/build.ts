import * as z from 'zod'
import { parseDuration } from '../duration.ts'
import { RampmeterError } from '../errors.ts'
import type { Amount, Cost, OnStoreError, Partition, Policy, PolicyKind } from '../policy.ts'
import { readOptions } from '../read-options.ts'

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

const policyShape = {
  name: z.unknown().transform(readName).optional(),
  partition: z
    .union([z.enum(['client', 'address', 'tier', 'global']), aFunction<Exclude<Partition, string>>()], {
      error: '"client", "address", "tier", "global", or a function of the request and the client',
    })
    .default('client'),
  unit: z
    .string()
    .regex(printable, 'printable ASCII')
    .refine(
      (unit) => unit !== 'concurrent-requests',
      'a unit that is counted over a window; requests in flight are none',
    )
    .default('requests'),
  cost: policyCostSchema.optional(),
  when: aFunction<Policy['when'] & {}>().optional(),
  mode: z.enum(['enforce', 'shadow']).default('enforce'),
  maxRate: z.number().positive().optional(),
  onStoreError: z.enum(['local', 'open', 'closed'] satisfies OnStoreError[]).optional(),
}

const windowSchema = z.unknown().transform((value) => parseDuration(value, 'window'))

/** What a policy with a quota and a window takes. */
export const windowPolicyShape: z.ZodRawShape = { ...policyShape, quota: amountSchema, window: windowSchema }

/** What `initialBurst` takes. */
export const firstMinutesShape: z.ZodRawShape = {
  quota: amountSchema,
  window: windowSchema,
  renewAfter: z
    .unknown()
    .transform((value) => parseDuration(value, 'renewAfter'))
    .prefault('1d'),
}

/** What is left of a builder's options once they are read. */
interface ReadPolicy extends Partial<Pick<Policy, 'name' | 'burst' | 'partition' | 'unit' | 'cost' | 'when' | 'mode'>> {
  quota: Amount
  window: number
  renewAfter?: number
  maxRate?: number
  onStoreError?: OnStoreError
}

/** Checks a builder's options and makes the policy. */
export function buildPolicy(kind: PolicyKind, shape: z.ZodRawShape, options: object): Policy {
  const read = readOptions(z.strictObject(shape), options, `${kind} policy`) as unknown as ReadPolicy
  const name = read.name ?? kind
  if (read.renewAfter !== undefined && read.renewAfter < read.window) {
    throw new RampmeterError(
      'RAMPMETER_INVALID_OPTION',
      `renewAfter is shorter than the window of ${read.window} ms it renews; write at least as much`,
    )
  }
  return Object.freeze({
    kind,
    name,
    quota: read.quota,
    burst: read.burst,
    windowMs: read.window,
    renewAfterMs: read.renewAfter,
    partition: read.partition ?? 'client',
    unit: read.unit ?? 'requests',
    cost: read.cost,
    when: read.when,
    mode: read.mode ?? 'enforce',
    maxRate: read.maxRate,
    onStoreError: read.onStoreError,
    stateId: fnv1a(`${name}\n${kind}\n${read.window}`),
  })
}

/** FNV-1a, 32 bits: small, well spread, and the same in every process. Not for secrets. */
function fnv1a(text: string): number {
  let hash = 0x811c9dc5
  for (let index = 0; index < text.length; index += 1) {
    hash = Math.imul(hash ^ text.charCodeAt(index), 0x01000193)
  }
  return hash >>> 0
}
