import { warn } from '../errors.ts'

const remedy =
  'write it in the limiter’s own table: routes: { "POST /pay": { critical: true } }, or mount the route before app.use(limiter)'

/**
 * Knows the critical routes that a limiter does not have in its own table, and tells once where one of them comes too late: a
 * limiter further out decides before it knows the route.
 */
export class CriticalRoutes {
  /** Those that have never been reached first. */
  readonly #unmet = new Set<object>()
  #hasWarned = false

  /** There is one that stands on its route alone. */
  expect(route: object): void {
    this.#unmet.add(route)
  }

  /** It was reached without a limiter further out. */
  met(route: object): void {
    this.#unmet.delete(route)
  }

  /** A limiter further out had let the request in as any other. */
  cameLate(): void {
    this.#warn(
      `limiter.route has \`critical: true\` behind app.use(limiter), which cuts the request before it knows its route; ${remedy}`,
    )
  }

  /** A limiter without a route has refused for want of capacity: it may have been for one of those. */
  wasRefused(): void {
    if (this.#unmet.size === 0) return
    this.#warn(
      `app.use(limiter) has refused a request for want of capacity, and limiter.route has \`critical: true\`, which it does not know if it is mounted behind; ${remedy}`,
    )
  }

  #warn(message: string): void {
    if (this.#hasWarned) return
    this.#hasWarned = true
    warn('RAMPMETER_CRITICAL_LATE', message)
  }
}
