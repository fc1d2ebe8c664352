import { setTimeout as sleep } from 'node:timers/promises'
import { isNotPermitted, RampmeterError } from '../../errors.ts'
import type { Connection } from './connection.ts'

/** After an answer that was lost it asks again so soon, in ms. */
const pauseMs = 100

/** What is looked at, and as whom. */
export interface Permissions {
  readonly connection: Connection
  /** Has small decisions made, and leaves nothing behind. Without it only the commands are looked at. */
  readonly ask?: () => Promise<unknown>
  /** A key that is not there. */
  readonly key: string
  /** What all keys begin with. */
  readonly prefix: string
}

/**
 * Waits until a server has answered, and says whether its user may do what the store does. An answer that says no for another
 * reason, such as LOADING or OOM, is one all the same: that passes by itself.
 *
 * @throws {RampmeterError} `RAMPMETER_REDIS_PERMISSIONS`, `RAMPMETER_CLOSED`
 */
export async function checkPermissions(permissions: Permissions): Promise<void> {
  for (;;) {
    await permissions.connection.ready()
    try {
      return await lookAtPermissions(permissions)
    } catch (error) {
      if (isNotPermitted(error)) throw error
      if (answered(error)) return
    }
    await sleep(pauseMs, undefined, { ref: false })
  }
}

/**
 * The same, once: it fails also where no answer comes.
 *
 * @throws {RampmeterError} `RAMPMETER_REDIS_PERMISSIONS`
 */
export async function lookAtPermissions({ connection, ask, key, prefix }: Permissions): Promise<void> {
  try {
    const missing = (await connection.call('permissions', { keys: [key], plans: [] })) as string[]
    if (missing.includes('~')) throw keysNotPermitted(prefix)
    if (missing.length > 0) throw notPermitted(missing)
    await ask?.()
  } catch (error) {
    if (error instanceof RampmeterError && error.code === 'RAMPMETER_REDIS_PERMISSIONS') throw error
    if (!isNotPermitted(error)) throw error
    const { message } = said(error)
    if (/\bkeys?\b/.test(message)) throw keysNotPermitted(prefix, error)
    const [, command] = /\brun the '([\w|]+)' command/.exec(message) ?? []
    throw notPermitted(command === undefined ? [] : [command], error)
  }
}

function answered(error: unknown): boolean {
  return said(error).name === 'ReplyError'
}

/** What the server said: it answers a call as a whole, or one decision of it. */
function said(error: unknown): Error {
  const { cause } = error as Error
  return cause instanceof Error ? cause : (error as Error)
}

function keysNotPermitted(prefix: string, cause?: unknown): RampmeterError {
  return new RampmeterError(
    'RAMPMETER_REDIS_PERMISSIONS',
    `the user that connects to Redis may not use keys that begin with "${prefix}" (NOPERM); add ~${prefix}* to its ACL, or give redisStore the prefix that it may use`,
    { cause },
  )
}

function notPermitted(commands: readonly string[], cause?: unknown): RampmeterError {
  const what = commands.length === 0 ? 'a command that the store needs' : commands.join(', ')
  const adds =
    commands.length === 0 ? 'those' : `${commands.map((command) => `+${command}`).join(' ')}, which are among those`
  return new RampmeterError(
    'RAMPMETER_REDIS_PERMISSIONS',
    `the user that connects to Redis may not run ${what} (NOPERM); its ACL needs ${adds} of rampmeter/docs/redis.md#permissions`,
    { cause },
  )
}
