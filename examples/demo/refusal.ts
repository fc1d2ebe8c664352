// How the demo's clients understand an answer that refuses them.

import type { Said } from './messages.ts'

/** Whether the API did not serve, and might later. */
export function isRefusal(status: number): boolean {
  return status === 429 || status === 503
}

export function understand(response: Response, body: string): Said {
  return {
    status: response.status,
    headers: Object.fromEntries(response.headers),
    body,
    toldMs: timeToWait(response.headers),
  }
}

/** In ms: `retry-after-ms` where it is sent, since it is finer; else Retry-After, seconds or a date (RFC 9110 section 10.2.3). */
function timeToWait(headers: Headers): number | null {
  const ms = headers.get('retry-after-ms')
  if (ms !== null && /^\d+$/.test(ms)) return Number(ms)
  const after = headers.get('retry-after')
  if (after === null) return null
  if (/^\d+$/.test(after)) return Number(after) * 1000
  const date = Date.parse(after)
  return Number.isNaN(date) ? null : Math.max(0, date - Date.now())
}
