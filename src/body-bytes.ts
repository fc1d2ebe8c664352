import type { Request, Response } from 'express'

/**
 * Counts the bytes of body that a response really sends: what was written to it, and of that no more than reached the socket.
 *
 * Middleware further in that encodes the body (compression) is counted by what it writes. Where it stands further out, what
 * counts is what went over the socket, with the few bytes that frame the chunks. When a client breaks a download off, what was
 * handed to its socket counts, and of a body that was handed over in one piece all.
 *
 * @returns what has been sent so far
 */
export function measureBody(req: Request, res: Response): () => number {
  const { socket } = req
  const write = res.write.bind(res)
  const end = res.end.bind(res)
  let written = 0
  // Behind another response on its connection, nobody knows yet where this one will begin.
  const before = res.socket === null ? undefined : socket.bytesWritten
  const count = (chunk: unknown, encoding: unknown): void => {
    if (typeof chunk === 'string') {
      written += Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
    } else if (chunk instanceof Uint8Array) {
      written += chunk.byteLength
    }
  }
  res.write = function countedWrite(...args: Parameters<Response['write']>) {
    count(args[0], args[1])
    return write(...args)
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
    if (without) return 0
    if (before === undefined) return written
    const { _header: head } = res as unknown as { _header?: string | null }
    return Math.min(written, Math.max(0, socket.bytesWritten - before - (head?.length ?? 0)))
  }
}
