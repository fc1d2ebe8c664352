import type { ServerResponse } from 'node:http'
import { Recent } from '../recent.ts'
import { serializeItem } from 'structured-headers'
import type { Policy } from '../policy.ts'
import type { Answer, AppliedPolicy } from './answer.ts'
import { millisecondsToWait, secondsToWait } from './retry.ts'
import { availableQuota, closestToRefusing, effectiveWindow } from './service-limit.ts'

/**
 * A set of header fields that tell a client its limits.
 *
 * - `draft-11`: `RateLimit` and `RateLimit-Policy`, every policy by name.
 * - `draft-7`: `RateLimit: limit=500, remaining=423, reset=12` and `RateLimit-Policy: 500;w=60`.
 * - `draft-6`: `RateLimit-Limit`, `RateLimit-Remaining`, `RateLimit-Reset` (seconds from now), and `RateLimit-Policy` as in
 *   draft-7 where no other family sends one.
 * - `legacy`: `X-RateLimit-Limit`, `-Remaining`, `-Reset` (Unix seconds), `-Used` and `-Resource`, as GitHub sends them.
 *
 * All but `draft-11` tell of one policy: the one that is closest to refusing.
 *
 * @see [draft-ietf-httpapi-ratelimit-headers-11](https://datatracker.ietf.org/doc/draft-ietf-httpapi-ratelimit-headers/11/)
 */
export type HeaderFamily = 'draft-11' | 'draft-7' | 'draft-6' | 'legacy'

const fieldNames: Record<HeaderFamily, readonly string[]> = {
  'draft-11': ['RateLimit-Policy', 'RateLimit'],
  'draft-7': ['RateLimit-Policy', 'RateLimit'],
  'draft-6': ['RateLimit-Policy', 'RateLimit-Limit', 'RateLimit-Remaining', 'RateLimit-Reset'],
  legacy: [
    'X-RateLimit-Limit',
    'X-RateLimit-Remaining',
    'X-RateLimit-Reset',
    'X-RateLimit-Used',
    'X-RateLimit-Resource',
  ],
}

/** Two families that cannot be sent together, because one field name would have two meanings; null where there are none. */
export function clashOf(families: readonly HeaderFamily[]): readonly [HeaderFamily, HeaderFamily] | null {
  return families.includes('draft-11') && families.includes('draft-7') ? ['draft-11', 'draft-7'] : null
}

export interface FieldWriterOptions {
  readonly families: readonly HeaderFamily[]
  /** Adds the names of these fields to `Access-Control-Expose-Headers`, so that scripts of other origins can read them. */
  readonly exposeHeaders: boolean
  /** Fields that others write, which those scripts need as well. */
  readonly otherFields?: readonly string[] | undefined
  /** The keyed hash of a partition, as sent in `pk`. Without it no `pk` is sent. */
  readonly pk?: ((partition: string) => Uint8Array) | undefined
}

export interface FieldWriter {
  /**
   * Sets the fields of an answer: the tier, what is left of each limit and, on a refusal that waiting helps, `Retry-After` and
   * `retry-after-ms`. Does nothing when the header section has been sent already.
   */
  write(res: ServerResponse, answer: Answer): void
  /** Takes back the fields of an earlier answer, for one that is answered anew without limits. */
  clear(res: ServerResponse): void
}

/** What of a policy's fields is the same on every response. */
interface Serialised {
  readonly name: string
  /** `w` and `t` count whole seconds: a window that is none leaves both out. */
  readonly wholeSeconds: boolean
  readonly unit: string
  readonly window: string
  /** A policy's quota may depend on the client; the two members below are those of this one. */
  quota: number
  namedMember: string
  integerMember: string
}

/** Partitions whose `pk` is remembered. A full cache costs one hash a policy, nothing else. */
const mostPartitionKeys = 4096

/** Builds what writes the fields. All that does not change from request to request is serialised once. */
export function createFieldWriter(options: FieldWriterOptions): FieldWriter {
  const families = new Set(options.families)
  const names = [...new Set(options.families.flatMap((family) => fieldNames[family]))]
  const others = options.otherFields ?? []
  const exposed = [...new Set([...names, 'X-RateLimit-Tier', 'Retry-After', 'retry-after-ms', ...others])]
  const named = families.has('draft-11')
  const combined = families.has('draft-7')
  const single = families.has('draft-6')
  const legacy = families.has('legacy')
  const ofOnePolicy = combined || single || legacy
  const serialised = new WeakMap<Policy, Serialised>()
  const partitionKeys = new Recent<string, string>({ max: mostPartitionKeys })
  const { pk } = options

  function serialise({ policy, status }: AppliedPolicy): Serialised {
    let known = serialised.get(policy)
    if (known === undefined) {
      known = serialiseOnce(status)
      serialised.set(policy, known)
    }
    if (known.quota !== status.quota) {
      known.quota = status.quota
      known.namedMember = `${known.name};q=${status.quota}${known.unit}${known.window}`
      known.integerMember = `${status.quota}${known.window}`
    }
    return known
  }

  function partitionKey(partition: string): string {
    if (pk === undefined) return ''
    let key = partitionKeys.get(partition)
    if (key === undefined) {
      key = `;pk=${serializeItem(pk(partition))}`
      partitionKeys.set(partition, key)
    }
    return key
  }

  /** Sections 3 and 4 of draft-11: Lists of Strings, one member a policy. */
  function writeNamed(res: ServerResponse, policies: readonly AppliedPolicy[], latest: number): void {
    let policyField = ''
    let limitField = ''
    for (const applied of policies) {
      const { name, namedMember, wholeSeconds } = serialise(applied)
      const key = partitionKey(applied.partition)
      const seconds = effectiveWindow(applied, latest)
      const separator = policyField === '' ? '' : ', '
      const window = wholeSeconds ? `;t=${seconds}` : ''
      policyField += `${separator}${namedMember}${key}`
      limitField += `${separator}${name};r=${availableQuota(applied, seconds)}${window}${key}`
    }
    res.setHeader('RateLimit-Policy', policyField)
    res.setHeader('RateLimit', limitField)
  }

  /**
   * Section 3.5 of draft-7, and the same in draft-6: quotas as Integers. `w` is required there, and no two members may have
   * one quota: the longer window, being the stricter, is kept. The first minutes' extra cannot be told from a limit there.
   */
  function writeIntegerPolicies(res: ServerResponse, policies: readonly AppliedPolicy[]): void {
    const kept: AppliedPolicy[] = []
    for (const applied of policies) {
      if (applied.policy.kind === 'first-minutes' || !serialise(applied).wholeSeconds) continue
      const same = kept.findIndex(({ status }) => status.quota === applied.status.quota)
      if (same === -1) kept.push(applied)
      else if (kept[same]!.policy.windowMs < applied.policy.windowMs) kept[same] = applied
    }
    if (kept.length === 0) return
    res.setHeader('RateLimit-Policy', kept.map((applied) => serialise(applied).integerMember).join(', '))
  }

  function writeOnePolicy(res: ServerResponse, applied: AppliedPolicy, latest: number, nowMs: number): void {
    const { quota, capacity, remaining, name, windowMs } = applied.status
    const reset = effectiveWindow(applied, latest)
    const available = availableQuota(applied, reset)
    // Nobody knows when slots come back. Of a refusal it is told as Retry-After tells it.
    const resets = windowMs !== null || latest !== Infinity
    if (combined && resets) res.setHeader('RateLimit', `limit=${quota}, remaining=${available}, reset=${reset}`)
    if (single) {
      res.setHeader('RateLimit-Limit', String(quota))
      res.setHeader('RateLimit-Remaining', String(available))
      if (resets) res.setHeader('RateLimit-Reset', String(reset))
    }
    if (legacy) {
      res.setHeader('X-RateLimit-Limit', String(quota))
      res.setHeader('X-RateLimit-Remaining', String(available))
      if (resets) res.setHeader('X-RateLimit-Reset', String(Math.ceil(nowMs / 1000) + reset))
      res.setHeader('X-RateLimit-Used', String(Math.max(0, capacity - remaining)))
      res.setHeader('X-RateLimit-Resource', name)
    }
  }

  return {
    write(res, { decision, policies, nowMs }) {
      if (res.headersSent) return
      const { tier } = decision.client
      if (isFieldValue(tier)) res.setHeader('X-RateLimit-Tier', tier)

      const refusedFor = decision.admitted ? null : decision.retryAfterMs
      const latest = refusedFor === null ? Infinity : secondsToWait(refusedFor)
      const told = policies.filter(isTold)
      if (told.length > 0) {
        if (named) writeNamed(res, told, latest)
        else if (combined || single) writeIntegerPolicies(res, told)
        if (ofOnePolicy) writeOnePolicy(res, closestToRefusing(told)!, latest, nowMs)
      }
      if (refusedFor !== null) {
        res.setHeader('Retry-After', String(latest))
        res.setHeader('retry-after-ms', String(millisecondsToWait(refusedFor)))
      }
      if (options.exposeHeaders) expose(res, exposed)
    },

    clear(res) {
      if (res.headersSent) return
      for (const name of names) res.removeHeader(name)
    },
  }
}

/** Used up, the first minutes' extra is over: a limit with nothing left would hold back who may still use the others. */
function isTold({ policy, status }: AppliedPolicy): boolean {
  return policy.kind !== 'first-minutes' || status.remaining > 0
}

function serialiseOnce({ name, unit, windowMs }: AppliedPolicy['status']): Serialised {
  const wholeSeconds = windowMs !== null && windowMs > 0 && windowMs % 1000 === 0
  return {
    name: serializeItem(name),
    wholeSeconds,
    unit: unit === 'requests' ? '' : `;qu=${serializeItem(unit)}`,
    window: wholeSeconds ? `;w=${windowMs / 1000}` : '',
    quota: -1,
    namedMember: '',
    integerMember: '',
  }
}

/** Printable ASCII: what every proxy passes on unchanged (RFC 9110 section 5.5). */
function isFieldValue(text: string): boolean {
  return /^[\x20-\x7e]+$/.test(text)
}

/** Adds names to those that the app exposes already. `*` stays as it is. */
function expose(res: ServerResponse, names: readonly string[]): void {
  const already = res.getHeader('Access-Control-Expose-Headers')
  if (already === undefined) {
    res.setHeader('Access-Control-Expose-Headers', names.join(', '))
    return
  }
  const text = String(already)
  const known = new Set(text.split(',').map((name) => name.trim().toLowerCase()))
  if (known.has('*')) return
  const missing = names.filter((name) => !known.has(name.toLowerCase()))
  if (missing.length === 0) return
  res.setHeader(
    'Access-Control-Expose-Headers',
    text.trim() === '' ? missing.join(', ') : `${text}, ${missing.join(', ')}`,
  )
}
