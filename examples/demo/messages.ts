// What the processes of the demo tell one another, over Node's own channel between parent and child.

export type GuardName = 'rampmeter' | 'fixed-window'

/** From the API, once it listens. */
export interface Listening {
  readonly kind: 'listening'
  readonly url: string
}

/** From a reader, once it is loaded: it waits for `Go`, so that all begin together. */
export interface Ready {
  readonly kind: 'ready'
}

/** To a reader. */
export interface Go {
  readonly kind: 'go'
  /** When the run began, as `Date.now()` gives it. */
  readonly startedAt: number
  /** Where the API is. */
  readonly api: string
}

/** To a reader: say how far you are. What ends a process is that the channel to it is closed. */
export interface HowFar {
  readonly kind: 'how far'
}

/** One answer of the API, as whoever asked saw it. */
export interface Reply {
  readonly kind: 'reply'
  /** In ms since the run began. */
  readonly at: number
  /** 0 where no answer came. */
  readonly status: number
  /** How long it took from its first refusal to this try; 0 for what was never refused. */
  readonly waitedMs: number
  /** Of a retry: how long its last refusal said to wait, and how long it waited. */
  readonly returned?: { readonly toldMs: number; readonly afterMs: number }
  /** Of a refusal. */
  readonly said?: Said
}

/** What a refusal said. */
export interface Said {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
  /** How long to wait, as a program understands it; null where it is not said. */
  readonly toldMs: number | null
}

/** How far somebody came with what they set out to do. */
export interface Progress {
  readonly kind: 'progress'
  readonly done: number
  readonly of: number
  /** In ms since the run began; null while there is something to do. */
  readonly finishedAt: number | null
  /** Refused so often that they were given up. */
  readonly gaveUp: number
  /** For how long the one that was refused first has waited by now, and how much longer it was told to. */
  readonly waiting: { readonly forMs: number; readonly moreMs: number } | null
}

/** From a reader, once it has read all it could. */
export interface Settled {
  readonly kind: 'settled'
}

export type FromChild = Listening | Ready | Reply | Progress | Settled
export type ToReader = Go | HowFar
