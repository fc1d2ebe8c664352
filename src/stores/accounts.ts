import type { Charge } from './store.ts'
import { historyOf, type CreditsState } from './credits.ts'
import { Account, accountOf, type LedgerStore } from './ledger.ts'

/** The accounts in this process. Only who is granted credits, or bought some, has one, so no outsider can fill them. */
export class Accounts {
  readonly #accounts = new Map<string, Account>()

  /** @param looking nothing is changed, not even by time */
  open(charge: Charge, now: number, looking: boolean): CreditsState {
    const account = this.#accounts.get(accountOf(charge.partition)!) ?? new Account()
    return { account: looking ? account : account.open(now, historyOf(charge)), charged: false }
  }

  keep(charge: Charge, { account }: CreditsState): void {
    this.#accounts.set(accountOf(charge.partition)!, account)
  }

  /** @param clock the store's time, in µs */
  ledger(clock: () => number): LedgerStore {
    return {
      ask: async (name, call, history) => {
        const now = clock()
        const known = this.#accounts.get(name)
        const account = known ?? new Account()
        const answer = account.open(now, history).do(call, now)
        const remembers = answer.id !== undefined || call.does === 'cancel' || (call.does === 'take-back' && call.early)
        if (known === undefined && remembers) this.#accounts.set(name, account)
        return answer
      },
      history: async (name, asked) => this.#accounts.get(name)?.open(clock(), Infinity).history(asked) ?? [],
      dangers: async () => [],
    }
  }
}
