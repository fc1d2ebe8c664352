import { chargedBy } from '../guard.ts'
import type { Charge, Charged, ChargeOutcome, Correction, DecisionRequest, StoreDecision } from '../store.ts'
import { extraMarginUs } from '../together.ts'

/** Has requests that concern one slot decided in one call, one after the other. */
export type AskSlot = (requests: readonly DecisionRequest[]) => Promise<StoreDecision[]>

/** Names the hash slot that a partition's keys are in. */
export type SlotOf = (partition: string) => number

/** What of a request concerns one slot. */
interface Part {
  readonly request: DecisionRequest & { readonly charges: Charge[]; readonly undo: Charged[] }
  /** The places of its charges in the whole request. */
  readonly places: number[]
}

/**
 * Decides a request on a cluster, where a script reaches the keys of one slot only: one call a slot, all at once. Each charges
 * all of its part or nothing; if one of them refuses or fails, what the others charged is given back. So a request that is
 * refused may take room from another for the time of two calls, and no policy ever admits too much.
 *
 * The first minutes' extra stands in for charges of its own slot alone, and counts as begun when its own slot admits.
 *
 * @throws what the call of a slot throws, after the others have given back
 */
export async function decideAcrossSlots(
  request: DecisionRequest,
  slotOf: SlotOf,
  ask: AskSlot,
): Promise<StoreDecision> {
  // A look gives nothing back.
  const { charges, undo, commit } = request.commit ? request : { ...request, undo: [] }
  if (isOfOnePartition(charges, undo)) return (await ask([{ charges, undo, commit }]))[0]!
  const parts = partsOf({ charges, undo, commit }, slotOf)
  if (parts.length === 1) return (await ask([parts[0]!.request]))[0]!

  const answers = await Promise.allSettled(parts.map(async (part) => (await ask([part.request]))[0]!))
  const failure = answers.find((answer) => answer.status === 'rejected')
  const decisions = answers.map((answer) => (answer.status === 'fulfilled' ? answer.value : undefined))
  if (failure === undefined && decisions.every((decision) => decision!.admitted)) {
    return together(parts, decisions as StoreDecision[], 0)
  }
  const settled = await Promise.all(
    parts.map(async (part, index) => {
      const decision = decisions[index]
      return decision && (await giveBack(part, decision, ask))
    }),
  )
  if (failure !== undefined) throw failure.reason
  return together(parts, settled as StoreDecision[], untilAllFit(parts, settled as StoreDecision[]))
}

/** As most requests are: then no slot has to be computed. */
function isOfOnePartition(charges: readonly Charge[], undo: readonly Charged[]): boolean {
  const first = (charges[0] ?? undo[0]?.charge)?.partition
  return charges.every(({ partition }) => partition === first) && undo.every(({ charge }) => charge.partition === first)
}

function partsOf({ charges, undo, commit }: DecisionRequest, slotOf: SlotOf): Part[] {
  const parts = new Map<number, Part>()
  const partOf = ({ partition }: Charge): Part => {
    const slot = slotOf(partition)
    let part = parts.get(slot)
    if (part === undefined) parts.set(slot, (part = { request: { charges: [], undo: [], commit }, places: [] }))
    return part
  }
  charges.forEach((charge, place) => {
    const part = partOf(charge)
    part.request.charges.push(charge)
    part.places.push(place)
  })
  for (const charged of undo) partOf(charged.charge).request.undo.push(charged)
  return [...parts.values()]
}

/**
 * Gives back what a slot charged, and tells how it stands then. If that cannot be done the charge stays until it leaves its
 * window: what was asked may have been done.
 */
async function giveBack({ request }: Part, decision: StoreDecision, ask: AskSlot): Promise<StoreDecision> {
  const made = chargedBy(request, decision).filter(({ cost }) => cost > 0)
  if (made.length === 0) return decision
  const undoing = { charges: [], undo: made, commit: true }
  const looking = { ...request, undo: [], commit: false }
  return await ask([undoing, looking]).then(
    ([, look]) => look!,
    () => decision,
  )
}

/** The slots' decisions as one. Its time is that of the first charge's slot; outcomes of others tell their own. */
function together(
  parts: readonly Part[],
  decisions: readonly StoreDecision[],
  retryAfterUs: number | null,
): StoreDecision {
  const { nowUs } = decisions[0]!
  const outcomes: ChargeOutcome[] = []
  decisions.forEach((decision, index) => {
    const { places } = parts[index]!
    decision.outcomes.forEach((outcome, at) => {
      outcomes[places[at]!] = decision.nowUs === nowUs ? outcome : { ...outcome, atUs: decision.nowUs }
    })
  })
  return { admitted: retryAfterUs === 0, nowUs, retryAfterUs, outcomes }
}

/**
 * The longest wait of the slots that refused, and where the first minutes will be over by then, as long as what they now stand
 * in for needs without them.
 */
function untilAllFit(parts: readonly Part[], decisions: readonly StoreDecision[]): number | null {
  const waitUs = longest(decisions.map(({ retryAfterUs }) => retryAfterUs))
  if (waitUs === null) return null
  const unlifted = decisions.flatMap(({ outcomes }, index): (number | null)[] => {
    const lifted = outcomes.filter(({ verdict }) => verdict === 'lifted')
    if (lifted.length === 0) return []
    const { charges } = parts[index]!.request
    const at = charges.findIndex(({ kind }) => kind === 'first-minutes')
    const { windowUs, capacity: renewalUs } = charges[at]!
    // 0 where they have not begun: then they lift whenever the request comes.
    const renewsInUs = outcomes[at]!.resetUs
    if (renewsInUs === 0 || waitUs + extraMarginUs < renewsInUs - renewalUs + windowUs) return []
    const longestUs = longest(lifted.map((outcome) => outcome.waitUs))
    return [longestUs === null ? null : Math.min(longestUs, renewsInUs)]
  })
  return longest([waitUs, ...unlifted])
}

/** The longest of some waits, of which null is the longest. */
function longest(waits: readonly (number | null)[]): number | null {
  return waits.includes(null) ? null : Math.max(...(waits as number[]))
}

/** Corrections, apart by the slot they fall into, in their order. */
export function correctionsBySlot(corrections: readonly Correction[], slotOf: SlotOf): Correction[][] {
  const bySlot = new Map<number, Correction[]>()
  for (const correction of corrections) {
    const slot = slotOf(correction.charged.charge.partition)
    const others = bySlot.get(slot)
    if (others === undefined) bySlot.set(slot, [correction])
    else others.push(correction)
  }
  return [...bySlot.values()]
}
