/** What a single server's client and a cluster's have in common. */
interface AnyClient {
  readonly status: string
  defineCommand(name: string, definition: { lua: string; numberOfKeys?: number }): void
  unlink(...keys: string[]): Promise<number>
  info(section: string): Promise<string>
  on(event: string, listener: (...values: unknown[]) => void): unknown
  once(event: string, listener: (...values: unknown[]) => void): unknown
  off(event: string, listener: (...values: unknown[]) => void): unknown
  quit(): Promise<unknown>
  disconnect(reconnect?: boolean): void
}

/**
 * What the store needs of an ioredis client, described by its shape: the library's declarations do not need ioredis.
 * An ioredis 5 or 6 `Redis` fits.
 */
export interface RedisClient extends AnyClient {
  duplicate(override?: object): RedisClient
  info(section: string): Promise<string>
}

/** The same of a client of Redis Cluster. An ioredis 5 or 6 `Cluster` fits. */
export interface ClusterClient extends AnyClient {
  readonly isCluster: boolean
  readonly options: { readonly keyPrefix?: string | undefined; readonly redisOptions?: object | undefined }
  /** Without nodes of its own, the duplicate starts from the same ones. */
  duplicate(startupNodes?: never[], override?: object): ClusterClient
  nodes(role?: 'master'): ClusterNode[]
  /** The addresses of those who have a slot, the master first; of no slot until the cluster is known. */
  readonly slots: string[][]
}

/** A cluster client's connection to one node, which it makes when it first needs it, and drops when it ends. */
export interface ClusterNode {
  readonly status: string
  /** The socket, once there is one. */
  readonly stream?: { cork(): void; uncork(): void } | undefined
  connect(): Promise<unknown>
  asking(): Promise<unknown>
  info(section: string): Promise<string>
  on(event: string, listener: (...values: unknown[]) => void): unknown
  off(event: string, listener: (...values: unknown[]) => void): unknown
}

/** A command that `defineCommand` added: how many keys, the keys, the arguments. */
export type ScriptCommand = (keyCount: number, ...keysAndArguments: readonly string[]) => Promise<unknown>
