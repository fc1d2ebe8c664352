/** What messages call a store, so that one is told from another. No credentials. */
export interface StoreName {
  /** `redis`, `redis-sentinel`, `redis-cluster`; of a store of the app's what it likes. */
  readonly kind: string
  /** Hosts and ports, as they were given. */
  readonly address: string
  /** What the names of its keys begin with. */
  readonly prefix: string
}
