/** What is read to the end, to keep the connection; for more it is cheaper to open a new one. */
const mostBytes = 65_536
const longestMs = 1000

/**
 * Lets go of a response that nobody will read. A short body is read to its end, since a body that is cancelled costs its
 * connection; a long or slow one is cancelled.
 */
export async function discard({ body }: Response | Request): Promise<void> {
  if (body === null || body.locked) return
  const reader = body.getReader()
  const cancel = (): void => void reader.cancel().catch(() => {})
  const timer = setTimeout(cancel, longestMs)
  try {
    for (let bytes = 0; bytes <= mostBytes;) {
      const { done, value } = await reader.read()
      if (done) return
      bytes += (value as Uint8Array).byteLength
    }
    cancel()
  } catch {
    // It broke off: as good as read.
  } finally {
    clearTimeout(timer)
  }
}
