import type { Request, Response } from 'express'

/**
 * Counts the bytes of body that a response really sends: what is handed to the socket, less what still waits there when the
 * client has gone. Middleware that encodes the body (compression) is counted by what it sends.
 *
 * @returns what has been sent so far
 */
export function measureBody(req: Request, res: Response): () => number {
  let handed = 0
  const write = res.write.bind(res)
  const end = res.end.bind(res)
  const count = (chunk: unknown, encoding: unknown): void => {
    if (typeof chunk === 'string') {
      handed += Buffer.byteLength(chunk, typeof encoding === 'string' ? (encoding as BufferEncoding) : 'utf8')
    } else if (chunk instanceof Uint8Array) {
      handed += chunk.byteLength
    }
  }
  res.write = function countedWrite(...args: Parameters<Response['write']>) {
    count(args[0], args[1])
    return write(...args)
  } as Response['write']
  res.end = function countedEnd(...args: Parameters<Response['end']>) {
    // end(chunk) may call write(chunk): what it hands on itself is not counted again.
    const before = handed
    const result = end(...args)
    if (handed === before) count(args[0], args[1])
    return result
  } as Response['end']

  return () => {
    const without = req.method === 'HEAD' || res.statusCode === 204 || res.statusCode === 304
    return without ? 0 : Math.max(0, handed - res.writableLength)
  }
}
