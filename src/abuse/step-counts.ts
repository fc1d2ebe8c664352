import { steps, type Step } from '../standing.ts'

type Counted = Record<Exclude<Step, 'allow'>, number>

/** How many requests met which step, in this process since it began. */
export interface StepCounts {
  /** The step was taken. */
  readonly taken: Readonly<Counted>
  /** It would have been: the step, or all of it, is in shadow. */
  readonly shadow: Readonly<Counted>
}

export function noSteps(): { taken: Counted; shadow: Counted } {
  const none = (): Counted => ({ throttle: 0, challenge: 0, deny: 0, suspend: 0 })
  return { taken: none(), shadow: none() }
}

/** Counts a request by the step that it met, and by the one above it that is in shadow. */
export function countStep(
  counts: ReturnType<typeof noSteps>,
  { step, shadow }: { readonly step: Step; readonly shadow?: Step },
  isTaken: boolean,
): void {
  if (isTaken && step !== 'allow') counts.taken[step] += 1
  const untaken = shadow ?? (isTaken ? 'allow' : step)
  if (untaken !== 'allow') counts.shadow[untaken] += 1
}

/** The step of an observation that is taken, and the one that is reached where it is in shadow. */
export function stepsOf(reached: number, taken: number): { step: Step; shadow?: Step } {
  return { step: steps[taken]!, ...(taken !== reached && { shadow: steps[reached]! }) }
}
