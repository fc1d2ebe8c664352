import { createHash, createHmac } from 'node:crypto'
import { Recent } from './recent.ts'

/** What partitions are called outside this process: in the store, and in the `pk` of the RateLimit fields. */
export interface Names {
  /** The name of a partition's counters: 128 bits, so that no address, key or account stands in the store. */
  readonly nameOf: (partition: string) => string
  /** The partition key of a `RateLimit` field; undefined without a secret, since an unkeyed hash can be guessed back. */
  readonly pk: ((partition: string) => Uint8Array) | undefined
}

/**
 * Names are asked for on every request, and a client sends many. The oldest is forgotten first, however often it was asked for:
 * to note the use of a name costs more than to make one anew now and then.
 */
const rememberedNames = 20_000

/**
 * @param secrets the newest first. The last one makes names, so that a new secret put in front forgets no counter.
 */
export function createNames(secrets: readonly string[]): Names {
  const secret = secrets.at(-1)
  const remembered = new Recent<string, string>({ max: rememberedNames })
  const digest = (use: string, partition: string): Buffer =>
    secret === undefined
      ? createHash('sha256').update(partition, 'utf16le').digest()
      : createHmac('sha256', secret).update(`${use}\n${partition}`, 'utf16le').digest()

  return {
    nameOf(partition) {
      let name = remembered.peek(partition)
      if (name === undefined) {
        name = digest('name', partition).subarray(0, 16).toString('base64url')
        remembered.set(partition, name)
      }
      return name
    },
    // Apart from the names, so that what clients see says nothing about the store.
    pk: secret === undefined ? undefined : (partition) => digest('pk', partition).subarray(0, 9),
  }
}
