import * as z from 'zod'
import { RampmeterError } from '../errors.ts'
import { readOptions } from '../read-options.ts'
import type { Ladder, LadderStep, Step } from '../standing.ts'
import { never, steps } from '../standing.ts'

const preset: Ladder = [
  { step: 'throttle', above: 20, below: 10, share: 0.5 },
  { step: 'challenge', above: 40, below: 25 },
  { step: 'deny', above: 60, below: 40 },
  { step: 'suspend', above: 100, below: 60 },
]

const whatItIs = z.strictObject({
  above: z.number().min(1).max(200),
  below: z.number().min(0).max(200),
  share: z.number().min(0.01).max(1).optional(),
  mode: z.enum(['enforce', 'shadow']).optional(),
  price: z.strictObject({ credits: z.int().min(1).max(1e12) }).optional(),
})

/** The schema of a rung. */
export const rungSchema: z.ZodObject = whatItIs.extend({
  step: z.enum(steps.slice(1) as ['throttle', 'challenge', 'deny', 'suspend']),
})

const changesSchema = whatItIs.partial()

/**
 * What is done at which score: plain data. Each step is taken from `above` on and left below `below`.
 *
 * @param changes by the names of steps, what is to be different
 *
 * @throws {RampmeterError} `RAMPMETER_UNKNOWN_OPTION`, `RAMPMETER_INVALID_OPTION`
 */
export function presetLadder(
  changes: Partial<Record<LadderStep['step'], Partial<Omit<LadderStep, 'step'>>>> = {},
): LadderStep[] {
  for (const [name, change] of Object.entries(Object(changes) as Record<string, unknown>)) {
    if (!preset.some(({ step }) => step === name)) {
      throw new RampmeterError(
        'RAMPMETER_UNKNOWN_OPTION',
        `presetLadder: there is no step "${name}"; there are ${preset.map(({ step }) => step).join(', ')}`,
      )
    }
    if (change !== undefined) readOptions(changesSchema, change, `presetLadder: "${name}"`)
  }
  const ladder = preset.map((rung) => ({ ...rung, ...changes[rung.step] }))
  for (const rung of ladder) {
    const mistake = upsideDown(rung)
    if (mistake !== undefined) throw new RampmeterError('RAMPMETER_INVALID_OPTION', `presetLadder: ${mistake}`)
  }
  return ladder
}

/**
 * Sees to it that a ladder is used.
 *
 * @throws {RampmeterError} `RAMPMETER_ABUSE_NOT_CONFIGURED`
 */
export function checkLadder({ ladder }: { readonly ladder: Ladder | undefined }, abuse: unknown, what: string): void {
  if (ladder === undefined || abuse !== undefined) return
  throw new RampmeterError(
    'RAMPMETER_ABUSE_NOT_CONFIGURED',
    `${what} has a \`ladder\`, and this limiter keeps no scores, so that it would do nothing; give the limiter \`abuse: {}\``,
  )
}

/**
 * Sees to it that somebody takes the payment that a ladder asks for.
 *
 * @throws {RampmeterError} `RAMPMETER_PAYMENTS_MISSING`
 */
export function checkLadderPrice(ladder: Ladder | undefined, hasProviders: boolean, what: string): void {
  if (hasProviders || ladder?.every(({ price }) => price === undefined) !== false) return
  throw new RampmeterError(
    'RAMPMETER_PAYMENTS_MISSING',
    `${what} has a \`price\` at "challenge", and the limiter has no \`payments\` with a provider, so nobody could pay it; write payments: { providers: [x402({ … })] }, or leave the price out`,
  )
}

/** What a payment costs that answers a challenge, on a route without a price; undefined where none does. */
export function challengePrice(ladder: Ladder): LadderStep['price'] {
  return ladder.find(({ step, mode }) => step === 'challenge' && mode !== 'shadow')?.price
}

/** A ladder as stores take it: scores in thousandths of a point. */
export interface LadderNumbers {
  readonly ladder: readonly number[]
  /** In thousandths. */
  readonly share: number
  /** Steps that are not taken, as bits. */
  readonly idle: number
}

export function numbersOf(ladder: Ladder): LadderNumbers {
  const numbers = steps.slice(1).flatMap((step) => {
    const rung = ladder.find((one) => one.step === step)
    return rung === undefined ? [never, never] : [Math.round(rung.above * 1000), Math.round(rung.below * 1000)]
  })
  const [throttle, challenge] = ['throttle', 'challenge'].map((step) => ladder.find((one) => one.step === step))
  const share = throttle === undefined ? (challenge?.share ?? 0.5) : (throttle.share ?? 0.5)
  const idle = steps.slice(1).reduce((bits, step, place) => (isLive(ladder, step) ? bits : bits + 2 ** place), 0)
  return { ladder: numbers, share: Math.round(share * 1000), idle }
}

function isLive(ladder: Ladder, step: Step): boolean {
  return ladder.some((rung) => rung.step === step && rung.mode !== 'shadow')
}

/** Below which score a client is let in that a step refuses: that step, or a lower one that refuses it as well. 0 where none does. */
export function letInBelow(ladder: Ladder, answered: boolean): number {
  const refusing = ladder.filter(
    ({ step, mode }) =>
      mode !== 'shadow' && (step === 'deny' || step === 'suspend' || (step === 'challenge' && !answered)),
  )
  return refusing.length === 0 ? 0 : Math.min(...refusing.map(({ below }) => below))
}

function upsideDown({ step, above, below }: LadderStep): string | undefined {
  if (below < above) return undefined
  return `the step "${step}" is taken at ${above} and left below ${below}; write a \`below\` that is less than \`above\``
}

/** What is wrong with a ladder, in words. */
export function mistakeIn(ladder: Ladder): string | undefined {
  let last: LadderStep | undefined
  for (const rung of ladder) {
    const mistake = upsideDown(rung)
    if (mistake !== undefined) return mistake
    if (rung.share !== undefined && rung.step !== 'throttle' && (rung.step !== 'challenge' || last !== undefined))
      return `the step "${rung.step}" has a \`share\`, which only "throttle" leaves, or "challenge" without it`
    if (rung.price !== undefined && rung.step !== 'challenge')
      return `the step "${rung.step}" has a \`price\`, which only "challenge" takes`
    if (last !== undefined && steps.indexOf(rung.step) <= steps.indexOf(last.step))
      return `the step "${rung.step}" comes after "${last.step}"; write them in the order ${steps.slice(1).join(', ')}`
    if (last !== undefined && rung.above < last.above)
      return `the step "${rung.step}" is taken at ${rung.above}, before "${last.step}"`
    last = rung
  }
  return undefined
}

/** Steps that nobody takes: of a limiter that keeps no scores. */
export const noLadder: LadderNumbers = { ladder: Array.from({ length: 8 }, () => never), share: 1000, idle: 15 }
