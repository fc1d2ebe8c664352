/** The shortest and the longest wait, in ms; told is one to two of them, so that not all come at once. */
const shortestMs = 1000
const longestMs = 16_000

/** Where more than the first part of those who come back is refused, others are told to wait longer; below the second, less long. */
const tooMany = 0.2
const few = 0.1
const longer = 1.5
const shorter = 0.8

/** Fewer say nothing. */
const leastAsked = 5

/** Who comes this long after it was told to, in ms, has come as told. */
const graceMs = 5000

/** Of so many it is remembered when they were told to come. */
const mostRemembered = 10_000

/** How many came and how many of them were refused. */
interface Tally {
  asked: number
  refused: number
}

/** What those of one tier are told. */
interface Wait {
  ms: number
  readonly back: Tally
  readonly all: Tally
  since: number
}

/**
 * When those for whom there was no place may come again: so late that most of those who do get in. A tier that is refused more
 * waits longer, so it is one of higher priority that waits least.
 *
 * It is an estimate: nobody keeps a place. But who comes as told has waited, and goes before those of its tier who come newly.
 */
export class Waits {
  readonly #waits = new Map<string, Wait>()
  /** When a client was told to come, in ms; the longest ago first. */
  readonly #told = new Map<string, number>()
  readonly #random: () => number

  constructor(random: () => number = Math.random) {
    this.#random = random
  }

  /** Whether a client comes as it was told to. That counts once. */
  isBack(clientId: string, now: number): boolean {
    const at = this.#told.get(clientId)
    if (at === undefined || now < at) return false
    this.#told.delete(clientId)
    return now <= at + graceMs
  }

  /** Somebody of a tier has come. */
  note(tier: string, isBack: boolean, fits: boolean, now: number): void {
    let wait = this.#waits.get(tier)
    if (wait === undefined) {
      // There is nothing to say to a tier of which nobody was refused.
      if (fits) return
      wait = { ms: shortestMs, back: { asked: 0, refused: 0 }, all: { asked: 0, refused: 0 }, since: now }
      this.#waits.set(tier, wait)
    }
    const forMs = now - wait.since
    if (forMs >= wait.ms) adapt(wait, forMs, now)
    for (const tally of isBack ? [wait.all, wait.back] : [wait.all]) {
      tally.asked += 1
      if (!fits) tally.refused += 1
    }
  }

  /** What is told to a client for whom there is no place, in ms. */
  tell(tier: string, clientId: string, now: number): number {
    const ms = Math.floor((this.#waits.get(tier)?.ms ?? shortestMs) * (1 + this.#random()))
    this.#told.delete(clientId)
    if (this.#told.size >= mostRemembered) this.#told.delete(this.#told.keys().next().value!)
    this.#told.set(clientId, now + ms)
    return ms
  }
}

function adapt(wait: Wait, forMs: number, now: number): void {
  // Of those who do not come as told nothing can be made but less.
  const { asked, refused } = wait.back.asked >= leastAsked ? wait.back : wait.all
  // Nobody came for so long that it is another time.
  if (forMs > 2 * longestMs) wait.ms = shortestMs
  else if (asked >= leastAsked && refused > asked * tooMany) wait.ms = Math.min(longestMs, wait.ms * longer)
  else if (refused <= asked * few) wait.ms = Math.max(shortestMs, wait.ms * shorter)
  for (const tally of [wait.back, wait.all]) Object.assign(tally, { asked: 0, refused: 0 })
  wait.since = now
}
