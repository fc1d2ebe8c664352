import { createHash } from 'node:crypto'
import { RampmeterError } from '../../errors.ts'
import type { ClusterClient, ClusterNode, RedisClient, ScriptCommand } from './client.ts'
import type { ScriptCall } from './plan.ts'
import { decideScript, settleScript } from './scripts.ts'

/** How long a server may take to say goodbye, in ms. */
const quitWithinMs = 2000

/** The store's own connection, shared by all limiters that opened the store. */
export class Connection {
  readonly #client: RedisClient | ClusterClient
  readonly #commands: Record<'decide' | 'settle', ScriptCommand>
  /** Who waits for the first connection: a client that is ended between two attempts to connect tells nobody. */
  readonly #waiting = new Set<() => void>()
  #closed = false

  constructor(given: RedisClient | ClusterClient) {
    const client = isCluster(given) ? duplicateCluster(given) : duplicateServer(given)
    // Failures reach the caller of each command; without a listener ioredis prints them as well.
    client.on('error', () => {})
    if (isCluster(client)) keepConnected(client)
    this.#client = client
    this.#commands = { decide: define(client, 'Decide', decideScript), settle: define(client, 'Settle', settleScript) }
  }

  /** Keys have to be of one hash slot. */
  async call(script: 'decide' | 'settle', { keys, plans }: ScriptCall): Promise<unknown> {
    this.#whileOpen()
    const { status } = this.#client
    if (status !== 'ready') {
      throw new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', `the connection to Redis is not up (${status})`)
    }
    return await this.#commands[script](keys.length, ...keys, ...plans)
  }

  /** Keys have to be of one hash slot. */
  async unlink(keys: string[]): Promise<void> {
    this.#whileOpen()
    await this.#client.unlink(...keys)
  }

  /** Resolves when it has been connected, of a cluster to each of the masters that can be reached. */
  async ready(): Promise<void> {
    this.#whileOpen()
    const client = this.#client
    if (client.status !== 'ready') await this.#untilReady()
    if (!isCluster(client)) return
    await Promise.all(client.nodes('master').map(untilReadyOrGone))
    this.#whileOpen()
  }

  async close(): Promise<void> {
    this.#closed = true
    for (const settle of this.#waiting) settle()
    // QUIT waits for the answers under way; a connection that is not up has none, and one that is stuck never ends.
    if (this.#client.status === 'ready') {
      const giveUp = setTimeout(() => this.#client.disconnect(), quitWithinMs)
      await this.#client.quit().catch(() => this.#client.disconnect())
      clearTimeout(giveUp)
    } else {
      this.#client.disconnect()
    }
  }

  #untilReady(): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        this.#client.off('ready', settle)
        this.#waiting.delete(settle)
        if (this.#closed) reject(closedError())
        else resolve()
      }
      this.#client.on('ready', settle)
      this.#waiting.add(settle)
    })
  }

  #whileOpen(): void {
    if (this.#closed) throw closedError()
  }
}

export function closedError(): RampmeterError {
  return new RampmeterError('RAMPMETER_CLOSED', 'the store was used after its limiter was closed')
}

export function isCluster(client: RedisClient | ClusterClient): client is ClusterClient {
  return (client as Partial<ClusterClient>).isCluster === true
}

const retryStrategy = (attempt: number): number => Math.min(attempt * 50, 2000)

/** A default client keeps commands while it is offline and sends again what was not answered: it would charge late, or twice. */
function duplicateServer(given: RedisClient): RedisClient {
  return given.duplicate({
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    lazyConnect: false,
    stringNumbers: false,
    retryStrategy,
  })
}

/**
 * Of a cluster, too, nothing waits offline and nothing that may have run is sent again. What a node turns away (MOVED, ASK,
 * TRYAGAIN) did not run, so it follows.
 */
function duplicateCluster(given: ClusterClient): ClusterClient {
  return given.duplicate([], {
    enableOfflineQueue: false,
    lazyConnect: false,
    // A redirection that concerns only some commands of a pipeline is not followed.
    enableAutoPipelining: false,
    shardedSubscribers: false,
    clusterRetryStrategy: retryStrategy,
    // A node's connection that ends takes along what was not answered; the next call asks another node for the way.
    clusterNodeRetryStrategy: null,
    maxRedirections: 8,
    retryDelayOnTryAgain: 10,
    // These would send again.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    // Whole: ioredis 5 does not merge them.
    redisOptions: { ...given.options.redisOptions, autoResendUnfulfilledCommands: false, stringNumbers: false },
  })
}

/** Connects to each master as soon as it is known, so that no decision waits for that. */
function keepConnected(cluster: ClusterClient): void {
  const connect = (): void => {
    for (const node of cluster.nodes('master')) {
      if (node.status === 'wait') node.connect().catch(() => {})
    }
  }
  cluster.on('ready', connect)
  cluster.on('+node', (node) => {
    keepQuiet(node as ClusterNode)
    // A command that is redirected to a new node is sent first, since it would not be while the node connects.
    if (cluster.status === 'ready') process.nextTick(connect)
  })
}

/**
 * Nobody waits for the ASKING that ioredis sends ahead of a redirected call: where it is lost with its connection, it would end
 * the process as a rejection that nobody handles. The call itself fails by itself.
 */
function keepQuiet(node: ClusterNode): void {
  const asking = node.asking.bind(node)
  node.asking = async () => {
    await asking().catch(() => {})
  }
}

function untilReadyOrGone(node: ClusterNode): Promise<void> {
  return new Promise((resolve) => {
    if (node.status === 'ready' || node.status === 'end') return resolve()
    node.once('ready', () => resolve())
    node.once('end', () => resolve())
  })
}

/** Adds a script to a client under a name that changes with the script, so that two versions never run each other's. */
function define(client: RedisClient | ClusterClient, name: string, lua: string): ScriptCommand {
  const command = `rampmeter${name}_${createHash('sha256').update(lua).digest('hex').slice(0, 12)}`
  client.defineCommand(command, { lua })
  const added = (client as unknown as Record<string, ScriptCommand>)[command]!
  return (keyCount, ...rest) => added.call(client, keyCount, ...rest)
}
