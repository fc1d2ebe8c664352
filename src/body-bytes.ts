import type { Socket } from 'node:net'
import type { Request, Response } from 'express'

/** How often it is noted how much of a response has left that waits for its client to take it, in ms. */
const noteEveryMs = 250

/**
 * Counts the bytes of body that a response really sends: what was written to it, and of that no more than left this process.
 *
 * Middleware further in that encodes the body (compression) is counted by what it writes. Where it stands further out, what
 * counts is what went over the connection, with the few bytes that frame the chunks. Of a download that is broken off, what the
 * system had taken by then counts, and not what still waited here for the client to read on.
 *
 * @returns what has been sent so far
 */
export function measureBody(req: Request, res: Response): () => number {
  const { socket } = req
  const departures = departuresOf(socket)
  const write = res.write.bind(res)
  const end = res.end.bind(res)
  let written = 0
  // Behind another response on its connection, it begins when its turn comes.
  let before = res.socket === null ? undefined : handedOver(socket)
  if (before === undefined) res.once('socket', () => (before = handedOver(socket)))
  const count = (chunk: unknown, encoding: unknown): void => {
    if (typeof chunk === 'string') {
      written += Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
    } else if (chunk instanceof Uint8Array) {
      written += chunk.byteLength
    }
    departures.watch()
  }
  res.write = function countedWrite(...args: Parameters<Response['write']>) {
    const result = write(...args)
    count(args[0], args[1])
    return result
  } as Response['write']
  res.end = function countedEnd(...args: Parameters<Response['end']>) {
    // end(chunk) may call write(chunk): what it hands on itself is not counted again.
    const earlier = written
    const result = end(...args)
    if (written === earlier) count(args[0], args[1])
    return result
  } as Response['end']

  return () => {
    const without = req.method === 'HEAD' || res.statusCode === 204 || res.statusCode === 304
    // Its turn never came.
    if (without || before === undefined) return 0
    const { _header: head } = res as unknown as { _header?: string | null }
    return Math.min(written, Math.max(0, departures.left() - before - (head?.length ?? 0)))
  }
}

/** A connection as Node keeps it, which its declarations do not tell. Of TLS it is wrapped around that of the system. */
interface Handle {
  readonly bytesWritten?: number
  /** What the system has not taken yet. */
  readonly writeQueueSize?: number
  readonly _parent?: Handle | null
}

function handleOf(socket: Socket): Handle | undefined {
  const { _handle: handle } = socket as { _handle?: Handle | null }
  return handle?._parent ?? handle ?? undefined
}

/** How many bytes were handed to the system, whether it has taken them or not. */
function handedOver(socket: Socket): number {
  return handleOf(socket)?.bytesWritten ?? socket.bytesWritten
}

/** What has left by a connection. */
interface Departures {
  /** Notes from time to time what has left, as long as something waits. */
  watch(): void
  /** How many bytes have left, in all. */
  left(): number
}

const known = new WeakMap<Socket, Departures>()

/**
 * Watches what leaves by a connection. When it breaks, Node counts what waited as written: so what has left is noted before it
 * is closed, and from time to time, since it may be a write that finds it broken.
 */
function departuresOf(socket: Socket): Departures {
  const before = known.get(socket)
  if (before !== undefined) return before
  let noted = 0
  let timer: NodeJS.Timeout | undefined

  /** @returns whether something still waits */
  function note(): boolean {
    const handle = handleOf(socket)
    if (handle?.bytesWritten === undefined) {
      // Of what only resembles a connection, what was written to it.
      if (!socket.destroyed) noted = socket.bytesWritten
      return false
    }
    const { bytesWritten, writeQueueSize = 0 } = handle
    noted = Math.max(noted, bytesWritten - writeQueueSize)
    return writeQueueSize > 0
  }

  function stop(): void {
    clearInterval(timer)
    timer = undefined
  }

  const destroy = socket.destroy.bind(socket)
  socket.destroy = function notedDestroy(error?: NodeJS.ErrnoException) {
    // A write that failed is no longer waiting, and did not leave.
    if (error?.syscall !== 'write' && !socket.destroyed) note()
    stop()
    return destroy(error)
  }
  // The client may have read all that it wanted.
  socket.once('end', note)

  const departures: Departures = {
    watch() {
      if (timer !== undefined || !note()) return
      timer = setInterval(() => {
        if (!note()) stop()
      }, noteEveryMs)
      timer.unref()
    },
    left() {
      if (!socket.destroyed) note()
      return noted
    },
  }
  known.set(socket, departures)
  return departures
}
