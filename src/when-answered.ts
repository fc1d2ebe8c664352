import type { Response } from 'express'

/** Does something when a handler answers a client that has gone, before it does. */
export function whenAnswered(res: Response, act: () => void): void {
  const end = res.end.bind(res)
  res.end = function answered(...args: Parameters<Response['end']>) {
    res.end = end
    act()
    return end(...args)
  } as Response['end']
}
