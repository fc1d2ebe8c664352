/** One request, as the server saw it. */
export interface Seen {
  /** Which call it belongs to: a call's retries bear its name. */
  readonly call: string
  readonly status: number
  /** Whether it was refused with a ticket. */
  readonly ticket: boolean
  /** When it arrived and when its answer was written, in ms on the machine's clock. */
  readonly at: number
  readonly answeredAt: number
}

/** Milliseconds since 1970 with fractions, the same for all processes of a machine to well below a millisecond. */
export function clock(): number {
  return performance.timeOrigin + performance.now()
}

/** The field that names the call. */
export const callField = 'x-call'
