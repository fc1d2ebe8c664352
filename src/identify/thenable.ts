/**
 * Tells an answer that is still to come from one that is there, so that what can be told at once costs no turn of the queue.
 * Anything with a `then` is one, as for `await`: Bluebird's promises and Mongoose's queries are no `Promise`.
 */
export function isThenable<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function'
}
