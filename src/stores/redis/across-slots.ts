import { chargedBy, takenBack } from '../guard.ts'
import type { Charge, Charged, ChargeOutcome, Correction, DecisionRequest, StoreDecision } from '../store.ts'
import { reachOf } from '../../policies/schedule.ts'
import { extraMarginUs, givenBack } from '../together.ts'
import type { GiveBacks } from './give-backs.ts'

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

/** How the slots are reached. */
export interface Slots {
  readonly slotOf: SlotOf
  readonly ask: AskSlot
  readonly giveBacks: GiveBacks
  /** What is decided apart within one slot. Default: nothing. */
  readonly groupOf?: ((charge: Charge) => string) | undefined
}

/**
 * Decides a request on a cluster, where a script reaches the keys of one slot only: one call a slot, all at once. Each charges
 * all of its part or nothing; if one of them refuses or fails, what the others charged is given back. So a request that is
 * refused may take room from another for the time of two calls, and no policy ever admits too much.
 *
 * Once one has failed or the caller has given up, what is charged already is given back at once, whatever the others do, and
 * what a slot charges later as soon as it answers.
 *
 * Refused, it is told the latest of the times that the slots' retry schedules have for it. A second call of each takes that place,
 * or a later one where another was faster. So a schedule that is not the one that refuses may hold a place a little sooner than
 * what was told.
 *
 * Money comes last: the slot of an account is asked once all others have admitted, and charges nothing where one refuses.
 *
 * The first minutes' extra stands in for charges of its own slot alone, and counts as begun when its own slot admits.
 *
 * @throws what the call of a slot throws, after the others have given back; at once when the caller gives up
 */
export async function decideAcrossSlots(
  request: DecisionRequest,
  { slotOf, ask, giveBacks, groupOf }: Slots,
  givenUp?: AbortSignal,
): Promise<StoreDecision> {
  // A look gives nothing back.
  const own = request.commit ? request : { ...request, undo: [] }
  const isWhole = groupOf === undefined ? isOfOneSlot(own, slotOf) : isOfOneGroup(own, groupOf)
  const parts = isWhole ? [wholeOf(own)] : partsOf(own, groupOf ?? (({ partition }) => slotOf(partition)))

  const answered = new Map<Part, StoreDecision>()
  let isOver = false
  let failure: { readonly reason: unknown } | undefined
  /** Those that were not asked to charge anything. */
  const looked = new Set<Part>()
  const takeBack = async (part: Part, decision: StoreDecision): Promise<void> => {
    if (!looked.has(part)) await giveBacks.now(takenBack(part.request, decision))
  }
  const endEarly = async (): Promise<void> => {
    if (isOver) return
    isOver = true
    await Promise.all([...answered].map(([part, decision]) => takeBack(part, decision)))
  }
  const askPart = async (part: Part, askIt: (request: DecisionRequest) => Promise<StoreDecision>): Promise<void> => {
    try {
      const decision = await askIt(part.request)
      if (isOver) await takeBack(part, decision)
      else answered.set(part, decision)
    } catch (reason) {
      failure ??= { reason }
      await endEarly()
    }
  }
  const decideIt = async (request: DecisionRequest): Promise<StoreDecision> => (await ask([request]))[0]!
  const last = own.commit && parts.length > 1 ? parts.filter(isPaid) : []
  const askAll = async (): Promise<void> => {
    await Promise.all(parts.filter((part) => !last.includes(part)).map((part) => askPart(part, decideIt)))
    if (last.length === 0 || failure !== undefined || isOver) return
    const fits = [...answered.values()].every(({ admitted }) => admitted)
    if (!fits) for (const part of last) looked.add(part)
    await Promise.all(last.map((part) => askPart(part, fits ? decideIt : (request) => lookWithoutMoney(request, ask))))
  }
  try {
    await untilGivenUp(askAll(), givenUp)
  } catch (reason) {
    void endEarly()
    throw reason
  }
  if (failure !== undefined) throw failure.reason

  const decisions = parts.map((part) => answered.get(part)!)
  if (parts.length === 1) return decisions[0]!
  if (decisions.every(({ admitted }) => admitted)) return together(parts, decisions, 0)
  const settled = await Promise.all(
    parts.map(async (part, index) =>
      looked.has(part) ? decisions[index]! : await giveBack(part, decisions[index]!, ask, giveBacks),
    ),
  )
  const waitUs = untilAllFit(parts, settled)
  const isPromised = own.commit && own.promise !== false && waitUs !== null
  const refused = together(parts, settled, isPromised ? await promiseAll(parts, settled, waitUs, ask) : waitUs)
  return settled.every(({ admitted, onlyCut }) => admitted || onlyCut) ? { ...refused, onlyCut: true } : refused
}

/** Takes a place in the schedules of all slots, not before a wait is over, and tells how long it then is. */
async function promiseAll(
  parts: readonly Part[],
  decisions: readonly StoreDecision[],
  waitUs: number,
  ask: AskSlot,
): Promise<number> {
  const refused = parts.flatMap(({ request }, index) =>
    request.charges.flatMap(({ shadow, windowUs }, at) => {
      const outcome = decisions[index]!.outcomes[at]!
      return outcome.verdict === 'refused' && !shadow ? [{ windowUs, waitUs: outcome.waitUs ?? 0 }] : []
    }),
  )
  const aloneUs = Math.max(0, ...refused.map((one) => one.waitUs))
  const reachUs = reachOf(Math.max(0, ...refused.map((one) => one.windowUs)))
  // As late as that, nothing was promised.
  if (waitUs >= aloneUs + reachUs) return waitUs
  const waits = await Promise.all(
    parts.map(async ({ request: { charges, tickets } }, index) => {
      const { nowUs } = decisions[index]!
      const promise = { fromUs: nowUs + waitUs, untilUs: nowUs + aloneUs + reachUs }
      // What is not answered is not promised, and as true as it was.
      const [answer] = await ask([{ charges, undo: [], commit: true, promise, ...(tickets && { tickets }) }]).catch(
        () => [],
      )
      return answer === undefined ? waitUs : answer.nowUs + (answer.retryAfterUs ?? 0) - nowUs
    }),
  )
  return Math.max(waitUs, ...waits)
}

function isPaid({ request }: Part): boolean {
  return request.charges.some(({ kind }) => kind === 'credits')
}

/**
 * How a slot's limits stand, of a request that another slot has refused: nothing is charged there, and no money is asked for. What
 * an outer limiter charged is given back all the same.
 */
async function lookWithoutMoney(request: DecisionRequest, ask: AskSlot): Promise<StoreDecision> {
  const charges = request.charges.filter(({ kind }) => kind !== 'credits')
  const undoing = { charges: [], undo: request.undo, commit: true }
  const looking = { ...request, charges, undo: [], commit: false }
  const decision = (await ask(request.undo.length === 0 ? [looking] : [undoing, looking])).at(-1)!
  const outcomes = [...decision.outcomes]
  return {
    ...decision,
    outcomes: request.charges.map(({ kind }) => (kind === 'credits' ? notAsked : outcomes.shift()!)),
  }
}

const notAsked: ChargeOutcome = { verdict: 'spared', remaining: 0, waitUs: 0, resetUs: 0 }

/** Waits for an answer as long as its caller does. */
function untilGivenUp<T>(answer: Promise<T>, givenUp: AbortSignal | undefined): Promise<T> {
  if (givenUp === undefined) return answer
  return new Promise((resolve, reject) => {
    const giveUp = (): void => reject(givenUp.reason as Error)
    if (givenUp.aborted) giveUp()
    givenUp.addEventListener('abort', giveUp, { once: true })
    answer.then(resolve, reject).finally(() => givenUp.removeEventListener('abort', giveUp))
  })
}

/** As most requests are; of one partition no slot has to be computed. */
function isOfOneSlot({ charges, undo }: DecisionRequest, slotOf: SlotOf): boolean {
  const [first, ...others] = new Set(
    [...charges, ...undo.map(({ charge }) => charge)].map(({ partition }) => partition),
  )
  return others.every((partition) => slotOf(partition) === slotOf(first!))
}

function isOfOneGroup({ charges, undo }: DecisionRequest, groupOf: (charge: Charge) => string): boolean {
  return new Set([...charges, ...undo.map(({ charge }) => charge)].map(groupOf)).size <= 1
}

function wholeOf(request: DecisionRequest): Part {
  const { charges, undo } = request
  return { request: { ...request, charges: [...charges], undo: [...undo] }, places: charges.map((_, place) => place) }
}

function partsOf(
  { charges, undo, commit, tickets: terms }: DecisionRequest,
  groupOf: (charge: Charge) => number | string,
): Part[] {
  // A ticket would have to be good in all slots or in none: none is issued. What others have reserved is kept.
  const tickets = terms && { ...terms, share: 0, shown: undefined }
  const parts = new Map<number | string, Part>()
  const partOf = (charge: Charge): Part => {
    const group = groupOf(charge)
    let part = parts.get(group)
    if (part === undefined) {
      // When all may come back is told when all have answered.
      part = { request: { charges: [], undo: [], commit, promise: false, ...(tickets && { tickets }) }, places: [] }
      parts.set(group, part)
    }
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

/** Gives back what a slot charged for a request that another refused, and tells how it stands then. */
async function giveBack(
  { request }: Part,
  decision: StoreDecision,
  ask: AskSlot,
  giveBacks: GiveBacks,
): Promise<StoreDecision> {
  const made = chargedBy(request, decision).filter(({ cost }) => cost > 0)
  if (made.length === 0) return decision
  const undoing = { charges: [], undo: made, commit: true }
  const looking = { ...request, undo: [], commit: false }
  try {
    return (await ask([undoing, looking]))[1]!
  } catch (error) {
    giveBacks.later(made.map(givenBack), error)
    return decision
  }
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
