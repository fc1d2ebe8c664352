import { randomBytes } from 'node:crypto'
import type { Health, Hint } from './health.ts'
import { Ascent, LevelControl } from './level-control.ts'
import { levelNames, type Cause, type LevelName, type Levels } from './levels.ts'

/** Posts a number where all processes see it, and tells those of all that live. */
export type Post = (entry: string, value: number, ttlMs: number) => Promise<readonly number[]>

/** What a process is in: its level, what that multiplies quotas by, and why. */
interface State {
  readonly level: LevelName
  readonly multiplier: number
  readonly cause: Cause | undefined
}

/**
 * What a process posts: its own state, and the best level to which it would let all of them go by its next post. Where it is well
 * and held back, the cause is what it was held back for.
 */
interface Posted extends State {
  readonly mayRiseTo: number
}

/**
 * What travels is one whole number: the multiplier in its last six digits, then one digit each for the level, the cause and the
 * level to which all may rise.
 */
const perUnit = 10_000
const perLevel = 1_000_000
const perCause = 10_000_000
const perRise = 100_000_000
const causes: readonly (Cause | undefined)[] = [undefined, 'latency', 'errors', 'eventLoop', 'cpu']

const best = levelNames.length - 1

/** A process that says nothing for so many periods has none. */
const periodsToLive = 3

/**
 * The level that all processes of an app share: the worst that any of them is in. Each posts its own with an expiry and reads
 * those of all, so nobody leads, and one that dies drops out. Without the others it goes by its own.
 *
 * It falls at once and rises one level at a time, no sooner than each process by itself: the worst one may be gone because
 * it has crashed, and come back as bad. Each remembers for itself how often that went wrong, so they rise when the slowest of them
 * would: all tell the same quota.
 */
export class SharedLevel {
  readonly #levels: Levels
  readonly #everyMs: number
  readonly #post: Post | undefined
  readonly #own: LevelControl
  readonly #ascent = new Ascent()
  readonly #entry = randomBytes(12).toString('base64url')
  /** All are better off than what is in force. */
  #hasBetter = false
  #state: State = { level: 'normal', multiplier: 1, cause: undefined }

  constructor(levels: Levels, everyMs: number, post: Post | undefined) {
    this.#levels = levels
    this.#everyMs = everyMs
    this.#post = post
    this.#own = new LevelControl(levels)
  }

  /** What is in force. */
  get multiplier(): number {
    return this.#state.multiplier
  }

  get level(): LevelName {
    return this.#state.level
  }

  /** Why, where it is trouble; also where another process is in it. */
  get cause(): Cause | undefined {
    return this.#state.cause
  }

  /** What this process is in by itself. */
  get ownLevel(): LevelName {
    return this.#own.level
  }

  /** Takes this process's health of one period, and brings it together with that of the others. */
  async step(health: Health, hint?: Hint): Promise<void> {
    this.#own.step(health, hint)
    this.#ascent.pass()
    const all = await this.#share()
    this.#moveTowards(worstOf(all), Math.min(...all.map(({ mayRiseTo }) => mayRiseTo)))
  }

  /** Starts where the others are: that is no fall, after which it would hold them down. */
  async join(): Promise<void> {
    const all = await this.#share()
    const worst = worstOf(all)
    // They may all be well, and on their way up.
    const slowest = all.reduce((least, one) => (one.mayRiseTo < least.mayRiseTo ? one : least))
    const level = levelNames[slowest.mayRiseTo]!
    const held = { level, multiplier: Math.min(worst.multiplier, this.#levels[level].multiplier), cause: slowest.cause }
    const start = slowest.mayRiseTo < levelNames.indexOf(worst.level) ? held : worst
    if (isWorse(start, this.#state)) this.#state = start
  }

  /** Takes this process off, so that the others need not wait until it drops out. */
  async leave(): Promise<void> {
    await this.#ask({ level: 'normal', multiplier: 1, cause: undefined, mayRiseTo: 0 }, 0)
  }

  /** Posts what this process is in, and tells what all of them are in, itself too. */
  async #share(): Promise<readonly Posted[]> {
    const { level, cause = this.cause } = this.#own
    const isDueNext = this.#ascent.since + 1 >= this.#ascent.needed
    const mayRiseTo = Math.min(best, levelNames.indexOf(this.level) + (isDueNext ? 1 : 0))
    const own = { level, multiplier: this.#levels[level].multiplier, cause, mayRiseTo }
    const posted = await this.#ask(own, periodsToLive * this.#everyMs)
    return [own, ...posted.filter((value) => value > 0).map(read)]
  }

  #moveTowards(worst: State, mayRiseTo: number): void {
    const [from, to] = [levelNames.indexOf(this.level), levelNames.indexOf(worst.level)]
    const better = to === from ? worst.multiplier > this.multiplier : to > from
    if (!better) {
      // Also where it comes back before anything has risen.
      if (this.#hasBetter || to < from || worst.multiplier < this.multiplier) this.#ascent.fell()
      this.#hasBetter = false
      this.#state = worst
      return
    }
    this.#hasBetter = true
    const next = Math.min(to, from + 1)
    if (this.#ascent.since < this.#ascent.needed || mayRiseTo < next) return
    this.#ascent.rose()
    const level = levelNames[next]!
    const isThere = level === worst.level
    this.#hasBetter = !isThere
    this.#state = {
      level,
      multiplier: isThere ? worst.multiplier : Math.min(worst.multiplier, this.#levels[level].multiplier),
      // On its way up it is where it is for what it was.
      cause: isThere ? worst.cause : this.cause,
    }
  }

  async #ask(state: Posted, ttlMs: number): Promise<readonly number[]> {
    try {
      return (await within(this.#everyMs, this.#post?.(this.#entry, written(state), ttlMs))) ?? []
    } catch {
      // The store is away, which is told where decisions miss it.
      return []
    }
  }
}

/** The worst level of all, and the least multiplier: processes may be told different ones for the same level. */
function worstOf(all: readonly State[]): State {
  const worst = all.reduce((least, one) => (isWorse(one, least) ? one : least))
  const { level, cause } = worst
  const isInTrouble = level === 'stressed' || level === 'warm'
  return {
    level,
    multiplier: Math.min(...all.map(({ multiplier }) => multiplier)),
    cause: isInTrouble ? cause : undefined,
  }
}

function isWorse(one: State, other: State): boolean {
  const by = levelNames.indexOf(one.level) - levelNames.indexOf(other.level)
  return by === 0 ? one.multiplier < other.multiplier : by < 0
}

function written({ level, multiplier, cause, mayRiseTo }: Posted): number {
  const posted = levelNames.indexOf(level) * perLevel + Math.round(multiplier * perUnit)
  return mayRiseTo * perRise + causes.indexOf(cause) * perCause + posted
}

function read(value: number): Posted {
  return {
    mayRiseTo: Math.min(best, Math.floor(value / perRise)),
    cause: causes[Math.floor(value / perCause) % 10],
    level: levelNames[Math.floor(value / perLevel) % 10] ?? 'stressed',
    multiplier: (value % perLevel) / perUnit,
  }
}

/** Waits no longer than so many ms; then nothing was answered. */
export async function within<T>(ms: number, work: T | Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, ms, undefined)
    timer.unref()
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}
