import { isObject } from './x402-authorisation.ts'

/** What a facilitator settles in version 2: a scheme on a network, or on all of a family (`eip155:*`). */
interface Kind {
  readonly scheme: string
  readonly network: string
}

/**
 * What of the offered schemes a facilitator says that it does not settle, by its answer to `/supported`.
 *
 * @returns undefined where it settles all of them, or does not say what it settles
 *
 * @see [x402 v2](https://github.com/x402-foundation/x402/blob/main/specs/x402-specification-v2.md), section 7.3
 */
export function lackOf(
  answer: Readonly<Record<string, unknown>> | undefined,
  schemes: readonly string[],
  network: string,
): { readonly missing: readonly string[]; readonly settles: readonly string[] } | undefined {
  const { kinds } = answer ?? {}
  if (!Array.isArray(kinds) || kinds.length === 0 || !kinds.every(isKind)) return undefined
  const known = kinds.filter((kind) => kind['x402Version'] === 2)
  const family = `${network.slice(0, network.indexOf(':'))}:*`
  const missing = schemes.filter(
    (scheme) =>
      !known.some((kind) => kind.scheme === scheme && [network, family].some((one) => isSame(kind.network, one))),
  )
  if (missing.length === 0) return undefined
  return { missing, settles: known.map((kind) => `${kind.scheme} on ${kind.network}`) }
}

function isKind(value: unknown): value is Kind & Record<string, unknown> {
  return isObject(value) && typeof value['scheme'] === 'string' && typeof value['network'] === 'string'
}

function isSame(one: string, other: string): boolean {
  return one.toLowerCase() === other.toLowerCase()
}
