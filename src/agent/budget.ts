import type { RetryBudgetOptions } from './options.ts'

/** What keeps retries from becoming the traffic: served requests pay for them. */
export interface RetryBudget {
  /** A request was served. */
  earn(): void
  /** Takes one retry, if there is one left. */
  take(): boolean
}

/** Enough for a bad minute, and not what months of good service would add up to. */
const servedThatCount = 100

export function createBudget({ share, reserve }: Required<RetryBudgetOptions>): RetryBudget {
  const most = reserve + servedThatCount * share
  let saved = reserve
  return {
    earn() {
      saved = Math.min(most, saved + share)
    },
    take() {
      if (saved < 1) return false
      saved -= 1
      return true
    },
  }
}
