import type { Response } from 'express'

/** What a handler does that makes an answer begin, or go on. */
const methods = ['writeHead', 'flushHeaders', 'write', 'end'] as const

type Method = (...args: unknown[]) => unknown

/**
 * Keeps an answer back until something is done: what the handler writes meanwhile waits, in its order, and `write` asks it to.
 *
 * @param act called once, with the status that is about to be sent. What it resolves with is done instead of the answer
 */
export function beforeFirstByte(res: Response, act: (status: number) => Promise<(() => void) | undefined>): void {
  const own = res as unknown as Record<(typeof methods)[number], Method>
  let state: 'closed' | 'waiting' | 'open' = 'closed'
  const waiting: (() => void)[] = []
  let asksToWait = false

  function begin(status: number): void {
    state = 'waiting'
    void act(status).then((instead) => {
      state = 'open'
      if (instead !== undefined) {
        instead()
        return
      }
      for (const resume of waiting) resume()
      if (asksToWait && !res.writableEnded && !res.writableNeedDrain) res.emit('drain')
    })
  }

  for (const name of methods) {
    const original = own[name].bind(res)
    own[name] = (...args) => {
      if (state === 'open') return original(...args)
      if (state === 'closed') begin(name === 'writeHead' && typeof args[0] === 'number' ? args[0] : res.statusCode)
      waiting.push(() => original(...args))
      if (name !== 'write') return res
      asksToWait = true
      return false
    }
  }
}
