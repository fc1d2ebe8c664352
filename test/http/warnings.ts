import { onTestFinished } from 'vitest'

/** Listens, until the test is over, for process warnings of a code; what it returns tells those that have come so far. */
export function warningsOf(code: string): () => Promise<(Error & { code?: string; detail?: string })[]> {
  const heard: (Error & { code?: string })[] = []
  const listen = (warning: Error & { code?: string }): void => {
    if (warning.code === code) heard.push(warning)
  }
  process.on('warning', listen)
  onTestFinished(() => void process.off('warning', listen))
  return async () => {
    // They are told of in a turn of their own.
    await new Promise((resolve) => setImmediate(resolve))
    return heard
  }
}
