/**
 * What the store needs of an ioredis client, described by its shape: the library's declarations do not need ioredis.
 * An ioredis 5 or 6 `Redis` fits.
 */
export interface RedisClient {
  readonly status: string
  duplicate(override?: object): RedisClient
  defineCommand(name: string, definition: { lua: string; numberOfKeys?: number }): void
  unlink(...keys: string[]): Promise<number>
  on(event: string, listener: (...values: unknown[]) => void): unknown
  once(event: string, listener: (...values: unknown[]) => void): unknown
  off(event: string, listener: (...values: unknown[]) => void): unknown
  quit(): Promise<unknown>
  disconnect(reconnect?: boolean): void
}

/** A command that `defineCommand` added: how many keys, the keys, the arguments. */
export type ScriptCommand = (keyCount: number, ...keysAndArguments: readonly string[]) => Promise<unknown>
