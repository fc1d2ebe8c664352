import { membersOf, type Algorithm, type Limit } from '../policies/algorithm.ts'
import { Account } from './ledger.ts'

/** What a charge of credits finds. */
export interface CreditsState {
  readonly account: Account
  /** It was charged by this decision. */
  charged: boolean
}

interface Members {
  readonly charge: string
  /** For how long it is only held, in µs; 0 to spend it at once. */
  readonly forUs: number
  /** How many movements an account's history keeps. */
  readonly history: number
}

function read(limit: Limit): Members {
  const [charge, forUs, history] = membersOf(limit)
  return { charge: charge!, forUs: Number(forUs), history: Number(history) }
}

/** How many movements the history keeps of an account that a limit is about. */
export function historyOf(limit: Limit): number {
  return read(limit).history
}

/** The twin of lua/lib/credits.lua. An account is no counter of a partition: the store keeps it apart. */
export const creditsAlgorithm: Algorithm<CreditsState> = {
  open: (stored) => stored ?? { account: new Account(), charged: false },

  earliest: (state, limit, now, cost) =>
    state.charged || state.account.has(read(limit).charge, cost, now) ? now : Infinity,

  remaining: ({ account }) => account.totals.available,

  charge(state, limit, now, cost) {
    const { charge, forUs } = read(limit)
    state.charged = true
    state.account.charge(charge, cost, forUs, now)
    return 0
  },

  refund(state, limit, now) {
    state.account.cancel(read(limit).charge, now)
  },

  // What is held stands in the place of when nothing used counts any more: credits come back at no time of their own.
  expires: ({ account }, _limit, now) => now + account.totals.held,
}
