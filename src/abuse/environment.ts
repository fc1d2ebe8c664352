import type { Request } from 'express'
import { warn } from '../errors.ts'
import { checkFields } from './environment-fields.ts'

/** Where a request comes from, as far as the app's edge knows. */
export interface Environment {
  /** Two letters, as in ISO 3166-1. */
  readonly country?: string | undefined
  /** The number of the network (autonomous system). */
  readonly asn?: number | string | undefined
  /** The fingerprint of its TLS handshake. */
  readonly ja4?: string | undefined
}

/** Tells where a request comes from. It has to answer at once. */
export type EnvironmentReader = (req: Request) => Environment | undefined

/** The names of header fields. */
export interface EnvironmentFields {
  readonly country?: string
  readonly asn?: string
  readonly ja4?: string
}

/**
 * Reads what Cloudflare says of a request: `CF-IPCountry`, and the network and the JA4 fingerprint from the fields that you name, since
 * Cloudflare writes these only where you have it do so. Give it only to an app that nobody can reach but through Cloudflare: whoever
 * can may write these fields himself.
 *
 * @param fields names of the fields; none is read for `asn` and `ja4` unless it is named
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 * @see {@link https://developers.cloudflare.com/rules/transform/managed-transforms/reference/}
 * @example
 * cloudflare({ ja4: 'cf-ja4', asn: 'x-asn' })
 */
export function cloudflare(fields: EnvironmentFields = {}): EnvironmentReader {
  return readerOf({ country: 'cf-ipcountry', ...checkFields(fields, 'cloudflare') })
}

/**
 * Reads what Fastly says of a request, where its VCL writes the fields `Fastly-Client-Country` (client.geo.country_code),
 * `Fastly-Client-Asn` (client.as.number) and `Fastly-Client-Ja4` (tls.client.ja4). Fastly writes none of them by itself, and lets a
 * client's own through: give the reader only to an app behind a VCL that sets all of them, and that nobody can reach but through it.
 *
 * @param fields other names of the fields
 * @throws {RampmeterError} `RAMPMETER_INVALID_OPTION`, `RAMPMETER_UNKNOWN_OPTION`
 * @see {@link https://www.fastly.com/documentation/reference/vcl/variables/geolocation/}
 */
export function fastly(fields: EnvironmentFields = {}): EnvironmentReader {
  const usual = { country: 'fastly-client-country', asn: 'fastly-client-asn', ja4: 'fastly-client-ja4' }
  return readerOf({ ...usual, ...checkFields(fields, 'fastly') })
}

/** Not known; the letters of a country that does not exist. T1, Tor, which is everywhere, has no two letters. */
const noCountry: ReadonlySet<string> = new Set(['XX', 'ZZ'])

function readerOf(fields: EnvironmentFields): EnvironmentReader {
  const [country, asn, ja4] = [fields.country, fields.asn, fields.ja4].map((name) => name?.toLowerCase())
  const read = (req: Request, name: string | undefined, pattern: RegExp): string | undefined => {
    const value = name === undefined ? undefined : req.headers[name]
    return typeof value === 'string' && pattern.test(value) ? value : undefined
  }
  return (req) => {
    const where = read(req, country, /^[A-Z]{2}$/i)?.toUpperCase()
    return {
      country: where === undefined || noCountry.has(where) ? undefined : where,
      asn: read(req, asn, /^[1-9]\d{0,9}$/),
      ja4: read(req, ja4, /^[\w.-]{1,64}$/),
    }
  }
}

const longest = 128

/** An environment that can be believed to be one. */
export interface KnownEnvironment {
  readonly country: string | undefined
  readonly asn: string | undefined
  readonly ja4: string | undefined
}

const nowhere: KnownEnvironment = { country: undefined, asn: undefined, ja4: undefined }

/** Makes what asks a reader and is not harmed by it: one that throws, promises, misspells or talks too much is ignored, and reported once. */
export function createEnvironment(reader: EnvironmentReader | undefined): (req: Request) => KnownEnvironment {
  if (reader === undefined) return () => nowhere
  let reported = false
  const report = (what: string): KnownEnvironment => {
    if (!reported) {
      reported = true
      warn(
        'RAMPMETER_ENVIRONMENT_FAILED',
        `abuse: \`environment\` ${what}; that was ignored; write { country: 'NL', asn: 64500, ja4: 't13d…' }, leave out what is not known, or return undefined`,
      )
    }
    return nowhere
  }
  return function environmentOf(req) {
    try {
      const told: unknown = reader(req)
      return told === undefined || told === null ? nowhere : readTold(told, report)
    } catch {
      return report('threw')
    }
  }
}

const known: ReadonlySet<string> = new Set(['country', 'asn', 'ja4'] satisfies (keyof Environment)[])

/** Its getters may throw, as the reader may. */
function readTold(told: unknown, report: (what: string) => KnownEnvironment): KnownEnvironment {
  if (typeof told !== 'object' || told === null) return report(`returned a ${typeof told}`)
  if (typeof (told as { then?: unknown }).then === 'function') {
    ;(told as Promise<unknown>).then(undefined, () => {})
    return report('returned a promise; it has to answer at once')
  }
  if (Symbol.iterator in told) return report(`returned ${Array.isArray(told) ? 'an array' : 'a list'}`)
  const { country, asn, ja4 } = told as Environment
  const unknown = Object.keys(told).find((name) => !known.has(name))
  if (unknown !== undefined) report(`returned the unknown name ${JSON.stringify(unknown.slice(0, 64))}`)
  if (typeof asn === 'number' && !(Number.isInteger(asn) && asn >= 1 && asn < 2 ** 32))
    return report(`returned the network ${asn}, which is no number of one`)
  const parts = [country, typeof asn === 'number' ? String(asn) : asn, ja4]
  for (const part of parts) {
    if (part !== undefined && part !== null && (typeof part !== 'string' || part.length > longest))
      return report(`returned a part that is no text of at most ${longest} characters`)
  }
  const [where, network, handshake] = parts.map((part) => (part === '' || part === null ? undefined : part))
  return { country: where, asn: network, ja4: handshake }
}
