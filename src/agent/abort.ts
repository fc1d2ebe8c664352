/** Who waits, by signal: many calls share one, and Node warns when one has more listeners than ten. */
const waiting = new WeakMap<AbortSignal, { readonly runs: Set<() => void>; readonly listener: () => void }>()

/**
 * Calls back when the signal is aborted.
 *
 * @returns ends that; the last to go takes the listener along, so that a signal that lives long holds on to nothing
 */
export function onAbort(signal: AbortSignal, run: () => void): () => void {
  let known = waiting.get(signal)
  if (known === undefined) {
    const runs = new Set<() => void>()
    const listener = (): void => [...runs].forEach((one) => one())
    known = { runs, listener }
    waiting.set(signal, known)
    signal.addEventListener('abort', listener, { once: true })
  }
  const { runs, listener } = known
  runs.add(run)
  return () => {
    runs.delete(run)
    if (runs.size > 0) return
    signal.removeEventListener('abort', listener)
    waiting.delete(signal)
  }
}
