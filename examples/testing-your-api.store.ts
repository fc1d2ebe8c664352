// A store of your own: it stands around another and tells how long each call took, for a metric or a log. That it still is a
// store that keeps its promises is what the conformance suite in testing-your-api.test.ts says.

import type { Store } from 'rampmeter'

export function timed(inner: Store, onCall: (call: 'decide' | 'settle', ms: number) => void): Store {
  async function time<T>(call: 'decide' | 'settle', run: () => Promise<T>): Promise<T> {
    const startedAt = performance.now()
    try {
      return await run()
    } finally {
      onCall(call, performance.now() - startedAt)
    }
  }

  return {
    open(settings) {
      const handle = inner.open(settings)
      return {
        local: handle.local ?? false,
        decide: (request) => time('decide', () => handle.decide(request)),
        settle: (corrections) => time('settle', () => handle.settle(corrections)),
        reset: (partition, logs) => handle.reset(partition, logs),
        // Where processes share what `adaptive` needs; a store may have none.
        ...(handle.post && { post: handle.post.bind(handle) }),
        ready: () => handle.ready(),
        close: () => handle.close(),
      }
    },
  }
}
