import { createHash } from 'node:crypto'
import { classAndCodeOf, RampmeterError } from '../../errors.ts'
import type { ClusterClient, ClusterNode, RedisClient, ScriptCommand } from './client.ts'
import { Corks } from './cork.ts'
import { watchEviction } from './eviction.ts'
import type { ScriptCall } from './plan.ts'
import {
  boardScript,
  decideScript,
  ledgerScript,
  observeScript,
  permissionsScript,
  rulingsScript,
  settleScript,
  sharedScript,
} from './scripts.ts'

/** How long a server may take to say goodbye, in ms. */
const quitWithinMs = 2000

/**
 * After so long without a byte on a connection that owes an answer, in ms, it is ended and made anew: one that is cut without a
 * word would else be waited for until the system gives it up, which takes a quarter of an hour.
 */
const silentForMs = 5000

/** How long a connection may take to be made, in ms. */
const connectWithinMs = 5000

/** Which of the scripts. */
type ScriptName = 'decide' | 'settle' | 'board' | 'ledger' | 'observe' | 'permissions' | 'rulings' | 'shared'

/** The store's own connection, shared by all limiters that opened the store. */
export class Connection {
  readonly #client: RedisClient | ClusterClient
  readonly #commands: Record<ScriptName, ScriptCommand>
  /** Ends the wait for a connection: a client that is ended between two attempts to connect tells nobody. */
  #endWait: (() => void) | undefined
  /** Who waits for it waits for the same: a listener each would add up, where they come again and again. */
  #becomingReady: Promise<void> | undefined
  /** Why it is not up, as far as ioredis has said. */
  #lastError: unknown
  readonly #corks: Corks | undefined
  #closed = false

  constructor(given: RedisClient | ClusterClient) {
    const client = isCluster(given) ? duplicateCluster(given) : duplicateServer(given)
    // Failures reach the caller of each command; without a listener ioredis prints them as well.
    client.on('error', (error) => (this.#lastError = error))
    client.on('ready', () => (this.#lastError = undefined))
    watchEviction(client)
    if (isCluster(client)) {
      keepConnected(client)
      tellTryAgain(client)
    } else {
      endSilenceWithConnection(client)
    }
    this.#client = client
    this.#corks = isCluster(client) ? new Corks(client) : undefined
    this.#commands = {
      decide: define(client, 'Decide', decideScript, 'bytes'),
      settle: define(client, 'Settle', settleScript),
      board: define(client, 'Board', boardScript),
      ledger: define(client, 'Ledger', ledgerScript),
      observe: define(client, 'Observe', observeScript),
      permissions: define(client, 'Permissions', permissionsScript),
      rulings: define(client, 'Rulings', rulingsScript),
      shared: define(client, 'Shared', sharedScript),
    }
  }

  /** Whether a call would be sent now. */
  get isUp(): boolean {
    return !this.#closed && this.#client.status === 'ready'
  }

  /** Of a cluster: the address of the master that has a slot, as far as it is known. */
  masterOf(slot: number): string {
    return (this.#client as ClusterClient).slots[slot]?.[0] ?? ''
  }

  /** Of a cluster: the addresses of all masters that have slots. */
  get masters(): string[] {
    return [...new Set((this.#client as ClusterClient).slots.flatMap(([master]) => master ?? []))]
  }

  /** Keys have to be of one hash slot. */
  async call(script: ScriptName, { keys, plans }: ScriptCall): Promise<unknown> {
    this.#whileOpen()
    this.#whileUp()
    this.#corks?.forTurn()
    return await this.#commands[script](keys.length, ...keys, ...plans)
  }

  /** Keys have to be of one hash slot. */
  async unlink(keys: string[]): Promise<void> {
    this.#whileOpen()
    this.#whileUp()
    await this.#client.unlink(...keys)
  }

  /** What each server says of itself: of a cluster, each of the masters that can be reached. */
  async info(section: string): Promise<string[]> {
    this.#whileOpen()
    const client = this.#client
    const servers = isCluster(client) ? client.nodes('master').filter(({ status }) => status === 'ready') : [client]
    if (client.status !== 'ready' || servers.length === 0) throw this.#notUp()
    return await Promise.all(servers.map((server) => server.info(section)))
  }

  /** Resolves when it has been connected, of a cluster to each of the masters that can be reached. */
  async ready(): Promise<void> {
    this.#whileOpen()
    this.#becomingReady ??= this.#becomeReady().finally(() => (this.#becomingReady = undefined))
    await this.#becomingReady
  }

  async #becomeReady(): Promise<void> {
    const client = this.#client
    if (client.status !== 'ready') await this.#untilReady()
    if (!isCluster(client)) return
    await Promise.all(client.nodes('master').map(untilReadyOrGone))
    this.#whileOpen()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#endWait?.()
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
        this.#endWait = undefined
        if (this.#closed) reject(closedError())
        else resolve()
      }
      this.#client.on('ready', settle)
      this.#endWait = settle
    })
  }

  #whileOpen(): void {
    if (this.#closed) throw closedError()
  }

  #whileUp(): void {
    if (this.#client.status !== 'ready') throw this.#notUp()
  }

  #notUp(): RampmeterError {
    const why = this.#lastError === undefined ? '' : `: ${whyOf(this.#lastError)}`
    const { status } = this.#client
    return new RampmeterError('RAMPMETER_STORE_UNAVAILABLE', `the connection to Redis is not up (${status}${why})`)
  }
}

/** Of a cluster that cannot be reached: what the last of its nodes said. */
function whyOf(error: unknown): string {
  const { lastNodeError } = error as { lastNodeError?: unknown }
  return classAndCodeOf(lastNodeError ?? error)
}

export function closedError(): RampmeterError {
  return new RampmeterError('RAMPMETER_CLOSED', 'the store was used after its limiter was closed')
}

export function isCluster(client: RedisClient | ClusterClient): client is ClusterClient {
  return (client as Partial<ClusterClient>).isCluster === true
}

const retryStrategy = (attempt: number): number => Math.min(attempt * 50, 1000)

/**
 * A server that was demoted takes no writes: whoever asks anew is sent to its successor. Never 2, which would send again what may
 * have run.
 */
const reconnectOnError = (error: Error): boolean => error.message.startsWith('READONLY')

const ofEachServer = {
  autoResendUnfulfilledCommands: false,
  stringNumbers: false,
  connectTimeout: connectWithinMs,
  socketTimeout: silentForMs,
  // Nothing is owed on a connection that we end: a server that hangs need not agree.
  disconnectTimeout: 1,
  // The deadline is ours. A command that ioredis gives up is forgotten, and what it charges all the same is not given back.
  commandTimeout: undefined,
}

/** A default client keeps commands while it is offline and sends again what was not answered: it would charge late, or twice. */
function duplicateServer(given: RedisClient): RedisClient {
  return given.duplicate({
    ...ofEachServer,
    enableOfflineQueue: false,
    // What was not answered when a connection ended fails then; else ioredis forgets it, and nobody is ever told.
    maxRetriesPerRequest: 0,
    lazyConnect: false,
    // A pipeline that was made while it is ready may be written while it is not.
    enableAutoPipelining: false,
    sentinelCommandTimeout: connectWithinMs,
    reconnectOnError,
    retryStrategy,
    // As by default. Where the app's client gives up, ours does not: it would never be connected again.
    sentinelRetryStrategy: (attempt: number): number => Math.min(attempt * 10, 1000),
  })
}

/**
 * Of a cluster, too, nothing waits offline and nothing that may have run is sent again. What a node turns away (MOVED, ASK)
 * did not run, so it follows.
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
    // These would send again.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    // Whole: ioredis 5 does not merge them.
    redisOptions: { ...given.options.redisOptions, ...ofEachServer, reconnectOnError: null },
  })
}

/**
 * The timer of `socketTimeout` ends with its connection. ioredis 5 leaves it to run, and then ends the next connection, in full
 * health, and keeps the process alive until then.
 */
function endSilenceWithConnection(client: RedisClient | ClusterNode): void {
  const timed = client as { socketTimeoutTimer?: NodeJS.Timeout | undefined }
  client.on('close', () => {
    clearTimeout(timed.socketTimeoutTimer)
    timed.socketTimeoutTimer = undefined
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
    endSilenceWithConnection(node as ClusterNode)
    // A command that is redirected to a new node is sent first, since it would not be while the node connects.
    if (cluster.status === 'ready') process.nextTick(connect)
  })
}

/**
 * Tells at once that a slot moves (`TRYAGAIN`): ioredis would ask any node again some times, and then say `Too many Cluster
 * redirections`; key by key it can be decided now.
 */
function tellTryAgain(cluster: ClusterClient): void {
  const inner = cluster as unknown as { handleError(error: Error, tries: unknown, ways: { defaults(): void }): void }
  const handleError = inner.handleError.bind(cluster)
  inner.handleError = (error, tries, ways) => {
    if (error.message.startsWith('TRYAGAIN ')) ways.defaults()
    else handleError(error, tries, ways)
  }
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
    const settle = (): void => {
      node.off('ready', settle)
      node.off('end', settle)
      resolve()
    }
    node.on('ready', settle)
    node.on('end', settle)
  })
}

/**
 * Adds a script to a client under a name that changes with the script, so that two versions never run each other's.
 *
 * @param answers what it answers with
 */
function define(
  client: RedisClient | ClusterClient,
  name: string,
  lua: string,
  answers: 'texts' | 'bytes' = 'texts',
): ScriptCommand {
  const command = `rampmeter${name}_${createHash('sha256').update(lua).digest('hex').slice(0, 12)}`
  client.defineCommand(command, { lua })
  const added = (client as unknown as Record<string, ScriptCommand>)[
    answers === 'bytes' ? `${command}Buffer` : command
  ]!
  return (keyCount, ...rest) => added.call(client, keyCount, ...rest)
}
