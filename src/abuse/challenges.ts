import { Recent } from '../recent.ts'

/** Who was challenged and asks again so soon, in µs, does not heed it; later, it may as well be a visitor who tries again. */
const soonUs = 5_000_000
/** What comes so soon after the first challenge was sent before that can have been read, in µs. */
const underWayUs = 1_000_000
/** A stranger that did nothing wrong for so long, in µs, holds its address to nothing. */
const offenceLastsUs = 3_600_000_000

interface Challenged {
  firstUs: number
  lastUs: number
}

/** Who goes on against a challenge, as this process has seen it. */
export class Challenges {
  readonly #challenged = new Recent<string, Challenged>({ max: 10_000 })
  readonly #offences = new Recent<string, number>({ max: 10_000 })

  /** Notes that one of those who share an address did something that counts against it. */
  offended(clientId: string, tag: number, nowUs: number): void {
    this.#offences.set(`${clientId} ${tag}`, nowUs)
  }

  /**
   * Notes a challenge, and says whether an earlier one was ignored.
   *
   * @param stranger it shares its address with others, whom a challenge is told as well: only those who brought it about ignore it
   */
  isIgnored(clientId: string, tag: number, nowUs: number, stranger: boolean): boolean {
    const who = `${clientId} ${tag}`
    const known = this.#challenged.get(who)
    if (known === undefined || Math.abs(nowUs - known.lastUs) > soonUs) {
      this.#challenged.set(who, { firstUs: nowUs, lastUs: nowUs })
      return false
    }
    known.lastUs = nowUs
    if (nowUs - known.firstUs <= underWayUs) return false
    if (!stranger) return true
    const offenceUs = this.#offences.get(who)
    return offenceUs !== undefined && nowUs - offenceUs <= offenceLastsUs
  }
}
