import { membersOf, type Algorithm } from './algorithm.ts'

/**
 * What is known of a proof that admits one request. Its charge's two members are the proof's name and who shows it: the request that
 * used it up may show it again, to a limiter further in.
 */
export interface SingleUseState {
  /** The request that used it; undefined where none did. */
  holder: string | undefined
  /** Until when it is remembered, in µs. */
  until: number
  /** When there is room to remember another, in µs; undefined where there is. */
  readonly fullUntil: number | undefined
}

function isSpent({ holder }: SingleUseState, asker: string | undefined): boolean {
  return holder !== undefined && holder !== asker
}

/** The twin of lua/lib/single-use.lua. Where states are kept is the store's affair: a proof is no counter of a partition. */
export const singleUseAlgorithm: Algorithm<SingleUseState> = {
  open: (stored) => stored ?? { holder: undefined, until: 0, fullUntil: undefined },

  earliest(state, limit, now) {
    if (isSpent(state, membersOf(limit)[1])) return Infinity
    return state.holder === undefined && state.fullUntil !== undefined ? Math.max(now + 1, state.fullUntil) : now
  },

  remaining: (state, limit) => (isSpent(state, membersOf(limit)[1]) ? 0 : 1),

  charge(state, limit, now) {
    state.holder = membersOf(limit)[1]
    state.until = now + limit.windowUs
    return 0
  },

  refund(state, limit) {
    if (!isSpent(state, membersOf(limit)[1])) state.holder = undefined
  },

  expires: (_state, _limit, now) => now,
}
