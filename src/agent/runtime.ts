/** The world outside, so that tests can turn its clock. */
export interface Runtime {
  /** Milliseconds on a clock that only goes forward. */
  now(): number
  /** Unix time in ms, for fields that tell a moment. */
  wall(): number
  /** At least 0, less than 1. */
  random(): number
  setTimer(run: () => void, ms: number): unknown
  clearTimer(timer: unknown): void
}

/** Above this a timer fires at once. */
const longestTimerMs = 2 ** 31 - 1

export const platform: Runtime = {
  now: () => performance.now(),
  wall: () => Date.now(),
  random: () => Math.random(),
  // Rounded up, and one more: timers may fire a millisecond early, which here is a request too early.
  setTimer: (run, ms) => setTimeout(run, Math.min(longestTimerMs, Math.ceil(Math.max(0, ms)) + 1)),
  clearTimer: (timer) => clearTimeout(timer as ReturnType<typeof setTimeout>),
}
