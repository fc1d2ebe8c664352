import { warn } from '../errors.ts'

const reported = new WeakSet<object>()

/** What a request touches by its route's `target`; undefined, for the path, where that fails, which is told once and refuses nobody. */
export function touchedBy(
  target: object,
  ask: () => unknown,
  route: string | undefined,
): readonly string[] | undefined {
  const report = (what: string): undefined => {
    if (reported.has(target)) return
    reported.add(target)
    const where = route === undefined ? 'a route' : `route ${JSON.stringify(route)}`
    warn(
      'RAMPMETER_TARGET_FAILED',
      `abuse: the \`target\` of ${where} ${what}; the path was taken for what its requests touch`,
    )
  }
  try {
    const told: unknown = ask()
    if (told === undefined) return []
    if (typeof told === 'string') return [told]
    if (Array.isArray(told) && told.every((one) => typeof one === 'string')) return told
    if (typeof (told as { then?: unknown })?.then === 'function') {
      ;(told as Promise<unknown>).then(undefined, () => {})
      return report('returned a promise; it has to answer at once')
    }
    return report(
      `returned ${Array.isArray(told) ? 'a list with what is no text' : told === null ? 'null' : `a ${typeof told}`}`,
    )
  } catch {
    return report('threw')
  }
}
