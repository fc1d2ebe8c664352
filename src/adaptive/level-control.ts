import type { Health, Hint } from './health.ts'
import { judge, levelNames, type Cause, type LevelName, type Levels } from './levels.ts'

/** A level is left for a better one only this far inside its thresholds. */
const insideBy = 0.9

/** So many healthy periods lead up one level; twice as many after each time that it went wrong soon, up to the most. */
const leastHealthy = 3
const mostHealthy = 10

/** After so many periods without going down, the next way up is as short as at first. */
const forgetsAfter = 30

/** How slowly it goes up: more slowly each time that a way up was followed by a fall, so that nothing swings. */
export class Ascent {
  #needed = leastHealthy
  /** Periods since it last went up, and since it last went down. */
  #sinceUp = Infinity
  #sinceDown = Infinity

  /** For how many periods one has to be better off before it goes up one level. */
  get needed(): number {
    return this.#needed
  }

  /** Periods since the last change. */
  get since(): number {
    return Math.min(this.#sinceUp, this.#sinceDown)
  }

  /** A period is over. */
  pass(): void {
    this.#sinceUp += 1
    this.#sinceDown += 1
    if (this.#sinceDown > forgetsAfter) this.#needed = leastHealthy
  }

  fell(): void {
    if (this.#sinceUp <= 2 * mostHealthy) this.#needed = Math.min(mostHealthy, 2 * this.#needed)
    this.#sinceDown = 0
  }

  rose(): void {
    this.#sinceUp = 0
  }
}

/**
 * Goes from level to level: down at once, as far as it must; up one at a time, after several healthy periods. A way up that was
 * followed by a fall is tried more slowly the next time, so that a load which stands between two levels does not swing.
 */
export class LevelControl {
  readonly #levels: Levels
  readonly #ascent = new Ascent()
  #level: LevelName = 'normal'
  #cause: Cause | undefined
  /** Periods in a row that called for a better level. */
  #healthy = 0

  constructor(levels: Levels) {
    this.#levels = levels
  }

  get level(): LevelName {
    return this.#level
  }

  /** What brought it to its level, where that is trouble. */
  get cause(): Cause | undefined {
    return this.#cause
  }

  /** How many periods lead from the worst level to normal at most. */
  static readonly longestRecovery: number = 2 * mostHealthy

  /** Takes the health of one period. */
  step(health: Health, hint?: Hint): LevelName {
    this.#ascent.pass()
    const at = levelNames.indexOf(this.#level)
    const { level, cause } = judge(this.#levels, health, hint)
    if (levelNames.indexOf(level) < at) {
      this.#ascent.fell()
      this.#healthy = 0
      this.#cause = cause
      return (this.#level = level)
    }
    if (level === this.#level) this.#cause = cause ?? this.#cause
    const inside = levelNames.indexOf(judge(this.#levels, health, hint, insideBy).level)
    this.#healthy = inside > at ? this.#healthy + 1 : 0
    if (this.#healthy >= this.#ascent.needed) {
      this.#level = levelNames[at + 1]!
      this.#healthy = 0
      this.#ascent.rose()
      if (this.#level === 'normal') this.#cause = undefined
    }
    return this.#level
  }
}
