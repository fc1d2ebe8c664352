import { warn } from '../../errors.ts'
import type { ClusterClient, RedisClient } from './client.ts'

/** The policies that have been told: an app may make a store for each of its limiters. */
const told = new Set<string>()

/**
 * Tells once in a process, by a process warning, that a Redis evicts keys when its memory is full: whoever fills it gets others' limits, and
 * with them their own, forgotten. It is looked at when the first connection is made; a server that does not let us see it is
 * taken to be well.
 */
export function watchEviction(client: RedisClient | ClusterClient): void {
  client.once('ready', () => {
    look(client).catch(() => {})
  })
}

async function look(client: RedisClient | ClusterClient): Promise<void> {
  // A cluster's servers are set up alike, and each has a memory of its own.
  const asked = 'nodes' in client ? client.nodes('master')[0] : client
  const policy = evictionOf((await asked?.info('memory')) ?? '')
  if (policy === undefined || told.has(policy)) return
  told.add(policy)
  warn(
    'RAMPMETER_REDIS_EVICTS',
    `Redis has a maxmemory and the eviction policy ${policy}, so it forgets counters when it is full, and with them what clients have used; set maxmemory-policy to noeviction`,
  )
}

/** The eviction policy of a server that has a bound for its memory, unless it evicts nothing. */
function evictionOf(info: string): string | undefined {
  const [, bound = '0'] = /^maxmemory:(\d+)/m.exec(info) ?? []
  const [, policy] = /^maxmemory_policy:([\w-]+)/m.exec(info) ?? []
  return bound === '0' || policy === 'noeviction' ? undefined : policy
}
