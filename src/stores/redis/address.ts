import type { StoreName } from '../../store-name.ts'
import type { ClusterClient, RedisClient } from './client.ts'

/** What of an ioredis client says where it connects. */
interface Whereto {
  readonly host?: string
  readonly port?: number
  readonly path?: string
  readonly db?: number
  readonly sentinels?: readonly Whereto[] | null
  readonly name?: string
}

/** Where a client connects, as messages may say it: hosts and ports, and never who it is there. */
export function nameOfClient(client: RedisClient | ClusterClient, prefix: string): StoreName {
  const { options = {}, startupNodes } = client as {
    options?: Whereto
    startupNodes?: readonly (number | string | Whereto)[]
  }
  if (startupNodes !== undefined) return { kind: 'redis-cluster', address: startupNodes.map(addressOf).join(), prefix }
  const { sentinels, name = '', db = 0 } = options
  if (sentinels != null && sentinels.length > 0) {
    return { kind: 'redis-sentinel', address: `${name}@${sentinels.map(addressOf).join()}`, prefix }
  }
  return { kind: 'redis', address: `${addressOf(options)}${db === 0 ? '' : `/${db}`}`, prefix }
}

function addressOf(node: number | string | Whereto): string {
  if (typeof node === 'number') return `127.0.0.1:${node}`
  if (typeof node === 'object') {
    const { host = '127.0.0.1', port = 6379, path } = node
    return path ?? `${host}:${port}`
  }
  // It may hold a password, with any characters in it: of what is no URL nothing is told.
  const url = /^[a-z]+:\/\//i.test(node) ? node : `redis://${node}`
  return (URL.canParse(url) && new URL(url).host) || '?'
}
