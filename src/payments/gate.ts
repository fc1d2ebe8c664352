import type { Response } from 'express'

/** What a handler does that makes an answer begin, or go on. */
const methods = ['writeHead', 'flushHeaders', 'write', 'end'] as const

/** What it does to the head of an answer. */
const ofHead = ['setHeader', 'appendHeader', 'removeHeader'] as const

type Method = (...args: unknown[]) => unknown

/** What was done before an answer: header fields that it is to have, or what is answered in its stead. */
export interface BeforeAnswer {
  readonly fields?: Readonly<Record<string, string>> | undefined
  readonly instead?: () => void
}

/**
 * Keeps an answer back until something is done: what the handler writes meanwhile waits, in its order, and `write` asks it to. As
 * far as the handler can tell the answer has begun. Once it has ended, whatever else is done to it is left out: the head has not left
 * yet, and a late mistake of the handler's, or Express's answer to that, would be written into it.
 *
 * @param act called once, with the status that is about to be sent
 */
export function beforeFirstByte(res: Response, act: (status: number) => Promise<BeforeAnswer>): void {
  const own = res as unknown as Record<(typeof methods)[number] | (typeof ofHead)[number], Method>
  let state: 'closed' | 'waiting' | 'open' = 'closed'
  const waiting: (() => void)[] = []
  let asksToWait = false
  let isEnded = false
  let isReplaced = false

  function begin(status: number): void {
    state = 'waiting'
    const { statusCode, statusMessage } = res
    const decided = act(status).then(({ fields = {}, instead }) => {
      state = 'open'
      if (instead !== undefined) {
        isReplaced = true
        instead()
        return
      }
      Object.assign(res, { statusCode, statusMessage })
      for (const [name, value] of Object.entries(fields)) res.setHeader(name, value)
      for (const resume of waiting) resume()
      if (asksToWait && !res.writableEnded && !res.writableNeedDrain) res.emit('drain')
    })
    // A provider of the app's that gives a field no response can have, or a refusal of its own that throws: no answer, but no crash.
    decided.catch(() => res.destroy())
  }

  /** The handler has ended its answer, or another was given in its stead, which it cannot know. */
  const isOver = (): boolean => (state === 'waiting' && isEnded) || (isReplaced && res.writableEnded)

  for (const name of methods) {
    const original = own[name].bind(res)
    own[name] = (...args) => {
      const isLeftOut = isOver()
      if (state === 'open' && !isLeftOut) return original(...args)
      if (state === 'closed') begin(name === 'writeHead' && typeof args[0] === 'number' ? args[0] : res.statusCode)
      if (!isLeftOut) waiting.push(() => original(...args))
      if (name === 'end') isEnded = true
      if (name !== 'write') return res
      asksToWait = true
      return false
    }
  }

  for (const name of ofHead) {
    const original = own[name].bind(res)
    own[name] = (...args) => {
      if (isOver()) return res
      if (state !== 'waiting') return original(...args)
      throw Object.assign(new Error('the answer has begun, so that its header fields cannot be changed any more'), {
        code: 'ERR_HTTP_HEADERS_SENT',
      })
    }
  }

  const prototype = Object.getPrototypeOf(res) as object
  Object.defineProperty(res, 'headersSent', {
    configurable: true,
    get: () => (state === 'waiting' && !isEnded) || Reflect.get(prototype, 'headersSent', res),
  })
}
