import { LRUCache } from 'lru-cache'
import { createNotes } from '../notes.ts'

export interface ActivityOptions {
  /** How many requests a client may send in a minute and be taken for a person. */
  threshold: number
  /** The time in ms. */
  now: () => number
}

/** Counts what each client sends. */
export interface Activity {
  /**
   * Notes a request and says whether the client has sent more than the threshold in the last minute, this one included. A
   * request is counted once, however often it is asked about: an outer limiter and a route's both do.
   */
  exceeds(clientId: string, request: object): boolean
}

const windowMs = 60_000

export const largestThreshold = 10_000

/** 8 bytes each, so 32 MB when every client is as busy as can be counted. */
const mostTimes = 4_000_000

const mostClients = 10_000

/** The times of a client's latest requests, one more than the threshold; once full, `oldest` is where the next one goes. */
interface Latest {
  readonly times: number[]
  oldest: number
}

/**
 * Counts in this process, exactly: more than `threshold` requests fell into a minute if the one that many requests ago is
 * younger than a minute. Bounded: when too many clients are watched, the one unseen for longest is forgotten, and starts anew.
 */
export function createActivity(options: ActivityOptions): Activity {
  const { threshold, now } = options
  const kept = threshold + 1
  const clients = new LRUCache<string, Latest>({ max: Math.min(mostClients, Math.floor(mostTimes / kept)) })
  const counted = createNotes<object, true>()

  function note(latest: Latest, time: number): void {
    if (latest.times.length < kept) {
      latest.times.push(time)
    } else {
      latest.times[latest.oldest] = time
      latest.oldest = (latest.oldest + 1) % kept
    }
  }

  return {
    exceeds(clientId, request) {
      const time = now()
      let latest = clients.get(clientId)
      if (latest === undefined) {
        latest = { times: [], oldest: 0 }
        clients.set(clientId, latest)
      }
      if (counted.get(request) === undefined) {
        counted.set(request, true)
        note(latest, time)
      }
      return latest.times.length === kept && time - latest.times[latest.oldest]! < windowMs
    },
  }
}
