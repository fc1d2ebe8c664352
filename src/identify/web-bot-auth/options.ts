import * as z from 'zod'
import { parseDuration, type Duration } from '../../duration.ts'
import { readOptions } from '../../read-options.ts'
import type { JsonWebKeySet } from '../key-source.ts'
import { readKeySet, type KeySet } from './keys.ts'
import { readDirectoryUrl } from './signature-agent.ts'

export interface WebBotAuthOptions {
  /**
   * Where clients reach this API, such as `https://api.example.com`: what a signature must be made for. A path in it is one that a
   * proxy in front takes away. As a list where there are several; then the `Host` field says which is meant, where it names one.
   */
  origin: string | readonly string[]
  /**
   * Signers by the URL in their `Signature-Agent`: a key set that is known beforehand, or `true` for one that is fetched there. A
   * bare origin, `https://bot.example`, means its well-known directory. Default: none.
   */
  directories?: Readonly<Record<string, true | JsonWebKeySet>>
  /**
   * Whose signature earns a tier, asked before anything is fetched. Default: those in `directories`, and nobody else, since anybody
   * can host a directory: other signers stay `unverified-agent`, counted by address.
   *
   * @param url the signer's URL, normalised and without a query; of a bare origin its well-known directory
   */
  trust?: (url: string) => boolean
  /**
   * Fetches directories in place of the library: for tests, or through an egress proxy. It then has to keep away from private
   * addresses itself; size, time and number of fetches are bounded all the same.
   */
  fetch?: typeof globalThis.fetch
  /** The longest from `created` to `expires` of a signature: for so long, whoever saw it can show it again. Default `'24h'`. */
  maxLifetime?: Duration
  /** How far a signer's clock may be ahead. Default `'5s'`. */
  clockTolerance?: Duration
  /** Also takes `Signature-Agent` as a bare string, covered without `key`, as earlier drafts had it. Default false. */
  legacy?: boolean
  /** Takes signatures made with the keys that are printed in RFC 9421, with which anybody can sign. Default false. */
  testKeys?: boolean
  /** The clock, in ms since 1970; for tests. Default `Date.now`. */
  now?: () => number
}

/** {@link WebBotAuthOptions}, read. */
export interface WebBotAuthSettings {
  readonly origin: readonly string[]
  /** By the signer's id. */
  readonly directories: ReadonlyMap<string, NamedDirectory>
  readonly trust: ((url: string) => boolean) | undefined
  readonly fetch: typeof globalThis.fetch | undefined
  /** In ms, as is the next. */
  readonly maxLifetime: number
  readonly clockTolerance: number
  readonly legacy: boolean
  readonly testKeys: boolean
  readonly now: () => number
}

/** A directory that the operator named: what to fetch, or what is known of it. */
interface NamedDirectory {
  readonly url: string
  readonly keys: KeySet | undefined
}

const origin = z.url({ protocol: /^https?$/, error: 'an http(s) origin, such as "https://api.example.com"' })

const keySet = z.custom<JsonWebKeySet>(
  (value) =>
    Array.isArray((value as { keys?: unknown } | null)?.keys) && readKeySet((value as JsonWebKeySet).keys).size > 0,
  'true, or a JSON Web Key Set `{ keys: […] }` with a public key for signatures in it',
)

function isFunction(value: unknown): boolean {
  return typeof value === 'function'
}

const schema = z.strictObject({
  origin: z.union([origin.transform((one) => [one]), z.array(origin).min(1)], {
    error: 'an http(s) origin, such as "https://api.example.com", or a list of them',
  }),
  directories: z
    .record(
      z.string().refine((url) => readDirectoryUrl(url) !== undefined, 'an https URL without a user and a fragment'),
      z.union([z.literal(true), keySet], {
        error: 'true, or a JSON Web Key Set `{ keys: […] }` with a public key for signatures in it',
      }),
    )
    .default({})
    .transform((directories) => new Map(Object.entries(directories).map(named))),
  trust: z.custom<NonNullable<WebBotAuthOptions['trust']>>(isFunction, 'a function of a URL').optional(),
  fetch: z.custom<typeof globalThis.fetch>(isFunction, 'a function such as `fetch`').optional(),
  maxLifetime: z
    .unknown()
    .default('24h')
    .transform((value) => parseDuration(value, "webBotAuth's maxLifetime")),
  clockTolerance: z
    .unknown()
    .default('5s')
    .transform((value) => parseDuration(value, "webBotAuth's clockTolerance")),
  legacy: z.boolean().default(false),
  testKeys: z.boolean().default(false),
  now: z.custom<() => number>(isFunction, 'a function that returns ms').default(() => Date.now),
})

function named([url, keys]: [string, true | JsonWebKeySet]): [string, NamedDirectory] {
  const directory = readDirectoryUrl(url)!
  return [directory.id, { url: directory.url, keys: keys === true ? undefined : readKeySet(keys.keys) }]
}

/** @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_DURATION` */
export function readWebBotAuthOptions(options: WebBotAuthOptions): WebBotAuthSettings {
  const { trust, fetch, ...settings } = readOptions(schema, options, 'webBotAuth')
  return { ...settings, trust, fetch }
}
