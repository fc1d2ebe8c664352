import type { ClusterClient } from './client.ts'

/** What a connection writes to. */
interface Writable {
  cork(): void
  uncork(): void
}

/**
 * Has what a turn of the event loop sends to the nodes of a cluster written at once for each: of a command that is sent alone,
 * most of the cost is the write. Keys of different slots cannot travel in one call, so that is what batching comes to there.
 */
export class Corks {
  readonly #cluster: ClusterClient
  #corked: Writable[] | undefined

  constructor(cluster: ClusterClient) {
    this.#cluster = cluster
  }

  /** To be called before a command is sent; what follows in this turn is written with it. */
  forTurn(): void {
    if (this.#corked !== undefined) return
    this.#corked = this.#cluster.nodes('master').flatMap(({ stream }) => stream ?? [])
    for (const stream of this.#corked) stream.cork()
    setImmediate(() => {
      const corked = this.#corked!
      this.#corked = undefined
      for (const stream of corked) stream.uncork()
    })
  }
}
