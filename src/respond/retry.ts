/**
 * Milliseconds as the whole seconds that header fields count in, rounded up, so that nobody who waits them comes too early.
 * At least 1: a wait of 0 would be an invitation to hammer.
 */
export function secondsToWait(milliseconds: number): number {
  return Math.max(1, Math.ceil(milliseconds / 1000))
}

/** Milliseconds to wait as a whole number, at least 1. */
export function millisecondsToWait(milliseconds: number): number {
  return Math.max(1, Math.ceil(milliseconds))
}
